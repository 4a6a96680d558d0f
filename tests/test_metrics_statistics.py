"""Coverage of the intervals, and every branch of the verdict."""

import numpy as np
import pytest

from vaelib.config import InputError
from vaelib.metrics.statistics import Interval, Null, bootstrap_interval, mean_known, verdict


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_of_few_seeds_cover_the_truth(seeds):
    rng = np.random.default_rng(0)
    draws = [bootstrap_interval(rng.normal(7, 2, size=seeds), n=400, seed=s) for s in range(400)]
    assert 0.91 < np.mean([i.low < 7 < i.high for i in draws]) < 0.985  # the plain percentile gives 0.75 at 3


def test_intervals_over_seeds_and_clips_do_not_take_clips_for_seeds():
    rng = np.random.default_rng(0)
    hits, naive = [], []
    for s in range(150):
        x = rng.normal(size=(3, 1)) + 0.3 * rng.normal(size=(1, 80)) + rng.normal(size=(3, 80))
        interval = bootstrap_interval(x, n=400, seed=s)
        hits.append(interval.low < 0 < interval.high)
        pooled = bootstrap_interval(x.reshape(1, -1), n=400, seed=s)
        naive.append(pooled.low < 0 < pooled.high)
    assert np.mean(hits) > 0.9 > 0.5 > np.mean(naive)


def test_interval_shrinks_with_seeds_and_is_reproducible():
    x = np.random.default_rng(0).normal(size=200)
    few, many = bootstrap_interval(x[:8]), bootstrap_interval(x)
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert few == bootstrap_interval(x[:8]) and few.n == 8
    assert few.mean == pytest.approx(x[:8].mean()) and few.low < few.mean < few.high
    assert many.high - many.low == pytest.approx(2 * 1.96 * x.std() / np.sqrt(200), rel=0.1)


def test_pairing_removes_what_seeds_share():
    a = np.array([0.2, 0.5, 0.8, 0.4])
    b = a - [0.05, 0.06, 0.04, 0.05]
    paired = bootstrap_interval(a, b)
    assert paired.mean == pytest.approx(0.05) and paired.low > 0
    assert bootstrap_interval(a).low < bootstrap_interval(b).high  # unpaired, the two overlap
    with pytest.raises(InputError, match="differ in shape"):
        bootstrap_interval(a, b[:3])


def test_interval_degenerate_cases():
    one = bootstrap_interval(np.array([0.4]))
    assert one.mean == 0.4 and one.n == 1 and np.isnan(one.low) and np.isnan(one.high)
    clips = bootstrap_interval(np.array([[0.1, 0.2, 0.3, 0.4]]))
    assert clips.n == 1 and clips.low < 0.25 < clips.high
    assert bootstrap_interval(np.full(3, 0.5)) == (0.5, 0.5, 0.5, 3)
    assert np.isnan(bootstrap_interval(np.array([0.1, np.nan, 0.2]))[:3]).all()
    assert bootstrap_interval(np.array([1.0, np.inf, 2.0]))[:3] == (np.inf,) * 3
    with pytest.raises(InputError):
        bootstrap_interval(np.array([]))


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_of_shares_cover_the_truth_and_stay_within_their_bounds(seeds):
    rng = np.random.default_rng(0)
    draws = [bootstrap_interval(rng.beta(19, 1, seeds), n=400, seed=s, bounds=(0, 1)) for s in range(400)]
    assert all(0 <= i.low <= i.mean <= i.high <= 1 for i in draws)
    assert 0.9 < np.mean([i.low < 0.95 < i.high for i in draws]) < 0.995


def test_clips_that_are_all_alike_at_a_bound_leave_it_open_how_rare_others_are():
    low, high = bootstrap_interval(np.ones((1, 64)), bounds=(0, 1))[1:3]
    assert 0.94 < low < 0.98 and high == 1  # Jeffreys' interval of 64 of 64
    assert bootstrap_interval(np.zeros((3, 64)), bounds=(0, 1))[1:3] == pytest.approx((0, 1 - low))
    assert bootstrap_interval(np.ones((1, 4)), bounds=(0, 1)).low < 0.6
    assert bootstrap_interval(np.ones(3), bounds=(0, 1)) == (1, 1, 1, 3)  # scores of seeds, not of clips


@pytest.mark.parametrize(
    ("interval", "threshold", "direction", "expected"),
    [
        (Interval(0.5, 0.4, 0.6, 3), 0.3, "above", "supported"),
        (Interval(0.5, 0.4, 0.6, 3), 0.7, "above", "refuted"),
        (Interval(0.5, 0.4, 0.6, 3), 0.45, "above", "inconclusive"),
        (Interval(0.5, 0.4, 0.6, 3), 0.4, "above", "inconclusive"),
        (Interval(0.5, 0.4, 0.6, 3), 0.7, "below", "supported"),
        (Interval(0.5, 0.4, 0.6, 3), 0.3, "below", "refuted"),
        (Interval(0.5, 0.4, 0.6, 3), 0.55, "below", "inconclusive"),
        (Interval(0.5, 0.4, 0.6, 3), (0.3, 0.7), "within", "supported"),
        (Interval(0.5, 0.4, 0.6, 3), (0.4, 0.6), "within", "supported"),
        (Interval(0.5, 0.4, 0.6, 3), (0.7, 0.9), "within", "refuted"),
        (Interval(0.5, 0.4, 0.6, 3), (0.1, 0.3), "within", "refuted"),
        (Interval(0.5, 0.4, 0.6, 3), (0.45, 0.9), "within", "inconclusive"),
        (Interval(0.5, 0.4, 0.6, 1), 0.3, "above", "inconclusive"),  # one seed
        (Interval(0.5, 0.4, 0.6, 2), 0.7, "above", "inconclusive"),  # two seeds
        (bootstrap_interval(np.array([0.9])), 0.3, "above", "inconclusive"),
        (bootstrap_interval(np.array([0.9, np.nan, 0.9])), 0.3, "above", "not tested"),
        (bootstrap_interval(np.full(3, np.inf)), 4, "below", "refuted"),  # collapsed smoothness
    ],
)
def test_verdicts(interval, threshold, direction, expected):
    assert verdict(interval, threshold, direction) == expected


def test_an_interval_over_clips_decides_about_its_run():
    sure = {"threshold": 0.3, "direction": "above", "of_this_run": True}
    assert verdict(Interval(0.5, 0.4, 0.6, 1), **sure) == "supported in this run"
    assert verdict(Interval(0.2, 0.1, 0.25, 1), **sure) == "refuted in this run"
    assert verdict(Interval(0.3, 0.1, 0.4, 1), **sure) == verdict(Interval(0.5, np.nan, np.nan, 1), **sure)


def test_counted_quantities_need_one_run():
    assert verdict(Interval.exact(4.9e6), (4e6, 6e6), "within", min_seeds=1) == "supported"
    assert verdict(Interval.exact(7e6), (4e6, 6e6), "within", min_seeds=1) == "refuted"
    assert verdict(bootstrap_interval(np.array([0.9])), 0.3, "above", min_seeds=1) == "inconclusive"


@pytest.mark.parametrize(("threshold", "direction"), [(0.3, "more"), (0.3, "within"), ((0.1, 0.3), "above")])
def test_a_verdict_that_makes_no_sense_is_refused(threshold, direction):
    with pytest.raises(InputError):
        verdict(Interval(0.5, 0.4, 0.6, 3), threshold, direction)


def test_small_helpers():
    assert mean_known([1, np.nan, 3]) == 2 and np.isnan(mean_known([np.nan]))
    null = Null.of([0, 1, 2, 3])
    assert null.mean == 1.5 and null.p95 == pytest.approx(2.85)
