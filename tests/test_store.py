"""The mel store: made once, the same whoever makes it, continued after any kill; what is in it, what is left out."""

import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import soundfile
import zarr
from conftest import RATE, TINY, tone, write_tones
from test_splits import melody

from vaelib import audio, collection
from vaelib import store as making
from vaelib.collection import read_corpus
from vaelib.config import COMPACT, ROOT, InputError
from vaelib.store import attributes, build_store, is_current, open_store, store_path


def content(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def visible(folder):
    return {p.name for p in folder.iterdir() if not p.name.startswith(".")}


@pytest.fixture
def loads(monkeypatch):
    """The files that are decoded, in order."""
    seen, read = [], audio.read
    monkeypatch.setattr(audio, "read", lambda path, *given: seen.append(path) or read(path, *given))
    return seen


@pytest.fixture
def small(tmp_path, data):
    """A corpus of 12 clips of this test's own, 00.flac to 11.flac."""
    root = write_tones(tmp_path / "small", clips=2)
    table = pd.read_csv(root / "manifest.csv")
    names = [shutil.move(root / path, root / f"{i:02d}.flac").name for i, path in enumerate(table["path"])]
    table.assign(path=names).to_csv(root / "manifest.csv", index=False)
    return root


@pytest.fixture
def chunks(monkeypatch):
    """Three clips in a chunk, so that `small` has four chunks."""
    monkeypatch.setattr(making, "CHUNK_CLIPS", 3)


@pytest.fixture
def whole(small, chunks, tmp_path, monkeypatch):
    """The store of `small`, made in one go by one thread, in another folder."""
    with monkeypatch.context() as patch:
        patch.setenv("VAELIB_DATA", str(tmp_path / "whole"))
        return content(build_store(small, TINY, workers=1))


def chunks_done(folder):
    return list(store_path(folder.name, "tiny").with_suffix(".partial.done").glob("[0-9]*.json"))


def test_a_store_describes_itself(store, corpus):
    group = zarr.open_group(store.path, mode="r")
    log_mel = group["log_mel"]
    assert log_mel.metadata.dimension_names == ("clip", "mel", "frame") and log_mel.dtype == np.float16
    assert log_mel.shape == (36, 16, int(7.5 * RATE) // TINY.hop + 1) and log_mel.attrs["units"].startswith("dB")
    wanted = {"path", "language", "genre", "family", "tempo", "energy", "split", "n_frames", "level_db", "tilt_db"}
    wanted |= {"track", "start_s", "asked_s", "seconds", "peak", "clipped", "silent", "rms_db", "rate", "channels"}
    assert wanted | {"duplicate_of", "format", "mel_hz", "phrases", "log_mel"} == set(group.array_keys())
    assert json.loads(store.attrs["front_end"]) == TINY.to_dict() and store.factors == ["tempo", "energy"]
    assert store.attrs["fingerprint"] == read_corpus(corpus).fingerprint() and "librosa" in store.attrs["versions"]
    assert store.table["split"].value_counts().to_dict() == {"train": 24, "validation": 6, "test": 6}
    assert store.table["tempo"].tolist() == pd.read_csv(corpus / "manifest.csv").sort_values("path")["tempo"].tolist()


def test_reading_by_split_label_and_row(store):
    parts = [store.rows(s) for s in ("train", "validation", "test")]
    assert sorted(np.concatenate(parts)) == store.rows().tolist()
    assert store.classes("language") == ["arabic", "bangla", "spanish"]
    codes = store.codes("language", store.rows("train"))
    assert [store.classes("language")[c] for c in codes] == store.table.loc[store.rows("train"), "language"].tolist()
    scaler = store.fit_scaler()
    x = store.spectrogram(store.rows("test")[0], scaler)
    assert x.shape == (16, store.table.loc[store.rows("test")[0], "n_frames"]) and 0 <= x.min() < x.max() <= 1
    for read, name, match in ((store.classes, "genres", "'genre'"), (store.rows, "trains", "'train'")):
        with pytest.raises(InputError, match=f"did you mean {match}"):
            read(name)


def test_rows_are_measured_for_the_report(tmp_path, data):
    (folder := tmp_path / "levels").mkdir()
    half = np.r_[np.zeros(2 * RATE), np.full(2 * RATE, 0.5) * np.sin(np.arange(2 * RATE))]
    for name, wave in {"a": half, "b": np.clip(20 * tone(220, 4), -1, 1), "c": tone(220, 4)}.items():
        soundfile.write(folder / f"{name}.wav", wave, RATE)
    soundfile.write(folder / "d.mp3", np.stack([tone(220, 5, 48_000)] * 2, 1), 48_000)
    t = open_store(build_store(folder, TINY)).table.set_index("path")
    found = t.loc[["a.wav", "b.wav"], ["silent", "peak", "clipped"]].to_numpy(float)
    assert np.allclose(found, [[0.5, 0.5, 0], [0, 1, found[1, 2]]], atol=0.02) and found[1, 2] > 0.1
    assert t.loc["a.wav", "rms_db"] == pytest.approx(20 * np.log10(0.5 / 2), abs=0.2)  # half of a sine
    assert t.loc["d.mp3", ["rate", "channels", "format"]].tolist() == [48_000, 2, "MP3"]
    assert t.loc["d.mp3", "seconds"] == pytest.approx(5, abs=0.1) and t["start_s"].eq(0).all()


def test_other_things_are_refused(store, tmp_path):
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    assert open_store(store.path).front_end == TINY
    for name in ("nowhere.zarr", "other.zarr"):
        with pytest.raises(InputError, match="no mel store at"):
            open_store(tmp_path / name)


def rendered(folder):
    """A folder of tones that says of itself what a rendered corpus says."""
    write_tones(folder, clips=10, languages=("arabic",))
    rungs = {"start": "loops", "anywhere": "loops, cut anywhere"}
    (folder / "corpus.json").write_text(json.dumps({"rendering": 2, "rungs": rungs, "units": {"tempo": "ratio"}}))
    return folder


def test_a_store_knows_its_windows_its_rung_and_units(tmp_path, data):
    loops, desk, found = rendered(tmp_path / "loops"), write_tones(tmp_path / "desk", clips=4), {}
    for folder, windows in itertools.product((loops, desk), ("", "start", "anywhere")):
        path = build_store(folder, TINY, windows=windows)
        assert is_current(read_corpus(folder), TINY, windows=windows)
        about = attributes(path)
        found[folder.name, windows] = path.name, about["windows"], about["rung"], about["fingerprint"]
        assert open_store(path).units == ({"tempo": "ratio"} if folder == loops else {})
    assert found["loops", ""][:3] == found["loops", "start"][:3] == ("loops-tiny.zarr", "start", "loops")
    assert found["loops", "anywhere"][:3] == ("loops-anywhere-tiny.zarr", "anywhere", "loops, cut anywhere")
    own = ("desk-tiny.zarr", "anywhere", "desk (own music)")  # not taken for the rendered one
    assert found["desk", ""][:3] == found["desk", "anywhere"][:3] == own
    assert found["desk", "start"][:2] == ("desk-start-tiny.zarr", "start")
    assert len({place[3] for place in found.values()}) == 4
    with pytest.raises(InputError, match="did you mean 'start'"):
        build_store(desk, TINY, windows="strat")


@pytest.mark.parametrize("change", ["content", "label", "fewer", "split"])
def test_what_has_changed_is_another_store(small, data, change):
    first = open_store(build_store(small, TINY))
    table = pd.read_csv(small / "manifest.csv")
    if change == "content":
        soundfile.write(small / "00.flac", tone(999, 7.25, amplitude=0.1), RATE)
    table = table.assign(language="latin") if change == "label" else table.iloc[1:] if change == "fewer" else table
    table.to_csv(small / "manifest.csv", index=False)
    second = open_store(build_store(small, TINY, split_seed=int(change == "split")))
    assert second.attrs["fingerprint"] != first.attrs["fingerprint"]
    assert second.table["path"].tolist() == table["path"].tolist()
    assert (change == "label") == (second.classes("language") == ["latin"])


def test_two_folders_of_one_name_do_not_overwrite_each_other(tmp_path, data):
    build_store(write_tones(tmp_path / "a" / "music", clips=4), TINY)
    with pytest.raises(InputError, match=r"already holds another folder of that name, .*a/music"):
        build_store(write_tones(tmp_path / "b" / "music", clips=5), TINY)


def test_a_second_build_does_nothing(small, data, loads):
    path = build_store(small, TINY)
    before = {p: p.stat().st_mtime_ns for p in data.rglob("*")}
    assert len(loads) == 12 and path == store_path("small", "tiny")
    assert build_store(small, TINY) == path and len(loads) == 12
    assert {p: p.stat().st_mtime_ns for p in data.rglob("*")} == before


def test_the_store_does_not_depend_on_the_number_of_threads(small, data, whole):
    assert content(build_store(small, TINY, workers=3)) == whole
    assert len([p for p in whole if p.startswith("log_mel/c/")]) == 4


PLACES = [(zarr.core.attributes.Attributes, "put"), (collection, "groups"), (Path, "rename")]


@pytest.mark.parametrize("where", PLACES)
def test_a_build_interrupted_anywhere_continues(small, data, monkeypatch, where):
    with monkeypatch.context() as patch:
        patch.setattr(*where, Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_store(small, TINY)
    assert len(open_store(build_store(small, TINY)).table) == 12


CHILD = """
import sys, time
from vaelib import audio, store
from vaelib.config import FrontEnd
read = audio.read
audio.read = lambda *given: (time.sleep(0.15), read(*given))[1]
store.CHUNK_CLIPS = 3
store.build_store(sys.argv[1], FrontEnd("tiny", n_mels=16, n_fft=2048, hop=2048, frames=16), workers=2)
"""


def test_a_build_killed_at_a_random_moment_ends_with_the_same_bytes(tmp_path, data, chunks, loads, monkeypatch):
    folder = write_tones(tmp_path / "many", clips=6)
    with monkeypatch.context() as patch:
        patch.setenv("VAELIB_DATA", str(tmp_path / "whole"))
        whole = content(build_store(folder, TINY))
    path = store_path("many", "tiny")
    with subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], cwd=ROOT, stderr=subprocess.PIPE) as child:
        while not chunks_done(folder) and child.poll() is None:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.6))
        child.kill()
        errors = child.stderr.read().decode()
    assert child.returncode == -signal.SIGKILL, errors
    assert not path.exists() and 0 < len(chunks_done(folder)) < 12
    kept, partial = len(chunks_done(folder)), path.with_suffix(".partial.zarr")
    with pytest.raises(InputError, match="unfinished"):
        open_store(partial)
    (partial / "log_mel" / "c").mkdir(exist_ok=True)
    (partial / "log_mel" / "c" / "0.0123456789abcdef.partial").write_bytes(b"half a chunk")
    monkeypatch.setattr(making, "CHUNK_CLIPS", 5)  # it goes on with the chunks that it began with
    loads.clear()
    build_store(folder, TINY)
    assert len(loads) == 36 - 3 * kept and content(path) == whole
    assert visible(path.parent) == {"many-tiny.zarr", "many-tiny.rejected.csv"}


def test_a_full_disk_is_a_sentence_and_the_next_build_continues(small, data, whole, loads, monkeypatch):
    write = zarr.Array.__setitem__

    def full(array, where, values):
        if array.ndim == 3 and where.start == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(array, where, values)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", full)
        with pytest.raises(InputError, match=r"cannot write .*small-tiny.zarr: No space left .* continues"):
            build_store(small, TINY, workers=1)
    loads.clear()
    assert content(build_store(small, TINY)) == whole and 0 < len(loads) <= 6


def test_a_folder_that_cannot_be_written_is_a_sentence(small, data):
    data.write_text("not a folder")
    with pytest.raises(InputError, match=r"cannot write .*(Not a directory|File exists); make room or choose another"):
        build_store(small, TINY)


def test_a_corpus_that_goes_away_sets_nothing_aside(small, data, monkeypatch):
    seen = collection.require_seen
    monkeypatch.setattr(collection, "require_seen", lambda folder: seen(folder / "elsewhere"))
    with pytest.raises(InputError, match=r"no longer there: bring it back"):
        build_store(small, TINY)
    assert not visible(data / "stores")


# --- bad files, long files, copies ---

BAD = {
    "zero.flac": ("empty", lambda p: p.write_bytes(b"")),
    "text.mp3": ("cannot be decoded", lambda p: p.write_text("no music here\n" * 99)),
    "cut.flac": ("cannot be decoded|too short", lambda p: p.write_bytes((p.parent / "00.flac").read_bytes()[:5000])),
    "nan.wav": ("NaN", lambda p: soundfile.write(p, np.full(7 * RATE, np.nan, np.float32), RATE, subtype="FLOAT")),
    "short.wav": ("too short", lambda p: soundfile.write(p, tone(220, 1), RATE)),
    "silent.wav": ("silent", lambda p: soundfile.write(p, np.zeros(7 * RATE), RATE)),
    "missing.wav": ("not there", lambda p: None),
}


@pytest.mark.parametrize("keep_good", [True, False])
def test_unusable_files_are_set_aside_and_the_rest_goes_on(small, data, chunks, keep_good):
    table = pd.read_csv(small / "manifest.csv")
    for name, (_, make) in BAD.items():
        make(small / name)
    extra = table.iloc[[0] * len(BAD)].assign(path=list(BAD))
    pd.concat([table] * keep_good + [extra]).to_csv(small / "manifest.csv", index=False)
    if keep_good:
        store = open_store(build_store(small, TINY))
        assert store.table["path"].tolist() == [f"{i:02d}.flac" for i in range(12)]
        assert np.isfinite(store.decibels(store.rows())).all()
        assert store.log_mel.shape[0] == 14  # with those that failed to decode
    else:
        with pytest.raises(InputError, match="reasons are in"):
            build_store(small, TINY)
        assert not store_path("small", "tiny").exists()
    reasons = pd.read_csv(data / "stores" / "small-tiny.rejected.csv").set_index("path")["reason"]
    unlisted = reasons.str.startswith("is not in manifest.csv; add a row")
    assert set(reasons.index[~unlisted]) == set(BAD) and unlisted.sum() == (0 if keep_good else 12)
    for name, (reason, _) in BAD.items():
        assert pd.Series(reasons[name]).str.contains(reason).all(), (name, reasons[name])


@pytest.fixture
def songs(tmp_path, data):
    """Four songs of 8.3 s, ever higher and ever louder, of two artists each with two."""
    for i, artist in enumerate("aabb"):
        t = np.arange(int((8.3 + i / 10) * RATE)) / RATE
        (tmp_path / "songs" / artist).mkdir(parents=True, exist_ok=True)
        wave = (0.02 + 0.03 * t) * np.sin(2 * np.pi * (200 * t + 10 * t**2))
        soundfile.write(tmp_path / "songs" / artist / f"{i}.wav", wave, RATE)
    return tmp_path / "songs"


def test_a_long_file_becomes_segments_of_one_track(songs, data):
    store = open_store(build_store(read_corpus(songs, labels="{artist}/{track}"), TINY, segment_seconds=3))
    table = store.table
    assert table.groupby("path")["start_s"].apply(lambda s: [round(x, 3) for x in s]).tolist() == [
        [0, 3, 5.3], [0, 3, 5.4], [0, 3, 5.5], [0, 3, 5.6]  # the last one ends with the song
    ]  # fmt: skip
    assert table["seconds"].round(3).eq(3).all() and table["n_frames"].nunique() == 1
    assert table["track"].tolist() == [t for t in ("a/0", "a/1", "b/2", "b/3") for _ in range(3)]
    assert table.groupby("artist")["split"].nunique().eq(1).all()  # an artist is on one side, a track with it
    for row in store.rows():
        db = audio.log_mel(store.load(row), TINY).numpy()
        np.testing.assert_allclose(store.decibels([row])[0], db, atol=0.05)
        np.testing.assert_allclose(
            table.loc[row, ["level_db", "tilt_db"]].astype(float), audio.level_and_tilt(db), atol=1e-3
        )
    assert store.name(1) == "a/0.wav 0:03" and store.rows().tolist() == list(range(12))
    first, number = store.tracks(store.rows())
    assert first.tolist() == [0, 3, 6, 9] and number.tolist() == [t for t in range(4) for _ in range(3)]


def test_another_cut_is_another_store(songs, data):
    corpus, prints = read_corpus(songs), set()
    for cut in ({}, {"segment_seconds": 3}, {"segment_seconds": 3, "hop_seconds": 2}, {"segment_seconds": 0}):
        path = build_store(corpus, TINY, **cut)
        assert is_current(corpus, TINY, **cut)
        prints.add(attributes(path)["fingerprint"])
    assert len(prints) == 4 and len(open_store(path).table) == 4  # 0: whole
    for cut, reason in (({"segment_seconds": 1}, "cannot be cut"), ({"hop_seconds": -1}, "a hop of -1"),
                        ({"segment_seconds": float("nan")}, "cannot be cut")):  # fmt: skip
        with pytest.raises(InputError, match=reason):
            build_store(songs, TINY, **cut)


def test_a_damaged_or_silent_part_costs_only_itself(tmp_path, data):
    folder = tmp_path / "parts"
    folder.mkdir()
    wave = tone(220, 12)
    wave[4 * RATE : 8 * RATE] = 0
    soundfile.write(folder / "quiet.wav", wave, RATE)
    wave[9 * RATE] = np.nan
    soundfile.write(folder / "nan.wav", wave, RATE, subtype="FLOAT")
    for i in range(3):
        soundfile.write(folder / f"{i}.wav", tone(300 + 50 * i, 4), RATE)
    store = open_store(build_store(folder, TINY, segment_seconds=4))
    starts = store.table.groupby("path")["start_s"].apply(list).to_dict()
    assert starts == {"0.wav": [0], "1.wav": [0], "2.wav": [0], "nan.wav": [0], "quiet.wav": [0, 8]}
    rejected = pd.read_csv(store.path.with_suffix(".rejected.csv")).to_numpy().tolist()
    assert [p for p, _ in rejected] == ["nan.wav", "quiet.wav"]  # each file once
    assert "silent" in rejected[0][1] and rejected[0][1].endswith("; parts set aside: 2")
    assert rejected[1][1].endswith("(from 4.0 s on)")


def test_copies_of_own_music_are_found_and_kept_on_one_side(tmp_path, data):
    """Loops of a rendered genre are near copies by construction; tied together, a genre would be in one split only."""
    folder = rendered(tmp_path / "loops")
    table = pd.read_csv(folder / "manifest.csv")
    for i, path in enumerate(table["path"]):
        soundfile.write(folder / path, melody(i), RATE)
    again = [("zz_copy.mp3", table["path"][3]), ("zz_other.ogg", table["path"][17])]
    for name, of in again:
        soundfile.write(folder / name, 0.5 * soundfile.read(folder / of)[0], RATE)
    extra = table.iloc[[3, 17]].assign(path=[name for name, _ in again])
    pd.concat([table, extra]).to_csv(folder / "manifest.csv", index=False)
    assert (open_store(build_store(folder, COMPACT)).table["duplicate_of"] == "").all()
    (folder / "corpus.json").unlink()  # the same files as a person's own music
    t = open_store(build_store(folder, COMPACT)).table.set_index("path")
    assert t["duplicate_of"][t["duplicate_of"] != ""].to_dict() == dict(again)
    for name, of in again:
        assert t.loc[name, "split"] == t.loc[of, "split"]
