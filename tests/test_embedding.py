"""New files embedded like those of the store, the nearest clips, and files that cannot be used."""

import os
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from conftest import RATE, TINY, tone

from vaelib import embedding
from vaelib.config import InputError
from vaelib.runs import fit, plan
from vaelib.store import build_store, open_store

QUICK = {"epochs": 1, "batch_size": 12, "seed": 77, "precision": "32-true"}
MODELS = {
    "basic_vae": {},
    "conv_vae": {"detilt": True},
    "vade": {"pretrain_epochs": 1},
    "cvae": {"condition": "language", "prior": "fixed"},
}


@pytest.fixture(scope="module")
def runs(store, folders):
    """A run of a model, trained when it is first asked for."""
    made = {}

    def run(name):
        if name not in made:
            small = {"latent": 8, "components": 4}
            made[name] = fit(plan(store, name, model_settings=small, **QUICK | MODELS[name]), store, show=False)
        return made[name]

    return run


@pytest.fixture
def song(tmp_path):
    """A file that is not of the collection."""
    path = tmp_path / "new song.flac"
    soundfile.write(path, tone(150, 9.0, seed=99), RATE)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_a_file_of_the_store_lies_where_the_store_has_it(runs, name):
    run = runs(name)
    every = run.embed(None)
    pick = [0, 7, 20, 35]
    found = embedding.embed_files(run, [run.store.audio_path(r) for r in every.rows[pick]])
    assert not found.failed and np.ptp(every.means, 0).max() > 1e-3
    np.testing.assert_allclose(found.means, every.means[pick], atol=1e-5)


def test_of_a_store_from_the_start_only_the_first_window_of_a_file_counts(corpus, data, outputs):
    store = open_store(build_store(corpus, TINY, windows="start"))
    run = fit(plan(store, "basic_vae", model_settings={"latent": 8}, **QUICK), store, show=False)
    every = run.embed(None)
    found = embedding.embed_files(run, [store.audio_path(r) for r in every.rows[:3]])
    np.testing.assert_allclose(found.means, every.means[:3], atol=1e-5)
    first = torch.from_numpy(store.spectrogram(every.rows[0], run.scaler)[None, None, :, : TINY.frames])
    with torch.inference_mode():
        np.testing.assert_allclose(every.means[0], run.model.encode(first.half().float()).mean[0], atol=1e-4)


def test_components_are_those_of_the_run(runs):
    run = runs("vade")
    rows, share = run.store.rows("test"), run.responsibilities("test")
    found = embedding.embed_files(run, [run.store.audio_path(r) for r in rows])
    np.testing.assert_allclose(found.shares, share, atol=1e-4)
    assert found.group == "component" and found.groups == ("0", "1", "2", "3")


def test_classes_are_inferred_from_every_window(runs, song):
    run = runs("cvae")
    found = embedding.embed_files(run, [song])
    assert found.group == "language" and found.groups == run.config.model.classes
    assert found.shares.shape == (1, 3) and found.shares.sum() == pytest.approx(1, abs=1e-5)
    rows = run.store.rows("test")
    inside = embedding.embed_files(run, [run.store.audio_path(rows[0])])

    x = run.clips("test").even_windows(torch.tensor([0]), run.config.training.eval_windows)[0]
    with torch.inference_mode():
        expected = run.model.encode(x).class_logits.softmax(1).mean(0)
    np.testing.assert_allclose(inside.shares[0], expected, atol=1e-5)


def test_a_long_file_is_the_mean_of_its_segments(runs, song, monkeypatch):
    run, parts = runs("vade"), [tone(110, 8.0), tone(330, 8.0), tone(500, 8.0)]

    def cut(file, run):
        for i, part in enumerate(parts):
            yield 8.0 * i, 8.0, torch.from_numpy(part)

    monkeypatch.setattr(embedding, "_segments", cut)
    whole, each = (embedding.embed_files(run, [song], per) for per in ("file", "segment"))
    assert len(whole) == 1 and len(each) == 3
    assert each.table["start"].tolist() == [0, 8, 16] and whole.table.loc[0, "segments"] == 3
    assert whole.table.loc[0, "seconds"] == 24
    np.testing.assert_allclose(whole.means[0], each.means.mean(0), atol=1e-6)
    # one cluster variable for all: the likelihoods multiply, the weight of the component counts once
    weights = run.model.log_weights().detach().numpy()
    with np.errstate(divide="ignore"):
        joint = (np.log(each.shares) - weights).sum(0) + weights
    expected = np.exp(joint - joint.max())
    np.testing.assert_allclose(whole.shares[0], expected / expected.sum(), atol=1e-3)


def test_a_song_is_cut_like_those_of_the_collection(runs, tmp_path):
    path, quiet = tmp_path / "long.wav", np.zeros(31 * RATE)
    soundfile.write(path, np.r_[tone(150, 40.0, seed=1), quiet, tone(300, 40.0, seed=2)], RATE)
    each = embedding.embed_files(runs("basic_vae"), [path], "segment")
    assert each.table["start"].tolist() == [0, 30, 60, 81] and each.table["seconds"].tolist() == [30] * 4
    soundfile.write(path, np.r_[tone(150, 30.0, seed=1), np.zeros(30 * RATE), tone(300, 30.0, seed=2)], RATE)
    whole = embedding.embed_files(runs("basic_vae"), [path])  # the silent segment is left out
    assert whole.table.loc[0, ["start", "seconds", "segments"]].tolist() == [0, 90, 2] and not whole.failed


def test_bad_files_are_named_and_the_others_go_on(runs, song, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("no sound")
    soundfile.write(tmp_path / "short.wav", tone(220, 0.1), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8 * RATE), RATE)
    files = [tmp_path / n for n in ("empty.wav", "text.mp3", "gone.wav", "short.wav", "silent.wav", ".", "x" * 300)]
    found = embedding.embed_files(runs("basic_vae"), [*files, song])
    assert found.table["file"].tolist() == [str(song)] and list(found.failed) == [str(f) for f in files]
    for reason, says in zip(
        found.failed.values(), ["0 bytes", "cannot be decoded", "not there", "too short", "silent", "folder", "name"],
        strict=True,
    ):  # fmt: skip
        assert says in reason and "\n" not in reason


def test_nothing_usable_is_an_empty_table(runs, tmp_path):
    found = embedding.embed_files(runs("vade"), [tmp_path / "gone.wav"])
    assert len(found) == 0 and found.means.shape == (0, 8) and found.shares.shape == (0, 4)


# --- more like this ---


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_nearest_clips_are_those_of_the_whole_collection(runs, song, metric):
    run = runs("basic_vae")
    found = embedding.embed_files(run, [song])
    near = embedding.more_like(run, found, 5, metric)[0]
    every = run.embed(None)
    if metric == "euclidean":
        far = np.linalg.norm(every.means - found.means, axis=1)
    else:
        far = 1 - every.means @ found.means[0] / np.linalg.norm(every.means, axis=1) / np.linalg.norm(found.means)
    order = np.argsort(far)[:5]
    assert near["path"].tolist() == run.store.table.loc[every.rows[order], "path"].tolist()
    np.testing.assert_allclose(near["distance"], far[order], atol=1e-5)
    assert list(near) == ["path", "language", "genre", "family", "distance"]


def test_a_file_of_the_collection_is_not_its_own_neighbour(runs, tmp_path):
    run = runs("conv_vae")
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
def both(runs, song):
    run = runs("cvae")
    found = embedding.embed_files(run, [song, run.store.audio_path(3)])
    return found, embedding.more_like(run, found, 2)


def test_csv_holds_codes_probabilities_and_neighbours(both, tmp_path, song):
    found, near = both
    table = pd.read_csv(embedding.write(found, tmp_path / "new" / "out.csv", near))
    assert table["file"].iloc[0] == str(song) and len(table) == 2
    np.testing.assert_allclose(table[[f"z{i}" for i in range(8)]], found.means, rtol=1e-6)
    np.testing.assert_allclose(table[["p_arabic", "p_bangla", "p_spanish"]], found.shares, rtol=1e-6)
    assert table["near_2"].tolist() == [n["path"][1] for n in near]
    assert (table["near_1_distance"] <= table["near_2_distance"]).all()


def test_npz_loads_without_pickle(both, tmp_path):
    found, near = both
    with np.load(embedding.write(found, tmp_path / "out.npz", near), allow_pickle=False) as kept:
        np.testing.assert_array_equal(kept["means"], found.means)
        np.testing.assert_array_equal(kept["shares"], found.shares)
        assert kept["groups"].tolist() == list(found.groups) and kept["group"] == "language"
        assert kept["near"].shape == kept["near_distance"].shape == (2, 2)
        assert kept["files"][0] == found.table["file"][0]


def test_parquet_without_its_library_is_said_before_work(both, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        embedding.check_output(tmp_path / "out.parquet")
    assert not list(tmp_path.glob("*.parquet"))


def test_parquet_is_the_same_table(both, tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet is written where pyarrow is installed")
    found, near = both
    pd.testing.assert_frame_equal(
        pd.read_parquet(embedding.write(found, tmp_path / "out.parquet", near)), embedding.frame_of(found, near)
    )


@pytest.mark.parametrize(("name", "says"), [("", "is a folder"), ("a.txt", "end it in .csv"), ("a", "ends in nothing")])
def test_an_output_that_cannot_be_is_refused(tmp_path, name, says):
    with pytest.raises(InputError, match=says):
        embedding.check_output(tmp_path / name)


def test_a_full_disk_leaves_the_old_file(both, tmp_path, monkeypatch):
    path = tmp_path / "out.csv"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        embedding.write(*both[:1], path)
    monkeypatch.undo()
    assert path.read_text() == "old" and list(tmp_path.glob("*.partial")) == list(tmp_path.glob(".*.partial")) == []


def test_names_are_text_whatever_they_hold(runs, tmp_path):
    names = ["a\nb\x1b[31m.flac", "é 🎵 \u202ertl.flac", '=1+1,"q".flac']
    for name in names:
        soundfile.write(tmp_path / name, tone(220, 8.0), RATE, format="FLAC")
    run = runs("vade")
    found = embedding.embed_files(run, [tmp_path / n for n in names])
    near = embedding.more_like(run, found, 1)
    text = embedding.text_of(found, near)
    assert not found.failed and len(text.splitlines()) == 1 + 2 * 3 and "\x1b" not in text and "\u202e" not in text
    assert "a\\nb\\x1b[31m.flac" in text and "🎵" in text
    assert embedding.named(os.fsdecode(b"\xff.flac")) == "\\xff.flac"  # no text can hold the byte
    table = pd.read_csv(embedding.write(found, tmp_path / "out.csv", near))
    assert table["file"].tolist() == [f"{tmp_path}/{embedding.named(n)}" for n in names]


def test_a_terminal_shows_file_group_and_neighbours(both):
    found, near = both
    lines = embedding.text_of(found, near).splitlines()
    assert lines[0].split() == ["file", "heard", "language"] and len(lines) == 1 + 2 * 3
    best = found.groups[found.shares[0].argmax()]
    assert f"{best} ({found.shares[0].max():.0%})" in lines[1] and "0:00.0–0:09.0" in lines[1]
    assert lines[1].index(best) == lines[0].index("language")
    for k, path in enumerate(near[0]["path"]):
        assert f"{near[0]['distance'][k]:.3f}  {path}" in lines[2 + k] and lines[2 + k].startswith("  ")
    assert len(embedding.text_of(found, []).splitlines()) == 3


# --- the command ---


@pytest.fixture
def embed(runs, monkeypatch, capsys):
    """Runs `vaelib embed ARGS` with a run's folder; returns exit code, stdout and stderr."""
    from vaelib import cli

    def command(*args, model="vade"):
        monkeypatch.setattr(sys, "argv", ["vaelib", "embed", *map(str, args), "--run", str(runs(model).folder)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return stop.value.code, printed.out, printed.err

    return command


def test_the_command_prints_a_table(embed, runs, song):
    code, out, err = embed(song)
    assert code == 0 and runs("vade").name in out and song.name in out and "component" in out and not err
    assert len(out.strip().splitlines()) == 1 + 1 + 2 + 3  # run, empty line, table, three nearest clips
    assert len(embed(song, "--like", "10", "--metric", "cosine")[1].strip().splitlines()) == 1 + 1 + 2 + 10
    assert "nearest" not in embed(song, "--like", "0")[1]


def test_one_bad_file_does_not_hold_up_the_others(embed, song, tmp_path):
    out = tmp_path / "out.csv"
    code, printed, err = embed(song, tmp_path / "gone.flac", "--output", out, "--per", "segment")
    assert code == 1 and str(out) in printed and len(pd.read_csv(out)) == 1
    assert f"vaelib: {tmp_path}/gone.flac is not there" in err


def test_no_usable_file_is_exit_code_2(embed, tmp_path):
    out = tmp_path / "out.csv"
    code, printed, err = embed(tmp_path / "gone.flac", "--output", out)
    assert code == 2 and len(err.strip().splitlines()) == 1 and "is not there" in err and not printed
    code, printed, err = embed(tmp_path / "gone.flac", tmp_path, "--output", out)
    assert code == 2 and "none of the 2 files could be used" in err and "is a folder" in err and not out.exists()
