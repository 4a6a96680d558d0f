"""A claim and its verdict: measured values of several seeds against a threshold, a rival and a null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vaelib.config import InputError, one_of
from vaelib.metrics.spectrogram import ratio_values
from vaelib.metrics.statistics import MIN_SEEDS, Interval, bootstrap_interval, verdict

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
        share: The number is a share or a score of at most 1 (ARI, MIG): its interval does not leave [0, 1], or
            [-1, 1] for differences and for scores that fall below 0.
    """

    id: str
    claim: str
    metric: str
    expected: str
    how: Literal["value", "difference", "ratio"]
    direction: Literal["above", "below", "within"]
    low: float
    high: float
    share: bool = False

    def __post_init__(self) -> None:
        one_of(f"`how` of claim {self.id}", self.how, HOW)
        one_of(f"`direction` of claim {self.id}", self.direction, DIRECTIONS)
        if not self.low <= self.high or (self.direction != "within" and self.low != self.high):
            raise InputError(f"claim {self.id}: `low` and `high` are {self.low} and {self.high}, no {self.direction!r}")


def judge(
    claim: Claim, values: np.ndarray, rival: np.ndarray | None = None, exact: bool = False, turns: bool = False
) -> tuple[Interval, str]:
    """Interval and verdict.

    From three seeds on the interval is over seeds, and over clips too where they are given. With fewer it is over the
    clips of these runs, and what it decides holds `in this run`.

    Args:
        values: One number per seed, (S,), or per seed and test clip, (S, N).
        rival: The same of the rival, paired by seed, for `difference` and `ratio`. A ratio of or to nothing, or
            less than nothing, is not known; the mean of ratios is the geometric one, their interval is positive.
        exact: Counted, not estimated: a single value decides.
        turns: One number per turn of a stopwatch in one process, (S,), which is no seed.

    Returns:
        The interval of the value, difference or ratio (`n`: seeds, or turns), and the verdict.

    Raises:
        InputError: values and rival do not pair up.
    """
    x = np.asarray(values, dtype=float)
    if claim.how != "value":
        if rival is None or np.shape(rival) != x.shape:
            raise InputError(f"claim {claim.id} ({claim.metric}) needs a rival's values for the same seeds")
        x = x - rival if claim.how == "difference" else _log_ratio(x, np.asarray(rival, dtype=float))
    bounds = None
    if claim.share and claim.how != "ratio":
        bounds = (0.0, 1.0) if claim.how == "value" and x.mean() >= 0 else (-1.0, 1.0)
    seeds, of_this_run = len(x), turns or (len(x) < MIN_SEEDS and x.ndim > 1)
    if exact:
        found = Interval.exact(float(x.mean()))
    else:
        found = bootstrap_interval(x.mean(0, keepdims=True) if of_this_run and x.ndim > 1 else x, bounds=bounds)
    if claim.how == "ratio":
        found = Interval(*np.exp(found[:3]).tolist(), seeds)
    threshold = (claim.low, claim.high) if claim.direction == "within" else claim.low
    said = verdict(found, threshold, claim.direction, 1 if exact else MIN_SEEDS, of_this_run)
    return found._replace(n=seeds), said


def _log_ratio(x: np.ndarray, rival: np.ndarray) -> np.ndarray:
    """Logarithm of each seed's ratio, (S,); of clips, (S, N), values whose mean it is and whose spread is its own."""
    ours, theirs = (v.reshape(len(v), -1).mean(1) for v in (x, rival))
    ratio = np.divide(ours, theirs, out=np.full(len(ours), np.nan), where=(ours > 0) & (theirs > 0))
    if x.ndim == 1:
        return np.log(ratio)
    clips = [ratio_values(a, b) / r for a, b, r in zip(x, rival, ratio, strict=True)]  # delta method
    return np.log(ratio)[:, None] + np.stack(clips) - 1
