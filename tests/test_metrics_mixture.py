"""Calibration by hand, and a temperature that is known."""

import numpy as np
import pytest

from vaelib.metrics import mixture as m


def test_calibration_error_by_hand():
    confidence = np.array([0.05, 0.55, 0.6, 0.65, 0.95, np.float32(1) + np.float32(1e-7)])  # a softmax rounds above 1
    correct = np.array([0, 1, 0, 1, 1, 1], dtype=bool)
    expected = (1 * 0.05 + 1 * 0.45 + 2 * 0.125 + 2 * 0.025) / 6  # 0.6 on an edge: upper bin
    assert m.calibration_errors(confidence, correct).mean() == pytest.approx(expected)


def test_calibration_error_of_honest_and_boasting_confidence():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=20_000)
    correct = rng.uniform(size=20_000) < confidence
    assert m.calibration_errors(confidence, correct).mean() < 0.02
    assert m.calibration_errors(np.ones(20_000), correct).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("scale", [1, 8, 0.5])
def test_a_temperature_turns_boasting_into_honest_confidence_and_back(scale):
    rng = np.random.default_rng(0)
    honest = np.log(rng.dirichlet(np.ones(4), 4000))
    truth = np.array([rng.choice(4, p=np.exp(row)) for row in honest])
    boasting = scale * honest
    temperature = m.fit_temperature(boasting[:2000], (boasting.argmax(1) == truth)[:2000])
    assert temperature == pytest.approx(scale, rel=0.1)
    soft = m.tempered(boasting, temperature)
    np.testing.assert_allclose(soft.sum(1), 1)
    assert m.calibration_errors(soft.max(1)[2000:], (soft.argmax(1) == truth)[2000:]).mean() < 0.05


def test_margins_tell_apart_what_probabilities_round_to_one():
    assert m.tempered(np.array([[-1e5, -3e5]]), 1.0).tolist() == [[1, 0]]
    assert m.margins(np.array([[-1e5, -3e5, -2e5], [0, -3, -1]])).tolist() == [1e5, 1]
    assert m.margins(np.zeros((1, 1))).tolist() == [0]
