"""Intervals over seeds and clips, and the verdict on a claim; notebook 07 explains both."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, norm, t

Verdict = Literal["supported", "refuted", "supported in this run", "refuted in this run", "inconclusive", "not tested"]
MIN_SEEDS = 3
RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean with its 95 % interval; `n` is the number of seeds (rows) behind it."""

    mean: float
    low: float
    high: float
    n: int


class Scores(NamedTuple):
    """Numbers by id (`rec.mse`, `ari.pca`, …), and for some of them values (N,) per clip (see `claims.Results`)."""

    numbers: dict[str, float]
    per_clip: dict[str, np.ndarray]


def mean_known(values: np.ndarray) -> float:
    """Mean of the values (N,) that are not nan; nan without any."""
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


def ratio_values(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """(N,) values whose mean is sum(numerator) / sum(denominator) and whose spread is that of the ratio.

    The ratio linearised clip by clip (Cochran 1977, Sampling Techniques, §6.3): with them a ratio of sums has an
    interval over clips like any mean. nan where the denominators (N,) are all 0.
    """
    numerator, denominator = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    if not denominator.any():
        return np.full(len(denominator), np.nan)
    ratio = numerator.sum() / denominator.sum()
    return ratio + (numerator - ratio * denominator) / denominator.mean()


def bootstrap_interval(values: np.ndarray, bounds: tuple[float, float] | None = None) -> Interval:
    """95 % bootstrap interval of a mean over seeds, (S,), or over seeds and clips, (S, N).

    Seeds and clips are resampled independently, as every seed scores the same clips (the pigeonhole bootstrap; Owen
    2007, doi:10.1214/07-AOAS122). A percentile interval of 3 values can at best cover 75 %, so its arms are widened by
    sqrt(m / (m - 1)) · t / z (after Hesterberg 2015, doi:10.1080/00031305.2015.1089789): of a number that cannot leave
    `bounds` (a share: 0 and 1) on the logit scale. Clips that are all at a bound get Jeffreys' interval (Brown, Cai &
    DasGupta 2001, doi:10.1214/ss/1009213286).

    The ends are nan for a single number, and equal to the mean if that is nan or infinite.
    """
    x = np.asarray(values, dtype=float).reshape(len(values), -1)  # (S, N)
    seeds, clips = x.shape
    mean = float(x.mean())
    if not np.isfinite(mean):
        return Interval(mean, mean, mean, seeds)
    if x.size == 1:
        return Interval(mean, np.nan, np.nan, 1)
    rng = np.random.default_rng(0)
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds  # (resample, S)
    columns = rng.multinomial(clips, np.full(clips, 1 / clips), size=RESAMPLES) / clips  # (resample, N)
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


def judge(
    values: np.ndarray,
    against: np.ndarray | None = None,
    how: Literal["value", "difference", "ratio"] = "value",
    direction: Literal["above", "below", "within"] = "above",
    threshold: tuple[float, float] = (0.0, 0.0),
    share: bool = False,
    exact: bool = False,
    turns: bool = False,
) -> tuple[Interval, Verdict]:
    """Interval and verdict of what was measured.

    From three seeds on the interval is over seeds, and over clips too where they are given. With fewer it is over the
    clips of these runs, and what it decides holds `in this run`. All of it must say so: `inconclusive` if it covers the
    threshold or rests on too few seeds, `not tested` if the value is nan.

    Args:
        values: One number per seed, (S,), or per seed and test clip, (S, N).
        against: The same of the baseline or other model, paired by seed, for `difference` and `ratio` (whose mean is
            the geometric one; of or to nothing, or less, it is not known).
        threshold: The threshold twice, or for `within` the ends of the range, themselves included.
        share: The number is a share or a score of at most 1 (ARI, MIG): its interval does not leave [0, 1], or
            [-1, 1] for differences and for scores that fall below 0.
        exact: Counted, not estimated: a single value decides.
        turns: One number per turn of a stopwatch in one process, (S,), which is no seed.
    """
    x = np.asarray(values, dtype=float)
    if how == "difference":
        x = x - against
    elif how == "ratio":
        x = _log_ratio(x, np.asarray(against, dtype=float))
    bounds = None
    if share and how != "ratio":
        bounds = (0.0, 1.0) if how == "value" and x.mean() >= 0 else (-1.0, 1.0)
    seeds, of_this_run = len(x), turns or (len(x) < MIN_SEEDS and x.ndim > 1)
    if exact:
        found = Interval(*[float(x.mean())] * 3, 1)
    else:
        found = bootstrap_interval(x.mean(0, keepdims=True) if of_this_run and x.ndim > 1 else x, bounds)
    if how == "ratio":
        found = Interval(*np.exp(found[:3]).tolist(), seeds)
    found = found._replace(n=seeds)
    if np.isnan(found.mean):
        return found, "not tested"
    decides = exact or of_this_run or seeds >= MIN_SEEDS
    side = _side(found, threshold, direction) if decides else "inconclusive"
    return found, side + (" in this run" if of_this_run and side != "inconclusive" else "")


def _side(found: Interval, threshold: tuple[float, float], direction: str) -> str:
    """Which side of the threshold the whole interval is on; nan ends are on none."""
    if direction == "above":
        yes, no = found.low > threshold[0], found.high < threshold[0]
    elif direction == "below":
        yes, no = found.high < threshold[1], found.low > threshold[1]
    else:
        yes = threshold[0] <= found.low and found.high <= threshold[1]
        no = found.high < threshold[0] or found.low > threshold[1]
    if yes:
        return "supported"
    return "refuted" if no else "inconclusive"


def _log_ratio(x: np.ndarray, against: np.ndarray) -> np.ndarray:
    """Logarithm of each seed's ratio, (S,); of clips, (S, N), values whose mean it is and whose spread is its own."""
    ours, theirs = (v.reshape(len(v), -1).mean(1) for v in (x, against))
    ratio = np.divide(ours, theirs, out=np.full(len(ours), np.nan), where=(ours > 0) & (theirs > 0))
    if x.ndim == 1:
        return np.log(ratio)
    clips = [ratio_values(a, b) / r for a, b, r in zip(x, against, ratio, strict=True)]  # delta method
    return np.log(ratio)[:, None] + np.stack(clips) - 1
