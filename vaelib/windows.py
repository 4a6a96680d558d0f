"""Windows cut from the clips of a store: random crops for training, evenly spaced ones for evaluation.

Imports only torch and numpy: a host without the store's libraries can cut windows from tensors of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .config import InputError

if TYPE_CHECKING:
    from .audio import Scaler
    from .models import VAE, Posterior
    from .store import Store

BLOCK_BYTES = 16 << 20  # float32 of the clips that are read and scaled at a time; NumPy makes about four copies of it
ENCODED = 64  # clips that are encoded at a time
WHOLE = (0, 1)  # the share of a process that is alone


def own_part(n: int, share: tuple[int, int]) -> slice:
    """Which of `n` examples belong to process `share[0]` of `share[1]`: equal parts, one after the other."""
    rank, processes = share
    return slice(rank * n // processes, (rank + 1) * n // processes)


@dataclass
class Clips:
    """Scaled spectrograms of some clips and windows cut from them.

    Attributes:
        mel: (clip, mel, frame) float16 in [0, 1], in memory or on the device.
        n_frames: (clip,) valid frames.
        width: Frames of one window.
        rows: (clip,) row numbers in the store.
    """

    mel: Tensor
    n_frames: Tensor
    width: int
    rows: np.ndarray

    @classmethod
    def read(cls, store: Store, scaler: Scaler, rows: np.ndarray, device: torch.device | str = "cpu") -> Clips:
        """Read and scale what models see of some clips; in blocks, so that float32 copies stay small."""
        rows, heard = np.asarray(rows), store.heard_frames
        mel = np.empty((len(rows), store.front_end.n_mels, heard), np.float16)
        block = max(1, BLOCK_BYTES // (4 * mel[0].size)) if len(rows) else 1
        for i in range(0, len(rows), block):
            t = store.table.loc[rows[i : i + block]]
            db = store.decibels(rows[i : i + block])[..., :heard]
            mel[i : i + block] = scaler.transform(db, t["level_db"].to_numpy(), t["tilt_db"].to_numpy())
        frames = store.table.loc[rows, "n_frames"].clip(upper=heard).to_numpy(np.int64)
        return cls(torch.from_numpy(mel).to(device), torch.tensor(frames).to(device), store.front_end.frames, rows)

    def __len__(self) -> int:
        return len(self.rows)

    def cut(self, index: Tensor, start: Tensor) -> Tensor:
        """Windows (B, 1, mel, width) float32 of clips `index` (B,) from frames `start` (B,)."""
        t = start[:, None] + torch.arange(self.width, device=self.mel.device)
        bands = torch.arange(self.mel.shape[1], device=self.mel.device)
        return self.mel[index[:, None, None], bands[None, :, None], t[:, None, :]].float().unsqueeze(1)

    def random_windows(self, index: Tensor, per_clip: int = 1, share: tuple[int, int] = WHOLE) -> Tensor:
        """(B · per_clip, 1, mel, width): random crops; those of one clip follow each other. Global generator.

        Places are drawn for all B clips; only the windows of `share` (process, processes) are cut.
        """
        index = index.repeat_interleave(per_clip)
        places = (self.n_frames[index] - self.width + 1).to(torch.float64)
        start = (torch.rand(len(index), dtype=torch.float64, device=places.device) * places).long()
        own = own_part(len(index), share)
        return self.cut(index[own], start[own])

    def even_windows(self, index: Tensor, per_clip: int) -> Tensor:
        """(B, per_clip, 1, mel, width): evenly spaced windows from the first to the last possible one."""
        last = (self.n_frames[index] - self.width).double()
        places = torch.linspace(0, 1, per_clip, dtype=torch.float64) if per_clip > 1 else torch.tensor([0.5])
        start = (last[:, None] * places.to(last)[None]).round().long()
        return self.cut(index.repeat_interleave(per_clip), start.flatten()).unflatten(0, (-1, per_clip))

    def batches(
        self, batch_size: int, per_clip: int = 1, share: tuple[int, int] = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One shuffled pass: (windows (B · per_clip, 1, mel, width), clip numbers (B,)). Global generator.

        The last batch is filled up from the start of the order, so that every step has the same size.

        Args:
            batch_size: Clips per step of all processes together.
            per_clip: Windows of each clip.
            share: (process, processes): of every batch only that process's part; the draws are those of the whole.
        """
        n, device = len(self), self.mel.device
        order = torch.randperm(n, device=device)
        steps = -(-n // batch_size)
        order = order.repeat(-(-steps * batch_size // n))[: steps * batch_size]
        for index in order.split(batch_size):
            yield self.random_windows(index, per_clip, share), index[own_part(len(index), share)]

    def in_order(self) -> Iterator[Clips]:
        """All clips; here in one piece."""
        yield self

    def some(self, most: int) -> Clips:
        """At most so many clips, evenly chosen."""
        if len(self) <= most:
            return self
        index = torch.linspace(0, len(self) - 1, most, device=self.mel.device).long()
        return Clips(self.mel[index], self.n_frames[index], self.width, self.rows[index.cpu().numpy()])

    def distinct(self, windows: int) -> int:
        """How many of so many evenly spaced windows differ: one, where no clip is longer than a window."""
        return windows if len(self) and int(self.n_frames.max()) > self.width else 1


@dataclass
class StreamedClips:
    """Like `Clips`, for a store that does not fit: chunks are read in random order and mixed in a pool.

    Attributes:
        store, scaler, rows: What to read.
        pool_clips: Clips held in memory at a time; shuffling reaches that far.
        device: Where the windows are put.
    """

    store: Store
    scaler: Scaler
    rows: np.ndarray
    pool_clips: int = 1024
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return len(self.rows)

    def batches(
        self, batch_size: int, per_clip: int = 1, share: tuple[int, int] = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass like `Clips.batches`; the last batch of a pool is filled up from that pool."""
        for position in self._pools():
            pool = Clips.read(self.store, self.scaler, self.rows[position], self.device)
            for x, index in pool.batches(batch_size, per_clip, share):
                yield x, torch.as_tensor(position, device=index.device)[index]
            del pool  # before the next is read: never two in memory

    def in_order(self) -> Iterator[Clips]:
        """All clips in the order of `rows`, as many at a time as a pool holds."""
        for i in range(0, len(self), self.pool_clips):
            yield Clips.read(self.store, self.scaler, self.rows[i : i + self.pool_clips], self.device)

    def some(self, most: int) -> StreamedClips:
        """At most so many clips, evenly chosen."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).astype(int))
        return StreamedClips(self.store, self.scaler, self.rows[chosen], self.pool_clips, self.device)

    def distinct(self, windows: int) -> int:
        """Like `Clips.distinct`."""
        longest = self.store.table.loc[self.rows, "n_frames"].clip(upper=self.store.heard_frames).max()
        return windows if longest > self.store.front_end.frames else 1

    def _pools(self) -> list[np.ndarray]:
        """Positions in `rows`, whole chunks together, chunks in random order."""
        chunk = self.rows // self.store.log_mel.chunks[0]
        groups = [np.flatnonzero(chunk == c) for c in np.unique(chunk)]
        pools: list[list[np.ndarray]] = [[]]
        for g in (groups[i] for i in torch.randperm(len(groups)).tolist()):
            if pools[-1] and sum(map(len, pools[-1])) + len(g) > self.pool_clips:
                pools.append([])
            pools[-1].append(g)
        if len(pools) > 1 and sum(map(len, pools[-1])) < self.pool_clips // 2:
            rest = pools.pop()  # alone, a few clips would fill a whole batch
            pools[-1] += rest
        return [np.sort(np.concatenate(p)) for p in pools]


@torch.inference_mode()
def encode_windows(
    model: VAE, clips: Clips | StreamedClips, windows: int, y: Tensor | None = None, marginal: bool = False
) -> Posterior:
    """Posteriors of evenly spaced windows: mean and log-variance (clip, window, L), class logits (clip, window, C).

    Where no clip is longer than a window there is one window, not several equal ones.

    Args:
        model: In evaluation mode.
        windows: Of each clip; 1: the middle one.
        y: (clip,) class indices for a conditional model; None: its class head's choice.
        marginal: Instead, the class head's probabilities.
    """
    windows, parts, done = clips.distinct(windows), [], 0
    for pool in clips.in_order():
        for index in torch.arange(len(pool), device=pool.mel.device).split(ENCODED):
            x = pool.even_windows(index, windows).flatten(0, 1)
            given = None if y is None else y[done : done + len(index)].repeat_interleave(windows)
            given = model.encode(x).class_logits.softmax(1) if marginal else given
            parts.append(model.encode(x, given))
            done += len(index)
        del pool  # before the next is read: never two in memory
    joined = (None if p[0] is None else torch.cat(p).unflatten(0, (-1, windows)) for p in zip(*parts, strict=True))
    return type(parts[0])(*joined)


@dataclass
class Data:
    """Training and validation clips with their class indices (-1: unknown)."""

    train: Clips | StreamedClips
    validation: Clips
    train_y: Tensor
    validation_y: Tensor


def _free_memory() -> int:
    """Bytes that can be had without swapping, the page cache among them."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def load_data(store: Store, scaler: Scaler, condition: str, device: torch.device, processes: int = 1) -> Data:
    """Read the training and validation clips: onto the device or into memory if they fit, else streamed.

    Args:
        condition: Label whose classes are wanted; "": none.
        processes: Processes of this machine that each read them.

    Raises:
        InputError: fewer than two training clips.
    """
    train, validation = store.rows("train"), store.rows("validation")
    if len(train) < 2:
        raise InputError(f"{store.path.name} has {len(train)} training clips; training needs at least two")
    need = len(train) * 2 * store.front_end.n_mels * store.heard_frames
    # the processes of a machine share its memory, but each has a GPU of its own
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _free_memory() / processes
    whole = torch.tensor(float(need < 0.5 * free), device=device)
    if processes > 1:  # all the same way, or they would take different numbers of steps
        torch.distributed.all_reduce(whole, torch.distributed.ReduceOp.MIN)
    clips = (Clips.read if whole else StreamedClips)(store, scaler, train, device=device)
    y = [store.codes(condition, rows) if condition else np.full(len(rows), -1) for rows in (train, validation)]
    return Data(clips, Clips.read(store, scaler, validation, device), *(torch.as_tensor(v, device=device) for v in y))
