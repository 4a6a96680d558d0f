"""Fingerprints: the same audio through encoders, gains, rates and offsets; never two clips that only sound alike."""

import io
from functools import cache

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import torchaudio
from conftest import RATE, TINY, tone

from vaelib import audio, duplicates
from vaelib.config import COMPACT, FULL, FrontEnd
from vaelib.demo import render_corpus


def coded(wave, rate=RATE, **how):
    """Through an encoder and back."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, **how)
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32")


def at(wave, rate):
    return torchaudio.functional.resample(torch.from_numpy(wave), RATE, rate).numpy(), rate


def mp3(wave, rate=RATE, level=0.85):
    return coded(wave, rate, format="MP3", subtype="MPEG_LAYER_III", compression_level=level, bitrate_mode="CONSTANT")


CHANGES = {
    "mp3 at 48 kbit/s": lambda w: mp3(*at(w, 44_100), level=0.95),
    "mp3 with its delay, softer": lambda w: mp3(np.r_[np.zeros(1105, np.float32), 0.2 * w]),
    "vorbis at its worst": lambda w: coded(w, format="OGG", subtype="VORBIS", compression_level=1.0),
    "8 kHz": lambda w: at(w, 8000),
    "48 kHz": lambda w: at(w, 48_000),
    "20 dB softer": lambda w: (0.1 * w, RATE),
    "clipped": lambda w: (np.clip(2 * w, -0.9, 0.9), RATE),
    "begins 20 ms later": lambda w: (w[441:], RATE),
}


def print_of(wave, rate=RATE, fe: FrontEnd = COMPACT) -> np.ndarray:
    wave = torch.from_numpy(np.asarray(wave, np.float32))
    return duplicates.fingerprint(audio.log_mel(torchaudio.functional.resample(wave, rate, fe.sample_rate), fe).numpy())


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[np.ndarray]:
    """Six rendered clips of each of two genres, as alike as the renderer makes them."""
    folder = tmp_path_factory.mktemp("alike")
    from vaelib.demo.tables import load_tables

    genres = list(load_tables().genres)[::22][:2]
    render_corpus(folder, clips_per_genre=6, seconds=7.0, composition=1.0, variation=0.0, workers=1, genres=genres)
    return [soundfile.read(p, dtype="float32")[0] for p in sorted(folder.rglob("*.flac"))]


@pytest.mark.parametrize("fe", [COMPACT, FULL], ids=lambda fe: fe.name)
@pytest.mark.parametrize("change", CHANGES)
def test_the_same_audio_is_found_again_and_nothing_else(clips, change, fe):
    prints = [print_of(w, fe=fe) for w in clips] + [print_of(*CHANGES[change](w), fe=fe) for w in clips]
    found = duplicates.groups(np.array(prints), np.full(2 * len(clips), 7.0))
    assert found.tolist() == 2 * list(range(len(clips)))


def test_different_clips_of_a_genre_are_far_from_the_threshold(clips):
    prints = np.array([print_of(w) for w in clips])
    i, j = np.triu_indices(len(clips), 1)
    signs, clear, n = duplicates.distances(prints[i], prints[j])
    assert signs.min() > 1.3 * duplicates.MOST_DIFFERENT and clear.min() > 1.3 * duplicates.MOST_CLEAR_DIFFERENT
    assert n.min() > duplicates.FEWEST_CLEAR / 2


def test_steady_tones_that_differ_in_their_noise_only_are_not_joined():
    for fe, f0 in ((TINY, 220), (COMPACT, 220), (COMPACT, 330), (COMPACT, 495)):
        prints = [print_of(tone(f0, seed=s), fe=fe) for s in range(5)]
        assert duplicates.groups(np.array(prints), np.full(5, 7.0)).tolist() == [0, 1, 2, 3, 4]


def test_silence_makes_nothing_equal(clips):
    quiet = np.zeros(8 * RATE, np.float32)
    padded = [print_of(np.r_[w[: 2 * RATE], quiet]) for w in clips] + [print_of(np.r_[quiet, w[:RATE]]) for w in clips]
    padded += [print_of(quiet), print_of(quiet), print_of(quiet + 0.001)]
    found = duplicates.groups(np.array(padded), np.full(len(padded), 10.0))
    assert found.tolist() == list(range(len(padded)))
    half = [np.r_[w[: 4 * RATE], quiet[: 3 * RATE]] for w in clips]  # half of it sounds: enough to be recognised by
    found = duplicates.groups(
        np.array([print_of(w) for w in half] + [print_of(*mp3(w)) for w in half]), np.full(24, 7.0)
    )
    assert found.tolist() == 2 * list(range(12))


def test_a_fingerprint_has_one_size_whatever_the_picture():
    for shape in ((64, 64), (128, 1293), (16, 16), (64, 7), (64, 1), (5, 3)):
        print_ = duplicates.fingerprint(np.random.default_rng(0).normal(-40, 9, shape).astype(np.float16))
        assert print_.shape == (duplicates.BYTES,) and print_.dtype == np.uint8
        assert np.array_equal(
            print_, duplicates.fingerprint(np.random.default_rng(0).normal(-40, 9, shape).astype("f2"))
        )
    assert not duplicates.fingerprint(np.full((64, 64), -100.0)).any()


@cache
def many(n: int = 3000) -> np.ndarray:
    """Random fingerprints; the second half are the first with a tenth of the signs turned (then unclear)."""
    rng = np.random.default_rng(1)
    prints = (
        rng.integers(0, 256, (n, duplicates.BYTES), np.uint8) | np.r_[np.zeros(64, np.uint8), np.full(64, 0xCC, "u1")]
    )
    turned = np.packbits(rng.random((n // 2, 512)) < 0.1, axis=1)
    prints[n // 2 :, :64] = prints[: n // 2, :64] ^ turned
    prints[n // 2 :, 64:] = prints[: n // 2, 64:] & ~turned
    return prints


def test_the_search_finds_what_comparing_all_pairs_finds():
    prints, seconds = many(), np.full(3000, 10.0)
    found = duplicates.groups(prints, seconds)
    assert found.tolist() == 2 * list(range(1500))
    i, j = np.triu_indices(600, 1)
    some = prints[np.r_[:300, 1500:1800]]
    all_pairs = duplicates._same(some, seconds[:600], i, j)
    assert list(zip(i[all_pairs], j[all_pairs], strict=True)) == [(k, k + 300) for k in range(300)]


def test_lengths_must_agree_and_the_order_of_rows_does_not_matter():
    prints, seconds = many(), np.full(3000, 10.0)
    seconds[1500:2000] += 1.0
    found = duplicates.groups(prints, seconds)
    assert (found[1500:2000] == np.arange(1500, 2000)).all() and (found[2000:] == np.arange(500, 1500)).all()
    order = np.random.default_rng(2).permutation(3000)
    turned = duplicates.groups(prints[order], seconds[order])
    same = pd.Series(found[order]).groupby(turned).nunique().eq(1)
    assert same.all() and len(set(turned)) == len(set(found))


def test_thousands_of_equal_rows_and_none_at_all():
    assert duplicates.groups(np.repeat(many()[:1], 5000, axis=0), np.ones(5000)).tolist() == [0] * 5000
    assert duplicates.groups(np.zeros((0, duplicates.BYTES), np.uint8), np.zeros(0)).tolist() == []
    assert duplicates.groups(many()[:1], np.ones(1)).tolist() == [0]
    assert duplicates.groups(np.zeros((3, duplicates.BYTES), np.uint8), np.ones(3)).tolist() == [0, 1, 2]


# --- files ---


def test_a_copy_agrees_place_by_place_in_half_of_its_segments():
    paths = ["a"] * 4 + ["b"] * 4 + ["c"] * 4 + ["d"] * 2 + ["e"]
    found = np.array([0, 1, 2, 3, 0, 1, 6, 7, 1, 0, 10, 11, 0, 13, 0])
    of = duplicates.duplicate_of(paths, found)
    # b: two of four; c: the same two, but in another order; d and e: one of a's four
    assert of.tolist() == [""] * 4 + ["a"] * 4 + [""] * 7
    assert duplicates.duplicate_of(["x", "y", "z"], np.array([0, 0, 0])).tolist() == ["", "x", "x"]
    assert duplicates.duplicate_of([], np.zeros(0, int)).tolist() == []


def test_a_repeated_passage_of_one_file_is_no_copy():
    assert duplicates.duplicate_of(["a", "a", "a"], np.zeros(3, int)).tolist() == ["", "", ""]


def test_what_is_connected_stays_together():
    paths = ["a", "a", "b", "c", "d", "e", "f"]
    artists = ["", "", "P", "P", "", "", None]
    same = [0, 1, 1, 3, 4, 5, 4]  # the second segment of a is b's; f is d's
    assert duplicates.together(paths, artists, same).tolist() == [0, 0, 0, 0, 4, 5, 4]
    assert duplicates.together(paths).tolist() == [0, 0, 2, 3, 4, 5, 6]
    assert duplicates.together(["", "", np.nan], [None, "", ""]).tolist() == [0, 1, 2]
