"""New files embedded like those of the store, the nearest songs, and files that cannot be used."""

import os

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import RATE, tone

from vaelib import embedding
from vaelib.config import InputError


@pytest.fixture
def song(tmp_path):
    """A file that is not of the collection."""
    path = tmp_path / "new song.flac"
    soundfile.write(path, tone(150, 9.0, seed=99), RATE)
    return path


@pytest.mark.parametrize("name", ["basic_vae", "conv_vae", "vade", "cvae"])
def test_a_file_of_the_store_lies_where_the_store_has_it(tiny_runs, name):
    run = tiny_runs[name]
    every = run.embed(None)
    pick = [0, 7, 20, 35]
    found = embedding.embed_files(run, [run.store.audio_path(r) for r in every.rows[pick]])
    assert not found.failed and np.ptp(every.means, 0).max() > 1e-3
    np.testing.assert_allclose(found.means, every.means[pick], atol=1e-5)


def test_components_are_those_of_the_run(tiny_runs):
    run = tiny_runs["vade"]
    share = np.exp(run.log_responsibilities("test"))
    found = embedding.embed_files(run, [run.store.audio_path(r) for r in run.store.rows("test")])
    np.testing.assert_allclose(found.shares, share, atol=1e-4)
    assert found.group == "component" and list(found.shares) == ["0", "1", "2", "3"]


def test_a_song_is_cut_like_those_of_the_collection_and_silence_left_out(tiny_runs, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.r_[tone(150, 30.0, seed=1), np.zeros(30 * RATE), tone(300, 30.0, seed=2)], RATE)
    each = embedding.embed_files(tiny_runs["vade"], [path], "segment")
    assert each.table["start"].tolist() == [0, 60] and each.table["seconds"].tolist() == [30, 30]
    whole = embedding.embed_files(tiny_runs["vade"], [path])
    assert whole.table.loc[0, ["start", "seconds", "segments"]].tolist() == [0, 90, 2] and not whole.failed
    np.testing.assert_allclose(whole.means[0], each.means.mean(0), atol=1e-6)
    # one cluster variable for all segments: the likelihoods multiply, the weight of the component counts once
    weights = tiny_runs["vade"].model.log_weights().detach().numpy()
    with np.errstate(divide="ignore"):
        joint = (np.log(each.shares.to_numpy()) - weights).sum(0) + weights
    expected = np.exp(joint - joint.max())
    np.testing.assert_allclose(whole.shares.loc[0], expected / expected.sum(), atol=1e-3)


def test_bad_files_are_named_and_the_others_go_on(tiny_runs, song, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("no sound")
    soundfile.write(tmp_path / "short.wav", tone(220, 0.1), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8 * RATE), RATE)
    files = [tmp_path / n for n in ("empty.wav", "text.mp3", "gone.wav", "short.wav", "silent.wav", ".", "x" * 300)]
    found = embedding.embed_files(tiny_runs["basic_vae"], [*files, song])
    assert found.table["file"].tolist() == [str(song)] and list(found.failed) == [str(f) for f in files]
    words = ["0 bytes", "cannot be decoded", "not there", "too short", "silent", "folder", "name"]
    for reason, word in zip(found.failed.values(), words, strict=True):
        assert word in reason and "\n" not in reason


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_nearest_songs_are_those_of_the_whole_collection(tiny_runs, song, metric):
    run = tiny_runs["basic_vae"]
    found = embedding.embed_files(run, [song])
    songs = embedding.more_like(run, found, 5, metric)[0]
    every = run.embed(None)
    if metric == "euclidean":
        distance = np.linalg.norm(every.means - found.means, axis=1)
    else:
        norms = np.linalg.norm(every.means, axis=1) * np.linalg.norm(found.means)
        distance = 1 - every.means @ found.means[0] / norms
    order = np.argsort(distance)[:5]
    assert songs.index.tolist() == every.rows[order].tolist()
    np.testing.assert_allclose(songs["distance"], distance[order], atol=1e-5)
    assert list(songs) == ["path", "language", "genre", "family", "distance"]


def test_a_file_of_the_collection_is_not_its_own_neighbour(tiny_runs, tmp_path):
    run = tiny_runs["conv_vae"]
    path = run.store.audio_path(run.store.rows()[0])
    link, copy = tmp_path / "link.flac", tmp_path / "copy.flac"
    link.symlink_to(path)
    copy.write_bytes(path.read_bytes())
    own, linked, copied = embedding.more_like(run, embedding.embed_files(run, [path, link, copy]), 3)
    name = run.store.table["path"].iloc[0]
    assert name not in [*own["path"], *linked["path"]] and own["path"].tolist() == linked["path"].tolist()
    assert copied["path"].iloc[0] == name and copied["distance"].iloc[0] < 1e-3


# --- written and printed ---


@pytest.fixture
def both(tiny_runs, song):
    """A run, a new song and one of the collection, and the two nearest songs of each."""
    run = tiny_runs["cvae"]
    found = embedding.embed_files(run, [song, run.store.audio_path(3)])
    return run, found, embedding.more_like(run, found, 2)


def test_csv_holds_codes_probabilities_and_neighbours(both, tmp_path, song):
    run, found, songs = both
    table = pd.read_csv(embedding.write(run, found, tmp_path / "new" / "out.csv", songs))
    assert table["file"].iloc[0] == str(song) and len(table) == 2
    np.testing.assert_allclose(table[[f"z{i}" for i in range(8)]], found.means, rtol=1e-6)
    np.testing.assert_allclose(table[["p_arabic", "p_bangla", "p_spanish"]], found.shares, rtol=1e-6)
    assert table["near_2"].tolist() == [n["path"].iloc[1] for n in songs]
    assert (table["near_1_distance"] <= table["near_2_distance"]).all()


def test_a_page_holds_a_map_and_the_sound_of_each_file_and_of_its_neighbours(both, tmp_path):
    run, found, songs = both
    page = embedding.write(run, found, tmp_path / "out.html", songs).read_text()
    assert page.count("<audio") == 2 * 3 and page.count('src="data:image/webp') == 2 and "http://" not in page
    assert "new song.flac" in page and songs[0]["path"].iloc[0] in page and "Likeliest" in page


@pytest.mark.parametrize("name", ["", "a.txt", "a"])
def test_an_output_that_cannot_be_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"give the name of a \.csv"):
        embedding.check_output(tmp_path / name)


def test_names_are_text_whatever_they_hold(tiny_runs, tmp_path):
    names = ["a\nb\x1b[31m.flac", "é 🎵 \u202ertl.flac", '=1+1,"q".flac']
    for name in names:
        soundfile.write(tmp_path / name, tone(220, 8.0), RATE, format="FLAC")
    run = tiny_runs["vade"]
    found = embedding.embed_files(run, [tmp_path / n for n in names])
    songs = embedding.more_like(run, found, 1)
    text = embedding.text_of(found, songs)
    assert not found.failed and len(text.splitlines()) == 2 * 3 and "\x1b" not in text and "\u202e" not in text
    assert "a\\nb\\x1b[31m.flac" in text and "🎵" in text
    assert embedding.named(os.fsdecode(b"\xff.flac")) == "\\xff.flac"  # no text can hold the byte
    table = pd.read_csv(embedding.write(run, found, tmp_path / "out.csv", songs))
    assert table["file"].tolist() == [f"{tmp_path}/{embedding.named(n)}" for n in names]


def test_a_terminal_shows_file_group_and_neighbours(both, song):
    _, found, songs = both
    lines = embedding.text_of(found, songs).splitlines()
    best = found.shares.loc[0].idxmax()
    assert lines[0].startswith(f"{song}  0:00.0–0:09.0  language {best} ({found.shares.loc[0].max():.0%})")
    assert len(lines) == 2 * 3 and f"{songs[0]['distance'].iloc[1]:.3f}  {songs[0]['path'].iloc[1]}" in lines[2]
