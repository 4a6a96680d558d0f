"""The one optimisation step, on whatever device Lightning Fabric finds, and where codes and mixtures start."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from .config import InputError, TrainConfig
from .losses import OBJECTIVES, Weights, total
from .models import VAE, VaDE, centred
from .windows import Clips

if TYPE_CHECKING:
    from lightning_fabric import Fabric

TERMS = ("nll", "kl", "kl_z", "kl_c", "class")  # their weights change from step to step
SIGMA_RATE = 10.0  # σ is one number that travels far: it learns faster than the network
# Parts that learn while the encoder is held at its start
FREE_WHILE_HELD = ("decoder", "heads.logvar", "class_head", "class_means", "log_sigma", "mixture")


def resolve_precision(precision: str, device: str) -> str:
    """What `auto` means on a kind of device: bf16 autocast on CUDA, and on processors where it is the faster one."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if device == "cuda" or (device == "cpu" and _bf16_is_faster()) else "32-true"


@cache
def _bf16_is_faster(seconds: float = 0.1) -> bool:
    """Try a convolution of the middle layers in both precisions, in turn: 1.7 times faster here, 100 slower there."""
    best, end = {torch.float32: math.inf, torch.bfloat16: math.inf}, time.perf_counter() + seconds
    x, w = torch.full((8, 32, 32, 32), 0.5), torch.full((64, 32, 4, 4), 0.5)  # draws nothing: seeds stay as they are
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
    strategy, precision = "ddp" if devices > 1 else "auto", resolve_precision(precision, accelerator)
    fabric = Fabric(accelerator=accelerator, devices=devices, strategy=strategy, precision=precision)
    fabric.launch()
    torch.backends.cudnn.benchmark = True  # windows are all of one size: look for the fastest convolution
    return fabric


class Recording:
    """A step on one GPU, recorded at its fourth call as a CUDA graph: one launch from then on, instead of hundreds.

    Windows, classes, weights of the terms and rates are copied to fixed places first. The calls before compile, choose
    convolutions and make what the optimizer remembers.
    """

    def __init__(self, step: Callable[[Tensor, Tensor, Weights], dict[str, Tensor]], groups: list[dict]) -> None:
        self.step, self.groups, self.calls, self.stream = step, groups, 0, torch.cuda.Stream()

    def __call__(self, x: Tensor, y: Tensor, weights: Weights, rates: list[float]) -> dict[str, Tensor]:
        """What `step` returns; x and y have the same shape in every call."""
        # from pinned memory a GPU takes it without a wait
        numbers = torch.tensor([*rates, *map(weights.get, TERMS)], pin_memory=x.is_cuda)
        if not self.calls:
            self.given = torch.empty_like(x), torch.empty_like(y), torch.empty_like(numbers, device=x.device)
            for group, rate in zip(self.groups, self.given[2], strict=False):
                group["lr"] = rate
            self.weights = weights | dict(zip(TERMS, self.given[2][len(rates) :], strict=True))
        for place, value in zip(self.given, (x, y, numbers), strict=True):
            place.copy_(value, non_blocking=True)
        self.calls += 1
        if self.calls < 4:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self._run()
            torch.cuda.current_stream().wait_stream(self.stream)
        else:
            if self.calls == 4:
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph, stream=self.stream):
                    self._run()
            self.graph.replay()
        return dict(zip(self.names, self.means.clone(), strict=True))

    def _run(self) -> None:
        found = self.step(*self.given[:2], self.weights)
        self.names, self.means = list(found), torch.stack(list(found.values()))


class Stepper:
    """One optimisation step: forward, loss, backward, clipped gradient, AdamW; the same for training and benchmark.

    Of several processes each has a stepper and gives it its part of a batch, but draws the noise of the whole: without
    dropout and batch normalisation they step as one process would. While `held`, encoder and mean head rest.
    """

    def __init__(self, model: VAE, cfg: TrainConfig, fabric: Fabric) -> None:
        self.cfg, self.fabric, self.held = cfg, fabric, False
        self.model = model.to(fabric.device, memory_format=torch.channels_last)
        if cfg.sigma:
            self.model.log_sigma.data.fill_(math.log(cfg.sigma))
        named = dict(self.model.named_parameters())
        sigma, mixture = [named.pop("log_sigma")], [named.pop(k) for k in list(named) if k.startswith("mixture")]
        groups = [
            {"params": list(named.values()), "peak": cfg.lr, "weight_decay": cfg.weight_decay},
            {"params": [] if cfg.sigma else sigma, "peak": SIGMA_RATE * cfg.lr, "weight_decay": 0.0},
            {"params": mixture, "peak": cfg.mixture_lr, "weight_decay": 0.0},
        ]
        self._records = fabric.device.type == "cuda" and fabric.world_size == 1  # several talk to each other
        groups = [group for group in groups if group["params"]]
        rate = torch.tensor(cfg.lr, device=fabric.device) if self._records else cfg.lr
        self.optimizer = torch.optim.AdamW(groups, lr=rate, fused=True, capturable=self._records)
        self._optimizer, self._phase = fabric.setup_optimizers(self.optimizer), None

    def _begin_phase(self, mixture: bool, held: bool, shape: torch.Size) -> None:
        """Say what learns; several processes agree then on parameters and their values, one GPU records anew."""
        for name, p in self.model.named_parameters():
            fixed = (name == "log_sigma" and self.cfg.sigma) or (name.startswith("mixture") and not mixture)
            p.requires_grad_(not fixed and (not held or name.startswith(FREE_WHILE_HELD)))
        self._phase = mixture, held, shape
        if self._records:
            # every shape by itself: VaDE's second phase has other batches, and code for any shape would be slower
            self._compiled = torch.compile(self._means, dynamic=False)
            self._recording = Recording(self._recorded_step, self.optimizer.param_groups)
            self.optimizer._warned_capturable_if_run_uncaptured = True  # the first three steps are
        else:
            compiled = torch.compile(self.model, dynamic=False) if self.fabric.device.type == "cuda" else self.model
            self._module = self.fabric.setup_module(compiled)

    def __call__(self, x: Tensor, y: Tensor, weights: Weights, rate: float) -> dict[str, Tensor]:
        """Take one step on windows (B, 1, F, T) in [0, 1] and classes (B,), -1: unknown; nothing waits for the device.

        In VaDE's joint phase the windows of a clip follow each other. `rate` is a factor of the learning rates. Returns
        detached means: `loss`, the terms (`nll`, `kl`, …) in nats, and `mse` per bin.
        """
        phase = bool(weights["mixture"]), self.held, x.shape
        if phase != self._phase:
            self._begin_phase(*phase)
        rates = [group["peak"] * rate for group in self.optimizer.param_groups]
        if self._records:
            return self._recording(x, y, weights, rates)
        for group, value in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = value
        return self._descend(self._means(self._module, x, y, weights, self.fabric.global_rank, self.fabric.world_size))

    def _recorded_step(self, x: Tensor, y: Tensor, weights: Weights) -> dict[str, Tensor]:
        with self.fabric.autocast():
            means = self._compiled(self.model, x, y, weights)
        return self._descend(means)

    def _descend(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(means["loss"])
        self.fabric.clip_gradients(self.model, self._optimizer, max_norm=self.cfg.grad_clip, error_if_nonfinite=False)
        self._optimizer.step()
        return {k: v.detach() for k, v in means.items()}

    @torch.no_grad()
    def measure(self, x: Tensor, y: Tensor, weights: Weights) -> dict[str, Tensor]:
        """What `__call__` returns, without a step and in this process alone."""
        with self.fabric.autocast():
            return self._means(self.model, x, y, weights)

    def _means(
        self, module: nn.Module, x: Tensor, y: Tensor, weights: Weights, rank: int = 0, processes: int = 1
    ) -> dict[str, Tensor]:
        config = self.model.config
        noise = torch.randn(processes, len(x), config.latent, device=x.device)[rank]
        # noise as a function: Fabric rounds the tensors among the arguments to bf16 under autocast
        out = module(x, y if config.condition else None, draw=lambda mean: noise)
        terms = OBJECTIVES[config.name](self.model, x, out, y, weights)
        means = {name: term.mean() for name, term in terms.items()}
        return {"loss": total(terms, weights), **means, "mse": (x - out.recon.detach()).square().mean()}

    def state(self) -> dict[str, Tensor]:
        """What the optimizer remembers of each parameter, `optimizer.<number>.<name>`."""
        found = self.optimizer.state_dict()["state"]
        return {f"optimizer.{i}.{k}": torch.as_tensor(v) for i, values in found.items() for k, v in values.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Set what `state` returned, among other tensors."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for key in (k for k in tensors if k.startswith("optimizer.")):
            _, i, name = key.split(".")
            p, value = parameters[int(i)], tensors[key]
            # fused AdamW walks memory: moments lie as their parameter does (channels_last)
            self.optimizer.state[p][name] = torch.empty_like(p).copy_(value) if value.dim() else value.to(p.device)


def init_mixture(model: VaDE, codes: Tensor, seed: int) -> None:
    """Set VaDE's mixture from codes (clip, window, L) without labels; explained in notebook 06.

    K-Means on clip means, variances plus those between a clip's windows; surplus components start at random clips.
    """
    from sklearn.cluster import KMeans

    means = codes.mean(1).cpu().double().numpy()
    within = codes.var(1, unbiased=False).mean(0).cpu().double().numpy()
    k, n = model.config.components, len(means)
    found = KMeans(min(k, n), n_init=10, random_state=seed).fit(means)
    extra = np.random.default_rng(seed).integers(0, n, max(k - n, 0))
    centres = np.concatenate([found.cluster_centers_, means[extra]])
    pooled = np.mean((means - found.cluster_centers_[found.labels_]) ** 2, 0)
    counts = np.bincount(found.labels_, minlength=k)
    squares = [((means[found.labels_ == c] - centre) ** 2).sum(0) for c, centre in enumerate(centres)]
    # five pseudo-members with the pooled variance: a component of one clip must not be a point
    variances = (np.array(squares) + 5 * pooled) / (counts[:, None] + 5) + within
    weights = (counts + 1) / (counts + 1).sum()
    model.set_mixture(*(torch.as_tensor(a, dtype=torch.float32) for a in (weights, centres, variances)))


@torch.no_grad()
def start_on_components(model: VAE, clips: Clips, n: int, seed: int) -> None:
    """Let the first `n` latent means be independent components of the clips' middle windows; no label is used.

    FastICA (Hyvärinen & Oja 2000) on the `n` first principal components; the mean head's rows are the ridge regression
    of these on what the untrained encoder makes of the windows. Posteriors are narrow (log-variance -3) there, and the
    prior's elsewhere. Explained in notebook 04. InputError with fewer windows than components.
    """
    from sklearn.decomposition import PCA, FastICA

    index = torch.arange(len(clips), device=clips.mel.device)
    windows = [clips.even_windows(part, 1).squeeze(1) for part in index.split(64)]
    flat = torch.cat(windows).flatten(1).cpu().numpy()  # (window, bins)
    if min(flat.shape) < n:
        raise InputError(f"{n} components cannot be found in {len(flat)} windows: ask for fewer start_components")
    principal = PCA(n, random_state=seed).fit_transform(flat)
    principal /= principal.std(0) + 1e-12
    found = FastICA(n, whiten="unit-variance", max_iter=2000, random_state=seed).fit_transform(principal)
    update_bn((centred(x) for x in windows if len(x) > 1), model.encoder)  # statistics that training will use
    features: list[Tensor] = []
    watch = model.eval().heads.register_forward_pre_hook(lambda module, given: features.append(given[0].double()))
    for x in windows:
        model.encode(x)
    watch.remove()
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
