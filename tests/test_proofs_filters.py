"""What units look for: against the real, padded network, Fourier transforms, random search and hand-built kernels."""

import copy
import dataclasses
import sys
from functools import lru_cache

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vaelib.config import InputError
from vaelib.metrics.modulation import KINDS, Ripples, name_pattern, ripples, selectivity
from vaelib.models import build, centred
from vaelib.plots.units import units as draw
from vaelib.proofs.filters import _layers, _orientation, filters, ripple_powers, strongest_patterns, untrained
from vaelib.runs import fit, plan

SETTINGS = {
    "conv_vae": {},
    "beta_vae": {},
    "vade": {"pretrain_epochs": 1},
    "cvae": {"condition": "language", "prior": "fixed"},
}
SMALL = {"latent": 8, "components": 4}
QUICK = {"epochs": 2, "batch_size": 10, "eval_windows": 2, "precision": "32-true"}
STRIPES = np.tile([1.0, -1, 1, -1], (4, 1))  # (frequency, time): alternates over time


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """A finished run of every convolutional model: two epochs on the tones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        return {
            model: fit(
                plan(store, model, model_settings={"latent": 8, "components": 4}, **QUICK | changes), store, False
            )
            for model, changes in SETTINGS.items()
        }


@pytest.fixture(scope="module")
def made(trained):
    """The proof of a model, of two units per layer, made once."""
    return lru_cache(lambda model: filters(trained[model], examined=2))


@pytest.fixture
def conv(trained):
    """The conv_vae run with a model of its own, whose weights a test may change."""
    run = trained["conv_vae"]
    return dataclasses.replace(run, model=copy.deepcopy(run.model))


@pytest.fixture(scope="module")
def net(trained):
    return _layers(trained["conv_vae"].model)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


# --- ripples ---


def test_the_first_layer_answers_ripples_as_its_fourier_transform_says(net):
    probe = ripples((64, 64))
    kernels = net[0][0][:, 0].numpy().astype(float)
    f, t = np.indices((4, 4))
    turns = (probe.spectral[:, None, None] * f + probe.temporal[:, None, None] * t) / 64  # (modulation, 4, 4)
    transfer = np.abs(np.einsum("uft,mft->um", kernels, np.exp(2j * np.pi * turns)))
    np.testing.assert_allclose(ripple_powers(net, probe)[0], 2 * transfer**2, rtol=1e-3)  # cosines of amplitude 2


def test_the_answers_are_those_of_the_network_where_it_sees_no_padding(trained, net):
    images = np.random.default_rng(0).uniform(size=(3, 2, 64, 64)).astype(np.float32)
    h = centred(torch.from_numpy(images).flatten(0, 1)[:, None])
    inner = Ripples(images[:, :, 1:, 1:], np.zeros(3), np.zeros(3))  # position j without padding is j + 1 with it
    powers = iter(ripple_powers(net, inner))
    with torch.inference_mode():
        for block in list(trained["conv_vae"].model.encoder)[:-1]:
            h = block(h)
            if isinstance(block, torch.nn.Conv2d):
                answers = h[:, :, 1:-1, 1:-1].unflatten(0, (3, 2)).numpy()  # (modulation, phase, unit, mel, frame)
                np.testing.assert_allclose(next(powers), answers.var((1, 3, 4)).T, rtol=1e-3)
    assert answers.shape[2:] == (256, 2, 2)


def test_a_bias_changes_nothing_before_the_first_relu_and_a_dead_unit_answers_nothing(net):
    probe = ripples((64, 64), steps=2)
    changed = [(w.clone(), b + 1 / 3) for w, b in net]  # a number whose mean float32 does not hit
    changed[0][0][5] = 0
    before, after = ripple_powers(net, probe)[0], ripple_powers(changed, probe)[0]
    alive = np.arange(32) != 5
    np.testing.assert_allclose(after[alive], before[alive], rtol=1e-3)
    assert not after[5].any() and np.isnan(selectivity(after)).tolist() == (~alive).tolist()


# --- strongest patterns ---


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_network_itself_answers_a_pattern_as_strongly_as_reported(trained, net, depth):
    units = np.array([0, 7, 31])
    patterns, drive = strongest_patterns(net[:depth], units, steps=5)
    assert patterns.shape == (3, *[(4, 10, 22, 46)[depth - 1]] * 2)
    x = torch.from_numpy(np.pad(patterns, ((0, 0), (1, 1), (1, 1)), constant_values=0.9))[:, None]
    blocks = list(trained["conv_vae"].model.encoder)[: 2 * depth - 1]  # up to the layer, before its ReLU
    with torch.inference_mode():
        answers = torch.nn.Sequential(*blocks)(centred(x))
    assert answers.shape[2:] == (3, 3)
    np.testing.assert_allclose(answers[np.arange(3), units, 1, 1], drive, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_patterns_are_bounded_and_drive_units_more_than_any_of_many_random_inputs(net, depth):
    units = np.arange(0, 32, 4)
    patterns, drive = strongest_patterns(net[:depth], units)
    assert patterns.min() >= 0 and patterns.max() <= 1
    side = patterns.shape[1]
    with torch.inference_mode():
        h = centred(torch.rand(500, 1, side, side, generator=torch.Generator().manual_seed(1)))
        for i, (w, b) in enumerate(net[:depth]):
            h = torch.nn.functional.conv2d(h.relu() if i else h, w, b, stride=2)
    assert (drive > h[:, units, 0, 0].max(0).values.numpy()).all()


def test_the_best_of_several_starts_is_kept_and_chance_is_left_alone(net):
    units = np.arange(8)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, few = strongest_patterns(net[:2], units, starts=2)
    again, same = strongest_patterns(net[:2], units, starts=2)
    assert torch.rand(1) == expected
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(few, same)
    each = strongest_patterns(net[:2], units.repeat(2), starts=1)[1].reshape(8, 2)  # the same starts, all kept
    assert (each[:, 0] != each[:, 1]).any()
    np.testing.assert_allclose(few, each.max(1), rtol=1e-5)


def test_what_a_unit_does_not_care_for_fades_to_grey(net):
    deaf = [*net[:1], (torch.zeros_like(net[1][0]), net[1][1])]
    patterns, drive = strongest_patterns(deaf, np.arange(4))
    assert 0 < np.abs(patterns - 0.5).max() < 0.1  # a fifth of what the noise began with
    np.testing.assert_allclose(drive, net[1][1][:4])


def test_hand_built_kernels_get_the_patterns_and_names_they_were_built_for():
    step = np.tile([-1.0, -1, 1, 1], (4, 1))
    diagonal = 2 * np.eye(4) - 0.5
    kernels = np.stack([STRIPES, STRIPES.T, step, step.T, diagonal, diagonal[::-1]])
    net = [(torch.tensor(kernels, dtype=torch.float32)[:, None], torch.zeros(6))]
    patterns, _ = strongest_patterns(net, np.arange(6))
    names = [name_pattern(p) for p in patterns]
    assert names[:4] == ["rhythm", "frequency band", "onset", "frequency band"]
    assert names[4:] == ["rising sweep", "falling sweep"]
    for kernel, pattern in zip(kernels, patterns, strict=True):
        assert np.corrcoef(kernel.ravel(), pattern.ravel())[0, 1] > 0.8


# --- the proof ---


@pytest.mark.parametrize("model", SETTINGS)
def test_every_convolutional_model_is_measured_beside_its_initialisation(trained, made, model):
    run, found = trained[model], made(model)
    n = found.numbers
    assert all(type(v) is float and np.isfinite(v) for v in n.values())
    assert n["units examined"] == 8
    for when in ("", " at initialisation"):
        assert sum(n[f"units named {kind}{when}"] for kind in KINDS) == 8
        layers = [n[f"layer {i}: {when.strip() or 'unit selectivity'}"] for i in (1, 2, 3, 4)]
        assert n[f"unit selectivity{when}, all layers"] == pytest.approx(np.mean(layers))
        assert min(layers) > 0 and max(layers) < 1
        assert 0 <= n[f"share preferring a purely spectral ripple{when}"] <= 1
    assert n["layer 4: unit selectivity"] != n["layer 4: at initialisation"]
    assert (found.name, found.subject) == ("filters", run.name)
    assert "before training" in found.sentence and "nan" not in found.sentence
    assert f"is {n['unit selectivity, all layers']:.2f}, before training" in found.sentence


def test_the_proof_leaves_the_model_its_lock_and_the_dice_alone(trained, made):
    run = trained["conv_vae"]
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = filters(run, examined=2)
    assert torch.rand(1) == expected
    assert again.numbers == made("conv_vae").numbers and again.sentence == made("conv_vae").sentence
    assert all(p.grad is None and p.requires_grad for p in run.model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())
    assert run.lock.acquire(blocking=False)
    run.lock.release()


def test_weights_are_read_under_the_lock_and_nothing_else_is(conv, monkeypatch):
    module, held = sys.modules[filters.__module__], {"_layers": [], "ripple_powers": [], "strongest_patterns": []}
    for name, seen in held.items():
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, real=real, seen=seen: (seen.append(conv.lock.locked()), real(*a))[1]
        )
    filters(conv, examined=1)
    assert held == {"_layers": [True] * 2, "ripple_powers": [False] * 2, "strongest_patterns": [False] * 8}


def test_an_untrained_model_equals_its_initialisation(conv):
    conv.model = untrained(conv)
    found = filters(conv, examined=2)
    n = found.numbers
    assert n["mean relative change by training"] == 0
    assert n["mean selectivity"] == n["mean selectivity at initialisation"]
    for key in [k for k in n if k.startswith(("units named", "share preferring")) and "initialisation" not in k]:
        assert n[key] == n[f"{key} at initialisation"]
    for i in (1, 2, 3, 4):
        assert n[f"layer {i}: unit selectivity"] == n[f"layer {i}: at initialisation"]
    assert "no clear difference" in found.sentence


def test_stripes_are_counted_as_what_they_are(conv):
    kernels = np.stack([STRIPES] * 20 + [STRIPES.T] * 12)[:, None]
    weight = conv.model.encoder[0].weight
    weight.data = weight.data.new_tensor(kernels)
    for layer in (2, 4, 6):
        conv.model.encoder[layer].weight.data.zero_()  # and the deeper ones are dead
        conv.model.encoder[layer].bias.data.fill_(-0.3)
    found = filters(conv, examined=32)
    n = found.numbers
    assert n["kernels leaning to time edges (onsets)"] == n["units named onset or rhythm"] == 20
    assert n["kernels leaning to frequency edges"] == n["units named frequency band"] == 12
    assert n["units named flat or silent"] == 96
    assert n["share preferring a purely temporal ripple"] == 20 / 32 / 4  # of the first layer, of four
    assert n["share preferring a purely spectral ripple"] == 12 / 32 / 4
    assert n["mean selectivity"] == pytest.approx(1)
    assert n["layer 1: unit selectivity"] > 2 * n["layer 1: at initialisation"]
    assert np.isnan(n["layer 2: unit selectivity"])
    assert n["unit selectivity, all layers"] == n["layer 1: unit selectivity"]  # what is known
    assert "20 lean to edges in time (onsets) and 12 to edges in frequency" in found.sentence
    assert "onset or rhythm 20 (" in found.sentence and "flat or silent 96 (0)" in found.sentence


def test_orientation_of_stripes_of_a_checkerboard_and_of_a_constant():
    checked, flat = STRIPES * STRIPES.T, np.ones((4, 4))
    selective, leaning = _orientation(np.stack([STRIPES.T, STRIPES, checked, flat]))
    np.testing.assert_allclose(leaning, [1, -1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(selective, [1, 1, 0, 0], atol=1e-12)


@pytest.mark.parametrize("changes", [{"backbone": "fc", "name": "vade"}, {"name": "basic_vae"}])
def test_a_fully_connected_model_has_no_filters(conv, changes):
    model = dataclasses.replace(conv.config.model, **changes)
    conv.config = dataclasses.replace(conv.config, model=model)
    with pytest.raises(InputError, match="is fully connected and has no filters: use a convolutional model"):
        filters(conv)


def test_the_start_of_a_run_is_rebuilt_from_its_seed(trained):
    run = trained["cvae"]
    fresh = untrained(run)
    torch.manual_seed(run.config.training.seed)
    assert torch.equal(fresh.encoder[0].weight, build(run.config.model).encoder[0].weight)
    assert not torch.equal(fresh.encoder[0].weight, run.model.encoder[0].weight)
    assert not fresh.training


# --- the picture ---


def test_the_picture_names_the_patterns_and_skips_what_is_not_there():
    noise = np.random.default_rng(0).uniform(size=(3, 4, 4))
    patterns = [(noise, ["onset", "mixed", "rhythm at 2.2 Hz"]), (np.zeros((1, 10, 10)), ["flat"])]
    tuning = [np.full(5, np.nan), np.array([0.2, np.nan, 0.4])]
    inputs = [np.zeros((5, 4, 4)), tuning, patterns, {"mixed": 1, "x": 3}]
    fig, axes = draw(*({"trained": part} for part in inputs), 0.1)
    assert [ax.get_title() for ax in fig.axes if ax.get_title()] == ["onset", "mixed", "rhythm at 2.2 Hz", "flat"]
    assert len([ax for ax in axes if ax.images]) == 5  # one sheet of kernels, four patterns
    dots = axes[1].lines[-1].get_xdata()
    assert len(axes[1].lines) == 2 and dots == pytest.approx([0.3])  # no dot for the dead layer
    assert "of 4 units" in axes[2].get_xlabel()
    labels = [ax.get_ylabel() for ax in axes]
    assert "layer 1\n4 bands\n0.4 s" in labels and "layer 2\n10 bands\n1.0 s" in labels


def test_the_longest_names_do_not_run_into_each_other():
    patterns = [(np.zeros((6, n, n)), ["rhythm at 0.67 Hz"] * 6) for n in (4, 10, 22, 46)]
    inputs = [np.zeros((32, 4, 4)), [np.ones(3)] * 4, patterns, dict.fromkeys(KINDS, 1)]
    fig, _ = draw(*({"trained": part, "untrained": part} for part in inputs), 0.1)
    fig.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in fig.axes if ax.get_title()]
    assert len(boxes) == 40
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
