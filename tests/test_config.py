"""Settings: JSON round trip, refused keys and values, identities of runs, atomic files."""

import dataclasses
import json
import os

import pytest
from conftest import TINY, model_config

from vaelib import config
from vaelib.config import COMPACT, FULL, FrontEnd, InputError, ModelConfig, RunConfig, TrainConfig


def run_config(**changes) -> RunConfig:
    settings = {"corpus": "tones-tiny", "fingerprint": "f00d", "front_end": TINY, "model": model_config("cvae")}
    return RunConfig(**settings | changes)


@pytest.mark.parametrize("value", [COMPACT, FULL, model_config("cvae"), TrainConfig(beta=4.0), run_config()])
def test_json_round_trip(value):
    again = type(value).from_dict(json.loads(json.dumps(value.to_dict())))
    assert again == value and hash(again) == hash(value)


@pytest.mark.parametrize(
    ("cls", "key", "near"),
    [(TrainConfig, "epoch", "epochs"), (ModelConfig, "latents", "latent"), (FrontEnd, "hops", "hop")],
)
def test_unknown_key_is_refused_with_the_nearest_name(cls, key, near):
    with pytest.raises(InputError, match=f"{key}.*did you mean '{near}'"):
        cls.from_dict({key: 1})


@pytest.mark.parametrize("values", [{"epochs": "many"}, {"lr": None}])
def test_value_of_a_wrong_type_is_a_sentence(values):
    with pytest.raises(InputError, match=r"TrainConfig: (epochs|lr) must be"):
        TrainConfig.from_dict(values)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        *[(lambda k=k: TrainConfig(**{k: 0}), k) for k in ("epochs", "batch_size", "eval_windows", "lr", "grad_clip")],
        *[(lambda k=k: TrainConfig(**{k: -1}), k) for k in ("beta", "pretrain_epochs", "weight_decay", "seed")],
        (lambda: TrainConfig(lr=float("nan")), "lr"),
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
    changed = [
        run_config(training=TrainConfig(lr=2e-3)),
        run_config(model=dataclasses.replace(base.model, latent=9)),
        run_config(fingerprint="beef"),
        run_config(code="other"),
        run_config(front_end=dataclasses.replace(TINY, hop=1024)),
    ]
    assert len({c.run_id for c in [base, *changed]}) == 6


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    for name, folder in (
        ("DATA", config.data_dir),
        ("OUTPUTS", config.outputs_dir),
        ("PAPERMILL", config.papermill_dir),
    ):
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
