"""Training clips/s of every model, with the step that training uses, on clips that lie on the device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vaelib.config import DEFAULT_BETA, FrontEnd, ModelConfig, TrainConfig, one_of
from vaelib.losses import OBJECTIVES, total, weights_at
from vaelib.models import VAE, VaDE, build
from vaelib.optimization import Stepper, make_fabric, resolve_precision
from vaelib.windows import Clips

from . import baselines, limits
from .turns import Candidate, build_and_alternate, figures, ratio

EXTRA_SECONDS = 4.0  # clips are longer than a window, which is cut anywhere in them


@dataclass(frozen=True)
class Variant:
    """One training that is timed: a model, how many classes it is told, and whether VaDE's mixture takes part."""

    title: str
    model: str
    classes: int = 0
    mixture: bool = False

    @property
    def windows(self) -> int:
        """Windows of a clip in one step."""
        return 2 if self.mixture else 1

    def model_config(self, shape: tuple[int, int]) -> ModelConfig:
        """The model at a front end's size."""
        names = tuple(f"class {i:02d}" for i in range(self.classes))
        return ModelConfig(self.model, shape, condition="genre" if names else "", classes=names)

    def train_config(self, batch_size: int) -> TrainConfig:
        """Its training."""
        phases = 1 if self.model == "vade" else 0
        beta = DEFAULT_BETA.get(self.model, 1.0)
        return TrainConfig(batch_size=batch_size, pretrain_epochs=phases, beta=beta)


VARIANTS = {
    "basic_vae": Variant("Basic", "basic_vae"),
    "conv_vae": Variant("Conv", "conv_vae"),
    "beta_vae": Variant("Beta", "beta_vae"),
    "cvae-5": Variant("Conditional, 5 classes", "cvae", classes=5),
    "cvae-45": Variant("Conditional, 45 classes", "cvae", classes=45),
    "vade-first": Variant("VaDE, first phase", "vade"),
    "vade-joint": Variant("VaDE, joint phase", "vade", mixture=True),
}


def random_clips(fe: FrontEnd, n: int, device: torch.device, extra_seconds: float = EXTRA_SECONDS) -> Clips:
    """`n` clips of noise in [0, 1], 16-bit, on the device; longer than a window unless the window is 30 s."""
    extra = round(extra_seconds * fe.sample_rate / fe.hop) if fe.window_seconds < 20 else 0
    mel = torch.rand(n, fe.n_mels, fe.frames + extra, device=device).half()
    lengths = torch.full((n,), fe.frames + extra, dtype=torch.int64, device=device)
    return Clips(mel, lengths, fe.frames, torch.arange(n).numpy(), device)


def make_model(variant: Variant, shape: tuple[int, int]) -> VAE:
    """The variant's model; VaDE's mixture is set, as after its initialisation."""
    model = build(variant.model_config(shape))
    if isinstance(model, VaDE):
        k, latent = model.mixture["means"].shape
        model.set_mixture(torch.full((k,), 1 / k), torch.randn(k, latent), torch.ones(k, latent))
    return model


def candidate(name: str, clips: Clips, batch_size: int, device: torch.device, precision: str = "auto") -> Candidate:
    """The training `VARIANTS[name]` as a candidate: endless shuffled passes through the very step of training."""
    variant = VARIANTS[name]
    cfg = variant.train_config(batch_size)
    torch.manual_seed(0)
    fabric = make_fabric(precision, accelerator=device.type)
    step = Stepper(make_model(variant, (clips.mel.shape[1], clips.width)), cfg, fabric)
    n = len(clips)
    y = (torch.randint(variant.classes, (n,)) if variant.classes else torch.full((n,), -1)).to(device)
    step.model.train()
    weights = weights_at(cfg, math.inf, variant.mixture)
    batches = (batch for _ in itertools.count() for batch in clips.batches(batch_size, variant.windows))

    def run(steps: int) -> int:
        done = 0
        for x, index in itertools.islice(batches, steps):
            terms = step(x, y[index].repeat_interleave(variant.windows), weights, 1.0)
            done += len(x)
        if not math.isfinite(float(terms["loss"])):  # reading it waits for the device
            raise RuntimeError(f"the loss of {name} is no longer finite: its speed would mean nothing")
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return done

    return Candidate(name, run)


def arithmetic(variant: Variant, shape: tuple[int, int], low_precision: bool) -> dict[str, float]:
    """Parameters, FLOP (forward and backward) and least bytes per clip, and least bytes per step of a variant."""
    model, n = make_model(variant, shape).train(), 2
    x, y = torch.rand(n * variant.windows, 1, *shape), torch.zeros(n * variant.windows, dtype=torch.int64)
    weights = weights_at(variant.train_config(n), math.inf, variant.mixture)

    def forward() -> Tensor:
        out = model(x, y if variant.classes else None)
        return total(OBJECTIVES[variant.model](model, x, out, y, weights), weights)

    with limits.counted_activations(model, low_precision) as moved:
        flop = limits.flops(forward)
    return {
        "parameters": model.parameter_count(),
        "flop_per_clip": flop / len(x),
        "bytes_per_clip": sum(moved) / len(x),
        "bytes_per_step": limits.weight_bytes(model, low_precision),
    }


def measure(
    fe: FrontEnd,
    names: list[str],
    *,
    device: torch.device,
    rates: dict[str, float],
    batch_size: int,
    rounds: int,
    seconds: float,
    resident: int,
    precision: str = "auto",
    show: Callable[[str], None] = lambda line: None,
) -> tuple[list[dict], list[str]]:
    """Time the variants at one front end: Conv in turns with its baselines, then each of the others alone.

    A clip is one window that went forward and backward.

    Args:
        names: Keys of `VARIANTS`.
        rates: The device's `matrix_fp32`, `matrix_bf16` (FLOP/s) and `memory` (bytes/s).
        batch_size: Clips per step; VaDE's joint phase takes two windows of each.
        seconds: About how long a turn takes; at least one step.
        resident: Clips on the device.

    Returns:
        One row per variant and baseline, and a sentence for each baseline that could not be there.
    """
    for name in names:
        one_of("model", name, VARIANTS)
    used = resolve_precision(precision, device.type)
    low = "bf16" in used
    clips = random_clips(fe, resident, device)
    found = {}
    for name in names:
        show(f"{fe.name}: counting the arithmetic of {name}")
        found[name] = arithmetic(VARIANTS[name], fe.shape, low)
    others, skipped = baselines.available(clips, batch_size, device) if "conv_vae" in names else ({}, [])
    samples = {}
    for name in names:
        group = {name: partial(candidate, name, clips, batch_size, device, precision)}
        group |= others if name == "conv_vae" else {}
        samples |= build_and_alternate(group, device, seconds, rounds, lambda line: show(f"{fe.name}, {line}"))
    rows = []
    for name in names:
        v, about = VARIANTS[name], found[name]
        top = limits.roofline(
            about["flop_per_clip"], about["bytes_per_clip"], about["bytes_per_step"], batch_size * v.windows,
            rates["matrix_bf16" if low else "matrix_fp32"], rates["memory"],
        )  # fmt: skip
        row = {"profile": fe.name, "name": name, "title": v.title, "batch_size": batch_size, "windows": v.windows,
               "precision": used} | about | top | figures(samples[name])  # fmt: skip
        rows.append(row | {"share": row["clips_per_s"] / row["limit"]})
        for other in others if name == "conv_vae" else ():
            title, how = baselines.TITLES[other]
            over = {"conv_over_it": ratio(samples[name], samples[other])}
            rows.append({"profile": fe.name, "name": other, "title": title, "batch_size": batch_size,
                         "precision": how} | figures(samples[other]) | over)  # fmt: skip
    return rows, skipped
