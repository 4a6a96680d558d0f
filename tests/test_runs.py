"""Planning, finding and opening runs, and what an opened run makes of its clips."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LANGUAGES, TINY, write_tones

from vaelib.config import InputError
from vaelib.models import MODELS
from vaelib.runs import find_runs, fit, latest_run, load_run, newest_of_each, plan
from vaelib.store import build_store, open_store

SMALL = {"latent": 8, "components": 4}
QUICK = {"epochs": 2, "batch_size": 10, "eval_windows": 3, "precision": "32-true"}


@pytest.fixture(scope="module")
def root(store, tmp_path_factory):
    """An outputs folder with a finished run of conv_vae (two seeds), cvae and vade, in this order."""
    folder = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_OUTPUTS", str(folder))
        settings = {"pretrain_epochs": 1}, {"seed": 1}, {}, {"condition": "language"}
        for age, (model, changes) in enumerate(zip(("vade", "conv_vae", "conv_vae", "cvae"), settings, strict=True)):
            run = fit(plan(store, model, prior="fixed", model_settings=SMALL, **QUICK | changes), store, show=False)
            os.utime(run.folder / "done.json", (1e9 + age, 1e9 + age))
    return folder


@pytest.fixture
def broken(root, tmp_path):
    """A copy of one finished run, to be broken."""
    return shutil.copytree(find_runs(root, model="conv_vae")[-1], tmp_path / "copy" / "run")


# --- planning ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "conv-vae"}, "unknown model 'conv-vae': did you mean 'conv_vae'"),
        ({"model": "cvae", "condition": "langage"}, "did you mean 'language'"),
        ({"model": "cvae"}, "unknown condition ''.*valid: language, genre"),
        ({"model": "vade", "condition": "genre"}, "takes no condition"),
        ({"model": "cvae", "condition": "genre", "prior": "fix"}, "did you mean 'fixed'"),
        ({"model": "vade", "model_settings": {"component": 4}}, "did you mean 'components'"),
        ({"model": "vade", "epoch": 4}, "did you mean 'epochs'"),
        ({"model": "vade", "epochs": 0}, "epochs must be positive"),
    ],
)
def test_a_wrong_plan_is_refused_with_the_near_name(store, arguments, message):
    with pytest.raises(InputError, match=message):
        plan(store, **arguments)


def test_a_plan_takes_sizes_classes_and_beta_from_store_and_model(store):
    betas = {m: plan(store, m, condition="genre" if m == "cvae" else "").training.beta for m in MODELS}
    assert betas == dict.fromkeys(MODELS, 1.0) | {"beta_vae": 4.0, "cvae": 4.0}
    config = plan(store, "cvae", condition="genre", beta=2.0, detilt=True)
    assert config.model.input_shape == (16, 16) and config.model.classes == tuple(store.classes("genre"))
    assert config.training.beta == 2.0 and config.detilt and config.corpus == "tones-tiny"
    blank = dataclasses.replace(store, table=store.table.assign(language="unlabelled"))
    with pytest.raises(InputError, match="has a language"):
        plan(blank, "cvae", condition="language")


# --- finding ---


def test_runs_are_found_newest_last(root):
    found = [load_run(f).name for f in find_runs(root)]
    assert found == ["vade", "conv_vae", "conv_vae", "cvae-language-fixed"]
    assert len(find_runs(root, model="conv_vae", seed=1)) == 1 and not find_runs(root, model="beta_vae")
    assert len(find_runs(root, model="conv_vae", seed=None)) == 2
    assert latest_run(root, model="conv_vae").config.training.seed == 0
    assert [r.name for r in newest_of_each(root)] == ["conv_vae", "conv_vae", "cvae-language-fixed", "vade"]
    with pytest.raises(InputError, match=r"no finished run with model beta_vae.*vaelib train --model beta_vae"):
        latest_run(root, model="beta_vae", seed=None)


def test_outputs_is_searched_by_default_and_strangers_are_left_out(root, monkeypatch, tmp_path):
    shutil.copytree(root, tmp_path / "outputs")
    for name, text in (("a", "{}"), ("b", "not json"), ("c", json.dumps({"config": {"corpse": 1}}))):
        (tmp_path / "outputs" / name).mkdir()
        (tmp_path / "outputs" / name / "config.json").write_text(text)
        (tmp_path / "outputs" / name / "done.json").write_text("{}")
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "outputs"))
    assert len(find_runs()) == 4


def test_the_newest_of_equal_runs_is_taken(root, tmp_path):
    shutil.copytree(root, tmp_path / "two")
    older = find_runs(tmp_path / "two", model="vade")[0]
    newer = shutil.copytree(older, older.with_name("again"))
    os.utime(newer / "done.json", (2e9, 2e9))
    assert [r.folder for r in newest_of_each(tmp_path / "two", model="vade")] == [newer]


# --- opening ---


def test_a_finished_run_has_all_its_files(root):
    folder = find_runs(root, model="cvae")[0]
    assert {p.name for p in folder.iterdir()} == {
        "config.json", "history.csv", "best.safetensors", "last.safetensors", "done.json"
    }  # fmt: skip
    run = load_run(folder)
    assert len(run.history) == 2 and run.summary["parameters"] == run.model.parameter_count()
    assert run.conditional and not run.model.training and run.config.model.classes == LANGUAGES
    assert {"torch", "python"} <= set(json.loads((folder / "config.json").read_text())["environment"])


def test_an_unfinished_or_missing_run_is_refused(broken, tmp_path):
    (broken / "done.json").unlink()
    with pytest.raises(InputError, match="is unfinished"):
        load_run(broken)
    with pytest.raises(InputError, match="is no run"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("best.safetensors", lambda b: b[:-100], "best.safetensors cannot be read"),
        ("config.json", lambda b: b[:-100], "config.json cannot be read"),
        ("config.json", lambda b: b.replace(b'"latent": 8', b'"latent": 9'), "of another shape"),
        ("config.json", lambda b: b.replace(b'"latent": 8', b'"latents": 8'), "did you mean 'latent'"),
        ("config.json", lambda b: b.replace(b"tones-tiny.zarr", b"gone.zarr"), "no mel store at"),
        ("config.json", lambda b: b.replace(b'"hop": 2048', b'"hop": 1024'), "made with front end"),
        ("done.json", lambda b: b[:10], "cannot be read"),
    ],
)
def test_a_damaged_run_is_a_sentence(broken, name, damage, message):
    before = (broken / name).read_bytes()
    (broken / name).write_bytes(damage(before))
    assert (broken / name).read_bytes() != before
    with pytest.raises(InputError, match=message):
        load_run(broken)


def test_a_run_whose_store_has_changed_is_refused(tmp_path, data, outputs):
    folder = write_tones(tmp_path / "mine", clips=3, languages=("en",))
    store = open_store(build_store(folder, TINY))
    run = fit(plan(store, "conv_vae", model_settings=SMALL, **QUICK), store, show=False)
    pd.read_csv(folder / "manifest.csv").iloc[1:].to_csv(folder / "manifest.csv", index=False)
    build_store(folder, TINY)
    with pytest.raises(InputError, match=r"mine-tiny.zarr has changed since"):
        load_run(run.folder)


# --- what an opened run makes of its clips ---


@pytest.fixture(scope="module")
def cvae(root):
    return latest_run(root, model="cvae")


def test_a_clip_is_the_mean_of_its_windows(root, store):
    run = latest_run(root, model="conv_vae")
    found = run.embed("test", batch_size=4)
    x = run.clips("test").even_windows(torch.arange(6), 3)
    with torch.inference_mode():
        q = run.model.encode(x.flatten(0, 1))
    assert np.allclose(found.means, q.mean.view(6, 3, 8).mean(1), atol=1e-5)
    assert np.allclose(found.logvars, q.logvar.exp().view(6, 3, 8).mean(1).log(), atol=1e-5)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.mean, (0.5 * q.logvar).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    assert np.allclose(found.kl, kl.mean(0), atol=1e-4) and found.labels == ""
    assert found.rows.tolist() == store.rows("test").tolist()
    assert run.labels("test", "language").tolist() == store.table.loc[found.rows, "language"].tolist()


def test_label_modes_of_a_conditional_run(cvae, store):
    given, inferred, marginal = (cvae.embed("test", mode) for mode in ("given", "inferred", "marginal"))
    assert (given.labels, inferred.labels, marginal.labels) == ("given", "inferred", "marginal")
    x = cvae.clips("test").even_windows(torch.arange(6), 3).flatten(0, 1)
    y = torch.from_numpy(store.codes("language", store.rows("test"))).repeat_interleave(3)
    with torch.inference_mode():
        logits = cvae.model.encode(x).class_logits
        for found, labels in ((given, y), (inferred, logits.argmax(1)), (marginal, logits.softmax(1))):
            assert np.allclose(found.means, cvae.model.encode(x, labels).mean.view(6, 3, 8).mean(1), atol=1e-5)
    assert not np.allclose(given.means, marginal.means)
    with pytest.raises(InputError, match="did you mean 'marginal'"):
        cvae.embed("test", "marginals")


def test_decoding_needs_a_class_where_there_is_one(cvae, root):
    z = np.zeros((3, 8))
    out = cvae.decode(z, np.arange(3))
    assert out.shape == (3, 16, 16) and not np.allclose(out[0], out[1])
    with pytest.raises(InputError, match=r"pass y, indices into .*arabic"):
        cvae.decode(z)
    assert latest_run(root, model="conv_vae").decode(z).shape == (3, 16, 16)


def test_reconstructions_are_of_the_middle_windows(cvae):
    originals, copies = cvae.reconstruct("test", most=5, batch_size=2)
    middle = cvae.clips("test").even_windows(torch.arange(5), 1)[:, 0, 0]
    assert np.array_equal(originals, middle) and copies.shape == originals.shape
    with torch.inference_mode():
        want = cvae.model(middle[:, None], sample=False).recon[:, 0]
    assert np.allclose(copies, want, atol=1e-5)
    mean, window, label = cvae.encode_clip(cvae.store.rows("test")[2])
    assert np.array_equal(window, originals[2]) and mean.shape == (8,) and label in range(3)
    assert np.allclose(cvae.decode(mean[None], [label])[0], copies[2], atol=1e-5)


def test_samples_are_seeded(cvae):
    one, two, other = (cvae.sample(4, [0, 1, 2, 0], seed=s) for s in (1, 1, 2))
    assert one.shape == (4, 16, 16) and np.array_equal(one, two) and not np.array_equal(one, other)


def test_responsibilities_of_clips_share_their_windows(root, cvae):
    run = latest_run(root, model="vade")
    found = run.responsibilities("test")
    assert found.shape == (6, 4) and np.allclose(found.sum(1), 1, atol=1e-5)
    x = run.clips("test").even_windows(torch.arange(6), 3).flatten(0, 1)
    with torch.inference_mode():
        likelihood = run.model.log_likelihoods(run.model.encode(x).mean).view(6, 3, 4).sum(1)
        want = torch.softmax(likelihood + run.model.log_weights(), 1)
    assert np.allclose(found, want, atol=1e-4)
    with pytest.raises(InputError, match="has no mixture"):
        cvae.responsibilities("test")


def test_a_track_is_all_of_its_segments(root):
    run = latest_run(root, model="vade")
    rows = run.store.rows("test")
    table = run.store.table.assign(track=run.store.table["path"])
    for first, second in (rows[[0, 3]], rows[[1, 2]]):
        table.loc[second, "track"] = table.loc[first, "path"]
    run.store = dataclasses.replace(run.store, table=table)
    segments, tracks = run.embed("test"), run.embed_tracks("test")
    parts = [[0, 3], [1, 2], [4], [5]]
    assert tracks.rows.tolist() == [rows[p[0]] for p in parts] == run.rows("test", tracks=True).tolist()
    assert np.allclose(tracks.means, [segments.means[p].mean(0) for p in parts], atol=1e-6)
    assert np.allclose(np.exp(tracks.logvars), [np.exp(segments.logvars[p]).mean(0) for p in parts], atol=1e-6)
    assert run.labels("test", "genre", tracks=True).tolist() == table.loc[tracks.rows, "genre"].tolist()
    found = run.responsibilities("test", tracks=True)
    x = run.clips("test").even_windows(torch.arange(6), 3)
    with torch.inference_mode():
        for share, p in zip(found, parts, strict=True):
            likelihood = run.model.log_likelihoods(run.model.encode(x[p].flatten(0, 1)).mean).sum(0)
            assert np.allclose(share, torch.softmax(likelihood + run.model.log_weights(), 0), atol=1e-4)
    assert run.embed_tracks("train").means.shape == run.embed("train").means.shape  # one segment each: nothing to do


def test_decibels_undo_the_scaling(cvae):
    row = cvae.store.rows("test")[0]
    x = cvae.store.spectrogram(row, cvae.scaler)
    db, inside = cvae.store.decibels([row])[0][:, : x.shape[1]], (x > 0) & (x < 1)
    assert np.abs(cvae.decibels(x) - db)[inside].max() < 0.05
