"""A person's collection: its files, what is known of them, which can be used, which are copies, and the split.

The one way in: `read_corpus` (files and labels) → `quarantine` (rows, and reasons for what is left out) →
`vaelib.store.build_store`. Notebook 01 shows each step. Copies are found by a fingerprint after Haitsma & Kalker 2002
(A Highly Robust Audio Fingerprinting System, ISMIR), but of a fixed number of bits, and with a second bit that says
whether a sign is clear.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from .audio import AUDIO_SUFFIXES, UnreadableAudio, frames_of, header, segments
from .config import FrontEnd, InputError
from .labels import GIVEN_SPLIT, TABLES, Rejected, described, folder_table, listed, locate, read_table
from .labels import LABELS as LABELS
from .labels import UNLABELLED as UNLABELLED

READING = ("labels", "manifest", "allow_outside")  # parameters of `read_corpus`, and of notebook 01
MANIFESTS = ("manifest.csv", "manifest.tsv", "manifest.parquet")
RECORD = "corpus.json"  # what a rendered corpus says of itself (`vaelib_demo`)
LADDER = ("desk", "loops", "loops, full range", "loops, cut anywhere", "composed")  # rendered, from easy to difficult
# .cache, ._song.mp3 (a Mac's notes on a song; not ...And Justice for All), and what systems keep for themselves
HIDDEN = re.compile(r"\.(?!\.)|(__MACOSX|@eaDir|[$#]recycle(\.bin)?|lost\+found|System Volume Information)$", re.I)
HEADERS = 64  # headers read by one task

BANDS, TIMES = 16, 32  # 512 signs
LOW, HIGH = 0.05, 0.7  # share of the mel bands that is used: about 150 Hz to 4 kHz, what every encoder keeps
RANGE_DB = 60.0  # below a row's loudest bin; what lies deeper is what encoders change
CLEAR_DB = 0.5  # a difference of at least that has a clear sign
BYTES = 2 * BANDS * TIMES // 8
# Measured on rendered clips of 10 s and copies of them (lossy, 8 kHz, clipped, softer, late): signs differ in 15 % at
# most, clear ones in 4 %; of 44,850 pairs of different clips, also of one genre, the nearest differ in 28 % and 17 %.
MOST_DIFFERENT, MOST_CLEAR_DIFFERENT = 0.17, 0.10
FEWEST_CLEAR = 128  # of 512 in both rows: what is mostly silence is not compared
SECONDS_APART = 0.3  # an encoder pads by less
SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}
COMPARED = 64  # rows compared with all others at a time


@dataclass(frozen=True)
class Corpus:
    """Audio files found on disk."""

    name: str  # of the folder; part of the names of stores and runs
    root: Path  # that `path` is relative to
    table: pd.DataFrame  # a row per file: path, language, genre, family, track, and further columns of a manifest
    factors: tuple[str, ...]  # numeric columns that describe the sound (tempo, key, …) and differ between clips
    left_out: tuple[Rejected, ...] = ()  # files that are there and cannot be used, known before any is opened
    remarks: tuple[str, ...] = ()  # sentences for the owner: what was seen, and what was made of it
    record: dict[str, Any] = field(default_factory=dict)  # `corpus.json` of a rendered corpus; {} for own music

    def fingerprint(self) -> str:
        """Digest of names, labels, sizes and both ends of every file; equal on every machine."""
        total = hashlib.blake2b(self.table.to_csv(index=False).encode(), digest_size=8)
        with ThreadPoolExecutor() as pool:
            total.update(b"".join(pool.map(_file_digest, (self.root / path for path in self.table["path"]))))
        return total.hexdigest()


def _file_digest(path: Path) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            content = size.to_bytes(8, "big") + file.read(16_384)
            file.seek(max(size - 16_384, 0))
            content += file.read(16_384)
    except OSError:
        content = b"unreadable"
    return hashlib.blake2b(content, digest_size=8).digest()


def read_corpus(
    folder: Path | str, *, labels: str = "", manifest: Path | str = "", allow_outside: bool = False
) -> Corpus:
    """Find the audio files of a folder, and what a table or the names of its folders say of them.

    Args:
        labels: What the levels of folders mean, e.g. `*/{genre}/{artist} - {title}`; `*` is anything, suffixes are
            left out. Default: language/genre/file, genre/file, or the file alone, where names look like that.
        manifest: CSV or Parquet table with a column `path`. Default: one of `MANIFESTS` in the folder, if any.
        allow_outside: Whether a manifest's paths may leave the folder.
    """
    root = Path(folder).expanduser()
    if not os.path.isdir(root):  # False too where it may not be asked
        raise InputError(f"no corpus at {root}: give a folder of audio files, or run `vaelib demo` for the demo corpus")
    if labels and manifest:
        raise InputError("labels and manifest exclude each other: give one of them")
    named, root, remarks = os.path.abspath(root), root.resolve(), []
    files, left_out = _audio_files(root)
    inside = next(filter(Path.is_file, map(root.joinpath, MANIFESTS)), None)
    if source := Path(manifest).expanduser() if manifest else None if labels else inside:
        table = read_table(source, remarks)
        table, lost = locate(table, source, (str(root), named), files, allow_outside, remarks)
        unlisted = sorted(set(files) - set(table["path"]))
        left_out += lost + [(path, f"is not in {source.name}; add a row to use it") for path in unlisted]
    else:
        table = folder_table(root, files, labels, remarks)
    if others := {n for n in os.listdir(root) if n.lower().endswith(TABLES)} - {source and source.name}:
        remarks.append(f"tables that are not read, unless --manifest names one: {listed(sorted(others))}")
    table, factors = described(table.sort_values("path", ignore_index=True), remarks)
    record = read_record(root)
    return Corpus(root.name, root, table, factors, tuple(left_out), () if record else tuple(remarks), record)


def read_record(root: Path) -> dict[str, Any]:
    """What `corpus.json` says of a rendered corpus; {} where there is none: a person's own music."""
    try:
        record = json.loads((root / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict) or "rendering" not in record:
        return {}
    if not record.keys() >= {"rungs", "units"}:
        raise InputError(f"{root} was rendered by an older version: run `vaelib demo` again, its clips are kept")
    return record


def _audio_files(root: Path) -> tuple[list[str], list[Rejected]]:
    """Audio files below a folder, in order, and what cannot even be named or seen; links to folders are followed."""
    files, bad, seen = [], [], set()

    def refuse(path: str, reason: str) -> None:
        bad.append((os.fsencode(os.path.relpath(path, root)).decode("utf-8", "backslashreplace"), reason))

    tree = os.walk(root, followlinks=True, onerror=lambda e: refuse(e.filename, f"may not be read ({e.strerror})"))
    for folder, folders, names in tree:
        if (real := os.path.realpath(folder)) in seen:  # a loop, or a second way here
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not HIDDEN.match(f))
        for name in sorted(n for n in names if n.lower().endswith(AUDIO_SUFFIXES) and not HIDDEN.match(n)):
            path = os.path.join(folder, name)
            if re.search("[\udc80-\udcff]", path):  # bytes that Python could not decode
                refuse(path, "has a name that is not UTF-8; rename it, e.g. with convmv")
            elif os.path.isfile(path):
                files.append(os.path.relpath(path, root))
            else:
                refuse(path, "is no file (a broken link, or a device); remove it")
    return files, bad


def quarantine(
    corpus: Corpus, fe: FrontEnd, length: float, step: float, apply: Callable = map
) -> tuple[pd.DataFrame, list[Rejected]]:
    """Read every file's header, set aside what cannot be used, and cut the others (`vaelib.audio.segments`).

    `apply` works like the built-in `map`. Returns one row per segment, with `start_s`, `seconds` (nan: to the end of
    the file), `n_frames`, `rate`, `channels` and `format`; and the rejected (path, reason) pairs.
    """
    paths = corpus.table["path"].tolist()
    blocks = [paths[i : i + HEADERS] for i in range(0, len(paths), HEADERS)]
    rows, bad = [], [*corpus.left_out]
    for cuts, reasons in apply(partial(_cut, corpus.root, fe, length, step), blocks):
        rows += cuts
        bad += reasons
    columns = ["path", "start_s", "seconds", "n_frames", "rate", "channels", "format"]
    return corpus.table.merge(pd.DataFrame(rows, columns=columns).astype({"seconds": float}), on="path"), bad


def _cut(root: Path, fe: FrontEnd, length: float, step: float, paths: list[str]) -> tuple[list[tuple], list[Rejected]]:
    require_seen(root)
    rows, bad = [], []
    for path in paths:
        try:
            about = header(root / path)
            for start, seconds in segments(about.seconds, fe, length, step):
                rows.append((path, start, seconds, frames_of(seconds or about.seconds - start, fe), *about[1:4]))
            if about.lost:  # what is there is used
                bad.append((path, f"ends {about.lost:.1f} s before its header says; copy it again"))
        except UnreadableAudio as e:
            bad.append((path, str(e)))
    return rows, bad


def require_seen(folder: Path) -> None:
    """Raise InputError where a folder has gone, a drive perhaps: else every file would be set aside as missing."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no longer there: bring it back, then the same command continues")


@lru_cache(maxsize=64)
def triangles(n: int, into: int, low: float, high: float, wide: float) -> csr_array:
    """(into, n) weights of overlapping triangles between two shares of an axis of n places; each row sums to 1."""
    x, step = (np.arange(n) + 0.5) / n, (high - low) / into
    centres = low + step * (np.arange(into) + 0.5)
    weights = np.clip(1 - np.abs(x - centres[:, None]) / max(wide * step, 1 / n), 0, None)
    return csr_array((weights / weights.sum(1, keepdims=True)).astype(np.float32))


def fingerprint(db: np.ndarray) -> np.ndarray:
    """(`BYTES`,) uint8 of one (mel, frame) row in dB without padding: 512 signs, then which of them are clear.

    It survives lossy encoders, another gain or sampling rate, a few milliseconds; no other tempo, pitch or beginning.
    """
    db = np.asarray(db, np.float32)
    db = np.maximum(db - db.max(), -RANGE_DB)
    over_bands = triangles(db.shape[0], BANDS + 1, LOW, HIGH, 1.0)
    over_times = triangles(db.shape[1], TIMES + 1, 0.0, 1.0, 2.0)
    means = (over_times @ (over_bands @ db).T).T
    change = np.diff(np.diff(means, axis=0), axis=1).ravel()
    return np.packbits(np.concatenate([change > 0, np.abs(change) >= CLEAR_DB]))


def groups(fingerprints: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """(n,) number of the first row with the same audio, of (n, `BYTES`) fingerprints and (n,) lengths.

    Every row is compared with every other (100,000 rows: some minutes).
    """
    signs, clear = (np.ascontiguousarray(half).view(np.uint64) for half in np.hsplit(fingerprints, 2))  # (n, 8)
    pairs = [np.zeros((2, 0), int)]
    for start in range(0, len(signs), COMPARED):
        some, others = signs[start : start + COMPARED], signs[start:]
        differ = sum(np.bitwise_count(a[:, None] ^ b).astype(np.uint16) for a, b in zip(some.T, others.T, strict=True))
        i, j = np.nonzero(differ <= MOST_DIFFERENT * BANDS * TIMES) + np.array(start)
        both = clear[i] & clear[j]
        n = np.bitwise_count(both).sum(1, dtype=int)
        unlike = np.bitwise_count(both & (signs[i] ^ signs[j])).sum(1, dtype=int)
        same = (i < j) & (n >= FEWEST_CLEAR) & (unlike <= MOST_CLEAR_DIFFERENT * n)
        same &= np.abs(seconds[i] - seconds[j]) <= SECONDS_APART
        pairs.append(np.stack([i[same], j[same]]))
    return _firsts(np.concatenate(pairs, axis=1), len(signs))


def _firsts(pairs: np.ndarray, n: int) -> np.ndarray:
    """(n,) smallest number that each of n things is connected to by the `pairs` (2, pair)."""
    graph = coo_array((np.ones(pairs.shape[1], np.int8), tuple(pairs)), shape=(n, n))
    _, part = connected_components(graph, directed=False) if n else (0, np.zeros(0, int))
    return np.unique(part, return_index=True)[1][part]


def duplicate_of(paths: Sequence[str], found: np.ndarray) -> np.ndarray:
    """(n,) path of the first file with the same audio as each row's file; "" where it is the first, or alone.

    Half of the longer file's rows must agree, place by place: `paths` (n,) are the rows' files, `found` is of `groups`.
    """
    file, names = pd.factorize(np.asarray(paths, object))
    rows = pd.DataFrame({"file": file, "group": found})
    rows["place"] = rows.groupby("file").cumcount()
    rows["first"] = rows.groupby(["place", "group"])["file"].transform("first")
    agree = rows[rows["first"] != rows["file"]].value_counts(["first", "file"])
    pairs, length = agree.index.to_frame().to_numpy(int).T, np.bincount(file)
    first = _firsts(pairs[:, agree.to_numpy() >= length[pairs].max(0) / 2], len(names))[file]
    return np.where(first == file, "", names[first])


def groups_of(table: pd.DataFrame) -> np.ndarray:
    """(clip,) name of the group of each clip: of one artist, one track (without one: path) or one sound, all linked."""
    known = table.reindex(columns=["track", "artist", "duplicate_of"]).astype(object).fillna("").astype(str)
    known, path = known.reset_index(drop=True), table["path"].astype(str).reset_index(drop=True)
    for column in ("track", "duplicate_of"):
        known[column] = known[column].where(known[column].ne(""), path)
    named = [column[column.ne("")] for _, column in known.items()]
    pairs = [np.stack([c.index, c.index.to_series().groupby(c).transform("first")]) for c in named]
    name = ("artist:" + known["artist"]).where(known["artist"].ne(""), "track:" + known["track"])
    return name.groupby(_firsts(np.concatenate(pairs, axis=1), len(known))).transform("min").to_numpy()


def split_clips(table: pd.DataFrame, seed: int = 0, by: str | None = "genre") -> np.ndarray:
    """(clip,) `train`, `validation` or `test`, by the classes of the column `by`; groups (`groups_of`) stay whole.

    A class with few groups serves train first, then test, then validation; if none has enough, some give one up.
    """
    group, rng = groups_of(table), np.random.default_rng(seed)
    classes = table[by].to_numpy() if by else np.zeros(len(table), int)
    first = pd.Series(classes).groupby(group).first()  # a group's class
    sizes = pd.Series(group).value_counts().to_dict()
    split_of: dict[str, str] = {}
    for _, alike in first.groupby(first):  # in the order of the labels
        counts = dict.fromkeys(SPLITS, 0)
        for member in rng.permutation(np.sort(alike.index.to_numpy().astype(str))):
            total = sum(counts.values()) + sizes[member]
            split_of[member] = max(SPLITS, key=lambda s: SPLITS[s] * total - counts[s])
            counts[split_of[member]] += sizes[member]
    if "validation" not in split_of.values():  # classes of three groups: some of them give one up
        wanted = SPLITS["validation"] * len(table)
        members = first.groupby(first).groups
        for label in rng.permutation(sorted(first.unique())):
            trained = [m for m in sorted(members[label].astype(str)) if split_of[m] == "train"]
            if len(trained) > 1 and wanted > 0:
                smallest = min(trained, key=sizes.get)
                split_of[smallest] = "validation"
                wanted -= sizes[smallest]
    return np.array([split_of[str(g)] for g in group])


def choose_split(table: pd.DataFrame, seed: int = 0) -> tuple[np.ndarray, str]:
    """(clip,) the split that was given, else `split_clips`, by genre if that leaves something to test; and a sentence.

    Raises:
        InputError: all clips belong together.
    """
    if GIVEN_SPLIT in table and {"train", "test"} <= set(table[GIVEN_SPLIT]):
        split = table[GIVEN_SPLIT].to_numpy(object).copy()
        if "validation" not in split:
            trained = np.flatnonzero(split == "train")
            part = split_clips(table.iloc[trained].reset_index(drop=True), seed)
            split[trained[part == "validation"]] = "validation"
        torn = (pd.Series(split).groupby(groups_of(table)).nunique() > 1).sum()
        note = f"the given split tears {torn:,} artists, songs or copies apart: what is measured on them is too good"
        return split.astype(str), note if torn else ""
    for by in ("genre", None):
        if "test" in (split := split_clips(table, seed, by)):
            return split, "" if by else "no genre has two tracks (of two known artists): the split is not stratified"
    raise InputError(f"{len(table)} usable clips cannot be split: they are all of one artist or one track; add music")
