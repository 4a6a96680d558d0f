"""Losses as pure functions: named terms per example (B,) in nats, summed over bins and latent dimensions; schedules."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from .config import TrainConfig
from .models import MODELS, ConditionalVAE, Posterior, VaDE, VAEOutput

Terms = dict[str, Tensor]
Weights = dict[str, float]  # of terms by name; further: `windows`, `mixture` (see `weights_at`)


def total(terms: Terms, weights: Weights) -> Tensor:
    """Scalar: batch mean of the weighted sum; at β = 1 the negative evidence lower bound."""
    return sum(weights[name] * term.mean() for name, term in terms.items())


def gaussian_nll(x: Tensor, recon: Tensor, log_sigma: Tensor) -> Tensor:
    """(B,) -log N(x; recon, σ²) summed over bins, one σ for all of them; at the optimum σ² is the MSE."""
    squares = (x - recon).flatten(1).square().sum(1)
    return 0.5 * squares * torch.exp(-2 * log_sigma) + x[0].numel() * (log_sigma + 0.5 * math.log(2 * math.pi))


def gaussian_kl(posterior: Posterior, prior_mean: Tensor | float = 0.0) -> Tensor:
    """(B, L) KL(N(mean, exp(logvar)) || N(prior_mean, 1)) per dimension."""
    mean, logvar = posterior.mean, posterior.logvar
    return 0.5 * ((mean - prior_mean).square() + logvar.exp() - 1 - logvar)


def mixture_kl(posterior: Posterior, log_gamma: Tensor, model: VaDE) -> tuple[Tensor, Tensor]:
    """Σ_c γ_c Σ_w KL(q(z_w|x_w) || N(μ_c, Σ_c)) and KL(γ || π), each (B,) (Jiang et al. 2017, eq. 8); notebook 06.

    `posterior` is of B · W windows, those of a clip after each other, `log_gamma` (B, K) log q(c|x) of their clips.
    """
    gamma, logvar = log_gamma.exp(), model.component_logvars()
    mean, q_logvar = posterior.mean.float()[:, None], posterior.logvar.float()[:, None]
    ratio = (q_logvar.exp() + (mean - model.mixture["means"].float()).square()) * torch.exp(-logvar)
    per_component = 0.5 * (ratio - 1 + logvar - q_logvar).sum(2)  # (B · W, K)
    per_clip = per_component.unflatten(0, (len(gamma), -1)).sum(1)
    return (gamma * per_clip).sum(1), (gamma * (log_gamma - model.log_weights())).sum(1)


def elbo(model: torch.nn.Module, x: Tensor, out: VAEOutput, y: Tensor | None, weights: Weights) -> Terms:
    """Negative evidence lower bound of a plain VAE: `nll` and `kl`."""
    kl = gaussian_kl(out.posterior, out.prior_mean).sum(1)
    return {"nll": gaussian_nll(x, out.recon, model.log_sigma), "kl": kl}


def conditional_elbo(model: ConditionalVAE, x: Tensor, out: VAEOutput, y: Tensor, weights: Weights) -> Terms:
    """Bound of log p(x|y), and the cross-entropy of the class head on the labelled examples."""
    ce = functional.cross_entropy(out.posterior.class_logits, y, ignore_index=-1, reduction="none")
    return elbo(model, x, out, y, weights) | {"class": ce}


def mixture_elbo(model: VaDE, x: Tensor, out: VAEOutput, y: Tensor | None, weights: Weights) -> Terms:
    """VaDE's bound per window in the joint phase, `weights["windows"]` to a clip; before it the plain one."""
    if weights["mixture"] == 0:
        return elbo(model, x, out, y, weights)
    windows = int(weights["windows"])
    both = mixture_kl(out.posterior, model.responsibilities(out.z, windows), model)
    kl_z, kl_c = (t.repeat_interleave(windows) / windows for t in both)
    return {"nll": gaussian_nll(x, out.recon, model.log_sigma), "kl_z": kl_z, "kl_c": kl_c}


OBJECTIVES = dict.fromkeys(MODELS, elbo) | {"cvae": conditional_elbo, "vade": mixture_elbo}


def weights_at(cfg: TrainConfig, epoch: float, mixture: bool, windows: int = 2) -> Weights:
    """Weights of the terms at a fractional epoch; in VaDE's joint phase `windows` of a clip share a cluster."""
    warm = 1.0 if mixture or not cfg.kl_warmup else min(1.0, epoch / cfg.first_phase / cfg.kl_warmup)
    kl, joint = cfg.beta * warm, cfg.beta * warm * cfg.mixture_weight
    weights = {"nll": 1.0, "kl": kl, "kl_z": joint, "kl_c": joint, "class": cfg.class_weight}
    return weights | {"mixture": cfg.mixture_weight if mixture else 0.0, "windows": float(windows) if mixture else 1.0}


def rate_at(cfg: TrainConfig, epoch: float, clips: int, warmup: int = 20, floor: float = 0.02) -> float:
    """Learning-rate factor with `clips` training clips: in each phase a linear rise, then half a cosine to `floor`."""
    first, per_epoch = cfg.pretrain_epochs, -(-clips // cfg.batch_size)
    start, length = (0, first) if epoch < first else (first, cfg.epochs)
    step, steps = round((epoch - start) * per_epoch), length * per_epoch
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(steps - warmup, 1))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
