"""Rendered corpora, because nothing can be downloaded: 45 synthetic styles in five languages, and a mixing desk.

Every clip has ground-truth factors, drawn independently and stratified within its genre. The styles are what the
tables in `data/demo/` say, no more: they are not evidence about the traditions whose names they borrow.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from vaelib.config import InputError, one_of, write_atomic
from vaelib.demo.dials import (
    CLIPS,
    FIXED,
    LADDER,
    RECORD,
    RENDERING,
    VARIATION,
    corpus_name,
    fixed_factors,
    read_record,
    rung,
)
from vaelib.demo.factors import DESK, FACTORS, UNITS, draw_factors, draw_levels
from vaelib.demo.render import DESK_GENRE, Job, read_row, render_clip, start_worker
from vaelib.demo.tables import load_tables
from vaelib.demo.voice import build_bank
from vaelib.progress import Progress

__all__ = ["CLIPS", "COLUMNS", "DESK", "FACTORS", "FIXED", "LADDER", "UNITS", "VARIATION"]
__all__ += ["corpus_name", "read_record", "render_corpus", "rung"]

LABELS = ("path", "language", "genre", "family")
COLUMNS = {
    "styles": (*LABELS, *FACTORS, "bpm", "vocal_active_share", "phrases", "seed"),
    "desk": (*LABELS, *DESK),
}
PACKAGES = ("tinysoundfont", "pretty_midi", "espeakng-loader", "numpy", "scipy", "soundfile")


def render_corpus(
    folder: Path,
    *,
    demo: str = "styles",
    clips_per_genre: int = 0,
    seconds: float = 6.0,
    composition: float = 0.0,
    variation: float = VARIATION,
    fixed: Sequence[str] | str = FIXED,
    seed: int = 0,
    workers: int | None = None,
    genres: Sequence[str] | None = None,
) -> Path:
    """Render a corpus into `folder`, or finish what an interrupted call began.

    The same arguments and package versions give the same bytes with any number of workers. More than one worker
    means new processes: a script that calls this keeps its own work under `if __name__ == "__main__":`.

    Args:
        folder: Receives `audio/<language>/<genre>/*.flac` (22,050 Hz, mono, 16 bit) and, last, `manifest.csv`.
        demo: `styles`, or `desk`: the five stems of one loop mixed at independent levels; it has none of the dials
            `composition`, `variation` and `fixed`, and one genre.
        clips_per_genre: Clips of each genre; 0: as many as `CLIPS` says.
        seconds: Length of a clip.
        composition: Share of phrases that are composed anew, from 0 (every clip plays its genre's loop) to 1.
        variation: How far the factors reach, from 0 (not at all) to 1.
        fixed: Factors that do not vary: names, or one word (`tempo+key`).
        seed: Of factors and compositions.
        workers: Processes; all cores by default.
        genres: Some rows of `genres.csv`; all by default.

    Returns:
        Path of the manifest: one row per clip, `COLUMNS[demo]`.

    Raises:
        InputError: An argument is out of range, the folder holds another corpus or one rendered by another version of
            the code, or a package is missing.
    """
    folder, tables = Path(folder), load_tables()
    clips = clips_per_genre or CLIPS[one_of("demo", demo, CLIPS)]
    dials = {"composition": composition, "variation": variation, "fixed": list(fixed_factors(fixed))}
    workers = _checked(clips, seconds, composition, variation, seed, workers)
    parameters = {"demo": demo, "clips_per_genre": clips, "seconds": seconds, "seed": seed}
    if demo == "desk":
        if genres is not None or dials != {"composition": 0, "variation": VARIATION, "fixed": list(FIXED)}:
            raise InputError("the desk is one loop: composition, variation, fixed and genres are not its dials")
        names, drawn = [DESK_GENRE], [draw_levels(tables, clips, seed)]
    else:
        names = [one_of("genre", g, tables.genres) for g in genres] if genres is not None else list(tables.genres)
        if not names or len(set(names)) < len(names):
            raise InputError(f"genres must name at least one genre and none twice, not {list(genres or [])}")
        parameters |= dials
        drawn = [draw_factors(tables.genres[g], tables, clips, variation, seed, dials["fixed"]) for g in names]
    parameters |= {"genres": names, "tables": tables.digest, "rendering": RENDERING}
    manifest = folder / "manifest.csv"
    jobs = [
        Job(folder, demo, name, i, factors, seconds, seed, composition)
        for name, some in zip(names, drawn, strict=True)
        for i, factors in enumerate(some)
    ]
    _claim(folder, parameters, manifest)
    if manifest.exists() and all((folder / job.path).exists() for job in jobs):
        return manifest
    rows = list(_render(jobs, workers))
    return write_atomic(manifest, _csv(rows, COLUMNS[demo]))


def _checked(clips: int, seconds: float, composition: float, variation: float, seed: int, workers: int | None) -> int:
    """Refuse bad arguments; return the number of workers."""
    workers = (os.cpu_count() or 1) if workers is None else workers
    for name, value, low in (("clips_per_genre", clips, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise InputError(f"{name} must be a whole number of at least {low}, not {value!r}")
    ranges = (("seconds", seconds, 1, 600), ("composition", composition, 0, 1), ("variation", variation, 0, 1))
    for name, value, low, high in ranges:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise InputError(f"{name} must be a number from {low} to {high}, not {value!r}")
    return workers


def _claim(folder: Path, parameters: dict[str, Any], manifest: Path) -> None:
    """Write `corpus.json`, or check that the one there describes the same corpus."""
    record, versions = folder / RECORD, {name: _version(name) for name in PACKAGES}
    if not record.exists():
        try:
            write_atomic(record, json.dumps({**parameters, "versions": versions}, indent=2) + "\n")
        except OSError as e:
            raise InputError(f"the demo corpus cannot be written to {folder}: {e.strerror}") from e
        return
    there = read_record(folder)
    if not there:
        raise InputError(f"{record} is no record of a rendered corpus: choose another folder, or delete it")
    wanted = {**parameters, "versions": versions}
    if manifest.exists():  # a finished corpus stays good when a package is updated
        wanted["versions"] = there.get("versions")
    other = [key for key, value in wanted.items() if there.get(key) != value]
    if other:
        raise InputError(
            f"{folder} holds a demo corpus with other {', '.join(other)}: choose another folder or delete it"
        )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _render(jobs: list[Job], workers: int) -> Iterator[dict[str, Any]]:
    """Manifest rows in the order of the jobs; finished clips are read, the others rendered."""
    rows = {job.path: row for job in jobs if (row := read_row(job.folder / job.path, job.samples)) is not None}
    todo = [job for job in jobs if job.path not in rows]
    progress = Progress("demo corpus", total=len(todo), unit="clips")
    with tempfile.TemporaryDirectory(prefix="vaelib-voices-") as temporary:
        bank = Path(temporary) / "voices.npz"
        bank = bank if todo and build_bank(bank) else None
        for job, row in zip(todo, _map(todo, min(workers, len(todo)), bank), strict=True):
            rows[job.path] = row
            progress.step()
    progress.close()
    return (rows[job.path] for job in jobs)


def _map(jobs: list[Job], workers: int, bank: Path | None) -> Iterator[dict[str, Any]]:
    if workers <= 1:
        if jobs:
            start_worker(bank)
        yield from map(render_clip, jobs)
        return
    # spawn: a forked copy of a notebook kernel, with its threads, may hang
    with ProcessPoolExecutor(workers, get_context("spawn"), start_worker, (bank,)) as pool:
        try:
            yield from pool.map(render_clip, jobs, chunksize=4)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _csv(rows: list[dict[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
