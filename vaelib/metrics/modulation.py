"""What a pattern or a unit is tuned to: ripples, their selectivity, and a name in words for a pattern.

A modulation is a pair of frequencies on the (mel, frame) grid, in cycles per window: along time (rhythm) and along
frequency (bands, partials). A positive spectral modulation falls over time, a negative one rises.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from vaelib.config import InputError

OBLIQUE = np.tan(np.pi / 8)  # a modulation within 22.5° of an axis counts as lying on it: four equal sectors
FLAT = 1e-3  # standard deviation under which a pattern in [0, 1] shows nothing
KINDS = {  # what names of patterns begin with
    "frequency band": ("frequency band",),
    "onset or rhythm": ("onset", "rhythm"),
    "sweep": ("rising sweep", "falling sweep"),
    "mixed": ("mixed",),
    "flat or silent": ("flat", "silent"),
}


class Ripples(NamedTuple):
    """Dynamic ripples (modulation, phase, mel, frame) in [0, 1]; `temporal`, `spectral`: (modulation,) cycles."""

    images: np.ndarray
    temporal: np.ndarray
    spectral: np.ndarray


def ripples(shape: tuple[int, int], steps: int = 6, phases: int = 4) -> Ripples:
    """Spectro-temporal gratings 0.5 + 0.5 cos(2π(ω_t t + ω_f f) + φ), the same set for every pattern of a shape.

    Chi et al. 1999 (doi:10.1121/1.428100) and Elliott & Theunissen 2009 (doi:10.1371/journal.pcbi.1000302).

    Args:
        shape: (mel bands, frames), at least 8 each.
        steps: Non-zero frequencies of each axis, whole cycles spaced by ratio from 1 to 3/8 of the bins; both
            directions of every oblique grating, and the gratings along one axis only.
        phases: Evenly spaced phases.

    Raises:
        InputError: the grid is too small, or there is nothing to vary.
    """
    if min(shape) < 8 or steps < 1 or phases < 1:
        raise InputError(f"ripples need 8 × 8 bins, a frequency and a phase, not {shape}, {steps} and {phases}")
    f_cycles, t_cycles = (np.unique(np.geomspace(1, 3 * n / 8, steps).round()) for n in shape)
    both = np.r_[-f_cycles[::-1], 0, f_cycles]
    grid = [(t, f) for t in t_cycles for f in both] + [(0, f) for f in f_cycles]
    temporal, spectral = np.array(grid).T
    f, t = (np.arange(n) / n for n in shape)
    turns = temporal[:, None, None] * t + spectral[:, None, None] * f[:, None]  # (modulation, mel, frame)
    angles = 2 * np.pi * (turns[:, None] + (np.arange(phases) / phases)[:, None, None])
    return Ripples((0.5 + 0.5 * np.cos(angles)).astype(np.float32), temporal, spectral)


def selectivity(responses: np.ndarray) -> np.ndarray:
    """How few modulations a unit answers: 1 - H / log M, H the entropy of its power over the M modulations.

    Args:
        responses: (unit, modulation) power, not negative.

    Returns:
        (unit,) 0 for the same answer to all, 1 for an answer to a single one, nan for a unit that never answers.

    Raises:
        InputError: fewer than two modulations, or a power that is negative or not finite.
    """
    power = np.asarray(responses, dtype=float)
    if power.ndim != 2 or power.shape[1] < 2:
        raise InputError(f"selectivity needs (unit, modulation) with at least two modulations, not {power.shape}")
    if not (np.isfinite(power) & (power >= 0)).all():
        raise InputError("selectivity needs finite powers of at least 0: square the responses first")
    total = power.sum(1, keepdims=True)
    share = np.divide(power, total, out=np.full_like(power, np.nan), where=total > 0)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(1)
    return np.clip(1 - entropy / np.log(power.shape[1]), 0, 1)


def modulation_spectrum(patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """2-D power of patterns (n, mel, frame) without their means (Singh & Theunissen 2003, doi:10.1121/1.1624067).

    Folded to temporal modulations of at least 0, so that the powers of a pattern add up to its variance. No window:
    the power at temporal 0 is then exactly the variance that frequency alone explains, and at spectral 0 that of time.

    Returns:
        Power (n, mel, frame // 2 + 1) and its axes in cycles per window, spectral (mel,) and temporal.

    Raises:
        InputError: not (n, mel, frame), or values that are not finite.
    """
    x = np.asarray(patterns, dtype=float)
    if x.ndim != 3 or x.size == 0 or not np.isfinite(x).all():
        raise InputError(f"a modulation spectrum needs finite patterns (n, mel, frame), not these of shape {x.shape}")
    bands, frames = x.shape[1:]
    power = np.abs(np.fft.rfft2(x - x.mean((1, 2), keepdims=True))) ** 2 / (bands * frames) ** 2
    power[:, :, 1 : (frames + 1) // 2] *= 2  # their mirror images at negative temporal modulations
    return power, np.fft.fftfreq(bands, 1 / bands), np.fft.rfftfreq(frames, 1 / frames)


def name_pattern(pattern: np.ndarray, frame_seconds: float | None = None) -> str:
    """What a pattern (mel, frame) in [0, 1] looks like, in words, from its modulation spectrum.

    A name needs more than half of the power: within 22.5° of the spectral axis a `frequency band`, of the temporal
    axis an `onset`, or a `rhythm` where it repeats (a quarter on the axis itself: a product of both has none there);
    in one direction, with three times that of the other, a sweep. Otherwise `mixed`: checkerboard, spot, noise.

    Args:
        pattern: One pattern; its modulations are counted on its own window, whatever its size.
        frame_seconds: Seconds per frame: a rhythm gets its rate, "rhythm at 2.2 Hz".

    Raises:
        InputError: as `modulation_spectrum`.
    """
    x = np.asarray(pattern, dtype=float)
    (power,), spectral, temporal = modulation_spectrum(x[None])
    if power.sum() < FLAT**2:
        return "silent" if np.abs(x).max() < FLAT else "flat"
    share, f, t = power / power.sum(), np.abs(spectral)[:, None], temporal[None]
    if share[t < OBLIQUE * f].sum() > 0.5 and share[:, 0].sum() > 0.25:
        return "frequency band"
    if share[f < OBLIQUE * t].sum() > 0.5 and share[0].sum() > 0.25:
        lag = _period(x.mean(0))
        rate = f" at {1 / (lag * frame_seconds):.2g} Hz" if lag and frame_seconds else ""
        return f"rhythm{rate}" if lag else "onset"
    moving = share[:, 1:].sum(1) * (2 * np.abs(spectral) < len(x))  # at Nyquist both directions look the same
    falling, rising = moving[spectral > 0].sum(), moving[spectral < 0].sum()
    if max(falling, rising) > max(0.5, 3 * min(falling, rising)):
        return "falling sweep" if falling > rising else "rising sweep"
    return "mixed"


def count_kinds(names: Iterable[str]) -> dict[str, int]:
    """How many names of patterns are of each of the `KINDS`."""
    names = list(names)
    return {kind: sum(name.startswith(beginnings) for name in names) for kind, beginnings in KINDS.items()}


def _period(course: np.ndarray) -> int:
    """Frames after which a time course repeats, at least twice in the window; 0 if it does not.

    The highest autocorrelation (circular) after its first zero; an onset, which happens once, has no such peak.
    """
    r = np.fft.irfft(np.abs(np.fft.rfft(course - course.mean())) ** 2, len(course))[: len(course) // 2 + 1]
    start = int((r < 0).argmax())
    lag = start + int(r[start:].argmax())
    return lag if start and r[lag] > 0.4 * r[0] else 0
