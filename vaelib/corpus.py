"""A folder of music: its manifest, checks, quarantine of unusable files, and grouped, stratified splits."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from .audio import AUDIO_SUFFIXES, UnreadableAudio
from .config import InputError, write_atomic

LABELS = ("language", "genre", "family")
SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}
# Columns that describe a clip but are not something a latent dimension could stand for.
NOT_FACTORS = {"path", *LABELS, "artist", "track", "phrases", "seed", "vocal_active_share", "title", "split"}
UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class Corpus:
    """Clips found on disk.

    Attributes:
        name: Folder name; part of the names of stores and runs.
        root: Folder that `path` is relative to.
        table: One row per clip: path, language, genre, family, and any further columns of a manifest.
        factors: Numeric columns of a manifest that describe the sound (tempo, key, …).
    """

    name: str
    root: Path
    table: pd.DataFrame
    factors: tuple[str, ...]

    def fingerprint(self) -> str:
        """Digest of names, labels, sizes and both ends of every file; equal on every machine."""
        total = hashlib.blake2b(self.table.to_csv(index=False).encode(), digest_size=8)
        for part in _threads(partial(_digests, self.root), _blocks(self.table["path"])):
            total.update(part)
        return total.hexdigest()


def _digests(root: Path, paths: list[str]) -> bytes:
    return b"".join(_file_digest(root / p) for p in paths)


def _file_digest(path: Path, ends: int = 16_384) -> bytes:
    h = hashlib.blake2b(digest_size=8)
    try:
        size = path.stat().st_size
        with open(path, "rb") as f:
            h.update(size.to_bytes(8, "big") + f.read(ends))
            f.seek(max(size - ends, 0))
            h.update(f.read(ends))
    except OSError:
        h.update(b"unreadable")
    return h.digest()


def read_corpus(folder: Path | str) -> Corpus:
    """Find the clips of a folder: from its `manifest.csv`, else from a tree `language/genre/track.flac`.

    One level of folders is read as genre; files directly in `folder` have no labels.

    Raises:
        InputError: no such folder, no audio in it, or a manifest without `path` or with paths outside.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(f"no corpus at {root}: give a folder of audio files, or run `vaelib demo` for the demo corpus")
    manifest = root / "manifest.csv"
    table = _read_manifest(manifest) if manifest.is_file() else _scan(root)
    for label in LABELS:
        if label not in table:
            table[label] = UNLABELLED
        table[label] = table[label].fillna(UNLABELLED).astype(str)
    table = table.sort_values("path", ignore_index=True)
    factors = tuple(c for c in table if c not in NOT_FACTORS and pd.api.types.is_numeric_dtype(table[c]))
    return Corpus(root.resolve().name, root.resolve(), table, factors)


def _read_manifest(manifest: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(manifest, dtype={"path": str, **dict.fromkeys(LABELS, str)})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as e:
        raise InputError(f"{manifest} is not a readable CSV table ({e}); write it as UTF-8 CSV with a header") from e
    if "path" not in table or table.empty:
        raise InputError(f"{manifest} has no rows with a `path` column; add it (paths relative to the manifest)")
    for row, path in enumerate(table["path"].fillna("").astype(str), start=2):
        if not path:
            raise InputError(f"{manifest}, line {row}: the path is empty; fill it in or remove the line")
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise InputError(f"{manifest}, line {row}: {path!r} leaves the corpus folder; use a path inside it")
    return table.drop_duplicates("path", ignore_index=True)


def _scan(root: Path) -> pd.DataFrame:
    rows = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file()):
        parts = path.relative_to(root).parts
        genre = parts[-2] if len(parts) >= 2 else UNLABELLED
        language = parts[-3] if len(parts) >= 3 else UNLABELLED
        rows.append({"path": str(path.relative_to(root)), "language": language, "genre": genre})
    if not rows:
        raise InputError(f"no audio in {root}: looked for {', '.join(AUDIO_SUFFIXES)} in it and its subfolders")
    return pd.DataFrame(rows)


def _blocks(paths: pd.Series, size: int = 256) -> list[list[str]]:
    """Tasks worth their overhead, and few enough for a million files."""
    return [paths[i : i + size].tolist() for i in range(0, len(paths), size)]


def _threads(task: Callable, items: Sequence) -> list:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(task, items))


def quarantine(
    corpus: Corpus, check: Callable[[Path], int], rejected: Path, apply: Callable[[Callable, Sequence], list] = _threads
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Check every clip and set aside those that cannot be used.

    Args:
        check: Gives a file's number of frames, or raises UnreadableAudio.
        rejected: CSV of (path, reason) that is written in any case.
        apply: Calls a function with each of many lists of paths, like the built-in `map`; default: threads.

    Returns:
        The usable rows with their `n_frames`, and the rejected (path, reason) pairs.

    Raises:
        InputError: no clip is usable, or a worker does not see the folder.
    """
    parts = apply(partial(_checked, check, corpus.root), _blocks(corpus.table["path"]))
    found = [f for part in parts for f in part]
    bad = [(p, f) for p, f in zip(corpus.table["path"], found, strict=True) if isinstance(f, str)]
    write_rejected(rejected, bad)
    good = [not isinstance(f, str) for f in found]
    if not any(good):
        raise InputError(f"none of the {len(found)} files of {corpus.root} is usable; the reasons are in {rejected}")
    return corpus.table[good].assign(n_frames=[f for f in found if not isinstance(f, str)]), bad


def _checked(check: Callable[[Path], int], root: Path, paths: list[str]) -> list[int | str]:
    """Frames of each file, or the reason why it cannot be used."""
    require_seen(root)
    found: list[int | str] = []
    for path in paths:
        try:
            found.append(check(root / path))
        except UnreadableAudio as e:
            found.append(str(e))
    return found


def require_seen(folder: Path) -> None:
    """Raise InputError where a folder is not there: a worker elsewhere would set every file aside as missing."""
    if not folder.is_dir():
        raise InputError(
            f"{socket.gethostname()} does not see {folder}: workers on other machines need the corpus and the data "
            "folder under the same names"
        )


def write_rejected(path: Path, rows: list[tuple[str, str]]) -> None:
    """Write the quarantine list (path, reason)."""
    write_atomic(path, pd.DataFrame(rows, columns=["path", "reason"]).to_csv(index=False))


def split_clips(table: pd.DataFrame, seed: int = 0, by: str = "genre") -> np.ndarray:
    """Assign clips to train, validation and test, stratified by `by`; a group is never torn apart.

    The group is the artist where a clip has one, else its track, else the clip itself.

    Returns:
        (clip,) of `train`, `validation` or `test`. With too few groups in a class the test split is served
        after train, and validation last, so that every class is trained on.
    """
    group = table["path"].astype(str)
    for column in ("track", "artist"):
        if column in table:
            named = table[column].fillna("").astype(str)
            group = group.where(named.eq(""), column + ":" + named)
    group = group.to_numpy()
    rng = np.random.default_rng(seed)
    classes = table[by].to_numpy()
    first = pd.Series(classes).groupby(group).first()  # a group's class
    sizes = pd.Series(group).value_counts()
    split_of: dict[str, str] = {}
    for label in sorted(first.unique()):
        members = rng.permutation(np.sort(first.index[first == label].to_numpy().astype(str)))
        counts = dict.fromkeys(SPLITS, 0)
        for member in members:
            total = sum(counts.values()) + sizes[member]
            chosen = max(SPLITS, key=lambda s: SPLITS[s] * total - counts[s])
            counts[chosen] += sizes[member]
            split_of[member] = chosen
    return np.array([split_of[str(g)] for g in group])
