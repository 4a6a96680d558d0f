"""The one training loop: device and precision, schedules, checkpoints, resume, live progress."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from . import losses
from .checkpoints import environment, load_weights, read_tensors, write_tensors
from .config import InputError, RunConfig, TrainConfig, write_atomic
from .models import VAE, VaDE, build
from .progress import Progress, clock
from .store import Store
from .windows import Clips, StreamedClips

SAVE_EVERY_S = 20.0  # a killed run loses at most this much work
SIGMA_RATE = 10.0  # σ is one number that travels far: it learns faster than the network


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


@dataclass
class State:
    """Where a run stands; stored with every checkpoint."""

    epoch: int = 0
    best_epoch: int = -1
    best_loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Data:
    """Training and validation clips with their class indices (-1: unknown)."""

    train: Clips | StreamedClips
    validation: Clips
    train_y: Tensor
    validation_y: Tensor


def make_fabric(precision: str = "auto") -> Any:
    """Lightning Fabric on the accelerator that is there.

    `auto` precision is bf16 autocast where the hardware multiplies bf16 matrices (CUDA, CPUs with AMX), else fp32:
    without AMX, bf16 convolutions were measured at 0.66 of the speed of fp32.
    """
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if precision == "auto":
        precision = "bf16-mixed" if torch.cuda.is_available() or _has_amx() else "32-true"
    return Fabric(accelerator="auto", devices=1, precision=precision)


def _has_amx() -> bool:
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def load_data(store: Store, scaler: Any, condition: str, device: torch.device) -> Data:
    """Read the training and validation clips: onto the device or into memory if they fit, else streamed."""
    train, validation = store.rows("train"), store.rows("validation")
    if len(train) < 2:
        raise InputError(f"{store.path.name} has {len(train)} training clips; training needs at least two")
    need = len(train) * 2 * math.prod(store.log_mel.shape[1:])
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    clips = Clips.read(store, scaler, train, device) if need < 0.5 * free else StreamedClips(
        store, scaler, train, device=device
    )  # fmt: skip
    codes = (lambda rows: store.codes(condition, rows)) if condition else (lambda rows: np.full(len(rows), -1))
    return Data(
        clips,
        Clips.read(store, scaler, validation, device),
        torch.as_tensor(codes(train), device=device),
        torch.as_tensor(codes(validation), device=device),
    )


def weights_at(cfg: TrainConfig, epoch: float, mixture: bool, beta: float | None = None) -> dict[str, float]:
    """Weights of the loss terms at a (fractional) epoch: the KL warm-up and, for VaDE, the phase.

    Every model warms its KL up over the same share of its first phase; VaDE's joint phase needs none, because its
    mixture starts on the pretrained codes.
    """
    first = cfg.first_phase
    warm = losses.linear_warmup(epoch, first, cfg.kl_warmup) if not mixture else 1.0
    return {
        "nll": 1.0,
        "kl": warm * (cfg.beta if beta is None else beta),
        "class": cfg.class_weight,
        "mixture": cfg.mixture_weight if mixture else 0.0,
        "windows": 2.0 if mixture else 1.0,
    }


def make_optimizer(model: VAE, cfg: TrainConfig) -> torch.optim.Optimizer:
    """Fused AdamW with one learning rate for the network, one for σ and one for VaDE's mixture."""
    mixture = list(model.mixture.parameters()) if isinstance(model, VaDE) else []
    special = {id(p) for p in [*mixture, model.log_sigma]}
    network = [p for p in model.parameters() if id(p) not in special]
    groups = [
        {"params": network, "peak": cfg.lr, "weight_decay": cfg.weight_decay},
        {"params": [model.log_sigma], "peak": SIGMA_RATE * cfg.lr, "weight_decay": 0.0},
        {"params": mixture, "peak": cfg.mixture_lr, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=cfg.lr, fused=True)


@torch.inference_mode()
def window_codes(model: VAE, clips: Clips, windows: int, batch_size: int = 64) -> Tensor:
    """(clip, windows, L): posterior means of evenly spaced windows; classes are inferred."""
    model.eval()
    n, parts = len(clips), []
    for i in range(0, n, batch_size):
        x = clips.even_windows(torch.arange(i, min(i + batch_size, n), device=clips.mel.device), windows)
        parts.append(model.encode(x.flatten(0, 1)).mean.unflatten(0, (-1, windows)))
    return torch.cat(parts)


def init_mixture(model: VaDE, codes: Tensor, seed: int) -> None:
    """Set VaDE's mixture without labels: K-Means on clip means, variances plus those between a clip's windows.

    Without the within-clip variance the components are too narrow for single windows. With fewer clips than
    components the surplus ones start at random clips.

    Args:
        codes: (clip, window, L) posterior means of training clips.
    """
    from sklearn.cluster import KMeans

    means = codes.mean(1).cpu().double().numpy()
    within = codes.var(1, unbiased=False).mean(0).cpu().double().numpy() if codes.shape[1] > 1 else 0.0
    k, n = model.config.components, len(means)
    found = KMeans(min(k, n), n_init=4, random_state=seed).fit(means)
    extra = np.random.default_rng(seed).integers(0, n, k - min(k, n))
    centres = np.concatenate([found.cluster_centers_, means[extra]])
    pooled = np.mean((means - found.cluster_centers_[found.labels_]) ** 2, 0)
    counts = np.bincount(found.labels_, minlength=k)
    variances = np.empty_like(centres)
    for c in range(k):
        own = means[found.labels_ == c]
        # five pseudo-members with the pooled variance: a component of one clip must not be a point
        spread = ((own - centres[c]) ** 2).sum(0) if len(own) else 0.0
        variances[c] = (spread + 5 * pooled) / (len(own) + 5) + within
    as_tensor = lambda a: torch.as_tensor(a, dtype=torch.float32, device=codes.device)  # noqa: E731
    model.set_mixture(as_tensor((counts + 1) / (counts + 1).sum()), as_tensor(centres), as_tensor(variances))


class Trainer:
    """One run: builds the model, trains it, and leaves its folder complete.

    Args:
        config: What to train.
        store: The mel store that `config` names.
        show: Print the live line.
    """

    def __init__(self, config: RunConfig, store: Store, show: bool = True) -> None:
        if store.attrs["fingerprint"] != config.fingerprint or store.front_end != config.front_end:
            raise InputError(f"store {store.path.name} is not the one this run was configured for; open that one")
        self.config, self.cfg, self.store, self.show = config, config.training, store, show
        self.folder, self.state = config.folder, State()
        self.fabric = make_fabric(self.cfg.precision)
        self.device = self.fabric.device
        torch.manual_seed(self.cfg.seed)
        self.model = build(config.model).to(self.device, memory_format=torch.channels_last)
        self.scaler = store.fit_scaler(config.detilt)
        self.data = load_data(store, self.scaler, config.model.condition, self.device)
        self.optimizer = make_optimizer(self.model, self.cfg)
        compiled = torch.compile(self.model) if self.device.type == "cuda" else self.model
        self.module, self.optimizer = self.fabric.setup(compiled, self.optimizer)
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
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {
            "config": self.config.to_dict(),
            "scaler": self.scaler.to_dict(),
            "environment": environment(),
        }
        write_atomic(self.folder / "config.json", json.dumps(about | {"store": str(self.store.path)}, indent=1))
        if resume and (self.folder / "last.safetensors").is_file():
            self._load()
        progress = Progress(f"training {self.config.variant}") if self.show else None
        saved = time.monotonic()
        while self.state.epoch < self.cfg.total_epochs:
            try:
                row = self._epoch(self.state.epoch)
            except TrainingDivergedError:
                if self.best:
                    self._save_best()
                raise
            self._keep_best(row)
            self.state.history.append(row)
            self.state.epoch += 1
            if progress:
                progress.show(self._line(row), force=self.state.epoch == self.cfg.total_epochs)
            if time.monotonic() - saved > SAVE_EVERY_S:
                self._save()
                saved = time.monotonic()
        self._save(with_optimizer=False)
        if progress:
            progress.close(self._line(self.state.history[-1]))
        return self._finish()

    # --- one epoch ---------------------------------------------------------------------------------------------

    def _epoch(self, epoch: int) -> dict[str, float]:
        """Train and validate once; all randomness comes from (seed, epoch), so that a resumed run is equal."""
        torch.manual_seed(hash((self.cfg.seed, epoch)) % 2**63)
        mixture = isinstance(self.model, VaDE) and epoch >= self.cfg.pretrain_epochs
        if mixture and not bool(self.model.mixture_ready):
            init_mixture(self.model, window_codes(self.model, self._sample(), self.cfg.eval_windows), self.cfg.seed)
            self.state.best_loss = math.inf
        self.module.train()
        sums, count, started = {}, 0, time.monotonic()
        for step, (x, y) in enumerate(self._batches(mixture)):
            at = epoch + min(1.0, step * self.cfg.batch_size / len(self.data.train))
            self._step_number = step + 1
            terms = self._step(x, y, weights_at(self.cfg, at, mixture), self._rate(at))
            sums = {k: sums.get(k, 0) + v for k, v in terms.items()}
            count += 1
            self._windows = len(x) if mixture or self.cfg.target == "same" else len(x) // 2
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - started
        means = {k: float(v) / count for k, v in sums.items()}
        self._check(means, epoch)
        row = {
            "epoch": epoch + 1,
            "phase": "joint" if mixture else "vae",
            **{f"train_{k}": v for k, v in means.items()},
        }
        row |= {f"validation_{k}": v for k, v in self._validate(mixture).items()}
        row |= {
            "kl_weight": weights_at(self.cfg, epoch + 1, mixture)["kl"],
            "sigma": float(self.model.log_sigma.detach().exp()),
        }
        return row | {"seconds": seconds, "clips_per_s": count * self._windows / seconds}

    def _batches(self, mixture: bool) -> Iterator[tuple[Tensor, Tensor]]:
        per_clip = 2 if mixture or self.cfg.target == "other" else 1
        for x, index in self.data.train.batches(min(self.cfg.batch_size, len(self.data.train)), per_clip):
            yield x, self.data.train_y[index].repeat_interleave(per_clip)

    def _source_and_target(self, x: Tensor, y: Tensor, mixture: bool) -> tuple[Tensor, Tensor, Tensor]:
        """What is encoded, what is to be decoded, and the classes; of pairs, each window answers with the other."""
        if self.cfg.target == "same":
            return x, x, y
        if mixture:
            return x, x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1), y
        return x[0::2], x[1::2], y[0::2]

    def _rate(self, at: float) -> float:
        """Learning-rate factor at a fractional epoch; each phase has its own rise and fall."""
        first = self.cfg.pretrain_epochs
        start, length = (0, first) if at < first else (first, self.cfg.epochs)
        steps = -(-len(self.data.train) // self.cfg.batch_size)
        return losses.cosine_rate(round((at - start) * steps), length * steps)

    def _step(self, x: Tensor, y: Tensor, weights: dict[str, float], rate: float) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        x, target, y = self._source_and_target(x, y, bool(weights["mixture"]))
        out = self.module(x, y if self.config.model.condition else None)
        loss = losses.OBJECTIVES[self.config.model.name](self.model, target, out, y, weights)
        total = loss.total()
        bad = ~torch.isfinite(total.detach())
        if self.device.type == "cpu":
            if bad:
                self._bad_step.fill_(self._step_number)
                self._check({k: float(v) for k, v in loss.means().items()}, self.state.epoch)
        else:  # no synchronisation per step: the first bad one is read at the end of the epoch
            self._bad_step = torch.where(bad & (self._bad_step == 0), self._step_number, self._bad_step)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(total)
        self.fabric.clip_gradients(self.module, self.optimizer, max_norm=self.cfg.grad_clip, error_if_nonfinite=False)
        self.optimizer.step()
        mse = (target - out.recon.detach()).square().mean()
        return {"loss": total.detach(), **loss.means(), "mse": mse}

    @torch.no_grad()
    def _validate(self, mixture: bool) -> dict[str, float]:
        """Validation terms at the final β: losses of different epochs are comparable after warm-up."""
        clips = self.data.validation
        if not len(clips):
            return {}
        self.module.eval()
        torch.manual_seed(self.cfg.seed)
        windows = 2 if mixture or self.cfg.target == "other" else 1
        weights = weights_at(self.cfg, math.inf, mixture)
        sums: dict[str, float] = {}
        for i in range(0, len(clips), self.cfg.batch_size):
            index = torch.arange(i, min(i + self.cfg.batch_size, len(clips)), device=self.device)
            x = clips.even_windows(index, windows).flatten(0, 1)
            y = self.data.validation_y[index].repeat_interleave(windows)
            x, target, y = self._source_and_target(x, y, mixture)
            out = self.module(x, y if self.config.model.condition else None)
            loss = losses.OBJECTIVES[self.config.model.name](self.model, target, out, y, weights)
            found = {"loss": loss.total(), **loss.means(), "mse": (target - out.recon).square().mean()}
            for k, v in found.items():
                sums[k] = sums.get(k, 0.0) + float(v) * len(index)
        return {k: v / len(clips) for k, v in sums.items()}

    def _check(self, terms: dict[str, float], epoch: int) -> None:
        bad = [name for name, value in terms.items() if name != "loss" and not math.isfinite(value)]
        if bad or not math.isfinite(terms.get("loss", 0.0)):
            kept = f"the last good checkpoint is kept in {self.folder}" if self.best else "no checkpoint was reached"
            raise TrainingDivergedError(
                f"training of {self.config.run_id} stopped: {', '.join(bad) or 'loss'} became non-finite in epoch "
                f"{epoch + 1}, step {int(self._bad_step)}; {kept}: lower lr or raise kl_warmup"
            )

    def _sample(self, most: int = 4096) -> Clips:
        """Training clips in memory for the mixture's initialisation."""
        if isinstance(self.data.train, Clips):
            return self.data.train
        rows = np.sort(np.random.default_rng(self.cfg.seed).permutation(self.data.train.rows)[:most])
        return Clips.read(self.store, self.scaler, rows, self.device)

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
            for i, values in self.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in values.items()}
        write_tensors(self.folder / "last.safetensors", tensors, vars(self.state))

    def _load(self) -> None:
        tensors, state = read_tensors(self.folder / "last.safetensors")
        self.state = State(**state)
        load_weights(self.model, {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}, self.folder)
        self.best, _ = read_tensors(self.folder / "best.safetensors")
        optimizer = self.optimizer.state_dict()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, i, name = key.split(".")
                if value.dim():  # fused AdamW walks memory: moments lie as their parameter does (channels_last)
                    value = torch.empty_like(parameters[int(i)]).copy_(value)
                optimizer["state"].setdefault(int(i), {})[name] = value
        self.optimizer.load_state_dict(optimizer)

    def _finish(self) -> Path:
        table = pd.DataFrame(self.state.history)
        summary = {
            "best_epoch": self.state.best_epoch,
            "epochs": self.state.epoch,
            "parameters": self.model.parameter_count(),
            "train_seconds": float(table["seconds"].sum()),
            # median: the first epoch warms caches up
            "clips_per_s": float(table["clips_per_s"].median()),
            "seconds_per_epoch": float(table["seconds"].median()),
            "device": str(self.device),
        }
        write_atomic(self.folder / "done.json", json.dumps(summary, indent=1))
        return self.folder

    def _line(self, row: dict[str, float]) -> str:
        terms = " · ".join(
            f"{k.removeprefix('train_')} {row[k]:.4g}" for k in row if k.startswith("train_")
        )  # fmt: skip
        left = (self.cfg.total_epochs - row["epoch"]) * row["seconds"] * 1.1
        return (
            f"epoch {row['epoch']}/{self.cfg.total_epochs} · {terms} · "
            f"{row['clips_per_s']:,.0f} clips/s · {clock(left)} left"
        )


def train(config: RunConfig, store: Store, *, resume: bool = True, show: bool = True) -> Path:
    """Train what `config` describes, or return at once if that very run is finished.

    Returns:
        The run's folder.

    Raises:
        InputError: store and configuration do not belong together, or the model cannot be built.
        TrainingDivergedError: the loss became NaN or infinite.
    """
    if resume and (config.folder / "done.json").is_file():
        return config.folder
    return Trainer(config, store, show).run(resume)
