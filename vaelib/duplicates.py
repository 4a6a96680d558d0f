"""The same audio under two names: a fingerprint of every row, the rows that agree, and what follows for files.

In the spirit of Haitsma & Kalker 2002 (A Highly Robust Audio Fingerprinting System, ISMIR): the signs of energy
differences over bands and time; but of a fixed number of bits, whatever the length, and with a second bit beside each
that says whether its sign is clear. Pure functions of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

BANDS, TIMES = 16, 32  # 512 signs
LOW, HIGH = 0.05, 0.7  # share of the mel bands that is looked at: about 150 Hz to 4 kHz, what every encoder keeps
RANGE_DB = 60.0  # below a row's loudest bin; what lies deeper is what encoders change
CLEAR_DB = 0.5  # a difference of at least that has a clear sign
BYTES = 2 * BANDS * TIMES // 8

# Measured on rendered clips of 10 s against themselves as MP3 (16 to 80 kbit/s), Vorbis (30 kbit/s), at 8 and 16 kHz,
# clipped, ten times softer, 1,105 samples late or 1,500 early: signs differ in 15 % at most, clear ones in 4 %
# (windows of 6 s: 18 % and 5 %, so that the worst are missed). Of 44,850 pairs of different clips, also of one genre,
# the nearest differ in 28 % and 17 %.
MOST_DIFFERENT = 0.17
MOST_CLEAR_DIFFERENT = 0.10
FEWEST_CLEAR = 128  # of 512 in both rows: what is mostly silence is not compared
SECONDS_APART = 0.3  # an encoder pads by less

TABLES = 64  # of the search; two rows that differ in a tenth of the signs meet in one with near certainty
MOST_LEADERS = 64  # of one word of one table: bounds the work when thousands of rows are alike but not the same
BLOCK = 1 << 16  # pairs compared at a time


@lru_cache(maxsize=64)
def _triangles(n: int, into: int, low: float, high: float, wide: float) -> csr_array:
    """(into, n) weights of overlapping triangles between two shares of an axis; each row sums to 1.

    Sparse, not only because most are zeros: NumPy's dense products start threads that wait busily, in workers that
    are the parallelism themselves.
    """
    x, step = (np.arange(n) + 0.5) / n, (high - low) / into
    centres = low + step * (np.arange(into) + 0.5)
    weights = np.clip(1 - np.abs(x - centres[:, None]) / max(wide * step, 1 / n), 0, None)
    return csr_array((weights / weights.sum(1, keepdims=True)).astype(np.float32))


def fingerprint(db: np.ndarray) -> np.ndarray:
    """Fingerprint of one row: 512 signs, then 512 bits that say which of them are clear.

    Both front ends give about the same one. It survives lossy encoders, another gain or sampling rate and an offset of
    a few milliseconds; it does not survive another tempo, another pitch or another beginning.

    Args:
        db: (mel, frame) in dB, only the frames that hold sound or silence of the row (no padding).

    Returns:
        (`BYTES`,) uint8.
    """
    db = np.asarray(db, np.float32)
    db = np.maximum(db - db.max(), -RANGE_DB)
    over_bands = _triangles(db.shape[0], BANDS + 1, LOW, HIGH, 1.0)
    over_times = _triangles(db.shape[1], TIMES + 1, 0.0, 1.0, 2.0)
    means = (over_times @ (over_bands @ db).T).T
    change = np.diff(np.diff(means, axis=0), axis=1).ravel()
    return np.packbits(np.concatenate([change > 0, np.abs(change) >= CLEAR_DB]))


def distances(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare fingerprints pair by pair.

    Args:
        a, b: (n, `BYTES`) uint8.

    Returns:
        (n,) each: share of all signs that differ, share of those clear in both that differ, number clear in both.
    """
    words = BYTES // 16
    a, b = (np.ascontiguousarray(x, np.uint8).view(np.uint64) for x in (a, b))
    differ, clear = a[:, :words] ^ b[:, :words], a[:, words:] & b[:, words:]
    n = np.bitwise_count(clear).sum(1, dtype=int)
    share = np.bitwise_count(differ & clear).sum(1, dtype=int) / np.maximum(n, 1)
    return np.bitwise_count(differ).sum(1, dtype=int) / (BANDS * TIMES), share, n


def _same(fingerprints: np.ndarray, seconds: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Whether rows i and j (pair,) are the same audio."""
    same = np.abs(seconds[i] - seconds[j]) <= SECONDS_APART
    for start in range(0, len(i), BLOCK):
        part = slice(start, start + BLOCK)
        signs, clear, n = distances(fingerprints[i[part]], fingerprints[j[part]])
        same[part] &= (signs <= MOST_DIFFERENT) & (clear <= MOST_CLEAR_DIFFERENT) & (n >= FEWEST_CLEAR)
    return same


def groups(fingerprints: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Join the rows that hold the same audio.

    Rows are compared where they agree in all of a few signs drawn at random (locality-sensitive hashing, Indyk &
    Motwani 1998), in many such tables: time and memory grow about linearly with the rows. Repeatable.

    Args:
        fingerprints: (n, `BYTES`) uint8.
        seconds: (n,) lengths, which must agree too.

    Returns:
        (n,) the number of the first row with the same audio: its own where it is the first, or alone.
    """
    fingerprints, seconds = np.ascontiguousarray(fingerprints, np.uint8), np.asarray(seconds, float)
    n = len(fingerprints)
    clear = np.bitwise_count(fingerprints.reshape(n, BYTES)[:, BYTES // 2 :]).sum(1, dtype=int)
    rows, rng = np.flatnonzero(clear >= FEWEST_CLEAR), np.random.default_rng(0)
    bits = int(np.clip(np.ceil(np.log2(max(len(rows), 2))), 8, 20))  # so that a word has about one row by chance
    edges = [np.zeros((2, 0), int)]
    for _ in range(TABLES if len(rows) > 1 else 0):
        keys = np.zeros(n, np.uint32)
        for bit in rng.choice(BANDS * TIMES, bits, replace=False):
            keys[rows] = keys[rows] << 1 | fingerprints[rows, bit // 8] >> (7 - bit % 8) & 1
        edges += _edges(keys, rows, fingerprints, seconds)
    i, j = np.unique(np.concatenate(edges, axis=1), axis=1)
    return _firsts(i, j, n)


def _edges(keys: np.ndarray, rows: np.ndarray, fingerprints: np.ndarray, seconds: np.ndarray) -> list[np.ndarray]:
    """Pairs (2, pair) of the same audio among rows of equal key: with the first of them, then with the next, …"""
    edges, left = [], rows[np.argsort(keys[rows], kind="stable")]
    for _ in range(MOST_LEADERS):
        key = keys[left]
        first = np.r_[True, key[1:] != key[:-1]]
        leader = left[np.maximum.accumulate(np.where(first, np.arange(len(left)), 0))][~first]
        left = left[~first]
        same = _same(fingerprints, seconds, leader, left)
        edges.append(np.stack([leader[same], left[same]]))
        left = left[~same]
        if not len(left):
            break
    return edges


def _firsts(i: np.ndarray, j: np.ndarray, n: int) -> np.ndarray:
    """(n,) smallest number that each of n things is connected to by the pairs (i, j)."""
    if not n:
        return np.zeros(0, int)
    _, part = connected_components(coo_array((np.ones(len(i), np.int8), (i, j)), shape=(n, n)), directed=False)
    _, first = np.unique(part, return_index=True)
    return first[part]


def duplicate_of(paths: Sequence[str], found: np.ndarray) -> np.ndarray:
    """Which files are copies of another: at least half of the segments of the longer one agree, place by place.

    Args:
        paths: (n,) file of each row; a file's rows in the order of time.
        found: (n,) of `groups`.

    Returns:
        (n,) object: path of the first file with the same audio, "" where it is the first, or alone.
    """
    rows = pd.DataFrame({"file": pd.factorize(np.asarray(paths, object))[0], "group": np.asarray(found)})
    names = pd.unique(np.asarray(paths, object))
    rows["place"] = rows.groupby("file").cumcount()
    length = rows["file"].value_counts(sort=False).sort_index().to_numpy()
    rows["first"] = rows.groupby(["place", "group"])["file"].transform("first")
    pairs = rows[rows["first"] != rows["file"]].value_counts(["first", "file"]).reset_index(name="agree")
    i, j = pairs["first"].to_numpy(), pairs["file"].to_numpy()
    enough = pairs["agree"].to_numpy() >= np.maximum(length[i], length[j]) / 2
    first = _firsts(i[enough], j[enough], len(names))[rows["file"].to_numpy()]
    return np.where(first == rows["file"], "", names[first]) if len(rows) else np.zeros(0, object)


def together(*columns: Sequence) -> np.ndarray:
    """Rows that must be on one side of a split: those that agree in any column, and whoever is connected through them.

    Args:
        columns: (n,) each, e.g. path, track, artist and `groups`; "" and missing values bind nothing.

    Returns:
        (n,) the number of the first row of the same bundle.
    """
    n, pairs = len(columns[0]), [np.zeros((2, 0), int)]
    for column in columns:
        values = pd.Series(np.asarray(column))
        codes = pd.factorize(values.mask(values.astype(str).eq("")))[0]
        named = np.flatnonzero(codes >= 0)
        _, first, inverse = np.unique(codes[named], return_index=True, return_inverse=True)
        pairs.append(np.stack([named[first[inverse]], named]))
    return _firsts(*np.concatenate(pairs, axis=1), n)
