"""The mel store: what is in it, doing nothing twice, continuing, rebuilding, quarantine and refusals."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr
import zarr
from conftest import RATE, TINY, tone, write_tones

from vaelib import audio, corpus
from vaelib import store as store_module
from vaelib.config import COMPACT, InputError
from vaelib.store import build_store, fingerprint_of, is_current, open_store, store_path


def state(folder):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def loads(monkeypatch):
    """Names of the files that are decoded, in order."""
    seen, load = [], audio.load

    def spy(path, fe):
        seen.append(path.name)
        return load(path, fe)

    monkeypatch.setattr(audio, "load", spy)
    return seen


@pytest.fixture
def small(tmp_path, data):
    """A corpus of 12 clips of this test's own, every name once."""
    root = write_tones(tmp_path / "small", clips=2)
    table = pd.read_csv(root / "manifest.csv")
    for i, path in enumerate(table["path"]):
        shutil.move(root / path, root / f"{i:02d}.flac")
        table.loc[i, "path"] = f"{i:02d}.flac"
    table.to_csv(root / "manifest.csv", index=False)
    return root


def test_a_store_describes_itself(store, corpus):
    ds = xr.open_zarr(store.path, consolidated=False)
    assert ds["log_mel"].dims == ("clip", "mel", "frame") and ds["log_mel"].dtype == np.float16
    assert ds.sizes == {"clip": 36, "mel": 16, "frame": int(7.5 * RATE) // TINY.hop + 1}
    wanted = {"path", "language", "genre", "family", "tempo", "energy", "split", "n_frames", "level_db", "tilt_db"}
    assert wanted | {"mel_hz", "phrases"} == set(ds.coords)
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


def test_a_second_build_does_nothing(small, data, loads):
    path = build_store(small, TINY)
    before = state(data)
    assert len(loads) == 12 and path == store_path("small", "tiny")
    assert build_store(small, TINY) == path and state(data) == before and len(loads) == 12


@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupted_build_continues(small, data, loads, monkeypatch, tmp_path, workers):
    monkeypatch.setattr(store_module, "CHUNK_BYTES", 3 * 2 * 16 * 81)  # three clips per chunk
    with monkeypatch.context() as patch:
        patch.setenv("VAELIB_DATA", str(tmp_path / "whole"))
        whole = xr.open_zarr(build_store(small, TINY), consolidated=False).load()
    loads.clear()
    with monkeypatch.context() as patch:
        load = audio.load
        patch.setattr(audio, "load", lambda p, fe: load(p, fe) if p.name != "07.flac" else interrupt())
        with pytest.raises(KeyboardInterrupt):
            build_store(small, TINY, workers=workers)
    path = store_path("small", "tiny")
    assert not path.exists() and {f"{i:02d}.flac" for i in range(6)} <= set(loads)
    with pytest.raises(InputError, match="unfinished"):
        open_store(path.with_suffix(".partial.zarr"))
    loads.clear()
    assert build_store(small, TINY, workers=workers) == path
    assert sorted(loads) == [f"{i:02d}.flac" for i in range(6, 12)]  # the first two chunks were kept
    xr.testing.assert_identical(xr.open_zarr(path, consolidated=False).load(), whole)
    assert {p.name for p in path.parent.iterdir()} == {"small-tiny.zarr", "small-tiny.rejected.csv"}


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["labels", "finish", "rename"])
def test_a_build_killed_anywhere_continues(small, data, monkeypatch, where):
    to_zarr = xr.Dataset.to_zarr
    with monkeypatch.context() as patch:
        if where == "labels":  # written, but the spectrograms have no place yet
            patch.setattr(xr.Dataset, "to_zarr", lambda *a, **k: (to_zarr(*a, **k), interrupt()))
        if where == "finish":
            patch.setattr(store_module, "_finish", interrupt)
        if where == "rename":
            patch.setattr(Path, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build_store(small, TINY)
    assert len(open_store(build_store(small, TINY)).table) == 12


@pytest.mark.parametrize("change", ["content", "label", "fewer"])
def test_a_changed_corpus_is_rebuilt(small, data, change):
    first = open_store(build_store(small, TINY))
    old = first.decibels([0])
    table = pd.read_csv(small / "manifest.csv")
    if change == "content":
        soundfile.write(small / "00.flac", tone(999, 7.25, amplitude=0.1), RATE)
    table = table.assign(language="latin") if change == "label" else table.iloc[1:] if change == "fewer" else table
    table.to_csv(small / "manifest.csv", index=False)
    second = open_store(build_store(small, TINY))
    assert second.attrs["fingerprint"] != first.attrs["fingerprint"]
    assert second.table["path"].tolist() == table["path"].tolist()
    assert (change == "label") == (second.classes("language") == ["latin"])
    assert (change == "label") == np.array_equal(second.decibels([0]), old)


def test_an_interrupted_build_of_another_corpus_is_not_continued(small, data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build_store(small, TINY)
    pd.read_csv(small / "manifest.csv").iloc[3:].to_csv(small / "manifest.csv", index=False)
    assert len(open_store(build_store(small, TINY)).table) == 9


BAD = {
    "zero.flac": ("empty", lambda p: p.write_bytes(b"")),
    "text.mp3": ("cannot be decoded", lambda p: p.write_text("no music here\n" * 99)),
    "cut.flac": ("cannot be decoded|too short", lambda p: p.write_bytes((p.parent / "00.flac").read_bytes()[:5000])),
    "nan.wav": ("NaN", lambda p: soundfile.write(p, np.full(7 * RATE, np.nan, np.float32), RATE, subtype="FLOAT")),
    "short.wav": ("too short", lambda p: soundfile.write(p, tone(220, 1), RATE)),
    "silent.wav": ("silent", lambda p: soundfile.write(p, np.zeros(7 * RATE), RATE)),
    "missing.wav": ("not there", lambda p: None),
}


def add_bad(root, keep_good=True):
    table = pd.read_csv(root / "manifest.csv")
    for name, (_, make) in BAD.items():
        make(root / name)
    extra = (
        table.iloc[:1].merge(pd.DataFrame({"path": list(BAD)}), how="cross", suffixes=("_", "")).drop(columns="path_")
    )
    pd.concat([table] * keep_good + [extra]).to_csv(root / "manifest.csv", index=False)


def test_unusable_files_are_set_aside_and_the_rest_goes_on(small, data):
    add_bad(small)
    store = open_store(build_store(small, TINY))
    assert store.table["path"].tolist() == [f"{i:02d}.flac" for i in range(12)]
    rejected = pd.read_csv(data / "stores" / "small-tiny.rejected.csv").set_index("path")["reason"]
    assert set(rejected.index) == set(BAD)
    for name, (reason, _) in BAD.items():
        assert pd.Series(rejected[name]).str.contains(reason).all(), (name, rejected[name])
    assert set(store.table["split"]) <= {"train", "validation", "test"}
    assert np.isfinite(store.decibels(store.rows())).all()
    before = state(data)
    build_store(small, TINY)
    assert state(data) == before


def test_a_corpus_without_a_usable_clip_leaves_no_store(small, data):
    add_bad(small, keep_good=False)
    for _ in range(2):
        with pytest.raises(InputError, match="reasons are in"):
            build_store(small, TINY)
    assert not store_path("small", "tiny").exists()
    assert len(pd.read_csv(data / "stores" / "small-tiny.rejected.csv")) == len(BAD)


def test_clips_without_an_artist_are_split_singly(small, data):
    table = pd.read_csv(small / "manifest.csv").assign(genre="one", artist=["a"] * 3 + [None] * 9)
    table.to_csv(small / "manifest.csv", index=False)
    split = open_store(build_store(small, TINY)).table["split"]
    assert split[:3].nunique() == 1 and split[3:].nunique() == 3


def test_other_things_are_refused(store, tmp_path):
    assert open_store(store.path, TINY).front_end == TINY
    with pytest.raises(InputError, match=r"made with front end .*'tiny'.* not .*'compact'"):
        open_store(store.path, COMPACT)
    with pytest.raises(InputError, match="no mel store at"):
        open_store(tmp_path / "nowhere.zarr")
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    with pytest.raises(InputError, match="not a mel store"):
        open_store(tmp_path / "other.zarr")


def test_threads_are_given_back(small, data):
    before = torch.get_num_threads()
    build_store(small, TINY, workers=2)
    assert torch.get_num_threads() == before


def test_another_split_is_another_store_to_a_run(tmp_path, data):
    folder = write_tones(tmp_path / "music", clips=4)
    path = build_store(folder, TINY, split_seed=0)
    first = fingerprint_of(path)
    assert is_current(folder, TINY, 0) and not is_current(folder, TINY, 1)
    build_store(folder, TINY, split_seed=1)
    assert fingerprint_of(path) != first and is_current(folder, TINY, 1)


def test_two_folders_of_one_name_do_not_overwrite_each_other(tmp_path, data):
    build_store(write_tones(tmp_path / "a" / "music", clips=4), TINY)
    with pytest.raises(InputError, match=r"already holds another folder of that name, .*a/music"):
        build_store(write_tones(tmp_path / "b" / "music", clips=5), TINY)


def test_one_clip_per_genre_cannot_be_split(tmp_path, data):
    with pytest.raises(InputError, match="too few to set some aside for testing"):
        build_store(write_tones(tmp_path / "few", clips=1), TINY)
