"""The one training loop, on one device or several: checkpoints, resume, live progress.

A run's folder holds `config.json`, `history.csv`, `best.safetensors`, `last.safetensors` and, when it is finished,
`done.json`. The number of devices is no part of a run's identity.
"""

from __future__ import annotations

import json
import math
import os
import socket
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from .checkpoints import environment, load_weights, read_tensors, write_tensors
from .config import InputError, ModelConfig, RunConfig, TrainConfig, keep_freed_memory, write_atomic
from .losses import rate_at, weights_at
from .models import VaDE, build
from .optimization import Stepper, init_mixture, make_fabric, start_on_components
from .progress import Progress, clock
from .windows import encode_windows, load_data

if TYPE_CHECKING:
    from .store import Store

SAVE_EVERY_S = 20.0  # a killed run loses at most this much work, and the epoch it is in
START_CLIPS = 4096  # training clips that codes and mixture start from, at most


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


class TrainingStoppedError(RuntimeError):
    """One of the processes that train a model together died; the others were ended."""


class TrainingInterruptedError(KeyboardInterrupt):
    """A person stopped the training; the message says that it continues."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it: a notebook shows the sentence alone
        return [f"Interrupted: {self}"]


@dataclass
class State:
    """Where a run stands; stored with every checkpoint."""

    epoch: int = 0
    best_epoch: int = -1
    best_loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    pretrained: str = ""  # the run that VaDE took its first phase from


class Trainer:
    """One run: builds the model, trains it, and leaves its folder complete.

    Of several processes each has a trainer of its own and a device. All of them draw the same order and windows and
    take their part of every batch; the first one alone validates, writes and calls `say` with the live line.
    """

    def __init__(self, config: RunConfig, store: Store, say: Callable[[str], None], devices: int = 1) -> None:
        check(config, store, devices)
        self.config, self.cfg, self.store, self.say = config, config.training, store, say
        self.folder, self.state, self.saved = config.folder, State(), (0, time.monotonic())
        keep_freed_memory()
        self.fabric = make_fabric(self.cfg.precision, devices)
        self.device, self.first = self.fabric.device, self.fabric.is_global_zero
        torch.manual_seed(self.cfg.seed)
        self.stepper = Stepper(build(config.model), self.cfg, self.fabric)
        self.model = self.stepper.model
        self.scaler = store.fit_scaler(config.detilt)
        self.data = load_data(store, self.scaler, config.model.condition, self.device, self.folder, devices)
        # of a clip, where several are looked at together: two, if they can differ
        self.windows = 2 if self.cfg.target == "other" else self.data.train.distinct(2)
        self.best: dict[str, Tensor] = {}

    def run(self) -> None:
        """Train to the end, from the last checkpoint if there is one."""
        if self.first:
            about = {"config": self.config.to_dict(), "scaler": self.scaler.to_dict(), "environment": environment(),
                     "store": str(self.store.path)}  # fmt: skip
            write_atomic(self.folder / "config.json", json.dumps(about, indent=1))
        if (self.folder / "last.safetensors").is_file():
            self._load()
        else:
            self._begin()
        try:
            while self.state.epoch < self.cfg.total_epochs:
                self._epoch(self.state.epoch)
                if self.first and time.monotonic() - self.saved[1] > SAVE_EVERY_S:
                    self._save()
        except KeyboardInterrupt:
            raise TrainingInterruptedError(
                f"training of {self.config.variant} stopped in epoch {self.state.epoch + 1} of "
                f"{self.cfg.total_epochs}; run the same again, it continues after epoch {self.saved[0]}"
            ) from None
        if self.first:
            self._save(finished=True)
        self.fabric.barrier()  # whoever returns finds the run complete

    def _begin(self) -> None:
        """Start at random, on a plain run of the same settings (VaDE), or on components of the windows."""
        if isinstance(self.model, VaDE) and self.cfg.pretrain_epochs:
            self._take_pretrained()
        if self.cfg.start_components and not self.state.epoch:
            start_on_components(self.model, self.data.train.some(START_CLIPS), self.cfg.start_components, self.cfg.seed)
            self._take_from_first()

    def _take_pretrained(self) -> None:
        """VaDE's first phase is the training of the plain VAE: take the end of that run, if it is there."""
        wanted = pretraining_of(self.config)
        last = wanted.folder / "last.safetensors"
        if (wanted.folder / "done.json").is_file():
            tensors, state = read_tensors(last)
            own = {k: v for k, v in self.model.state_dict().items() if k.startswith("mixture")}
            load_weights(self.model, _part(tensors, "model.") | own, last)
            self.state = State(self.cfg.pretrain_epochs, history=state["history"], pretrained=wanted.run_id)
            self.say(f"the pretraining is the finished run {wanted.run_id}")
        else:
            self.say(f"no finished {wanted.variant} run of the same settings: pretraining here")

    def _take_from_first(self) -> None:
        """Every process has the parameters of the first one."""
        with torch.no_grad():
            for p in self.model.parameters():
                p.copy_(self.fabric.broadcast(p))

    # --- one epoch ---

    def _epoch(self, epoch: int) -> None:
        """Train and validate once; all randomness comes from (seed, epoch), so that a resumed run is equal."""
        torch.manual_seed(int(np.random.SeedSequence((self.cfg.seed, epoch)).generate_state(1, np.uint64)[0]))
        mixture = isinstance(self.model, VaDE) and epoch >= self.cfg.pretrain_epochs
        if mixture and not bool(self.model.mixture_ready):
            self._start_mixture()
        self.stepper.hold(bool(self.cfg.start_components) and epoch < self.cfg.held * self.cfg.first_phase)
        started = time.monotonic()
        means, windows = self._pass(epoch, mixture)
        seconds = time.monotonic() - started
        row = {
            "epoch": epoch + 1,
            "phase": "joint" if mixture else "vae",
            **{f"train_{k}": v for k, v in means.items()},
            "sigma": float(self.model.log_sigma.detach().exp()),  # before validation, which is at the final one
            **{f"validation_{k}": v for k, v in self._validate(mixture).items()},
            "kl_weight": weights_at(self.cfg, epoch + 1, mixture)["kl"],
            "seconds": seconds,
            "clips_per_s": windows / seconds,
        }
        self._keep_best(row)
        self.state.history.append(row)
        self.state.epoch += 1
        self.say(self._line())

    def _start_mixture(self) -> None:
        self.model.eval()
        codes = encode_windows(self.model, self.data.train.some(START_CLIPS), self.cfg.eval_windows).mean
        init_mixture(self.model, codes, self.cfg.seed)
        self._take_from_first()
        self.stepper.optimizer.state.clear()  # as after a pretraining that was another run
        self.state.best_loss = math.inf

    def _pass(self, epoch: int, mixture: bool) -> tuple[dict[str, float], int]:
        """Every training clip once: means of the terms over steps and devices, and how many windows were answered."""
        self.stepper.module.train()
        clips, per_clip = len(self.data.train), self._per_clip(mixture)
        size = min(self.cfg.batch_size, clips)
        shown, sums, windows, bad = 0.0, {}, 0, torch.zeros((), dtype=torch.long, device=self.device)
        for step, (x, index) in enumerate(self.data.train.batches(size, per_clip, self.stepper.share)):
            at = epoch + min(1.0, step * self.cfg.batch_size / clips)
            weights = weights_at(self.cfg, at, mixture, self.windows)
            y = self.data.train_y[index].repeat_interleave(per_clip)
            terms = self.stepper(x, y, weights, rate_at(self.cfg, at, clips))
            # no step waits for the device: the first bad one is read at the end of the epoch
            bad = torch.where((bad == 0) & ~torch.isfinite(terms["loss"]), step + 1, bad)
            sums = {k: sums.get(k, 0) + v for k, v in terms.items()}
            windows += len(x) if mixture or self.cfg.target == "same" else len(x) // 2
            if time.monotonic() - shown > 0.2:
                shown = time.monotonic()
                self.say(self._line(step + 1, -(-clips // size)))
        means = self.fabric.all_reduce(torch.stack(list(sums.values())) / (step + 1), reduce_op="mean")
        means = dict(zip(sums, means.tolist(), strict=True))
        wrong = [k for k, v in means.items() if not math.isfinite(v)]
        if wrong:
            self._diverged(", ".join(wrong), int(bad))
        return means, windows * self.stepper.share[1]

    def _diverged(self, terms: str, step: int) -> None:
        if self.first and self.best:
            self._save_best()
        self.fabric.barrier()  # all processes raise it: none ends before the best is written
        kept = f"the last good checkpoint is kept in {self.folder}" if self.best else "no checkpoint was reached"
        raise TrainingDivergedError(
            f"training of {self.config.run_id} stopped: {terms} became non-finite in epoch {self.state.epoch + 1}, "
            f"step {step}; {kept}: lower lr or raise kl_warmup"
        )

    def _per_clip(self, mixture: bool) -> int:
        return self.windows if mixture or self.cfg.target == "other" else 1

    def _validate(self, mixture: bool) -> dict[str, float]:
        """Validation terms at the final β: losses of different epochs are comparable after warm-up."""
        clips, windows = self.data.validation, self._per_clip(mixture)
        if not len(clips) or not self.first:
            return {}
        self.model.eval()
        torch.manual_seed(self.cfg.seed)
        weights = weights_at(self.cfg, math.inf, mixture, self.windows)
        sums: dict[str, float] = {}
        for index in torch.arange(len(clips), device=self.device).split(self.cfg.batch_size):
            x = clips.even_windows(index, windows).flatten(0, 1)
            y = self.data.validation_y[index].repeat_interleave(windows)
            for k, v in self.stepper.measure(x, y, weights).items():
                sums[k] = sums.get(k, 0.0) + float(v) * len(index)
        return {k: v / len(clips) for k, v in sums.items()}

    def _line(self, step: int = 0, steps: int = 0) -> str:
        """Epoch, and in it the step; the last epoch's losses, speed and time left."""
        total, last = self.cfg.total_epochs, self.state.history[-1] if self.state.history else {}
        parts = [f"epoch {self.state.epoch + bool(step)}/{total}" + (f", step {step}/{steps}" if step else "")]
        parts += [f"{k.removeprefix('train_')} {v:.4g}" for k, v in last.items() if k.startswith("train_")]
        if last:
            left = (total - self.state.epoch - (step / steps if steps else 0)) * last["seconds"] * 1.1
            parts += [f"{last['clips_per_s']:,.0f} clips/s", f"{clock(left)} left"]
        return " · ".join(parts)

    # --- what is kept ---

    def _keep_best(self, row: dict[str, float]) -> None:
        """The best epoch by validation loss, once the KL weight has reached its final value."""
        loss = row.get("validation_loss", -row["epoch"])  # no validation clips: the last epoch is the best
        warm = row["kl_weight"] >= self.cfg.beta and (not isinstance(self.model, VaDE) or row["phase"] == "joint")
        if (warm and loss < self.state.best_loss) or not self.best:
            self.state.best_loss = loss if warm else math.inf
            self.state.best_epoch = int(row["epoch"])
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def _save_best(self) -> None:
        write_tensors(self.folder / "best.safetensors", self.best, {"epoch": self.state.best_epoch})
        write_atomic(self.folder / "history.csv", pd.DataFrame(self.state.history).to_csv(index=False))

    def _save(self, finished: bool = False) -> None:
        self._save_best()
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        if not finished:
            tensors |= {f"optimizer.{k}": v for k, v in self.stepper.state().items()}
        write_tensors(self.folder / "last.safetensors", tensors, vars(self.state))
        self.saved = self.state.epoch, time.monotonic()
        if finished:
            write_atomic(self.folder / "done.json", json.dumps(self._summary(), indent=1))

    def _summary(self) -> dict[str, Any]:
        seconds = [row["seconds"] for row in self.state.history]
        return {
            "best_epoch": self.state.best_epoch,
            "epochs": self.state.epoch,
            "parameters": self.model.parameter_count(),
            "train_seconds": sum(seconds),
            # median: the first epoch warms caches up
            "clips_per_s": statistics.median(row["clips_per_s"] for row in self.state.history),
            "seconds_per_epoch": statistics.median(seconds),
            "pretrained": self.state.pretrained,
            "device": str(self.device),
            "precision": self.fabric.strategy.precision.precision,
            "devices": self.stepper.share[1],
        }

    def _load(self) -> None:
        last = self.folder / "last.safetensors"
        tensors, state = read_tensors(last)
        load_weights(self.model, _part(tensors, "model."), last)
        self.best, _ = read_tensors(self.folder / "best.safetensors")
        self.state = State(**state)
        self.stepper.load_state(_part(tensors, "optimizer."))
        self.saved = self.state.epoch, time.monotonic()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def pretraining_of(config: RunConfig) -> RunConfig:
    """The plain run (Conv, or Basic for a fully connected backbone) whose training is a VaDE run's first phase."""
    model, usual = config.model, TrainConfig()
    name = "conv_vae" if model.backbone == "conv" else "basic_vae"
    plain = ModelConfig(name, model.input_shape, latent=model.latent, dropout=model.dropout)
    epochs = {"epochs": config.training.pretrain_epochs, "pretrain_epochs": 0}
    mixture = {"mixture_lr": usual.mixture_lr, "mixture_weight": usual.mixture_weight}
    return replace(config, model=plain, training=replace(config.training, **epochs, **mixture))


def check(config: RunConfig, store: Store, devices: int = 1) -> None:
    """InputError if a run cannot be trained on a store by so many devices."""
    if store.attrs["fingerprint"] != config.fingerprint or store.front_end != config.front_end:
        raise InputError(f"store {store.path.name} is not the one this run was configured for; open that one")
    if config.training.target == "other" and store.attrs.get("windows") == "start":
        raise InputError(
            f"every window of {store.path.name} is the first of its clip, there is no other one to answer with: use "
            "target 'same', or a store with windows 'anywhere'"
        )
    gpus, batch = torch.cuda.device_count(), min(config.training.batch_size, len(store.rows("train")))
    if devices < 1 or (gpus and devices > gpus):
        raise InputError(f"devices is {devices}, but must be at least 1" + (f" and at most {gpus}" if gpus else ""))
    if devices > 1 and (batch % devices or batch < 2 * devices):
        raise InputError(
            f"a step of {batch} clips cannot be shared equally by {devices} devices, two clips or more each: "
            "choose another batch_size or number of devices"
        )


def train(config: RunConfig, store: Store, show: bool = True, devices: int = 1) -> Path:
    """Train what `config` describes, from its last checkpoint, or return at once if that very run is finished.

    A run is trained once at a time: who finds another process training it waits, and then has its result.

    Args:
        show: Print the live line.
        devices: GPUs (where there is none: CPU processes) that share every batch.

    Returns:
        The run's folder.

    Raises:
        InputError: see `check`, `models.build` and `windows.load_data`.
        TrainingDivergedError, TrainingInterruptedError, TrainingStoppedError: as their names say.
    """
    done, progress = config.folder / "done.json", Progress(f"training {config.variant}")
    if done.is_file():
        return config.folder
    check(config, store, devices)
    say = progress.show if show else lambda line: None
    lock = FileLock(config.folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        say("another process is training this run; waiting for it")
        lock.acquire()
    try:
        if not done.is_file():
            _train_together(config, store, say, devices) if devices > 1 else Trainer(config, store, say).run()
    finally:
        lock.release()
    if show:
        progress.close()
    return config.folder


def _train_together(config: RunConfig, store: Store, say: Callable[[str], None], devices: int) -> None:
    """Train in as many processes as devices, with their live line here."""
    from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, get_context, start_processes

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    messages, threads = get_context("spawn").SimpleQueue(), max(1, torch.get_num_threads() // devices)
    given = (config, store.path, devices, port, threads, messages)
    context = start_processes(_one_of_several, given, devices, join=False, start_method="spawn")

    def drain() -> None:
        while not messages.empty():
            message = messages.get()
            if isinstance(message, Exception):
                raise message
            say(message)

    try:
        while not context.join(timeout=0.2):
            drain()
        drain()
    except (ProcessExitedException, ProcessRaisedException) as e:
        drain()
        cause = str(e).strip().splitlines()[-1]
        raise TrainingStoppedError(
            f"training on {devices} devices stopped, process {e.error_index}: {cause}; run the same again, it "
            "continues from the last checkpoint"
        ) from e
    except KeyboardInterrupt:
        raise TrainingInterruptedError("training stopped; run the same again, it continues") from None
    finally:
        for process in context.processes:
            process.terminate()
            process.join()


def _one_of_several(
    rank: int, config: RunConfig, store: Path, devices: int, port: int, threads: int, messages: Any
) -> None:
    from .store import open_store

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(devices), "GROUP_RANK": "0",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "vaelib"}  # fmt: skip
    torch.set_num_threads(threads)
    say = messages.put if rank == 0 else lambda line: None
    try:
        Trainer(config, open_store(store), say, devices).run()
    except (InputError, TrainingDivergedError) as e:
        messages.put(e)
        raise
