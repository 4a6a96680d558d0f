"""Several processes train as one would: same curve, same weights everywhere; and what ends them."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from vaelib import devices, training
from vaelib.config import InputError, outputs_dir
from vaelib.devices import TrainingStoppedError, launch
from vaelib.runs import fit, plan
from vaelib.training import TrainingDivergedError

# Sums over half a batch are rounded otherwise than over the whole: 1e-7 to 1e-5 was measured after 5 epochs.
TOLERANCE = 1e-3
QUICK = {"batch_size": 8, "eval_windows": 2, "precision": "32-true", "kl_warmup": 0.4, "epochs": 2}
SMALL = {"latent": 8, "components": 4}


def curves(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "history.csv")
    return table.drop(columns=["phase", "seconds", "clips_per_s"])


def assert_same_curve(one: Path, two: Path) -> None:
    a, b = curves(one), curves(two)
    assert a.columns.tolist() == b.columns.tolist() and len(a) == len(b)
    np.testing.assert_allclose(b, a, rtol=TOLERANCE)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """VaDE (both phases) and a conditional model: in one process, in two, in two with an interruption; then a death.

    Returns:
        The folder, the configurations, the lines that were told, and what came of the death.
    """
    folder = tmp_path_factory.mktemp("together")
    configs = {
        "cvae": plan(store, "cvae", condition="language", prior="learned", model_settings=SMALL, **QUICK),
        "vade": plan(store, "vade", pretrain_epochs=2, model_settings=SMALL, **QUICK),
    }
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config.to_dict()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_OUTPUTS", str(folder / "one"))
        for config in configs.values():
            training.train(config, store, show=False)
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        lines, log = [], folder / "failed.log"
        with pytest.raises(TrainingStoppedError) as stop:
            launch("together", [str(folder), str(store.path), *configs], 2, lines.append, (InputError,), log)
    return folder, configs, lines, str(stop.value)


@pytest.mark.parametrize("name", ["cvae", "vade"])
def test_two_processes_train_like_one(trained, name):
    folder, configs, *_ = trained
    run = configs[name].folder.relative_to(outputs_dir())
    assert_same_curve(folder / "one" / run, folder / "two" / run)
    done = json.loads((folder / "two" / run / "done.json").read_text())
    assert done["devices"] == 2 and len(list((folder / "two" / run).iterdir())) == 5


@pytest.mark.parametrize("name", ["cvae", "vade", "vade-resumed"])
def test_all_processes_end_with_the_same_weights(trained, name):
    folder, *_ = trained
    first, second = (torch.load(folder / f"{name}-{rank}.pt") for rank in range(2))
    assert first.keys() == second.keys() and all(torch.equal(v, second[k]) for k, v in first.items())


def test_a_resumed_run_of_two_processes_equals_an_uninterrupted_one(trained):
    folder, configs, *_ = trained
    whole, resumed = (torch.load(folder / f"{name}-0.pt") for name in ("vade", "vade-resumed"))
    assert all(torch.equal(v, resumed[k]) for k, v in whole.items())
    run = configs["vade"].folder.relative_to(outputs_dir())
    assert curves(folder / "two" / run).equals(curves(folder / "parts" / run))


def test_fit_on_two_devices_is_the_same_run(store, tmp_path, monkeypatch, capsys):
    config = plan(store, "conv_vae", model_settings=SMALL, **QUICK)
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "one"))
    one = fit(config, store, show=False)
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "two"))
    two = fit(config, store, devices=2)
    said = capsys.readouterr().err
    assert "training conv_vae on 2 devices: epoch 2/2" in said and "clips/s" in said
    assert two.folder.name == one.folder.name and (one.summary["devices"], two.summary["devices"]) == (1, 2)
    assert_same_curve(one.folder, two.folder)
    for k, v in one.model.state_dict().items():
        assert torch.allclose(v, two.model.state_dict()[k], atol=1e-4), k
    monkeypatch.setattr("vaelib.runs.launch", lambda *args: pytest.fail("a finished run was started again"))
    assert fit(config, store, devices=2).folder == two.folder


def test_a_process_that_dies_ends_the_others_with_one_sentence(trained):
    folder, _, lines, said = trained
    assert sorted(lines) == ["process 0 is done", "process 1 is done"]
    assert said.startswith("training on 2 devices stopped, process 1 was killed by SIGKILL") and "\n" not in said
    assert "SIGKILL" in (folder / "failed.log").read_text()


# --- what is refused ---


@pytest.mark.parametrize(
    ("count", "batch", "message"),
    [
        (0, 8, "devices must be at least 1, not 0"),
        (2, 9, "a step of 9 clips cannot be shared equally by 2 devices"),
        (4, 4, "two clips or more each"),
        (4, 64, "devices is 4, but 3 GPUs are there"),
    ],
)
def test_devices_that_cannot_share_a_batch_are_refused(monkeypatch, count, batch, message):
    if "GPU" in message:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(InputError, match=message):
        devices.check_devices(count, batch)
    devices.check_devices(1, 9)


def test_a_small_store_makes_the_batch(store, outputs):
    config = plan(store, "conv_vae", **QUICK | {"batch_size": 64})  # 24 clips
    with pytest.raises(InputError, match="a step of 24 clips cannot be shared equally by 5 devices"):
        fit(config, store, devices=5)
    assert not outputs.exists()


# --- what processes say of themselves ---


def failure(tmp_path, failed, last_words=""):
    return devices._failure(2, failed, (InputError, TrainingDivergedError), last_words, tmp_path / "failed.log")


def test_what_one_process_would_have_raised_is_raised(tmp_path):
    lost = {"error": "RuntimeError", "message": "Connection closed by peer", "process": 1}
    diverged = {"error": "TrainingDivergedError", "message": "nll became non-finite", "process": 0}
    found = failure(tmp_path, [lost, diverged])
    assert type(found) is TrainingDivergedError and str(found) == "nll became non-finite"
    assert not (tmp_path / "failed.log").exists()


@pytest.mark.parametrize(
    ("failed", "message"),
    [
        ([{"error": "OSError", "message": "disk full", "process": 0}], "process 0 failed with OSError: disk full"),
        ([], "the processes could not be started"),
    ],
)
def test_any_other_failure_is_named_and_kept(tmp_path, failed, message):
    found = failure(tmp_path, failed, "Traceback")
    assert type(found) is TrainingStoppedError and message in str(found)
    assert (tmp_path / "failed.log").read_text() == "Traceback"


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `python -m vaelib.training ARGS` in this process; returns exit code, stdout and stderr."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["training", *map(str, args)])
        try:
            training.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def test_a_run_is_trained_from_its_config(store, outputs, command):
    config = plan(store, "conv_vae", model_settings=SMALL, **QUICK)
    path = training.write_config(config, store)
    code, printed, said = command(path)
    assert code == 0 and printed.strip() == str(config.folder) and "epoch 2/2" in said
    (config.folder / "done.json").unlink()
    code, printed, said = command(path, "--lines")
    lines = [json.loads(line) for line in printed.splitlines()]
    assert code == 0 and not said and not lines  # all epochs were there
    for name in ("last", "best"):
        os.remove(config.folder / f"{name}.safetensors")
    (config.folder / "done.json").unlink()
    lines = [json.loads(line) for line in command(path, "--lines")[1].splitlines()]
    assert ["epoch 1/2" in lines[0]["line"], "epoch 2/2" in lines[1]["line"], len(lines)] == [True, True, 2]


def test_a_config_that_is_none_is_one_sentence(store, outputs, command, tmp_path):
    path = training.write_config(plan(store, "conv_vae", **QUICK), store)
    other = tmp_path / "other.json"
    other.write_text(path.read_text().replace(f'"{training.code_version()}"', '"another"'))
    for arguments, message in (
        ((other,), "another version"),
        ((tmp_path / "none.json",), "is no config.json of a run"),
    ):
        code, printed, said = command(*arguments)
        assert code == 2 and message in said and not printed and len(said.strip().splitlines()) == 1
    code, printed, _ = command(other, "--lines")
    assert code == 2 and json.loads(printed)["error"] == "InputError"
