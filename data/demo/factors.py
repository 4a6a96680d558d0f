"""Ground-truth factors: stratified within each genre and independent of one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaelib_demo.tables import Genre, Row, Tables, load_tables

FACTORS: tuple[str, ...] = tuple(row.factor for row in load_tables().factors)
DESK: tuple[str, ...] = tuple(row.factor for row in load_tables().desk)
UNITS = {row.factor: row.unit for row in (*load_tables().factors, *load_tables().desk)}


def draw_factors(
    genre: Genre, tables: Tables, clips: int, variation: float, seed: int, fixed: Sequence[str] = ()
) -> list[dict[str, float | int | str]]:
    """One value of every factor for each clip of a genre.

    A continuous factor takes one draw from each of `clips` equally likely bins; a discrete one uses its levels
    equally often. Each factor is shuffled on its own, so that no two go together by design.

    Args:
        variation: 1 uses the full range, 0 only its middle (of a discrete factor: the first level).
        seed: Of the corpus; the genre's index is mixed in.
        fixed: Factors that do not vary, as if their `variation` were 0; the others are drawn as without them.

    Returns:
        `clips` dictionaries with the keys `FACTORS`.
    """
    rng = np.random.default_rng([seed, genre.index, 0])  # clips use 1, 2, …: a trailing 0 would be no seed at all
    varied = [0.0 if row.factor in fixed else variation for row in tables.factors]
    columns = [_column(row, tables, clips, v, rng) for row, v in zip(tables.factors, varied, strict=True)]
    return [dict(zip(FACTORS, values, strict=True)) for values in zip(*columns, strict=True)]


def draw_levels(tables: Tables, clips: int, seed: int) -> list[dict[str, float]]:
    """The levels in dB of the desk's stems for each of `clips` mixes, drawn like factors at full range; keys `DESK`."""
    rng = np.random.default_rng([seed, len(tables.genres), 1])  # of no genre
    columns = [_column(row, tables, clips, 1.0, rng) for row in tables.desk]
    return [dict(zip(DESK, values, strict=True)) for values in zip(*columns, strict=True)]


def _column(row: Row, tables: Tables, clips: int, variation: float, rng: np.random.Generator) -> list:
    quantile = rng.permutation((np.arange(clips) + rng.random(clips)) / clips)
    quantile = 0.5 + variation * (quantile - 0.5)
    if row.kind == "category":
        levels = list({"voice": tables.voices, "ensemble": tables.ensembles}[row.factor])
        return [levels[i] for i in _balanced(len(levels), clips, variation, rng)]
    low, high = row.low, row.high
    if row.kind == "integer":
        return [int(low) + i for i in _balanced(int(high - low) + 1, clips, variation, rng)]
    if row.kind == "log":
        low, high = np.log([low, high])
        return [round(float(np.exp(low + (high - low) * q)), 6) for q in quantile]
    return [round(low + (high - low) * float(q), 6) for q in quantile]


def _balanced(levels: int, clips: int, variation: float, rng: np.random.Generator) -> list[int]:
    """Indices of the levels in use, each equally often, the remainder spread by chance."""
    used = 1 + round(variation * (levels - 1))
    full = np.tile(np.arange(used), clips // used)
    rest = rng.permutation(used)[: clips % used]
    return rng.permutation(np.concatenate([full, rest])).tolist()
