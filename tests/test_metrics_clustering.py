"""Cluster scores against brute force and hand-worked tables."""

import itertools
import warnings

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, mutual_info_score

from vaelib.config import InputError
from vaelib.metrics import clustering as c

LABELS = np.array([0, 0, 0, 1, 1, 1])
THREE = np.array([0, 0, 1, 1, 2, 2])


def entropy(x):
    share = np.unique(x, return_counts=True)[1] / len(x)
    return -(share * np.log(share)).sum()


def rand_index(a, b):
    pairs = list(itertools.combinations(range(len(a)), 2))
    return np.mean([(a[i] == a[j]) == (b[i] == b[j]) for i, j in pairs])


def test_scores_against_enumeration_of_all_permutations():
    scores = c.cluster_scores(LABELS, THREE)
    orders = [np.array(p) for p in itertools.permutations(range(6))]
    expected_mi = np.mean([mutual_info_score(LABELS[o], THREE) for o in orders])
    expected_rand = np.mean([rand_index(LABELS[o], THREE) for o in orders])
    mi, h_labels, h_three = mutual_info_score(LABELS, THREE), entropy(LABELS), entropy(THREE)
    rand = rand_index(LABELS, THREE)
    assert scores["ari"] == pytest.approx((rand - expected_rand) / (1 - expected_rand))
    assert scores["ami"] == pytest.approx((mi - expected_mi) / ((h_labels + h_three) / 2 - expected_mi))
    assert scores["nmi"] == pytest.approx(mi / ((h_labels + h_three) / 2))
    assert scores["homogeneity"] == pytest.approx(mi / h_labels)
    assert scores["completeness"] == pytest.approx(mi / h_three)
    assert scores["v_measure"] == pytest.approx(scores["nmi"])


@pytest.mark.parametrize("n", [45, 360, 1800])
def test_clips_that_are_a_class_each_agree_with_nothing_not_even_by_rounding(n):
    alone, clusters = np.arange(n), np.random.default_rng(0).integers(0, 20, n)
    assert 0 < abs(adjusted_mutual_info_score(alone, clusters)) < 1e-9  # scikit-learn's
    assert c.adjusted_mutual_info(alone, clusters) == c.adjusted_mutual_info(clusters, alone) == 0
    assert c.cluster_scores(alone, alone[::-1])["ami"] == 1


def test_purity_and_hungarian_by_hand_on_rectangular_tables():
    assert c.purity(LABELS, THREE) == pytest.approx(5 / 6)  # more clusters than classes
    assert c.hungarian_accuracy(LABELS, THREE) == pytest.approx(4 / 6)
    assert c.purity(THREE, LABELS) == pytest.approx(4 / 6)  # more classes than clusters
    assert c.hungarian_accuracy(THREE, LABELS) == pytest.approx(4 / 6)
    scores = c.cluster_scores(THREE, LABELS)
    assert (scores["purity"], scores["hungarian"]) == (pytest.approx(4 / 6), pytest.approx(4 / 6))


@pytest.mark.parametrize(("classes", "clusters"), [(3, 5), (5, 3)])
def test_hungarian_against_every_matching(classes, clusters):
    rng = np.random.default_rng(1)
    labels, assign = rng.integers(classes, size=60), rng.integers(clusters, size=60)
    wide, narrow = max(classes, clusters), min(classes, clusters)
    many, few = (labels, assign) if classes > clusters else (assign, labels)
    best = max(
        sum(((many == chosen) & (few == i)).sum() for i, chosen in enumerate(order))
        for order in itertools.permutations(range(wide), narrow)
    )
    assert c.hungarian_accuracy(labels, assign) == pytest.approx(best / 60)


def test_names_do_not_matter_and_perfect_is_one():
    text = np.array(["metal", "metal", "arab", "arab"])
    assert set(c.cluster_scores(text, np.array([7, 7, 2, 2])).values()) == {1.0}


def test_one_cluster_says_nothing_and_one_class_is_documented():
    collapsed = c.cluster_scores(LABELS, np.zeros(6, int))
    assert collapsed["ari"] == collapsed["ami"] == collapsed["nmi"] == collapsed["homogeneity"] == 0
    assert collapsed["purity"] == 0.5
    assert c.cluster_scores(np.zeros(6, int), THREE)["ari"] == 0
    assert c.cluster_scores(np.zeros(6, int), np.zeros(6, int))["ari"] == 1
    with pytest.raises(InputError):
        c.cluster_scores(LABELS, THREE[:5])
    with pytest.raises(InputError):
        c.purity(np.array([]), np.array([]))


def test_geometry_by_hand():
    scores = c.geometry_scores(np.array([[0.0], [1], [10], [11]]), np.array(["a", "a", "b", "b"]))
    assert scores["silhouette"] == pytest.approx(np.mean([1 - 1 / 10.5, 1 - 1 / 9.5]))
    assert scores["davies_bouldin"] == pytest.approx((0.5 + 0.5) / 10)
    assert scores["calinski_harabasz"] == pytest.approx(100 / (1 / 2))


@pytest.mark.parametrize(
    ("points", "groups"),
    [
        (np.arange(4.0)[:, None], [0, 0, 0, 0]),  # one group
        (np.arange(4.0)[:, None], [0, 1, 2, 3]),  # a group per clip
        (np.zeros((4, 3)), [0, 0, 1, 1]),  # collapsed
        (np.array([[0.0], [1], [np.nan], [3]]), [0, 0, 1, 1]),  # diverged
    ],
)
def test_geometry_is_nan_where_undefined(points, groups):
    assert np.isnan(list(c.geometry_scores(points, np.array(groups)).values())).all()


def test_geometry_of_groups_without_spread_is_best_not_one():
    scores = c.geometry_scores(np.array([[0.0], [0], [5], [5]]), np.array([0, 0, 1, 1]))
    assert scores == {"silhouette": 1.0, "davies_bouldin": 0.0, "calinski_harabasz": np.inf}


def blobs(centers, n, seed):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(centers)), n)
    return np.asarray(centers, float)[truth] + rng.normal(size=(len(truth), 2)), truth


@pytest.mark.parametrize("assign", [c.kmeans_assign, c.gmm_assign])
def test_clusterers_find_blobs_on_clips_they_did_not_see(assign):
    centers = [[0, 0], [20, 0], [0, 20]]
    train, _ = blobs(centers, 40, 0)
    test, truth = blobs(centers, 15, 1)
    found = assign(train, test, 3, 0)
    assert c.cluster_scores(truth, found)["ari"] == 1
    np.testing.assert_array_equal(found, assign(train, test, 3, 0))
    # fitted on train alone: the clusters of one test clip do not depend on the others
    np.testing.assert_array_equal(found[:5], assign(train, test[:5], 3, 0))


@pytest.mark.parametrize("assign", [c.kmeans_assign, c.gmm_assign])
def test_clusterers_refuse_the_impossible_and_survive_collapse(assign):
    with pytest.raises(InputError, match="4 clusters asked of 3 training clips"):
        assign(np.eye(3), np.eye(3), 4, 0)
    with pytest.raises(InputError, match="not finite"):
        assign(np.full((5, 2), np.nan), np.eye(2), 2, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = assign(np.zeros((30, 4)), np.zeros((10, 4)), 5, 0)
    assert len(np.unique(found)) == 1


def test_diagonal_components_follow_long_clusters_where_spherical_ones_cut_them():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 200)
    points = np.c_[rng.normal(0, 20, 400), truth * 6 + rng.normal(0, 0.5, 400)]
    ari = {
        shape: c.cluster_scores(truth, c.gmm_assign(points, points, 2, 0, shape, n_init=10))["ari"]
        for shape in ("diag", "spherical")
    }
    assert ari["spherical"] < 0.1
    assert c.fit_gmm(points, 2, 0, "diag").score(points) > c.fit_gmm(points, 2, 0, "spherical").score(points)


def test_permutation_null_is_centred_where_the_metric_is_adjusted_and_only_there():
    rng = np.random.default_rng(0)
    labels, assign = rng.integers(3, size=90), rng.integers(30, size=90)
    scores = [lambda a, b, k=k: c.cluster_scores(a, b)[k] for k in ("ari", "purity")]
    ari, purity = (c.permutation_null(score, labels, assign, 100, 0) for score in scores)
    assert abs(ari.mean) < 0.01
    assert purity.mean > 0.5  # many clusters look pure by chance: why ARI and AMI come first
    assert ari.values.shape == (100,)
    assert ari.p95 == pytest.approx(np.percentile(ari.values, 95))
    assert c.cluster_scores(labels, labels)["ari"] > ari.p95


def test_leave_one_out_values_have_the_mean_of_the_score_and_its_spread():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 20)
    clusters = np.where(rng.random(120) < 0.7, labels, rng.integers(0, 6, 120))
    values = c.leave_one_out_values(c.purity, labels, clusters)
    without = np.array([c.purity(np.delete(labels, i), np.delete(clusters, i)) for i in range(120)])
    np.testing.assert_allclose(values, c.purity(labels, clusters) + 119 * (without.mean() - without))
    ari = c.leave_one_out_values(adjusted_rand_score, labels, clusters)
    assert ari.mean() == pytest.approx(adjusted_rand_score(labels, clusters))
    others = [rng.random(120) < 0.7 for _ in range(200)]  # other clips from the same source
    drawn = [adjusted_rand_score(labels, np.where(o, labels, rng.integers(0, 6, 120))) for o in others]
    assert ari.std() / np.sqrt(120) == pytest.approx(np.std(drawn), rel=0.35)
    assert c.leave_one_out_values(adjusted_rand_score, labels, labels).tolist() == [1] * 120
