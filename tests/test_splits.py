"""Copies found by fingerprint under lossy codecs and other changes; grouped, stratified splits."""

import io

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import RATE, TINY, tone

from vaelib import audio, collection
from vaelib.collection import SPLITS, choose_split, split_clips
from vaelib.config import COMPACT, FULL, InputError


def melody(seed: int, seconds: float = 7.0) -> np.ndarray:
    """Random notes, four a second: no two seconds of it are alike."""
    rng, t = np.random.default_rng(seed), np.arange(RATE // 4) / RATE
    pitches = rng.uniform(90, 900, int(4 * seconds))
    notes = [sum(np.sin(2 * np.pi * f0 * k * t) / k for k in range(1, 20)) * rng.uniform(0.02, 0.4) for f0 in pitches]
    return np.concatenate(notes).astype(np.float32)


def coded(wave, format, rate=RATE):
    """(wave, rate) after a lossy encoder."""
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=format)
    file.seek(0)
    return soundfile.read(file, dtype="float32")


CHANGES = {
    "MP3": lambda w: coded(w, "MP3"),
    "at 8 kHz": lambda w: (librosa.resample(w, orig_sr=RATE, target_sr=8000), 8000),
    "clipped": lambda w: (np.clip(4 * w, -1, 1), RATE),
    "late": lambda w: (np.r_[np.zeros(1105, np.float32), w[:-1105]], RATE),
}


def print_of(wave, rate=RATE, fe=COMPACT):
    wave = librosa.resample(wave, orig_sr=rate, target_sr=RATE, fix=False)
    return collection.fingerprint(audio.log_mel(torch.as_tensor(wave, dtype=torch.float32), fe).numpy())


@pytest.fixture(scope="module")
def clips():
    return [melody(seed) for seed in range(8)]


@pytest.mark.parametrize(("change", "fe"), [*((c, COMPACT) for c in CHANGES), ("MP3", FULL)], ids=str)
def test_the_same_audio_is_found_again_and_nothing_else(clips, change, fe):
    prints = [print_of(w, fe=fe) for w in clips] + [print_of(*CHANGES[change](w), fe=fe) for w in clips]
    found = collection.groups(np.array(prints), np.full(2 * len(clips), 7.0))
    assert found.tolist() == 2 * list(range(len(clips)))


def test_what_has_no_clear_sign_equals_nothing(clips):
    quiet = np.zeros(8 * RATE, np.float32)
    prints = [print_of(np.r_[quiet, w[:RATE]]) for w in clips] + [print_of(quiet)] * 2 + [print_of(quiet + 0.001)]
    prints += [print_of(tone(220, seed=s), fe=TINY) for s in range(5)]  # steady tones that differ in their noise only
    assert collection.groups(np.array(prints), np.full(len(prints), 9.0)).tolist() == list(range(len(prints)))


def test_lengths_must_agree_and_the_number_of_rows_does_not_matter():
    rng = np.random.default_rng(1)
    prints = (
        rng.integers(0, 256, (1000, collection.BYTES), np.uint8) | np.r_[np.zeros(64, "u1"), np.full(64, 0xCC, "u1")]
    )
    turned = np.packbits(rng.random((500, 512)) < 0.1, axis=1)  # a tenth of the signs, which then are unclear
    prints[500:, :64], prints[500:, 64:] = prints[:500, :64] ^ turned, prints[:500, 64:] & ~turned
    seconds = np.r_[np.full(700, 10.0), np.full(300, 11.0)]
    found = collection.groups(prints, seconds)
    assert found[:700].tolist() == [*range(500), *range(200)] and found[700:].tolist() == list(range(700, 1000))
    assert collection.groups(np.repeat(prints[:1], 300, axis=0), np.ones(300)).tolist() == [0] * 300
    assert collection.groups(prints[:0], seconds[:0]).tolist() == []


def test_a_copy_agrees_place_by_place_in_half_of_its_segments():
    paths = ["a"] * 4 + ["b"] * 4 + ["c"] * 4 + ["d"] * 2 + ["e"]
    found = np.array([0, 1, 2, 3, 0, 1, 6, 7, 1, 0, 10, 11, 0, 13, 0])
    # b: two of four; c: the same two, but in another order; d and e: one of a's four
    assert collection.duplicate_of(paths, found).tolist() == [""] * 4 + ["a"] * 4 + [""] * 7
    assert collection.duplicate_of(["x", "y", "z"], np.array([0, 0, 0])).tolist() == ["", "x", "x"]
    assert collection.duplicate_of(["a", "a", "a"], np.zeros(3, int)).tolist() == ["", "", ""]  # a repeated passage
    assert collection.duplicate_of([], np.zeros(0, int)).tolist() == []


def clips_of(genres=5, per_genre=40, per_artist=0, seed=0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"genre": np.repeat([f"g{i}" for i in range(genres)], per_genre)})
    table["path"] = [f"{i:04d}.wav" for i in range(len(table))]
    if per_artist:
        table["artist"] = rng.integers(0, len(table) // per_artist, len(table))
    return table.sample(frac=1, random_state=seed, ignore_index=True)


def test_split_is_stratified_exactly_and_follows_the_seed_not_the_order():
    table = clips_of()
    split = split_clips(table, seed=1)
    counts = pd.crosstab(table["genre"], split)
    assert (counts[["train", "validation", "test"]].to_numpy() == [28, 4, 8]).all()
    mixed = table.sample(frac=1, random_state=3)
    assert (split_clips(mixed.reset_index(drop=True), seed=1) == split[mixed.index]).all()
    assert (split_clips(table, seed=2) != split).any()


def test_split_never_tears_a_track_and_keeps_the_shares():
    table = clips_of(per_artist=4).rename(columns={"artist": "track"})
    split = split_clips(table)
    assert pd.Series(split).groupby(table["track"]).nunique().max() == 1
    for name, share in SPLITS.items():
        assert (split == name).mean() == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize("per_genre", [1, 2, 3])
def test_every_class_is_trained_on_and_tested_before_validated(per_genre):
    counts = pd.crosstab((table := clips_of(per_genre=per_genre))["genre"], split_clips(table))
    assert (counts["train"] > 0).all()
    assert ("test" in counts) == (per_genre > 1) and ("validation" in counts) == (per_genre >= 3)


def test_classes_of_three_artists_leave_some_for_validation():
    artists = [f"{genre}{i}" for genre in "abcdefghijkl" for i in range(3)]
    table = pd.DataFrame({"path": [str(i) for i in range(72)], "artist": np.repeat(artists, 2)})
    table["genre"] = table["artist"].str[0]
    split, note = choose_split(table)
    counts = pd.crosstab(table["genre"], split)
    assert note == "" and (counts["train"] > 0).all() and (counts["test"] > 0).all()
    assert counts["validation"].sum() == 8 and pd.Series(split).groupby(table["artist"]).nunique().eq(1).all()


def test_the_same_sound_and_the_same_artist_stay_on_one_side():
    table = pd.DataFrame({"path": [f"{i:03d}" for i in range(200)], "genre": "one", "artist": "", "duplicate_of": ""})
    table.loc[10:13, "artist"] = "a"
    table.loc[[50, 60], "duplicate_of"] = ["010", "040"]  # 050 sounds like 010, which is by the artist of 011 to 013
    split = pd.Series(split_clips(table))
    assert split[[10, 11, 12, 13, 50]].nunique() == 1 and split[[40, 60]].nunique() == 1
    assert split.value_counts(normalize=True).round(1).to_dict() == {"train": 0.7, "test": 0.2, "validation": 0.1}


def test_too_few_are_split_without_stratification_or_refused():
    split, note = choose_split(clips_of(genres=6, per_genre=1))
    assert {"train", "test"} <= set(split) and "not stratified" in note
    with pytest.raises(InputError, match="all of one artist or one track"):
        choose_split(clips_of().assign(artist="one"))
