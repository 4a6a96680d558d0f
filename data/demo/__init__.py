"""Rendered corpora, because nothing can be downloaded: 45 synthetic styles in five languages, and a mixing desk.

Every clip has ground-truth factors, drawn independently and stratified within its genre. The styles are what the
tables in `data/demo/` say, no more: they are not evidence about the traditions whose names they borrow.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from vaelib.collection import LABELS, RECORD
from vaelib.config import InputError, one_of, write_atomic
from vaelib_demo.dials import CLIPS, Dials
from vaelib_demo.factors import DESK, FACTORS, UNITS, draw_factors, draw_levels
from vaelib_demo.render import DESK_GENRE, Clip, read_row, render_clip, start_worker
from vaelib_demo.tables import load_tables
from vaelib_demo.voice import build_bank

__all__ = ["CLIPS", "COLUMNS", "Dials", "render_corpus"]

COLUMNS = {
    "styles": ("path", *LABELS, *FACTORS, "bpm", "vocal_active_share", "phrases", "seed"),
    "desk": ("path", *LABELS, *DESK),
}
PACKAGES = ("tinysoundfont", "pretty_midi", "espeakng-loader", "numpy", "scipy", "soundfile")
RENDERING = 2  # raise it when the code renders the same tables differently


def render_corpus(
    folder: Path, dials: Dials, *, genres: Sequence[str] | None = None, workers: int | None = None
) -> Path:
    """Render a corpus into `folder`, or finish what an interrupted call began.

    The same arguments and package versions give the same bytes with any number of workers. More than one worker
    means new processes: a script that calls this keeps its own work under `if __name__ == "__main__":`.

    Args:
        folder: Receives `audio/<language>/<genre>/*.flac` (22,050 Hz, mono, 16 bit) and, last, `manifest.csv`.
        dials: What is rendered.
        genres: Some rows of `genres.csv`; all by default.
        workers: Processes; all cores by default.

    Returns:
        Path of the manifest: one row per clip, `COLUMNS[dials.demo]`.

    Raises:
        InputError: An unknown genre, a folder that holds another corpus or one rendered by another version of the
            code, or a missing package.
    """
    folder, tables, manifest = Path(folder), load_tables(), Path(folder, "manifest.csv")
    count, seed = dials.clips_per_genre, dials.seed
    if dials.demo == "desk":
        drawn = {DESK_GENRE: draw_levels(tables, count, seed)}
    else:
        names = [one_of("genre", g, tables.genres) for g in dict.fromkeys(genres or tables.genres)]
        how = count, dials.variation, seed, dials.fixed
        drawn = {name: draw_factors(tables.genres[name], tables, *how) for name in names}
    clips = [
        Clip(folder, dials.demo, name, i, factors, dials.seconds, seed, dials.composition)
        for name, some in drawn.items()
        for i, factors in enumerate(some)
    ]
    _claim(folder, dials, {"genres": list(drawn), "tables": tables.digest}, manifest.exists())
    if manifest.exists() and all((folder / clip.path).exists() for clip in clips):
        return manifest
    rows = list(_render(clips, workers or os.cpu_count() or 1))
    return write_atomic(manifest, pd.DataFrame(rows, columns=COLUMNS[dials.demo]).to_csv(index=False))


def _claim(folder: Path, dials: Dials, more: dict[str, Any], finished: bool) -> None:
    """Write `corpus.json`, or check that the one there describes the same corpus."""
    record, versions = folder / RECORD, {name: _version(name) for name in PACKAGES}
    wanted = dials.record() | more | {"rendering": RENDERING, "versions": versions}
    if record.exists():
        there = json.loads(record.read_text(encoding="utf-8"))
        if finished:  # a finished corpus stays good when a package is updated
            wanted["versions"] = there.get("versions")
        if other := [key for key, value in wanted.items() if there.get(key) != value]:
            raise InputError(
                f"{folder} holds a demo corpus with other {', '.join(other)}: choose another folder or delete it"
            )
    # What a store says of its clips: how difficult they are, given where windows begin, and the units of their factors.
    wanted["rungs"] = {windows: dials.rung(windows) for windows in ("start", "anywhere")}
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
        done = zip(todo, _map(todo, min(workers, len(todo)), bank), strict=True)
        for clip, row in tqdm(done, "demo corpus", len(todo), unit="clip", file=sys.stdout, disable=not todo):
            rows[clip.path] = row
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
