"""Peak memory: of preprocessing more and more clips, and of training from a store that is larger than its pool.

Every figure is the largest resident size of a fresh process, as the kernel counts it (`VmHWM`).
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaelib.config import FrontEnd, InputError

from .preprocessing import folders

CLIPS = (500, 2000, 8000)  # of the corpora that are preprocessed
FILES, SECONDS = 30, 0.65  # distinct ones, the rest are hard links; how much longer than a window they are
WORKERS = 2
POOL, POOLS = 1024, (1, 10)  # clips that training holds in memory; how many times that the stores have
WIDTHS, CHUNK = 8, 32  # of a store to train from: windows in a clip, clips in a chunk


def peak() -> int:
    """Bytes: the largest resident size that this process ever had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(
    fe: FrontEnd, *, clips: Sequence[int] = CLIPS, pool: int = POOL, show: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Peak memory of preprocessing and of training.

    Args:
        fe: The front end.
        clips: Sizes of the corpora; at least 4 each.
        pool: Clips that the training holds at a time.
        show: Gets lines of progress.

    Returns:
        `preprocessing`, a row for each size: bytes of the driver with two threads (`threads`), of the driver with two
        worker processes (`driver`), of the larger of those (`worker`), and after the imports (`imports`).
        `training`, a row for each of `POOLS`: clips to train on and bytes (`peak`, `imports`).

    Raises:
        ModuleNotFoundError: soundfile or a package of the store is not installed.
        InputError: a process was killed, or this system does not tell a process's peak.
    """
    import distributed  # noqa: F401 (missed here, not in another process)
    import soundfile  # noqa: F401
    import xarray  # noqa: F401

    if not Path("/proc/self/status").is_file():
        raise InputError("the peak of a process is read in /proc, which this system does not have")
    rows = []
    with tempfile.TemporaryDirectory(prefix="vaelib-bench-") as folder:
        for n in clips:
            corpus = _corpus(Path(folder), n, fe)
            show(f"preprocessing {n} clips in {WORKERS} threads")
            alone = _apart(_build, corpus, fe, False)
            show(f"preprocessing {n} clips in {WORKERS} processes")
            shared = _apart(_build, corpus, fe, True)
            rows.append({"clips": n, "imports": alone["imports"], "threads": alone["driver"],
                         "driver": shared["driver"], "worker": shared["worker"]})  # fmt: skip
        trained = []
        for times in POOLS:
            show(f"training from a store of {times} × {pool} clips")
            store = _store(Path(folder) / f"{times}.zarr", fe, times * pool)
            trained.append({"pools": times, "clips": times * pool} | _apart(_train, store, pool))
    return {"profile": fe.name, "preprocessing": rows, "training": trained, "workers": WORKERS, "pool": pool,
            "pool_bytes": 2 * pool * fe.n_mels * WIDTHS * fe.frames}  # fmt: skip


def _apart(work: Callable, *given: Any) -> dict[str, int]:
    """What `work` returns in a process of its own that is not forked from this one, with folders of its own."""
    with folders(), ProcessPoolExecutor(1, get_context("spawn")) as process:
        try:
            return process.submit(work, *given).result()
        except BrokenProcessPool as e:
            raise InputError(f"a process whose memory was measured died ({e}): too little memory?") from e


def _corpus(folder: Path, n: int, fe: FrontEnd) -> Path:
    """A folder of `n` short clips, hard links of a few."""
    import soundfile

    corpus, files = folder / f"clips-{n}", folder / "files"
    corpus.mkdir()
    if not files.is_dir():
        files.mkdir()
        rng, samples = np.random.default_rng(0), fe.min_samples + round(SECONDS * fe.sample_rate)
        pulse = 0.6 + 0.4 * np.sin(np.arange(samples) * 4 * np.pi / fe.sample_rate)
        for i in range(FILES):
            wave = 0.3 * pulse * np.sin(np.arange(samples) * (0.02 + 0.01 * i)) + 0.01 * rng.normal(size=samples)
            soundfile.write(files / f"{i:02d}.flac", wave.astype(np.float32), fe.sample_rate)
    for i in range(n):
        os.link(files / f"{i % FILES:02d}.flac", corpus / f"{i:06d}.flac")
    return corpus


def _build(corpus: Path, fe: FrontEnd, processes: bool) -> dict[str, int]:
    """Preprocess a corpus in threads of this process, or in workers of their own."""
    from distributed import Client, LocalCluster

    from vaelib.store import build_store

    found = {"imports": peak()}
    with contextlib.redirect_stderr(io.StringIO()), contextlib.ExitStack() as stack:
        if not processes:
            build_store(corpus, fe, workers=WORKERS)
            return found | {"driver": peak()}
        options = {"threads_per_worker": 1, "dashboard_address": None, "memory_limit": 0}
        cluster = stack.enter_context(LocalCluster(n_workers=WORKERS, **options))
        client = stack.enter_context(Client(cluster, set_as_default=False))
        build_store(corpus, fe, client=client)
        return found | {"driver": peak(), "worker": max(client.run(peak).values())}


def _store(path: Path, fe: FrontEnd, train: int) -> Path:
    """A mel store of noise, made without audio: clips to train on, and an eighth of them to validate."""
    import json

    import xarray as xr
    import zarr

    n, frames, text = train + max(1, train // 8), WIDTHS * fe.frames, np.array(["train", "validation"], object)
    coords = {
        "path": ("clip", np.array([f"{i:06d}" for i in range(n)], object)),
        "split": ("clip", text[(np.arange(n) >= train).astype(int)]),
        "n_frames": ("clip", np.full(n, frames, np.int32)),
        "level_db": ("clip", np.full(n, -30, np.float32)),
        "tilt_db": ("clip", np.zeros(n, np.float32)),
    }
    attrs = {"corpus": "noise", "fingerprint": "noise", "front_end": json.dumps(fe.to_dict()), "factors": []}
    attrs |= {"windows": "anywhere", "units": {}}
    xr.Dataset(coords=coords, attrs=attrs).to_zarr(path, mode="w", zarr_format=3, consolidated=False)
    shape, chunks = (n, fe.n_mels, frames), (CHUNK, fe.n_mels, frames)
    array = zarr.open_group(path, mode="a").create_array(
        "log_mel", shape=shape, chunks=chunks, dtype="float16", dimension_names=("clip", "mel", "frame")
    )
    noise = np.random.default_rng(0).normal(-50, 15, chunks).astype(np.float16)
    for i in range(0, n, CHUNK):
        array[i : i + CHUNK] = noise[: n - i]
    return path


def _train(path: Path, pool: int) -> dict[str, int]:
    """One epoch of the Conv VAE, streamed as if only `pool` clips fitted in memory."""
    from vaelib.runs import plan
    from vaelib.store import open_store
    from vaelib.training import Trainer
    from vaelib.windows import StreamedClips

    found = {"imports": peak()}
    store = open_store(path)
    rows = store.rows("train")
    first = replace(store, table=store.table.drop(index=rows[pool:]))  # this much is read before streaming
    trainer = Trainer(plan(store, "conv_vae", epochs=1), first)
    trainer.data.train = StreamedClips(store, trainer.scaler, rows, pool, trainer.device)
    trainer.data.train_y = torch.full((len(rows),), -1, device=trainer.device)
    trainer.run()
    return found | {"peak": peak()}
