"""Loudness, brightness, tempo and pitch of spectrograms built by hand."""

import numpy as np
import pytest

from vaelib.evaluation.attributes import ATTRIBUTES, attributes, tempo
from vaelib.evaluation.reconstruction import onset_envelope

PER_MINUTE = 60 * 22_050 / 2048  # frames; compact


def stripe(band: int, level: float = 0.3, shape=(8, 10)) -> np.ndarray:
    x = np.zeros(shape)
    x[band] = level
    return x


def pulses(bpm: float, frames: int = 64, per_minute: float = PER_MINUTE) -> np.ndarray:
    """(bands, frames): every beat sets in at once and dies away."""
    beats = np.arange(0, frames, per_minute / bpm)
    since = np.arange(frames)[:, None] - beats
    return np.tile(np.where(since >= 0, 0.5 ** np.maximum(since, 0), 0).max(1), (8, 1))


def test_level_moves_loudness_and_nothing_else():
    table = attributes(np.stack([stripe(2, 0.3), stripe(2, 0.6)]), PER_MINUTE)
    assert tuple(table) == ATTRIBUTES
    assert table["loudness"].tolist() == pytest.approx([0.3 / 8, 0.6 / 8])
    assert table["brightness"].tolist() == pytest.approx([2 / 7, 2 / 7])
    assert table["pitch"].tolist() == pytest.approx([2 / 7, 2 / 7])
    assert table["tempo"].tolist() == [0, 0]


def test_energy_that_moves_up_is_brighter_and_higher():
    both = stripe(2) + stripe(6, 0.1)
    table = attributes(np.stack([stripe(2), stripe(6), both]), PER_MINUTE)
    assert table["loudness"].tolist() == pytest.approx([0.3 / 8, 0.3 / 8, 0.4 / 8])
    assert table["brightness"].tolist() == pytest.approx([2 / 7, 6 / 7, 3 / 7])  # (3 · 2 + 1 · 6) / 4 bands
    assert table["pitch"].tolist() == pytest.approx([2 / 7, 6 / 7, 2 / 7])  # an overtone is brighter, not higher


def test_the_pitch_of_a_melody_is_its_mean():
    x = np.concatenate([stripe(1, shape=(8, 5)), stripe(5, shape=(8, 5))], axis=1)
    assert attributes(x[None], PER_MINUTE)["pitch"].tolist() == pytest.approx([3 / 7])


@pytest.mark.parametrize(("hop", "frames", "fastest"), [(2048, 64, 180), (512, 1293, 230)])
def test_a_pulse_train_has_its_tempo(hop, frames, fastest):
    """120 bpm is a beat every 5.4 compact frames: two and three beats fall together more exactly than one."""
    per_minute, wanted = 60 * 22_050 / hop, np.arange(60, fastest + 1)
    trains = np.stack([pulses(bpm, frames, per_minute) for bpm in wanted])
    np.testing.assert_allclose(attributes(trains, per_minute)["tempo"], wanted, rtol=0.05)


def test_level_and_offset_of_the_envelope_do_not_change_the_tempo():
    envelope = onset_envelope(pulses(120)[None])[:, 1:]
    found = tempo(np.concatenate([envelope, 7 * envelope, envelope + 3]), PER_MINUTE)
    np.testing.assert_allclose(found, found[0])


def test_silence_is_dark_low_and_without_a_tempo():
    table = attributes(np.zeros((2, 8, 64)), PER_MINUTE)
    assert (table == 0).all(axis=None)
    assert tempo(np.full((1, 64), 0.1), PER_MINUTE).tolist() == [0]  # a constant flux has no beat


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_too_few_frames_have_no_tempo(frames, recwarn):
    # the shortest lag in reach is 3 frames (240 bpm), and a peak needs a neighbour on both sides
    found = attributes(pulses(120, frames)[None], PER_MINUTE)
    assert found["tempo"].tolist() == [0] and np.isfinite(found).all(axis=None)
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]
