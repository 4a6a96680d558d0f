"""Paths with a known shape: straight, jumping, round, closed, collapsed."""

import numpy as np
import pytest

from vaelib.config import InputError
from vaelib.metrics.smoothness import path_smoothness, paths_smoothness

T = np.linspace(0, 1, 33)


def straight():
    a, b = np.random.default_rng(0).uniform(size=(2, 1, 8, 10))
    return a + T[:, None, None] * (b - a)


def jump():
    return np.where(T < 0.5, 0.0, 1.0)[:, None] * np.ones(5)


def test_a_straight_even_path_is_one_and_one():
    score = path_smoothness(straight())
    assert score["step_ratio"] == pytest.approx(1) and score["length_ratio"] == pytest.approx(1)
    assert score["collapsed"] is False


def test_a_single_jump_is_as_uneven_as_can_be():
    score = path_smoothness(jump())
    assert score["step_ratio"] == pytest.approx(32) and score["length_ratio"] == pytest.approx(1)
    assert score["length"] == pytest.approx(np.sqrt(5))


def test_a_half_circle_is_even_but_longer_and_a_closed_one_has_no_ends():
    arc = np.c_[np.cos(np.pi * T), np.sin(np.pi * T)]
    score = path_smoothness(arc)
    assert score["step_ratio"] == pytest.approx(1)
    assert score["length_ratio"] == pytest.approx(np.pi / 2, rel=1e-3)
    closed = path_smoothness(np.array([[0.0], [1.0], [0.0]]))
    assert closed["length_ratio"] == np.inf and not closed["collapsed"]


@pytest.mark.parametrize("jitter", [0, 1e-9, np.nan])
def test_a_collapsed_path_never_looks_smooth(jitter):
    path = np.full((33, 6, 7), 0.4) + jitter * np.random.default_rng(0).normal(size=(33, 6, 7))
    score = path_smoothness(path)
    assert score["collapsed"] is True
    assert score["step_ratio"] == score["length_ratio"] == np.inf


def test_a_decoder_that_hardly_moves_is_collapsed_beside_its_originals():
    path, distance = straight(), np.linalg.norm(straight()[-1] - straight()[0])
    faint = path[:1] + 0.01 * (path - path[:1])
    assert path_smoothness(faint)["step_ratio"] == pytest.approx(1)  # evenness alone is fooled
    assert path_smoothness(faint, distance)["collapsed"] is True
    assert path_smoothness(path, distance)["collapsed"] is False


def test_many_paths_are_scored_one_by_one_and_a_collapsed_one_spoils_the_mean():
    paths = np.stack([T[:, None] * np.ones(5), jump(), np.zeros((33, 5))])
    scores = paths_smoothness(paths)
    np.testing.assert_allclose(scores["step_ratio"], [1, 32, np.inf])
    np.testing.assert_array_equal(scores["collapsed"], [False, False, True])
    assert scores["step_ratio"].mean() == np.inf


def test_one_step_is_no_path():
    with pytest.raises(InputError, match="two steps"):
        path_smoothness(np.zeros((1, 5)))
