"""What must stay together: files with the same audio, songs of an artist; and the split into train, validation, test.

Copies are found by a fingerprint after Haitsma & Kalker 2002 (A Highly Robust Audio Fingerprinting System, ISMIR), but
of a fixed number of bits, and with a second bit that says whether a sign is clear. Notebook 01 computes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from .config import InputError

BANDS, TIMES = 16, 32  # 512 signs
LOW, HIGH = 0.05, 0.7  # share of the mel bands that is used: about 150 Hz to 4 kHz, what every encoder keeps
RANGE_DB = 60.0  # below a row's loudest bin; what lies deeper is what encoders change
CLEAR_DB = 0.5  # a difference of at least that has a clear sign
BYTES = 2 * BANDS * TIMES // 8
# Measured on rendered clips of 10 s against themselves as MP3 (16 to 80 kbit/s), Vorbis (30 kbit/s), at 8 and 16 kHz,
# clipped, ten times softer, 1,105 samples late or 1,500 early: signs differ in 15 % at most, clear ones in 4 %.
# Of 44,850 pairs of different clips, also of one genre, the nearest differ in 28 % and 17 %.
MOST_DIFFERENT, MOST_CLEAR_DIFFERENT = 0.17, 0.10
FEWEST_CLEAR = 128  # of 512 in both rows: what is mostly silence is not compared
SECONDS_APART = 0.3  # an encoder pads by less
SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}
BLOCK = 64  # rows compared with all others at a time


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
    for start in range(0, len(signs), BLOCK):
        some, others = signs[start : start + BLOCK], signs[start:]
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
    known["track"], known["duplicate_of"] = (known[c].where(known[c].ne(""), path) for c in ("track", "duplicate_of"))
    pairs = []
    for _, column in known.items():
        clips = column.index[column.ne("")].to_series()
        pairs.append(np.stack([clips.groupby(column).transform("first"), clips]))
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
        for label in rng.permutation(sorted(first.unique())):
            trained = [m for m in sorted(first.index[first == label].astype(str)) if split_of[m] == "train"]
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
    if "given_split" in table and {"train", "test"} <= set(table["given_split"]):
        split = table["given_split"].to_numpy(object).copy()
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
