"""Intervals over seeds and clips, nulls, and the verdict on a claim."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, norm, t

from vaelib.config import InputError

Verdict = Literal["supported", "refuted", "supported in this run", "refuted in this run", "inconclusive", "not tested"]
MIN_SEEDS = 3


class Interval(NamedTuple):
    """A mean with its 95 % interval; `n` is the number of seeds (rows) behind it."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def exact(cls, value: float) -> Interval:
        """A quantity that is counted, not estimated; judge it with `min_seeds=1`."""
        return cls(value, value, value, 1)


@contextmanager
def many_classes() -> Iterator[None]:
    """scikit-learn takes a class for each second clip for numbers, and warns; also a decorator."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        yield


def mean_known(values: Iterable[float]) -> float:
    """Mean of the values that are not nan; nan without any."""
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else np.nan


class Null(NamedTuple):
    """A metric under permuted labels: mean, 95th percentile, and every value, shape (n,)."""

    mean: float
    p95: float
    values: np.ndarray

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Null:
        array = np.asarray(values, dtype=float)
        return cls(float(array.mean()), float(np.percentile(array, 95)), array)


def bootstrap_interval(
    values: np.ndarray,
    against: np.ndarray | None = None,
    n: int = 2000,
    seed: int = 0,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """95 % bootstrap interval of a mean over seeds, or over seeds and clips.

    Seeds (rows) and clips (columns) are resampled independently, as every seed scores the same clips (the
    pigeonhole bootstrap; Owen 2007, doi:10.1214/07-AOAS122). A percentile interval of 3 values can at best
    cover 75 %, so its arms are widened by sqrt(m / (m - 1)) · t / z (after Hesterberg 2015,
    doi:10.1080/00031305.2015.1089789), of a bounded number on the logit scale.

    Args:
        values: One number per seed, (S,), or per seed and clip, (S, N); one seed's clips are (1, N).
        against: The other model, same shape and order, for the paired difference `values - against`.
        n: Resamples.
        seed: Seed of the resampling.
        bounds: What the number cannot leave, (0, 1) for a share; the interval does not leave it either. Clips that
            are all at a bound get Jeffreys' interval of their number (Brown, Cai & DasGupta 2001,
            doi:10.1214/ss/1009213286).

    Returns:
        The interval; its ends are nan for a single number, and equal to the mean if that is nan or infinite.

    Raises:
        InputError: No values, or two models that do not pair up.
    """
    x = np.asarray(values, dtype=float)
    if against is not None:
        other = np.asarray(against, dtype=float)
        if other.shape != x.shape:
            raise InputError(f"paired values differ in shape, {x.shape} and {other.shape}: use the same seeds")
        x = x - other
    if x.size == 0 or x.ndim > 2:
        raise InputError(f"an interval needs values of shape (seeds,) or (seeds, clips), not {x.shape}")
    x = x.reshape(len(x), -1)  # (S, N)
    seeds, clips = x.shape
    mean = float(x.mean())
    if not np.isfinite(mean):
        return Interval(mean, mean, mean, seeds)
    if x.size == 1:
        return Interval(mean, np.nan, np.nan, 1)
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=n) / seeds  # (n, S)
    columns = rng.multinomial(clips, np.full(clips, 1 / clips), size=n) / clips  # (n, N)
    low, high = np.percentile(((rows @ x) * columns).sum(1), [2.5, 97.5])
    m = seeds if seeds > 1 else clips
    widen = np.sqrt(m / (m - 1)) * t.ppf(0.975, m - 1) / norm.ppf(0.975)
    if bounds is None:
        return Interval(mean, float(mean - widen * (mean - low)), float(mean + widen * (high - mean)), seeds)
    least, span = bounds[0], bounds[1] - bounds[0]
    share = np.clip((np.array([mean, low, high]) - least) / span, 0, 1)  # rounding can leave the bounds
    if share[0] in (0, 1):
        count = share[0] * clips
        ends = beta.ppf([0.025, 0.975], count + 0.5, clips - count + 0.5) if clips > 1 else share[:1].repeat(2)
        ends = (0.0, ends[1]) if share[0] == 0 else (ends[0], 1.0)
    else:
        middle, *ends = logit(share)
        ends = expit([middle - widen * (middle - ends[0]), middle + widen * (ends[1] - middle)])
    return Interval(mean, float(least + span * ends[0]), float(least + span * ends[1]), seeds)


def verdict(
    interval: Interval,
    threshold: float | tuple[float, float],
    direction: Literal["above", "below", "within"],
    min_seeds: int = MIN_SEEDS,
    of_this_run: bool = False,
) -> Verdict:
    """Judge a claim by its interval.

    Args:
        interval: What was measured.
        threshold: The value to pass, or the range (low, high), ends included, for `within`.
        direction: The claim: the value is `above` or `below` the threshold, or `within` the range.
        min_seeds: Fewer seeds than these cannot decide; 1 for `Interval.exact`.
        of_this_run: The interval is over the clips (or turns) of fewer seeds: what it decides holds `in this run`.

    Returns:
        `supported` or `refuted` if the whole interval says so, `inconclusive` if it covers the threshold or
        rests on too few seeds, `not tested` if the value is nan.

    Raises:
        InputError: An unknown direction, or a threshold that does not suit it.
    """
    if direction not in ("above", "below", "within"):
        raise InputError(f"unknown direction {direction!r}: valid: above, below, within")
    if (direction == "within") != isinstance(threshold, tuple):
        raise InputError(f"threshold {threshold!r} does not suit {direction!r}: only `within` takes a range")
    mean, low, high, n = interval
    if np.isnan(mean):
        return "not tested"
    if (n < min_seeds and not of_this_run) or np.isnan(low) or np.isnan(high):
        return "inconclusive"
    if direction == "above":
        yes, no = low > threshold, high < threshold
    elif direction == "below":
        yes, no = high < threshold, low > threshold
    else:
        yes = threshold[0] <= low and high <= threshold[1]
        no = high < threshold[0] or low > threshold[1]
    if not (yes or no):
        return "inconclusive"
    return ("supported" if yes else "refuted") + (" in this run" if of_this_run else "")
