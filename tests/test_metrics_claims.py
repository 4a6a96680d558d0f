"""Verdicts worked out by hand: the percentile interval of three seeds and its widening are small enough for that."""

import numpy as np
import pytest
from scipy.stats import norm, t

from vaelib.config import InputError
from vaelib.metrics.claims import Claim, judge

WIDER = np.sqrt(3 / 2) * t.ppf(0.975, 2) / norm.ppf(0.975)  # three seeds


def claim(how="value", direction="above", low=0.0, high=None) -> Claim:
    return Claim("X1", "is good", "goodness", "> 0", how, direction, low, low if high is None else high)


def test_the_interval_of_three_seeds_is_the_widened_range_of_their_resampled_means():
    found, _ = judge(claim(), np.array([1.0, 2, 3]))
    # all three resampled alike: 1 of 27, more than 2.5 %, so the percentiles are the smallest and the largest value
    assert found == pytest.approx((2, 2 - WIDER, 2 + WIDER, 3)) and abs(WIDER - 2.689) < 1e-3


@pytest.mark.parametrize(
    ("direction", "low", "high", "expected"),
    [
        ("above", -0.7, None, "supported"),  # the interval is -0.69 to 4.69
        ("above", 0.0, None, "inconclusive"),
        ("above", 4.7, None, "refuted"),
        ("below", 4.7, None, "supported"),
        ("below", 4.0, None, "inconclusive"),
        ("below", -0.7, None, "refuted"),
        ("within", -0.7, 4.7, "supported"),
        ("within", 0.0, 4.7, "inconclusive"),
        ("within", 4.7, 9.0, "refuted"),
        ("within", -9.0, -0.7, "refuted"),
    ],
)
def test_the_whole_interval_must_be_on_one_side(direction, low, high, expected):
    assert judge(claim("value", direction, low, high), np.array([1.0, 2, 3]))[1] == expected


def test_differences_and_ratios_are_paired_by_seed():
    mine, other = np.array([10.0, 20, 30]), np.array([8.0, 18, 28])
    found, said = judge(claim("difference"), mine, other)
    assert found == (2, 2, 2, 3) and said == "supported"  # every seed says 2, however far the seeds are apart
    shuffled, unsure = judge(claim("difference"), mine, other[::-1])
    assert shuffled.mean == 2 and unsure == "inconclusive"
    found, said = judge(claim("ratio", "above", 2.0), np.array([3.0, 6, 9]), np.array([1.0, 2, 3]))
    assert found == pytest.approx((3, 3, 3, 3)) and said == "supported"
    assert judge(claim("ratio", "below", 2.0), np.array([3.0, 6, 9]), np.array([1.0, 2, 3]))[1] == "refuted"


def test_values_of_clips_widen_the_interval_and_a_ratio_is_that_of_their_means():
    clips = np.tile([0.0, 0, 0, 4], (3, 1))  # (seeds, clips); a resampled mean is Binomial(4, 1/4): 0 to 3 of them
    found, said = judge(claim(low=0.5), clips)
    assert found == pytest.approx((1, 1 - WIDER, 1 + 2 * WIDER, 3)) and said == "inconclusive"
    assert judge(claim(low=0.5), clips.mean(1))[1] == "supported"
    found, said = judge(claim("difference"), clips + 1, clips)  # the same clips: paired
    assert found == (1, 1, 1, 3) and said == "supported"
    found, _ = judge(claim("ratio"), clips + 1, np.tile([1.0, 0, 0, 1], (3, 1)))
    assert (
        found.mean == pytest.approx(4) and 0 < found.low < 4 < found.high
    )  # (1, 1, 1, 5), (1, 0, 0, 1): no proportion
    assert judge(claim("ratio"), 3 * clips, clips)[0] == pytest.approx((3, 3, 3, 3))


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_decide_about_their_own_clips_only(seeds):
    found, said = judge(claim(), np.full(seeds, 5.0))
    assert found.mean == 5 and found.n == seeds and said == "inconclusive"
    clips = np.tile([4.0, 5, 6, 5], (seeds, 1)) + np.arange(seeds)[:, None]
    found, said = judge(claim(), clips)
    assert found.n == seeds and found.low < clips.mean() == found.mean < found.high and said == "supported in this run"
    assert judge(claim(low=9.0), clips)[1] == "refuted in this run"
    assert judge(claim(low=clips.mean()), clips)[1] == "inconclusive"


def test_turns_of_a_stopwatch_are_no_seeds_however_many():
    found, said = judge(claim("ratio", low=1.0), np.full(9, 4.0), np.full(9, 2.0), turns=True)
    assert found == pytest.approx((2, 2, 2, 9)) and said == "supported in this run"
    busy, said = judge(claim("ratio", low=1.0), np.array([4.0, 1, 4]), np.array([2.0, 2, 2]), turns=True)
    assert 0 < busy.low < 1 < busy.mean < busy.high and said == "inconclusive"


@pytest.mark.parametrize("how", ["value", "difference"])
def test_shares_and_scores_do_not_leave_their_bounds(how):
    share = Claim("X1", "is good", "share", "", how, "above", 0.5, 0.5, share=True)
    rival = np.zeros(3) if how == "difference" else None
    found, _ = judge(share, np.array([0.99, 0.9, 0.99]), rival)  # without bounds: up to 1.04
    assert 0.5 < found.low < found.mean < found.high <= 1
    assert judge(claim(how), np.array([0.99, 0.9, 0.99]), rival)[0].high > 1
    found, _ = judge(share, np.array([0.02, -0.03, 0.0]), rival)  # an ARI may fall below 0
    assert -1 < found.low < found.mean < 0 < found.high < 1


def test_what_is_counted_needs_one_value():
    assert judge(claim("value", "within", 4, 6), np.array([5.0]), exact=True) == ((5, 5, 5, 1), "supported")
    assert judge(claim("value", "within", 4, 6), np.array([6.1]), exact=True)[1] == "refuted"
    assert judge(claim("value", "within", 4, 6), np.array([6.0]), exact=True)[1] == "supported"


def test_what_is_not_known_is_not_tested():
    assert judge(claim(), np.array([1.0, np.nan, 1]))[1] == "not tested"
    assert judge(claim("difference"), np.ones(3), np.array([0.0, 0, np.nan]))[1] == "not tested"


@pytest.mark.parametrize("nothing", [0.0, -0.5])
def test_a_ratio_to_nothing_is_not_known(nothing):
    found, said = judge(claim("ratio", low=2.0), np.full(3, 0.4), np.array([0.1, 0.1, nothing]))
    assert np.isnan(found.mean) and said == "not tested"


@pytest.mark.parametrize("how", ["difference", "ratio"])
@pytest.mark.parametrize("rival", [None, np.ones(2), np.ones((3, 4)), 1.0])
def test_values_without_their_pairs_are_refused(how, rival):
    with pytest.raises(InputError, match=r"claim X1 \(goodness\) needs a rival's values for the same seeds"):
        judge(claim(how), np.ones(3), rival)


def test_a_claim_says_what_it_does_not_understand():
    with pytest.raises(InputError, match="unknown `how` of claim X1 'diference': did you mean 'difference'"):
        claim("diference")
    with pytest.raises(InputError, match="unknown `direction` of claim X1 'over'"):
        claim(direction="over")
    with pytest.raises(InputError, match=r"`low` and `high` are 6 and 4, no 'within'"):
        claim("value", "within", 6, 4)
    with pytest.raises(InputError, match=r"are 0.3 and 0.5, no 'above'"):
        claim("value", "above", 0.3, 0.5)
    with pytest.raises(InputError, match="no 'below'"):
        claim("value", "below", np.nan)
