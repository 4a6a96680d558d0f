"""Probes on separable and random codes; trees of known families."""

import numpy as np
import pytest
from scipy.stats import norm

from vaelib.metrics.judges import balanced_values, cophenetic_agreement, linear_probe

NAMES = np.array(["arab", "metal", "salsa"])


def codes(shift, n=240, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    return np.eye(6)[y] * shift + rng.normal(size=(n, 6)), NAMES[y]


def test_probe_reads_what_is_there_and_only_that():
    assert linear_probe(*codes(30), *codes(30, seed=1)) == (1, pytest.approx(1 / 3))
    score = linear_probe(*codes(0), *codes(0, seed=1))
    assert score.balanced_accuracy == pytest.approx(1 / 3, abs=0.1)
    rng = np.random.default_rng(0)
    y = (rng.uniform(size=2000) < 0.95).astype(int)
    x = 1.5 * y[:, None] + rng.normal(size=(2000, 1))
    score = linear_probe(x[:1000], y[:1000], x[1000:], y[1000:])
    # the midpoint between the classes; plain logistic regression would answer "1" to nearly everything (0.5)
    assert score.balanced_accuracy == pytest.approx(norm.cdf(0.75), abs=0.05) and score.chance == 0.5


def test_probe_of_collapsed_codes_and_unseen_classes():
    x, y = codes(3)
    collapsed = linear_probe(np.zeros((240, 6)), y, np.zeros((240, 6)), y)
    assert collapsed.balanced_accuracy == pytest.approx(collapsed.chance)
    unseen = linear_probe(x[y != "metal"], y[y != "metal"], x, y)  # a class that train lacks cannot be found
    assert unseen.balanced_accuracy <= 2 / 3 and unseen.chance == pytest.approx(1 / 3)


def test_balanced_values_are_those_of_the_mean_recall():
    found = balanced_values(np.array(["a", "a", "b", "b"]), np.array(["a", "a", "a", "b"]))
    assert found == pytest.approx([2 / 3, 2 / 3, 0, 2]) and found.mean() == pytest.approx((2 / 3 + 1) / 2)


def test_tree_that_follows_two_pairs_exactly():
    centroids = np.array([[0.0], [1], [10], [11]])
    score = cophenetic_agreement(centroids, np.array(["latin", "latin", "arabic", "arabic"]))
    assert score.correlation == pytest.approx(1)
    assert score.p_value == pytest.approx(1 / 3, abs=0.06)  # 1 of the 3 ways to pair four classes
    assert score.null_p95 == pytest.approx(1)  # which more than 5 % of the permutations find
    crossed = cophenetic_agreement(centroids, np.array([0, 1, 0, 1]))
    # joined at 1, 1 (apart) and 10, 10, 10, 10 (two together, two apart)
    expected = np.corrcoef([1, 10, 10, 10, 10, 1], [1, 0, 1, 1, 0, 1])[0, 1]
    assert crossed.correlation == pytest.approx(expected) and crossed.correlation < 0


def test_tree_of_many_families_is_significant_and_a_random_one_is_not():
    rng = np.random.default_rng(0)
    families = np.repeat(np.arange(4), 3)
    good = cophenetic_agreement(10 * np.eye(4)[families] + rng.normal(size=(12, 4)), families)
    assert good.correlation > 0.9 and good.p_value < 0.01
    assert 0 < good.null_p95 < good.correlation
    p_values = [cophenetic_agreement(rng.normal(size=(12, 4)), families).p_value for _ in range(20)]
    assert np.mean(np.array(p_values) < 0.05) < 0.2 and np.mean(p_values) == pytest.approx(0.5, abs=0.2)


def test_agreement_is_nan_where_undefined():
    apart = np.arange(8.0).reshape(4, 2)
    assert np.isnan(cophenetic_agreement(np.zeros((4, 2)), np.array([0, 0, 1, 1]))).all()  # collapsed
    for families in ([0, 0, 0, 0], [0, 1, 2, 3], [0, 0]):  # one; nobody shares one; two classes
        assert np.isnan(cophenetic_agreement(apart[: len(families)], np.array(families))).all()
