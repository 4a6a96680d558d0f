"""Intervals over seeds and clips, and the verdict on a claim; notebook 07 explains both."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, norm, t

MIN_SEEDS = 3
RESAMPLES = 2000
# Numbers by id (`rec.mse`, `ari.pca`, …), and for some of them values (N,) per clip (see `claims.Results`)
Scores = tuple[dict[str, float], dict[str, np.ndarray]]


class Interval(NamedTuple):
    """A mean with its 95 % interval; `n` is the number of seeds (rows) behind it."""

    mean: float
    low: float
    high: float
    n: int


def ratio_values(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """(N,) values whose mean is sum(numerator) / sum(denominator) and whose spread is that of the ratio.

    Linearised clip by clip (Cochran 1977, Sampling Techniques, §6.3); nan where the denominators (N,) are all 0.
    """
    numerator, denominator = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    if not denominator.any():
        return np.full(len(denominator), np.nan)
    ratio = numerator.sum() / denominator.sum()
    return ratio + (numerator - ratio * denominator) / denominator.mean()


def bootstrap_interval(values: np.ndarray, bounds: tuple[float, float] | None = None) -> Interval:
    """95 % bootstrap interval of a mean over seeds, (S,), or over seeds and clips, (S, N).

    Seeds and clips are resampled independently (pigeonhole bootstrap; Owen 2007, doi:10.1214/07-AOAS122), the arms
    widened by sqrt(m / (m - 1)) · t / z (after Hesterberg 2015, doi:10.1080/00031305.2015.1089789), within `bounds` on
    the logit scale: 90 % cover the mean of 5 draws of Beta(19, 1). Clips all at a bound get Jeffreys' interval (Brown
    et al. 2001, doi:10.1214/ss/1009213286). The ends are nan for one number, and the mean if that is not finite.
    """
    x = np.asarray(values, dtype=float).reshape(len(values), -1)  # (S, N)
    (seeds, clips), mean = x.shape, float(x.mean())
    if x.size == 1 or not np.isfinite(mean):
        end = np.nan if np.isfinite(mean) else mean
        return Interval(mean, end, end, seeds)
    rng = np.random.default_rng(0)
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds  # (resample, S)
    columns = rng.multinomial(clips, np.full(clips, 1 / clips), size=RESAMPLES) / clips  # (resample, N)
    ends = np.percentile(((rows @ x) * columns).sum(1), [2.5, 97.5])
    m = seeds if seeds > 1 else clips
    widen = np.sqrt(m / (m - 1)) * t.ppf(0.975, m - 1) / norm.ppf(0.975)
    if bounds is None:
        return Interval(mean, *(mean + widen * (ends - mean)).tolist(), seeds)
    least, span = bounds[0], bounds[1] - bounds[0]
    share, *ends = np.clip((np.array([mean, *ends]) - least) / span, 0, 1)  # rounding can leave the bounds
    if 0 < share < 1:
        ends = expit(logit(share) + widen * (logit(ends) - logit(share)))
    else:
        count = share * clips
        ends = beta.ppf([0.025, 0.975], count + 0.5, clips - count + 0.5) if clips > 1 else np.full(2, share)
        ends[int(share)] = share
    return Interval(mean, *(least + span * ends).tolist(), seeds)


def judge(
    values: np.ndarray, against: np.ndarray | None = None, how: str = "value", direction: str = "above",
    threshold: tuple[float, float] = (0.0, 0.0), share: bool = False, exact: bool = False, turns: bool = False,
) -> tuple[Interval, str]:  # fmt: skip
    """Interval, and the verdict: supported, refuted (both also `in this run`), inconclusive or not tested (nan).

    Values are one number per seed, (S,) or (S, 1), or per seed and test clip, (S, N); `against` are those of the
    baseline, paired by seed, for a `difference` or `ratio` (a geometric mean). From three seeds on the interval is over
    seeds and clips; with fewer it is over clips, and what it decides holds `in this run`. The whole interval must be
    `above` or `below` the `threshold` (twice the same), or `within` its two ends. That of a `share`, or score of at
    most 1, stays in [0, 1] or [-1, 1]. `exact`: counted, one value decides. `turns` of a stopwatch are no seeds.
    """
    x, bounds = np.reshape(np.asarray(values, dtype=float), (len(values), -1)), None  # (S, N)
    other = None if against is None else np.reshape(against, (len(x), -1))
    if how == "difference":
        x = x - other
    elif how == "ratio":
        ours, theirs = x.mean(1, keepdims=True), other.mean(1, keepdims=True)
        ratio = np.where(np.minimum(ours, theirs) > 0, ours, np.nan) / theirs
        x = np.log(ratio) + (x / ratio - other) / theirs  # delta method
    if share and how != "ratio":
        bounds = (0.0, 1.0) if how == "value" and x.mean() >= 0 else (-1.0, 1.0)
    (seeds, clips), ends = x.shape, [float(x.mean())] * 3
    of_this_run = turns or (seeds < MIN_SEEDS and clips > 1)
    if not exact:
        ends = bootstrap_interval(x.mean(0, keepdims=True) if of_this_run and clips > 1 else x, bounds)[:3]
    mean, low, high = np.exp(ends).tolist() if how == "ratio" else ends
    least, most = threshold
    holds = {"above": low > most, "below": high < least, "within": least <= low and high <= most}[direction]
    fails = {"above": high < least, "below": low > most, "within": high < least or low > most}[direction]
    verdict = "inconclusive"  # ends that are nan lie on no side
    if np.isnan(mean):
        verdict = "not tested"
    elif (holds or fails) and (exact or of_this_run or seeds >= MIN_SEEDS):
        verdict = ("supported" if holds else "refuted") + (" in this run" if of_this_run else "")
    return Interval(mean, low, high, seeds), verdict
