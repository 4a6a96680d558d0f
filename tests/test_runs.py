"""Planning, finding and opening runs, and what an opened run makes of its clips."""

import contextlib
import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

from vaelib.config import InputError
from vaelib.models import MODELS, build
from vaelib.runs import find_runs, latest_run, newest_of_each, open_run, plan


@pytest.fixture
def root(tiny_runs) -> Path:
    """The outputs folder of the tiny runs."""
    return tiny_runs["conv_vae"].folder.parents[1]


@pytest.fixture
def copied(root, tmp_path, monkeypatch) -> Path:
    """A copy of it, to be changed, as the outputs folder."""
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "outputs"))
    return shutil.copytree(root, tmp_path / "outputs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "conv-vae"}, "unknown model 'conv-vae': did you mean 'conv_vae'"),
        ({"model": "cvae", "condition": "langage"}, "did you mean 'language'"),
        ({"model": "cvae"}, "unknown condition ''.*valid: language, genre"),
        ({"model": "vade", "condition": "genre"}, "takes no condition"),
        ({"model": "vade", "component": 4}, "did you mean 'components'"),
        ({"model": "vade", "settings": "sigma"}, "name=value"),
        ({"model": "vade", "settings": "sigma=x"}, "must be float"),
        ({"model": "conv_vae", "start_components": 200}, "there are 128 latent dimensions"),
    ],
)
def test_a_wrong_plan_is_refused(store, arguments, message):
    with pytest.raises(InputError, match=message):
        plan(store, **arguments)


def test_further_settings_of_a_plan_come_last(store):
    found = plan(store, "conv_vae", epochs=3, settings="latent=8 sigma=0.2 start_components=2")
    assert (found.model.latent, found.training.sigma, found.training.epochs) == (8, 0.2, 3)
    assert found.variant == "conv_vae-sigma0.2-components"


def test_a_plan_takes_sizes_classes_and_beta_from_store_and_model(store):
    betas = {m: plan(store, m, condition="genre" if m == "cvae" else "").training.beta for m in MODELS}
    assert betas == dict.fromkeys(MODELS, 1.0) | {"beta_vae": 4.0, "cvae": 4.0}
    config = plan(store, "cvae", condition="genre", beta=2.0, detilt=True)
    assert config.model.input_shape == (16, 16) and config.model.classes == tuple(store.classes("genre"))
    assert config.training.beta == 2.0 and config.detilt and config.corpus == "tones-tiny"
    blank = dataclasses.replace(store, table=store.table.assign(language="unlabelled"))
    with pytest.raises(InputError, match="has a language"):
        plan(blank, "cvae", condition="language")


def test_runs_are_found_newest_last(root, tiny_runs):
    assert [open_run(f).name for f in find_runs(root)] == [r.name for r in tiny_runs.values()]
    assert len(find_runs(root, model="conv_vae", seed=1)) == 1 and not find_runs(root, model="beta_vae", beta=1.0)
    assert len(find_runs(root, model="vade", epochs=1)) == 1  # of its first phase
    assert latest_run(root, model="conv_vae").config.training.seed == 1
    newest = newest_of_each(root)
    assert [r.config.model.name for r in newest] == ["basic_vae", "conv_vae", "conv_vae", "beta_vae", "cvae", "vade"]
    assert [r.name for r in newest_of_each(root, among=[tiny_runs["vade"].folder])] == ["vade"]
    with pytest.raises(InputError, match="no finished run with model cvae, seed 9"):
        latest_run(root, model="cvae", seed=9)


def test_strangers_and_damaged_runs_are_left_out(copied):
    for name, text in (("a", "{}"), ("b", "not json"), ("c", json.dumps({"config": {"corpse": 1}}))):
        (copied / name).mkdir()
        (copied / name / "config.json").write_text(text)
        (copied / name / "done.json").write_text("{}")
    assert len(find_runs()) == 6
    older = find_runs(model="vade")[0]
    newer = shutil.copytree(older, older.with_name("again"))
    os.utime(newer / "done.json", (2e9, 2e9))
    assert [r.folder for r in newest_of_each(model="vade")] == [newer]
    (newer / "best.safetensors").unlink()
    with pytest.warns(UserWarning, match="left out: checkpoint"):
        assert [r.folder for r in newest_of_each(model="vade")] == [older]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("done.json", None, "holds no finished run"),
        ("done.json", lambda b: b[:10], "holds no finished run"),
        ("best.safetensors", lambda b: b[:-100], "best.safetensors cannot be read"),
        ("config.json", lambda b: b[:-100], "holds no finished run"),
        ("config.json", lambda b: b.replace(b'"latent": 8', b'"latent": 9'), "size mismatch"),
        ("config.json", lambda b: b.replace(b'"latent": 8', b'"latents": 8'), "did you mean 'latent'"),
        ("config.json", lambda b: b.replace(b"tones-tiny.zarr", b"gone.zarr"), "no mel store at"),
        ("config.json", lambda b: b.replace(b'"hop": 2048', b'"hop": 1024'), "has changed since"),
        ("config.json", lambda b: b.replace(b'"fingerprint": "', b'"fingerprint": "0'), "has changed since"),
    ],
)
def test_a_damaged_run_is_a_sentence(copied, name, damage, message):
    folder = find_runs(model="conv_vae")[0]
    before = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage:
        (folder / name).write_bytes(damage(before))
        assert (folder / name).read_bytes() != before
    with pytest.raises(InputError, match=message):
        open_run(folder)


@given(data=st.data())
def test_a_run_with_any_damage_opens_or_is_refused(tiny_runs, tmp_path, data):
    folder = shutil.copytree(tiny_runs["vade"].folder, tmp_path / "run", dirs_exist_ok=True)
    path = folder / data.draw(st.sampled_from(["config.json", "done.json", "best.safetensors"]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, min(len(content), 4000) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content) if data.draw(st.booleans()) else b"\x80\x04" + bytes(content)[2:])
    with contextlib.suppress(InputError):
        open_run(folder)


def test_a_clip_is_the_mean_of_its_windows(tiny_runs, store):
    run = tiny_runs["conv_vae"]
    found, x = run.embed("test"), run.clips("test").even_windows(torch.arange(6), 3)
    with torch.inference_mode():
        q = run.model.encode(x.flatten(0, 1))
    assert np.allclose(found.means, q.mean.view(6, 3, 8).mean(1), atol=1e-5)
    assert np.allclose(found.logvars, q.logvar.exp().view(6, 3, 8).mean(1).log(), atol=1e-5)
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(q.mean, (0.5 * q.logvar).exp()), normal(0.0, 1.0))
    assert np.allclose(found.kl, kl.mean(0), atol=1e-4)
    assert found.rows.tolist() == store.rows("test").tolist() and not run.model.training
    every = run.embed(None)
    assert len(every.means) == 36 and np.allclose(every.means[np.isin(every.rows, found.rows)], found.means, atol=1e-5)
    assert run.labels("test", "language").tolist() == store.table.loc[found.rows, "language"].tolist()


def test_label_modes_of_a_conditional_run(tiny_runs, store):
    run = tiny_runs["cvae"]
    x = run.clips("test").even_windows(torch.arange(6), 3).flatten(0, 1)
    y = torch.from_numpy(store.codes("language", store.rows("test"))).repeat_interleave(3)
    with torch.inference_mode():
        logits = run.model.encode(x).class_logits
        for mode, labels in (("given", y), ("inferred", logits.argmax(1)), ("marginal", logits.softmax(1))):
            want = run.model.encode(x, labels).mean.view(6, 3, 8).mean(1)
            assert np.allclose(run.embed("test", mode).means, want, atol=1e-5)
    with pytest.raises(InputError, match="did you mean 'marginal'"):
        run.embed("test", "marginals")
    with pytest.raises(InputError, match=r"pass y, indices into .*arabic"):
        run.decode(np.zeros((3, 8)))


@pytest.mark.parametrize("name", ["basic_vae", "cvae"])
def test_reconstructions_are_of_the_middle_windows(tiny_runs, name):
    run = tiny_runs[name]
    originals, copies = run.reconstruct("test")
    assert np.array_equal(originals, run.middle_windows(run.rows("test")))
    with torch.inference_mode():
        want = run.model(torch.from_numpy(originals)[:, None], draw=torch.zeros_like).recon[:, 0]
    assert np.allclose(copies, want, atol=1e-5)
    mean, window, label = run.encode_clip(run.rows("test")[2])
    assert np.array_equal(window, originals[2])
    assert np.allclose(run.decode(mean[None], [label] if run.conditional else None)[0], copies[2], atol=1e-5)


def test_a_track_is_all_of_its_segments(tiny_runs):
    run = open_run(tiny_runs["vade"].folder)
    rows = run.store.rows("test")
    table = run.store.table.assign(track=run.store.table["path"])
    for first, second in (rows[[0, 3]], rows[[1, 2]]):
        table.loc[second, "track"] = table.loc[first, "path"]
    run.store = dataclasses.replace(run.store, table=table)
    segments, tracks, parts = run.embed("test"), run.embed_tracks("test"), [[0, 3], [1, 2], [4], [5]]
    assert tracks.rows.tolist() == [rows[p[0]] for p in parts] == run.rows("test", tracks=True).tolist()
    assert np.allclose(tracks.means, [segments.means[p].mean(0) for p in parts], atol=1e-6)
    assert np.allclose(np.exp(tracks.logvars), [np.exp(segments.logvars[p]).mean(0) for p in parts], atol=1e-6)
    x = run.clips("test").even_windows(torch.arange(6), 3)
    for which, groups in ((True, parts), (False, [[i] for i in range(6)])):
        found = run.log_responsibilities("test", tracks=which)
        with torch.inference_mode():
            for share, p in zip(found, groups, strict=True):
                z = run.model.encode(x[p].flatten(0, 1)).mean
                assert np.allclose(share, run.model.responsibilities(z, len(z))[0], atol=1e-4)
    with pytest.raises(InputError, match="has no mixture"):
        tiny_runs["conv_vae"].log_responsibilities("test")


@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_encodes_and_decodes_where_there_is_one(tiny_runs, name, monkeypatch):
    run = dataclasses.replace(tiny_runs[name])
    codes, clips = run.embed("test").means, run.clips("test")
    y = np.zeros(len(codes), int) if run.conditional else None
    monkeypatch.setattr(type(clips), "distinct", lambda clips, windows: windows)
    monkeypatch.setattr(torch.Tensor, "numpy", lambda t: (t.device, tuple(t.shape)))
    with FakeTensorMode(allow_non_fake_inputs=True):  # follows devices and shapes, and refuses to mix devices
        with torch.device("cuda"):
            run._fast = build(run.config.model).eval()
        for labels in ("given", "inferred", "marginal"):
            q = run.posteriors(clips, 2, labels)
            assert q.mean.device == torch.device("cpu") and q.mean.shape == (len(codes), 2, 8)
        assert run.decode(codes, y) == (torch.device("cpu"), (len(codes), *run.config.model.input_shape))
