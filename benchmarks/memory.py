"""Peak memory of preprocessing more and more clips.

Every figure is the largest resident size of a fresh process, as the kernel counts it (`VmHWM`).
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from vaelib.config import FrontEnd

from .preprocessing import folders

CLIPS = (500, 2000, 8000)  # of the corpora that are preprocessed
FILES, SECONDS = 30, 0.65  # distinct ones, the rest are hard links; how much longer than a window they are
WORKERS = 2


def peak() -> int:
    """Bytes: the largest resident size that this process ever had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(
    fe: FrontEnd, *, clips: Sequence[int] = CLIPS, show: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Peak memory of preprocessing corpora of so many `clips` (at least 4 each).

    Returns:
        `preprocessing`, a row for each size: bytes of the driver with two threads (`threads`), of the driver with two
        worker processes (`driver`), of the larger of those (`worker`), and after the imports (`imports`).
    """
    import distributed  # noqa: F401 (missed here, not in another process)
    import soundfile  # noqa: F401

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
    return {"profile": fe.name, "preprocessing": rows, "workers": WORKERS}


def _apart(work: Callable, *given: Any) -> dict[str, int]:
    """What `work` returns in a process of its own that is not forked from this one, with folders of its own."""
    with folders(), ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work, *given).result()


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
        os.environ["DASK_SCHEDULER_ADDRESS"] = client.scheduler.address
        build_store(corpus, fe)
        return found | {"driver": peak(), "worker": max(client.run(peak).values())}
