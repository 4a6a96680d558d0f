"""Losses as pure functions of (input, output, weights), in nats; and the schedules of weights and learning rates.

Everything is summed over bins and latent dimensions and averaged over the batch: β = 1 is the evidence lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .config import TrainConfig
from .models import ConditionalVAE, Posterior, VaDE, VAEOutput


@dataclass(frozen=True)
class LossTerms:
    """Named terms per example (B,), unweighted, in nats, and the weight of each in the training loss."""

    terms: dict[str, Tensor]
    weights: dict[str, float]

    def total(self) -> Tensor:
        """Scalar: batch mean of the weighted sum."""
        return sum(self.weights[name] * term.mean() for name, term in self.terms.items())

    def means(self) -> dict[str, Tensor]:
        """Batch mean of each unweighted term."""
        return {name: term.detach().mean() for name, term in self.terms.items()}


def gaussian_nll(x: Tensor, recon: Tensor, log_sigma: Tensor) -> Tensor:
    """(B,) -log N(x; recon, σ²) summed over bins, one σ for all of them; at the optimum σ² is the MSE."""
    squares = (x - recon).flatten(1).square().sum(1)
    bins = x[0].numel()
    return 0.5 * squares * torch.exp(-2 * log_sigma) + bins * (log_sigma + 0.5 * math.log(2 * math.pi))


def gaussian_kl(posterior: Posterior, prior_mean: Tensor | float = 0.0) -> Tensor:
    """(B, L) KL(N(mean, exp(logvar)) || N(prior_mean, 1)) per dimension."""
    mean, logvar = posterior.mean, posterior.logvar
    return 0.5 * ((mean - prior_mean).square() + logvar.exp() - 1 - logvar)


def mixture_kl(posterior: Posterior, log_gamma: Tensor, model: VaDE) -> tuple[Tensor, Tensor]:
    """The two terms (B,) that replace the KL of a plain VAE (Jiang et al. 2017, eq. 8); explained in notebook 06.

    Args:
        posterior: q(z|x) of B · W windows, those of a clip after each other.
        log_gamma: (B, K) log q(c|x), one cluster variable per clip.

    Returns:
        Σ_c γ_c Σ_w KL(q(z_w|x_w) || N(μ_c, Σ_c)) and KL(γ || π).
    """
    gamma, logvar = log_gamma.exp(), model.component_logvars()
    mean, q_logvar = posterior.mean.float()[:, None], posterior.logvar.float()[:, None]
    ratio = (q_logvar.exp() + (mean - model.mixture["means"].float()).square()) * torch.exp(-logvar)
    per_component = 0.5 * (ratio - 1 + logvar - q_logvar).sum(2)  # (B · W, K)
    per_clip = per_component.unflatten(0, (len(gamma), -1)).sum(1)
    return (gamma * per_clip).sum(1), (gamma * (log_gamma - model.log_weights())).sum(1)


def elbo(model: torch.nn.Module, x: Tensor, out: VAEOutput, y: Tensor | None, weights: dict[str, float]) -> LossTerms:
    """Negative evidence lower bound of a plain VAE: `nll` + β · `kl`."""
    terms = {
        "nll": gaussian_nll(x, out.recon, model.log_sigma),
        "kl": gaussian_kl(out.posterior, out.prior_mean).sum(1),
    }
    return LossTerms(terms, {name: weights[name] for name in terms})


def conditional_elbo(
    model: ConditionalVAE, x: Tensor, out: VAEOutput, y: Tensor, weights: dict[str, float]
) -> LossTerms:
    """Bound of log p(x|y), and the cross-entropy of the class head on the labelled examples."""
    plain = elbo(model, x, out, y, weights)
    ce = functional.cross_entropy(out.posterior.class_logits, y, ignore_index=-1, reduction="none")
    return LossTerms({**plain.terms, "class": ce}, {**plain.weights, "class": weights["class"]})


def mixture_elbo(model: VaDE, x: Tensor, out: VAEOutput, y: Tensor | None, weights: dict[str, float]) -> LossTerms:
    """VaDE's bound per window once the mixture is initialised, `weights["windows"]` to a clip; the plain one before."""
    if weights["mixture"] == 0:
        return elbo(model, x, out, y, weights)
    windows = int(weights["windows"])
    log_gamma = model.responsibilities(out.z, windows)
    kl_z, kl_c = (t.repeat_interleave(windows) / windows for t in mixture_kl(out.posterior, log_gamma, model))
    terms = {"nll": gaussian_nll(x, out.recon, model.log_sigma), "kl_z": kl_z, "kl_c": kl_c}
    scale = weights["kl"] * weights["mixture"]
    return LossTerms(terms, {"nll": weights["nll"], "kl_z": scale, "kl_c": scale})


OBJECTIVES: dict[str, Callable[..., LossTerms]] = {
    "basic_vae": elbo,
    "conv_vae": elbo,
    "beta_vae": elbo,
    "cvae": conditional_elbo,
    "vade": mixture_elbo,
}


# --- schedules, at a fractional epoch ---


def weights_at(cfg: TrainConfig, epoch: float, mixture: bool, windows: int = 2) -> dict[str, float]:
    """Weights of the loss terms, and the fixed σ (0: it is learned).

    Args:
        mixture: Whether this is VaDE's joint phase; it needs no warm-up, its mixture starts on the pretrained codes.
        windows: Windows of a clip that share a cluster variable in the joint phase.
    """
    share = min(1.0, epoch / cfg.first_phase)
    warm = 1.0 if mixture or not cfg.kl_warmup else min(1.0, share / cfg.kl_warmup)
    return {
        "nll": 1.0,
        "kl": warm * cfg.beta,
        "class": cfg.class_weight,
        "mixture": cfg.mixture_weight if mixture else 0.0,
        "windows": float(windows) if mixture else 1.0,
        "sigma": cfg.sigma * (cfg.sigma_end / cfg.sigma) ** share if cfg.sigma_end else cfg.sigma,
    }


def rate_at(cfg: TrainConfig, epoch: float, clips: int, warmup: int = 20, floor: float = 0.02) -> float:
    """Learning-rate factor with `clips` training clips: in each phase a linear rise, then half a cosine to `floor`."""
    first, per_epoch = cfg.pretrain_epochs, -(-clips // cfg.batch_size)
    start, length = (0, first) if epoch < first else (first, cfg.epochs)
    step, steps = round((epoch - start) * per_epoch), length * per_epoch
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(steps - warmup, 1))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
