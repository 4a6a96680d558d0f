"""Finding files by table or by folders, what is refused and why, the quarantine, and what a fingerprint sees."""

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import soundfile
from conftest import RATE, TINY, tone

from vaelib.collection import quarantine, read_corpus
from vaelib.config import ROOT, InputError
from vaelib.store import build_store, open_store


def touch(root, *paths, content="x"):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


def manifest(root, text):
    return touch(root, "manifest.csv", content=text)


def test_folder_tree_gives_language_and_genre(tmp_path):
    found = read_corpus(touch(tmp_path, "en/rock/b.MP3", "en/rock/a.flac", "jazz/c.ogg", "d.wav", "en/rock/cover.jpg"))
    assert found.table["path"].tolist() == ["d.wav", "en/rock/a.flac", "en/rock/b.MP3", "jazz/c.ogg"]
    assert found.table["language"].tolist() == ["unlabelled", "en", "en", "unlabelled"]
    assert found.table["genre"].tolist() == ["unlabelled", "rock", "rock", "jazz"]
    assert found.name == tmp_path.name and found.factors == () and set(found.table["family"]) == {"unlabelled"}


def test_what_cannot_be_read_is_refused(tmp_path):
    touch(tmp_path, "empty/readme.txt", "music/a.wav")
    for folder, how, message in (
        ("nowhere", {}, "no corpus at"),
        ("empty", {}, "no audio in"),
        ("music", {"labels": "{genre}", "manifest": "x.csv"}, "exclude each other"),
        ("music", {"manifest": "x.csv"}, "no manifest at"),
    ):
        with pytest.raises(InputError, match=message):
            read_corpus(tmp_path / folder, **how)


def test_fingerprint_follows_names_labels_and_content_only(tmp_path):
    long, prints = "x" * 100_000, []
    for i, content in enumerate((long, long, "y" + long[1:], long[1:] + "y", long + "x")):
        prints.append(read_corpus(touch(tmp_path / str(i), "a/x.wav", content=content)).fingerprint())
    prints.append(read_corpus(touch(tmp_path / "other", "a/z.wav", content=long)).fingerprint())
    assert prints[0] == prints[1] and len(set(prints)) == 5


def test_quarantine_lists_reasons_and_goes_on(tmp_path):
    found = read_corpus(touch(tmp_path, "a.wav", "b, x.wav", "c.wav", content=""))
    for name, seconds in (("a.wav", 4), ("c.wav", 10)):
        soundfile.write(tmp_path / name, tone(220, seconds), RATE)
    table, bad = quarantine(found, TINY, 4.0, 4.0)
    assert table["path"].tolist() == ["a.wav", "c.wav", "c.wav", "c.wav"] and set(table["format"]) == {"WAV"}
    assert table["start_s"].tolist() == [0, 0, 4, 6] and table["seconds"].fillna(-1).tolist() == [-1, 4, 4, -1]
    assert table["n_frames"].tolist() == [4 * 22_050 // 2048 + 1] * 4
    assert bad == [("b, x.wav", "is empty (0 bytes); copy it again")]


def test_a_file_that_was_cut_off_is_used_and_named(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(220, 10), RATE)
    (tmp_path / "a.flac").write_bytes((whole := (tmp_path / "a.flac").read_bytes())[: len(whole) // 2])
    table, bad = quarantine(read_corpus(tmp_path), TINY, 0, 0)
    assert table["path"].tolist() == [bad[0][0]] and "before its header says" in bad[0][1]


NAMES = [
    "with space.wav", "new\nline.wav", "it's \"quoted\".wav", "🎵 emoji.wav", "שיר.wav", "أغنية.wav",
    "<b onclick=x>.wav", "a,b;c\t.wav", "-rf.wav", "%2e%2e.wav", "CASE.wav", "case.wav", "..dots...wav",
    "x" * 240 + ".wav",
]  # fmt: skip


def test_hostile_names_are_kept_to_the_letter(tmp_path, data):
    root = tmp_path / 'my <music> "אוסף" 🎶'
    for i, name in enumerate(NAMES):
        folder = root / ("rock & <i>roll" if i % 2 else "ジャズ\n")
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, tone(200 + 40 * i, 3), RATE)
    bad = os.fsencode(root) + b"/latin\xe9.wav"
    shutil.copy(root / "rock & <i>roll" / "new\nline.wav", bad)
    found = read_corpus(root)
    assert sorted(p.rsplit("/", 1)[1] for p in found.table["path"]) == sorted(NAMES)
    assert found.left_out == (("latin\\xe9.wav", "has a name that is not UTF-8; rename it, e.g. with convmv"),)
    store = open_store(build_store(found, TINY))
    assert store.table["path"].tolist() == found.table["path"].tolist()
    assert store.classes("genre") == sorted({"rock & <i>roll", "ジャズ"})
    rejected = pd.read_csv(store.path.with_suffix(".rejected.csv"))
    assert rejected["path"].tolist() == ["latin\\xe9.wav"]
    assert all(store.load(row).numel() for row in store.rows())


def test_links_are_followed_once_and_loops_end(tmp_path):
    touch(tmp_path, "music/rock/a.wav", "elsewhere/jazz/b.wav")
    os.symlink("..", tmp_path / "music" / "rock" / "loop")
    os.symlink(tmp_path / "elsewhere" / "jazz", tmp_path / "music" / "jazz")
    os.symlink(tmp_path / "elsewhere" / "jazz", tmp_path / "music" / "jazz again")
    os.symlink("nowhere.wav", tmp_path / "music" / "broken.wav")
    os.mkfifo(tmp_path / "music" / "pipe.wav")
    (tmp_path / "music" / "folder.wav").mkdir()
    found = read_corpus(tmp_path / "music")
    assert found.table["path"].tolist() == ["jazz/b.wav", "rock/a.wav"]
    assert [p for p, _ in found.left_out] == ["broken.wav", "pipe.wav"]


def test_hidden_files_and_those_of_other_kinds_are_not_music(tmp_path):
    found = read_corpus(touch(tmp_path, "a.wav", "._a.wav", ".Trash/b.wav", "cover.jpg", "b.flac.part"))
    assert found.table["path"].tolist() == ["a.wav"] and not found.left_out


@pytest.mark.parametrize(
    ("pattern", "want"),
    [
        ("{language}/{genre}/{artist}/{album}/{track}", ["en", "rock", "The A", "en/rock/The A/1st/01 Song"]),
        ("*/{genre}/{artist}/*/{number} {track}", ["unlabelled", "rock", "The A", "en/rock/The A/1st/Song"]),
    ],
)
def test_a_pattern_names_the_levels(tmp_path, pattern, want):
    found = read_corpus(touch(tmp_path, "en/rock/The A/1st/01 Song.mp3", "stray.wav"), labels=pattern)
    table = found.table.set_index("path")
    assert table.loc["en/rock/The A/1st/01 Song.mp3", ["language", "genre", "artist", "track"]].tolist() == want
    assert "1 of 2 files do not fit" in found.remarks[0] and table.loc["stray.wav", "genre"] == "unlabelled"


@pytest.mark.parametrize(
    "pattern", ["genre/track", "{genre}/{genre}", "{genre", "{path}", "{rate}/{x}", "{}/x", "{1a}", "{genre}/{a}/{b}"]
)
def test_bad_patterns_are_refused(tmp_path, pattern):
    with pytest.raises(InputError, match="pattern"):
        read_corpus(touch(tmp_path, "a/b.wav"), labels=pattern)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_manifest_may_lie_elsewhere_and_be_parquet(tmp_path, kind):
    touch(tmp_path, "music/a.wav", "music/b.wav", "music/c.wav")
    columns = {"path": ["b.wav", "a.wav", "gone.wav", "a.wav"], "genre": ["x", None, "y", "z"], "mood": list("abcd")}
    table = pd.DataFrame(columns | {"tempo": [90, 100, 110, 1], "seed": range(4), "split": "train"})
    if kind == "parquet":
        table = table.assign(tempo=table["tempo"].astype("Int64"), tags=[["a"], [], ["b"], []])
    (table.to_csv if kind == "csv" else table.to_parquet)(tmp_path / f"list.{kind}", index=False)
    found = read_corpus(tmp_path / "music", manifest=tmp_path / f"list.{kind}")
    assert found.table["path"].tolist() == ["a.wav", "b.wav"] and found.factors == ("tempo",)
    assert found.table["genre"].tolist() == ["unlabelled", "x"]
    lost = ("gone.wav", "is not there; correct the manifest")
    assert found.left_out == (lost, ("c.wav", f"is not in list.{kind}; add a row to use it"))
    assert "split" not in found.table and "the given split ('train') is not used" in "".join(found.remarks)


def test_paths_leave_the_folder_only_when_allowed(tmp_path):
    touch(tmp_path, "music/a.wav", "other/b.wav")
    os.symlink(tmp_path / "other", tmp_path / "music" / "link")
    os.symlink(tmp_path / "other" / "b.wav", tmp_path / "music" / "file.wav")
    os.symlink(tmp_path / "music" / "a.wav", tmp_path / "music" / "c.wav")
    for path in (str(tmp_path / "other" / "b.wav"), "../other/b.wav", "link/b.wav", "file.wav"):
        manifest(tmp_path / "music", f"path\nc.wav\n{path}\n")  # a link that stays inside, and one that does not
        with pytest.raises(InputError, match=r"line 3: .* leaves the corpus folder; .*--allow-outside"):
            read_corpus(tmp_path / "music")
        assert len(read_corpus(tmp_path / "music", allow_outside=True).table) == 2


def test_tracks_of_one_name_are_one_only_in_a_folder_or_of_an_artist(tmp_path):
    touch(tmp_path, "a/1 Intro.mp3", "a/1 Intro.flac", "b/1 Intro.mp3")
    found = read_corpus(tmp_path, labels="{artist}/{track}").table
    assert found["track"].tolist() == ["a/1 Intro", "a/1 Intro", "b/1 Intro"]
    manifest(tmp_path, "path,artist,track\na/1 Intro.mp3,A,Intro\nb/1 Intro.mp3,B,Intro\na/1 Intro.flac,A,\n")
    assert read_corpus(tmp_path).table["track"].tolist() == ["a/1 Intro.flac", "A: Intro", "B: Intro"]


def test_a_rendered_corpus_says_so_itself(tmp_path):
    touch(tmp_path, "a.wav", "corpus.json", content="{}")
    assert read_corpus(tmp_path).record == {}  # somebody's own file of that name
    record = {"rendering": 2, "rungs": {"start": "loops"}, "units": {}}
    (tmp_path / "corpus.json").write_text(json.dumps(record))
    assert read_corpus(tmp_path).record == record
    (tmp_path / "corpus.json").write_text(json.dumps({"rendering": 2}))
    with pytest.raises(InputError, match="rendered by an older version"):
        read_corpus(tmp_path)


def test_mirdata_knows_the_files_of_a_data_set(tmp_path):
    pytest.importorskip("mirdata")
    tracks = {}
    for genre, tempo in (("blues", "90.5"), ("hiphop", "100.5"), ("rock", "")):
        name = f"{genre}.00000"
        tracks[name] = {"audio": [f"genres/{name}.wav", ""], "beats": [None, None], "tempo": [f"{name}.bpm", ""]}
        touch(tmp_path, f"{name}.bpm", content=tempo)
    touch(tmp_path, "genres/blues.00000.wav", "genres/hiphop.00000.wav")
    (tmp_path / "gtzan_genre_index_1.0.json").write_text(json.dumps({"version": "1.0", "tracks": tracks}))
    command = [sys.executable, ROOT / "data" / "mirdata_manifest.py", "gtzan_genre", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "2 tracks with genre, tempo; left out: 1 × not on disk" in done.stdout, done.stderr
    found = read_corpus(tmp_path)
    assert found.factors == ("tempo",) and found.table["genre"].tolist() == ["blues", "hip-hop"]
