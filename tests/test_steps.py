"""One optimisation step: the same with and without Fabric, in either precision; schedules; where the mixture starts."""

import math

import numpy as np
import pytest
import torch
from conftest import LANGUAGES, model_config

from vaelib import losses, steps
from vaelib.config import InputError, TrainConfig
from vaelib.devices import make_fabric
from vaelib.models import MODELS, build
from vaelib.steps import Stepper, make_optimizer, rate_at, weights_at
from vaelib.windows import Clips


def batch(pairs: int = 6):
    """Windows (2 · pairs, 1, 16, 16), those of a clip after each other, and their classes."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(-1, len(LANGUAGES), (pairs,), generator=generator).repeat_interleave(2)
    return torch.rand(2 * pairs, 1, 16, 16, generator=generator), y


def stepped(name: str, precision: str, fabric=None, **changes):
    """A stepper after two steps (VaDE: one in each phase), and what the last one returned."""
    torch.manual_seed(0)
    prior = {"prior": "learned"} if name == "cvae" else {}
    stepper = Stepper(build(model_config(name, **prior)), TrainConfig(**changes), "cpu", precision, fabric)
    for mixture in (False, name == "vade"):
        terms = stepper(*batch(), weights_at(stepper.cfg, 1.0, mixture), rate=0.5)
    return stepper, terms


@pytest.mark.parametrize(("precision", "target"), [("32-true", "same"), ("32-true", "other"), ("bf16-mixed", "same")])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_with_fabric_is_a_step_without(name, precision, target):
    plain, terms = stepped(name, precision, target=target)
    fabric, same = stepped(name, "auto", make_fabric(precision), target=target)
    assert terms.keys() == same.keys() and all(torch.equal(v, same[k]) for k, v in terms.items())
    for a, b in zip(plain.model.parameters(), fabric.model.parameters(), strict=True):
        assert torch.equal(a, b) and a.dtype == torch.float32


def test_half_precision_is_not_full_precision():
    exact, half = (stepped("conv_vae", precision)[1] for precision in ("32-true", "bf16-mixed"))
    assert exact["nll"] != half["nll"] and half["nll"].item() == pytest.approx(exact["nll"].item(), rel=1e-2)
    assert half["nll"].dtype == torch.float32


@pytest.mark.parametrize("name", MODELS)
def test_a_step_returns_detached_scalars_of_every_term(name):
    terms = stepped(name, "32-true")[1]
    more = {"cvae": ["class"]}.get(name, [])
    assert list(terms) == ["loss", "nll", *(["kl_z", "kl_c"] if name == "vade" else ["kl"]), *more, "mse"]
    assert all(v.dim() == 0 and not v.requires_grad and v.isfinite() for v in terms.values())


def test_each_phase_is_compiled_once_and_measuring_never():
    """With a compiler that only counts: one graph for each size of a training batch, whatever is measured between."""
    shapes = []

    def count(graph, inputs):
        shapes.extend(tuple(x.shape) for x in inputs if isinstance(x, torch.Tensor) and x.shape[1:] == (1, 16, 16))
        return graph.forward

    stepper = Stepper(build(model_config("vade")), TrainConfig(), "cpu")
    stepper.module = torch.compile(stepper.model, backend=count, dynamic=False)
    for mixture, sizes in ((False, (4, 4)), (True, (6, 6))):
        weights = weights_at(stepper.cfg, 1.0, mixture)
        for pairs in sizes:
            stepper.module.train()
            stepper(*batch(pairs), weights, rate=0.5)
            stepper.module.eval()
            for other in (pairs, 3):
                with torch.no_grad():
                    assert all(v.isfinite() for v in stepper.measure(*batch(other), weights).values())
    assert shapes == [(8, 1, 16, 16), (12, 1, 16, 16)]


def test_every_group_of_parameters_follows_the_rate():
    stepper, _ = stepped("vade", "32-true", lr=1e-3, mixture_lr=1e-2)
    assert [g["lr"] for g in stepper.optimizer.param_groups] == [5e-4, 5e-3, 5e-3]
    owned = [id(p) for g in make_optimizer(stepper.model, stepper.cfg).param_groups for p in g["params"]]
    assert sorted(owned) == sorted(map(id, stepper.model.parameters()))


def test_the_mixture_rests_in_the_first_phase():
    torch.manual_seed(0)
    stepper = Stepper(build(model_config("vade")), TrainConfig(), "cpu", "32-true")
    before = {k: v.detach().clone() for k, v in stepper.model.mixture.items()}
    stepper(*batch(), weights_at(stepper.cfg, 1.0, False), 1.0)
    assert all(torch.equal(v, before[k]) for k, v in stepper.model.mixture.items())
    stepper(*batch(), weights_at(stepper.cfg, 1.0, True), 1.0)
    assert not any(torch.equal(v, before[k]) for k, v in stepper.model.mixture.items())


def test_gradients_are_clipped():
    torch.manual_seed(0)
    stepper = Stepper(build(model_config("conv_vae")), TrainConfig(grad_clip=1e-3), "cpu", "32-true")
    stepper(*batch(), weights_at(stepper.cfg, 1.0, False), 1.0)
    norm = torch.stack([p.grad.norm() for p in stepper.model.parameters()]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_what_is_measured_takes_no_step_and_follows_the_noise():
    stepper, _ = stepped("conv_vae", "32-true")
    x, y = batch()
    before = {k: v.clone() for k, v in stepper.model.state_dict().items()}
    weights, noise = weights_at(stepper.cfg, 1.0, False), torch.randn(len(x), 8)
    one, two, other = (stepper.measure(x, y, weights, n) for n in (noise, noise, noise + 1))
    assert torch.equal(one["nll"], two["nll"]) and not torch.equal(one["nll"], other["nll"])
    assert torch.equal(one["kl"], other["kl"])
    assert all(torch.equal(v, before[k]) for k, v in stepper.model.state_dict().items())


# --- precision ---


def test_precision_follows_what_was_tried(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for faster, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(steps, "_bf16_is_faster", lambda faster=faster: faster)
        assert steps.resolve_precision("auto", "cpu") == expected
        assert make_fabric()._precision.precision == expected
    assert steps.resolve_precision("auto", torch.device("cuda:1")) == "bf16-mixed"
    assert steps.resolve_precision("32-true", "cuda") == "32-true"


@pytest.mark.parametrize("slow", [torch.bfloat16, torch.float32])
def test_the_faster_convolution_decides(monkeypatch, slow):
    ticks = {"now": 0.0}
    monkeypatch.setattr(steps.time, "perf_counter", lambda: ticks["now"])
    monkeypatch.setattr(steps.functional, "conv2d", lambda x, *a, **k: ticks.update(now=ticks["now"] + (
        0.03 if x.dtype == slow else 0.01)))  # fmt: skip
    assert steps._bf16_is_faster.__wrapped__() == (slow == torch.float32)


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match="did you mean 'bf16-mixed'"):
        Stepper(build(model_config("conv_vae")), TrainConfig(), "cpu", "bf16-mix")


# --- schedules ---


def test_the_weights_of_the_terms():
    cfg = TrainConfig(epochs=10, pretrain_epochs=20, beta=2.0, mixture_weight=5.0, kl_warmup=0.5)
    early, late, joint = (weights_at(cfg, e, m) for e, m in ((5, False), (15, False), (21, True)))
    assert (early["kl"], late["kl"], joint["kl"]) == (1.0, 2.0, 2.0)
    assert (early["mixture"], joint["mixture"], early["windows"], joint["windows"]) == (0.0, 5.0, 1.0, 2.0)
    assert weights_at(cfg, 21, True, windows=1)["windows"] == 1.0  # windows from the start of a clip are one


def test_each_phase_has_its_own_learning_rate_rise_and_fall(monkeypatch):
    monkeypatch.setattr(losses, "cosine_rate", lambda step, steps: step / steps)
    cfg = TrainConfig(epochs=2, pretrain_epochs=4, batch_size=10)
    assert [rate_at(cfg, at, clips=24) for at in (0, 2, 4, 5)] == [0, 0.5, 0, 0.5]


def test_a_fixed_sigma_is_no_parameter_and_may_fall():
    cfg = TrainConfig(epochs=10, sigma=0.4, sigma_end=0.1)
    assert [steps.sigma_at(cfg, e) for e in (0, 5, 10, math.inf)] == pytest.approx([0.4, 0.2, 0.1, 0.1])
    assert steps.sigma_at(TrainConfig(sigma=0.4), 7) == 0.4 and steps.sigma_at(TrainConfig(), 7) == 0
    stepper, terms = stepped("beta_vae", "32-true", epochs=2, sigma=0.4, sigma_end=0.1)
    assert stepper.model.log_sigma.exp().item() == pytest.approx(0.2)
    assert id(stepper.model.log_sigma) not in {id(p) for g in stepper.optimizer.param_groups for p in g["params"]}
    bins = 16 * 16
    expected = 0.5 * bins * terms["mse"] / 0.2**2 + bins * math.log(0.2 * math.sqrt(2 * math.pi))
    assert terms["nll"].item() == pytest.approx(expected.item(), rel=1e-3)


# --- the start on components ---


def mixed(n: int = 400):
    """Windows (n, 16, 16) in [0, 1] of three sources at independent levels (n, 3), each in bins of its own."""
    generator = torch.Generator().manual_seed(0)
    levels, shapes = torch.rand(n, 3, generator=generator), torch.zeros(3, 16, 16)
    for i, shape in enumerate(shapes):
        shape[5 * i : 5 * i + 5] = torch.rand(5, 16, generator=generator)
    x = torch.einsum("ns,sft->nft", levels, shapes) + 0.01 * torch.rand(n, 16, 16, generator=generator)
    return Clips(x.half(), torch.full((n,), 16), 16, np.arange(n)), levels


@pytest.mark.parametrize("name", MODELS)
def test_codes_start_on_the_components_of_the_windows(name):
    clips, levels = mixed()
    torch.manual_seed(0)
    model = build(model_config(name))
    steps.start_on_components(model, clips, 3, seed=0)
    with torch.inference_mode():
        q = model.encode(clips.even_windows(torch.arange(len(clips)), 1).squeeze(1))
    found = np.abs(np.corrcoef(q.mean[:, :3].T, levels.T)[:3, 3:])
    assert (found.max(0) > 0.9).all() and len(set(found.argmax(0))) == 3
    assert q.mean[:, :3].std(0).sub(1).abs().max() < 0.2
    assert q.mean[:, 3:].abs().max() < 1e-5 and q.logvar[:, 3:].abs().max() < 1e-5 and (q.logvar[:, :3] == -3).all()


def test_the_start_holds_for_the_statistics_that_training_uses():
    clips, _ = mixed()
    torch.manual_seed(0)
    model = build(model_config("basic_vae", dropout=0.0))
    steps.start_on_components(model, clips, 3, seed=0)
    x = clips.even_windows(torch.arange(len(clips)), 1).squeeze(1)
    with torch.no_grad():
        still, moving = (model.train(mode).encode(x).mean[:, :3] for mode in (False, True))
    assert np.corrcoef(still.flatten(), moving.flatten())[0, 1] > 0.98
    assert [m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)] == 6 * [0.1]


def test_more_components_than_dimensions_are_refused():
    with pytest.raises(InputError, match="9 components"):
        steps.start_on_components(build(model_config("conv_vae")), mixed(20)[0], 9, seed=0)


def test_what_is_held_rests_while_the_decoder_learns():
    stepper, _ = stepped("conv_vae", "32-true")
    before = {k: v.detach().clone() for k, v in stepper.model.named_parameters()}
    stepper.hold(True)
    stepper(*batch(), weights_at(stepper.cfg, 1.0, False), 1.0)
    same = {k for k, v in stepper.model.named_parameters() if torch.equal(v, before[k])}
    assert same == {k for k in before if k.startswith(("encoder", "heads.mean"))}
    stepper.hold(False)
    stepper(*batch(), weights_at(stepper.cfg, 1.0, False), 1.0)
    assert not any(torch.equal(v, before[k]) for k, v in stepper.model.named_parameters())


# --- the mixture ---


@pytest.mark.parametrize(("clips", "components"), [(40, 4), (3, 5)])
def test_the_mixture_starts_on_the_clusters_of_the_codes(clips, components):
    torch.manual_seed(0)
    centres = 10 * torch.randn(min(clips, 4), 8)
    codes = centres[torch.arange(clips) % len(centres)][:, None] + 0.5 * torch.randn(clips, 3, 8)
    model = build(model_config("vade", backbone="fc", components=components))
    steps.init_mixture(model, codes, seed=0)
    found = torch.stack([codes[i :: len(centres)].mean((0, 1)) for i in range(len(centres))])
    assert torch.cdist(found, model.mixture["means"].detach()).amin(1).max() < 1e-2
    assert model.log_weights().exp().sum().item() == pytest.approx(1) and bool(model.mixture_ready)
    variances = model.component_logvars().exp()
    within = codes.var(1, unbiased=False).mean(0)
    assert (variances > 0.99 * within).all() and variances.max() < 2  # never narrower than a clip's own windows
    assert model.responsibilities(codes.flatten(0, 1), 3).exp().amax(1).min() > 0.9 or components > clips


def test_codes_of_streamed_clips_are_those_of_clips_in_memory(store):
    from vaelib.windows import Clips, StreamedClips

    scaler, rows = store.fit_scaler(), store.rows("train")
    model = build(model_config("conv_vae"))
    whole = steps.window_codes(model, Clips.read(store, scaler, rows), 3)
    parts = steps.window_codes(model, StreamedClips(store, scaler, rows, pool_clips=10), 3)
    assert whole.shape == (24, 3, 8) and np.allclose(whole, parts, atol=1e-5)
