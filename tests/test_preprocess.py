"""Making a mel store: the same whoever makes it, done once, continued after any kill; quarantine and refusals."""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr
import zarr
from conftest import RATE, TINY, tone, write_tones
from distributed import Client, LocalCluster

from vaelib import audio, corpus, preprocess
from vaelib.config import COMPACT, ROOT, InputError
from vaelib.corpus import read_corpus
from vaelib.preprocess import build_store
from vaelib.store import is_current, open_store, store_path


def state(folder):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def content(path):
    """Every file of a store, by its name in the store."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.fixture
def loads(monkeypatch):
    """Names of the files that are decoded, in order."""
    seen, read = [], audio.read

    def spy(path, *given):
        seen.append(path.name)
        return read(path, *given)

    monkeypatch.setattr(audio, "read", spy)
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


def test_a_second_build_does_nothing(small, data, loads):
    path = build_store(small, TINY)
    before = state(data)
    assert len(loads) == 12 and path == store_path("small", "tiny")
    assert build_store(small, TINY) == path and state(data) == before and len(loads) == 12


@pytest.fixture
def chunks(monkeypatch):
    """Three clips in a region, each a chunk of its own, so that `small` has four regions."""
    for name, value in (("REGION_CLIPS", 3), ("REGIONS", 1), ("CHUNK_BYTES", 1)):
        monkeypatch.setattr(preprocess, name, value)


@pytest.fixture
def whole(small, chunks, tmp_path, monkeypatch):
    """The store of `small`, made in one go by one thread, in another folder."""
    with monkeypatch.context() as patch:
        patch.setenv("VAELIB_DATA", str(tmp_path / "whole"))
        return content(build_store(small, TINY, workers=1))


@pytest.fixture(scope="module")
def processes():
    """A client of two worker processes of one thread each."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 2}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", memory_limit=0) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def interrupt(*_, **__):
    raise KeyboardInterrupt


def interrupted_build(folder, monkeypatch, workers=1, regions=2):
    """Begin a build that ends after so many regions."""
    add = preprocess._Ledger.add

    def add_and_stop(self, *given):
        add(self, *given)
        if len(self.done) == regions:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preprocess._Ledger, "add", add_and_stop)
        with pytest.raises(KeyboardInterrupt):
            build_store(folder, TINY, workers=workers)


def until(condition, seconds=240):
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


def pace(seconds):
    """In a worker: every clip takes so much longer, so that there is time to kill it."""
    read = getattr(audio, "read_at_once", audio.read)
    audio.read_at_once, audio.read = read, lambda *given: (time.sleep(seconds), read(*given))[1]


@pytest.mark.parametrize("workers", [3, "processes"])
def test_the_store_does_not_depend_on_who_makes_it(small, data, whole, workers, request):
    given = {"client": request.getfixturevalue(workers)} if isinstance(workers, str) else {"workers": workers}
    path = build_store(small, TINY, **given)
    assert content(path) == whole and len([p for p in whole if p.startswith("log_mel/c/")]) == 12


@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupted_build_continues(small, data, loads, whole, monkeypatch, workers):
    interrupted_build(small, monkeypatch, workers)
    path = store_path("small", "tiny")
    partial = path.with_suffix(".partial.zarr")
    assert not path.exists()
    with pytest.raises(InputError, match="unfinished"):
        open_store(partial)
    with open(partial.with_suffix(".progress.jsonl"), "a") as f:
        f.write("[3, [[79, -40.0")  # killed while it wrote this
    (partial / "log_mel" / "c").mkdir(exist_ok=True)
    (partial / "log_mel" / "c" / "0.0123456789abcdef.partial").write_bytes(b"half a chunk")
    loads.clear()
    assert build_store(small, TINY, workers=workers) == path
    assert len(loads) == 6  # two regions were kept
    assert workers > 1 or sorted(loads) == [f"{i:02d}.flac" for i in range(6, 12)]
    assert content(path) == whole
    assert {p.name for p in path.parent.iterdir()} == {"small-tiny.zarr", "small-tiny.rejected.csv"}


@pytest.fixture
def interrupted(small, chunks, monkeypatch) -> Path:
    """The ledger of a build of `small` that was interrupted after two of four regions."""
    interrupted_build(small, monkeypatch)
    return store_path("small", "tiny").with_suffix(".partial.progress.jsonl")


def test_a_build_is_begun_anew_when_other_files_are_usable_now(small, data, whole, loads, monkeypatch):
    header = corpus.header

    def without_ffmpeg(path):
        if path.name == "04.flac":
            raise audio.UnreadableAudio("needs ffmpeg")
        return header(path)

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "header", without_ffmpeg)
        interrupted_build(small, monkeypatch)
    loads.clear()
    assert content(build_store(small, TINY)) == whole and len(loads) == 12


def test_a_ledger_that_does_not_say_how_large_a_region_is_is_not_continued(small, data, whole, interrupted, loads):
    first, rest = interrupted.read_text().split("\n", 1)
    assert json.loads(first) == [3]
    interrupted.write_text("[]\n" + rest)
    loads.clear()
    assert content(build_store(small, TINY)) == whole and len(loads) == 12


def test_regions_of_another_size_are_continued_as_they_were_begun(small, data, whole, interrupted, loads, monkeypatch):
    monkeypatch.setattr(preprocess, "REGION_CLIPS", 5)
    loads.clear()
    assert content(build_store(small, TINY, workers=3)) == whole and len(loads) == 6


@pytest.mark.parametrize(
    ("chunk", "clips", "threads", "region"),
    [
        (6, 135, 2, 12),
        (6, 360, 2, 30),
        (6, 360, 16, 6),
        (6, 9999, 16, 30),
        (32, 720, 2, 32),
        (12, 12, 4, 12),
        (1, 3, 8, 1),
    ],
)
def test_every_thread_has_some_regions_unless_chunks_are_too_large(chunk, clips, threads, region):
    client = SimpleNamespace(nthreads=lambda: {"one": threads})
    assert preprocess._region(chunk, clips, client) == region


def test_a_chunk_of_rejected_clips_alone_is_written_like_any_other(small, data, chunks):
    """Zarr is told not to compare every chunk with its fill value, which takes longer than to compress it."""
    table = pd.read_csv(small / "manifest.csv")
    soundfile.write(small / table["path"][4], np.zeros(7 * RATE), RATE)
    path = build_store(small, TINY)
    assert len(open_store(path).table) == 11 and (path / "log_mel/c/4/0/0").is_file()


CHILD = """
import sys, time
from vaelib import audio, preprocess
from vaelib.config import FrontEnd
read = audio.read
audio.read = lambda *given: (time.sleep(0.15), read(*given))[1]
preprocess.REGION_CLIPS, preprocess.REGIONS, preprocess.CHUNK_BYTES = 3, 1, 1
preprocess.build_store(sys.argv[1], FrontEnd("tiny", n_mels=16, n_fft=2048, hop=2048, frames=16), workers=2)
"""


def test_a_build_killed_twice_at_random_moments_ends_with_the_same_bytes(tmp_path, data, chunks, loads, monkeypatch):
    folder = write_tones(tmp_path / "many", clips=6)
    with monkeypatch.context() as patch:
        patch.setenv("VAELIB_DATA", str(tmp_path / "whole"))
        whole = content(build_store(folder, TINY))
    path = store_path("many", "tiny")
    ledger = path.with_suffix(".partial.progress.jsonl")

    def lines():
        return ledger.read_bytes().count(b"\n") if ledger.exists() else 0

    for _ in range(2):
        before = max(lines(), 1)
        with subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], cwd=ROOT, stderr=subprocess.PIPE) as child:
            while lines() <= before and child.poll() is None:
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.6))
            child.kill()
            said = child.stderr.read().decode()
        assert child.returncode == -signal.SIGKILL, said
        assert not path.exists() and before < lines() < 13
    kept = lines() - 1
    loads.clear()
    build_store(folder, TINY)
    assert len(loads) == 36 - 3 * kept and content(path) == whole and not ledger.exists()


def test_the_scheduler_of_the_environment_is_asked(small, data, whole, loads, processes, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", processes.scheduler.address)
    assert content(build_store(small, TINY)) == whole and not loads  # nothing was decoded in this process


def test_a_killed_worker_is_replaced(small, data, whole, processes):
    ledger = store_path("small", "tiny").with_suffix(".partial.progress.jsonl")
    processes.run(pace, 0.1)
    found = []
    thread = threading.Thread(target=lambda: found.append(build_store(small, TINY, client=processes)))
    thread.start()
    until(lambda: ledger.exists() and ledger.stat().st_size > 0)  # now they decode
    (_, killed), (left, _) = processes.run(os.getpid).items()
    os.kill(killed, signal.SIGKILL)
    thread.join()
    processes.run(pace, 0, workers=[left])
    assert content(found[0]) == whole


def test_two_processes_make_a_store_once(small, data, whole, loads, capfd):
    found = []
    threads = [threading.Thread(target=lambda: found.append(build_store(small, TINY))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and len(loads) == 12 and content(found[0]) == whole
    assert re.search(r"process \d+ on \S+ is making small-tiny; waiting for it", capfd.readouterr().err)


def test_a_full_disk_is_a_sentence_and_the_next_build_continues(small, data, whole, loads, monkeypatch):
    write = zarr.Array.__setitem__

    def full(array, where, values):
        if array.ndim == 3 and where.start == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(array, where, values)

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Array, "__setitem__", full)
        with pytest.raises(InputError, match=r"cannot write .*small-tiny.partial.zarr: No space left .* continues"):
            build_store(small, TINY, workers=1)
    loads.clear()
    assert content(build_store(small, TINY)) == whole and 0 < len(loads) <= 6


@pytest.mark.parametrize("where", ["data", "stores"])
def test_a_folder_that_cannot_be_written_is_a_sentence(small, data, where):
    blocked = data if where == "data" else data / "stores"
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("not a folder")
    with pytest.raises(InputError, match=r"cannot write .*(Not a directory|File exists); make room or choose another"):
        build_store(small, TINY)


def test_a_store_removed_under_its_workers_is_a_sentence(small, data, monkeypatch):
    read, partial = audio.read, store_path("small", "tiny").with_suffix(".partial.zarr")

    def remove(*given):
        shutil.rmtree(partial, ignore_errors=True)
        return read(*given)

    with monkeypatch.context() as patch:
        patch.setattr(audio, "read", remove)
        with pytest.raises(InputError, match="removed or begun anew"):
            build_store(small, TINY, workers=1)
    assert len(open_store(build_store(small, TINY)).table) == 12


def test_workers_that_do_not_see_the_corpus_set_nothing_aside(small, data, monkeypatch):
    seen = corpus.require_seen
    monkeypatch.setattr(corpus, "require_seen", lambda folder: seen(folder / "elsewhere"))
    with pytest.raises(InputError, match=r"does not see .*under the same names"):
        build_store(small, TINY)
    assert not list((data / "stores").iterdir())


@pytest.mark.parametrize("where", ["labels", "finish", "rename", "after"])
def test_a_build_killed_anywhere_continues(small, data, loads, monkeypatch, where):
    to_zarr = xr.Dataset.to_zarr
    with monkeypatch.context() as patch:
        if where == "labels":  # written, but the spectrograms have no place yet
            patch.setattr(xr.Dataset, "to_zarr", lambda *a, **k: (to_zarr(*a, **k), interrupt()))
        if where == "finish":
            patch.setattr(preprocess, "_finish", interrupt)
        if where == "rename":
            patch.setattr(Path, "rename", interrupt)
        if where == "after":
            patch.setattr(preprocess._Ledger, "__exit__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build_store(small, TINY)
    loads.clear()
    assert len(open_store(build_store(small, TINY)).table) == 12
    assert len(loads) == (12 if where == "labels" else 0)  # what was decoded is kept
    assert {p.name for p in (data / "stores").iterdir()} == {"small-tiny.zarr", "small-tiny.rejected.csv"}


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
        patch.setattr(preprocess, "_finish", interrupt)
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
    rejected = pd.read_csv(data / "stores" / "small-tiny.rejected.csv").set_index("path")["reason"]
    unlisted = rejected.str.startswith("is not in manifest.csv; add a row")
    assert set(rejected.index[~unlisted]) == set(BAD) and unlisted.sum() == 12


def test_clips_without_an_artist_are_split_singly(small, data):
    table = pd.read_csv(small / "manifest.csv").assign(genre="one", artist=["a"] * 3 + [None] * 9)
    table.to_csv(small / "manifest.csv", index=False)
    split = open_store(build_store(small, TINY)).table["split"]
    assert split[:3].nunique() == 1 and split[3:].nunique() == 3


def test_threads_are_given_back(small, data):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        build_store(small, TINY, workers=2)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_two_folders_of_one_name_do_not_overwrite_each_other(tmp_path, data):
    build_store(write_tones(tmp_path / "a" / "music", clips=4), TINY)
    with pytest.raises(InputError, match=r"already holds another folder of that name, .*a/music"):
        build_store(write_tones(tmp_path / "b" / "music", clips=5), TINY)


def test_one_clip_per_genre_is_split_without_stratification(tmp_path, data):
    store = open_store(build_store(write_tones(tmp_path / "few", clips=1), TINY))
    assert set(store.table["split"]) >= {"train", "test"} and len(store.table) == 6
    assert store.attrs["notes"] and "not stratified" in store.attrs["notes"][0]


def test_one_artist_cannot_be_split(tmp_path, data):
    with pytest.raises(InputError, match="too few to set some aside for testing"):
        build_store(write_tones(tmp_path / "few", artist="one"), TINY)
    assert not list((data / "stores").glob("*.zarr"))


def song(seconds, rate=RATE):
    """Ever higher and ever louder: no two seconds of it are alike."""
    t = np.arange(int(seconds * rate)) / rate
    return (0.02 + 0.3 * t / seconds) * np.sin(2 * np.pi * (200 * t + 10 * t**2))


@pytest.fixture
def songs(tmp_path, data):
    """Four songs of 8.3 s, of two artists each with two."""
    for i, artist in enumerate("aabb"):
        (tmp_path / "songs" / artist).mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "songs" / artist / f"{i}.wav", song(8.3 + i / 10), RATE)
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
        wave = store.load(row)
        db = audio.log_mel(wave, TINY).numpy()
        np.testing.assert_allclose(store.decibels([row])[0], db, atol=0.05)
    assert store.name(1) == "a/0.wav 0:03" and store.rows().tolist() == list(range(12))
    first, number = store.tracks(store.rows())
    assert first.tolist() == [0, 3, 6, 9] and number.tolist() == [t for t in range(4) for _ in range(3)]


def test_another_cut_is_another_store(songs, data):
    corpus = read_corpus(songs)
    prints = set()
    for cut in ({}, {"segment_seconds": 3}, {"segment_seconds": 3, "hop_seconds": 2}, {"segment_seconds": 0}):
        path = build_store(corpus, TINY, **cut)
        assert is_current(corpus, TINY, **cut) and build_store(corpus, TINY, **cut) == path
        prints.add(open_store(path).attrs["fingerprint"])
    assert len(prints) == 4
    assert len(open_store(path).table) == 4  # 0: whole


@pytest.mark.parametrize(("cut", "reason"), [({"segment_seconds": 1}, "shorter than one window"),
                                             ({"segment_seconds": -3}, "shorter"), ({"hop_seconds": -1}, "a hop of -1"),
                                             ({"segment_seconds": float("nan")}, "shorter")])  # fmt: skip
def test_impossible_cuts_are_refused(songs, cut, reason):
    with pytest.raises(InputError, match=reason):
        build_store(songs, TINY, **cut)


def test_rows_are_measured_for_the_report(tmp_path, data):
    folder = tmp_path / "levels"
    folder.mkdir()
    half = np.r_[np.zeros(2 * RATE), np.full(2 * RATE, 0.5) * np.sin(np.arange(2 * RATE))]
    for name, wave in {"a": half, "b": np.clip(20 * tone(220, 4), -1, 1), "c": tone(220, 4), "d": tone(330, 4)}.items():
        soundfile.write(folder / f"{name}.wav", wave, RATE)
    soundfile.write(folder / "e.mp3", np.stack([tone(220, 5, 48_000)] * 2, 1), 48_000)
    t = open_store(build_store(folder, TINY)).table.set_index("path")
    assert t.loc["a.wav", "silent"] == pytest.approx(0.5, abs=0.02) and t.loc["c.wav", "silent"] == 0
    assert t.loc["a.wav", "peak"] == pytest.approx(0.5, abs=1e-3) and t.loc["a.wav", "clipped"] == 0
    assert t.loc["b.wav", "clipped"] > 0.1 and t.loc["b.wav", "peak"] == pytest.approx(1, abs=1e-3)
    assert t.loc["a.wav", "rms_db"] == pytest.approx(20 * np.log10(0.5 / 2), abs=0.2)  # half of a sine
    assert t.loc["e.mp3", ["rate", "channels", "format"]].tolist() == [48_000, 2, "MP3"]
    assert t.loc["e.mp3", "seconds"] == pytest.approx(5, abs=0.1) and t["start_s"].eq(0).all()


def test_the_same_sound_under_two_names_is_told_and_kept_on_one_side(tmp_path, data):
    folder = write_tones(tmp_path / "copies", clips=4)
    table, t = pd.read_csv(folder / "manifest.csv"), np.arange(RATE // 4) / RATE
    for i, path in enumerate(table["path"]):  # pulsed tones are too alike: melodies
        rng = np.random.default_rng(i)
        notes = [sum(np.sin(2 * np.pi * f0 * k * t) / k for k in range(1, 20)) for f0 in rng.uniform(90, 900, 28)]
        soundfile.write(folder / path, np.concatenate([n * rng.uniform(0.02, 0.4) for n in notes]), RATE)
    again = [("zz_copy.mp3", table["path"][3]), ("zz_other.ogg", table["path"][17])]
    for name, of in again:
        soundfile.write(folder / name, 0.5 * soundfile.read(folder / of)[0], RATE)
    extra = table.iloc[[3, 17]].assign(path=[name for name, _ in again])
    pd.concat([table, extra]).to_csv(folder / "manifest.csv", index=False)
    t = open_store(build_store(folder, COMPACT)).table.set_index("path")
    assert t["duplicate_of"][t["duplicate_of"] != ""].to_dict() == dict(again)
    for name, of in again:
        assert t.loc[name, "split"] == t.loc[of, "split"]


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
    heard = store.table.groupby("path")["start_s"].apply(list).to_dict()
    assert heard == {"0.wav": [0], "1.wav": [0], "2.wav": [0], "nan.wav": [0], "quiet.wav": [0, 8]}
    rejected = pd.read_csv(store.path.with_suffix(".rejected.csv")).to_numpy().tolist()
    assert [p for p, _ in rejected] == ["nan.wav", "nan.wav", "quiet.wav"]
    assert "silent" in rejected[0][1] and "NaN" in rejected[1][1] and rejected[2][1].endswith("(from 4.0 s on)")
