"""The one training loop, on one device or several (no part of a run's identity).

It leaves `config.json`, `history.csv`, `best.safetensors`, `last.safetensors` and, at the end, `done.json` in a folder.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from .config import ROOT, InputError, ModelConfig, RunConfig, TrainConfig, keep_freed_memory, write_atomic
from .losses import rate_at, weights_at
from .models import VAE, VaDE, build
from .optimization import Stepper, init_mixture, make_fabric, start_on_components
from .windows import encode_windows, load_data

if TYPE_CHECKING:
    from .store import Store

SAVE_EVERY_S = 20.0  # a killed run loses at most this much work, and the epoch it is in
START_CLIPS = 4096  # training clips that codes and mixture start from, at most
PACKAGES = ("lightning-fabric", "librosa", "numpy", "scikit-learn", "soundfile", "torch", "umap-learn", "zarr")


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite; the best epoch before is kept."""


class TrainingInterruptedError(KeyboardInterrupt):
    """A person stopped the training; the message says that it continues."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it: a notebook shows the sentence alone
        return [f"Interrupted: {self}"]


def write_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write tensors and a JSON state as one safetensors file, whole or not at all."""
    from safetensors.torch import save

    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    write_atomic(path, save(plain, {"state": json.dumps(state)}))


def read_checkpoint(path: Path, model: VAE, assign: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Give a model its weights (a VaDE keeps its mixture where the file has none); return all tensors and the state.

    InputError for a file that is missing, damaged or of another model.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as f:
            tensors, state = {k: f.get_tensor(k) for k in f.keys()}, json.loads(f.metadata()["state"])  # noqa: SIM118
        weights = {k.removeprefix("model."): v for k, v in tensors.items() if not k.startswith("optimizer.")}
        own = {k: v for k, v in model.state_dict().items() if k.startswith("mixture")}
        model.load_state_dict(own | weights, assign=assign)
    except Exception as e:  # whatever is wrong with it, it is the file's fault
        reason = " ".join(str(e).split())[:300]
        raise InputError(f"checkpoint {path} cannot be read ({reason}); train that run again") from e
    return tensors, state


def environment() -> dict[str, str]:
    """Command, commit, versions and machine of this process, for the run's record; no part of a run's identity."""
    git = [shutil.which("git") or "true", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    return {
        # the command that a person gave, which started the kernel of this notebook
        "command": os.environ.get("VAELIB_COMMAND") or shlex.join(sys.argv),
        "git": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "platform": f"Python {platform.python_version()}, {platform.platform()}, {torch.get_num_threads()} threads",
    }


class Trainer:
    """One run: builds the model, trains it, and leaves its folder complete.

    Of several processes each has a trainer. All of them draw the same order and windows and take their part of every
    batch; the first one alone validates, writes and calls `say` with the live line.
    """

    def __init__(self, config: RunConfig, store: Store, say: Callable[[str], None], devices: int = 1) -> None:
        self.config, self.cfg, self.folder, self.say = config, config.training, config.folder, say
        self.state = {"epoch": 0, "best_epoch": -1, "best_loss": math.inf, "history": [], "pretrained": ""}
        keep_freed_memory()
        self.fabric = make_fabric(self.cfg.precision, devices)
        torch.manual_seed(self.cfg.seed)
        self.stepper = Stepper(build(config.model), self.cfg, self.fabric)
        self.model, scaler = self.stepper.model, store.fit_scaler(config.detilt)
        self.data = load_data(store, scaler, config.model.condition, self.fabric.device, self.folder, devices)
        if self.data.train.mel.device != self.data.train_y.device:
            say("the clips do not fit on the GPU: windows are cut from a file and sent there")
        if self.fabric.is_global_zero:
            about = {"config": config.to_dict(), "scaler": scaler.to_dict(), "environment": environment()}
            write_atomic(self.folder / "config.json", json.dumps(about | {"store": str(store.path)}, indent=1))

    def run(self) -> None:
        """Train to the end: from the last checkpoint, a finished pretraining, components, or at random."""
        last, plain, n = self.folder / "last.safetensors", pretraining_of(self.config), self.cfg.start_components
        if last.is_file():
            tensors, self.state = read_checkpoint(last, self.model)
            self.stepper.load_state(tensors)
        elif plain and (plain.folder / "done.json").is_file():
            self.say(f"the pretraining is the finished run {plain.run_id}")
            _, taken = read_checkpoint(plain.folder / "last.safetensors", self.model)
            self.state |= {"epoch": taken["epoch"], "history": taken["history"], "pretrained": plain.run_id}
        elif n:
            start_on_components(self.model, self.data.train.some(START_CLIPS), n, self.cfg.seed)
        saved = time.monotonic()
        while self.state["epoch"] < self.cfg.total_epochs:
            self._epoch(self.state["epoch"])
            if time.monotonic() - saved > SAVE_EVERY_S:
                self._save(self.stepper.state())
                saved = time.monotonic()
        self._save({})
        if self.fabric.is_global_zero:
            write_atomic(self.folder / "done.json", json.dumps(self._summary(), indent=1))
        self.fabric.barrier()  # whoever returns finds the run complete

    def _epoch(self, epoch: int) -> None:
        """Train and validate once; all randomness comes from (seed, epoch), so that a resumed run is equal."""
        torch.manual_seed(int(np.random.SeedSequence((self.cfg.seed, epoch)).generate_state(1, np.uint64)[0]))
        mixture = isinstance(self.model, VaDE) and epoch >= self.cfg.pretrain_epochs
        if mixture and not self.model.mixture_ready:
            self.model.eval()
            codes = encode_windows(self.model, self.data.train.some(START_CLIPS), self.cfg.eval_windows).mean
            init_mixture(self.model, codes, self.cfg.seed)
            self.stepper.optimizer.state.clear()  # as after a pretraining that was another run
        self.stepper.held = bool(self.cfg.start_components) and epoch < self.cfg.held * self.cfg.first_phase
        per_clip = self.data.train.distinct(2) if mixture else 1  # windows of a clip that share a cluster
        started = time.monotonic()
        means, windows = self._pass(epoch, mixture, per_clip)
        seconds = time.monotonic() - started
        row = {
            "epoch": epoch + 1,
            "phase": "joint" if mixture else "vae",
            **{f"train_{k}": v for k, v in means.items()},
            "sigma": float(self.model.log_sigma.detach().exp()),  # before validation, which is at the final one
            **{f"validation_{k}": v for k, v in self._validate(mixture, per_clip).items()},
            "kl_weight": weights_at(self.cfg, epoch + 1, mixture)["kl"],
            "seconds": seconds,
            "clips_per_s": windows / seconds,
        }
        self.state["epoch"] = epoch + 1
        self.state["history"].append(row)
        if self.fabric.is_global_zero:
            self._keep(row)
        self.say(self._line(epoch + 1))

    def _pass(self, epoch: int, mixture: bool, per_clip: int) -> tuple[dict[str, float], int]:
        """Every training clip once: means of the terms over steps and devices, and how many windows there were."""
        self.model.train()
        clips, shown, rows = len(self.data.train), 0.0, []
        size, share = min(self.cfg.batch_size, clips), (self.fabric.global_rank, self.fabric.world_size)
        for x, index in self.data.train.batches(size, per_clip, share):
            at = epoch + min(1.0, len(rows) * self.cfg.batch_size / clips)
            y = self.data.train_y[index].repeat_interleave(per_clip)
            terms = self.stepper(x, y, weights_at(self.cfg, at, mixture, per_clip), rate_at(self.cfg, at, clips))
            rows.append(torch.stack(list(terms.values())))
            if time.monotonic() - shown > 0.2:
                shown = time.monotonic()
                self.say(self._line(at))
        table = self.fabric.all_reduce(torch.stack(rows), reduce_op="mean")  # (step, term); no step waited for it
        bad = (~table.isfinite()).nonzero()
        if len(bad):
            step = int(bad[0, 0])
            wrong = ", ".join(name for name, value in zip(terms, table[step], strict=True) if not value.isfinite())
            raise TrainingDivergedError(
                f"training of {self.config.run_id} stopped: {wrong} became non-finite in epoch {epoch + 1}, step "
                f"{step + 1}: lower lr or raise kl_warmup; the best epoch before it is kept in {self.folder}"
            )
        return dict(zip(terms, (sum(table) / len(table)).tolist(), strict=True)), len(rows) * size * per_clip

    def _validate(self, mixture: bool, per_clip: int) -> dict[str, float]:
        """Validation terms at the final β: losses of different epochs are comparable after warm-up."""
        clips, sums = self.data.validation, {}
        if not len(clips) or not self.fabric.is_global_zero:
            return {}
        self.model.eval()
        torch.manual_seed(self.cfg.seed)
        weights = weights_at(self.cfg, math.inf, mixture, per_clip)
        for index in torch.arange(len(clips), device=self.fabric.device).split(self.cfg.batch_size):
            x = clips.even_windows(index, per_clip).flatten(0, 1)
            y = self.data.validation_y[index].repeat_interleave(per_clip)
            for k, v in self.stepper.measure(x, y, weights).items():
                sums[k] = sums.get(k, 0.0) + float(v) * len(index)
        return {k: v / len(clips) for k, v in sums.items()}

    def _line(self, done: float) -> str:
        """Epochs done, the last one's losses, speed and time left."""
        text = f"epoch {done:.3g}/{self.cfg.total_epochs}"
        for row in self.state["history"][-1:]:
            left = tqdm.format_interval((self.cfg.total_epochs - done) * row["seconds"] * 1.1)
            text += f" · loss {row['train_loss']:.4g} · mse {row['train_mse']:.4g} · {row['clips_per_s']:,.0f} clips/s"
            text += f" · {left} left"
        return text

    def _keep(self, row: dict[str, Any]) -> None:
        """Keep the history, and the epoch if it is the best by validation loss since the KL weight is the final one."""
        loss = row.get("validation_loss", -row["epoch"])  # no validation clips: the last epoch is the best
        warm = row["kl_weight"] >= self.cfg.beta and row["epoch"] > self.cfg.pretrain_epochs
        if (warm and loss < self.state["best_loss"]) or self.state["best_epoch"] < 0:
            self.state |= {"best_loss": loss if warm else math.inf, "best_epoch": row["epoch"]}
            write_checkpoint(self.folder / "best.safetensors", self.model.state_dict(), {"epoch": row["epoch"]})
        write_atomic(self.folder / "history.csv", pd.DataFrame(self.state["history"]).to_csv(index=False))

    def _save(self, moments: dict[str, Tensor]) -> None:
        if self.fabric.is_global_zero:
            weights = {f"model.{k}": v for k, v in self.model.state_dict().items()}
            write_checkpoint(self.folder / "last.safetensors", weights | moments, self.state)

    def _summary(self) -> dict[str, Any]:
        epochs = pd.DataFrame(self.state["history"])
        return {k: self.state[k] for k in ("best_epoch", "pretrained")} | {
            "epochs": self.state["epoch"],
            "parameters": self.model.parameter_count(),
            "train_seconds": epochs["seconds"].sum(),
            "clips_per_s": epochs["clips_per_s"].median(),  # the first epoch warms caches up
            "seconds_per_epoch": epochs["seconds"].median(),
            "device": str(self.fabric.device),
            "precision": self.fabric.strategy.precision.precision,
            "devices": self.fabric.world_size,
        }


def pretraining_of(config: RunConfig) -> RunConfig | None:
    """The plain run (Conv, or Basic for a fully connected backbone) whose training is a VaDE run's first phase."""
    model, training, usual = config.model, config.training, TrainConfig()
    if model.name != "vade" or not training.pretrain_epochs:
        return None
    name = "conv_vae" if model.backbone == "conv" else "basic_vae"
    plain = ModelConfig(name, model.input_shape, latent=model.latent, dropout=model.dropout)
    of_mixture = {"mixture_lr": usual.mixture_lr, "mixture_weight": usual.mixture_weight}
    training = replace(training, epochs=training.pretrain_epochs, pretrain_epochs=0, **of_mixture)
    return replace(config, model=plain, training=training)


def train(config: RunConfig, store: Store, show: bool = True, devices: int = 1) -> Path:
    """Train what `config` describes, or continue it, unless that very run is finished; returns its folder.

    `devices`: GPUs (where there is none: CPU processes) that share every batch; `show`: print the live line.
    InputError for a store or a number of devices that does not suit; TrainingDivergedError, TrainingInterruptedError.
    """
    done = config.folder / "done.json"
    if done.is_file():
        return config.folder
    batch = min(config.training.batch_size, len(store.rows("train")))
    if devices > 1 and (batch % devices or batch < 2 * devices):
        raise InputError(f"{devices} devices cannot share {batch} clips equally, two or more each: choose fewer")
    bar = tqdm(bar_format=f"training {config.variant}: {{desc}}", file=sys.stdout, disable=not show)
    say = bar.set_description_str
    say("begins as soon as no other process trains this very run")
    with bar, FileLock(config.folder / ".lock"):
        try:
            if not done.is_file():
                _train_together(config, store, say, devices) if devices > 1 else Trainer(config, store, say).run()
        except KeyboardInterrupt:
            words = f"training of {config.variant} stopped; run the same again, it continues from there"
            raise TrainingInterruptedError(words) from None
    return config.folder


def _train_together(config: RunConfig, store: Store, say: Callable[[str], None], devices: int) -> None:
    """Train in as many processes as devices, with their live line here; all of them end when one does."""
    from lightning_fabric.plugins.environments.lightning import find_free_network_port
    from torch.multiprocessing import get_context, start_processes

    lines, done = get_context("spawn").SimpleQueue(), False
    given = (config, store.path, devices, find_free_network_port(), lines)
    context = start_processes(_one_of_several, given, devices, join=False, start_method="spawn")
    try:
        while not done:
            done = context.join(timeout=0.2)  # raises what a process raised, or that it was killed
            while not lines.empty():
                say(lines.get())
    finally:
        for process in context.processes:
            process.terminate()
            process.join()


def _one_of_several(rank: int, config: RunConfig, store: Path, devices: int, port: int, lines: Any) -> None:
    from .store import open_store

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(devices), "GROUP_RANK": "0",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "vaelib"}  # fmt: skip
    torch.set_num_threads(max(1, torch.get_num_threads() // devices))
    Trainer(config, open_store(store), lines.put if rank == 0 else lambda line: None, devices).run()
