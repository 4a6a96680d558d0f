"""Losses against torch.distributions and Monte Carlo; VaDE's bound against log p(x); the schedules."""

import math
from itertools import pairwise

import pytest
import torch
from conftest import model_config
from torch.distributions import Categorical, Normal, kl_divergence

from vaelib import losses
from vaelib.config import TrainConfig
from vaelib.models import Posterior, VAEOutput, build

WEIGHTS = {"nll": 1.0, "kl": 1.0, "mixture": 1.0, "windows": 1}


def posterior(n=5, latent=3, seed=0) -> Posterior:
    g = torch.Generator().manual_seed(seed)
    return Posterior(torch.randn(n, latent, generator=g), torch.randn(n, latent, generator=g))


def normal(q: Posterior) -> Normal:
    return Normal(q.mean, (0.5 * q.logvar).exp())


@pytest.mark.parametrize("log_sigma", [-3.0, 0.0, 0.7])
def test_gaussian_nll_is_that_of_a_normal(log_sigma):
    x, recon = torch.rand(2, 4, 1, 5, 7)
    want = -Normal(recon, math.exp(log_sigma)).log_prob(x).sum((1, 2, 3))
    assert torch.allclose(losses.gaussian_nll(x, recon, torch.tensor(log_sigma)), want, rtol=1e-5)


@pytest.mark.parametrize("prior_mean", [0.0, 1.5])
def test_gaussian_kl_is_the_kl_divergence(prior_mean):
    q = posterior()
    found = losses.gaussian_kl(q, torch.full_like(q.mean, prior_mean))
    assert torch.allclose(found, kl_divergence(normal(q), Normal(prior_mean, 1.0)), atol=1e-5)


def test_the_elbo_is_summed_over_bins_and_averaged_over_the_batch():
    model = build(model_config("conv_vae"))
    x = torch.rand(5, 1, 16, 16)
    out = model(x)
    beta4 = losses.total(losses.elbo(model, x, out, None, WEIGHTS), WEIGHTS | {"kl": 4.0})
    nll = -Normal(out.recon, model.log_sigma.exp()).log_prob(x).sum() / 5
    kl = kl_divergence(normal(out.posterior), Normal(0.0, 1.0)).sum() / 5
    assert beta4.item() == pytest.approx((nll + 4 * kl).item(), rel=1e-5)


def test_a_class_prior_moves_the_kl_and_the_class_term_is_cross_entropy():
    model = build(model_config("cvae", prior="fixed"))
    x, y = torch.rand(6, 1, 16, 16), torch.arange(6) % 3
    out = model(x, y)
    terms = losses.conditional_elbo(model, x, out, y, WEIGHTS)
    want = kl_divergence(normal(out.posterior), Normal(model.class_means[y], 1.0)).sum(1)
    assert torch.allclose(terms["kl"], want, rtol=1e-4)
    assert torch.allclose(terms["class"], -Categorical(logits=out.posterior.class_logits).log_prob(y))


def vade(components=3):
    torch.manual_seed(0)
    model = build(model_config("vade", backbone="fc", latent=2, components=components)).eval()
    means, variances = 2 * torch.randn(components, 2), torch.rand(components, 2) + 0.2
    model.set_mixture(torch.arange(1.0, components + 1), means, variances)
    model.log_sigma.data.fill_(-1.0)
    for p in model.decoder.parameters():
        p.data *= 2  # so that the code matters
    return model


def components_of(model):
    return Normal(model.mixture["means"], (0.5 * model.component_logvars()).exp())


@pytest.mark.parametrize("windows", [1, 2])
def test_mixture_terms_are_those_of_the_paper(windows):
    model, q = vade(), posterior(6, 2)
    gamma = torch.softmax(torch.randn(6 // windows, 3), 1)
    kl_z, kl_c = losses.mixture_kl(q, gamma.log(), model)
    prior = components_of(model)
    each = kl_divergence(Normal(q.mean[:, None], (0.5 * q.logvar[:, None]).exp()), prior).sum(2)
    assert torch.allclose(kl_z, (gamma * each.view(-1, windows, 3).sum(1)).sum(1), rtol=1e-4)
    pi = Categorical(logits=model.mixture["logits"])
    assert torch.allclose(kl_c, kl_divergence(Categorical(gamma), pi), atol=1e-5)


@torch.no_grad()
def log_evidence(model, x, draws=20_000):
    """log p(x_1 … x_W) of one clip's windows under one shared cluster, by Monte Carlo over each component."""
    log_p = []
    for c, log_pi in enumerate(model.log_weights()):
        prior = components_of(model)
        z = prior.loc[c] + prior.scale[c] * torch.randn(draws, 2)
        recon = model.decode(z)
        each = torch.stack([-losses.gaussian_nll(w.expand(draws, 1, 16, 16), recon, model.log_sigma) for w in x])
        log_p.append(log_pi + (each.logsumexp(1) - math.log(draws)).sum())
    return torch.stack(log_p).logsumexp(0)


def bound(model, x, q: Posterior, draws: int) -> torch.Tensor:
    """(draws,) the bound of one clip's windows with q as the posterior; the code's terms are per window."""
    many = Posterior(*(t.repeat(draws, 1) for t in q[:2]))
    z = many.mean + torch.randn_like(many.mean) * torch.exp(0.5 * many.logvar)
    out = VAEOutput(model.decode(z), z, many, torch.zeros_like(z))
    terms = losses.mixture_elbo(model, x.repeat(draws, 1, 1, 1), out, None, WEIGHTS | {"windows": len(x)})
    return -sum(terms.values()).view(draws, len(x)).sum(1)


@pytest.mark.parametrize("windows", [1, 2])
def test_the_bound_lies_below_the_evidence_and_a_fitted_posterior_comes_close(windows):
    model = vade().requires_grad_(False)
    x = model.decode(model.mixture["means"][[1]] + 0.3).repeat(windows, 1, 1, 1)
    x += math.exp(-1) * torch.randn(x.shape)
    evidence = float(log_evidence(model, x))
    encoded = model.encode(x)
    assert bound(model, x, encoded, 2000).mean() < evidence
    q = Posterior(encoded.mean.clone().requires_grad_(), encoded.logvar.clone().requires_grad_())
    optimizer = torch.optim.Adam(q[:2], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (-bound(model, x, q, 16).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        fitted = float(bound(model, x, q, 5000).mean())
    assert evidence - 1.5 * windows < fitted < evidence + 0.05  # 0.05: Monte Carlo's own error


def test_kl_warmup_rises_linearly_and_stays_also_in_the_joint_phase():
    cfg = TrainConfig(epochs=20, kl_warmup=0.25, beta=4.0)
    at = [losses.weights_at(cfg, e, False)["kl"] for e in (0, 1, 2.5, 5, 6, 20, math.inf)]
    assert at == pytest.approx([0, 0.8, 2, 4, 4, 4, 4])
    vade = losses.weights_at(TrainConfig(epochs=2, pretrain_epochs=8, mixture_weight=5.0), 0.5, True, windows=2)
    assert (vade["kl"], vade["kl_z"], vade["kl_c"], vade["mixture"], vade["windows"]) == (1.0, 5.0, 5.0, 5.0, 2.0)
    assert losses.weights_at(TrainConfig(kl_warmup=0.0), 0, False)["kl"] == 1.0


def test_learning_rate_rises_then_falls_along_half_a_cosine_in_each_phase():
    cfg = TrainConfig(epochs=22, pretrain_epochs=22, batch_size=10)
    rates = [losses.rate_at(cfg, s / 10, 100) for s in range(440)]  # ten steps per epoch
    assert rates[:220] == rates[220:] and rates[0] == 0.05 and rates[19] == rates[20] == 1
    assert rates[120] == pytest.approx(0.51) and losses.rate_at(cfg, 44, 100) == pytest.approx(0.02)
    assert all(a >= b for a, b in pairwise(rates[20:220]))
