"""The one optimisation step, on whatever device Lightning Fabric finds, and where a training starts.

Importing it needs only what a bare GPU host has.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .config import InputError, TrainConfig
from .losses import OBJECTIVES
from .models import VAE, VaDE
from .windows import Clips

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SIGMA_RATE = 10.0  # σ is one number that travels far: it learns faster than the network
# Parts that learn while the encoder is held at its start
FREE_WHILE_HELD = ("decoder", "heads.logvar", "class_head", "class_means", "log_sigma", "mixture")


def resolve_precision(precision: str, device: str) -> str:
    """What `auto` means on a kind of device (`cuda`, `cpu`, …); any other precision is returned as it is.

    bf16 autocast on CUDA, and on processors where a convolution in bf16 is the faster one: 1.7 times where they compute
    in it, hundreds of times slower elsewhere.
    """
    if precision != "auto":
        return precision
    return "bf16-mixed" if device == "cuda" or (device == "cpu" and _bf16_is_faster()) else "32-true"


@cache
def _bf16_is_faster(seconds: float = 0.1) -> bool:
    """Try a convolution of the middle layers in both precisions, in turn, until the time is over."""
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    x, w = torch.full((8, 32, 32, 32), 0.5), torch.full((64, 32, 4, 4), 0.5)  # draws nothing: seeds stay as they are
    end = time.perf_counter() + seconds
    with torch.inference_mode():
        while time.perf_counter() < end:
            for dtype in best:
                a, b = (t.to(dtype, memory_format=torch.channels_last) for t in (x, w))
                started = time.perf_counter()
                nn.functional.conv2d(a, b, stride=2, padding=1)
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
    """Fused AdamW with one learning rate for the network, one for a learned σ and one for VaDE's mixture."""
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

    On several devices every process has its own stepper and gives it its part of each batch. Every process draws the
    noise of the codes for the whole batch and takes its rows: a network without dropout and batch normalisation takes
    the step that one process would take.

    `model` is the model itself on the device, `module` the same, compiled (on CUDA) and wrapped: what is called.
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
            x: Windows (B, 1, F, T) in [0, 1]; for cross-window targets and in VaDE's joint phase two of each clip.
            y: (B,) class indices, -1 for unknown.
            weights: Of the loss terms, see `losses.weights_at`.
            rate: Learning-rate factor.

        Returns:
            Detached means of this process's examples: `loss`, the unweighted terms (`nll`, `kl`, …) in nats, and `mse`
            per bin.
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


# --- where a training starts ---


def init_mixture(model: VaDE, codes: Tensor, seed: int) -> None:
    """Set VaDE's mixture without labels: K-Means on clip means, variances plus those between a clip's windows.

    With fewer clips than components the surplus ones start at random clips. Explained in notebook 06.

    Args:
        codes: (clip, window, L) posterior means of training clips.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means = codes.mean(1).cpu().double().numpy()
    within = codes.var(1, unbiased=False).mean(0).cpu().double().numpy()
    k, n = model.config.components, len(means)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the same audio under several names: fewer distinct clips
        found = KMeans(min(k, n), n_init=10, random_state=seed).fit(means)
    extra = np.random.default_rng(seed).integers(0, n, k - min(k, n))
    centres = np.concatenate([found.cluster_centers_, means[extra]])
    pooled = np.mean((means - found.cluster_centers_[found.labels_]) ** 2, 0)
    counts = np.bincount(found.labels_, minlength=k)
    squares = [((means[found.labels_ == c] - centre) ** 2).sum(0) for c, centre in enumerate(centres)]
    # five pseudo-members with the pooled variance: a component of one clip must not be a point
    variances = (np.array(squares) + 5 * pooled) / (counts[:, None] + 5) + within
    weights = (counts + 1) / (counts + 1).sum()
    tensors = (torch.as_tensor(a, dtype=torch.float32, device=codes.device) for a in (weights, centres, variances))
    model.set_mixture(*tensors)


@torch.no_grad()
def start_on_components(model: VAE, clips: Clips, n: int, seed: int) -> None:
    """Let the first `n` latent means be independent components of the clips' middle windows; no label is used.

    FastICA (Hyvärinen & Oja 2000; scikit-learn) on the `n` first principal components; the mean head's rows are the
    ridge regression of these on what the untrained encoder makes of the windows, its other rows are 0. Posteriors are
    narrow (log-variance -3) where there is a component, and the prior's elsewhere. Explained in notebook 04.

    Raises:
        InputError: fewer windows than components.
    """
    from sklearn.decomposition import PCA, FastICA
    from sklearn.exceptions import ConvergenceWarning

    _settle(model, clips)
    features, windows = [], []
    watch = model.heads.register_forward_pre_hook(lambda module, given: features.append(given[0].double()))
    for x in _middle_windows(clips):
        windows.append(x)
        model.encode(x)
    watch.remove()
    flat = torch.cat(windows).flatten(1).cpu().numpy()
    if min(flat.shape) < n:
        raise InputError(f"{n} components cannot be found in {len(flat)} windows: ask for fewer start_components")
    principal = PCA(n, random_state=seed).fit_transform(flat)
    principal /= principal.std(0) + 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = FastICA(n, whiten="unit-variance", max_iter=2000, random_state=seed).fit_transform(principal)
    h = torch.cat(features)
    wanted = torch.from_numpy(found / found.std(0)).to(h)
    centre = h.mean(0)
    gram = (h - centre) @ (h - centre).T
    gram += 1e-2 * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
    weight = (h - centre).T @ torch.linalg.solve(gram, wanted)  # (features, n)
    head, spread = model.heads.mean, model.heads.logvar
    for tensor in (head.weight, head.bias, spread.weight, spread.bias):
        tensor.zero_()
    head.weight[:n].copy_(weight.T)
    head.bias[:n].copy_(-(centre @ weight))
    spread.bias[:n].fill_(-3.0)


def _middle_windows(clips: Clips) -> Iterator[Tensor]:
    """The middle window of every clip, 64 (B, 1, F, T) at a time."""
    for index in torch.arange(len(clips), device=clips.mel.device).split(64):
        yield clips.even_windows(index, 1).squeeze(1)


def _settle(model: VAE, clips: Clips) -> None:
    """Give batch normalisation the statistics of the windows: those that training will use; then evaluation mode."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    usual = [m.momentum for m in norms]
    model.eval()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # the mean over all batches
        m.train()
    for x in _middle_windows(clips) if norms else ():
        if len(x) > 1:
            model.encode(x)
    for m, momentum in zip(norms, usual, strict=True):
        m.momentum = momentum
    model.eval()
