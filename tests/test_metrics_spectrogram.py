"""Reconstructions, paths and patterns worked by hand: blurred, flat, jumping, collapsed, striped."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from vaelib.metrics import spectrogram as s


@pytest.fixture
def x():
    return np.random.default_rng(0).uniform(size=(6, 8, 40)).astype(np.float32)


def scores(x, xhat, mean=0.0):
    return s.reconstruction_scores(x, xhat, mean)[0]


def test_r2_is_one_zero_and_negative_where_it_should(x):
    mean = x.mean(0)
    r2 = [scores(x, y, mean)["rec.r2"] for y in (x, np.broadcast_to(mean, x.shape), mean + (x - mean) / 2, 1 - x)]
    assert r2[:3] == pytest.approx([1, 0, 0.75]) and r2[3] < -0.5
    assert np.isnan(scores(np.full((2, 3, 4), 0.5), np.zeros((2, 3, 4)), np.full((3, 4), 0.5))["rec.r2"])


def test_edges_of_identity_blur_and_half_contrast(x):
    def kept(x, other):
        return [scores(x, other)[f"rec.edges_{axis}"] for axis in ("time", "freq")]

    assert kept(x, x) == pytest.approx([1, 1]) and kept(x, 0.5 * x) == pytest.approx([0.25, 0.25])
    in_time, in_frequency = (kept(x, gaussian_filter1d(x, 1.5, axis=axis)) for axis in (2, 1))
    assert in_time[0] < in_time[1] < 1 and in_frequency[1] < in_frequency[0] < 1
    bands = np.tile(np.arange(4.0)[None, :, None], (1, 1, 5))
    flat, four = kept(bands, 2 * bands)
    assert np.isnan(flat) and four == pytest.approx(4)  # flat along time: undefined


def test_onsets_are_rises_summed_over_bands_and_a_flat_copy_keeps_none(x):
    rises, same = np.array([[[0, 1, 1, 0.5], [0.2, 0, 0.3, 0.3]]]), np.array([[[0, 1, 1.3, 1.3], [0, 0, 0, 0]]])
    assert s.onset_correlations(rises, same) == pytest.approx(1)
    assert s.onset_correlations(x, 0.3 * x + 0.1) == pytest.approx(np.ones(6), abs=1e-5)
    assert abs(s.onset_correlations(x, x[:, :, ::-1]).mean()) < 0.3
    flat = np.broadcast_to(x.mean(2, keepdims=True), x.shape)
    np.testing.assert_array_equal(s.onset_correlations(x, flat), 0)
    silent = x.copy()
    silent[0] = 0
    numbers, per_clip = s.reconstruction_scores(silent, x, x.mean(0))
    assert numbers["rec.onset_r"] == pytest.approx(1) and "rec.onset_r" not in per_clip


def test_all_scores_of_a_reconstruction_by_id(x):
    numbers, per_clip = s.reconstruction_scores(x, 0.5 * x, x.mean(0))
    assert numbers["rec.mse"] == pytest.approx((0.25 * x**2).mean())
    bands = [numbers[f"rec.mse_{part}"] for part in ("low", "middle", "high")]
    assert np.average(bands, weights=[3, 3, 2]) == pytest.approx(numbers["rec.mse"])
    assert numbers["rec.mse_mean"] == pytest.approx(x.var(0).mean())
    assert numbers["rec.r2"] == pytest.approx(1 - numbers["rec.mse"] / numbers["rec.mse_mean"])
    assert all(v.mean() == pytest.approx(numbers[name]) and v.shape == (6,) for name, v in per_clip.items())


N = 48
FREQ, TIME = np.indices((N, N)) / N  # band and frame as shares of the window
FRAME = 2048 / 22_050  # seconds


def wave(turns) -> np.ndarray:
    return 0.5 + 0.5 * np.cos(2 * np.pi * turns)


CASES = {
    "partials of no whole number": (wave(5.5 * FREQ), "frequency band"),
    "vertical stripe": (np.abs(TIME - 0.3) < 0.06, "onset"),
    "clicks": (np.arange(N) % 6 + 0 * FREQ == 0, "rhythm at 1.8 Hz"),
    "tremolo": (wave(4 * TIME), "rhythm at 0.9 Hz"),
    "slow chirp up": (np.abs(FREQ - 0.2 - 0.6 * TIME) < 0.05, "rising sweep"),
    "falling ripple of no whole number": (wave(3.5 * FREQ + 4.5 * TIME), "falling sweep"),
    "checkerboard": ((np.floor(6 * FREQ) + np.floor(6 * TIME)) % 2, "mixed"),
    "product near an axis": (0.5 + 0.5 * np.cos(2 * np.pi * FREQ) * np.cos(12 * np.pi * TIME), "mixed"),
    "constant": (np.full((N, N), 0.4), "flat"),
    "zero": (np.zeros((N, N)), "silent"),
}


@pytest.mark.parametrize("case", CASES)
def test_hand_built_patterns_get_their_names_at_any_contrast_and_upside_down(case):
    pattern, name = CASES[case]
    x = np.asarray(pattern, float)
    assert s.name_pattern(x, FRAME) == name
    if name not in ("flat", "silent"):
        assert s.name_pattern(0.5 + 0.1 * (x - 0.5), FRAME) == name
    turned = {"rising sweep": "falling sweep", "falling sweep": "rising sweep"}
    assert s.name_pattern(x[::-1], FRAME) == turned.get(name, name)


def test_noise_is_mixed_and_a_small_kernel_gets_its_name_too():
    noise = np.random.default_rng(22).uniform(size=(100, 22, 22))
    assert {s.name_pattern(x, FRAME) for x in noise} == {"mixed"}
    line = np.tile([0.0, 0, 1, 1], (4, 1))
    small = [s.name_pattern(kernel, FRAME) for kernel in (line.T, line, np.eye(4))]
    assert small == ["frequency band", "onset", "rising sweep"]
