"""The collection in numbers and sentences, on made-up tables with known answers; with anything missing."""

import numpy as np
import pandas as pd
import pytest

from vaelib import collection

NONE = pd.DataFrame({"path": [], "reason": []}, dtype=str)
EVIL = '<img src=x onerror=alert(1)> "\n$a$ أغنية 🎵'


def table(**columns) -> pd.DataFrame:
    """Five files of four tracks in seven segments of 10 s; b.mp3 is a copy of a.flac; d is half silent, e clipped."""
    rows = pd.DataFrame({
        "path": ["a.flac", "a.flac", "b.mp3", "b.mp3", "c.wav", "d.wav", "e.wav"],
        "language": "x", "family": "unlabelled",
        "genre": ["rock", "rock", "rock", "rock", "jazz", "rock", "rock"],
        "artist": ["A", "A", "", "", "B", "A", "A"], "split": ["train"] * 4 + ["test", "train", "validation"],
        "n_frames": 100, "start_s": [0.0, 8, 0, 8, 0, 0, 0], "seconds": [10.0, 10, 10, 10, 10, 30, 10],
        "peak": [0.5, 0.9, 0.5, 0.9, 0.1, 1.0, 1.0], "clipped": [0, 0, 0, 0, 0, 0, 0.02],
        "silent": [0.0, 0.8, 0, 0.8, 0, 0.5, 0], "rms_db": [-20.0, -20, -20, -20, -50, -20, -10],
        "rate": [44100] * 2 + [22050] * 5, "channels": 2, "format": ["FLAC"] * 2 + ["MP3"] * 2 + ["WAV"] * 3,
        "duplicate_of": ["", "", "a.flac", "a.flac", "", "", ""],
    }, index=[0, 1, 2, 3, 5, 6, 8])  # fmt: skip
    return rows.assign(**{"track": rows["path"]} | columns)


def bad(n: int) -> pd.DataFrame:
    return pd.DataFrame({"path": [f"{i}.mp3" for i in range(n)], "reason": [
        f"is too short: {i}.0 s, while …; leave it out" for i in range(n)]}, dtype=str)  # fmt: skip


def test_files_are_means_and_ends_of_their_segments():
    found = collection.files(table(seconds=[10.0, 30, 10, 30, 10, 30, 10]))
    assert found.index.tolist() == ["a.flac", "b.mp3", "c.wav", "d.wav", "e.wav"]
    assert found["segments"].tolist() == [2, 2, 1, 1, 1] and found["seconds"].tolist() == [38, 38, 10, 30, 10]
    assert found.loc["a.flac", ["peak", "silent"]].tolist() == [0.9, pytest.approx(0.6)]  # weighted by 10 s and 30 s
    assert found.loc["b.mp3", ["duplicate_of", "format", "split"]].tolist() == ["a.flac", "MP3", "train"]
    power = collection.files(table(rms_db=[-20.0, -10, *[0.0] * 5])).loc["a.flac", "rms_db"]
    assert power == pytest.approx(10 * np.log10((0.01 + 0.1) / 2))


def test_classes_count_tracks_files_hours_and_splits():
    sizes = collection.classes(collection.files(table(track=["t", "t", "t", "t", "c", "d", "e"])), "genre")
    assert sizes.index.tolist() == ["rock", "jazz"] and sizes["tracks"].tolist() == [3, 1]
    assert sizes["files"].tolist() == [4, 1] and sizes["hours"].tolist() == [pytest.approx(76 / 3600), 10 / 3600]
    assert sizes[["train", "validation", "test"]].to_numpy().tolist() == [[2, 1, 0], [0, 0, 1]]
    assert collection.classes(collection.files(table()), "family").empty


def test_the_summary_says_the_numbers():
    said = collection.summary(collection.files(table()), bad(1000))
    expected = {
        "files": "5", "tracks": "5", "segments": "7", "rejected": "1,000", "hours": "0.02", "languages": "1",
        "genres": "2", "artists": "2", "mostly silent files": "1", "clipped files": "1", "copies of another file": "1",
        "formats": "WAV: 3, FLAC: 1, MP3: 1", "sampling rates": "22050 Hz: 4, 44100 Hz: 1",
        "files per split": "train: 3, test: 1, validation: 1",
    }  # fmt: skip
    assert said[list(expected)].to_dict() == expected and "families" not in said
    assert said["length of a file"].startswith("18.0 s (90 % of files: 10.0 s")


def test_an_old_store_is_told_of_without_what_it_lacks():
    old = table()[["path", "language", "genre", "family", "split", "n_frames"]]
    found = collection.files(old, frame_seconds=0.1)
    assert found["seconds"].tolist() == [10.0] * 5  # no starts: the longest segment
    said = collection.summary(found, NONE)
    assert {"formats", "loudness (RMS)", "clipped files", "tracks"}.isdisjoint(said.index) and said["files"] == "5"
    assert collection.copies(found).empty and collection.suspicious(old).empty
    assert "hours" not in collection.summary(collection.files(old), NONE)  # not 0.00, which would be a lie
    assert all(isinstance(w, str) for w in collection.warnings(found, NONE))


def test_warnings_of_a_healthy_collection_are_none():
    n = 60
    paths = [f"{i}.flac" for i in range(n)]
    t = pd.DataFrame({
        "path": paths, "track": paths, "language": np.resize(["x", "y"], n), "genre": np.resize(["a", "b", "c"], n),
        "split": np.resize(np.repeat(["train", "validation", "test"], 6), n), "duplicate_of": "",
        "seconds": 10.0, "silent": 0.01, "clipped": 0.0, "rms_db": -20.0,
    })  # fmt: skip
    assert collection.warnings(collection.files(t), NONE) == []


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({}, "1 genre class has a single track, which no split can share: 'jazz'."),
        ({}, "There is one language only, 'x': nothing to tell apart."),
        ({"language": "unlabelled"}, "Nothing has a language: unsupervised models run"),
        ({"language": ["x", "x", "", "", "y", "unlabelled", "y"]}, "2 of 5 files have no language."),
        ({}, "1 of 5 files is mostly silent: 'd.wav'."),
        ({}, "1 of 5 files is clipped: 'e.wav'."),
        ({}, "1 file is a copy of another (the same audio)"),
        ({"genre": list("aabbaab")}, "The same audio has different labels (genre): 'a.flac'."),
        ({"split": ["train", "train", "test", "test", "test", "train", "train"]}, "The same audio is in two splits"),
        ({}, "Loudness differs by 32 dB between files"),
        ({"track": list("aabbbbb")}, "1 genre class has a single track"),
        ({"genre": ["r", "r", "r", "r", "j", "j", "r"]}, "1 genre class has too few tracks for three splits: 'j'."),
        ({}, "1 genre class has no track to train on: 'jazz'."),
    ],
)
def test_a_warning_is_a_plain_sentence(columns, sentence):
    told = collection.warnings(collection.files(table(**columns)), NONE)
    assert [w for w in told if w.startswith(sentence)], told
    assert all(w.endswith(".") for w in told)


def test_rejected_files_are_counted_by_kind():
    told = collection.warnings(collection.files(table()), bad(5))
    assert "5 of 10 files (50.0%) were rejected: the list of rejected files says why." in told
    assert not [w for w in collection.warnings(collection.files(table()), NONE) if "rejected" in w]
    kinds = collection.reasons(pd.concat([bad(3), pd.DataFrame({"path": ["x"], "reason": ["is empty (0 bytes); y"]})]))
    assert kinds.to_dict() == {"is too short": 3, "is empty": 1} and collection.reasons(NONE).empty


def test_very_unequal_classes_are_named():
    n = 45
    paths = [f"{i}.flac" for i in range(n)]
    t = pd.DataFrame(
        {"path": paths, "track": paths, "genre": ["a"] * 40 + ["b"] * 4 + [""], "language": "", "seconds": 1}
    )
    told = collection.warnings(collection.files(t), NONE)
    assert (
        "The genre classes are very unequal ('a' with 40 tracks, 'b' with 4): numbers will follow the large ones."
        in told
    )


def test_copies_stand_below_their_original():
    found = collection.files(table())
    same = collection.copies(found)
    assert same.index.tolist() == ["a.flac", "b.mp3"] and same["same_as"].tolist() == ["a.flac"] * 2
    heard = collection.side_by_side(table(), same)
    assert heard.to_dict() == {0: "original", 2: "same as a.flac"}
    # two interleaved groups, and a group whose first file was left out
    of = ["", "", "", "a", "b", "gone"]
    t = pd.DataFrame({"path": list("abcdef"), "genre": "g", "seconds": 1.0, "duplicate_of": of}, index=range(10, 16))
    same = collection.copies(collection.files(t))
    assert same.index.tolist() == list("adbef") and same["same_as"].tolist() == ["a", "a", "b", "b", "gone"]
    assert collection.side_by_side(t, same, groups=1).to_dict() == {10: "original", 13: "same as a"}


def test_suspicious_segments_are_the_worst_one_of_each_file():
    assert collection.suspicious(table()).to_dict() == {
        1: "80% silent",
        3: "80% silent",
        6: "50% silent",
        8: "2.00% clipped",
    }
    assert collection.suspicious(table(), n=1).to_dict() == {1: "80% silent", 8: "2.00% clipped"}
    both = collection.suspicious(table(silent=0.9, clipped=0.5), n=1)
    assert both.to_dict() == {0: "90% silent, 50% clipped"}
    assert collection.suspicious(table(silent=0.0, clipped=0.0)).empty


def test_thousands_of_classes_and_hostile_names_stay_short_sentences():
    n = 5000
    paths = [f"{EVIL}/{i}.mp3" for i in range(n)]
    t = pd.DataFrame({"path": paths, "genre": [f"{EVIL} {i}" for i in range(n)], "language": EVIL, "seconds": 1.0,
                      "silent": 1.0, "clipped": 1.0, "split": "train", "duplicate_of": ""})  # fmt: skip
    found = collection.files(t)
    told = collection.warnings(found, NONE)
    assert len(collection.classes(found, "genre")) == n and all(len(w) < 600 and "\n" not in w for w in told)
    assert [w for w in told if w.startswith("5,000 genre classes have a single track") and "4,995 more" in w]
    page = collection.summary(found, NONE).to_frame().to_html() + found.head().to_html()
    assert "<img" not in page
