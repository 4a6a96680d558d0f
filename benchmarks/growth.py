"""Memory and time of a collection that grows: preprocessing, saved list of clips, clusters, maps, neighbours.

Memory is the largest resident size of a fresh process, as the kernel counts it (`VmHWM`).
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from vaelib.config import FrontEnd

from .preprocessing import folders

FILES, SECONDS = 30, 0.65  # distinct ones, the rest are hard links; how much longer than a window they are
WORKERS, GENRES, LATENT = 2, 45, 128


def peak() -> int:
    """Bytes: the largest resident size that this process ever had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(
    fe: FrontEnd, *, sizes: Sequence[int], show: Callable[[str], None] = lambda line: None
) -> list[dict[str, float]]:
    """A row for each number of clips (at least 45).

    Bytes (`driver`) and seconds (`build_s`) of preprocessing in two threads, and seconds of what works on latent codes.
    """
    import soundfile  # noqa: F401 (missed here, not in another process)

    rows = []
    with tempfile.TemporaryDirectory(prefix="vaelib-bench-") as folder:
        for n in sizes:
            corpus = _corpus(Path(folder), n, fe)
            found = {"clips": n}
            for work, given in ((_build, (corpus, fe)), (_analyse, (n,))):
                show(f"{n} clips: {work.__name__.strip('_').replace('_', ' ')}")
                # a process of its own that is not forked from this one, with folders of its own
                with folders(), ProcessPoolExecutor(1, get_context("spawn")) as process:
                    found |= process.submit(work, *given).result()
            rows.append(found)
    return rows


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


def _timed(work: Callable) -> tuple[object, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _build(corpus: Path, fe: FrontEnd) -> dict[str, float]:
    """Preprocess a corpus in threads of this process, then write the saved list of its clips."""
    from vaelib.store import build_store, open_store

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        path, seconds = _timed(lambda: build_store(corpus, fe, workers=WORKERS))
    found = {"driver": peak(), "build_s": seconds}
    from vaelib.explore import clip_browser

    store = open_store(path)
    page, seconds = _timed(lambda: clip_browser(store, store.fit_scaler()).offline)
    return found | {"page_s": seconds, "page_bytes": len(page.encode())}


def _analyse(n: int) -> dict[str, float]:
    """Seconds of clusters, map and neighbours of `n` codes that lie around as many centres as there are genres."""
    from vaelib.metrics.clustering import kmeans_assign, nearest, project

    rng = np.random.default_rng(0)
    codes = (rng.normal(size=(GENRES, LATENT))[np.arange(n) % GENRES] + rng.normal(size=(n, LATENT))).astype(np.float32)
    project(codes[:200])  # compiles
    work = {"kmeans_s": lambda: kmeans_assign(codes, codes, GENRES, 0), "map_s": lambda: project(codes),
            "neighbours_s": lambda: nearest(codes, codes, 9)}  # fmt: skip
    return {name: _timed(call)[1] for name, call in work.items()}
