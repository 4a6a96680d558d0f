"""Spectrograms compared: what a reconstruction keeps, whether a path is gradual, and what a pattern looks like.

Spectrograms are (N, F, T): clips, mel bands, frames, scaled to [0, 1]. Notebook 02 explains the paths, 03 the rest.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaelib.metrics.statistics import Scores, mean_known, ratio_values

OBLIQUE = np.tan(np.pi / 8)  # a modulation within 22.5° of an axis counts as lying on it: four equal sectors
FLAT = 1e-3  # standard deviation under which a pattern in [0, 1] shows nothing


def edge_energy(x: np.ndarray, axis: int) -> np.ndarray:
    """Sum of squared differences of neighbouring bins along frequency (axis 1) or time (2), per clip, (N,)."""
    return (np.diff(x, axis=axis) ** 2).sum(axis=(1, 2))


def onset_correlations(x: np.ndarray, xhat: np.ndarray) -> np.ndarray:
    """Pearson correlation of the onset envelopes of original and reconstruction, both (N, F, T), (N,).

    The envelope is the rectified spectral flux summed over bands (Böck & Widmer 2013, DAFx, without their maximum
    filter). A reconstruction without any onset scores 0, not nan: it kept nothing. A clip whose original has none is
    nan.
    """
    a, b = (np.maximum(np.diff(each, axis=2), 0).sum(axis=1) for each in (x, xhat))  # (N, T - 1)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale_a, scale_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    live = (scale_a > 1e-9) & (scale_b > 1e-9)  # float noise of a flat envelope is no onset
    found = np.where(live, (a * b).sum(1) / np.where(live, scale_a * scale_b, 1), 0.0)
    found[scale_a <= 1e-9] = np.nan
    return found


def reconstruction_scores(x: np.ndarray, xhat: np.ndarray, mean_spectrogram: np.ndarray) -> Scores:
    """Everything that reconstructions are compared by; `x` and `xhat` (N, F, T), the training clips' mean (F, T).

    Returns:
        `rec.mse` per bin, in all and in three equal parts of the bands, and that of the mean spectrogram; `rec.r2`, the
        variance explained beyond always answering that mean (1 perfect, 0 no better; nan if the originals are it);
        `rec.edges_time` and `rec.edges_freq`, the edge energy over that of the originals (below 1 blurred, above 1
        sharper or noisier: noise has edges; nan where all are flat); `rec.onset_r`, over clips that have an onset.
    """
    x, xhat = np.asarray(x, dtype=float), np.asarray(xhat, dtype=float)  # a mean of millions of float32 bins drifts
    error = (x - xhat) ** 2
    mse, spread = error.mean((1, 2)), ((x - np.asarray(mean_spectrogram, dtype=float)) ** 2).mean((1, 2))
    values = {
        "rec.mse": mse,
        "rec.r2": 1 - ratio_values(mse, spread),
        "rec.edges_time": ratio_values(edge_energy(xhat, 2), edge_energy(x, 2)),
        "rec.edges_freq": ratio_values(edge_energy(xhat, 1), edge_energy(x, 1)),
        "rec.onset_r": onset_correlations(x, xhat),
    }
    numbers = {name: float(v.mean()) for name, v in values.items()}
    numbers |= {"rec.onset_r": mean_known(values["rec.onset_r"]), "rec.mse_mean": float(spread.mean())}
    for part, bands in zip(("low", "middle", "high"), np.array_split(error.mean((0, 2)), 3), strict=True):
        numbers[f"rec.mse_{part}"] = float(bands.mean())
    return Scores(numbers, {name: v for name, v in values.items() if not np.isnan(v).any()})


def paths_smoothness(paths: np.ndarray, reference: np.ndarray | float = 0.0) -> dict[str, np.ndarray]:
    """Evenness and straightness of many paths in data space, by Euclidean distance.

    Args:
        paths: Decoded points, (P, steps, ...), at least two steps.
        reference: Distance between the two original clips of each path, (P,). A path that stays nearer to its start
            than a twentieth of that counts as collapsed: a decoder that hardly moves is smooth for the wrong reason.

    Returns:
        Arrays of (P,): `step_ratio`, largest step / mean step (1 even, steps - 1 one jump); `length_ratio`, path length
        / distance of its ends (1 straight); `collapsed`. A collapsed path has both ratios inf, the worst value, so that
        no average or median calls it smooth.
    """
    flat = np.asarray(paths, dtype=float).reshape(len(paths), len(paths[0]), -1)  # (P, steps, D)
    steps = np.linalg.norm(np.diff(flat, axis=1), axis=2)  # (P, steps - 1)
    ends = np.linalg.norm(flat[:, -1] - flat[:, 0], axis=1)
    reach = np.linalg.norm(flat - flat[:, :1], axis=2).max(axis=1)  # a length would add up jitter
    least = np.maximum(1e-6 * np.maximum(1.0, np.linalg.norm(flat[:, 0], axis=1)), 0.05 * np.asarray(reference))
    collapsed = ~(reach > least)  # nan counts as collapsed
    with np.errstate(divide="ignore", invalid="ignore"):
        step_ratio = np.where(collapsed, np.inf, steps.max(axis=1) / steps.mean(axis=1))
        length_ratio = np.where(collapsed, np.inf, steps.sum(axis=1) / ends)  # a path that returns to its start: inf
    return {"step_ratio": step_ratio, "length_ratio": length_ratio, "collapsed": collapsed}


# A modulation is a pair of frequencies on the (mel, frame) grid, in cycles per window: along time (rhythm) and along
# frequency (bands, partials). A positive spectral modulation falls over time, a negative one rises.


class Ripples(NamedTuple):
    """Dynamic ripples (modulation, phase, mel, frame) in [0, 1]; `temporal`, `spectral`: (modulation,) cycles."""

    images: np.ndarray
    temporal: np.ndarray
    spectral: np.ndarray


def ripples(shape: tuple[int, int]) -> Ripples:
    """Spectro-temporal gratings 0.5 + 0.5 cos(2π(ω_t t + ω_f f) + φ), the same set for every pattern of a shape.

    Six frequencies of each axis, whole cycles spaced by ratio from 1 to 3/8 of the bins, both directions of every
    oblique grating and the gratings along one axis only; four phases. Chi et al. 1999 (doi:10.1121/1.428100) and
    Elliott & Theunissen 2009 (doi:10.1371/journal.pcbi.1000302). `shape`: mel bands and frames, at least 8 each.
    """
    f_cycles, t_cycles = (np.unique(np.geomspace(1, 3 * n / 8, 6).round()) for n in shape)
    both = np.r_[-f_cycles[::-1], 0, f_cycles]
    temporal, spectral = np.array([(t, f) for t in t_cycles for f in both] + [(0, f) for f in f_cycles]).T
    f, t = (np.arange(n) / n for n in shape)
    turns = temporal[:, None, None] * t + spectral[:, None, None] * f[:, None]  # (modulation, mel, frame)
    angles = 2 * np.pi * (turns[:, None] + (np.arange(4) / 4)[:, None, None])
    return Ripples((0.5 + 0.5 * np.cos(angles)).astype(np.float32), temporal, spectral)


def selectivity(responses: np.ndarray) -> np.ndarray:
    """How few modulations a unit answers: 1 - H / log M, H the entropy of its power (unit, M) over the M modulations.

    (unit,): 0 for the same answer to all, 1 for an answer to a single one, nan for a unit that never answers.
    """
    power = np.asarray(responses, dtype=float)
    total = power.sum(1, keepdims=True)
    share = np.divide(power, total, out=np.full_like(power, np.nan), where=total > 0)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(1)
    return np.clip(1 - entropy / np.log(power.shape[1]), 0, 1)


def modulation_spectrum(patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """2-D power of patterns (n, mel, frame) without their means (Singh & Theunissen 2003, doi:10.1121/1.1624067).

    Folded to temporal modulations of at least 0, so that the powers (n, mel, frame // 2 + 1) of a pattern add up to its
    variance; no window. Also the axes in cycles per window, spectral (mel,) and temporal.
    """
    x = np.asarray(patterns, dtype=float)
    bands, frames = x.shape[1:]
    power = np.abs(np.fft.rfft2(x - x.mean((1, 2), keepdims=True))) ** 2 / (bands * frames) ** 2
    power[:, :, 1 : (frames + 1) // 2] *= 2  # their mirror images at negative temporal modulations
    return power, np.fft.fftfreq(bands, 1 / bands), np.fft.rfftfreq(frames, 1 / frames)


def name_pattern(pattern: np.ndarray, frame_seconds: float) -> str:
    """What a pattern (mel, frame) in [0, 1] looks like, in words, from its modulation spectrum.

    A name needs more than half of the power: within 22.5° of the spectral axis a `frequency band`, of the temporal
    axis an `onset`, or a `rhythm` where it repeats (a quarter on the axis itself: a product of both has none there);
    in one direction, with three times that of the other, a sweep. Otherwise `mixed`: checkerboard, spot, noise. With
    `frame_seconds`, of one frame, a rhythm gets its rate, "rhythm at 2.2 Hz".
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
        return f"rhythm at {1 / (lag * frame_seconds):.2g} Hz" if lag else "onset"
    moving = share[:, 1:].sum(1) * (2 * np.abs(spectral) < len(x))  # at Nyquist both directions look the same
    falling, rising = moving[spectral > 0].sum(), moving[spectral < 0].sum()
    if max(falling, rising) > max(0.5, 3 * min(falling, rising)):
        return "falling sweep" if falling > rising else "rising sweep"
    return "mixed"


def _period(course: np.ndarray) -> int:
    """Frames after which a time course repeats, at least twice in the window; 0 if it does not.

    The highest autocorrelation (circular) after its first zero; an onset, which happens once, has no such peak.
    """
    r = np.fft.irfft(np.abs(np.fft.rfft(course - course.mean())) ** 2, len(course))[: len(course) // 2 + 1]
    start = int((r < 0).argmax())
    lag = start + int((r[start:] > r[start:].max() - 1e-9 * r[0]).argmax())  # of equal peaks the first
    return lag if start and r[lag] > 0.4 * r[0] else 0
