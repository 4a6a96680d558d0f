"""Data sets by name through mirdata's real loaders, over tiny files laid out as their published sample indexes say."""

import json
import logging
import socket
import sys
import warnings

import mirdata
import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import RATE, tone

from vaelib.config import InputError
from vaelib.datasets import mirdata_table

GENRES = ("blues", "hiphop")
SONG = "barronk-allgodschildren-1990"


def lay_out(home, index_name, index, leave_out=()):
    """Write an index (checksums are not looked at) and a second of sound for every audio file that it names."""
    (home / index_name).write_text(json.dumps({"version": "1.0"} | index))
    for entries in [*index.get("tracks", {}).values(), *index.get("multitracks", {}).values()]:
        for entry in entries.values():
            path = entry[0] if isinstance(entry, list) and entry else None
            if path and path.endswith(".wav") and path not in leave_out:
                (home / path).parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(home / path, tone(seconds=1), RATE)


def write(home, path, text):
    (home / path).parent.mkdir(parents=True, exist_ok=True)
    (home / path).write_text(text)


@pytest.fixture
def gtzan(tmp_path):
    """Two genres of three tracks; one has no audio on disk, one no tempo."""
    tracks = {}
    for i, genre in enumerate(GENRES):
        for k in range(3):
            tempo = f"gtzan_tempo_beat-main/tempo/gtzan_{genre}_{k:05d}.bpm"
            tracks[f"{genre}.{k:05d}"] = {
                "audio": [f"gtzan_genre/genres/{genre}/{genre}.{k:05d}.wav", ""],
                "beats": [f"gtzan_tempo_beat-main/beats/gtzan_{genre}_{k:05d}.beats", ""],
                "tempo": [tempo, ""],
            }
            if (genre, k) != ("hiphop", 2):
                write(tmp_path, tempo, f"{90 + 10 * i + k}.5\n")
    gone = "gtzan_genre/genres/blues/blues.00001.wav"
    lay_out(tmp_path, "gtzan_genre_index_1.0.json", {"tracks": tracks}, leave_out=[gone])
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("nothing is downloaded")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def test_gtzan_has_genres_and_tempo_and_its_missing_file_is_told(gtzan, offline):
    with pytest.warns(UserWarning) as caught:
        table = mirdata_table("gtzan_genre", gtzan)
    assert [str(w.message) for w in caught] == ["1 of 6 tracks of 'gtzan_genre' are left out: 1 × not on disk"]
    assert list(table) == ["path", "genre", "tempo"] and len(table) == 5
    assert table["genre"].tolist() == ["blues"] * 2 + ["hip-hop"] * 3
    assert table["tempo"].tolist()[:4] == [90.5, 92.5, 100.5, 101.5] and np.isnan(table["tempo"].iloc[4])
    assert pd.api.types.is_float_dtype(table["tempo"])
    assert all((gtzan / p).is_file() for p in table["path"])


def test_a_table_is_what_a_manifest_is(gtzan):
    from vaelib.corpus import read_corpus

    with pytest.warns(UserWarning, match="left out"):
        mirdata_table("gtzan_genre", gtzan).to_csv(gtzan / "manifest.csv", index=False)
    found = read_corpus(gtzan)
    assert found.factors == ("tempo",) and set(found.table["genre"]) == {"blues", "hip-hop"}
    assert set(found.table["language"]) == {"unlabelled"}


def test_singers_languages_and_titles_come_from_the_metadata(tmp_path):
    tracks = {str(k): {"audio": [f"Audio/vocadito_{k}.wav", ""]} for k in (1, 2)}
    for entry in tracks.values():
        entry |= {key: ["Annotations/none.csv", ""] for key in ("f0", "notesA1", "notesA2", "lyrics")}
    lay_out(tmp_path, "vocadito_index_1.0.json", {"tracks": tracks})
    head = "track_id,singer_id,average_pitch,language\n"
    write(tmp_path, "vocadito_metadata.csv", f"{head}1,S1,60,English\n2,S7,55,Català\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = mirdata_table("vocadito", tmp_path)
    assert table[["language", "artist"]].to_numpy().tolist() == [["English", "S1"], ["Català", "S7"]]
    assert table["average_pitch_midi"].tolist() == [60, 55]
    assert set(table) == {"path", "language", "artist", "average_pitch_midi"}


def test_artists_as_lists_genres_as_trees_and_keys_as_words(tmp_path):
    tracks = {}
    for number, key in (("10089", "D major"), ("10090", "Eb minor"), ("10091", "?")):
        tracks[f"{number}.LOFI"] = {
            "audio": [f"audio/{number}.LOFI.wav", ""],
            "key": [f"keys/{number}.key", ""],
            "meta": [f"meta/{number}.json", ""],
        }
        write(tmp_path, f"keys/{number}.key", key)
        about = {"genres": [{"name": "Breaks"}], "sub_genres": [], "artists": [{"name": "One"}, {"name": "Two"}]}
        write(tmp_path, f"meta/{number}.json", json.dumps(about | {"bpm": "128"}))
    name = mirdata.initialize("giantsteps_key").index_path.rsplit("/", 1)[-1]
    lay_out(tmp_path, name, {"tracks": tracks})
    table = mirdata_table("giantsteps_key", tmp_path)
    assert set(table["genre"]) == {"Breaks"} and set(table["artist"]) == {"One"}
    assert table["tempo"].tolist() == [128] * 3
    assert table["key"].tolist()[:2] == [2, 3] and np.isnan(table["key"].iloc[2])


def test_metadata_that_is_not_there_is_told(tmp_path):
    tracks = {"MusicDelta_Beethoven": {"audio": ["audio/MusicDelta_Beethoven_MIX.wav", ""]}}
    tracks["MusicDelta_Beethoven"] |= {f"melody{k}": [f"melody{k}/x.csv", ""] for k in (1, 2, 3)}
    lay_out(tmp_path, "medleydb_melody_index_5.0.json", {"tracks": tracks})
    with pytest.warns(UserWarning, match=r"cannot read from .*: genre of 1, artist of 1, title of 1 of 1 tracks"):
        assert list(mirdata_table("medleydb_melody", tmp_path)) == ["path"]
    about = {"MusicDelta_Beethoven": {"artist": "MusicDelta", "title": "Beethoven", "genre": "Classical",
                                      "n_sources": 18, "is_excerpt": True}}  # fmt: skip
    write(tmp_path, "medleydb_melody_metadata.json", json.dumps(about))
    (row,) = mirdata_table("medleydb_melody", tmp_path).to_dict("records")
    assert row == {"path": "audio/MusicDelta_Beethoven_MIX.wav", "genre": "Classical", "artist": "MusicDelta",
                   "title": "Beethoven", "n_sources": 18}  # fmt: skip


def jazz(home, **options):
    stems = [f"{SONG}_{part}" for part in ("piano", "bass", "drums")]
    tracks = {
        s: {"audio": [f"processed/{s}.wav", ""], "onsets": [None, ""], "midi": [None, ""], "beats": [None, ""]}
        for s in stems
    }
    mix = {"tracks": stems, "metadata": [f"annotations/{SONG}/metadata.json", ""], "beats": [None, ""],
           "audio": [f"raw/{SONG}.wav", ""], "audio-lchan": [None, ""], "audio-rchan": [None, ""]}  # fmt: skip
    about = {"album_name": "A", "bandleader": "Kenny Barron", "track_name": "All God's Children", "tempo": 151.3,
             "recording_year": 1990, "time_signature": 4, "musicians": {"pianist": "Kenny Barron"},
             "timestamps": {"start": "00:00", "end": "01:10"}}  # fmt: skip
    write(home, f"annotations/{SONG}/metadata.json", json.dumps(about))
    name = mirdata.initialize("jtd").index_path.rsplit("/", 1)[-1]
    lay_out(home, name, {"tracks": tracks, "multitracks": {SONG: mix}}, **options)


def test_of_a_multi_track_the_mix_is_taken(tmp_path):
    jazz(tmp_path)
    (row,) = mirdata_table("jtd", tmp_path).to_dict("records")
    assert row["path"] == f"raw/{SONG}.wav" and row["artist"] == "Kenny Barron" and row["track"] == SONG
    assert (row["tempo"], row["year"]) == (151.3, 1990) and not {"start", "stop", "duration"} & set(row)


def test_without_the_mix_its_stems_stay_together(tmp_path):
    jazz(tmp_path, leave_out=[f"raw/{SONG}.wav"])
    table = mirdata_table("jtd", tmp_path)
    assert len(table) == 3 and set(table["track"]) == {SONG} and table["path"].str.startswith("processed/").all()


def test_tracks_that_the_loader_refuses_are_counted(gtzan):
    name = gtzan / "gtzan_genre_index_1.0.json"
    index = json.loads(name.read_text())
    index["tracks"]["hiphop.00000"]["tempo"] = None  # as in an index with a hole
    index["tracks"]["hiphop.00001"]["audio"] = [None, None]
    name.write_text(json.dumps(index))
    expected = "3 of 6 tracks .*1 × not on disk, 1 × refused by the loader .TypeError., 1 × without audio"
    with pytest.warns(UserWarning, match=expected):
        assert len(mirdata_table("gtzan_genre", gtzan)) == 3


def test_a_data_set_without_audio_is_said(tmp_path):
    name = mirdata.initialize("acousticbrainz_genre").index_path.rsplit("/", 1)[-1]
    lay_out(tmp_path, name, {"tracks": {"tagtraum#validation#a#b#rock": {"data": ["x.json", ""]}}})
    with pytest.raises(InputError, match=r"none of the 1 tracks .* \(1 × without audio\)$"):
        mirdata_table("acousticbrainz_genre", tmp_path)


def test_the_wrong_folder_says_where_files_are_expected(gtzan, tmp_path):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (gtzan / "gtzan_genre_index_1.0.json").rename(other / "gtzan_genre_index_1.0.json")
    with pytest.raises(InputError, match=r"none of the 6 tracks .*elsewhere/gtzan_genre/genres/blues/blues.00000.wav"):
        mirdata_table("gtzan_genre", other)
    with pytest.raises(InputError, match=r"no folder .*nowhere"):
        mirdata_table("gtzan_genre", tmp_path / "nowhere")


@pytest.mark.parametrize("path", ["../outside.wav", "/etc/passwd"])
def test_an_index_cannot_leave_the_folder(gtzan, path):
    name = gtzan / "gtzan_genre_index_1.0.json"
    index = json.loads(name.read_text())
    index["tracks"]["blues.00000"]["audio"][0] = path
    name.write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"places 'blues.00000' at .*, outside of .*; fetch the index again"):
        mirdata_table("gtzan_genre", gtzan)


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"version": "1.0"}', '{"tracks": {', b"\xff\xfe"])
def test_a_damaged_index_is_a_sentence(tmp_path, content):
    (tmp_path / "gtzan_genre_index_1.0.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"gtzan_genre_index_1\.0\.json is not a mirdata index") as e:
        mirdata_table("gtzan_genre", tmp_path)
    assert "\n" not in str(e.value)


def test_unknown_names_and_versions_name_the_nearest(tmp_path):
    with pytest.raises(InputError, match="unknown mirdata data set 'gtzan': did you mean 'gtzan_genre'"):
        mirdata_table("gtzan", tmp_path)
    with pytest.raises(InputError, match="unknown version of 'gtzan_genre' 'minni': did you mean 'mini'"):
        mirdata_table("gtzan_genre", tmp_path, "minni")


def test_every_data_set_without_its_index_is_a_sentence_and_nothing_is_fetched(tmp_path, offline):
    root, said = logging.getLogger(), "is not here, and nothing is downloaded|needs the package|has no index of"
    before = root.handlers[:], root.level
    for name in mirdata.list_datasets():
        with pytest.raises(InputError, match=said) as e:
            mirdata_table(name, tmp_path)
        assert "\n" not in str(e.value)
    assert (root.handlers, root.level) == before  # mirdata would make the whole process log
    with pytest.raises(InputError, match=r"put gtzan_genre_1.0_mini_index.json into .*version='mini'\).download"):
        mirdata_table("gtzan_genre", tmp_path, "mini")


def test_without_mirdata_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mirdata", None)
    with pytest.raises(InputError, match=r"need the package mirdata: pip install 'vaelib\[mirdata\]'"):
        mirdata_table("gtzan_genre", tmp_path)
