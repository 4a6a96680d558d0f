"""Calibration and occupancy by hand; mixtures whose shape is known."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from vaelib.config import InputError
from vaelib.metrics import mixture as m
from vaelib.metrics.clustering import fit_gmm

CONFIDENCE = np.array([0.05, 0.55, 0.6, 0.65, 0.95, 1.0])
CORRECT = np.array([0, 1, 0, 1, 1, 1], dtype=bool)


def test_reliability_table_by_hand():
    table = m.reliability(CONFIDENCE, CORRECT, bins=5)
    np.testing.assert_array_equal(table.count, [1, 0, 1, 2, 2])  # 0.6 on an edge: upper bin
    np.testing.assert_allclose(table.confidence, [0.05, np.nan, 0.55, 0.625, 0.975])
    np.testing.assert_allclose(table.accuracy, [0, np.nan, 1, 0.5, 1])
    np.testing.assert_allclose((table.low[1], table.high[-1]), (0.2, 1))
    expected = (1 * 0.05 + 1 * 0.45 + 2 * 0.125 + 2 * 0.025) / 6
    assert m.calibration_errors(CONFIDENCE, CORRECT, bins=5).mean() == pytest.approx(expected)


def test_calibration_error_of_honest_and_boasting_confidence():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=20_000)
    correct = rng.uniform(size=20_000) < confidence
    assert m.calibration_errors(confidence, correct).mean() < 0.02
    assert m.calibration_errors(np.ones(20_000), correct).mean() == pytest.approx(0.5, abs=0.02)


def test_a_temperature_turns_boasting_into_honest_confidence_and_back():
    rng = np.random.default_rng(0)
    honest = np.log(rng.dirichlet(np.ones(4), 4000))
    truth = np.array([rng.choice(4, p=np.exp(row)) for row in honest])
    for scale in (1, 8, 0.5):
        boasting = scale * honest
        temperature = m.fit_temperature(boasting[:2000], (boasting.argmax(1) == truth)[:2000])
        assert temperature == pytest.approx(scale, rel=0.1)
        soft = m.tempered(boasting, temperature)
        np.testing.assert_allclose(soft.sum(1), 1)
        np.testing.assert_array_equal(soft.argmax(1), honest.argmax(1))
        assert m.calibration_errors(soft.max(1)[2000:], (soft.argmax(1) == truth)[2000:]).mean() < 0.05
    assert m.tempered(np.array([[-1e5, -3e5]]), 1.0).tolist() == [[1, 0]]
    assert m.margins(np.array([[-1e5, -3e5, -2e5], [0, -3, -1]])).tolist() == [1e5, 1]
    assert m.margins(np.zeros((1, 1))).tolist() == [0]


def test_confidence_must_be_a_probability():
    with pytest.raises(InputError):
        m.reliability(np.array([1.2]), np.array([True]))
    with pytest.raises(InputError):
        m.reliability(np.array([0.5, 0.5]), np.array([True]))
    assert m.reliability(np.array([np.float32(1) + np.float32(1e-7)]), np.array([1])).count[-1] == 1


def test_occupancy_of_even_dead_and_undecided_mixtures():
    even = m.occupancy(np.tile(np.eye(4), (5, 1)))
    np.testing.assert_array_equal(even.counts, 5)
    assert even.populated == 4 and even.effective == pytest.approx(4)
    np.testing.assert_allclose(even.entropy, 0)
    dead = m.occupancy(np.tile(np.eye(4)[:1], (5, 1)))
    assert (dead.populated, dead.effective) == (1, pytest.approx(1))
    np.testing.assert_array_equal(dead.counts, [5, 0, 0, 0])
    undecided = m.occupancy(np.full((5, 4), 0.25))
    np.testing.assert_allclose(undecided.entropy, np.log(4))
    assert undecided.effective == pytest.approx(1)
    skewed = m.occupancy(np.eye(2)[[0, 0, 0, 1]])
    assert skewed.effective == pytest.approx(0.75**-0.75 * 0.25**-0.25)
    with pytest.raises(InputError):
        m.occupancy(np.ones((3, 2)))


def test_the_class_of_a_cluster_is_its_most_frequent_one():
    found = m.majority_classes(np.array([0, 0, 0, 2, 2]), np.array(["a", "a", "b", "b", "a"]))
    assert found == {0: "a", 2: "a"}  # the tie of cluster 2 goes to the first; cluster 1 has no clip


def test_log_likelihood_against_scipy():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(200, 3)) * [1, 4, 0.5], rng.normal(size=(40, 3)) * [1, 4, 0.5]
    gmm = fit_gmm(train, 3, 0, "diag")
    parts = [
        np.log(w) + norm(mean, np.sqrt(var)).logpdf(test).sum(1)
        for w, mean, var in zip(gmm.weights_, gmm.means_, gmm.covariances_, strict=True)
    ]
    score = m.diag_vs_spherical_loglik(train, test, 3, 0)
    assert score.diag == pytest.approx(logsumexp(parts, axis=0).mean())
    assert score.difference.mean() == pytest.approx(score.diag - score.spherical)


def test_elliptical_clusters_are_told_from_round_ones():
    rng = np.random.default_rng(0)

    def draw(n, axes):
        group = rng.integers(3, size=n)
        return 40 * np.eye(4)[group] + rng.normal(size=(n, 4)) * np.asarray(axes)[group]

    long = [[9, 1, 1, 1], [1, 9, 1, 1], [1, 1, 9, 1]]
    ellipses = m.diag_vs_spherical_loglik(draw(600, long), draw(300, long), 3)
    circles = m.diag_vs_spherical_loglik(draw(600, np.ones((3, 4))), draw(300, np.ones((3, 4))), 3)
    assert ellipses.difference.shape == (300,)
    assert ellipses.difference.mean() > 1
    assert -0.2 < circles.difference.mean() < 0.02  # held out: extra parameters do not pay
    with pytest.raises(InputError):
        m.diag_vs_spherical_loglik(np.eye(4), np.eye(4), 5)
