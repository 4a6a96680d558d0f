"""The mel store: what is in it, reading it, which one belongs to a corpus, and refusals."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from conftest import RATE, TINY, write_tones

from vaelib import audio, corpus
from vaelib.config import COMPACT, InputError
from vaelib.preprocess import build_store
from vaelib.store import fingerprint_of, is_current, open_store


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
