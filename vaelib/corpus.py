"""A folder of music: its manifest, checks, quarantine of unusable files, and grouped, stratified splits."""

from __future__ import annotations

import hashlib
import os
import socket
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .audio import SEGMENT_S, frames_of, segments
from .config import FrontEnd, InputError, write_atomic
from .demo import read_record
from .duplicates import together
from .manifest import (
    LABELS,
    MANIFESTS,
    NOT_FACTORS,
    OWN,
    UNLABELLED,
    Rejected,
    audio_files,
    folder_table,
    manifest_table,
)  # fmt: skip
from .soundfiles import Header, UnreadableAudio, header

READING = ("labels", "manifest", "mirdata", "allow_outside")  # parameters of `read_corpus`, and of notebook 01
SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}


@dataclass(frozen=True)
class Corpus:
    """Audio files found on disk.

    Attributes:
        name: Folder name; part of the names of stores and runs.
        root: Folder that `path` is relative to.
        table: One row per file: path, language, genre, family, and any further columns of a manifest.
        factors: Numeric columns of a manifest that describe the sound (tempo, key, …) and differ between clips.
        left_out: (path, reason) of files that are there and cannot be used, known before any is opened.
        notes: Sentences for the owner of the collection.
        record: Of a rendered corpus what it was rendered with (`corpus.json`); {} for a person's own music.
    """

    name: str
    root: Path
    table: pd.DataFrame
    factors: tuple[str, ...]
    left_out: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)

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
        # As few calls as can be: after each of them threads queue for Python's lock
        file = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(file).st_size
            h.update(size.to_bytes(8, "big") + os.pread(file, ends, 0))
            h.update(os.pread(file, ends, max(size - ends, 0)))
        finally:
            os.close(file)
    except OSError:
        h.update(b"unreadable")
    return h.digest()


def read_corpus(
    folder: Path | str, *, labels: str = "", manifest: Path | str = "", mirdata: str = "", allow_outside: bool = False
) -> Corpus:
    """Find the audio files of a collection and what is known of them.

    From the first of these that is there: a `manifest`; a mirdata data set; `manifest.csv` or `manifest.parquet` in the
    folder; the names of the folders (`labels`).

    Args:
        folder: The collection; for mirdata its data home.
        labels: What the levels of folders mean, from the top, e.g. `{genre}/{artist}/{album}/{track}` or
            `*/{genre}/{artist} - {title}`: names without the suffix; `*` is anything. Files that do not fit have no
            labels. Default: language/genre/file, genre/file, or the file alone.
        manifest: CSV or Parquet table with a column `path`, relative to the folder.
        mirdata: Name of a mirdata data set (`vaelib.datasets`), or `name:version`.
        allow_outside: Whether a manifest's paths may leave the folder.

    Raises:
        InputError: no such folder, no audio in it, a corpus rendered by another version of the code, or a manifest
            without `path` or with paths outside.
    """
    root = Path(folder).expanduser()
    if not os.path.isdir(root):  # False too where it may not be asked
        raise InputError(f"no corpus at {root}: give a folder of audio files, or run `vaelib demo` for the demo corpus")
    if not os.access(root, os.R_OK | os.X_OK):
        raise InputError(f"{root} may not be read (Permission denied); allow it")
    if len(given := [n for n, v in {"labels": labels, "manifest": manifest, "mirdata": mirdata}.items() if v]) > 1:
        raise InputError(f"{given[0]} and {given[1]} exclude each other: give one of them")
    record = read_record(root)
    files, left_out = audio_files(root)
    inside = next(filter(Path.is_file, map(root.joinpath, MANIFESTS)), None)
    source = Path(manifest).expanduser() if manifest else None if labels or mirdata else inside
    if mirdata:
        from .datasets import mirdata_table

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            table = mirdata_table(*mirdata.split(":", 1)[:1], root, *mirdata.split(":", 1)[1:])
        notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    elif source:
        table = manifest_table(source, root, allow_outside)
        unlisted = sorted(set(files) - set(table["path"]))
        left_out += [(path, f"is not in {source.name}; add a row to use it") for path in unlisted]
        notes = []
    else:
        table, notes = folder_table(root, files, labels)
    if own := [c for c in table if c in OWN]:
        notes.append(f"columns {', '.join(own)} are not read: the store has its own")
        table = table.drop(columns=own)
    for label in LABELS:
        if label not in table:
            table[label] = UNLABELLED
        table[label] = table[label].fillna(UNLABELLED).astype(str).replace("", UNLABELLED)
    if "track" not in table:
        table["track"] = ""
    named = table["track"].fillna("").astype(str)
    if "artist" in table and (source or mirdata):  # two artists may have a track of one name
        artist = table["artist"].fillna("").astype(str)
        named = named.where(named.eq("") | artist.eq(""), artist + ": " + named)
    table["track"] = named.where(named.ne(""), table["path"])
    table = table.sort_values("path", ignore_index=True)
    numeric = [c for c in table if c not in NOT_FACTORS and pd.api.types.is_numeric_dtype(table[c])]
    factors = tuple(c for c in numeric if table[c].nunique() > 1)  # what is the same in every clip explains nothing
    return Corpus(root.resolve().name, root.resolve(), table, factors, tuple(left_out), tuple(notes), record)


def _blocks(paths: pd.Series, size: int = 256) -> list[list[str]]:
    """Tasks worth their overhead, and few enough for a million files."""
    return [paths[i : i + size].tolist() for i in range(0, len(paths), size)]


def _threads(task: Callable, items: Sequence) -> list:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(task, items))


def quarantine(
    corpus: Corpus,
    fe: FrontEnd,
    rejected: Path,
    apply: Callable[[Callable, Sequence], list] = _threads,
    length: float = SEGMENT_S,
    step: float = SEGMENT_S,
) -> tuple[pd.DataFrame, list[Rejected]]:
    """Read every file's header, set aside what cannot be used, and cut the others into segments.

    Args:
        rejected: CSV of (path, reason) that is written in any case.
        apply: Calls a function with each of many lists of paths, like the built-in `map`; default: threads.
        length, step: Of a segment and from one to the next, seconds (`vaelib.audio.segments`).

    Returns:
        One row per segment, with `start_s`, `seconds` (nan: to the end of the file), `n_frames`, `rate`, `channels` and
        `format`; and the rejected (path, reason) pairs.

    Raises:
        InputError: no file is usable, or a worker does not see the folder.
    """
    parts = apply(partial(_headers, corpus.root), _blocks(corpus.table["path"]))
    found = [f for part in parts for f in part]
    bad, rows, cut = list(corpus.left_out), [], []
    for i, (path, about) in enumerate(zip(corpus.table["path"], found, strict=True)):
        try:
            if isinstance(about, str):
                raise UnreadableAudio(about)
            places = segments(about.seconds, fe, length, step)
        except UnreadableAudio as e:
            bad.append((path, str(e)))
            continue
        for start, seconds in places:
            lasts = about.seconds - start if seconds is None else seconds
            facts = (about.rate, about.channels, about.format)
            rows.append(i)
            cut.append((start, np.nan if seconds is None else seconds, frames_of(lasts, fe), *facts))
    write_rejected(rejected, bad)
    if not rows:
        raise InputError(f"none of the {len(found)} files of {corpus.root} is usable; the reasons are in {rejected}")
    columns = ["start_s", "seconds", "n_frames", "rate", "channels", "format"]
    table = corpus.table.iloc[rows].reset_index(drop=True)
    return table.join(pd.DataFrame(cut, columns=columns)), bad


def _headers(root: Path, paths: list[str]) -> list[Header | str]:
    """Header of each file, or the reason why it cannot be used."""
    require_seen(root)
    found: list[Header | str] = []
    for path in paths:
        try:
            found.append(header(root / path))
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


def write_rejected(path: Path, rows: list[Rejected]) -> None:
    """Write the quarantine list (path, reason)."""
    write_atomic(path, pd.DataFrame(rows, columns=["path", "reason"]).to_csv(index=False))


def split_clips(table: pd.DataFrame, seed: int = 0, by: str | None = "genre") -> np.ndarray:
    """Assign clips to train, validation and test, stratified by `by`; what belongs together is never torn apart.

    Clips belong together that have the same artist, the same track (or, without one, the same path), or the same sound
    (`duplicate_of`).

    Args:
        by: Column of the classes; None: not stratified.

    Returns:
        (clip,) of `train`, `validation` or `test`. With too few groups in a class the test split is served
        after train, and validation last, so that every class is trained on; where no class has enough for all three,
        some classes with two groups to train on give one to validation.
    """
    group = _groups(table)
    rng = np.random.default_rng(seed)
    classes = table[by].to_numpy() if by else np.zeros(len(table), int)
    first = pd.Series(classes).groupby(group).first()  # a group's class
    sizes = pd.Series(group).value_counts().to_dict()
    split_of: dict[str, str] = {}
    for _, alike in first.groupby(first):  # in the order of the labels
        members = rng.permutation(np.sort(alike.index.to_numpy().astype(str)))
        counts = dict.fromkeys(SPLITS, 0)
        for member in members:
            total = sum(counts.values()) + sizes[member]
            chosen = max(SPLITS, key=lambda s: SPLITS[s] * total - counts[s])
            counts[chosen] += sizes[member]
            split_of[member] = chosen
    if "validation" not in split_of.values():  # classes of three groups: some of them give one up
        _give_up(split_of, first, sizes, rng)
    return np.array([split_of[str(g)] for g in group])


def _give_up(split_of: dict[str, str], first: pd.Series, sizes: dict[str, int], rng: np.random.Generator) -> None:
    """Move a training group of some classes to validation, until it has its share."""
    wanted, moved = SPLITS["validation"] * sum(sizes.values()), 0
    for label in rng.permutation(sorted(first.unique())):
        trained = [m for m in sorted(first.index[first == label].astype(str)) if split_of[m] == "train"]
        if len(trained) > 1 and moved < wanted:
            smallest = min(trained, key=lambda m: sizes[m])
            split_of[smallest] = "validation"
            moved += sizes[smallest]


def _groups(table: pd.DataFrame) -> np.ndarray:
    """(clip,) name of the group that a clip belongs to: groups that share a clip are one."""
    empty = pd.Series("", table.index)
    track, artist, sound = (
        table[c].fillna("").astype(str) if c in table else empty for c in ("track", "artist", "duplicate_of")
    )
    path = table["path"].astype(str)
    track, sound = track.where(track.ne(""), path), sound.where(sound.ne(""), path)
    name = ("artist:" + artist).where(artist.ne(""), "track:" + track).to_numpy()
    return pd.Series(name).groupby(together(track, artist, sound)).transform("min").to_numpy()


def choose_split(table: pd.DataFrame, seed: int = 0) -> tuple[np.ndarray, str]:
    """`split_clips`, stratified by genre where that leaves something to test on.

    Returns:
        (clip,) split names, and a sentence where it is not stratified ("" where it is).

    Raises:
        InputError: all clips belong together.
    """
    split = split_clips(table, seed)
    if "test" in split:
        return split, ""
    split = split_clips(table, seed, None)
    if "test" in split:
        return split, (
            "no genre has two tracks (of two artists, where artists are known): the split is not stratified, and some "
            "genres are only tested or only trained on"
        )
    raise InputError(
        f"{len(table)} usable clips are too few to set some aside for testing: they are all of one artist or one "
        "track; add music"
    )
