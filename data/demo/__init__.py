"""Rendered corpora, because nothing can be downloaded: 45 synthetic styles in five languages, and a mixing desk.

Every clip has ground-truth factors, drawn independently and stratified within its genre. The styles are what the
tables in `data/demo/` say, no more: they are not evidence about the traditions whose names they borrow.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from vaelib.collection import LABELS, RECORD
from vaelib.config import InputError, one_of, write_atomic
from vaelib.progress import Progress, clock
from vaelib_demo.dials import CLIPS, FIXED, RENDERING, VARIATION, corpus_name, fixed_factors, rung
from vaelib_demo.factors import DESK, FACTORS, UNITS, draw_factors, draw_levels
from vaelib_demo.render import DESK_GENRE, Clip, read_row, render_clip, start_worker
from vaelib_demo.tables import load_tables
from vaelib_demo.voice import build_bank

__all__ = ["CLIPS", "COLUMNS", "DESK", "FACTORS", "FIXED", "UNITS", "VARIATION"]
__all__ += ["corpus_name", "fixed_factors", "render_corpus", "rung"]

COLUMNS = {
    "styles": ("path", *LABELS, *FACTORS, "bpm", "vocal_active_share", "phrases", "seed"),
    "desk": ("path", *LABELS, *DESK),
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
    per_genre = clips_per_genre or CLIPS[one_of("demo", demo, CLIPS)]
    dials = {"composition": composition, "variation": variation, "fixed": list(fixed_factors(fixed))}
    workers = (os.cpu_count() or 1) if workers is None else workers
    for name, value, low in (("clips_per_genre", per_genre, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if not isinstance(value, int) or value < low:
            raise InputError(f"{name} must be a whole number of at least {low}, not {value!r}")
    for name, value, low, high in (
        ("seconds", seconds, 1, 600),
        ("composition", composition, 0, 1),
        ("variation", variation, 0, 1),
    ):
        if not low <= value <= high:
            raise InputError(f"{name} must be a number from {low} to {high}, not {value!r}")
    parameters = {"demo": demo, "clips_per_genre": per_genre, "seconds": seconds, "seed": seed}
    if demo == "desk":
        if genres is not None or dials != {"composition": 0, "variation": VARIATION, "fixed": list(FIXED)}:
            raise InputError("the desk is one loop: composition, variation, fixed and genres are not its dials")
        names, drawn = [DESK_GENRE], [draw_levels(tables, per_genre, seed)]
    else:
        names = [one_of("genre", g, tables.genres) for g in dict.fromkeys(genres or tables.genres)]
        parameters |= dials
        drawn = [draw_factors(tables.genres[g], tables, per_genre, variation, seed, dials["fixed"]) for g in names]
    parameters |= {"genres": names, "tables": tables.digest, "rendering": RENDERING}
    manifest = folder / "manifest.csv"
    clips = [
        Clip(folder, demo, name, i, factors, seconds, seed, composition)
        for name, some in zip(names, drawn, strict=True)
        for i, factors in enumerate(some)
    ]
    _claim(folder, parameters, manifest)
    if manifest.exists() and all((folder / clip.path).exists() for clip in clips):
        return manifest
    rows = list(_render(clips, workers))
    return write_atomic(manifest, pd.DataFrame(rows, columns=COLUMNS[demo]).to_csv(index=False))


def _claim(folder: Path, parameters: dict[str, Any], manifest: Path) -> None:
    """Write `corpus.json`, or check that the one there describes the same corpus."""
    record, versions = folder / RECORD, {name: _version(name) for name in PACKAGES}
    wanted = {**parameters, "versions": versions}
    if record.exists():
        there = json.loads(record.read_text(encoding="utf-8"))
        if manifest.exists():  # a finished corpus stays good when a package is updated
            wanted["versions"] = there.get("versions")
        if other := [key for key, value in wanted.items() if there.get(key) != value]:
            raise InputError(
                f"{folder} holds a demo corpus with other {', '.join(other)}: choose another folder or delete it"
            )
    # What a store says of its clips: how difficult they are, given where windows begin, and the units of their factors.
    wanted["rungs"] = {windows: rung(parameters, windows) for windows in ("start", "anywhere")}
    wanted["units"] = UNITS
    write_atomic(record, json.dumps(wanted, indent=2, ensure_ascii=False) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _render(clips: list[Clip], workers: int) -> Iterator[dict[str, Any]]:
    """Manifest rows in the order of the clips; finished clips are read, the others rendered."""
    rows = {clip.path: row for clip in clips if (row := read_row(clip.folder / clip.path, clip.samples)) is not None}
    todo = [clip for clip in clips if clip.path not in rows]
    with tempfile.TemporaryDirectory(prefix="vaelib-voices-") as temporary:
        bank = Path(temporary) / "voices.npz"
        bank = bank if todo and build_bank(bank) else None
        progress, begun = Progress("demo corpus"), time.monotonic()
        for clip, row in zip(todo, _map(todo, min(workers, len(todo)), bank), strict=True):
            rows[clip.path] = row
            progress.show(f"{len(rows):,} of {len(clips):,} clips")
        if todo:
            progress.close(f"{len(todo):,} clips in {clock(time.monotonic() - begun)}")
    return (rows[clip.path] for clip in clips)


def _map(clips: list[Clip], workers: int, bank: Path | None) -> Iterator[dict[str, Any]]:
    if workers <= 1:
        if clips:
            start_worker(bank)
        yield from map(render_clip, clips)
        return
    # spawn: a forked copy of a notebook kernel, with its threads, may hang
    with ProcessPoolExecutor(workers, get_context("spawn"), start_worker, (bank,)) as pool:
        try:
            yield from pool.map(render_clip, clips, chunksize=4)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
