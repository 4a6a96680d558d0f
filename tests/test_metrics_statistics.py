"""Coverage of the intervals, and every branch of the verdict."""

import numpy as np
import pytest
from scipy.stats import norm, t

from vaelib.metrics import statistics
from vaelib.metrics.statistics import bootstrap_interval, judge


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_of_few_seeds_cover_the_truth_and_those_of_shares_stay_within_their_bounds(seeds):
    rng = np.random.default_rng(0)
    draws = [bootstrap_interval(rng.normal(7, 2, size=seeds)) for _ in range(400)]
    assert 0.91 < np.mean([i.low < 7 < i.high for i in draws]) < 0.985  # the plain percentile gives 0.75 at 3
    rng = np.random.default_rng(0)
    draws = [bootstrap_interval(rng.beta(19, 1, seeds), bounds=(0, 1)) for _ in range(400)]
    assert all(0 <= i.low <= i.mean <= i.high <= 1 for i in draws)
    # of skewed shares they cover less than 95 %: 3000 other draws give 0.92 at 3 seeds and 0.897 at 5
    assert 0.9 < np.mean([i.low < 0.95 < i.high for i in draws]) < 0.995


def test_intervals_over_seeds_and_clips_do_not_take_clips_for_seeds(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    rng = np.random.default_rng(0)
    seeds, clips, both = (rng.normal(size=(150, *shape)) for shape in ((3, 1), (1, 80), (3, 80)))
    x = seeds + 0.3 * clips + both  # of one number for each of 3 seeds and 80 clips, whose true mean is 0
    hits, naive = ([bootstrap_interval(y) for y in draws] for draws in (x, x.reshape(150, 1, -1)))
    assert np.mean([i.low < 0 < i.high for i in hits]) > 0.9 > 0.5 > np.mean([i.low < 0 < i.high for i in naive])


def test_interval_degenerate_cases():
    one = bootstrap_interval(np.array([0.4]))
    assert one.mean == 0.4 and one.n == 1 and np.isnan(one.low) and np.isnan(one.high)
    clips = bootstrap_interval(np.array([[0.1, 0.2, 0.3, 0.4]]))
    assert clips.n == 1 and clips.low < 0.25 < clips.high
    assert bootstrap_interval(np.full(3, 0.5)) == (0.5, 0.5, 0.5, 3)
    assert np.isnan(bootstrap_interval(np.array([0.1, np.nan, 0.2]))[:3]).all()
    assert bootstrap_interval(np.array([1.0, np.inf, 2.0]))[:3] == (np.inf,) * 3


def test_clips_that_are_all_alike_at_a_bound_leave_it_open_how_rare_others_are():
    low, high = bootstrap_interval(np.ones((1, 64)), bounds=(0, 1))[1:3]
    assert 0.94 < low < 0.98 and high == 1  # Jeffreys' interval of 64 of 64
    assert bootstrap_interval(np.zeros((3, 64)), bounds=(0, 1))[1:3] == pytest.approx((0, 1 - low))
    assert bootstrap_interval(np.ones(3), bounds=(0, 1)) == (1, 1, 1, 3)  # scores of seeds, not of clips


SURE = np.array([0.49, 0.5, 0.51])  # three seeds: from 0.44 to 0.56


@pytest.mark.parametrize(
    ("values", "threshold", "direction", "expected"),
    [
        (SURE, (0.3, 0.3), "above", "supported"),
        (SURE, (0.7, 0.7), "above", "refuted"),
        (SURE, (0.49, 0.49), "above", "inconclusive"),
        (SURE, (0.7, 0.7), "below", "supported"),
        (np.full(3, 0.5), (0.5, 0.6), "within", "supported"),
        (SURE, (0.1, 0.3), "within", "refuted"),
        (SURE, (0.49, 0.9), "within", "inconclusive"),
        (SURE[:2], (0.7, 0.7), "above", "inconclusive"),  # two seeds
        (np.array([0.9, np.nan, 0.9]), (0.3, 0.3), "above", "not tested"),
        (np.full(3, np.inf), (4, 4), "below", "refuted"),  # collapsed smoothness
    ],
)
def test_verdicts(values, threshold, direction, expected):
    assert judge(values, direction=direction, threshold=threshold)[1] == expected


WIDER = np.sqrt(3 / 2) * t.ppf(0.975, 2) / norm.ppf(0.975)  # three seeds


def test_the_interval_of_three_seeds_is_the_widened_range_of_their_resampled_means():
    found, _ = judge(np.array([1.0, 2, 3]))
    # all three resampled alike: 1 of 27, more than 2.5 %, so the percentiles are the smallest and the largest value
    assert found == pytest.approx((2, 2 - WIDER, 2 + WIDER, 3)) and abs(WIDER - 2.689) < 1e-3


def test_differences_and_ratios_are_paired_by_seed():
    mine, other = np.array([10.0, 20, 30]), np.array([8.0, 18, 28])
    found, judged = judge(mine, other, "difference")
    assert found == (2, 2, 2, 3) and judged == "supported"  # every seed says 2, however far the seeds are apart
    shuffled, unsure = judge(mine, other[::-1], "difference")
    assert shuffled.mean == 2 and unsure == "inconclusive"
    found, judged = judge(np.array([3.0, 6, 9]), np.array([1.0, 2, 3]), "ratio", threshold=(2, 2))
    assert found == pytest.approx((3, 3, 3, 3)) and judged == "supported"


def test_values_of_clips_widen_the_interval_and_a_ratio_is_that_of_their_means():
    clips = np.tile([0.0, 0, 0, 4], (3, 1))  # (seeds, clips); a resampled mean is Binomial(4, 1/4): 0 to 3 of them
    found, judged = judge(clips, threshold=(0.5, 0.5))
    assert found == pytest.approx((1, 1 - WIDER, 1 + 2 * WIDER, 3)) and judged == "inconclusive"
    assert judge(clips.mean(1), threshold=(0.5, 0.5))[1] == "supported"
    found, judged = judge(clips + 1, clips, "difference")  # the same clips: paired
    assert found == (1, 1, 1, 3) and judged == "supported"
    found, _ = judge(clips + 1, np.tile([1.0, 0, 0, 1], (3, 1)), "ratio")  # (1, 1, 1, 5), (1, 0, 0, 1): no proportion
    assert found.mean == pytest.approx(4) and 0 < found.low < 4 < found.high
    assert judge(3 * clips, clips, "ratio")[0] == pytest.approx((3, 3, 3, 3))


def test_fewer_than_three_seeds_decide_about_their_own_clips_only():
    clips = np.array([[4.0, 5, 6, 5], [5.0, 6, 7, 6]])
    found, judged = judge(clips)
    assert found.n == 2 and found.low < 5.5 < found.high and judged == "supported in this run"
    assert judge(clips[:1], threshold=(9, 9))[1] == "refuted in this run"
    assert judge(clips, threshold=(5.5, 5.5))[1] == "inconclusive"


def test_turns_of_a_stopwatch_are_no_seeds_however_many():
    found, judged = judge(np.full(9, 4.0), np.full(9, 2.0), "ratio", threshold=(1, 1), turns=True)
    assert found == pytest.approx((2, 2, 2, 9)) and judged == "supported in this run"


def test_shares_and_scores_do_not_leave_their_bounds():
    found, _ = judge(np.array([0.99, 0.9, 0.99]), share=True)
    assert 0.5 < found.low < found.mean < found.high <= 1 < judge(np.array([0.99, 0.9, 0.99]))[0].high
    found, _ = judge(np.array([0.02, -0.03, 0.0]), share=True)  # an ARI may fall below 0
    assert -1 < found.low < found.mean < 0 < found.high < 1


def test_what_is_counted_needs_one_value_and_what_is_not_known_is_not_tested():
    assert judge(np.array([5.0]), direction="within", threshold=(4, 6), exact=True) == ((5, 5, 5, 1), "supported")
    assert judge(np.array([6.1]), direction="within", threshold=(4, 6), exact=True)[1] == "refuted"
    assert judge(np.array([1.0, np.nan, 1]))[1] == "not tested"
    for nothing in (0.0, -0.5):  # a ratio to nothing is not known
        assert judge(np.full(3, 0.4), np.array([0.1, 0.1, nothing]), "ratio")[1] == "not tested"
