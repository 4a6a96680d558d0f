"""The mel store: what is in it, reading it, which one belongs to a corpus, and refusals."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import xarray as xr
import zarr
from conftest import RATE, TINY, write_tones

from vaelib import audio, corpus, demo
from vaelib.config import COMPACT, InputError
from vaelib.preprocess import build_store
from vaelib.store import fingerprint_of, is_current, open_store, store_path


def test_a_store_describes_itself(store, corpus):
    ds = xr.open_zarr(store.path, consolidated=False)
    assert ds["log_mel"].dims == ("clip", "mel", "frame") and ds["log_mel"].dtype == np.float16
    assert ds.sizes == {"clip": 36, "mel": 16, "frame": int(7.5 * RATE) // TINY.hop + 1}
    wanted = {"path", "language", "genre", "family", "tempo", "energy", "split", "n_frames", "level_db", "tilt_db"}
    wanted |= {"track", "start_s", "asked_s", "seconds", "peak", "clipped", "silent", "rms_db", "rate", "channels"}
    assert wanted | {"duplicate_of", "format", "mel_hz", "phrases"} == set(ds.coords)
    assert ds["mel_hz"].dims == ("mel",) and ds["log_mel"].attrs["units"].startswith("dB")
    assert json.loads(ds.attrs["front_end"]) == TINY.to_dict() and ds.attrs["factors"] == ["tempo", "energy"]
    assert ds.attrs["fingerprint"] == corpus_fingerprint(corpus) and "torchaudio" in ds.attrs["versions"]
    assert pd.Series(ds["split"].values).value_counts().to_dict() == {"train": 24, "validation": 6, "test": 6}
    manifest = pd.read_csv(corpus / "manifest.csv").sort_values("path")
    assert ds["tempo"].values.tolist() == manifest["tempo"].tolist()


def corpus_fingerprint(folder):
    return corpus.read_corpus(folder).fingerprint()


def test_spectrograms_are_those_of_the_files(store):
    for row in store.rows()[::7]:
        db = audio.log_mel(audio.load(store.audio_path(row), TINY), TINY).numpy()
        stored = store.decibels([row])[0]
        assert store.table.loc[row, "n_frames"] == db.shape[1]
        assert np.abs(stored[:, : db.shape[1]] - db).max() < 0.05 and (stored[:, db.shape[1] :] == -100).all()
        found = store.table.loc[row, ["level_db", "tilt_db"]].astype(float)
        assert np.allclose(found, audio.level_and_tilt(db), atol=1e-3)


def test_reading_by_split_label_and_row(store):
    parts = [store.rows(s) for s in ("train", "validation", "test")]
    assert sorted(np.concatenate(parts)) == store.rows().tolist()
    assert store.classes("language") == ["arabic", "bangla", "spanish"] and store.factors == ["tempo", "energy"]
    codes = store.codes("language", store.rows("train"))
    assert [store.classes("language")[c] for c in codes] == store.table.loc[store.rows("train"), "language"].tolist()
    table = store.table.assign(language="unlabelled", genre=["unlabelled", *store.table["genre"][1:]])
    blank = dataclasses.replace(store, table=table)
    assert blank.codes("genre", store.rows()[:2]).tolist()[0] == -1
    with pytest.raises(InputError, match=r"no clip of .* has a language"):
        blank.classes("language")
    with pytest.raises(InputError, match="did you mean 'genre'"):
        store.classes("genres")
    with pytest.raises(InputError, match="did you mean 'train'"):
        store.rows("trains")


def test_scaler_is_fitted_on_training_clips_only(store):
    scaler = store.fit_scaler()
    louder = store.decibels(store.rows()).astype(np.float32)
    louder[store.rows("test")] += 200
    louder[store.rows("validation")] += 200
    other = dataclasses.replace(store, log_mel=zarr.array(louder))
    assert other.fit_scaler() == scaler
    x = store.spectrogram(store.rows("test")[0], scaler)
    assert x.shape == (16, store.table.loc[store.rows("test")[0], "n_frames"]) and 0 <= x.min() < x.max() <= 1


def test_other_things_are_refused(store, tmp_path):
    assert open_store(store.path, TINY).front_end == TINY
    with pytest.raises(InputError, match=r"made with front end .*'tiny'.* not .*'compact'"):
        open_store(store.path, COMPACT)
    with pytest.raises(InputError, match="no mel store at"):
        open_store(tmp_path / "nowhere.zarr")
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    with pytest.raises(InputError, match="not a mel store"):
        open_store(tmp_path / "other.zarr")


def test_another_split_is_another_store_to_a_run(tmp_path, data):
    folder = write_tones(tmp_path / "music", clips=4)
    path = build_store(folder, TINY, split_seed=0)
    first = fingerprint_of(path)
    assert is_current(folder, TINY, 0) and not is_current(folder, TINY, 1)
    build_store(folder, TINY, split_seed=1)
    assert fingerprint_of(path) != first and is_current(folder, TINY, 1)


def rendered(folder, **dials):
    """A folder of tones that says of itself what a rendered corpus says."""
    write_tones(folder, clips=10, languages=("arabic",))
    record = {
        "demo": "styles",
        "composition": 0.0,
        "variation": 0.3,
        "fixed": ["tempo"],
        "rendering": demo.dials.RENDERING,
    }
    (folder / "corpus.json").write_text(json.dumps(record | dials))
    return folder


def test_a_store_knows_its_windows_and_its_rung(tmp_path, data):
    loops, own = rendered(tmp_path / "loops"), write_tones(tmp_path / "own", clips=4)
    found = {}
    for folder in (loops, own):
        for windows in ("", "start", "anywhere"):
            path = build_store(folder, TINY, windows=windows)
            assert is_current(folder, TINY, windows=windows)
            attrs = open_store(path).attrs
            found[folder.name, windows] = (path.name, attrs["windows"], attrs["rung"], fingerprint_of(path))
    names = {place: told[:3] for place, told in found.items()}
    usual = ("loops-tiny.zarr", "start", "loops"), ("own-tiny.zarr", "anywhere", "own")
    assert names["loops", ""] == names["loops", "start"] == usual[0]
    assert names["own", ""] == names["own", "anywhere"] == usual[1]
    assert names["loops", "anywhere"] == (
        "loops-anywhere-tiny.zarr",
        "anywhere",
        "loops, cut anywhere, variation 0.3, tempo fixed",
    )
    assert names["own", "start"] == ("own-start-tiny.zarr", "start", "own")
    assert len({told[3] for told in found.values()}) == 4
    assert store_path("own", "tiny", "start").name == "own-start-tiny.zarr"
    with pytest.raises(InputError, match="did you mean 'start'"):
        build_store(own, TINY, windows="strat")
    named_like_a_rung = build_store(write_tones(tmp_path / "desk", clips=4), TINY)
    assert open_store(named_like_a_rung).attrs["rung"] == "desk (own music)"


def test_rendered_clips_are_not_taken_for_copies(tmp_path, data):
    """Loops of a genre are near copies by construction; tied together, a genre would be in one split only."""
    folder, t, rng = rendered(tmp_path / "loops"), np.arange(RATE // 4) / RATE, np.random.default_rng(0)
    notes = [sum(np.sin(2 * np.pi * f0 * k * t) / k for k in range(1, 20)) for f0 in rng.uniform(90, 900, 28)]
    melody = np.concatenate([n * rng.uniform(0.02, 0.4) for n in notes])
    for path in folder.rglob("arabic_pop/*.flac"):
        soundfile.write(path, melody, RATE)
    table = open_store(build_store(folder, COMPACT)).table
    counts = table.groupby("genre")["split"].value_counts().unstack()
    assert (table["duplicate_of"] == "").all()
    assert (counts[["train", "validation", "test"]] == [7, 1, 2]).all(axis=None)
    (folder / "corpus.json").unlink()  # the same files as a person's own music
    assert (open_store(build_store(folder, COMPACT)).table["duplicate_of"] != "").sum() == 9


def test_factors_that_do_not_vary_are_none_and_those_of_rendered_corpora_have_units(tmp_path, data):
    folder = rendered(tmp_path / "loops")
    table = pd.read_csv(folder / "manifest.csv").assign(energy=0.5, vocal_level=range(20))
    table.to_csv(folder / "manifest.csv", index=False)
    store = open_store(build_store(folder, TINY))
    assert store.factors == ["tempo", "vocal_level"] and store.units == {"tempo": "ratio", "vocal_level": "dB"}


def test_a_store_of_an_older_version_is_refused(store, tmp_path):
    old = shutil.copytree(store.path, tmp_path / "old.zarr")
    group = zarr.open_group(old, mode="a")
    group.attrs.put({k: v for k, v in group.attrs.items() if k != "windows"})
    with pytest.raises(InputError, match=r"made by an older version: run `vaelib preprocess`"):
        open_store(old)
