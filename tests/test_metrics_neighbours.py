"""Nearest neighbours against distances computed one by one, and who is left out."""

import numpy as np
import pytest

from vaelib.config import InputError
from vaelib.metrics.neighbours import nearest


@pytest.fixture
def points():
    return np.random.default_rng(3).normal(size=(40, 5))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_nearest_are_those_of_brute_force(points, metric):
    queries = np.random.default_rng(4).normal(size=(7, 5))
    places, far = nearest(queries, points, 4, metric)
    for q, at, d in zip(queries, places, far, strict=True):
        if metric == "euclidean":
            expected = np.linalg.norm(points - q, axis=1)
        else:
            expected = 1 - points @ q / np.linalg.norm(points, axis=1) / np.linalg.norm(q)
        assert at.tolist() == np.argsort(expected)[:4].tolist()
        np.testing.assert_allclose(d, np.sort(expected)[:4], atol=1e-7)


def test_a_length_counts_in_one_metric_alone():
    points = np.array([[10.0, 0.1], [0.5, 0.9]])
    assert nearest(np.array([[1.0, 0.0]]), points, 1)[0].item() == 1
    assert nearest(np.array([[1.0, 0.0]]), points, 1, "cosine")[0].item() == 0


def test_a_query_is_not_its_own_neighbour_even_among_copies(points):
    points[7] = points[3]
    own = np.arange(40)
    places, far = nearest(points, points, 5, kin=(own, own))
    assert not (places == own[:, None]).any()
    assert places[3, 0] == 7 and places[7, 0] == 3 and far[3, 0] == 0  # a copy is another clip


def test_relatives_are_passed_over_and_others_take_their_place(points):
    artist = np.repeat(np.arange(8), 5)
    places, far = nearest(points, points, 6, kin=(artist, artist))
    for i, (at, d) in enumerate(zip(places, far, strict=True)):
        expected = np.linalg.norm(points - points[i], axis=1)
        expected[artist == artist[i]] = np.inf
        assert at.tolist() == np.argsort(expected)[:6].tolist() and (np.diff(d) >= 0).all()


def test_where_there_are_too_few_the_rest_is_empty(points):
    artist = np.array([0, 0, 0, 1])
    places, far = nearest(points[:4], points[:4], 3, kin=(artist, artist))
    assert places[0].tolist() == [3, -1, -1] and np.isnan(far[0, 1:]).all() and np.isfinite(far[0, 0])
    assert sorted(places[3]) == [0, 1, 2]
    assert nearest(points, points[:0], 2)[0].tolist() == [[-1, -1]] * 40


@pytest.mark.parametrize(("k", "metric", "says"), [(0, "cosine", "one or more"), (1, "cosin", "did you mean 'cosine'")])
def test_what_cannot_be_asked(points, k, metric, says):
    with pytest.raises(InputError, match=says):
        nearest(points, points, k, metric)
