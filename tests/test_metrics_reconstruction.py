"""Reconstruction metrics on arrays worked by hand, blurred and flat."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from vaelib.config import InputError
from vaelib.metrics import reconstruction as r


@pytest.fixture
def x():
    return np.random.default_rng(0).uniform(size=(6, 8, 40)).astype(np.float32)


def test_mse_by_hand(x):
    off = np.zeros((2, 2, 3))
    off[0, 1, 0], off[1, 1, 2] = 0.6, 0.3
    assert r.mse_per_bin(off, np.zeros_like(off)) == pytest.approx((0.36 + 0.09) / 12)
    np.testing.assert_allclose(r.mse_per_clip(off, np.zeros_like(off)), [0.06, 0.015])
    np.testing.assert_allclose(r.mse_by_band(off, np.zeros_like(off)), [0, 0.45 / 6])
    assert r.mse_per_bin(x, x) == 0


def test_r2_is_one_zero_and_negative_where_it_should(x):
    mean = x.mean(0)
    assert r.r2_against_mean(x, x, mean) == pytest.approx(np.ones(6))
    assert r.r2_against_mean(x, np.broadcast_to(mean, x.shape), mean) == pytest.approx(np.zeros(6))
    halfway = mean + (x - mean) / 2
    assert r.r2_against_mean(x, halfway, mean).mean() == pytest.approx(0.75, abs=1e-6)
    assert r.r2_against_mean(x, 1 - x, mean).mean() < -0.5
    assert np.isnan(r.r2_against_mean(np.full((2, 3, 4), 0.5), np.zeros((2, 3, 4)), np.full((3, 4), 0.5))).all()


def test_edges_of_identity_blur_and_half_contrast(x):
    def kept(other):
        return [r.edges_kept(x, other, axis).mean() for axis in ("time", "frequency")]

    assert kept(x) == pytest.approx([1, 1])
    assert kept(0.5 * x) == pytest.approx([0.25, 0.25])
    in_time, in_frequency = kept(gaussian_filter1d(x, 1.5, axis=2)), kept(gaussian_filter1d(x, 1.5, axis=1))
    assert in_time[0] < in_time[1] < 1
    assert in_frequency[1] < in_frequency[0] < 1
    assert kept(np.full_like(x, 0.5)) == [0, 0]


def test_edges_of_flat_originals_are_undefined_along_that_axis():
    bands = np.tile(np.arange(4.0)[None, :, None], (1, 1, 5))
    assert np.isnan(r.edges_kept(bands, 2 * bands, "time")).all()
    assert r.edges_kept(bands, 2 * bands, "frequency").mean() == pytest.approx(4)


def test_values_of_a_ratio_have_its_mean_and_its_spread():
    rng = np.random.default_rng(0)
    below = rng.uniform(0.1, 2, 400)
    above = 0.6 * below + rng.normal(0, 0.1, 400)
    values = r.ratio_values(above, below)
    assert values.mean() == pytest.approx(above.sum() / below.sum())
    drawn = rng.integers(0, 400, (2000, 400))
    assert values.std() / 20 == pytest.approx((above[drawn].sum(1) / below[drawn].sum(1)).std(), rel=0.1)


def test_onset_envelope_by_hand():
    x = np.array([[[0, 1, 1, 0.5], [0.2, 0, 0.3, 0.3]]])  # (1, 2, 4)
    np.testing.assert_allclose(r.onset_envelope(x), [[0, 1, 0.3, 0]])  # rises only


def test_onset_correlation_of_identity_scale_and_reversal(x):
    assert r.onset_correlation(x, x).mean == pytest.approx(1)
    assert r.onset_correlation(x, 0.3 * x + 0.1).mean == pytest.approx(1, abs=1e-5)
    assert abs(r.onset_correlation(x, x[:, :, ::-1]).mean) < 0.3
    noisy = np.random.default_rng(1).normal(0, 0.1, x.shape) + x
    scores = r.onset_correlation(x, noisy).per_clip
    envelopes = zip(r.onset_envelope(x)[:, 1:], r.onset_envelope(noisy)[:, 1:], strict=True)
    np.testing.assert_allclose(scores, [np.corrcoef(a, b)[0, 1] for a, b in envelopes])


def test_a_flat_reconstruction_scores_zero_and_a_silent_original_is_left_out(x):
    flat = r.onset_correlation(x, np.broadcast_to(x.mean(2, keepdims=True), x.shape))
    np.testing.assert_array_equal(flat.per_clip, 0)
    silent = x.copy()
    silent[0] = 0
    scores = r.onset_correlation(silent, x)
    assert np.isnan(scores.per_clip[0]) and scores.mean == pytest.approx(1)
    assert np.isnan(r.onset_correlation(silent[:1], x[:1]).mean)


@pytest.mark.parametrize(
    "metric",
    [r.mse_per_bin, r.mse_per_clip, r.mse_by_band, lambda a, b: r.edges_kept(a, b, "time"), r.onset_correlation],
)
def test_shapes_must_agree(metric, x):
    with pytest.raises(InputError):
        metric(x, x[:, :, :-1])
    with pytest.raises(InputError):
        metric(x[0], x[0])
