"""Cluster scores against brute force, probes, trees of known families, spaces without training, neighbours."""

import itertools

import librosa
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, mutual_info_score, silhouette_score

from vaelib.metrics import clustering as c

LABELS = np.array([0, 0, 0, 1, 1, 1])
THREE = np.array([0, 0, 1, 1, 2, 2])


def rand_index(a, b):
    return np.mean([(a[i] == a[j]) == (b[i] == b[j]) for i, j in itertools.combinations(range(len(a)), 2)])


def test_scores_against_enumeration_of_all_permutations():
    scores = c.cluster_scores(LABELS, THREE)
    orders = [np.array(p) for p in itertools.permutations(range(6))]
    expected_mi = np.mean([mutual_info_score(LABELS[o], THREE) for o in orders])
    expected_rand = np.mean([rand_index(LABELS[o], THREE) for o in orders])
    mi, h_labels, h_three = mutual_info_score(LABELS, THREE), np.log(2), np.log(3)
    assert scores["ari"] == pytest.approx((rand_index(LABELS, THREE) - expected_rand) / (1 - expected_rand))
    assert scores["ami"] == pytest.approx((mi - expected_mi) / ((h_labels + h_three) / 2 - expected_mi))
    assert scores["nmi"] == pytest.approx(mi / ((h_labels + h_three) / 2)) == scores["v_measure"]
    assert scores["homogeneity"] == pytest.approx(mi / h_labels)
    assert scores["completeness"] == pytest.approx(mi / h_three)
    assert (scores["purity"], scores["accuracy"]) == (pytest.approx(5 / 6), pytest.approx(4 / 6))
    turned = c.cluster_scores(THREE, LABELS)  # more classes than clusters
    assert (turned["purity"], turned["accuracy"]) == (pytest.approx(4 / 6), pytest.approx(4 / 6))


def test_geometry_by_hand_and_nan_where_undefined():
    pairs = np.array(["a", "a", "b", "b"])
    scores, _ = c.clustering_scores(pairs, pairs, np.array([[0.0], [1], [10], [11]]), {})
    assert scores["silhouette"] == pytest.approx(np.mean([1 - 1 / 10.5, 1 - 1 / 9.5]))
    assert scores["davies_bouldin"] == pytest.approx((0.5 + 0.5) / 10)
    assert scores["calinski_harabasz"] == pytest.approx(100 / (1 / 2))
    line = np.arange(4.0)[:, None]
    for codes, labels in ((line, np.zeros(4)), (line, np.arange(4)), (0 * line, pairs), (np.nan * line, pairs)):
        numbers, per_clip = c.clustering_scores(labels, pairs, codes, {})
        assert np.isnan(numbers["silhouette"]) and "silhouette" not in per_clip


def test_leave_one_out_values_have_the_mean_of_the_score_and_its_spread_and_so_have_blocks(monkeypatch):
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(6), 100)
    clusters = np.where(rng.random(600) < 0.7, labels, rng.integers(0, 6, 600))
    ari, each = adjusted_rand_score(labels, clusters), c.leave_one_out_values(adjusted_rand_score, labels, clusters)
    without = [adjusted_rand_score(np.delete(labels, i), np.delete(clusters, i)) for i in range(600)]
    np.testing.assert_allclose(each, ari + 599 * (np.mean(without) - without))
    monkeypatch.setattr(c, "KINDS", 10)  # as where thousands of classes meet thousands of clusters
    blocks = c.leave_one_out_values(adjusted_rand_score, labels, clusters)
    assert blocks.mean() == pytest.approx(ari) and blocks.std() == pytest.approx(each.std(), rel=0.2)


def test_all_scores_of_a_clustering_by_id():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 10)
    codes = np.repeat(np.eye(3) * 9, 10, axis=0) + rng.normal(size=(30, 3))
    chance = rng.integers(0, 3, 30)
    numbers, per_clip = c.clustering_scores(labels, np.repeat([1, 0, 2], 10), codes, {"pca": chance})
    assert numbers["ari"] == numbers["ami"] == 1 and 0 < numbers["ari.null_p95"] < 0.3
    assert numbers["ari.pca"] == adjusted_rand_score(labels, chance)
    assert numbers["silhouette"] == pytest.approx(silhouette_score(codes, labels))
    assert set(per_clip) == {"ari", "ami", "silhouette", "ari.pca", "ami.pca"}
    assert all(v.mean() == pytest.approx(numbers[name]) and v.shape == (30,) for name, v in per_clip.items())


def test_kmeans_finds_blobs_on_clips_it_did_not_see_and_survives_collapse():
    rng, truth = np.random.default_rng(0), np.repeat([0, 1, 2], 40)
    train, test = (20 * np.eye(3)[truth] + rng.normal(size=(120, 3)) for _ in range(2))
    found = c.kmeans_assign(train, test, 3, 0)
    assert c.cluster_scores(truth, found)["ari"] == 1
    np.testing.assert_array_equal(found[:5], c.kmeans_assign(train, test[:5], 3, 0))  # fitted on train alone
    assert len(np.unique(c.kmeans_assign(np.zeros((30, 4)), np.zeros((10, 4)), 5, 0))) == 1


NAMES = np.array(["arab", "metal", "salsa"])


def codes(shift, n=240, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    return np.eye(6)[y] * shift + rng.normal(size=(n, 6)), NAMES[y]


def test_probe_reads_what_is_there_and_only_that():
    assert c.linear_probe(*codes(30), *codes(30, seed=1), 0) == 1
    assert c.linear_probe(*codes(0), *codes(0, seed=1), 0) == pytest.approx(1 / 3, abs=0.1)
    rng = np.random.default_rng(0)
    y = (rng.uniform(size=2000) < 0.95).astype(int)
    x = 1.5 * y[:, None] + rng.normal(size=(2000, 1))
    # the midpoint between the classes; plain logistic regression would answer "1" to nearly everything (0.5)
    assert c.linear_probe(x[:1000], y[:1000], x[1000:], y[1000:], 0) == pytest.approx(norm.cdf(0.75), abs=0.05)
    x, y = codes(3)
    assert c.linear_probe(np.zeros((240, 6)), y, np.zeros((240, 6)), y, 0) == pytest.approx(1 / 3)
    assert c.linear_probe(x[y != "metal"], y[y != "metal"], x, y, 0) <= 2 / 3  # a class that train lacks


def test_balanced_values_are_those_of_the_mean_recall():
    found = c.balanced_values(np.array(["a", "a", "b", "b"]), np.array(["a", "a", "a", "b"]))
    assert found == pytest.approx([2 / 3, 2 / 3, 0, 2]) and found.mean() == pytest.approx((2 / 3 + 1) / 2)


def test_tree_that_follows_two_pairs_exactly():
    centroids = np.array([[0.0], [1], [10], [11]])
    r, p, null = c.cophenetic_agreement(centroids, np.array(["latin", "latin", "arabic", "arabic"]))
    assert r == null == pytest.approx(1)  # more than 5 % of the permutations find it
    assert p == pytest.approx(1 / 3, abs=0.06)  # 1 of the 3 ways to pair four classes
    crossed = c.cophenetic_agreement(centroids, np.array([0, 1, 0, 1]))[0]
    # joined at 1, 1 (apart) and 10, 10, 10, 10 (two together, two apart)
    assert crossed == pytest.approx(np.corrcoef([1, 10, 10, 10, 10, 1], [1, 0, 1, 1, 0, 1])[0, 1]) and crossed < 0


def test_tree_of_many_families_is_significant_and_a_random_one_is_not():
    rng = np.random.default_rng(0)
    families = np.repeat(np.arange(4), 3)
    r, p, null = c.cophenetic_agreement(10 * np.eye(4)[families] + rng.normal(size=(12, 4)), families)
    assert r > 0.9 and p < 0.01 and 0 < null < r
    p_values = [c.cophenetic_agreement(rng.normal(size=(12, 4)), families)[1] for _ in range(20)]
    assert np.mean(np.array(p_values) < 0.05) < 0.2 and np.mean(p_values) == pytest.approx(0.5, abs=0.2)


def test_agreement_is_nan_where_undefined():
    apart = np.arange(8.0).reshape(4, 2)
    assert np.isnan(c.cophenetic_agreement(np.zeros((4, 2)), np.array([0, 0, 1, 1]))).all()  # collapsed
    for families in ([0, 0, 0, 0], [0, 1, 2, 3], [0, 0]):  # one; nobody shares one; two classes
        assert np.isnan(c.cophenetic_agreement(apart[: len(families)], np.array(families))).all()


def test_principal_components_are_those_of_scikit_learn_averaged_over_windows():
    train, test = (np.random.default_rng(0).uniform(size=(n, w, 6, 5)) for n, w in ((20, 3), (7, 2)))
    exact = PCA(30, svd_solver="full").fit(train.reshape(60, 30))
    expected = [exact.transform(x.reshape(-1, 30)).reshape(len(x), -1, 30).mean(1) for x in (train, test)]
    found = c.pca_codes(train, test)
    signs = np.sign((found[0] * expected[0]).sum(0))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a * signs, b, atol=1e-2)
    assert [x.shape for x in c.pca_codes(train[:4, :1], test[:2])] == [(4, 4), (2, 4)]  # no more than windows


def test_the_cepstrum_is_librosas_and_windows_are_pooled():
    x = np.random.default_rng(0).uniform(size=(3, 1, 24, 5)).astype(np.float32)
    expected = librosa.feature.mfcc(S=x[0, 0], n_mfcc=20)
    np.testing.assert_allclose(c.mfcc_statistics(x)[0], [*expected.mean(1), *expected.std(1)], atol=1e-5)
    several = np.random.default_rng(1).uniform(size=(2, 3, 6, 5))
    joined = np.concatenate(list(several.transpose(1, 0, 2, 3)), axis=2)[:, None]  # a clip's windows after each other
    np.testing.assert_allclose(c.mfcc_statistics(several), c.mfcc_statistics(joined), atol=1e-5)


@pytest.fixture
def points():
    return np.random.default_rng(3).normal(size=(40, 5))


@pytest.mark.parametrize("metric", c.DISTANCES)
def test_the_nearest_are_those_of_brute_force(points, metric):
    queries = np.random.default_rng(4).normal(size=(7, 5))
    for q, at, d in zip(queries, *c.nearest(queries, points, 4, metric), strict=True):
        expected = np.linalg.norm(points - q, axis=1)
        if metric == "cosine":
            expected = 1 - points @ q / np.linalg.norm(points, axis=1) / np.linalg.norm(q)
        assert at.tolist() == np.argsort(expected)[:4].tolist()
        np.testing.assert_allclose(d, np.sort(expected)[:4], atol=1e-7)


def test_the_own_group_is_passed_over_and_others_take_its_place(points):
    artist = np.repeat(np.arange(8), 5)
    for i, (at, _) in enumerate(zip(*c.nearest(points, points, 6, groups=(artist, artist)), strict=True)):
        expected = np.linalg.norm(points - points[i], axis=1)
        expected[artist == artist[i]] = np.inf
        assert at.tolist() == np.argsort(expected)[:6].tolist()
    places, far = c.nearest(points[:4], points[:4], 3, groups=(np.array([0, 0, 0, 1]),) * 2)
    assert places[0].tolist() == [3, -1, -1] and np.isnan(far[0, 1:]).all() and np.isfinite(far[0, 0])


def test_a_map_of_few_clips_is_linear(points):
    flat = c.project(points[:5], "umap")
    np.testing.assert_allclose(abs(flat), abs(PCA(2).fit_transform(points[:5])), atol=1e-9)
    assert c.project(points, "tsne").shape == (40, 2) and c.project(np.zeros((3, 1)), "pca").shape == (3, 2)


def test_calibration_error_by_hand():
    confidence = np.array([0.05, 0.55, 0.6, 0.65, 0.95, np.float32(1) + np.float32(1e-7)])  # a softmax rounds above 1
    correct = np.array([0, 1, 0, 1, 1, 1], dtype=bool)
    expected = (1 * 0.05 + 1 * 0.45 + 2 * 0.125 + 2 * 0.025) / 6  # 0.6 on an edge: upper bin
    assert c.calibration_errors(confidence, correct).mean() == pytest.approx(expected)


@pytest.mark.parametrize("scale", [8, 0.5])
def test_a_temperature_turns_boasting_into_honest_confidence_and_back(scale):
    rng = np.random.default_rng(0)
    honest = np.log(rng.dirichlet(np.ones(4), 4000))
    truth = np.array([rng.choice(4, p=np.exp(row)) for row in honest])
    boasting = scale * honest
    temperature = c.fit_temperature(boasting[:2000], (boasting.argmax(1) == truth)[:2000])
    assert temperature == pytest.approx(scale, rel=0.1)
    soft = softmax(boasting / temperature, axis=1)
    assert c.calibration_errors(soft.max(1)[2000:], (soft.argmax(1) == truth)[2000:]).mean() < 0.05


def test_margins_tell_apart_what_probabilities_round_to_one():
    assert c.margins(np.array([[-1e5, -3e5, -2e5], [0, -3, -1]])).tolist() == [1e5, 1]
    assert c.margins(np.zeros((1, 1))).tolist() == [0]
