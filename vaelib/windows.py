"""Windows cut from the clips of a store: random crops for training, evenly spaced ones for evaluation."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .config import InputError, writing

if TYPE_CHECKING:
    from .audio import Scaler
    from .models import VAE, Posterior
    from .store import Store

BLOCK_BYTES = 16 << 20  # float32 of the clips that are read and scaled at a time
ENCODED = 64  # clips that are encoded at a time
WHOLE = (0, 1)  # the share of a process (its number, of how many) that is alone
Device = torch.device | str


@dataclass
class Clips:
    """Scaled spectrograms of some clips; what is random is drawn from PyTorch's generator on the CPU."""

    mel: Tensor  # (clip, mel, frame) float16 in [0, 1], on the device, or in a file that is mapped into memory
    n_frames: Tensor  # (clip,) valid frames
    width: int  # frames of one window
    rows: np.ndarray  # (clip,) row numbers in the store
    device: Device = "cpu"  # where windows are put

    @classmethod
    def read(
        cls, store: Store, scaler: Scaler, rows: np.ndarray, device: Device = "cpu", spill: Path | None = None
    ) -> Clips:
        """Read and scale what models see of some clips, onto a device, or into a file in `spill` that nobody sees."""
        rows, shape = np.asarray(rows), (len(rows), store.front_end.n_mels, store.heard_frames)
        mel = np.empty(0 if spill else shape, np.float16)
        if spill:
            with writing(spill), tempfile.TemporaryFile(dir=spill) as file:
                os.posix_fallocate(file.fileno(), 0, 2 * math.prod(shape))  # a full disk is found here
                mel = np.memmap(file, np.float16, "r+", shape=shape)
        block = max(1, BLOCK_BYTES // (4 * shape[1] * shape[2]))
        for some in (slice(i, i + block) for i in range(0, len(rows), block)):
            mel[some] = store.scaled(rows[some], scaler, shape[2])
        mel = torch.from_numpy(mel).to("cpu" if spill else device)
        frames = store.table.loc[rows, "n_frames"].clip(upper=shape[2]).to_numpy(np.int64)
        return cls(mel, torch.tensor(frames, device=mel.device), store.front_end.frames, rows, torch.device(device))

    def __len__(self) -> int:
        return len(self.rows)

    def cut(self, index: Tensor, start: Tensor) -> Tensor:
        """Windows (B, 1, mel, width) float32 of clips `index` (B,) from frames `start` (B,)."""
        t = start[:, None] + torch.arange(self.width, device=self.mel.device)
        bands = torch.arange(self.mel.shape[1], device=self.mel.device)
        windows = self.mel[index[:, None, None], bands[None, :, None], t[:, None, :]]
        return windows.to(self.device).float().unsqueeze(1)

    def random_windows(self, index: Tensor, per_clip: int = 1, share: tuple[int, int] = WHOLE) -> Tensor:
        """(B · per_clip, 1, mel, width) random crops, those of a clip after each other; only the `share` is cut."""
        index = index.repeat_interleave(per_clip)
        places = (self.n_frames[index] - self.width + 1).to(torch.float64)
        draws = torch.rand(len(index), dtype=torch.float64, pin_memory=places.is_cuda)  # a GPU takes it without a wait
        start = (draws.to(places.device, non_blocking=True) * places).long()
        return self.cut(*(part.tensor_split(share[1])[share[0]] for part in (index, start)))

    def even_windows(self, index: Tensor, per_clip: int) -> Tensor:
        """(B, per_clip, 1, mel, width): evenly spaced windows from the first to the last possible one."""
        last = (self.n_frames[index] - self.width).double()
        places = torch.linspace(0, 1, per_clip, dtype=torch.float64) if per_clip > 1 else torch.tensor([0.5])
        start = (last[:, None] * places.to(last)[None]).round().long()
        return self.cut(index.repeat_interleave(per_clip), start.flatten()).unflatten(0, (-1, per_clip))

    def batches(self, size: int, per_clip: int = 1, share: tuple[int, int] = WHOLE) -> Iterator[tuple[Tensor, Tensor]]:
        """One shuffled pass in batches of `size` clips: windows (B · per_clip, 1, mel, width), clip numbers (B,).

        The last batch is filled up from the start. Of several processes each gets its `share` of every batch.
        """
        order, padded = torch.randperm(len(self)), -(-len(self) // size) * size
        for index in order[torch.arange(padded) % len(self)].to(self.mel.device).split(size):
            own = index.tensor_split(share[1])[share[0]]
            yield self.random_windows(index, per_clip, share), own.to(self.device)

    def some(self, most: int) -> Clips:
        """At most so many clips, evenly chosen."""
        if len(self) <= most:
            return self
        index = torch.linspace(0, len(self) - 1, most, device=self.mel.device).long()
        return Clips(self.mel[index], self.n_frames[index], self.width, self.rows[index.cpu().numpy()], self.device)

    def distinct(self, windows: int) -> int:
        """How many of so many evenly spaced windows differ: one, where no clip is longer than a window."""
        return windows if len(self) and int(self.n_frames.max()) > self.width else 1


@torch.inference_mode()
def encode_windows(
    model: VAE, clips: Clips, windows: int, y: Tensor | None = None, marginal: bool = False
) -> Posterior:
    """Posteriors of evenly spaced windows: mean and log-variance (clip, window, L), class logits (clip, window, C).

    A conditional model is given the classes `y` (clip,), or the choice or (`marginal`) probabilities of its class head.
    """
    windows, parts = clips.distinct(windows), []
    for index in torch.arange(len(clips), device=clips.mel.device).split(ENCODED):
        x = clips.even_windows(index, windows).flatten(0, 1)
        given = None if y is None else y[index].repeat_interleave(windows).to(x.device)
        parts.append(model.encode(x, model.encode(x).class_logits.softmax(1) if marginal else given))
    joined = (None if p[0] is None else torch.cat(p).unflatten(0, (-1, windows)) for p in zip(*parts, strict=True))
    return type(parts[0])(*joined)


class Data(NamedTuple):
    """What a model is trained on and validated with."""

    train: Clips
    validation: Clips
    train_y: Tensor  # (clip,) class indices, -1: unknown
    validation_y: Tensor


def _free_memory() -> int:
    """Bytes that can be had without swapping, the page cache among them."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def load_data(
    store: Store, scaler: Scaler, condition: str, device: torch.device, folder: Path, processes: int = 1
) -> Data:
    """Read the clips onto the device or into memory if they fit, else into a mapped file in `folder`.

    `condition`: the label whose classes are wanted, or ""; `processes`: of this machine, that each read the clips.
    InputError: fewer than two training clips.
    """
    train, validation = store.rows("train"), store.rows("validation")
    if len(train) < 2:
        raise InputError(f"{store.path.name} has {len(train)} training clips; training needs at least two")
    need = len(train) * 2 * store.front_end.n_mels * store.heard_frames
    cuda = device.type == "cuda"  # a GPU is a process's own, memory is the machine's
    free = torch.cuda.mem_get_info(device)[0] if cuda else _free_memory() / processes
    clips = Clips.read(store, scaler, train, device, None if need < 0.5 * free else folder)
    y = [store.codes(condition, rows) if condition else np.full(len(rows), -1) for rows in (train, validation)]
    return Data(clips, Clips.read(store, scaler, validation, device), *(torch.as_tensor(v, device=device) for v in y))
