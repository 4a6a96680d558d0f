"""The loop: resume, repeat, divergence, best epoch, warm-up, history, streaming, bad checkpoints."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import model_config

from vaelib import losses, training
from vaelib.checkpoints import read_tensors, write_tensors
from vaelib.config import DEFAULT_BETA, InputError, RunConfig, TrainConfig
from vaelib.models import MODELS, build
from vaelib.runs import plan
from vaelib.training import Trainer, TrainingDivergedError, train

pytestmark = pytest.mark.usefixtures("outputs")
CLOCKS = ["seconds", "clips_per_s"]


def settings(store, model: str, *, epochs=5, latent=8, condition="language", **changes) -> RunConfig:
    changes = {"batch_size": 10, "eval_windows": 2, "precision": "32-true", "kl_warmup": 0.4} | changes
    changes |= {"pretrain_epochs": changes.get("pretrain_epochs", 3 if model == "vade" else 0)}
    small = {"latent": latent, "components": 4}
    condition = condition if model == "cvae" else ""
    return plan(store, model, condition=condition, model_settings=small, epochs=epochs, **changes)


def results(folder):
    """Everything a run leaves that is not a clock."""
    tensors, state = read_tensors(folder / "last.safetensors")
    best, about = read_tensors(folder / "best.safetensors")
    state["history"] = [{k: v for k, v in row.items() if k not in CLOCKS} for row in state["history"]]
    table = pd.read_csv(folder / "history.csv").drop(columns=CLOCKS)
    return {f"last.{k}": v for k, v in tensors.items()} | {f"best.{k}": v for k, v in best.items()}, state, about, table


def assert_equal(one, two):
    (a, *rest_a, table_a), (b, *rest_b, table_b) = one, two
    assert a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())
    assert rest_a == rest_b
    pd.testing.assert_frame_equal(table_a, table_b, check_exact=True)


@pytest.fixture
def stop_at(monkeypatch):
    """Raise KeyboardInterrupt in the middle of an epoch; every whole epoch was saved."""

    def arrange(epoch, step=1):
        real = Trainer._step

        def dying(self, x, *rest):
            self.steps = getattr(self, "steps", {})
            self.steps[self.state.epoch] = self.steps.get(self.state.epoch, 0) + 1
            if self.state.epoch == epoch and self.steps[epoch] > step:
                raise KeyboardInterrupt
            return real(self, x, *rest)

        monkeypatch.setattr(training, "SAVE_EVERY_S", -1.0)
        monkeypatch.setattr(Trainer, "_step", dying)
        return lambda: monkeypatch.setattr(Trainer, "_step", real)

    return arrange


@pytest.mark.parametrize(
    ("model", "epoch", "changes"),
    [
        ("basic_vae", 2, {}),
        ("conv_vae", 1, {}),
        ("conv_vae", 4, {"precision": "bf16-mixed"}),
        ("cvae", 3, {"epochs": 4}),
        ("vade", 2, {}),  # while pretraining
        ("vade", 3, {}),  # in the first joint epoch: the mixture is made again
        ("vade", 5, {}),  # later in the joint phase
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(store, monkeypatch, tmp_path, stop_at, model, epoch, changes):
    config = settings(store, model, **changes)
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "whole"))
    whole = results(train(config, store, show=False))
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "parts"))
    revive = stop_at(epoch)
    with pytest.raises(KeyboardInterrupt):
        train(config, store, show=False)
    assert not (config.folder / "done.json").exists()
    assert read_tensors(config.folder / "last.safetensors")[1]["epoch"] == epoch
    revive()
    done, real = [], Trainer._epoch
    monkeypatch.setattr(Trainer, "_epoch", lambda self, e: done.append(e) or real(self, e))
    resumed = results(train(config, store, show=False))
    assert done == list(range(epoch, config.training.total_epochs))
    assert_equal(resumed, whole)
    train(config, store, show=False)
    assert done[-1] == config.training.total_epochs - 1 == len(resumed[-1]) - 1  # a finished run does nothing


@pytest.mark.parametrize("model", ["basic_vae", "cvae", "vade"])
def test_same_seed_same_run_other_seed_other_run(store, monkeypatch, tmp_path, model):
    found = []
    for i, seed in enumerate((1, 1, 2)):
        monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / str(i)))
        torch.manual_seed(i)  # what happened before must not matter
        found.append(results(train(settings(store, model, epochs=2, seed=seed), store, show=False)))
    assert_equal(found[0], found[1])
    name = "best.heads.mean.weight"
    assert not torch.equal(found[0][0][name], found[2][0][name])


# --- where a run starts ---


def test_the_plain_run_of_the_same_settings_is_the_pretraining(store, monkeypatch, tmp_path):
    config = settings(store, "vade", epochs=2)
    alone = results(train(config, store, show=False))
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "other"))
    plain = settings(store, "conv_vae", epochs=3)
    assert training.pretraining_of(config) == dataclasses.replace(
        plain, model=dataclasses.replace(plain.model, components=50)
    )
    train(training.pretraining_of(config), store, show=False)
    said, done, real = [], [], Trainer._epoch
    monkeypatch.setattr(Trainer, "_epoch", lambda self, e: done.append(e) or real(self, e))
    taken = results(train(config, store, show=said.append))
    assert done == [3, 4] and said[0] == f"the pretraining is the finished run {training.pretraining_of(config).run_id}"
    other = "pretrained"
    assert taken[1].pop(other) == training.pretraining_of(config).run_id and alone[1].pop(other) == ""
    assert_equal(taken, alone)


def test_windows_that_are_all_the_first_have_no_other(store, monkeypatch):
    monkeypatch.setitem(store.attrs, "windows", "start")
    with pytest.raises(InputError, match="no other one"):
        train(settings(store, "conv_vae", target="other"), store, show=False)


def test_a_plain_run_of_other_settings_is_told_and_not_taken(store):
    config = settings(store, "vade", epochs=1)
    wanted = training.pretraining_of(config)
    other = dataclasses.replace(wanted, training=dataclasses.replace(wanted.training, lr=3e-3))
    train(other, store, show=False)
    said = []
    folder = train(config, store, show=said.append)
    assert "pretraining here" in said[0] and other.run_id in said[0] and "lr 0.003, here 0.001" in said[0]
    assert json.loads((folder / "done.json").read_text())["pretrained"] == ""


def test_a_run_may_start_on_components_and_is_resumed_there(store, monkeypatch, tmp_path, stop_at):
    config = settings(store, "beta_vae", start_components=2, held=0.5, sigma=0.2)
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "whole"))
    whole = results(train(config, store, show=False))
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "parts"))
    revive = stop_at(2)
    with pytest.raises(KeyboardInterrupt):
        train(config, store, show=False)
    held, _ = read_tensors(config.folder / "last.safetensors")
    revive()
    assert_equal(results(train(config, store, show=False)), whole)
    after, _ = read_tensors(config.folder / "last.safetensors")
    assert not torch.equal(held["model.heads.mean.weight"], after["model.heads.mean.weight"])
    assert after["model.log_sigma"].exp().item() == pytest.approx(0.2)


def test_training_learns(store):
    config = settings(store, "conv_vae", epochs=25, lr=3e-3)
    table = pd.read_csv(train(config, store, show=False) / "history.csv")
    trainer = Trainer(config, store, show=False)
    x = trainer.data.validation.even_windows(torch.arange(6), 1).squeeze(1)
    mean = trainer.data.train.even_windows(torch.arange(24), 3).flatten(0, 1).mean(0)
    blind = float((x - mean).square().mean())  # the mean spectrogram's
    assert table["validation_mse"].iloc[-1] < 0.8 * blind
    assert table["validation_loss"].iloc[-1] < table["validation_loss"].iloc[4]
    # σ is on its way to √MSE
    assert abs(math.log(table["sigma"].iloc[-1] ** 2 / table["train_mse"].iloc[-1])) < 1


# --- schedules ---


@pytest.fixture(scope="module")
def histories(store, tmp_path_factory):
    """History of every model: 5 epochs, VaDE's before 2 joint ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_OUTPUTS", str(tmp_path_factory.mktemp("all")))
        phases = {m: {"epochs": 2, "pretrain_epochs": 5} if m == "vade" else {} for m in MODELS}
        folders = {m: train(settings(store, m, **phases[m]), store, show=False) for m in MODELS}
        return {m: pd.read_csv(folder / "history.csv") for m, folder in folders.items()}


def test_every_model_has_the_same_kl_warmup(histories):
    for name, table in histories.items():
        beta = DEFAULT_BETA.get(name, 1.0)
        first = table[table["phase"] == "vae"]
        assert (first["kl_weight"] / beta).tolist() == pytest.approx([0.5, 1, 1, 1, 1]), name
    assert histories["vade"]["kl_weight"].tolist()[5:] == [1, 1]


def test_history_has_every_term_of_every_epoch(histories):
    terms = {name: ["nll", "kl"] for name in MODELS}
    terms["cvae"] += ["class"]
    terms["vade"] += ["kl_z", "kl_c"]
    for name, table in histories.items():
        measured = [f"{split}_{t}" for split in ("train", "validation") for t in ("loss", *terms[name], "mse")]
        assert {*measured, "epoch", "phase", "kl_weight", "sigma", *CLOCKS} == set(table.columns), name
        assert table["epoch"].tolist() == list(range(1, len(table) + 1))
        numbers = table[[c for c in measured if c.split("_", 1)[1] not in ("kl", "kl_z", "kl_c")]]
        assert np.isfinite(numbers.to_numpy(float)).all() and (table[CLOCKS] > 0).all(axis=None)
    joint = histories["vade"]["phase"] == "joint"
    assert joint.tolist() == [False] * 5 + [True] * 2
    assert histories["vade"]["train_kl"].notna().tolist() == (~joint).tolist()
    assert histories["vade"]["train_kl_z"].notna().tolist() == joint.tolist()


@pytest.mark.parametrize("model", list(MODELS))
def test_validation_loss_is_the_negative_bound_at_the_final_beta(histories, model):
    row = histories[model].iloc[0]
    beta = DEFAULT_BETA.get(model, 1.0)
    want = row["validation_nll"] + beta * row["validation_kl"]
    want += TrainConfig().class_weight * row.get("validation_class", 0.0)
    assert row["validation_loss"] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "sequence", "best"),
    [
        ("conv_vae", [1, 9, 5, 3, 4], 4),  # epoch 1 lies before the end of the warm-up
        ("beta_vae", [1, 2, 9, 9, 9], 2),
        ("vade", [1, 1, 1, 7, 6, 8], 5),  # pretraining's losses are of another bound
        ("conv_vae", [5, 4, math.nan, 3, math.inf], 4),
    ],
)
def test_the_best_epoch_is_chosen_after_warmup(store, monkeypatch, model, sequence, best):
    config = settings(store, model, epochs=3 if model == "vade" else 5)
    weights, losses_left = {}, iter(sequence)

    def validate(self, mixture):
        weights[self.state.epoch + 1] = {k: v.clone() for k, v in self.model.state_dict().items()}
        return {"loss": next(losses_left)}

    monkeypatch.setattr(Trainer, "_validate", validate)
    folder = train(config, store, show=False)
    tensors, about = read_tensors(folder / "best.safetensors")
    assert about["epoch"] == best == json.loads((folder / "done.json").read_text())["best_epoch"]
    assert all(torch.equal(v, weights[best][k]) for k, v in tensors.items())


def test_a_resumed_run_remembers_its_best_epoch(store, monkeypatch, stop_at):
    sequence, config = [9, 8, 1, 5, 5], settings(store, "conv_vae")
    monkeypatch.setattr(Trainer, "_validate", lambda self, _: {"loss": sequence[self.state.epoch]})
    folder = interrupted(config, store, stop_at, epoch=4)
    before = read_tensors(folder / "best.safetensors")[0]
    train(config, store, show=False)
    tensors, about = read_tensors(folder / "best.safetensors")
    assert about["epoch"] == 3 and all(torch.equal(v, before[k]) for k, v in tensors.items())


def test_without_validation_clips_the_last_epoch_is_the_best(store):
    few = dataclasses.replace(store, table=store.table[store.table["split"] != "validation"])
    folder = train(settings(store, "conv_vae", epochs=3), few, show=False)
    assert read_tensors(folder / "best.safetensors")[1]["epoch"] == 3


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("term", "function", "value"), [("kl", "gaussian_kl", math.nan), ("nll", "gaussian_nll", math.inf)]
)
@pytest.mark.parametrize("saved", [True, False])
def test_divergence_names_term_and_epoch_and_keeps_the_last_good_checkpoint(
    store, monkeypatch, term, function, value, saved
):
    config = settings(store, "conv_vae", epochs=6)
    real, steps = getattr(losses, function), Trainer._step

    def poisoned(self, *args):
        if self.state.epoch == 3:
            monkeypatch.setattr(losses, function, lambda *a: real(*a) * value)
        return steps(self, *args)

    monkeypatch.setattr(Trainer, "_step", poisoned)
    monkeypatch.setattr(training, "SAVE_EVERY_S", -1.0 if saved else 1e9)
    with pytest.raises(
        TrainingDivergedError, match=f"stopped: {term} became non-finite in epoch 4, step 1; .*checkpoint"
    ):
        train(config, store, show=False)
    tensors, about = read_tensors(config.folder / "best.safetensors")
    assert about["epoch"] in (2, 3) and all(v.isfinite().all() for v in tensors.values())
    assert not (config.folder / "done.json").exists()
    assert pd.read_csv(config.folder / "history.csv")["epoch"].tolist() == [1, 2, 3]
    if saved:
        last, state = read_tensors(config.folder / "last.safetensors")
        assert state["epoch"] == 3 and all(v.isfinite().all() for v in last.values())


def test_divergence_in_the_first_epoch_promises_no_checkpoint(store, monkeypatch):
    monkeypatch.setattr(losses, "gaussian_kl", lambda q, m: q.mean * math.nan)
    config = settings(store, "conv_vae")
    with pytest.raises(
        TrainingDivergedError, match="kl became non-finite in epoch 1, step 1; no checkpoint was reached"
    ):
        train(config, store, show=False)
    assert not list(config.folder.glob("*.safetensors"))


def interrupted(config, store, stop_at, epoch=2):
    revive = stop_at(epoch)
    with pytest.raises(KeyboardInterrupt):
        train(config, store, show=False)
    revive()
    return config.folder


@pytest.mark.parametrize("name", ["last.safetensors", "best.safetensors"])
def test_a_damaged_checkpoint_is_refused(store, stop_at, name):
    config = settings(store, "conv_vae")
    path = interrupted(config, store, stop_at) / name
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        train(config, store, show=False)
    assert train(config, store, resume=False, show=False) and (config.folder / "done.json").is_file()


def test_a_checkpoint_of_another_shape_is_refused(store, stop_at):
    config = settings(store, "conv_vae")
    folder = interrupted(config, store, stop_at)
    other = build(model_config("conv_vae", latent=9)).state_dict()
    state = {"epoch": 1, "best_epoch": 1, "best_loss": 1.0, "history": [{}], "pretrained": ""}
    write_tensors(folder / "last.safetensors", {f"model.{k}": v for k, v in other.items()}, state)
    with pytest.raises(InputError, match="of another shape"):
        train(config, store, show=False)


def test_a_store_of_another_corpus_or_too_small_is_refused(store):
    config = settings(store, "conv_vae")
    with pytest.raises(InputError, match="is not the one this run was configured for"):
        train(dataclasses.replace(config, fingerprint="other"), store)
    one = dataclasses.replace(store, table=store.table[store.table.index == store.rows("train")[0]])
    with pytest.raises(InputError, match="has 1 training clips"):
        train(config, one)


# --- data ---


@pytest.mark.parametrize("model", ["basic_vae", "cvae", "vade"])
def test_a_store_that_does_not_fit_is_streamed(store, monkeypatch, model):
    monkeypatch.setattr("vaelib.windows._free_memory", lambda: 1)
    config = settings(store, model, epochs=3)
    assert isinstance(Trainer(config, store, show=False).data.train, training.StreamedClips)
    table = pd.read_csv(train(config, store, show=False) / "history.csv")
    assert len(table) == config.training.total_epochs and np.isfinite(table["train_loss"]).all()
    assert table["train_mse"].iloc[-1] < table["train_mse"].iloc[0]


def test_labels_follow_the_shuffled_clips(store):
    trainer = Trainer(settings(store, "cvae"), store, show=False)
    for per_clip, mixture in ((1, False), (2, True)):
        for (_, y), index in zip(trainer._batches(mixture), shuffled(trainer, per_clip), strict=True):
            names = [store.classes("language")[i] for i in y]
            rows = store.rows("train")[index.repeat_interleave(per_clip)]
            assert names == store.table.loc[rows, "language"].tolist()


def shuffled(trainer, per_clip):
    """The clip numbers of the next pass, with the generator put back."""
    state = torch.get_rng_state()
    found = [index for _, index in trainer.data.train.batches(10, per_clip)]
    torch.set_rng_state(state)
    return found


def test_unlabelled_clips_are_trained_on_too(store):
    language = store.table["language"].where(store.table.index % 3 > 0, "unlabelled")
    partly = dataclasses.replace(store, table=store.table.assign(language=language))
    config = settings(partly, "cvae", epochs=2)
    assert config.model.classes == ("arabic", "bangla", "spanish")
    table = pd.read_csv(train(config, partly, show=False) / "history.csv")
    assert np.isfinite(table[["train_loss", "validation_loss", "train_class"]]).all(axis=None)


def test_one_line_of_progress(store, capsys):
    train(settings(store, "cvae", epochs=2), store)
    line = capsys.readouterr().err.strip().split("\r")[-1]
    assert "epoch 2/2" in line and "clips/s" in line and "left" in line
    assert all(f" {term} " in line for term in ("loss", "nll", "kl", "class"))
