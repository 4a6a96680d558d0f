"""Probes on separable and random embeddings; trees of centroids with known families."""

import numpy as np
import pytest
from scipy.stats import norm

from vaelib.config import InputError
from vaelib.metrics.separation import cophenetic_agreement, linear_probe, probe_null

NAMES = np.array(["es", "en", "ar"])


def embedding(shift, n=240, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    return np.eye(6)[y] * shift + rng.normal(size=(n, 6)), NAMES[y]


def test_probe_reads_what_is_there_and_only_that():
    told, blind = embedding(30), embedding(0)
    assert linear_probe(*told, *embedding(30, seed=1)) == (1, pytest.approx(1 / 3))
    score = linear_probe(*blind, *embedding(0, seed=1))
    assert score.balanced_accuracy == pytest.approx(1 / 3, abs=0.1)


def test_probe_is_balanced_over_unequal_classes():
    rng = np.random.default_rng(0)
    y = (rng.uniform(size=2000) < 0.95).astype(int)
    x = 1.5 * y[:, None] + rng.normal(size=(2000, 1))
    score = linear_probe(x[:1000], y[:1000], x[1000:], y[1000:])
    # the midpoint between the classes; plain logistic regression would answer "1" to nearly everything (0.5)
    assert score.balanced_accuracy == pytest.approx(norm.cdf(0.75), abs=0.05) and score.chance == 0.5


def test_probe_null_stays_at_chance_while_the_probe_does_not():
    train, test = embedding(2), embedding(2, seed=1)
    null = probe_null(*train, *test, n=10)
    assert null.values.shape == (10,) and np.ptp(null.values) > 0
    assert null.mean == pytest.approx(1 / 3, abs=0.08)
    assert linear_probe(*train, *test).balanced_accuracy > null.values.max() + 0.2


def test_probe_degenerate_cases():
    x, y = embedding(3)
    assert np.isnan(linear_probe(x, np.full(240, "es"), x, y).balanced_accuracy)
    assert np.isnan(linear_probe(x, y, x, np.full(240, "es")).balanced_accuracy)
    collapsed = linear_probe(np.zeros((240, 6)), y, np.zeros((240, 6)), y)
    assert collapsed.balanced_accuracy == pytest.approx(collapsed.chance)
    unseen = linear_probe(x[y != "ar"], y[y != "ar"], x, y)  # a class that train lacks cannot be found
    assert unseen.balanced_accuracy <= 2 / 3 and unseen.chance == pytest.approx(1 / 3)
    with pytest.raises(InputError):
        linear_probe(x, y[:-1], x, y)


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
    assert crossed.p_value > 0.9


def test_tree_of_many_families_is_significant_and_a_random_one_is_not():
    rng = np.random.default_rng(0)
    families = np.repeat(np.arange(4), 3)
    good = cophenetic_agreement(10 * np.eye(4)[families] + rng.normal(size=(12, 4)), families)
    assert good.correlation > 0.9 and good.p_value < 0.01
    assert good.null_mean == pytest.approx(0, abs=0.05) and 0 < good.null_p95 < good.correlation
    p_values = [cophenetic_agreement(rng.normal(size=(12, 4)), families, 100, s).p_value for s in range(40)]
    assert np.mean(np.array(p_values) < 0.05) < 0.2 and np.mean(p_values) == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize(
    ("centroids", "families"),
    [
        (np.zeros((4, 2)), [0, 0, 1, 1]),  # collapsed
        (np.arange(8.0).reshape(4, 2), [0, 0, 0, 0]),  # one family
        (np.arange(8.0).reshape(4, 2), [0, 1, 2, 3]),  # nobody shares a family
        (np.arange(4.0).reshape(2, 2), [0, 0]),  # two classes
    ],
)
def test_agreement_is_nan_where_undefined(centroids, families):
    assert np.isnan(cophenetic_agreement(centroids, np.array(families))).all()


def test_a_family_per_class_is_required():
    with pytest.raises(InputError):
        cophenetic_agreement(np.eye(4), np.array([0, 0, 1]))
