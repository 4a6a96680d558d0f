"""Windows cut from the clips of a store: random crops for training, evenly spaced ones for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .audio import Scaler
from .store import Store


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
        """Read and scale clips; in blocks, so that float32 copies stay small."""
        rows = np.asarray(rows)
        mel = np.empty((len(rows), *store.log_mel.shape[1:]), np.float16)
        block = max(1, (64 << 20) // (4 * mel[0].size)) if len(rows) else 1
        for i in range(0, len(rows), block):
            t = store.table.loc[rows[i : i + block]]
            mel[i : i + block] = scaler.transform(
                store.decibels(rows[i : i + block]), t["level_db"].to_numpy(), t["tilt_db"].to_numpy()
            )
        frames = torch.as_tensor(store.table.loc[rows, "n_frames"].to_numpy().copy(), dtype=torch.int64)
        return cls(torch.from_numpy(mel).to(device), frames.to(device), store.front_end.frames, rows)

    def __len__(self) -> int:
        return len(self.rows)

    def cut(self, index: Tensor, start: Tensor) -> Tensor:
        """Windows (B, 1, mel, width) float32 of clips `index` (B,) from frames `start` (B,)."""
        t = start[:, None] + torch.arange(self.width, device=self.mel.device)
        bands = torch.arange(self.mel.shape[1], device=self.mel.device)
        return self.mel[index[:, None, None], bands[None, :, None], t[:, None, :]].float().unsqueeze(1)

    def random_windows(self, index: Tensor, per_clip: int = 1) -> Tensor:
        """(B · per_clip, 1, mel, width): random crops; those of one clip follow each other. Global generator."""
        index = index.repeat_interleave(per_clip)
        room = (self.n_frames[index] - self.width + 1).to(torch.float64)
        start = (torch.rand(len(index), dtype=torch.float64, device=room.device) * room).long()
        return self.cut(index, start)

    def even_windows(self, index: Tensor, per_clip: int) -> Tensor:
        """(B, per_clip, 1, mel, width): evenly spaced windows from the first to the last possible one."""
        room = (self.n_frames[index] - self.width).double()
        places = torch.linspace(0, 1, per_clip, dtype=torch.float64) if per_clip > 1 else torch.tensor([0.5])
        start = (room[:, None] * places.to(room)[None]).round().long()
        return self.cut(index.repeat_interleave(per_clip), start.flatten()).unflatten(0, (-1, per_clip))

    def batches(self, batch_size: int, per_clip: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """One shuffled pass: (windows (B · per_clip, 1, mel, width), clip numbers (B,)). Global generator.

        The last batch is filled up from the start of the order, so that every step has the same size.
        """
        n, device = len(self), self.mel.device
        order = torch.randperm(n, device=device)
        steps = -(-n // batch_size)
        order = order.repeat(-(-steps * batch_size // n))[: steps * batch_size]
        for i in range(0, len(order), batch_size):
            index = order[i : i + batch_size]
            yield self.random_windows(index, per_clip), index


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

    def batches(self, batch_size: int, per_clip: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass like `Clips.batches`; the last batch of a pool is filled up from that pool."""
        for position in self._pools():
            pool = Clips.read(self.store, self.scaler, self.rows[position], self.device)
            for x, index in pool.batches(batch_size, per_clip):
                yield x, torch.as_tensor(position, device=index.device)[index]

    def _pools(self) -> list[np.ndarray]:
        """Positions in `rows`, whole chunks together, chunks in random order."""
        chunk = self.rows // self.store.log_mel.chunks[0]
        groups = [np.flatnonzero(chunk == c) for c in np.unique(chunk)]
        groups = [groups[i] for i in torch.randperm(len(groups)).tolist()]
        pools: list[list[np.ndarray]] = [[]]
        for g in groups:
            if pools[-1] and sum(map(len, pools[-1])) + len(g) > self.pool_clips:
                pools.append([])
            pools[-1].append(g)
        if len(pools) > 1 and sum(map(len, pools[-1])) < self.pool_clips // 2:
            rest = pools.pop()  # alone, a few clips would fill a whole batch
            pools[-1] += rest
        return [np.sort(np.concatenate(p)) for p in pools]
