"""What one optimisation step is, the same in training and in a benchmark; and where codes and mixtures start.

Imports only torch and numpy (the two starts alone ask for scikit-learn, when they are called).
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from . import losses
from .config import InputError, TrainConfig, one_of
from .models import VAE, VaDE

if TYPE_CHECKING:
    from .windows import Clips, StreamedClips

SIGMA_RATE = 10.0  # σ is one number that travels far: it learns faster than the network
PRECISIONS = ("auto", "32-true", "bf16-mixed")


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """What `auto` means on a device; any other precision is returned as it is.

    bf16 autocast on CUDA, and on processors where a convolution in bf16 is the faster one: 1.6 to 1.8 times with AMX
    or avx512_bf16, but hundreds of times slower without either, so that only trying tells.
    """
    if precision != "auto":
        return precision
    kind = torch.device(device).type
    return "bf16-mixed" if kind == "cuda" or (kind == "cpu" and _bf16_is_faster()) else "32-true"


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


def weights_at(cfg: TrainConfig, epoch: float, mixture: bool, windows: int = 2) -> dict[str, float]:
    """Weights of the loss terms at a (fractional) epoch: the KL warm-up and, for VaDE, the phase.

    Every model warms its KL up over the same share of its first phase; VaDE's joint phase needs none, because its
    mixture starts on the pretrained codes.

    Args:
        mixture: Whether this is VaDE's joint phase.
        windows: Windows of a clip that share a cluster variable in the joint phase.
    """
    first = cfg.first_phase
    warm = losses.linear_warmup(epoch, first, cfg.kl_warmup) if not mixture else 1.0
    return {
        "nll": 1.0,
        "kl": warm * cfg.beta,
        "class": cfg.class_weight,
        "mixture": cfg.mixture_weight if mixture else 0.0,
        "windows": float(windows) if mixture else 1.0,
        "sigma": sigma_at(cfg, epoch),
    }


def sigma_at(cfg: TrainConfig, epoch: float) -> float:
    """Fixed standard deviation of the likelihood at a (fractional) epoch; 0 where it is learned."""
    share = min(1.0, epoch / cfg.first_phase)
    return cfg.sigma * (cfg.sigma_end / cfg.sigma) ** share if cfg.sigma_end else cfg.sigma


def rate_at(cfg: TrainConfig, epoch: float, clips: int) -> float:
    """Learning-rate factor at a (fractional) epoch over `clips` training clips; each phase has its rise and fall."""
    first = cfg.pretrain_epochs
    start, length = (0, first) if epoch < first else (first, cfg.epochs)
    steps = -(-clips // cfg.batch_size)
    return losses.cosine_rate(round((epoch - start) * steps), length * steps)


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


@torch.inference_mode()
def window_codes(model: VAE, clips: Clips | StreamedClips, windows: int, batch_size: int = 64) -> Tensor:
    """(clip, windows, L): posterior means of evenly spaced windows, each window once; classes are inferred."""
    model.eval()
    windows, parts = clips.distinct(windows), []
    for some in clips.in_order():
        for index in torch.arange(len(some), device=some.mel.device).split(batch_size):
            x = some.even_windows(index, windows)
            parts.append(model.encode(x.flatten(0, 1)).mean.unflatten(0, (-1, windows)))
        del some  # before the next are read: never two pools in memory
    return torch.cat(parts)


def init_mixture(model: VaDE, codes: Tensor, seed: int) -> None:
    """Set VaDE's mixture without labels: K-Means on clip means, variances plus those between a clip's windows.

    Without the within-clip variance the components are too narrow for single windows. With fewer clips than
    components the surplus ones start at random clips.

    Args:
        codes: (clip, window, L) posterior means of training clips.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means = codes.mean(1).cpu().double().numpy()
    within = codes.var(1, unbiased=False).mean(0).cpu().double().numpy() if codes.shape[1] > 1 else 0.0
    k, n = model.config.components, len(means)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the same audio under several names: fewer distinct clips
        found = KMeans(min(k, n), n_init=10, random_state=seed).fit(means)  # as K-Means afterwards is given
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


@torch.no_grad()
def start_on_components(model: VAE, clips: Clips | StreamedClips, n: int, seed: int) -> None:
    """Let the first `n` latent means be independent components of the training windows; no label is used.

    FastICA (Hyvärinen & Oja 2000; scikit-learn) on the `n` first principal components; the mean head's rows are the
    ridge regression of these on what the untrained encoder makes of the windows, its other rows are 0. Posteriors are
    narrow (log-variance -3) where there is a component, and the prior's elsewhere.

    Args:
        model: Before training; changed in place.
        clips: Training clips; the middle window of each is used.

    Raises:
        InputError: fewer windows than components, or components that are not there.
    """
    from sklearn.decomposition import PCA, FastICA
    from sklearn.exceptions import ConvergenceWarning

    _settle(model, clips)
    seen: list[Tensor] = []  # what the heads are given, whatever the model puts in front of them
    watch = model.heads.register_forward_pre_hook(lambda module, given: seen.append(given[0].float()))
    windows = []
    for some in clips.in_order():
        for index in torch.arange(len(some), device=some.mel.device).split(64):
            windows.append(some.even_windows(index, 1).squeeze(1))
            model.encode(windows[-1])
    watch.remove()
    flat = torch.cat(windows).flatten(1).cpu().numpy()
    if min(flat.shape) < n or n > model.config.latent:
        raise InputError(f"{n} components cannot be found in {len(flat)} windows or put into {model.config.latent} "
                         "latent dimensions: ask for fewer")  # fmt: skip
    principal = PCA(n, random_state=seed).fit_transform(flat)
    principal /= principal.std(0) + 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = FastICA(n, whiten="unit-variance", max_iter=2000, random_state=seed).fit_transform(principal)
    features = torch.cat(seen).double()
    wanted = torch.from_numpy(found / found.std(0)).to(features)
    mean = features.mean(0)
    centred = features - mean
    gram = centred @ centred.T
    gram += 1e-2 * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
    weight = centred.T @ torch.linalg.solve(gram, wanted)  # (features, n)
    head, spread = model.heads.mean, model.heads.logvar
    for tensor in (head.weight, head.bias, spread.weight, spread.bias):
        tensor.zero_()
    head.weight[:n].copy_(weight.T)
    head.bias[:n].copy_(-(mean @ weight))
    spread.bias[:n].fill_(-3.0)


def _settle(model: VAE, clips: Clips | StreamedClips) -> None:
    """Give batch normalisation the statistics of the windows: those that training will use; then evaluation mode."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    usual = [m.momentum for m in norms]
    model.eval()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # the mean over all batches
        m.train()
    for some in clips.in_order() if norms else ():
        for index in torch.arange(len(some), device=some.mel.device).split(64):
            if len(index) > 1:
                model.encode(some.even_windows(index, 1).squeeze(1))
    for m, momentum in zip(norms, usual, strict=True):
        m.momentum = momentum
    model.eval()


# Parts that learn while the encoder is held at its start
FREE_WHILE_HELD = ("decoder", "heads.logvar", "class_head", "class_means", "log_sigma", "mixture")


class Stepper:
    """One optimisation step: forward, loss, backward, clipped gradient, AdamW; the same for training and benchmark.

    On several devices every process has its own stepper and gives it its part of each batch. Gradients are averaged,
    and every process draws the noise of the codes for the whole batch and takes its rows, so that a network without
    dropout and batch normalisation takes the step that one process would take. Dropout draws other masks in every
    process, and batch normalisation looks at a process's own part (`average_statistics` joins what it remembers).

    Args:
        model: Moved to the device and to channels_last; compiled on CUDA. Its mode (`train`, `eval`) is the caller's.
        cfg: Learning rates, clipping and target; its `precision` is not read.
        device: Where to compute.
        precision: `auto`, `32-true` or `bf16-mixed`; not read where `fabric` is given, which brings its own.
        fabric: A launched `lightning_fabric.Fabric`, or None for plain PyTorch on one device.

    Attributes:
        model: The model itself.
        module: The same, compiled and wrapped: what is called.
        optimizer: AdamW of `make_optimizer`.
        share: (process, processes).
        alone: Whether this process is the only one.

    Raises:
        InputError: unknown precision (without a fabric).
    """

    def __init__(
        self, model: VAE, cfg: TrainConfig, device: torch.device | str, precision: str = "auto", fabric: Any = None
    ) -> None:
        self.cfg, self.device, self.fabric = cfg, torch.device(device), fabric
        self.model = model.to(self.device, memory_format=torch.channels_last)
        # every shape by itself: VaDE's second phase has other batches, and code for any shape would be slower for all
        self.module = torch.compile(self.model, dynamic=False) if self.device.type == "cuda" else self.model
        self.optimizer = make_optimizer(self.model, cfg)
        self._held = [p for name, p in self.model.named_parameters() if not name.startswith(FREE_WHILE_HELD)]
        self._holding = self._half = False
        if cfg.sigma:
            self.model.log_sigma.requires_grad_(False)
        self.share = (0, 1)
        if fabric is None:
            self._half = resolve_precision(one_of("precision", precision, PRECISIONS), device) == "bf16-mixed"
        else:
            self.share = (fabric.global_rank, fabric.world_size)
            self.module, self.optimizer = fabric.setup(self.module, self.optimizer)
        self.alone = self.share[1] == 1
        self._drops = any(isinstance(m, nn.Dropout) and m.p > 0 for m in self.model.modules())

    def __call__(self, x: Tensor, y: Tensor, weights: dict[str, float], rate: float) -> dict[str, Tensor]:
        """Take one step; on CUDA nothing waits for the device.

        Args:
            x: Windows (B, 1, F, T) in [0, 1]; for cross-window targets and in VaDE's joint phase two windows of each
                clip after each other.
            y: (B,) class indices, -1 for unknown.
            weights: Of the loss terms, see `weights_at`.
            rate: Learning-rate factor.

        Returns:
            Detached scalars, means of this process's examples: `loss`, the unweighted terms (`nll`, `kl`, …) in nats,
            and `mse` per bin.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        mixture = bool(weights["mixture"])
        self._set_sigma(weights)
        x, target, y = self._source_and_target(x, y, mixture)
        # one process whose network draws dropout masks draws the noise after them, as ever
        noise = None if self.alone and self._drops else self._own_rows(len(x))
        with self._own_masks():
            loss, mse = self._measure(x, target, y, weights, noise)
        total = loss.total()
        self.optimizer.zero_grad(set_to_none=True)
        self._backward(total, mixture)
        self._clip()
        self.optimizer.step()
        return {"loss": total.detach(), **loss.means(), "mse": mse}

    def measure(
        self, x: Tensor, y: Tensor, weights: dict[str, float], noise: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What `__call__` returns, without a step.

        Args:
            noise: Standard normal (codes, L) to draw the codes with; drawn if None.
        """
        self._set_sigma(weights)
        given = self._source_and_target(x, y, bool(weights["mixture"]))
        # a few batches of each epoch, the last one of another size, are not worth a compilation each
        with torch.compiler.set_stance("force_eager"):
            loss, mse = self._measure(*given, weights, noise)
        return {"loss": loss.total().detach(), **loss.means(), "mse": mse}

    def hold(self, holding: bool) -> None:
        """Hold the encoder and the mean head as they are (`start_on_components`), or let them learn again."""
        self._holding = holding
        if self.alone:  # several processes wait for a gradient of every parameter: there it is forgotten afterwards
            for p in self._held:
                p.requires_grad_(not holding)

    def forget(self) -> None:
        """Begin with a fresh optimizer, as at the start of a phase."""
        for state in self.optimizer.state_dict()["state"].values():
            for value in state.values():
                value.zero_()

    def _set_sigma(self, weights: dict[str, float]) -> None:
        if weights["sigma"]:
            self.model.log_sigma.data.fill_(math.log(weights["sigma"]))

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

    def gather(self, value: Any) -> list[Any]:
        """`value` of every process, by rank."""
        found = [value]
        if not self.alone:
            found *= self.share[1]
            torch.distributed.all_gather_object(found, value)
        return found

    @torch.no_grad()
    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        for tensor in () if self.alone else tensors:
            torch.distributed.broadcast(tensor, 0)

    @torch.no_grad()
    def average_statistics(self) -> None:
        """Give every process the mean of what the processes' batch normalisations remember."""
        norms = [] if self.alone else [m for m in self.model.modules() if isinstance(m, nn.BatchNorm1d)]
        for buffer in (b for m in norms for b in (m.running_mean, m.running_var)):
            buffer.copy_(self.fabric.all_reduce(buffer.clone(), reduce_op="mean"))

    def _source_and_target(self, x: Tensor, y: Tensor, mixture: bool) -> tuple[Tensor, Tensor, Tensor]:
        """What is encoded, what is to be decoded, and the classes; of pairs, each window answers with the other."""
        if self.cfg.target == "same":
            return x, x, y
        if mixture:
            return x, x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1), y
        return x[0::2], x[1::2], y[0::2]

    def _measure(
        self, x: Tensor, target: Tensor, y: Tensor, weights: dict[str, float], noise: Tensor | None
    ) -> tuple[losses.LossTerms, Tensor]:
        name, y_given = self.model.config.name, y if self.model.config.condition else None
        # as a function: Fabric rounds the tensors among the arguments to bf16 under autocast
        draw = torch.randn_like if noise is None else lambda mean: noise
        with torch.autocast(self.device.type, torch.bfloat16) if self._half else nullcontext():
            out = self.module(x.bfloat16() if self._half else x, y_given, draw=draw)
        loss = losses.OBJECTIVES[name](self.model, target, out, y, weights)
        return loss, (target - out.recon.detach()).square().mean()

    def _own_rows(self, n: int) -> Tensor:
        """(n, L): this process's part of the noise of the whole batch."""
        rank, processes = self.share
        return torch.randn(processes * n, self.model.config.latent, device=self.device)[rank * n : (rank + 1) * n]

    @contextmanager
    def _own_masks(self) -> Iterator[None]:
        """Inside, each process draws its own dropout masks; afterwards all generators stand where they stood."""
        if self.alone or not self._drops:
            yield
            return
        seed = int(torch.randint(2**62, ())) + self.share[0]
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    def _backward(self, total: Tensor, mixture: bool) -> None:
        # The average over processes waits for a gradient of every parameter: those of the mixture, which has no part
        # in the first phase, are zero there, and forgotten, so that AdamW leaves the mixture alone.
        idle = [] if mixture or self.alone or not isinstance(self.model, VaDE) else list(self.model.mixture.values())
        for p in idle:
            total = total + 0.0 * p.sum()
        if self.fabric is None:
            total.backward()
        else:
            self.fabric.backward(total)
        for p in [*idle, *(self._held if self._holding else [])]:
            p.grad = None

    def _clip(self) -> None:
        if self.fabric is None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.cfg.grad_clip)
        else:
            self.fabric.clip_gradients(
                self.module, self.optimizer, max_norm=self.cfg.grad_clip, error_if_nonfinite=False
            )
