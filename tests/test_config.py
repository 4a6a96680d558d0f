"""Settings: JSON round trip, refused keys and values, identities of runs, atomic files."""

import dataclasses
import json
import os

import pytest
from conftest import TINY, model_config

from vaelib import config
from vaelib.config import COMPACT, FULL, InputError, RunConfig, TrainConfig, read_settings


def run_config(**changes) -> RunConfig:
    settings = {"corpus": "tones-tiny", "fingerprint": "f00d", "front_end": TINY, "model": model_config("cvae")}
    return RunConfig(**settings | changes)


@pytest.mark.parametrize("value", [COMPACT, FULL, model_config("cvae"), TrainConfig(beta=4.0), run_config()])
def test_json_round_trip(value):
    again = type(value).from_dict(json.loads(json.dumps(value.to_dict())))
    assert again == value and hash(again) == hash(value)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        *[(lambda k=k: TrainConfig(**{k: 0}), k) for k in ("epochs", "batch_size", "eval_windows", "lr", "grad_clip")],
        *[(lambda k=k: TrainConfig(**{k: -1}), k) for k in ("beta", "pretrain_epochs", "weight_decay", "seed")],
        (lambda: TrainConfig(lr=float("nan")), "lr"),
        (lambda: TrainConfig.from_dict({"epochs": "many"}), "TrainConfig: epochs must be int"),
        (lambda: TrainConfig.from_dict({"lr": None}), "TrainConfig: lr must be float"),
        (lambda: TrainConfig.from_dict({"epoch": 1}), "epoch.*did you mean 'epochs'"),
        (lambda: TrainConfig(batch_size=1), "batch_size"),
        (lambda: TrainConfig(kl_warmup=1.0), "kl_warmup"),
        (lambda: model_config("cvae", prior="fixd"), "did you mean 'fixed'"),
        (lambda: model_config("vade", backbone="cnv"), "did you mean 'conv'"),
        (lambda: model_config("conv_vae", latent=0), "latent"),
        (lambda: model_config("basic_vae", dropout=1.0), "dropout"),
        (lambda: model_config("cvae", prior_distance=-1.0), "prior_distance"),
        (lambda: config.front_end("compat"), "did you mean 'compact'"),
    ],
)
def test_bad_values_are_refused_by_name(make, named):
    with pytest.raises(InputError, match=named):
        make()


def test_run_id_changes_with_every_setting_and_with_nothing_else(outputs):
    base = run_config()
    assert base.run_id == run_config().run_id and base.folder.parent == outputs / "tones-tiny"
    assert base.variant == "cvae-language-standard-b1" and run_config(detilt=True).variant == base.variant + "-detilt"
    changes = {"training": TrainConfig(lr=2e-3), "model": dataclasses.replace(base.model, latent=9), "code": "other"}
    changes |= {"fingerprint": "beef", "front_end": dataclasses.replace(TINY, hop=1024)}
    assert len({base.run_id, *(run_config(**{k: v}).run_id for k, v in changes.items())}) == 6


def test_further_settings_are_words():
    assert read_settings("latent=9 backbone=fc sigma=0.2") == ({"latent": 9, "backbone": "fc"}, {"sigma": 0.2})
    for bad in ("sigma", "sgma=1"):
        with pytest.raises(InputError, match="sigma"):
            read_settings(bad)


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    folders = {"DATA": config.data_dir, "OUTPUTS": config.outputs_dir, "PAPERMILL": config.papermill_dir}
    for name, folder in folders.items():
        monkeypatch.setenv(f"VAELIB_{name}", str(tmp_path / name))
        assert folder() == tmp_path / name
        monkeypatch.delenv(f"VAELIB_{name}")
        assert folder().parent == config.ROOT


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = config.write_atomic(tmp_path / "new" / "file.json", "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        config.write_atomic(path, "half")
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_only_changed_code_changes_the_version(tmp_path, monkeypatch):
    def version(text: str) -> str:
        (tmp_path / "audio.py").write_text(text)
        config.code_version.cache_clear()
        return config.code_version(("audio",))

    monkeypatch.setattr(config, "__file__", str(tmp_path / "config.py"))
    first = version("def f(x):\n    return x + 1\n")
    assert version('"""Words."""\n\ndef f(x):\n    """More."""\n\n    return (x + 1)  # why\n') == first
    assert version("def f(x):\n    return x + 2\n") != first
    config.code_version.cache_clear()
