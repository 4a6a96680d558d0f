"""The step and the loop: resume and kills, repeats, several devices, starts, divergence, checkpoints."""

import dataclasses
import json
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import LANGUAGES, ROOT, model_config
from safetensors.torch import load_file
from torch.multiprocessing import ProcessExitedException
from torch.overrides import TorchFunctionMode

from vaelib import losses, training
from vaelib.config import DEFAULT_BETA, InputError, RunConfig, TrainConfig
from vaelib.losses import weights_at
from vaelib.models import MODELS, build
from vaelib.optimization import Recording, Stepper, init_mixture, make_fabric, resolve_precision, start_on_components
from vaelib.runs import plan
from vaelib.training import Trainer, TrainingDivergedError, environment, read_checkpoint, train
from vaelib.windows import Clips

pytestmark = pytest.mark.usefixtures("outputs")
CLOCKS = ["seconds", "clips_per_s"]


def settings(store, model: str, *, epochs=5, **changes) -> RunConfig:
    changes = {"batch_size": 8, "eval_windows": 2, "precision": "32-true", "kl_warmup": 0.4} | changes
    changes |= {"pretrain_epochs": changes.get("pretrain_epochs", 3 if model == "vade" else 0)}
    condition = "language" if model == "cvae" else ""
    small = {"latent": 8, "components": 4}
    return plan(store, model, condition=condition, **small, epochs=epochs, **changes)


def results(config):
    """Everything a run leaves that is not a clock."""
    model, folder = build(config.model), config.folder
    (tensors, state), (best, about) = (read_checkpoint(folder / f"{n}.safetensors", model) for n in ("last", "best"))
    state["history"] = [{k: v for k, v in row.items() if k not in CLOCKS} for row in state["history"]]
    table = pd.read_csv(folder / "history.csv").drop(columns=CLOCKS)
    return {f"last.{k}": v for k, v in tensors.items()} | {f"best.{k}": v for k, v in best.items()}, state, about, table


def trained(config, store):
    train(config, store, show=False)
    return results(config)


def assert_equal(one, two):
    (a, *rest_a, table_a), (b, *rest_b, table_b) = one, two
    assert a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())
    assert rest_a == rest_b
    pd.testing.assert_frame_equal(table_a, table_b, check_exact=True)


@pytest.fixture
def interrupt(store, monkeypatch):
    """Train, interrupted in the second step of an epoch, every whole epoch having been saved."""

    def stop(config, epoch):
        real, steps = Stepper.__call__, []

        def dying(self, *given):
            steps.append(1)
            if len(steps) == 3 * epoch + 2:  # 24 clips in steps of 8
                raise KeyboardInterrupt
            return real(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(training, "SAVE_EVERY_S", -1.0)
            patch.setattr(Stepper, "__call__", dying)
            with pytest.raises(KeyboardInterrupt, match="continues"):
                train(config, store, show=False)
        assert not (config.folder / "done.json").exists()
        return config

    return stop


@pytest.mark.parametrize(
    ("model", "epoch", "changes"),
    [
        ("basic_vae", 2, {}),
        ("conv_vae", 4, {"precision": "bf16-mixed"}),
        ("beta_vae", 2, {"start_components": 2, "held": 0.5, "sigma": 0.2}),
        ("cvae", 3, {}),
        ("vade", 2, {}),  # while pretraining
        ("vade", 3, {}),  # in the first joint epoch: the mixture is made again
        ("vade", 5, {}),  # later in the joint phase
    ],
)
def test_an_interrupted_run_continues_to_the_same_bit(store, monkeypatch, tmp_path, interrupt, model, epoch, changes):
    config = settings(store, model, **changes)
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "whole"))
    whole = trained(config, store)
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "parts"))
    interrupt(config, epoch)
    done, real = [], Trainer._epoch
    monkeypatch.setattr(Trainer, "_epoch", lambda self, e: done.append(e) or real(self, e))
    assert_equal(trained(config, store), whole)
    assert done == list(range(epoch, config.training.total_epochs))
    train(config, store, show=False)
    assert len(done) == config.training.total_epochs - epoch  # a finished run does nothing


@pytest.mark.slow
def test_a_killed_run_is_continued_to_the_same_bit(store, monkeypatch, tmp_path):
    config = settings(store, "vade", epochs=40)
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "whole"))
    whole = trained(config, store)
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "parts"))
    script = f"""
import json, sys
from vaelib import training
from vaelib.config import RunConfig
from vaelib.store import open_store
training.SAVE_EVERY_S = -1.0
training.train(RunConfig.from_dict(json.loads(sys.argv[1])), open_store({str(store.path)!r}), show=False)"""
    last, hits = config.folder / "last.safetensors", 0
    for _ in range(3):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", script, json.dumps(config.to_dict())], cwd=ROOT)
        while process.poll() is None and not (last.exists() and last.stat().st_mtime_ns > before):
            time.sleep(0.002)
        time.sleep(0.05)
        hits += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert hits and not (config.folder / "done.json").exists()
    assert_equal(trained(config, store), whole)


@pytest.mark.parametrize("model", ["basic_vae", "cvae"])
def test_same_seed_same_run_other_seed_other_run(store, monkeypatch, tmp_path, model):
    found = []
    for i, seed in enumerate((1, 1, 2)):
        monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / str(i)))
        torch.manual_seed(i)  # what happened before must not matter
        found.append(trained(settings(store, model, epochs=2, seed=seed), store))
    assert_equal(found[0], found[1])
    name = "best.heads.mean.weight"
    assert not torch.equal(found[0][0][name], found[2][0][name])


def test_the_plain_run_of_the_same_settings_is_the_pretraining(store, monkeypatch, tmp_path):
    config = settings(store, "vade", epochs=2)
    alone = trained(config, store)
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "other"))
    plain = training.pretraining_of(config)
    train(plain, store, show=False)
    messages, done, real = [], [], Trainer._epoch
    monkeypatch.setattr(Trainer, "_epoch", lambda self, e: done.append(e) or real(self, e))
    Trainer(config, store, messages.append).run()
    taken = results(config)
    assert done == [3, 4] and messages[0] == f"the pretraining is the finished run {plain.run_id}"
    assert taken[1].pop("pretrained") == plain.run_id and alone[1].pop("pretrained") == ""
    assert_equal(taken, alone)


@pytest.mark.parametrize("model", ["conv_vae", pytest.param("vade", marks=pytest.mark.slow)])
def test_two_processes_train_like_one(store, monkeypatch, tmp_path, model, capsys):
    config = settings(store, model, epochs=2, pretrain_epochs=int(model == "vade"))
    table = {}
    for devices in (1, 2):
        monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / str(devices)))
        folder = train(config, store, devices=devices)
        table[devices] = pd.read_csv(folder / "history.csv").drop(columns=[*CLOCKS, "phase"])
        assert json.loads((folder / "done.json").read_text())["devices"] == devices
    assert np.allclose(table[1], table[2], rtol=2e-2, equal_nan=True)
    assert "epoch 2/2" in capsys.readouterr().out or model == "vade"


@pytest.mark.slow
def test_what_ends_one_process_ends_the_others(store):
    def kill() -> None:
        while len(children := multiprocessing.active_children()) < 2:
            time.sleep(0.05)
        os.kill(children[0].pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(ProcessExitedException, match=r"process \d terminated with signal SIGKILL"):
        train(settings(store, "conv_vae"), store, show=False, devices=2)


def test_devices_that_cannot_share_a_batch_and_a_store_that_is_too_small_are_refused(store):
    one = dataclasses.replace(store, table=store.table[store.table.index == store.rows("train")[0]])
    refused = [(store, n, "cannot share 8 clips equally, two or more each") for n in (3, 8)]
    for given, devices, message in [*refused, (one, 1, "has 1 training clips")]:
        with pytest.raises(InputError, match=message):
            train(settings(store, "conv_vae"), given, show=False, devices=devices)


def batch(pairs: int = 6):
    """Windows (2 · pairs, 1, 16, 16), those of a clip after each other, and their classes."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(-1, len(LANGUAGES), (pairs,), generator=generator).repeat_interleave(2)
    return torch.rand(2 * pairs, 1, 16, 16, generator=generator), y


def stepped(name: str, precision: str = "32-true", **changes):
    """A stepper after two steps (VaDE: one in each phase), and what the last one returned."""
    torch.manual_seed(0)
    stepper = Stepper(build(model_config(name)), TrainConfig(**changes), make_fabric(precision))
    for mixture in (False, name == "vade"):
        terms = stepper(*batch(), weights_at(stepper.cfg, 1.0, mixture), rate=0.5)
    return stepper, terms


class Waits(TorchFunctionMode):
    """Collects calls for which the host would wait for a GPU."""

    NAMES = "item tolist cpu numpy nonzero __bool__ __float__ __int__ __index__ is_nonzero equal masked_select unique"

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        copied = func.__name__ == "to" and args[0].device.type == "cpu" and "meta" in map(str, args[1:])
        if func.__name__ in self.NAMES.split() or (copied and not (kwargs or {}).get("non_blocking")):
            self.found.append(func.__name__)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("name", MODELS)
def test_a_step_returns_detached_scalars_and_never_waits_for_the_device(name):
    stepper, _ = stepped(name, sigma=0.2)
    weights, given = weights_at(stepper.cfg, 1.0, name == "vade"), batch()
    with Waits() as waits:
        terms = stepper(*given, weights, 1.0)
    assert not waits.found and all(v.dim() == 0 and not v.requires_grad for v in terms.values())
    with waits:
        float(terms["loss"])
    assert waits.found == ["__float__"]  # it would have been seen


def test_windows_are_cut_on_the_device_from_16_bit_without_a_wait():
    mel, frames = torch.empty(8, 16, 20, dtype=torch.float16, device="meta"), torch.full((8,), 20, device="meta")
    clips = Clips(mel, frames, 16, np.arange(8), torch.device("meta"))
    with Waits() as waits:
        found = list(clips.batches(2, per_clip=2))
    assert len(found) == 4 and found[0][0].shape == (4, 1, 16, 16) and found[0][0].is_meta
    assert waits.found == ["to"]  # the order of the whole pass


def test_a_gpu_is_given_bf16_channels_last_and_a_recorded_step(monkeypatch):
    assert resolve_precision("auto", "cuda") == "bf16-mixed"
    stepper = stepped("conv_vae")[0]
    convolution = stepper.model.encoder[2].weight
    assert convolution.is_contiguous(memory_format=torch.channels_last) and not convolution.is_contiguous()
    graphs = []

    class Graph:
        def __init__(self):
            graphs.append(self)

        def replay(self):
            recording._run()

    for name, fake in {"Stream": Mock(), "CUDAGraph": Graph, "graph": lambda *a, **k: nullcontext(),
                       "stream": lambda *a: nullcontext(), "current_stream": Mock()}.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    groups = [{"lr": None}, {"lr": None}]
    recording = Recording(lambda x, y, w: {"loss": w["kl"] * x.sum() + y.sum(), "rate": groups[1]["lr"]}, groups)
    weights = weights_at(stepper.cfg, 1.0, False)
    found = [
        recording(torch.full((2, 3), float(i)), torch.ones(2), weights | {"kl": 10.0**i}, [0.1, 0.5 + i])
        for i in range(6)
    ]
    assert [f["loss"].item() for f in found] == [6 * i * 10**i + 2 for i in range(6)] and len(graphs) == 1
    assert [f["rate"].item() for f in found] == [0.5 + i for i in range(6)]


def test_the_mixture_rests_in_the_first_phase_and_what_is_held_while_it_is_held():
    stepper = Stepper(build(model_config("vade")), TrainConfig(grad_clip=1e-3), make_fabric("32-true"))

    def moved(mixture: bool) -> set[str]:
        before = {k: v.detach().clone() for k, v in stepper.model.named_parameters()}
        stepper(*batch(), weights_at(stepper.cfg, 1.0, mixture), 1.0)
        norm = torch.stack([p.grad.norm() for p in stepper.model.parameters() if p.grad is not None]).norm()
        assert norm.item() == pytest.approx(1e-3, rel=1e-3)  # clipped
        return {k for k, v in stepper.model.named_parameters() if not torch.equal(v, before[k])}

    every = {k for k, _ in stepper.model.named_parameters()}
    assert moved(False) == {k for k in every if not k.startswith("mixture")} and moved(True) == every
    stepper.held = True
    assert moved(True) == {k for k in every if not k.startswith(("encoder", "heads.mean"))}
    stepper.held = False
    assert moved(True) == every


def test_a_fixed_sigma_is_no_parameter():
    stepper, terms = stepped("beta_vae", epochs=2, sigma=0.2)
    assert stepper.model.log_sigma.exp().item() == pytest.approx(0.2)
    assert id(stepper.model.log_sigma) not in {id(p) for g in stepper.optimizer.param_groups for p in g["params"]}
    expected = 0.5 * 256 * terms["mse"] / 0.2**2 + 256 * math.log(0.2 * math.sqrt(2 * math.pi))
    assert terms["nll"].item() == pytest.approx(expected.item(), rel=1e-3)


def mixed(n: int = 400):
    """Windows (n, 16, 16) in [0, 1] of three sources at independent levels (n, 3), each in bins of its own."""
    generator = torch.Generator().manual_seed(0)
    levels, shapes = torch.rand(n, 3, generator=generator), torch.zeros(3, 16, 16)
    for i, shape in enumerate(shapes):
        shape[5 * i : 5 * i + 5] = torch.rand(5, 16, generator=generator)
    x = torch.einsum("ns,sft->nft", levels, shapes) + 0.01 * torch.rand(n, 16, 16, generator=generator)
    return Clips(x.half(), torch.full((n,), 16), 16, np.arange(n)), levels


@pytest.mark.parametrize("name", MODELS)
def test_codes_start_on_the_components_of_the_windows(name):
    clips, levels = mixed()
    torch.manual_seed(0)
    model = build(model_config(name))
    start_on_components(model, clips, 3, seed=0)
    with torch.inference_mode():
        q = model.encode(clips.even_windows(torch.arange(len(clips)), 1).squeeze(1))
    found = np.abs(np.corrcoef(q.mean[:, :3].T, levels.T)[:3, 3:])
    assert (found.max(0) > 0.9).all() and len(set(found.argmax(0))) == 3
    assert q.mean[:, :3].std(0).sub(1).abs().max() < 0.2
    assert q.mean[:, 3:].abs().max() < 1e-5 and q.logvar[:, 3:].abs().max() < 1e-5 and (q.logvar[:, :3] == -3).all()
    with pytest.raises(InputError, match="8 components cannot be found in 5 windows"):
        start_on_components(model, mixed(5)[0], 8, seed=0)


@pytest.mark.parametrize(("clips", "components"), [(40, 4), (3, 5)])
def test_the_mixture_starts_on_the_clusters_of_the_codes(clips, components):
    torch.manual_seed(0)
    centres = 10 * torch.randn(min(clips, 4), 8)
    codes = centres[torch.arange(clips) % len(centres)][:, None] + 0.5 * torch.randn(clips, 3, 8)
    model = build(model_config("vade", backbone="fc", components=components))
    init_mixture(model, codes, seed=0)
    found = torch.stack([codes[i :: len(centres)].mean((0, 1)) for i in range(len(centres))])
    assert torch.cdist(found, model.mixture["means"].detach()).amin(1).max() < 1e-2
    variances = model.component_logvars().exp()
    assert (variances > 0.99 * codes.var(1, unbiased=False).mean(0)).all() and variances.max() < 2
    assert bool(model.mixture_ready) and model.log_weights().exp().sum().item() == pytest.approx(1)


def test_histories_have_every_term_and_one_warm_up(tiny_runs, store):
    terms = {name: ["nll", "kl"] for name in MODELS} | {"cvae": ["nll", "kl", "class"], "vade": ["nll", "kl_z", "kl_c"]}
    for name, run in tiny_runs.items():
        model, table = run.config.model.name, run.history
        joint = table["phase"] == "joint"
        measured = [f"{split}_{t}" for split in ("train", "validation") for t in ("loss", *terms[model], "mse")]
        last = table.iloc[-1]
        assert np.isfinite(last[measured].astype(float)).all() and (table[CLOCKS] > 0).all(axis=None), name
        assert joint.any() == (model == "vade") and table["epoch"].tolist() == list(range(1, len(table) + 1))
        beta = DEFAULT_BETA.get(model, 1.0)
        assert (table["kl_weight"] / beta).tolist() == [1.0] * len(table), name  # two epochs, a quarter to warm up
        if model != "vade":
            want = last["validation_nll"] + beta * last["validation_kl"]
            want += TrainConfig().class_weight * last.get("validation_class", 0.0)
            assert last["validation_loss"] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "sequence", "best"),
    [
        ("conv_vae", [1, 9, 5, 3, 4], 4),  # epoch 1 lies before the end of the warm-up
        ("vade", [1, 1, 1, 7, 6, 8], 5),  # pretraining's losses are of another bound
        ("conv_vae", [5, 4, math.nan, 3, math.inf], 4),
        ("conv_vae", [], 5),  # no validation clips: the last one
    ],
)
def test_the_best_epoch_is_chosen_after_warm_up(store, monkeypatch, model, sequence, best):
    weights, left = {}, iter(sequence)

    def validate(self, *given):
        weights[self.state["epoch"] + 1] = {k: v.clone() for k, v in self.model.state_dict().items()}
        return {"loss": next(left)} if sequence else {}

    monkeypatch.setattr(Trainer, "_validate", validate)
    folder = train(settings(store, model, epochs=3 if model == "vade" else 5), store, show=False)
    assert best == json.loads((folder / "done.json").read_text())["best_epoch"]
    assert all(torch.equal(v, weights[best][k]) for k, v in load_file(folder / "best.safetensors").items())


@pytest.mark.parametrize(("term", "value", "epoch"), [("kl", math.nan, 0), ("nll", math.inf, 3)])
def test_divergence_names_term_and_step_and_keeps_the_last_good_checkpoint(store, monkeypatch, term, value, epoch):
    config, steps, name = settings(store, "conv_vae", epochs=6), [], f"gaussian_{term}"
    real, step = getattr(losses, name), Stepper.__call__

    def poisoned(self, *given):
        steps.append(1)
        if len(steps) == 3 * epoch + 2:
            monkeypatch.setattr(losses, name, lambda *a: real(*a) * value)
        return step(self, *given)

    monkeypatch.setattr(Stepper, "__call__", poisoned)
    with pytest.raises(TrainingDivergedError, match=rf"{term}.* in epoch {epoch + 1}, step 2: lower lr"):
        train(config, store, show=False)
    assert not (config.folder / "done.json").exists()
    if epoch:
        tensors = load_file(config.folder / "best.safetensors")
        assert all(v.isfinite().all() for v in tensors.values())
        assert pd.read_csv(config.folder / "history.csv")["epoch"].tolist() == [1, 2, 3]


def test_a_full_disk_keeps_the_last_whole_checkpoint(store, interrupt):
    config = interrupt(settings(store, "conv_vae"), 2)
    last = config.folder / "last.safetensors"
    before = last.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # no file may be larger, as on a full disk
    try:
        with pytest.raises(InputError, match=r"cannot write .*best.safetensors.*make room"):
            train(config, store, show=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert last.read_bytes() == before
    last.write_bytes(before[:-1000])
    with pytest.raises(InputError, match=r"last\.safetensors cannot be read"):
        train(config, store, show=False)
    last.write_bytes(before)
    assert train(config, store, show=False) == config.folder


def test_a_run_says_where_it_comes_from(tiny_runs, monkeypatch):
    about = json.loads((tiny_runs["conv_vae"].folder / "config.json").read_text())
    assert {"command", "git", "packages", "platform"} <= set(about["environment"])
    monkeypatch.setenv("VAELIB_COMMAND", "vaelib train --model conv_vae")
    assert environment()["command"] == os.environ["VAELIB_COMMAND"] and "torch 2." in environment()["packages"]
