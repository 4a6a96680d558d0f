"""What a clusterer sees without training: against scikit-learn and librosa, and columns that do not vary."""

import librosa
import numpy as np
import pytest
from sklearn.decomposition import PCA

from vaelib.metrics.baselines import mfcc_statistics, pca_codes, standardised


def windows(n, w=1, seed=0):
    return np.random.default_rng(seed).uniform(size=(n, w, 6, 5))


def test_principal_components_of_points_on_a_line_by_hand():
    line = np.array([-2.0, 0, 2])[:, None, None, None] * np.array([3.0, 4]).reshape(1, 1, 2, 1) / 5
    train, test = pca_codes(line, line[2:] * 2, dims=1)
    sign = np.sign(train[2, 0])
    np.testing.assert_allclose(sign * train, [[-2], [0], [2]], atol=1e-9)
    np.testing.assert_allclose(sign * test, [[4]], atol=1e-9)


def test_principal_components_are_those_of_scikit_learn_averaged_over_windows():
    train, test = windows(20, 3), windows(7, 2, seed=1)
    exact = PCA(4, svd_solver="full").fit(train.reshape(60, 30))
    expected = [exact.transform(x.reshape(-1, 30)).reshape(len(x), -1, 4).mean(1) for x in (train, test)]
    found = pca_codes(train, test, dims=4)
    signs = np.sign((found[0] * expected[0]).sum(0))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a * signs, b, atol=1e-2)


def test_there_are_no_more_components_than_windows_or_bins():
    assert [x.shape for x in pca_codes(windows(4), windows(2))] == [(4, 4), (2, 4)]
    few = np.random.default_rng(0).uniform(size=(50, 1, 2, 2))
    assert [x.shape for x in pca_codes(few, few[:3])] == [(50, 4), (3, 4)]


def test_the_cepstrum_is_librosas():
    x = windows(3, 1).astype(np.float32)
    for clip, found in zip(x[:, 0], mfcc_statistics(x, coefficients=4), strict=True):
        expected = librosa.feature.mfcc(S=clip, n_mfcc=4)
        np.testing.assert_allclose(found, [*expected.mean(1), *expected.std(1)], atol=1e-5)


def test_cepstra_of_several_windows_are_pooled():
    x = windows(2, 3)
    joined = np.concatenate(list(x.transpose(1, 0, 2, 3)), axis=2)[:, None]  # the windows of a clip after each other
    np.testing.assert_allclose(mfcc_statistics(x), mfcc_statistics(joined), atol=1e-5)
    assert mfcc_statistics(np.zeros((5, 2, 64, 8))).shape == (5, 40)


def test_columns_are_standardised_by_train_alone():
    train, test = standardised(np.array([[1.0, 5], [3, 7]]), np.array([[5.0, 6]]))
    assert train.tolist() == [[-1, -1], [1, 1]] and test.tolist() == [[3, 0]]


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 / 3])
def test_a_column_that_is_constant_on_train_stays_nothing(constant):
    train = np.full((3, 1), constant)  # the mean of three 0.1 is not 0.1 in floating point
    found, test = standardised(train, np.array([[constant], [constant + 1]]))
    np.testing.assert_allclose(found, 0, atol=1e-9)
    np.testing.assert_allclose(test, [[0], [1]], atol=1e-9)
