"""The one training loop, on one device or several: schedules, checkpoints, resume, live progress.

`python -m vaelib.training CONFIG.json` trains what a run's `config.json` describes; `torchrun --nproc-per-node 2 -m
vaelib.training CONFIG.json` does so on two devices. The number of devices is no part of a run's identity.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import devices as several
from . import locks
from .checkpoints import environment, load_weights, read_tensors, write_tensors
from .config import InputError, ModelConfig, RunConfig, TrainConfig, code_version, read_json, write_atomic
from .devices import make_fabric
from .memory import keep_freed_memory
from .models import VaDE, build
from .progress import Progress, clock
from .steps import Stepper, init_mixture, rate_at, start_on_components, weights_at, window_codes
from .store import Store, open_store
from .windows import Clips, StreamedClips, load_data

SAVE_EVERY_S = 20.0  # a killed run loses at most this much work
PATIENCE_S = 5.0  # that long the other processes leave the word to the first


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


@dataclass
class State:
    """Where a run stands; stored with every checkpoint."""

    epoch: int = 0
    best_epoch: int = -1
    best_loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    pretrained: str = ""  # the run that VaDE took its first phase from

    @classmethod
    def read(cls, values: dict[str, Any], where: Path) -> State:
        """The state in a checkpoint.

        Raises:
            InputError: it is not what a run writes.
        """
        kinds = {"epoch": int, "best_epoch": int, "best_loss": int | float, "history": list, "pretrained": str}
        right = values.keys() == kinds.keys() and all(isinstance(values[k], kind) for k, kind in kinds.items())
        if (
            not right
            or len(values["history"]) != values["epoch"]
            or not all(isinstance(r, dict) for r in values["history"])
        ):
            raise InputError(f"checkpoint {where} does not say where its run stands; train that run again")
        return cls(**values)


class Trainer:
    """One run: builds the model, trains it, and leaves its folder complete.

    In processes that `torchrun` started, each has a trainer of its own and a device. All of them draw the same order
    and windows and take their part of every batch; the first one alone writes and prints.

    Args:
        config: What to train.
        store: The mel store that `config` names.
        show: Print the live line; or a function that is called with it.

    Raises:
        InputError: the store is another one, has too few clips, or devices cannot share a batch.
    """

    def __init__(self, config: RunConfig, store: Store, show: bool | Callable[[str], None] = True) -> None:
        devices = several.launched() or 1
        check(config, store, devices)
        self.config, self.cfg, self.store, self.show = config, config.training, store, show
        self.folder, self.state = config.folder, State()
        keep_freed_memory()
        self.fabric = make_fabric(self.cfg.precision, devices)
        self.device, self.first = self.fabric.device, self.fabric.is_global_zero
        torch.manual_seed(self.cfg.seed)
        self.stepper = Stepper(build(config.model), self.cfg, self.device, fabric=self.fabric)
        self.model, self.module, self.optimizer = self.stepper.model, self.stepper.module, self.stepper.optimizer
        self.scaler = store.fit_scaler(config.detilt)
        self.data = load_data(store, self.scaler, config.model.condition, self.device, devices)
        # of a clip, where several are looked at together: two, if they can differ
        self.windows = 2 if self.cfg.target == "other" else self.data.train.distinct(2)
        self.best: dict[str, Tensor] = {}
        self._bad_step = torch.zeros((), dtype=torch.long, device=self.device)

    def run(self, resume: bool = True) -> Path:
        """Train to the end, from the last checkpoint if there is one.

        Returns:
            The run's folder, with `config.json`, `history.csv`, `best.safetensors`, `last.safetensors` and, when
            finished, `done.json`.

        Raises:
            TrainingDivergedError: the loss became NaN or infinite.
        """
        if self.first:
            write_config(self.config, self.store, scaler=self.scaler.to_dict(), environment=environment())
        if resume and (self.folder / "last.safetensors").is_file():
            self._load()
        else:
            self._begin()
        progress = Progress(f"training {self.config.variant}") if self.first and self.show is True else None
        say = progress.show if progress else self.show if self.first and self.show else lambda line: None
        saved = time.monotonic()
        while self.state.epoch < self.cfg.total_epochs:
            row = self._kept_epoch()
            say(self._line(row))
            if self.first and time.monotonic() - saved > SAVE_EVERY_S:
                self._save()
                saved = time.monotonic()
        if self.first:
            self._save(with_optimizer=False)
        if progress:
            progress.close(self._line(self.state.history[-1]))
        if self.first:
            self._finish()
        self.fabric.barrier()  # whoever returns finds the run complete
        return self.folder

    def _begin(self) -> None:
        """Start at random, on components of the windows, or (VaDE) on a plain run of the same settings."""
        if isinstance(self.model, VaDE) and self.cfg.pretrain_epochs:
            self._take_pretrained()
        if self.cfg.start_components and not self.state.epoch:
            if self.first:
                start_on_components(self.model, self._sample(), self.cfg.start_components, self.cfg.seed)
            self.stepper.take_from_first(self.model.parameters())

    def _take_pretrained(self) -> None:
        """VaDE's first phase is the training of the plain VAE: take the end of that very run, if it is there."""
        wanted = pretraining_of(self.config)
        last = wanted.folder / "last.safetensors"
        if (wanted.folder / "done.json").is_file():
            tensors, state = read_tensors(last)
            weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
            mixture = {k: v for k, v in self.model.state_dict().items() if k.startswith("mixture")}
            load_weights(self.model, weights | mixture, wanted.folder)
            self.state.history = State.read(state, last).history
            self.state.epoch, self.state.pretrained = self.cfg.pretrain_epochs, wanted.run_id
            said = f"the pretraining is the finished run {wanted.run_id}"
        else:
            said = f"no finished {wanted.variant} run of the same settings: pretraining here{_nearest(wanted)}"
        if self.first and self.show:
            self.show(said) if callable(self.show) else print(said)

    # --- one epoch ---------------------------------------------------------------------------------------------

    def _kept_epoch(self) -> dict[str, float]:
        """One epoch, and what is kept of it in memory."""
        try:
            row = self._epoch(self.state.epoch)
        except TrainingDivergedError:
            if self.first and self.best:
                self._save_best()
            self.fabric.barrier()  # all processes raise it: none ends before the best is written
            raise
        if self.first:
            self._keep_best(row)
        self.state.history.append(row)
        self.state.epoch += 1
        return row

    def _epoch(self, epoch: int) -> dict[str, float]:
        """Train and validate once; all randomness comes from (seed, epoch), so that a resumed run is equal."""
        torch.manual_seed(hash((self.cfg.seed, epoch)) % 2**63)
        mixture = isinstance(self.model, VaDE) and epoch >= self.cfg.pretrain_epochs
        if mixture and not bool(self.model.mixture_ready):
            self._start_mixture()
        self.stepper.hold(bool(self.cfg.start_components) and epoch < self.cfg.held * self.cfg.first_phase)
        started = time.monotonic()
        means, windows = self._pass(epoch, mixture)
        seconds = time.monotonic() - started
        self._check(means, epoch)
        self.stepper.average_statistics()
        return {
            "epoch": epoch + 1,
            "phase": "joint" if mixture else "vae",
            **{f"train_{k}": v for k, v in means.items()},
            "sigma": float(self.model.log_sigma.detach().exp()),  # before validation, which is at the final one
            **{f"validation_{k}": v for k, v in self._validate(mixture).items()},
            "kl_weight": weights_at(self.cfg, epoch + 1, mixture)["kl"],
            "seconds": seconds,
            "clips_per_s": windows / seconds,
        }

    def _start_mixture(self) -> None:
        """The first process sets VaDE's mixture, the others take it from there."""
        if self.first:
            init_mixture(self.model, window_codes(self.model, self._sample(), self.cfg.eval_windows), self.cfg.seed)
        self.stepper.take_from_first(self.model.mixture.values())
        self.model.mixture_ready.fill_(True)
        self.stepper.forget()  # as after a pretraining that was another run
        self.state.best_loss = math.inf

    def _pass(self, epoch: int, mixture: bool) -> tuple[dict[str, float], int]:
        """Every training clip once: means of the terms over steps and devices, and how many windows were answered."""
        self.module.train()
        sums, count, windows = {}, 0, 0
        for step, (x, y) in enumerate(self._batches(mixture)):
            at = epoch + min(1.0, step * self.cfg.batch_size / len(self.data.train))
            self._step_number = step + 1
            rate = rate_at(self.cfg, at, len(self.data.train))
            terms = self._step(x, y, weights_at(self.cfg, at, mixture, self.windows), rate)
            sums = {k: sums.get(k, 0) + v for k, v in terms.items()}
            count += 1
            windows += len(x) if mixture or self.cfg.target == "same" else len(x) // 2
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        parts = self.stepper.gather({k: float(v) / count for k, v in sums.items()})
        return {k: sum(part[k] for part in parts) / len(parts) for k in sums}, windows * len(parts)

    def _batches(self, mixture: bool) -> Iterator[tuple[Tensor, Tensor]]:
        per_clip = self._per_clip(mixture)
        size = min(self.cfg.batch_size, len(self.data.train))
        for x, index in self.data.train.batches(size, per_clip, self.stepper.share):
            yield x, self.data.train_y[index].repeat_interleave(per_clip)

    def _per_clip(self, mixture: bool) -> int:
        return self.windows if mixture or self.cfg.target == "other" else 1

    def _step(self, x: Tensor, y: Tensor, weights: dict[str, float], rate: float) -> dict[str, Tensor]:
        terms = self.stepper(x, y, weights, rate)
        bad = ~torch.isfinite(terms["loss"])
        if self.device.type == "cuda" or not self.stepper.alone:
            # no step waits for the device or for the others: the first bad one is read at the end of the epoch
            self._bad_step = torch.where(bad & (self._bad_step == 0), self._step_number, self._bad_step)
        elif bad:
            self._bad_step.fill_(self._step_number)
            self._check({k: float(v) for k, v in terms.items()}, self.state.epoch)
        return terms

    @torch.no_grad()
    def _validate(self, mixture: bool) -> dict[str, float]:
        """Validation terms at the final β: losses of different epochs are comparable after warm-up.

        Several devices take turns at the batches; each draws the noise of all of them.
        """
        clips = self.data.validation
        if not len(clips):
            return {}
        self.module.eval()
        torch.manual_seed(self.cfg.seed)
        windows = self._per_clip(mixture)
        weights = weights_at(self.cfg, math.inf, mixture, self.windows)
        rank, devices = self.stepper.share
        sums: dict[str, float] = {}
        for turn, index in enumerate(torch.arange(len(clips), device=self.device).split(self.cfg.batch_size)):
            noise = torch.randn(len(index) * (windows if mixture else 1), self.config.model.latent, device=self.device)
            if turn % devices != rank:
                continue
            x = clips.even_windows(index, windows).flatten(0, 1)
            y = self.data.validation_y[index].repeat_interleave(windows)
            for k, v in self.stepper.measure(x, y, weights, noise).items():
                sums[k] = sums.get(k, 0.0) + float(v) * len(index)
        parts = self.stepper.gather(sums)  # the first process always has a turn
        return {k: sum(part.get(k, 0.0) for part in parts) / len(clips) for k in parts[0]}

    def _check(self, terms: dict[str, float], epoch: int) -> None:
        if all(math.isfinite(v) for v in terms.values()):
            return
        bad = [k for k, v in terms.items() if k not in ("loss", "mse") and not math.isfinite(v)]
        step = min((n for n in self.stepper.gather(int(self._bad_step)) if n), default=0)
        kept = f"the last good checkpoint is kept in {self.folder}" if self.best else "no checkpoint was reached"
        raise TrainingDivergedError(
            f"training of {self.config.run_id} stopped: {', '.join(bad) or 'loss'} became non-finite in epoch "
            f"{epoch + 1}, step {step}; {kept}: lower lr or raise kl_warmup"
        )

    def _sample(self, most: int = 4096) -> Clips | StreamedClips:
        """Training clips for the starts of codes and mixture."""
        if isinstance(self.data.train, Clips):
            return self.data.train.some(most)
        rows = np.sort(np.random.default_rng(self.cfg.seed).permutation(self.data.train.rows)[:most])
        return replace(self.data.train, rows=rows)

    # --- what is kept ------------------------------------------------------------------------------------------

    def _keep_best(self, row: dict[str, float]) -> None:
        """The best epoch by validation loss, once the KL weight has reached its final value."""
        loss = row.get("validation_loss", -row["epoch"])  # no validation clips: the last epoch is the best
        warm = row["kl_weight"] >= self.cfg.beta and (
            not isinstance(self.model, VaDE) or row["phase"] == "joint"
        )  # fmt: skip
        if (warm and loss < self.state.best_loss) or not self.best:
            self.state.best_loss = loss if warm else math.inf
            self.state.best_epoch = int(row["epoch"])
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def _save_best(self) -> None:
        write_tensors(self.folder / "best.safetensors", self.best, {"epoch": self.state.best_epoch})
        write_atomic(self.folder / "history.csv", pd.DataFrame(self.state.history).to_csv(index=False))

    def _save(self, with_optimizer: bool = True) -> None:
        self._save_best()
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        if with_optimizer:
            tensors |= {f"optimizer.{k}": v for k, v in self.stepper.state().items()}
        write_tensors(self.folder / "last.safetensors", tensors, vars(self.state))

    def _load(self) -> None:
        last = self.folder / "last.safetensors"
        tensors, state = read_tensors(last)
        self.state = State.read(state, last)
        load_weights(self.model, {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}, self.folder)
        self.best, _ = read_tensors(self.folder / "best.safetensors")
        try:
            self.stepper.load_state({k[10:]: v for k, v in tensors.items() if k.startswith("optimizer.")})
        except (LookupError, ValueError, RuntimeError) as e:
            raise InputError(f"checkpoint {last} holds another optimizer's state; train that run again") from e

    def _finish(self) -> None:
        table = pd.DataFrame(self.state.history)
        summary = {
            "best_epoch": self.state.best_epoch,
            "epochs": self.state.epoch,
            "parameters": self.model.parameter_count(),
            "train_seconds": float(table["seconds"].sum()),
            # median: the first epoch warms caches up
            "clips_per_s": float(table["clips_per_s"].median()),
            "seconds_per_epoch": float(table["seconds"].median()),
            "pretrained": self.state.pretrained,
            "device": str(self.device),
            "precision": self.fabric.strategy.precision.precision,
            "devices": self.stepper.share[1],
        }
        write_atomic(self.folder / "done.json", json.dumps(summary, indent=1))

    def _line(self, row: dict[str, float]) -> str:
        terms = " · ".join(
            f"{k.removeprefix('train_')} {row[k]:.4g}" for k in row if k.startswith("train_")
        )  # fmt: skip
        left = (self.cfg.total_epochs - row["epoch"]) * row["seconds"] * 1.1
        return (
            f"epoch {row['epoch']}/{self.cfg.total_epochs} · {terms} · "
            f"{row['clips_per_s']:,.0f} clips/s · {clock(left)} left"
        )


def pretraining_of(config: RunConfig) -> RunConfig:
    """The plain run (Conv, or Basic for a fully connected backbone) whose training is a VaDE run's first phase."""
    plain = ModelConfig("conv_vae" if config.model.backbone == "conv" else "basic_vae", config.model.input_shape,
                        latent=config.model.latent, dropout=config.model.dropout)  # fmt: skip
    usual = TrainConfig()
    training = replace(
        config.training, epochs=config.training.pretrain_epochs, pretrain_epochs=0,
        mixture_lr=usual.mixture_lr, mixture_weight=usual.mixture_weight,
    )  # fmt: skip
    return replace(config, model=plain, training=training)


def _nearest(wanted: RunConfig) -> str:
    """What keeps the newest finished run of the same model and seed from being the one that is wanted."""
    done = wanted.folder.parent.glob(f"{wanted.model.name}*-s{wanted.training.seed}-*/done.json")
    for path in sorted(done, key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            there = RunConfig.from_dict(read_json(path.parent / "config.json")["config"]).to_dict()
        except (InputError, KeyError):
            continue  # damaged: nothing to compare with
        asked = wanted.to_dict()
        pairs = {**there, **there["training"], **there["model"]}, {**asked, **asked["training"], **asked["model"]}
        other = [k for k, v in pairs[1].items() if k not in ("training", "model") and pairs[0].get(k) != v]
        told = ", ".join(f"{k} {pairs[0].get(k)}, here {pairs[1][k]}" for k in other[:3] if k != "code")
        return f" ({path.parent.name} has {told or 'another version of the code'})"
    return ""


def check(config: RunConfig, store: Store, devices: int = 1) -> None:
    """Whether a run can be trained on a store by so many devices.

    Raises:
        InputError: another store, no other windows to answer with, or a batch that they cannot share equally.
    """
    if store.attrs["fingerprint"] != config.fingerprint or store.front_end != config.front_end:
        raise InputError(f"store {store.path.name} is not the one this run was configured for; open that one")
    if config.training.target == "other" and store.attrs.get("windows") == "start":
        raise InputError(
            f"every window of {store.path.name} is the first of its clip, there is no other one to answer with: use "
            "target 'same', or a store with windows 'anywhere'"
        )
    several.check_devices(devices, min(config.training.batch_size, len(store.rows("train"))))


def write_config(config: RunConfig, store: Store, **more: Any) -> Path:
    """Write the run's `config.json`, from which it can be trained and opened; what else it says is kept."""
    path = config.folder / "config.json"
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        kept = {}
    about = kept | {"config": config.to_dict(), **more, "store": str(store.path)}
    return write_atomic(path, json.dumps(about, indent=1))


def train(config: RunConfig, store: Store, *, resume: bool = True, show: bool | Callable[[str], None] = True) -> Path:
    """Train what `config` describes, or return at once if that very run is finished.

    A run is trained once at a time: who finds another process training it waits, and then has its result.

    Args:
        resume: Continue from the last checkpoint.
        show: Print the live line; or a function that is called with it.

    Returns:
        The run's folder.

    Raises:
        InputError: store and configuration do not belong together, the model cannot be built, or the processes that
            `torchrun` started cannot share a batch.
        TrainingDivergedError: the loss became NaN or infinite.
    """

    def finished() -> bool:
        return resume and (config.folder / "done.json").is_file()

    if finished():
        return config.folder
    check(config, store, several.launched() or 1)
    with _alone(config, show, finished):
        return config.folder if finished() else Trainer(config, store, show).run(resume)


@contextmanager
def _alone(config: RunConfig, show: bool | Callable[[str], None], finished: Callable[[], bool]) -> Iterator[None]:
    """The lock of a run's folder; of processes that train together the first one has it, and the others wait for that.

    They must not go on before: their partner would be missed by whatever they do together, for longer than they wait.
    """
    path, group = config.folder / ".lock", several.group()
    if several.rank():
        locks.wait_for(path, group, finished)
        yield
        return

    def say(who: str) -> None:
        line = f"{who} is training this run; waiting for it"
        if show is True:
            Progress(f"training {config.variant}").close(line)
        elif show:
            show(line)

    with locks.held(path, say, group):
        yield


def main() -> None:
    """`python -m vaelib.training CONFIG.json`: train one run; bad input ends with one sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m vaelib.training", description=main.__doc__)
    parser.add_argument("config", type=Path, help="config.json of a run")
    parser.add_argument("--lines", action="store_true", help="progress and errors as JSON, for a waiting process")
    given = parser.parse_args()
    show = (lambda line: several.tell(line=line)) if given.lines else True
    try:
        folder = train(*_read(given.config), show=show)
    except Exception as e:
        expected = isinstance(e, InputError | TrainingDivergedError)
        if expected and several.rank():  # usually all fail alike, and the first one says it
            time.sleep(PATIENCE_S)
        if given.lines:
            kind = InputError if isinstance(e, InputError) else type(e)
            several.tell(error=kind.__name__, message=str(e))
        if not expected:
            raise
        print(f"vaelib: {e}", file=sys.stderr)
        raise SystemExit(2 if isinstance(e, InputError) else 1) from None
    if not given.lines and not several.rank():
        print(folder)


def _read(path: Path) -> tuple[RunConfig, Store]:
    """Run and store of a `config.json`."""
    try:
        about = read_json(path)
        config, store = RunConfig.from_dict(about["config"]), str(about["store"])
    except (ValueError, KeyError) as e:
        raise InputError(f"{path} is no config.json of a run ({e}); make one with `vaelib train`") from e
    if config.code != code_version():
        raise InputError(f"{path} was written by another version of vaelib; train the run again from its notebook")
    return config, open_store(store, config.front_end)


if __name__ == "__main__":
    main()
