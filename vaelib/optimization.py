"""The one optimisation step, on whatever device Lightning Fabric finds; the same in training and in a benchmark.

Imports only what a bare GPU host has.
"""

from __future__ import annotations

import logging
import math
import time
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import ModelConfig, TrainConfig
from .losses import OBJECTIVES, weights_at
from .models import MODELS, VAE, VaDE, build
from .windows import Clips

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from .store import Store

SIGMA_RATE = 10.0  # σ is one number that travels far: it learns faster than the network
# Parts that learn while the encoder is held at its start
FREE_WHILE_HELD = ("decoder", "heads.logvar", "class_head", "class_means", "log_sigma", "mixture")


def resolve_precision(precision: str, device: str) -> str:
    """What `auto` means on a kind of device (`cuda`, `cpu`, …); any other precision is returned as it is.

    bf16 autocast on CUDA, and on processors where a convolution in bf16 is the faster one: 1.6 to 1.8 times with AMX
    or avx512_bf16, but hundreds of times slower without either, so that only trying tells.
    """
    if precision != "auto":
        return precision
    return "bf16-mixed" if device == "cuda" or (device == "cpu" and _bf16_is_faster()) else "32-true"


@cache
def _bf16_is_faster(seconds: float = 0.1) -> bool:
    """Try a convolution of the middle layers in both precisions, in turn, until the time is over."""
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    end, generator = time.perf_counter() + seconds, torch.Generator().manual_seed(0)
    x, w = torch.randn(8, 32, 32, 32, generator=generator), torch.randn(64, 32, 4, 4, generator=generator)
    tensors = {d: [t.to(d, memory_format=torch.channels_last) for t in (x, w)] for d in best}
    with torch.inference_mode():
        while time.perf_counter() < end:
            for dtype, (a, b) in tensors.items():
                started = time.perf_counter()
                functional.conv2d(a, b, stride=2, padding=1)
                best[dtype] = min(best[dtype], time.perf_counter() - started)
    return best[torch.bfloat16] < 0.9 * best[torch.float32]


def make_fabric(precision: str = "auto", devices: int = 1, accelerator: str = "auto") -> Fabric:
    """Lightning Fabric on the accelerator that is there; of several devices (NCCL, or Gloo on CPUs) this process's."""
    from lightning_fabric import Fabric  # seconds of imports, only where something is trained

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    strategy = "ddp" if devices > 1 else "auto"
    precision = resolve_precision(precision, accelerator)
    fabric = Fabric(accelerator=accelerator, devices=devices, strategy=strategy, precision=precision)
    fabric.launch()
    return fabric


def make_optimizer(model: VAE, cfg: TrainConfig) -> torch.optim.Optimizer:
    """Fused AdamW with one learning rate for the network, one for σ and one for VaDE's mixture."""
    mixture = list(model.mixture.parameters()) if isinstance(model, VaDE) else []
    special = {id(p) for p in [*mixture, model.log_sigma]}
    network = [p for p in model.parameters() if id(p) not in special]
    groups = [
        {"params": network, "peak": cfg.lr, "weight_decay": cfg.weight_decay},
        {"params": [] if cfg.sigma else [model.log_sigma], "peak": SIGMA_RATE * cfg.lr, "weight_decay": 0.0},
        {"params": mixture, "peak": cfg.mixture_lr, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=cfg.lr, fused=True)


class Stepper:
    """One optimisation step: forward, loss, backward, clipped gradient, AdamW; the same for training and benchmark.

    On several devices every process has its own stepper and gives it its part of each batch. Gradients are averaged,
    and every process draws the noise of the codes for the whole batch and takes its rows, so that a network without
    dropout and batch normalisation takes the step that one process would take.

    Attributes:
        model: The model itself, on the device.
        module: The same, compiled (on CUDA) and wrapped: what is called.
        optimizer: AdamW of `make_optimizer`.
        share: (process, processes).
    """

    def __init__(self, model: VAE, cfg: TrainConfig, fabric: Fabric) -> None:
        self.cfg, self.fabric, self.share = cfg, fabric, (fabric.global_rank, fabric.world_size)
        self.model = model.to(fabric.device, memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.model, cfg)
        self._held = [p for name, p in self.model.named_parameters() if not name.startswith(FREE_WHILE_HELD)]
        self._holding = False
        self.model.log_sigma.requires_grad_(not cfg.sigma)
        # every shape by itself: VaDE's second phase has other batches, and code for any shape would be slower for all
        compiled = torch.compile(self.model, dynamic=False) if fabric.device.type == "cuda" else self.model
        self.module, self._optimizer = fabric.setup(compiled, self.optimizer)

    def __call__(self, x: Tensor, y: Tensor, weights: dict[str, float], rate: float) -> dict[str, Tensor]:
        """Take one step; on CUDA nothing waits for the device.

        Args:
            x: Windows (B, 1, F, T) in [0, 1]; for cross-window targets and in VaDE's joint phase two windows of each
                clip after each other.
            y: (B,) class indices, -1 for unknown.
            weights: Of the loss terms, see `losses.weights_at`.
            rate: Learning-rate factor.

        Returns:
            Detached scalars, means of this process's examples: `loss`, the unweighted terms (`nll`, `kl`, …) in nats,
            and `mse` per bin.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        loss, terms = self._loss(self.module, x, y, weights)
        # Several processes wait for a gradient of every parameter, but VaDE's mixture has no part in the first phase:
        # its gradients are zero there, and forgotten, so that AdamW leaves it alone.
        idle = list(self.model.mixture.values()) if isinstance(self.model, VaDE) and not weights["mixture"] else []
        for p in idle:
            loss = loss + 0.0 * p.sum()
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        for p in [*idle, *(self._held if self._holding else ())]:
            p.grad = None
        self.fabric.clip_gradients(self.module, self._optimizer, max_norm=self.cfg.grad_clip, error_if_nonfinite=False)
        self._optimizer.step()
        return terms

    @torch.no_grad()
    def measure(self, x: Tensor, y: Tensor, weights: dict[str, float]) -> dict[str, Tensor]:
        """What `__call__` returns, without a step and in this process alone."""
        with self.fabric.autocast():
            return self._loss(self.model, x, y, weights, alone=True)[1]

    def _loss(
        self, module: nn.Module, x: Tensor, y: Tensor, weights: dict[str, float], alone: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if weights["sigma"]:
            self.model.log_sigma.data.fill_(math.log(weights["sigma"]))
        target = x
        if self.cfg.target == "other" and weights["mixture"]:  # each window of a pair answers with the other
            target = x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
        elif self.cfg.target == "other":
            x, target, y = x[0::2], x[1::2], y[0::2]
        rank, processes = (0, 1) if alone else self.share
        n, latent = len(x), self.model.config.latent
        noise = torch.randn(processes * n, latent, device=x.device)[rank * n : (rank + 1) * n]
        given = y if self.model.config.condition else None
        # noise as a function: Fabric rounds the tensors among the arguments to bf16 under autocast
        out = module(x, given, draw=lambda mean: noise)
        terms = OBJECTIVES[self.model.config.name](self.model, target, out, y, weights)
        total = terms.total()
        mse = (target - out.recon.detach()).square().mean()
        return total, {"loss": total.detach(), **terms.means(), "mse": mse}

    def hold(self, holding: bool) -> None:
        """Hold the encoder and the mean head as they are (`start_on_components`), or let them learn again."""
        self._holding = holding
        if self.share[1] == 1:  # several processes agreed at first on the parameters that have gradients
            for p in self._held:
                p.requires_grad_(not holding)

    def state(self) -> dict[str, Tensor]:
        """What the optimizer remembers of each parameter, `<number>.<name>`."""
        found = self.optimizer.state_dict()["state"]
        return {f"{i}.{name}": torch.as_tensor(v) for i, values in found.items() for name, v in values.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Set what `state` returned."""
        optimizer = self.optimizer.state_dict()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for key, value in tensors.items():
            i, name = key.split(".")
            if value.dim():  # fused AdamW walks memory: moments lie as their parameter does (channels_last)
                value = torch.empty_like(parameters[int(i)]).copy_(value)
            optimizer["state"].setdefault(int(i), {})[name] = value
        self.optimizer.load_state_dict(optimizer)


def throughput(store: Store, rounds: int = 3, steps: int = 4, batch_size: int = 32) -> dict[str, np.ndarray]:
    """Training speed of every model at its own objective, VaDE in its joint phase; explained in notebook 07.

    A step is what training does. The models take turns in one process, so that whatever else the machine does meets
    all of them: ratios hold even where the figures wander.

    Args:
        store: At most 1,024 of its training clips are used; nothing is written.
        rounds: Turns of every model, each after a step to warm up.
        steps: Steps per turn; fewer where they would take longer than about 5 s.
        batch_size: Clips per step.

    Returns:
        Clips per second of each model (rounds,); without a label of two classes there is no conditional model.
    """
    fabric, all_rows = make_fabric(), store.rows("train")
    rows = all_rows[np.unique(np.linspace(0, len(all_rows) - 1, 1024).astype(int))]
    clips = Clips.read(store, store.fit_scaler(), rows, fabric.device)
    label = next((c for c in ("language", "genre") if store.table[c][store.table[c] != "unlabelled"].nunique() > 1), "")

    def turn(stepper: Stepper, y: Tensor, n: int) -> float:
        joint = isinstance(stepper.model, VaDE)
        windows, weights, done = 1 + joint, weights_at(stepper.cfg, math.inf, joint), 0
        started = time.perf_counter()
        for _ in range(n):
            x, index = next(clips.batches(min(batch_size, len(clips)), windows))
            terms = stepper(x, y[index].repeat_interleave(windows), weights, 1.0)
            done += len(index)
        float(terms["loss"])  # waits for the device
        return done / (time.perf_counter() - started)

    rates: dict[str, list[float]] = {name: [] for name in MODELS if label or name != "cvae"}
    for name in [*rates] * rounds:
        classes = tuple(store.classes(label)) if name == "cvae" else ()
        y = store.codes(label, rows) if classes else np.full(len(rows), -1)
        config = ModelConfig(name, store.front_end.shape, condition=label if classes else "", classes=classes)
        given = Stepper(build(config), TrainConfig(), fabric), torch.as_tensor(y, device=fabric.device)
        given[0].module.train()
        turn(*given, 1)
        rates[name].append(turn(*given, max(1, min(steps, round(5 * turn(*given, 1) / batch_size)))))
    return {name: np.array(found) for name, found in rates.items()}
