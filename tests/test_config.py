"""Settings: refused keys and values, identities of runs, atomic files."""

import dataclasses
import os

import pytest
from conftest import TINY, model_config

from vaelib import config
from vaelib.config import InputError, RunConfig, TrainConfig


def run_config(**changes) -> RunConfig:
    settings = {"corpus": "tones-tiny", "fingerprint": "f00d", "front_end": TINY, "model": model_config("cvae")}
    return RunConfig(**settings | changes)


BAD = [(k, {k: 0}) for k in ("epochs", "batch_size", "eval_windows", "lr", "grad_clip")]
BAD += [(k, {k: -1}) for k in ("beta", "weight_decay", "seed", "sigma")]
BAD += [("lr must be float", {"lr": None}), ("epochs must be int", {"epochs": "many"}), ("lr", {"lr": float("nan")})]
BAD += [("batch_size", {"batch_size": 1}), ("kl_warmup", {"kl_warmup": 1.0}), ("did you mean 'epochs'", {"epoch": 1})]
BAD_SIZES = [("did you mean 'fixed'", {"prior": "fixd"}), ("did you mean 'conv'", {"backbone": "cnv"})]
BAD_SIZES += [("latent", {"latent": 0}), ("dropout", {"dropout": 1.0}), ("prior_distance", {"prior_distance": -1.0})]


@pytest.mark.parametrize(("named", "values"), [*BAD, *BAD_SIZES])
def test_bad_values_are_refused_by_name(named, values):
    with pytest.raises(InputError, match=named):
        TrainConfig.from_dict(values) if (named, values) in BAD else model_config("cvae", **values)


def test_run_id_changes_with_every_setting_and_with_nothing_else(outputs):
    base = run_config()
    assert base.run_id == run_config().run_id and base.folder.parent == outputs / "tones-tiny"
    assert base.variant == "cvae-language-standard-b1" and run_config(detilt=True).variant == base.variant + "-detilt"
    changes = {"training": TrainConfig(lr=2e-3), "model": dataclasses.replace(base.model, latent=9), "code": "other"}
    changes |= {"fingerprint": "beef", "front_end": dataclasses.replace(TINY, hop=1024)}
    assert len({base.run_id, *(run_config(**{k: v}).run_id for k, v in changes.items())}) == 6


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
