"""One matrix over every model and several input sizes; then what only one of them has."""

from functools import partial

import pytest
import torch
from conftest import LANGUAGES, model_config
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vaelib import losses, models
from vaelib.config import InputError, ModelConfig, TrainConfig
from vaelib.models import VaDE, build

VARIANTS = {name: {} for name in models.MODELS if name not in ("cvae", "vade")} | {
    "cvae-standard": {}, "cvae-fixed": {"prior": "fixed"}, "cvae-learned": {"prior": "learned"},
    "vade-conv": {}, "vade-fc": {"backbone": "fc"},
}  # fmt: skip
SHAPES = [(16, 16), (20, 37)]
WEIGHTS = losses.weights_at(TrainConfig(class_weight=1.0), 1e9, mixture=True)


def make(variant: str, shape=(16, 16), seed: int = 0, **settings):
    torch.manual_seed(seed)
    model = build(model_config(variant.split("-")[0], shape, **VARIANTS[variant] | settings))
    if isinstance(model, VaDE):
        k, latent = model.mixture["means"].shape
        model.set_mixture(torch.arange(1.0, k + 1) / 10, torch.randn(k, latent), torch.rand(k, latent) + 0.3)
    return model


def batch(shape=(16, 16), n=6):
    torch.manual_seed(1)
    return torch.rand(n, 1, *shape), torch.arange(n) % len(LANGUAGES)


matrix = partial(pytest.mark.parametrize, "variant", list(VARIANTS))
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))


@matrix()
@shapes
def test_shapes_ranges_and_a_gradient_at_every_parameter(variant, shape):
    model, (x, y) = make(variant, shape), batch(shape)
    out = model(x, y)
    assert out.recon.shape == x.shape and out.recon.min() >= 0 and out.recon.max() <= 1
    assert out.z.shape == out.prior_mean.shape == out.posterior.mean.shape == out.posterior.logvar.shape == (6, 8)
    terms = losses.OBJECTIVES[model.config.name](model, x, out, y, WEIGHTS)
    assert all(t.shape == (6,) and t.isfinite().all() for t in terms.values())
    losses.total(terms, WEIGHTS).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


@matrix()
@shapes
def test_sampling_is_seeded_and_in_range(variant, shape):
    model = make(variant, shape).eval()
    one, two, other = (model.decode(*model.draw(5, seed=s)) for s in (3, 3, 4))
    assert one.shape == (5, 1, *shape) and one.isfinite().all() and one.min() >= 0 and one.max() <= 1
    assert torch.equal(one, two) and not torch.equal(one, other)
    drawn, y = model.draw(4, torch.tensor([0, 1, 2, 1]), seed=5, shared=True)[0], torch.tensor([0])
    assert torch.equal(drawn[:1], model.draw(1, y, seed=5)[0]) and torch.equal(drawn[1], drawn[3])


@matrix()
def test_forward_is_encode_then_decode_and_sampling_is_an_argument(variant):
    model, (x, y) = make(variant).eval(), batch()
    q, out = model.encode(x, y), model(x, y, draw=torch.zeros_like)
    assert torch.equal(out.z, q.mean) and torch.equal(out.recon, model.decode(q.mean, y))
    drawn, other = model(x, y), (y + 1) % 3
    assert not torch.equal(drawn.z, q.mean) and torch.equal(drawn.recon, model.decode(drawn.z, y))
    conditional = variant.startswith("cvae")
    assert torch.allclose(q.mean, model.encode(x, other).mean) != conditional
    assert torch.allclose(out.recon, model.decode(q.mean, other)) != conditional


@pytest.mark.parametrize(
    ("name", "full", "compact"),
    [("basic_vae", 170.0, 4.58), ("conv_vae", 64.46, 2.96), ("beta_vae", 64.46, 2.96), ("cvae", 75.0, 3.30)],
)
def test_parameter_counts_are_the_measured_ones(name, full, compact):
    classes = ("arabic", "bangla", "english", "hindi", "spanish") if name == "cvae" else ()
    for shape, millions in (((128, 1293), full), ((64, 64), compact)):
        with torch.device("meta"):
            found = build(ModelConfig(name, shape, classes=classes)).parameter_count()
        assert found / 1e6 == pytest.approx(millions, abs=0.06 if millions > 65 else 0.006)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (model_config("conv_ave"), "did you mean 'conv_vae'"),
        (model_config("conv_vae", (64, 12)), "input size 12 is too small"),
        (model_config("cvae", classes=("one",)), "at least two classes"),
        (model_config("cvae", prior="fixed", latent=2), "3 orthogonal class means"),
    ],
)
def test_what_cannot_be_built_is_a_sentence(config, message):
    with pytest.raises(InputError, match=message):
        build(config)


def test_fixed_prior_is_orthogonal_at_the_given_distance():
    model = make("cvae-fixed", prior_distance=7.0).eval()
    means = model.prior_mean(torch.zeros(3, 8), torch.arange(3))
    assert torch.allclose(torch.pdist(means), torch.tensor(7.0), atol=1e-4)
    assert torch.allclose(means @ means.T, 24.5 * torch.eye(3), atol=1e-4)
    assert "class_means" in dict(model.named_buffers()) and "class_means" not in dict(model.named_parameters())
    assert not make("cvae-standard").prior_mean(torch.ones(3, 8), torch.arange(3)).any()
    assert make("cvae-learned").prior_mean(torch.zeros(3, 8), torch.arange(3)).std(0).min() > 0


def test_an_unknown_label_is_inferred_by_the_class_head_or_marginalised():
    model, (x, y) = make("cvae-fixed").eval(), batch()
    inferred = model.encode(x).class_logits.argmax(1)
    assert torch.equal(model.encode(x).mean, model.encode(x, inferred).mean)
    p = torch.softmax(torch.randn(6, 3), 1)  # with probabilities the class is marginalised
    given = torch.stack([model.encode(x, torch.full((6,), c)).mean for c in range(3)])
    assert torch.allclose(model.encode(x, p).mean, torch.einsum("bc,cbl->bl", p, given), atol=1e-5)
    some = torch.where(torch.arange(6) < 3, y, -1)  # half of the labels are unknown
    mixed = torch.where(some < 0, inferred, y)
    got, want = (model(x, labels, draw=torch.zeros_like) for labels in (some, mixed))
    assert torch.equal(got.recon, want.recon) and torch.equal(got.prior_mean, model.prior_mean(x[:, 0, 0, :8], mixed))


def test_responsibilities_are_the_posterior_of_the_mixture_and_windows_of_a_clip_share_it():
    model, z = make("vade-fc"), torch.randn(12, 8)
    parts = Independent(Normal(model.mixture["means"], (0.5 * model.component_logvars()).exp()), 1)
    mixture = MixtureSameFamily(Categorical(logits=model.mixture["logits"]), parts)
    joint = parts.log_prob(z[:, None]) + mixture.mixture_distribution.logits
    want = (joint - mixture.log_prob(z)[:, None]).exp()
    assert torch.allclose(model.responsibilities(z).exp(), want, atol=1e-5)
    shared = model.responsibilities(z, windows=3)
    want = parts.log_prob(z[:, None]).view(4, 3, -1).sum(1) + model.log_weights()  # log π once, not once per window
    assert shared.shape == (4, 4) and torch.allclose(shared, torch.log_softmax(want, 1), atol=1e-5)
    same = z[:1].repeat(3, 1)
    assert model.responsibilities(same, 3).max() > model.responsibilities(same[:1]).max()  # evidence adds up


@pytest.mark.parametrize("size", [0.0, 1e3, 1e6])
def test_extreme_codes_stay_finite(size):
    model, (x, _) = make("vade-fc"), batch()
    model.mixture["logvars"].data[:2] = torch.tensor([-1e4, 1e4])[:, None]
    model.mixture["logits"].data[0] = -1e4
    out = model(x)
    z = size * torch.sign(torch.randn(6, 8))
    far = out._replace(z=z, posterior=out.posterior._replace(mean=z, logvar=torch.full((6, 8), 6.0)))
    loss = losses.total(losses.mixture_elbo(model, x, far, None, WEIGHTS), WEIGHTS)
    assert model.responsibilities(z).exp().sum(1).allclose(torch.ones(6)) and loss.isfinite()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.mixture.parameters())


def test_a_component_can_be_sampled_and_weights_decide_otherwise():
    model = make("vade-fc").eval()
    model.set_mixture(torch.tensor([0.0, 0.5, 0.5, 0.0]), 20 * torch.eye(4, 8), torch.full((4, 8), 1e-2))
    assert bool(model.mixture_ready) and float(model.log_weights().exp().sum().detach()) == pytest.approx(1)
    chosen = model.draw(500, seed=0)[0].argmax(1).bincount(minlength=4)
    assert chosen[[0, 3]].sum() < 5 and chosen[1] == pytest.approx(250, abs=50)
    assert model.draw(3, torch.tensor([0, 3, 3]), seed=0)[0].argmax(1).tolist() == [0, 3, 3]


@shapes
def test_first_and_last_convolution_as_products_are_the_convolutions(shape):
    encoder, decoder, _ = models.conv_network(shape, 4)
    x, h = torch.rand(2, 1, *shape), torch.rand(2, 32, *(size // 2 for size in shape))
    for layer, given in ((encoder[0], x), (decoder[-1], h)):
        by_product = layer.as_product(given)
        assert by_product.shape == layer(given).shape
        assert torch.allclose(by_product, layer(given), atol=1e-5)
