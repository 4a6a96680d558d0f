"""Descriptors of made-up sounds, silence and worse, their cache; factors, and dimensions named after them."""

import dataclasses
import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import RATE, TINY

from vaelib import audio, descriptors
from vaelib.config import InputError
from vaelib.descriptors import NAMES, describe, measure
from vaelib.runs import Embedding

T = np.arange(8 * RATE) / RATE


def chord(*semitones: int) -> np.ndarray:
    """Sines above middle C."""
    return sum(0.1 * np.sin(2 * np.pi * 261.626 * 2 ** (s / 12) * T) for s in semitones)


def clicks(bpm: float) -> np.ndarray:
    """Decaying noise on every beat."""
    noise = np.random.default_rng(0).normal(size=2000) * np.exp(-np.arange(2000) / 300)
    wave = np.zeros(len(T) + 2000)
    for start in np.arange(0.25, 8, 60 / bpm):
        wave[int(start * RATE) :][:2000] += 0.1 * noise
    return wave[: len(T)]


@pytest.mark.parametrize("bpm", [70, 128])
def test_a_click_track_has_its_tempo_and_its_onsets(bpm):
    found = measure(clicks(bpm), RATE)
    octaves = np.log2(found["tempo"] / bpm)
    assert abs(octaves - round(octaves)) < 0.06 and abs(octaves) < 1.1  # half and double tempo are the known mistake
    assert found["onset_rate"] == pytest.approx(bpm / 60, abs=0.2)


@pytest.mark.parametrize(("tonic", "triad"), [(0, (0, 4, 7)), (7, (0, 3, 7))], ids=["C major", "G minor"])
def test_a_triad_has_the_key_of_its_root(tonic, triad):
    assert measure(chord(*(tonic + s for s in triad)), RATE)["key"] == tonic


def test_loudness_is_in_decibels_and_nothing_else_hears_it():
    loud, soft = measure(clicks(100), RATE), measure(0.001 * clicks(100), RATE)
    assert loud.pop("loudness") - soft.pop("loudness") == pytest.approx(60, abs=1e-3)
    assert loud == pytest.approx(soft, rel=1e-3)
    assert measure(np.sin(2 * np.pi * 441 * T) + 0.5, RATE)["loudness"] == pytest.approx(-3.01, abs=0.01)


def test_what_cannot_be_measured_is_nan_without_a_warning():
    constant, short, nan = np.full(RATE, 0.5), np.tile([0.1, -0.1], 1000), np.full(RATE, np.nan)
    for wave, loudness in ((constant, -100.0), (short, -20.0), (nan, np.nan)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = measure(wave, RATE)
        assert found.pop("loudness") == pytest.approx(loudness, nan_ok=True) and np.isnan(list(found.values())).all()


@pytest.fixture
def measured(monkeypatch):
    """Lengths of the clips that are measured, in any order; the values are made up."""
    seen = []

    def spy(wave, rate):
        if len(wave) != 8 * descriptors.FFT:  # the noise for which librosa compiles
            seen.append(len(wave))
        return dict(zip(NAMES, (1 / 3, np.nan, -20.1, float(np.var(wave)), 4.0, 0.5), strict=True))

    monkeypatch.setattr(descriptors, "measure", spy)
    return seen


@pytest.fixture
def own(store, corpus, tmp_path):
    """Twelve clips of the store, every second row, with audio and a cache of this test's own."""
    shutil.copytree(corpus, tmp_path / "own")
    attrs = store.attrs | {"corpus_root": str(tmp_path / "own")}
    return dataclasses.replace(store, path=tmp_path / "own-tiny.zarr", table=store.table.iloc[:24:2], attrs=attrs)


def test_a_store_is_described_row_by_row(store, capsys):
    found = describe(store)
    assert list(found) == list(NAMES) and set(found.dtypes) == {np.dtype(float)}
    assert found.index.equals(store.table.index)
    assert np.corrcoef(found["loudness"], 20 * np.log10(store.table["energy"]))[0, 1] > 0.99
    row = store.rows("test")[3]
    alone = measure(audio.load(store.audio_path(row), TINY).numpy(), RATE)
    assert found.loc[row].to_dict() == pytest.approx(alone, nan_ok=True)
    assert "descriptors: 100%" in capsys.readouterr().out


def test_only_what_another_table_or_librosa_gave_is_measured_again(own, measured, monkeypatch):
    first = describe(own)
    assert first["centroid"].nunique() == 12
    pd.testing.assert_frame_equal(describe(own), first, check_exact=True)
    assert len(measured) == 12
    describe(dataclasses.replace(own, table=own.table.iloc[1:]))
    monkeypatch.setattr(descriptors.librosa, "__version__", "99")
    assert describe(own)["centroid"].notna().all() and len(measured) == 12 + 11 + 12


def test_interrupted_work_keeps_its_finished_blocks(own, measured, monkeypatch):
    monkeypatch.setattr(descriptors, "BLOCK", 5)
    load = audio.load

    def interrupted(path, *how, **also):
        if path == own.audio_path(own.rows()[7]):
            raise KeyboardInterrupt
        return load(path, *how, **also)

    monkeypatch.setattr(audio, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        describe(own)
    monkeypatch.setattr(audio, "load", load)
    measured.clear()
    assert describe(own)["loudness"].tolist() == [-20.1] * 12 and len(measured) == 7


def test_clips_that_cannot_be_read_are_nan_with_one_warning(own, measured):
    gone, other, swapped = (own.audio_path(row) for row in own.rows()[[2, 5, 8]])
    kept = gone.with_suffix(".kept")
    gone.rename(kept)
    other.write_bytes(b"")
    shutil.copy(own.audio_path(own.rows()[1]), swapped)  # a quarter of a second longer
    with pytest.warns(UserWarning) as caught:
        found = describe(own)
    assert np.flatnonzero(found.isna().all(axis=1)).tolist() == [2, 5, 8]
    (message,) = (str(w.message) for w in caught)
    assert (
        f"3 of 12 clips of own-tiny.zarr have no descriptors: their audio is not what it was (the first: {gone})"
        in message
    )
    kept.rename(gone)  # only what was missing is tried again
    measured.clear()
    with pytest.warns(UserWarning, match="2 of 12"):
        assert describe(own)["loudness"].notna().sum() == 10
    assert len(measured) == 1


def embedding(means, kl=None) -> Embedding:
    means = np.asarray(means, float)
    kl = np.ones(means.shape[1]) if kl is None else np.asarray(kl, float)
    return Embedding(means, np.zeros_like(means), kl, np.arange(len(means)))


def known(clips: int = 400):
    """Factors drawn independently, and a run's stand-in that embeds every clip as its factors beside noise."""
    rng = np.random.default_rng(0)
    names = ["tempo", "energy", "brightness"]
    table = pd.DataFrame(rng.uniform(size=(clips, 3)), columns=names)
    codes = np.c_[table.to_numpy() * 4 - 2, rng.normal(size=(clips, 4))]
    rows, attrs = lambda split=None: table.index.to_numpy(), {"corpus": "known"}
    store = SimpleNamespace(factors=names, table=table, rows=rows, attrs=attrs, units={"tempo": "ratio"})
    config = SimpleNamespace(training=SimpleNamespace(seed=0))
    return SimpleNamespace(name="known", store=store, config=config, embed=lambda split: embedding(codes))


def test_live_dimensions_are_the_informative_ones_of_the_test_clips_and_at_least_one():
    for kl, live in (([0.2, 0.0, 3.0, descriptors.LIVE_KL], [2, 0]), ([0.0, 0.01, 0.0], [1])):
        run = SimpleNamespace(embed={"test": embedding(np.zeros((3, len(kl))), kl)}.get)
        assert descriptors.live_dimensions(run).tolist() == live


def test_dimensions_are_named_after_what_they_know_and_read_on_its_scale():
    run = known()
    found = descriptors.meanings(run)
    assert [descriptors.label(d, found) for d in range(4)] == ["z0 · tempo", "z1 · energy", "z2 · brightness", "z3"]
    z = run.embed(None).means[:, 0]
    np.testing.assert_allclose(found[0].slope * z + found[0].offset, run.store.table["tempo"], atol=1e-9)
    assert (found[3].slope, found[3].offset) == (0, 0) and [found[d].unit for d in range(2)] == ["ratio", ""]
    t = run.store.table  # no name for two factors alike, and no scale without a line
    run.embed = lambda split: embedding(np.c_[t["tempo"] + t["energy"], t["brightness"], np.abs(t["tempo"] - 0.5)])
    found = descriptors.meanings(run)
    assert [found[d].factor for d in range(3)] == ["", "brightness", "tempo"] and found[2].slope == 0


def test_main_factors_are_preferred_one_with_gaps_is_left_out_and_a_key_is_a_name():
    run = known()
    run.store.factors, run.store.table["loudness"] = ["loudness", "brightness", "tempo"], np.arange(400.0)
    assert list(descriptors.factors_of(run)) == ["tempo", "brightness"]
    run.store.table.loc[7, "tempo"] = np.nan
    assert list(descriptors.factors_of(run)) == ["brightness"]
    run.store.table["key"] = np.arange(400.0) % 24
    run.store.factors = ["key", "loudness"]
    found = descriptors.factors_of(run)
    assert found["key"].dtype.kind == "i" and descriptors.words(found) == {"key": "key"}
    assert descriptors.words(found.rename(columns={"key": "vocal_level"})) == {"vocal_level": "vocal level"}
    run.store.table = pd.DataFrame(np.eye(400)[:, :300]).add_prefix("f")
    run.store.factors = list(run.store.table)  # of hundreds, as many as can be scored
    assert list(descriptors.factors_of(run)) == [f"f{i}" for i in range(20)]


def test_measured_descriptors_stand_in_and_without_those_the_reason_is_given(monkeypatch):
    run = known()
    measured = run.store.table.assign(key=np.nan, loudness=run.store.table["energy"])
    measured.loc[3, "loudness"] = np.nan
    run.store.factors = []
    monkeypatch.setattr(descriptors, "describe", lambda store: measured)
    found = descriptors.factors_of(run)
    assert found.attrs["measured"] and list(found) == ["tempo", "energy", "brightness", "loudness"]
    assert found.index.tolist() == [i for i in range(400) if i != 3]  # silent there
    assert descriptors.label(0, descriptors.meanings(run)) == "z0 · measured tempo"
    monkeypatch.setattr(descriptors, "describe", lambda store: measured * np.nan)
    with pytest.raises(InputError, match="known has no factors"):
        descriptors.factors_of(run)
    assert descriptors.label(3, descriptors.meanings(run)) == "z3"
