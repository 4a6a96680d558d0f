"""MIG, DCI and SAP on hand-built codes with known answers."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ortho_group
from sklearn.linear_model import LinearRegression
from sklearn.metrics import balanced_accuracy_score, mutual_info_score, r2_score
from sklearn.neighbors import NearestCentroid

from vaelib.metrics import disentanglement as d

TURN = np.array([[1, -1], [1, 1]]) / np.sqrt(2)  # 45°


def grid(levels=(5, 4), repeats=10):
    """Every combination equally often: factors exactly independent in the sample."""
    cells = np.stack(np.meshgrid(*map(np.arange, levels), indexing="ij"), -1).reshape(-1, len(levels))
    cells = np.repeat(cells, repeats, axis=0)
    return cells.astype(float), pd.DataFrame(cells).add_prefix("f")


def continuous(n=600, k=2, seed=0):
    codes = np.random.default_rng(seed).uniform(-1, 1, (n, k))
    return codes, pd.DataFrame(codes).add_prefix("f")


def dci(codes, factors):
    return d.dci(codes, factors, np.arange(600) < 400, np.arange(600) >= 400)


def test_bins_are_those_of_disentanglement_lib_and_mutual_information_that_of_sklearn():
    x = np.random.default_rng(0).normal(size=(500, 3))
    expected = [np.digitize(z, np.histogram(z, 20)[1][:-1]) - 1 for z in x.T]
    np.testing.assert_array_equal(d.discretize(x), np.transpose(expected))
    z = np.random.default_rng(0).integers(6, size=(200, 4))
    v = z[:, 2] // 2
    np.testing.assert_allclose(d.mutual_information(z, v), [mutual_info_score(a, v) for a in z.T], atol=1e-12)


def test_mig_by_hand_of_perfect_padded_and_halved_codes():
    codes, factors = grid()
    assert d.mig(codes, factors).mean == pytest.approx(1)
    padded = d.mig(np.c_[np.zeros(len(codes)), -3 * codes[:, ::-1], np.full(len(codes), 7.0)], factors)
    np.testing.assert_allclose(padded.matrix, [[0, 0], [0, 1], [1, 0], [0, 0]], atol=1e-9)
    assert padded.per_factor == {"f0": pytest.approx(1), "f1": pytest.approx(1)}
    codes, factors = grid((4, 4))
    half = np.c_[codes[:, 0] // 2, codes[:, 1]]
    assert d.mig(half, factors).per_factor == {"f0": pytest.approx(0.5), "f1": pytest.approx(1)}
    # a second dimension that keeps half of what the best keeps leaves the other half as gap
    assert d.mig(np.c_[codes, half[:, 0]], factors).per_factor["f0"] == pytest.approx(0.5)


def test_mig_is_zero_for_two_copies_noise_and_collapse_and_falls_under_rotation_and_sampling():
    codes, factors = grid((5, 4), 100)
    rng = np.random.default_rng(0)
    assert d.mig(np.c_[codes, codes], factors).mean == pytest.approx(0)
    assert d.mig(rng.normal(size=(2000, 10)), factors).mean < 0.01
    assert d.mig(np.zeros((2000, 10)), factors).mean == 0
    codes, factors = continuous(5000)
    assert d.mig(codes, factors).mean > 0.95 and d.mig(codes @ TURN, factors).mean < 0.05
    assert 0.1 < d.mig(codes + rng.normal(0, 0.3, codes.shape), factors).mean < 0.65


@pytest.mark.parametrize("score", [d.mig, d.sap])
def test_a_constant_factor_is_left_out_and_a_single_dimension_measured_against_nothing(score):
    codes, factors = grid()
    result = score(codes, factors.assign(one=1))
    assert result.mean == pytest.approx(1) and np.isnan(result.per_factor["one"])
    assert np.isnan(score(codes, factors[[]].assign(one="x")).mean)
    assert score(codes[:, :1], factors).per_factor == {"f0": pytest.approx(1), "f1": pytest.approx(0, abs=1e-9)}


def test_what_each_clip_adds_has_the_mig_as_its_mean():
    codes, factors = continuous(400, 3)
    factors = factors.assign(level=(codes[:, 0] > 0).astype(int), constant=0.0)
    for seen in (codes, codes @ ortho_group.rvs(3, random_state=1), codes[:, :1]):
        score = d.mig(seen, factors)
        parts = d.mig_by_clip(seen, factors, score)
        assert parts.shape == (400,) and parts.mean() == pytest.approx(score.mean)
    constant = factors[["constant"]]
    assert np.isnan(d.mig_by_clip(codes, constant, d.mig(codes, constant))).all()


def test_sap_against_sklearn_and_of_perfect_rotated_noisy_copied_and_dead_codes():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(400, 3)) * [1, 5, 0.1]
    tempo = codes @ [1, 0.3, 4] + rng.normal(size=400)
    key = np.array(["C", "D", "E"])[np.digitize(codes[:, 1], [-6, 3])]  # unbalanced
    matrix = d.sap(codes, pd.DataFrame({"tempo": tempo, "key": key})).matrix
    for i in range(3):
        z = codes[:, [i]]
        assert matrix[i, 0] == pytest.approx(LinearRegression().fit(z, tempo).score(z, tempo))
        accuracy = balanced_accuracy_score(key, NearestCentroid().fit(z, key).predict(z), adjusted=True)
        assert matrix[i, 1] == pytest.approx(max(0, accuracy))
    codes, factors = grid()
    measured, measured_factors = continuous()
    assert d.sap(measured, measured_factors).mean > 0.98
    assert d.sap(measured @ TURN, measured_factors).mean < 0.1
    assert d.sap(rng.normal(size=(600, 5)), measured_factors).mean < 0.03
    assert d.sap(np.c_[codes, codes], factors).mean == pytest.approx(0)
    for known in (factors, measured_factors):
        assert d.sap(1e-8 * rng.normal(size=(len(known["f0"]), 5)), known).mean == 0


def test_dci_of_perfect_turned_noisy_collapsed_split_and_shared_codes():
    codes, factors = continuous(600, 3)
    factors["f2"] = np.array(list("abc"))[np.digitize(codes[:, 2], [-0.3, 0.3])]  # one discrete
    assert min(dci(np.c_[codes, np.zeros(600)], factors)) > 0.95
    codes, factors = continuous()
    disentanglement, completeness, informativeness = dci(codes @ TURN, factors)
    assert disentanglement < 0.1 and completeness < 0.1 and informativeness > 0.85
    factors["key"] = np.random.default_rng(2).integers(4, size=600)
    disentanglement, _, informativeness = dci(np.random.default_rng(1).normal(size=(600, 8)), factors)
    assert informativeness < 0.1 and disentanglement < 0.2
    assert dci(np.zeros((600, 8)), factors) == (0, 0, 0)
    codes, factors = continuous()
    split = dci(np.c_[codes[:, 0], codes[:, 0], codes[:, 1]], factors)  # a factor in two dimensions
    assert split[0] > 0.9 and split[1] < 0.85
    shared = dci(np.c_[codes[:, 0], np.zeros(600)], factors[["f0"]].assign(again=codes[:, 0]))
    assert shared[1] == pytest.approx(1) and shared[0] == pytest.approx(0, abs=1e-9)
    assert dci(codes, factors.assign(one=1))[0] > 0.95
    single = dci(codes, factors[["f0"]])
    assert np.isnan(single[0]) and single[1] > 0.95
    assert np.isnan(dci(codes, factors[[]].assign(one=1))).all()


def test_a_dimension_is_named_after_the_one_factor_that_it_knows():
    codes, factors = continuous(2000, 3)
    seen = np.c_[codes[:, 0], codes[:, 1] + codes[:, 2], np.random.default_rng(1).normal(size=2000)]
    found = d.best_known(d.mig(seen, factors), d.permuted_scores(seen, factors, 0), np.arange(3))
    assert found == {0: "f0", 1: "", 2: ""}


def test_main_share_of_pure_even_and_idle_directions():
    pure, even = np.zeros((1, 4, 3)), np.ones((1, 4, 3))
    pure[:, :, 1] = -2
    assert d.main_share(pure) == pytest.approx(np.ones(4))
    assert d.main_share(even).mean() == pytest.approx(1 / 3) == d.main_share(0 * even).mean()
    moved = np.random.default_rng(0).normal(1, 1, (5, 16, 3))
    total = np.abs(moved.mean(1))
    assert d.main_share(moved).mean() == pytest.approx((total.max(1) / total.sum(1)).mean())
    assert d.main_share(moved).std() > d.main_share(np.repeat(moved.mean(1, keepdims=True), 16, 1)).std()


def test_scores_of_aligned_and_of_turned_codes():
    codes, factors = continuous(1500, 3)
    part = np.arange(1500) % 3 == 0
    turned = codes @ ortho_group.rvs(3, random_state=5)
    found = {}
    for name, z in (("aligned", codes), ("turned", turned)):
        padded = np.c_[z, np.zeros((1500, 4))]  # dead dimensions
        found[name], clips = d.disentanglement_scores(padded, factors, np.arange(3), ~part, part, {"pca": z[:, :2]})
        assert found[name]["mig.mean"] == pytest.approx(clips["mig.mean"].mean()) == d.mig(z, factors).mean
        assert found[name]["mig.null_p95"] < 0.05 and set(clips) == {"mig.mean", "mig.pca"}
    assert "mean more than chance" in d.axes_verdict(found["aligned"])
    assert found["aligned"]["live.own"] == 3 and found["aligned"]["mig.of.f0"] > 0.9
    assert found["aligned"]["dci.disentanglement"] > 0.9 > found["aligned"]["dci.rotated"]
    assert "random directions" in d.axes_verdict(found["turned"])
    one, _ = d.disentanglement_scores(codes[:, :1], factors[["f0"]], np.arange(1), ~part, part, {})
    assert one["mig.rotated_p95"] == pytest.approx(one["mig.of.f0"])  # one dimension cannot turn


PATTERNS = np.random.default_rng(9).uniform(size=(2, 8, 10))


def mixes(n: int, seed: int = 0):
    """Two patterns of 8 × 10 bins added at independent levels; the factor `none` leaves no trace."""
    rng = np.random.default_rng(seed)
    levels = pd.DataFrame({"one": rng.uniform(size=n), "two": rng.uniform(0, 10, n), "none": rng.uniform(size=n)})
    return np.einsum("np,pft->nft", levels[["one", "two"]] * [0.1, 0.01], PATTERNS), levels


def test_levels_of_patterns_are_read_in_their_own_units_and_nothing_else_is():
    reader, (x, levels) = d.linear_reader(*mixes(60)), mixes(40, seed=1)
    np.testing.assert_allclose(reader.predict(x)[:, 1], levels["two"], atol=0.3)
    one, two, none = r2_score(levels, reader.predict(x), multioutput="raw_values")
    assert one > 0.99 and two > 0.99 and none < 0.2
    change = (reader.predict(x + 0.01 * PATTERNS[0]) - reader.predict(x))[:, :2]
    np.testing.assert_allclose(change, np.tile([0.1, 0], (40, 1)), atol=0.02)
    assert d.linear_reader(x, levels[["one"]]).predict(x).shape == (40, 1)


def test_fine_spectrograms_are_averaged():
    x = np.random.default_rng(0).uniform(size=(2, 128, 1293))
    found = d.coarse(x)
    assert found.shape == (2, 64 * 64) and found[0, 0] == pytest.approx(x[0, :2, :20].mean())
    np.testing.assert_allclose(d.coarse(found.reshape(2, 64, 64)), found)
