"""New files embedded like those of the store, the nearest songs, and files that cannot be used."""

import os

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import RATE, tone

from vaelib import embedding


def codes_of(table):
    """(row, L) codes of new files."""
    return table.filter(regex=embedding.CODES).to_numpy(np.float32)


@pytest.fixture
def song(tmp_path):
    """A file that is not of the collection."""
    path = tmp_path / "new song.flac"
    soundfile.write(path, tone(150, 9.0, seed=99), RATE)
    return path


@pytest.mark.parametrize("name", ["basic_vae", "conv_vae", "vade", "cvae"])
def test_a_file_of_the_store_lies_where_the_store_has_it(tiny_runs, name):
    run = tiny_runs[name]
    every, pick = run.embed(None), [0, 7, 20, 35]
    table, failed = embedding.embed_files(run, [run.store.audio_path(r) for r in every.rows[pick]])
    assert not failed and np.ptp(every.means, 0).max() > 1e-3
    np.testing.assert_allclose(codes_of(table), every.means[pick], atol=1e-5)
    assert table.filter(regex="^p_").shape[1] == {"vade": 4, "cvae": 3}.get(name, 0)
    if name == "vade":
        shares = np.exp(run.log_responsibilities(None))[pick]
        np.testing.assert_allclose(table.filter(regex="^p_"), shares, atol=1e-4)


def test_a_song_is_cut_like_those_of_the_collection_and_silence_left_out(tiny_runs, tmp_path):
    path, run = tmp_path / "long.wav", tiny_runs["vade"]
    soundfile.write(path, np.r_[tone(150, 30.0, seed=1), np.zeros(30 * RATE), tone(300, 30.0, seed=2)], RATE)
    each, _ = embedding.embed_files(run, [path], "segment")
    assert each["start"].tolist() == [0, 60] and each["seconds"].tolist() == [30, 30]
    whole, failed = embedding.embed_files(run, [path])
    assert whole.loc[0, ["start", "seconds", "segments"]].tolist() == [0, 90, 2] and not failed
    np.testing.assert_allclose(codes_of(whole)[0], codes_of(each).mean(0), atol=1e-6)
    # one cluster variable for all segments: the likelihoods multiply, the weight of the component counts once
    weights = run.model.log_weights().detach().numpy()
    with np.errstate(divide="ignore"):
        joint = (np.log(each.filter(regex="^p_").to_numpy()) - weights).sum(0) + weights
    expected = np.exp(joint - joint.max())
    np.testing.assert_allclose(whole.filter(regex="^p_").loc[0], expected / expected.sum(), atol=1e-3)


def test_bad_files_are_named_and_the_others_go_on(tiny_runs, song, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("no sound")
    soundfile.write(tmp_path / "short.wav", tone(220, 0.1), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8 * RATE), RATE)
    files = [tmp_path / n for n in ("empty.wav", "text.mp3", "gone.wav", "short.wav", "silent.wav", ".", "x" * 300)]
    table, failed = embedding.embed_files(tiny_runs["basic_vae"], [*files, song])
    assert table["file"].tolist() == [str(song)] and list(failed) == [str(f) for f in files]
    words = ["0 bytes", "cannot be decoded", "no file", "too short", "silent", "no file", "name"]
    for reason, word in zip(failed.values(), words, strict=True):
        assert word in reason and "\n" not in reason


def test_the_nearest_songs_are_those_of_the_whole_collection(tiny_runs, song):
    run = tiny_runs["basic_vae"]
    table, _ = embedding.embed_files(run, [song])
    songs, every, code = embedding.more_like(run, table, 5, "cosine")[0], run.embed(None), codes_of(table)[0]
    distance = 1 - every.means @ code / np.linalg.norm(every.means, axis=1) / np.linalg.norm(code)
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
    own, linked, copied = embedding.more_like(run, embedding.embed_files(run, [path, link, copy])[0], 3)
    name = run.store.table["path"].iloc[0]
    assert name not in [*own["path"], *linked["path"]] and own["path"].tolist() == linked["path"].tolist()
    assert copied["path"].iloc[0] == name and copied["distance"].iloc[0] < 1e-3


# --- written and printed ---


@pytest.fixture
def both(tiny_runs, song):
    """A run, the table of a new song and one of the collection, and the two nearest songs of each."""
    run = tiny_runs["cvae"]
    table, _ = embedding.embed_files(run, [song, run.store.audio_path(3)])
    return run, table, embedding.more_like(run, table, 2)


@pytest.mark.parametrize(("ending", "read"), [(".csv", pd.read_csv), (".parquet", pd.read_parquet)])
def test_a_table_holds_codes_probabilities_and_neighbours(both, tmp_path, song, ending, read):
    run, table, songs = both
    written = read(embedding.write(run, table, tmp_path / "new" / f"out{ending}", songs))
    assert written["file"].iloc[0] == str(song) and len(written) == 2
    columns = [*(f"z{i}" for i in range(8)), "p_arabic", "p_bangla", "p_spanish"]
    np.testing.assert_allclose(written[columns], table[columns], rtol=1e-6)
    assert written["near_2"].tolist() == [n["path"].iloc[1] for n in songs]
    assert (written["near_1_distance"] <= written["near_2_distance"]).all()
    alone = read(embedding.write(run, table, tmp_path / f"alone{ending}", embedding.more_like(run, table, 0)))
    assert list(alone) == list(table)


def test_a_page_and_a_terminal_show_files_classes_and_neighbours(both, song, tmp_path):
    run, table, songs = both
    page = embedding.write(run, table, tmp_path / "out.html", songs).read_text()
    assert page.count("<audio") == 2 * 3 and page.count('src="data:image/webp') == 2 and "http://" not in page
    assert "new song.flac" in page and songs[0]["path"].iloc[0] in page and "Likeliest: language" in page
    lines, shares = embedding.text_of(run, table, songs).splitlines(), table.filter(regex="^p_").loc[0]
    best = f"language {shares.idxmax().removeprefix('p_')} ({shares.max():.0%})"
    assert lines[0].startswith(f"{song}  0.0–9.0 s  {best}") and len(lines) == 2 * 3
    assert f"{songs[0]['distance'].iloc[1]:.3f}  {songs[0]['path'].iloc[1]}" in lines[2]


def test_names_are_text_whatever_they_hold(tiny_runs, tmp_path):
    names, run = ["a\nb\x1b[31m.flac", "é 🎵 \u202ertl.flac", '=1+1,"q".flac'], tiny_runs["vade"]
    for name in names:
        soundfile.write(tmp_path / name, tone(220, 8.0), RATE, format="FLAC")
    table, failed = embedding.embed_files(run, [tmp_path / n for n in names])
    songs = embedding.more_like(run, table, 1)
    text = embedding.text_of(run, table, songs)
    assert not failed and len(text.splitlines()) == 2 * 3 and "\x1b" not in text and "\u202e" not in text
    assert "a\\nb\\x1b[31m.flac" in text and "🎵" in text
    assert embedding.named(os.fsdecode(b"\xff.flac")) == "\\xff.flac"  # no text can hold the byte
    written = pd.read_csv(embedding.write(run, table, tmp_path / "out.csv", songs))
    assert written["file"].tolist() == [f"{tmp_path}/{embedding.named(n)}" for n in names]
