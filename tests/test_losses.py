"""Losses against torch.distributions; those of VaDE term by term; the schedules."""

import math
from itertools import pairwise

import pytest
import torch
from conftest import model_config
from torch.distributions import Categorical, Normal, kl_divergence

from vaelib import losses
from vaelib.config import TrainConfig
from vaelib.models import Posterior, build

WEIGHTS = {"nll": 1.0, "kl": 1.0, "mixture": 1.0, "windows": 1}


def normal(q: Posterior) -> Normal:
    return Normal(q.mean, (0.5 * q.logvar).exp())


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


@pytest.mark.parametrize("windows", [1, 2])
def test_mixture_terms_are_those_of_the_paper_shared_by_the_windows_of_a_clip(windows):
    torch.manual_seed(0)
    model = build(model_config("vade", backbone="fc", latent=2, components=3)).eval()
    model.set_mixture(torch.arange(1.0, 4), 2 * torch.randn(3, 2), torch.rand(3, 2) + 0.2)
    x, q = torch.rand(6, 1, 16, 16), Posterior(torch.randn(6, 2), torch.randn(6, 2))
    out = model(x)._replace(posterior=q)
    terms = losses.mixture_elbo(model, x, out, None, WEIGHTS | {"windows": windows})
    nll, kl_z, kl_c = (terms[name].view(-1, windows).sum(1) for name in ("nll", "kl_z", "kl_c"))
    gamma = model.responsibilities(out.z, windows).exp()
    prior = Normal(model.mixture["means"], (0.5 * model.component_logvars()).exp())
    each = kl_divergence(Normal(q.mean[:, None], (0.5 * q.logvar[:, None]).exp()), prior).sum(2)
    assert torch.allclose(kl_z, (gamma * each.view(-1, windows, 3).sum(1)).sum(1), rtol=1e-4)
    pi = Categorical(logits=model.mixture["logits"])
    assert torch.allclose(kl_c, kl_divergence(Categorical(gamma), pi), atol=1e-5)
    want = -Normal(out.recon, model.log_sigma.exp()).log_prob(x).sum((1, 2, 3))
    assert torch.allclose(nll, want.view(-1, windows).sum(1), rtol=1e-5)


def test_kl_warmup_rises_linearly_and_stays_also_in_the_joint_phase():
    cfg = TrainConfig(epochs=20, kl_warmup=0.25, beta=4.0)
    at = [losses.weights_at(cfg, e, False)["kl"] for e in (0, 1, 2.5, 5, 6, 20, math.inf)]
    assert at == pytest.approx([0, 0.8, 2, 4, 4, 4, 4])
    vade = losses.weights_at(TrainConfig(epochs=2, pretrain_epochs=8, mixture_weight=5.0), 0.5, True, windows=2)
    assert (vade["kl"], vade["kl_z"], vade["kl_c"], vade["mixture"], vade["windows"]) == (1.0, 5.0, 5.0, 5.0, 2.0)
    assert losses.weights_at(TrainConfig(kl_warmup=0.0), 0, False)["kl"] == 1.0


def test_a_fixed_sigma_moves_geometrically():
    cfg = TrainConfig(epochs=10, sigma=0.4, sigma_end=0.1)
    assert [losses.weights_at(cfg, e, False)["sigma"] for e in (0, 5, 10, 99)] == pytest.approx([0.4, 0.2, 0.1, 0.1])
    assert losses.weights_at(TrainConfig(), 3, False)["sigma"] == 0


def test_learning_rate_rises_then_falls_along_half_a_cosine_in_each_phase():
    cfg = TrainConfig(epochs=22, pretrain_epochs=22, batch_size=10)
    rates = [losses.rate_at(cfg, s / 10, 100) for s in range(440)]  # ten steps per epoch
    assert rates[:220] == rates[220:] and rates[0] == 0.05 and rates[19] == rates[20] == 1
    assert rates[120] == pytest.approx(0.51) and losses.rate_at(cfg, 44, 100) == pytest.approx(0.02)
    assert all(a >= b for a, b in pairwise(rates[20:220]))
