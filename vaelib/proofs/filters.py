"""Proof about what convolutional units look for: kernels, answers to ripples, the patterns that drive them most."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import fisher_exact
from torch import Tensor
from torch.nn.functional import conv2d, relu

from ..config import InputError
from ..evaluation.modulation import Ripples, name_pattern, ripples, selectivity
from ..evaluation.stats import mean_known
from ..models import build, centred
from ..plots.units import units as draw
from ..runs import Run
from .proof import Proof

Layers = list[tuple[Tensor, Tensor]]  # weights (out, in, 4, 4) and biases (out,) of the encoder's convolutions
FIELD = (64, 64)  # bins of a ripple; the deepest units see 46 × 46
KINDS = {
    "frequency band": "frequency band",
    "onset or rhythm": ("onset", "rhythm"),
    "sweep": ("rising sweep", "falling sweep"),
    "mixed": "mixed",
    "flat or silent": ("flat", "silent"),
}


def untrained(run: Run) -> torch.nn.Module:
    """The same architecture with the weights that the run started from."""
    with torch.random.fork_rng():
        torch.manual_seed(run.config.training.seed)
        return build(run.config.model).eval()


def filters(run: Run, examined: int = 32, shown: int = 6) -> Proof:
    """Are the filters detectors of frequency bands and of rhythms? All of it beside the network before training.

    Three looks: the kernels of the first layer, whose selectivity |E_f - E_t| / (E_f + E_t) compares the energies of
    their differences along frequency and time (0 without orientation, 1 a pure stripe); how all units answer ripples;
    and the pattern that drives a unit most, with its name. A unit is a channel, which looks for the same thing at
    every band and frame: a "frequency band" is a shape, not a place. Values over all layers weigh the layers equally.

    Args:
        run: A run with a convolutional encoder.
        examined: Units per layer (evenly spaced, not picked) whose pattern is sought.
        shown: How many of these are drawn.

    Raises:
        InputError: the model is fully connected.
    """
    if run.config.model.name == "basic_vae" or run.config.model.backbone == "fc":
        raise InputError(f"{run.name} is fully connected and has no filters: use a convolutional model")
    with run.lock:
        nets = {"trained": _layers(run.model), "initial": _layers(untrained(run))}
    kernels = {who: net[0][0][:, 0].numpy() for who, net in nets.items()}
    probe, seconds = ripples(FIELD), run.config.front_end.hop / run.config.front_end.sample_rate
    n, leaning = _kernel_numbers(**kernels)
    tuning, pictures, total = {}, {}, 0
    for (who, net), when in zip(nets.items(), ("", " at initialisation"), strict=True):
        powers = ripple_powers(net, probe)
        tuning[who] = [selectivity(p) for p in powers]
        means = [mean_known(s) for s in tuning[who]]
        n[f"unit selectivity{when}, all layers"] = mean_known(means)
        n |= {f"layer {i}: {when.strip() or 'unit selectivity'}": mean for i, mean in enumerate(means, 1)}
        for kind, other in (("spectral", probe.temporal), ("temporal", probe.spectral)):
            share = [np.mean(other[p.argmax(1)] == 0) for p in powers]
            n[f"share preferring a purely {kind} ripple{when}"] = float(np.mean(share))
        pictures[who] = []
        for i, (_, bias) in enumerate(net, 1):
            units = np.linspace(0, len(bias) - 1, min(examined, len(bias))).round().astype(int)
            patterns, drive = strongest_patterns(net[:i], units)
            names = [name_pattern(x, seconds) if d > 0 else "silent" for x, d in zip(patterns, drive, strict=True)]
            pictures[who].append((patterns, names))
        names = [name for _, layer in pictures[who] for name in layer]
        total = len(names)
        n |= {f"units named {k}{when}": float(sum(x.startswith(w) for x in names)) for k, w in KINDS.items()}
    n["units examined"] = float(total)
    order = np.argsort(leaning)
    figure, _ = draw({who: k[order] for who, k in kernels.items()}, pictures, tuning, seconds, shown)
    return Proof("filters", run.name, n, _sentence(n, len(leaning)), figure)


def _sentence(n: dict[str, float], kernels: int) -> str:
    total = int(n["units examined"])

    def beside(kind: str) -> str:
        k, null = int(n[f"units named {kind}"]), int(n[f"units named {kind} at initialisation"])
        unclear = fisher_exact([[k, total - k], [null, total - null]]).pvalue > 0.05
        return f"{kind} {k} ({null}{', no clear difference' if unclear else ''})"

    return (
        f"The {kernels} first-layer kernels have a mean orientation selectivity of {n['mean selectivity']:.2f} against "
        f"{n['mean selectivity at initialisation']:.2f} before training: "
        f"{n['kernels leaning to time edges (onsets)']:.0f} lean to edges in time (onsets) and "
        f"{n['kernels leaning to frequency edges']:.0f} to edges in frequency (bands, partials). Over all layers the "
        f"units' selectivity for ripples (0: all alike, 1: a single one) is {n['unit selectivity, all layers']:.2f} "
        f"against {n['unit selectivity at initialisation, all layers']:.2f}, in the deepest "
        f"{n['layer 4: unit selectivity']:.2f} against {n['layer 4: at initialisation']:.2f}; "
        f"{n['share preferring a purely spectral ripple']:.0%} prefer a purely spectral ripple (bands) and "
        f"{n['share preferring a purely temporal ripple']:.0%} a purely temporal one (rhythm), against "
        f"{n['share preferring a purely spectral ripple at initialisation']:.0%} and "
        f"{n['share preferring a purely temporal ripple at initialisation']:.0%}. The patterns that drive "
        f"{total} of the units most are named, with the same at initialisation in brackets: "
        f"{', '.join(beside(kind) for kind in KINDS)}. An untrained network is selective too, and being driven by a "
        "grating or by an optimised pattern is no proof of detecting bands or rhythms in music; one seed."
    )


def _layers(model: torch.nn.Module) -> Layers:
    """Copies, so that nothing here can leave a gradient on the model or wait for its lock."""
    found = [m for m in model.encoder if isinstance(m, torch.nn.Conv2d)]
    return [(m.weight.detach().clone(), m.bias.detach().clone()) for m in found]


def _kernel_numbers(trained: np.ndarray, initial: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    (selective, leaning), (null, _) = _orientation(trained), _orientation(initial)
    change = np.linalg.norm(trained - initial, axis=(1, 2)) / np.linalg.norm(initial, axis=(1, 2))
    return {
        "mean selectivity": float(selective.mean()),
        "mean selectivity at initialisation": float(null.mean()),
        "kernels leaning to frequency edges": float((leaning > 0.5).sum()),
        "kernels leaning to time edges (onsets)": float((leaning < -0.5).sum()),
        "mean relative change by training": float(change.mean()),
    }, leaning


def _orientation(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    along_f = (np.diff(kernels, axis=1) ** 2).sum((1, 2))
    along_t = (np.diff(kernels, axis=2) ** 2).sum((1, 2))
    leaning = (along_f - along_t) / np.maximum(along_f + along_t, 1e-12)
    return np.abs(leaning), leaning


@torch.inference_mode()
def ripple_powers(net: Layers, probe: Ripples) -> list[np.ndarray]:
    """Per layer (unit, modulation): variance of a unit's answer to a ripple over positions and phases.

    Before the ReLU: behind it, a unit that seldom fires at all looks selective for whatever wakes it, and units that
    never fire drop out, so that sparse would pass for tuned. Without padding: no unit sees an edge of the ripple.
    """
    modulations, phases, *field = probe.images.shape
    h, powers = centred(torch.from_numpy(probe.images).view(-1, 1, *field)), []
    for weight, bias in net:
        h = conv2d(h, weight, bias, stride=2)  # (modulation · phase, unit, mel, frame)
        answers = h.unflatten(0, (modulations, phases)).transpose(1, 2).flatten(2)
        powers.append(answers.var(2, correction=0).T.numpy())
        h = relu(h)
    return powers


def strongest_patterns(
    net: Layers, units: np.ndarray, starts: int = 3, steps: int = 40, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Input patterns that drive units of the last layer most (activation maximisation; Erhan et al. 2009).

    Gradient ascent on what one position of a unit sees (4, 10, 22 or 46 bins square, no padding in sight), before its
    ReLU, so that a silent unit has a gradient too. Steps of one length are weighted by 1 / frequency and pulled back
    to grey: the modulations of natural sounds fall off so in both directions (Singh & Theunissen 2003), and without
    that prior the patterns are mostly noise that the stride lets through.

    Returns:
        Patterns (unit, mel, frame) in [0, 1], the best of several starts, and their activations (unit,).
    """
    side = 3 * 2 ** len(net) - 2
    tilt = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)).clamp_min(1 / side).reciprocal()

    def smooth(x: Tensor) -> Tensor:
        x = torch.fft.irfft2(torch.fft.rfft2(x) * tilt, s=(side, side))
        return x / x.square().mean((2, 3), keepdim=True).sqrt().clamp_min(1e-12)

    weight, bias = (p[torch.as_tensor(units).repeat_interleave(starts)] for p in net[-1])
    noise = torch.randn(len(weight), 1, side, side, generator=torch.Generator().manual_seed(seed))
    x = (0.5 + 0.1 * smooth(noise)).clamp(0, 1)
    for i in range(steps + 1):
        x.requires_grad_()
        h = centred(x)
        for w, b in net[:-1]:
            h = relu(conv2d(h, w, b, stride=2))
        drive = (h * weight).sum((1, 2, 3)) + bias
        if i < steps:
            (gradient,) = torch.autograd.grad(drive.sum(), x)
            x = x.detach()
            x = (x + 0.1 * (1 - i / steps) * smooth(gradient) - 0.05 * (x - 0.5)).clamp(0, 1)
    best = drive.detach().view(-1, starts).max(1)
    rows = torch.arange(len(units)), best.indices
    return x.detach().view(-1, starts, side, side)[rows].numpy(), best.values.numpy()
