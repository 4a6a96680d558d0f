"""A claim and its verdict: measured values of several seeds against a threshold, a rival and a null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vaelib.config import InputError, one_of
from vaelib.evaluation.stats import MIN_SEEDS, Interval, bootstrap_interval, verdict

HOW = ("value", "difference", "ratio")
DIRECTIONS = ("above", "below", "within")


@dataclass(frozen=True)
class Claim:
    """One measurable part of a claim.

    Attributes:
        id: Of the claim; several parts share it.
        claim: What is claimed, in words.
        metric: What is measured, in words.
        expected: What the source document expects, in words.
        how: The measured `value` itself, its `difference` from a rival's, or the `ratio` of the two.
        direction: The claim holds `above` or `below` the threshold, or `within` the range.
        low, high: The threshold (twice), or the ends of the range.
    """

    id: str
    claim: str
    metric: str
    expected: str
    how: Literal["value", "difference", "ratio"]
    direction: Literal["above", "below", "within"]
    low: float
    high: float

    def __post_init__(self) -> None:
        one_of(f"`how` of claim {self.id}", self.how, HOW)
        one_of(f"`direction` of claim {self.id}", self.direction, DIRECTIONS)
        if not self.low <= self.high or (self.direction != "within" and self.low != self.high):
            raise InputError(f"claim {self.id}: `low` and `high` are {self.low} and {self.high}, no {self.direction!r}")


def judge(
    claim: Claim, values: np.ndarray, rival: np.ndarray | None = None, exact: bool = False, min_seeds: int = MIN_SEEDS
) -> tuple[Interval, str]:
    """Interval over seeds (and clips, where they are given) and verdict.

    Args:
        values: One number per seed, (S,), or per seed and test clip, (S, N).
        rival: The same of the rival, paired by seed, for `difference` and `ratio`. A ratio to nothing, or to less
            than nothing, is not known.
        exact: Counted, not estimated: a single value decides.
        min_seeds: Fewer seeds cannot decide.

    Returns:
        The interval of the value, difference or ratio, and the verdict.

    Raises:
        InputError: values and rival do not pair up.
    """
    x = np.asarray(values, dtype=float)
    if claim.how != "value":
        if rival is None or np.shape(rival) != x.shape:
            raise InputError(f"claim {claim.id} ({claim.metric}) needs a rival's values for the same seeds")
        if claim.how == "ratio":
            x, rival = (v.mean(1) if v.ndim > 1 else v for v in (x, np.asarray(rival, dtype=float)))
            x = np.divide(x, rival, out=np.full_like(x, np.nan), where=rival > 0)
        else:
            x = x - np.asarray(rival, dtype=float)
    found = Interval.exact(float(x.mean())) if exact else bootstrap_interval(x)
    threshold = (claim.low, claim.high) if claim.direction == "within" else claim.low
    return found, verdict(found, threshold, claim.direction, 1 if exact else min_seeds)
