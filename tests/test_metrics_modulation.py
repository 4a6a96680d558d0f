"""Ripples, selectivity and names of patterns against hand-built cases with known answers."""

import numpy as np
import pytest

from vaelib.config import InputError
from vaelib.metrics.modulation import KINDS, count_kinds, modulation_spectrum, name_pattern, ripples, selectivity

N = 48
F, T = np.indices((N, N)) / N  # band and frame as shares of the window
FRAME = 2048 / 22_050  # seconds


def wave(turns) -> np.ndarray:
    return 0.5 + 0.5 * np.cos(2 * np.pi * turns)


# --- ripples ---


def test_a_ripple_has_all_its_power_at_its_own_modulation():
    found = ripples((32, 48))
    power, spectral, temporal = modulation_spectrum(found.images[:, 1])
    for p, t, f in zip(power, found.temporal, found.spectral, strict=True):
        at = np.unravel_index(p.argmax(), p.shape)
        assert temporal[at[1]] == t and (spectral[at[0]] == f or (t == 0 and spectral[at[0]] == -f))
        assert p.sum() == pytest.approx(1 / 8, rel=1e-4)  # a full-contrast cosine between 0 and 1
        own = p[np.abs(spectral) == abs(f)].sum() if t == 0 else p[at]
        assert own == pytest.approx(p.sum(), rel=1e-4)


def test_ripples_cover_both_axes_and_both_directions_once():
    found = ripples((64, 64), steps=6, phases=4)
    assert found.images.shape == (6 + 6 + 2 * 6 * 6, 4, 64, 64) and found.images.dtype == np.float32
    assert found.images.min() >= 0 and found.images.max() <= 1
    pairs = set(zip(found.temporal, found.spectral, strict=True))
    assert len(pairs) == len(found.temporal) and (0, 0) not in pairs
    assert {(t, -f) for t, f in pairs if t} == {(t, f) for t, f in pairs if t}
    assert max(found.temporal) == 24 and min(abs(f) for f in found.spectral if f) == 1
    np.testing.assert_allclose(found.images[:, 0] + found.images[:, 2], 1, atol=1e-6)  # half a cycle apart


def test_a_positive_spectral_modulation_falls():
    found = ripples((16, 16), steps=1)
    falls = found.images[(found.temporal == 1) & (found.spectral == 1)][0, 0]
    assert falls[:, 0].argmax() == 0 and falls[:, 1].argmax() == 15 and falls[:, 2].argmax() == 14


@pytest.mark.parametrize("bad", [{"shape": (7, 64)}, {"shape": (64, 4)}, {"steps": 0}, {"phases": 0}])
def test_ripples_refuse_what_cannot_vary(bad):
    with pytest.raises(InputError, match="ripples need 8 × 8 bins"):
        ripples(**{"shape": (16, 16)} | bad)


# --- selectivity ---


def test_selectivity_of_known_answers():
    table = np.zeros((5, 8))
    table[0, 3] = 7.0
    table[1] = 0.2
    table[2, :4] = 1.0
    table[3] = 1e-9 * np.arange(8) ** 2
    with np.errstate(all="raise"):
        one, all_alike, half, some, dead = selectivity(table)
    assert (one, all_alike) == pytest.approx((1, 0), abs=1e-12)
    assert half == pytest.approx(1 / 3)  # 1 - log 4 / log 8
    assert half > some > 0 and np.isnan(dead)
    assert selectivity(1e6 * table)[3] == pytest.approx(some)


@pytest.mark.parametrize("bad", [np.ones((3, 1)), np.ones(4), np.array([[1.0, -1]]), np.array([[1.0, np.nan]])])
def test_selectivity_refuses_what_is_no_table_of_powers(bad):
    with pytest.raises(InputError, match="selectivity needs"):
        selectivity(bad)


# --- modulation spectrum ---


@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (8, 9), (9, 6), (1, 5)])
def test_the_powers_of_a_pattern_add_up_to_its_variance(shape):
    x = np.random.default_rng(0).normal(3, 2, (4, *shape))
    power, spectral, temporal = modulation_spectrum(x)
    assert power.shape == (4, len(spectral), len(temporal)) and (temporal >= 0).all()
    np.testing.assert_allclose(power.sum((1, 2)), x.var((1, 2)))
    np.testing.assert_allclose(power[:, :, 0].sum(1), x.mean(2).var(1), atol=1e-12)  # what frequency alone explains
    np.testing.assert_allclose(power[:, 0].sum(1), x.mean(1).var(1), atol=1e-12)  # what time alone explains


@pytest.mark.parametrize("bad", [np.ones((8, 8)), np.ones((0, 8, 8)), np.full((1, 8, 8), np.nan)])
def test_a_spectrum_needs_finite_patterns(bad):
    with pytest.raises(InputError, match="needs finite patterns"):
        modulation_spectrum(bad)


# --- names ---

CASES = {
    "horizontal stripe": (np.abs(F - 0.3) < 0.06, "frequency band"),
    "low half": (F < 0.5, "frequency band"),
    "partials": (wave(6 * F), "frequency band"),
    "partials of no whole number": (wave(5.5 * F), "frequency band"),
    "stripe of 60 % of the window": ((np.abs(F - 0.4) < 0.1) & (np.abs(T - 0.5) < 0.3), "frequency band"),
    "vertical stripe": (np.abs(T - 0.3) < 0.06, "onset"),
    "one click": (T == 7 / N, "onset"),
    "click and faint echo": ((T == 7 / N) + 0.25 * (T == 20 / N), "onset"),
    "second half": (T >= 0.5, "onset"),
    "one swell": (wave(T), "onset"),
    "clicks": (np.arange(N) % 6 + 0 * F == 0, "rhythm"),
    "clicks in 7": (np.arange(N) % 7 + 0 * F == 0, "rhythm"),
    "tremolo": (wave(4 * T), "rhythm"),
    "chirp up": (np.abs(F - T) < 0.05, "rising sweep"),
    "slow chirp up": (np.abs(F - 0.2 - 0.6 * T) < 0.05, "rising sweep"),
    "fast chirp up": (np.abs(F - 2.5 * (T - 0.3)) < 0.1, "rising sweep"),
    "rising ripple": (wave(3 * F - 5 * T), "rising sweep"),
    "falling ripple of no whole number": (wave(3.5 * F + 4.5 * T), "falling sweep"),
    "checkerboard": ((np.floor(6 * F) + np.floor(6 * T)) % 2, "mixed"),
    "finest checkerboard": (np.indices((N, N)).sum(0) % 2, "mixed"),
    "product": (wave(4 * F) * wave(3 * T), "mixed"),
    "product near an axis": (0.5 + 0.5 * np.cos(2 * np.pi * F) * np.cos(12 * np.pi * T), "mixed"),
    "cross": ((np.abs(F - 0.5) < 0.1) | (np.abs(T - 0.5) < 0.1), "mixed"),
    "spot": (np.exp(-((F - 0.5) ** 2 + (T - 0.5) ** 2) / 0.02), "mixed"),
    "constant": (np.full((N, N), 0.4), "flat"),
    "loud": (np.ones((N, N)), "flat"),
    "zero": (np.zeros((N, N)), "silent"),
}


@pytest.mark.parametrize("case", CASES)
def test_hand_built_patterns_get_their_names_at_any_contrast_and_upside_down(case):
    pattern, name = CASES[case]
    x = np.asarray(pattern, float)
    assert name_pattern(x) == name
    if name not in ("flat", "silent"):
        assert name_pattern(0.5 + 0.1 * (x - 0.5)) == name
    turned = {"rising sweep": "falling sweep", "falling sweep": "rising sweep"}
    assert name_pattern(x[::-1]) == turned.get(name, name)
    assert name_pattern(x[:, ::-1]) == turned.get(name, name)
    swapped = {"frequency band": ("onset", "rhythm"), "onset": ("frequency band",), "rhythm": ("frequency band",)}
    assert name_pattern(x.T) in swapped.get(name, (name,))


@pytest.mark.parametrize("size", [10, 22, 46])
def test_noise_is_mixed(size):
    noise = np.random.default_rng(size).uniform(size=(100, size, size))
    assert {name_pattern(x) for x in noise} == {"mixed"}


def test_a_small_kernel_gets_its_name_too():
    line = np.array([0.0, 0, 1, 1])
    assert name_pattern(np.tile(line[:, None], 4)) == "frequency band"
    assert name_pattern(np.tile(line, (4, 1))) == "onset"
    assert name_pattern(np.tile([0.0, 1, 0, 1], (4, 1))) == "rhythm"
    assert name_pattern(np.eye(4)) == "rising sweep" and name_pattern(np.eye(4)[::-1]) == "falling sweep"


@pytest.mark.parametrize(("frames", "rate"), [(5, "2.2"), (6, "1.8"), (16, "0.67")])
def test_a_rhythm_has_its_rate(frames, rate):
    clicks = np.tile(np.arange(N) % frames < 2, (N, 1)).astype(float)
    assert name_pattern(clicks, FRAME) == f"rhythm at {rate} Hz"
    assert name_pattern(clicks) == "rhythm"


def test_only_a_rhythm_has_a_rate():
    for case, (pattern, name) in CASES.items():
        if name != "rhythm":
            assert name_pattern(np.asarray(pattern, float), FRAME) == name, case


def test_a_pattern_must_be_finite_and_two_dimensional():
    for bad in (np.full((4, 4), np.inf), np.ones(4), np.ones((2, 4, 4))):
        with pytest.raises(InputError, match="needs finite patterns"):
            name_pattern(bad)


def test_every_name_is_counted_once():
    names = [name for _, name in CASES.values()]
    counts = count_kinds([*names, "rhythm at 2 Hz"])
    assert list(counts) == list(KINDS) and sum(counts.values()) == len(names) + 1
    assert counts["onset or rhythm"] == names.count("onset") + names.count("rhythm") + 1
    assert counts["sweep"] == names.count("rising sweep") + names.count("falling sweep")
    assert set(count_kinds([]).values()) == {0}
