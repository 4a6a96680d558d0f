"""A claim and its verdict: measured values of several seeds against a threshold, a rival and a null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vaelib.config import InputError, one_of
from vaelib.evaluation.stats import MIN_SEEDS, Interval, bootstrap_interval, half_interval, halves, verdict

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


@dataclass(frozen=True)
class Values:
    """A number of one variant.

    Attributes:
        means: (S,) of each seed.
        clips: (S, N) the values per test clip whose means they are, or None.
        draws: (S, B) the number over random halves of the clips (`stats.over_halves`), or None.
    """

    means: np.ndarray
    clips: np.ndarray | None = None
    draws: np.ndarray | None = None

    @property
    def over_halves(self) -> np.ndarray | None:
        """(S, B), also of a mean over clips."""
        if self.draws is None and self.clips is not None:
            return self.clips[:, halves(self.clips.shape[1])].mean(2)
        return self.draws


def judge(
    claim: Claim, values: Values, rival: Values | None = None, exact: bool = False, turns: bool = False
) -> tuple[Interval, str]:
    """Interval and verdict.

    From three seeds on the interval is over seeds, and over clips too where a number is a mean over them. With fewer it
    is over the clips of these runs, and so is the verdict: `in this run`.

    Args:
        rival: The same number of the rival, paired by seed, for `difference` and `ratio`. A ratio to nothing, or to
            less than nothing, is not known.
        exact: Counted, not estimated: a single value decides.
        turns: `means` are turns of a stopwatch in one process, which are no seeds.

    Raises:
        InputError: values and rival do not pair up.
    """
    if claim.how != "value" and (rival is None or np.shape(rival.means) != np.shape(values.means)):
        raise InputError(f"claim {claim.id} ({claim.metric}) needs a rival's values for the same seeds")
    rival = rival or values
    x = _put_together(claim, values.means, rival.means)
    few, bounds = len(x) < MIN_SEEDS and not turns, None
    if claim.share and claim.how != "ratio":
        bounds = (0.0, 1.0) if claim.how == "value" and np.nanmin(x, initial=0.0) >= 0 else (-1.0, 1.0)
    clips = draws = None
    if claim.how != "ratio" and np.shape(values.clips) == np.shape(rival.clips) != ():
        clips = _put_together(claim, values.clips, rival.clips)
    elif few and np.shape(values.over_halves) == np.shape(rival.over_halves) != ():
        draws = _put_together(claim, values.over_halves, rival.over_halves).mean(0)
    if exact:
        found = Interval.exact(float(x.mean()))
    elif draws is not None:
        found = half_interval(float(x.mean()), draws, bounds)
    else:
        by_seed = x if clips is None else clips.mean(0, keepdims=True) if few else clips
        found = bootstrap_interval(by_seed, bounds=bounds)
    found = found._replace(n=len(x))
    threshold = (claim.low, claim.high) if claim.direction == "within" else claim.low
    of_this_run = turns or (few and (clips is not None or draws is not None))
    return found, verdict(found, threshold, claim.direction, 1 if exact else MIN_SEEDS, of_this_run)


def _put_together(claim: Claim, x: np.ndarray, rival: np.ndarray) -> np.ndarray:
    """Value, difference or ratio."""
    if claim.how == "value":
        return np.asarray(x, dtype=float)
    if claim.how == "difference":
        return np.asarray(x, dtype=float) - rival
    return np.divide(x, rival, out=np.full(np.shape(x), np.nan), where=np.asarray(rival) > 0)
