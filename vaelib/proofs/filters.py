"""Proof about what convolutional units look for: kernels, answers to ripples, the patterns that drive them most."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import fisher_exact
from torch import Tensor
from torch.nn.functional import conv2d, relu

from ..config import InputError
from ..metrics.spectrogram import Ripples, name_pattern, ripples, selectivity
from ..metrics.statistics import mean_known
from ..models import build, centred
from ..plots.units import units as draw
from ..runs import Run
from .proof import Proof

KINDS = {
    "frequency band": ("frequency band",),
    "onset or rhythm": ("onset", "rhythm"),
    "sweep": ("rising sweep", "falling sweep"),
    "mixed": ("mixed",),
    "flat or silent": ("flat", "silent"),
}
Layers = list[tuple[Tensor, Tensor]]  # weights (out, in, 4, 4) and biases (out,) of the encoder's convolutions
FIELD = (64, 64)  # bins of a ripple; the deepest units see 46 × 46
BEFORE = " at initialisation"


def untrained(run: Run) -> torch.nn.Module:
    """The same architecture with the weights that the run started from."""
    with torch.random.fork_rng():
        torch.manual_seed(run.config.training.seed)
        return build(run.config.model).eval()


def filters(run: Run, examined: int = 32) -> Proof:
    """Are the filters detectors of frequency bands and of rhythms? All of it beside the network before training.

    Three looks: the kernels of the first layer, whose selectivity |E_f - E_t| / (E_f + E_t) compares the energies of
    their differences along frequency and time (0 without orientation, 1 a pure stripe); how all units answer ripples;
    and the pattern that drives a unit most, with its name. A unit is a channel, which looks for the same thing at
    every band and frame: a "frequency band" is a shape, not a place. Values over all layers weigh the layers equally.

    Args:
        run: A run with a convolutional encoder.
        examined: Units per layer (evenly spaced, not picked) whose pattern is sought.

    Raises:
        InputError: the model is fully connected.
    """
    if run.config.model.name == "basic_vae" or run.config.model.backbone == "fc":
        raise InputError(f"{run.name} is fully connected and has no filters: use a convolutional model")
    with run.lock:
        nets = {"trained": _layers(run.model), "untrained": _layers(untrained(run))}
    trained, fresh = (net[0][0][:, 0].numpy() for net in nets.values())
    (selective, leaning), (null, _) = _orientation(trained), _orientation(fresh)
    change = np.linalg.norm(trained - fresh, axis=(1, 2)) / np.linalg.norm(fresh, axis=(1, 2))
    n = {
        "mean selectivity": float(selective.mean()),
        "mean selectivity at initialisation": float(null.mean()),
        "kernels leaning to frequency edges": float((leaning > 0.5).sum()),
        "kernels leaning to time edges (onsets)": float((leaning < -0.5).sum()),
        "mean relative change by training": float(change.mean()),
    }
    probe, seconds = ripples(FIELD), run.config.front_end.hop / run.config.front_end.sample_rate
    tuning, patterns, counts = {}, {}, {}
    per_unit = {"mean selectivity": selective, "mean selectivity at initialisation": null}
    for (who, net), when in zip(nets.items(), ("", BEFORE), strict=True):
        powers = ripple_powers(net, probe)
        tuning[who] = [selectivity(p) for p in powers]
        means = [mean_known(s) for s in tuning[who]]
        n[f"unit selectivity{when}, all layers"] = mean_known(means)
        per_unit[f"unit selectivity{when}, all layers"] = _level(tuning[who])
        n |= {f"layer {i}: {when.strip() or 'unit selectivity'}": mean for i, mean in enumerate(means, 1)}
        for kind, across in (("spectral", probe.temporal), ("temporal", probe.spectral)):
            pure = [(across[p.argmax(1)] == 0).astype(float) for p in powers]
            n[f"share preferring a purely {kind} ripple{when}"] = float(np.mean([p.mean() for p in pure]))
            per_unit[f"share preferring a purely {kind} ripple{when}"] = _level(pure)
        patterns[who] = [_named(net[:i], examined, seconds) for i in range(1, len(net) + 1)]
        counts[who] = count_kinds(name for _, names in patterns[who] for name in names)
        n |= {f"units named {kind}{when}": float(k) for kind, k in counts[who].items()}
    n["units examined"] = float(sum(counts["trained"].values()))
    order = np.argsort(leaning)
    figure, _ = draw({"trained": trained[order], "untrained": fresh[order]}, tuning, patterns, counts, seconds)
    per_unit = {name: values for name, values in per_unit.items() if not np.isnan(values).any()}  # nan: a dead unit
    return Proof("filters", run.name, n, _sentence(n, len(leaning)), figure, per_unit)


def count_kinds(names: object) -> dict[str, int]:
    """How many names of patterns are of each of the `KINDS`."""
    names = list(names)
    return {kind: sum(name.startswith(beginnings) for name in names) for kind, beginnings in KINDS.items()}


def _level(layers: list[np.ndarray]) -> np.ndarray:
    """(unit,) values of all layers, (unit,) each, whose mean is the mean of the layers' means."""
    total = sum(len(values) for values in layers)
    return np.concatenate([values * total / (len(layers) * len(values)) for values in layers])


def _sentence(n: dict[str, float], kernels: int) -> str:
    def beside(kind: str, counts: list[float]) -> str:
        unclear = fisher_exact([counts, [n["units examined"] - k for k in counts]]).pvalue > 0.05
        return f"{kind} {counts[0]:.0f} ({counts[1]:.0f}{', no clear difference' if unclear else ''})"

    counts = {kind: [n[f"units named {kind}"], n[f"units named {kind}{BEFORE}"]] for kind in KINDS}
    named = ", ".join(beside(kind, pair) for kind, pair in counts.items() if any(pair))
    spectral, temporal = (f"share preferring a purely {kind} ripple" for kind in ("spectral", "temporal"))
    return (
        f"The {kernels} first-layer kernels have a mean orientation selectivity of {n['mean selectivity']:.2f} against "
        f"{n['mean selectivity at initialisation']:.2f} before training: "
        f"{n['kernels leaning to time edges (onsets)']:.0f} lean to edges in time (onsets) and "
        f"{n['kernels leaning to frequency edges']:.0f} to edges in frequency (bands, partials). Averaged over the "
        f"layers, the units' selectivity for ripples (0: all alike, 1: a single one) is "
        f"{n['unit selectivity, all layers']:.2f}, before training "
        f"{n['unit selectivity at initialisation, all layers']:.2f}; {n[spectral]:.0%} of the units answer a purely "
        f"spectral ripple most (bands), before {n[spectral + BEFORE]:.0%}, and {n[temporal]:.0%} a purely temporal one "
        f"(rhythm), before {n[temporal + BEFORE]:.0%}. The inputs that drive {n['units examined']:.0f} units most are "
        f"named, before training in brackets: {named}. An untrained network is selective too, and to answer gratings "
        "and optimised inputs is not to detect bands or rhythms in music. One seed."
    )


def _layers(model: torch.nn.Module) -> Layers:
    """Copies: nothing here leaves a gradient on the model or holds its lock for long."""
    found = [m for m in model.encoder if isinstance(m, torch.nn.Conv2d)]
    return [(m.weight.detach().clone(), m.bias.detach().clone()) for m in found]


def _orientation(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    along_f = (np.diff(kernels, axis=1) ** 2).sum((1, 2))
    along_t = (np.diff(kernels, axis=2) ** 2).sum((1, 2))
    leaning = (along_f - along_t) / np.maximum(along_f + along_t, 1e-12)
    return np.abs(leaning), leaning


@torch.inference_mode()
def ripple_powers(net: Layers, probe: Ripples) -> list[np.ndarray]:
    """Per layer (unit, modulation): variance of a unit's answer to a ripple over positions and phases.

    Before the ReLU: behind it, a unit that seldom fires looks selective for whatever wakes it and one that never
    fires drops out, so that sparse would pass for tuned. Without padding: no unit sees an edge of the ripple.
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
    """Inputs that drive units of the last layer most (activation maximisation; Erhan et al. 2009, UdeM TR 1341).

    Gradient ascent on what one position of a unit sees (4, 10, 22 or 46 bins square, no padding), before its ReLU so
    that a silent unit has a gradient too. The steps are weighted by 1 / modulation frequency, alike in all
    directions, and pulled back to grey: a prior that falls off as the modulations of natural sounds do (Singh &
    Theunissen 2003). Without it every pattern is fine noise; with a steeper one untrained units get names.

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
        h = centred(x.requires_grad_())
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


def _named(net: Layers, examined: int, seconds: float) -> tuple[np.ndarray, list[str]]:
    """Patterns of evenly spaced units of the last layer, and their names; a unit that none can wake is silent."""
    width = len(net[-1][1])
    patterns, drive = strongest_patterns(net, np.linspace(0, width - 1, min(examined, width)).round().astype(int))
    return patterns, [name_pattern(x, seconds) if d > 0 else "silent" for x, d in zip(patterns, drive, strict=True)]
