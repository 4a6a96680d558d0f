"""Intervals over seeds and clips, and the verdict on a claim; notebook 07 explains both."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, norm, t

MIN_SEEDS = 3
RESAMPLES = 2000


class Interval(NamedTuple):
    """A mean with its 95 % interval; `n` is the number of seeds (rows) behind it."""

    mean: float
    low: float
    high: float
    n: int


# Numbers by id (`rec.mse`, `ari.pca`, …), and for some of them values (N,) per clip (see `claims.Results`)
Scores = tuple[dict[str, float], dict[str, np.ndarray]]


def mean_known(values: np.ndarray) -> float:
    """Mean of the values (N,) that are not nan; nan without any."""
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


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

    Seeds and clips are resampled independently (pigeonhole bootstrap; Owen 2007, doi:10.1214/07-AOAS122). The
    percentiles of 3 values cover at best 75 %, so the arms are widened by sqrt(m / (m - 1)) · t / z (after Hesterberg
    2015, doi:10.1080/00031305.2015.1089789), within `bounds` (of a share: 0 and 1) on the logit scale. Clips all at a
    bound get Jeffreys' interval (Brown, Cai & DasGupta 2001, doi:10.1214/ss/1009213286). The ends are nan for a single
    number, and equal to the mean if that is nan or infinite.
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
    ends = np.percentile(((rows @ x) * columns).sum(1), [2.5, 97.5])
    m = seeds if seeds > 1 else clips
    widen = np.sqrt(m / (m - 1)) * t.ppf(0.975, m - 1) / norm.ppf(0.975)
    if bounds is None:
        return Interval(mean, *(mean + widen * (ends - mean)).tolist(), seeds)
    least, span = bounds[0], bounds[1] - bounds[0]
    share = np.clip((np.array([mean, *ends]) - least) / span, 0, 1)  # rounding can leave the bounds
    if share[0] in (0, 1):
        count = share[0] * clips
        jeffreys = beta.ppf([0.025, 0.975], count + 0.5, clips - count + 0.5) if clips > 1 else share[:1].repeat(2)
        ends = np.array([0.0, jeffreys[1]] if share[0] == 0 else [jeffreys[0], 1.0])
    else:
        middle, *arms = logit(share)
        ends = expit(middle + widen * (np.array(arms) - middle))
    return Interval(mean, *(least + span * ends).tolist(), seeds)


def judge(
    values: np.ndarray,
    against: np.ndarray | None = None,
    how: Literal["value", "difference", "ratio"] = "value",
    direction: Literal["above", "below", "within"] = "above",
    threshold: tuple[float, float] = (0.0, 0.0),
    share: bool = False,
    exact: bool = False,
    turns: bool = False,
) -> tuple[Interval, str]:
    """Interval, and the verdict: supported, refuted (both also `in this run`), inconclusive or not tested (nan).

    Values are one number per seed, (S,), or per seed and test clip, (S, N); `against` are those of the baseline, paired
    by seed, for a `difference` or `ratio` (a geometric mean). From three seeds on the interval is over seeds, and over
    clips too. With fewer it is over clips, and what it decides holds `in this run`. The whole interval must be on one
    side of the `threshold` (twice the same; of `within` the ends of the range). The interval of a `share`, or score of
    at most 1, stays in [0, 1] or [-1, 1]. `exact`: counted, one value decides. `turns` of a stopwatch are no seeds.
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
    ends = np.exp(found[:3]).tolist() if how == "ratio" else found[:3]
    found = Interval(*ends, seeds)
    if np.isnan(found.mean):
        return found, "not tested"
    side = _side(found, threshold, direction) if exact or of_this_run or seeds >= MIN_SEEDS else "inconclusive"
    return found, side + (" in this run" if of_this_run and side != "inconclusive" else "")


def _side(found: Interval, threshold: tuple[float, float], direction: str) -> str:
    """Which side of the threshold the whole interval is on; nan ends are on none."""
    least, most = threshold
    over, under = found.low > most, found.high < least
    if direction == "within":
        yes, no = least <= found.low and found.high <= most, over or under
    else:
        yes, no = (over, under) if direction == "above" else (under, over)
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
