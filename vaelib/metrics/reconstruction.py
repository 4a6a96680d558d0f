"""How much of a spectrogram survives: error, explained variance, edges, onsets.

Spectrograms are (N, F, T): clips, mel bands, frames, scaled to [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaelib.config import InputError
from vaelib.metrics.statistics import mean_known


class OnsetCorrelation(NamedTuple):
    """Mean over clips, and each clip's correlation, (N,)."""

    mean: float
    per_clip: np.ndarray


def _pair(x: np.ndarray, xhat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # float64: a mean over millions of float32 bins drifts
    x, xhat = np.asarray(x, dtype=float), np.asarray(xhat, dtype=float)
    if x.shape != xhat.shape or x.ndim != 3 or x.size == 0:
        raise InputError(
            f"original and reconstruction must both be (clips, bands, frames), not {x.shape}, {xhat.shape}"
        )
    return x, xhat


def mse_per_bin(x: np.ndarray, xhat: np.ndarray) -> float:
    """Mean squared error per time-frequency bin; both (N, F, T). InputError if the shapes differ."""
    return float(mse_per_clip(x, xhat).mean())


def mse_per_clip(x: np.ndarray, xhat: np.ndarray) -> np.ndarray:
    """Mean squared error of each clip, (N,), for intervals over clips; arguments as `mse_per_bin`."""
    x, xhat = _pair(x, xhat)
    return ((x - xhat) ** 2).mean(axis=(1, 2))


def mse_by_band(x: np.ndarray, xhat: np.ndarray) -> np.ndarray:
    """Mean squared error of each mel band, (F,); arguments as `mse_per_bin`."""
    x, xhat = _pair(x, xhat)
    return ((x - xhat) ** 2).mean(axis=(0, 2))


def ratio_values(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """(N,) values whose mean is sum(numerator) / sum(denominator) and whose spread is that of the ratio.

    The ratio linearised clip by clip (Cochran 1977, Sampling Techniques, §6.3): with them a ratio of sums has an
    interval over clips like any mean. nan where the denominators (N,) are all 0.
    """
    numerator, denominator = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    if not denominator.any():
        return np.full(len(denominator), np.nan)
    ratio = numerator.sum() / denominator.sum()
    return ratio + (numerator - ratio * denominator) / denominator.mean()


def r2_against_mean(x: np.ndarray, xhat: np.ndarray, mean_spectrogram: np.ndarray) -> np.ndarray:
    """Share of the variance explained beyond always answering the mean training spectrogram.

    Args:
        x: Originals, (N, F, T).
        xhat: Reconstructions, (N, F, T).
        mean_spectrogram: Mean of the training clips, (F, T), or (F, 1) for the mean over time.

    Returns:
        (N,) values whose mean is the R² of all clips together (`ratio_values`): 1 is perfect, 0 no better than the
        mean, negative worse; nan if the originals are that mean.

    Raises:
        InputError: The shapes differ.
    """
    x, xhat = _pair(x, xhat)
    spread = ((x - np.asarray(mean_spectrogram, dtype=float)) ** 2).mean(axis=(1, 2))
    return 1 - ratio_values(mse_per_clip(x, xhat), spread)


def edge_energy(x: np.ndarray, axis: str) -> np.ndarray:
    """Sum of squared differences of neighbouring bins along `time` or `frequency`, per clip, (N,)."""
    return (np.diff(np.asarray(x, dtype=float), axis={"time": 2, "frequency": 1}[axis]) ** 2).sum(axis=(1, 2))


def edges_kept(x: np.ndarray, xhat: np.ndarray, axis: str) -> np.ndarray:
    """Gradient energy of the reconstructions along `time` or `frequency` over that of the originals.

    Below 1 is blurred, above 1 sharper or noisier than the original (noise has edges: read it beside the MSE).

    Returns:
        (N,) values whose mean is the ratio of all clips together (`ratio_values`); nan where the originals are flat.

    Raises:
        InputError: The shapes differ.
    """
    x, xhat = _pair(x, xhat)
    return ratio_values(edge_energy(xhat, axis), edge_energy(x, axis))


def onset_envelope(x: np.ndarray) -> np.ndarray:
    """Onset strength: rectified spectral flux summed over bands; (N, F, T) to (N, T), the first frame 0.

    Source: Böck & Widmer 2013 (DAFx), without their maximum filter.
    """
    flux = np.maximum(np.diff(np.asarray(x, dtype=float), axis=2), 0).sum(axis=1)  # (N, T-1)
    return np.pad(flux, ((0, 0), (1, 0)))


def onset_correlation(x: np.ndarray, xhat: np.ndarray) -> OnsetCorrelation:
    """Pearson correlation of the onset envelopes of original and reconstruction.

    A reconstruction without any onset scores 0, not nan: it kept nothing. A clip whose original has none is
    nan and left out of the mean. Arguments and errors as `mse_per_bin`.
    """
    x, xhat = _pair(x, xhat)
    a, b = (
        onset_envelope(x)[:, 1:],
        onset_envelope(xhat)[:, 1:],
    )  # the padded frame would correlate with itself
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale_a, scale_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    live = (scale_a > 1e-9) & (scale_b > 1e-9)  # float noise of a flat envelope is no onset
    per_clip = np.where(live, (a * b).sum(1) / np.where(live, scale_a * scale_b, 1), 0.0)
    per_clip[scale_a <= 1e-9] = np.nan
    return OnsetCorrelation(mean_known(per_clip), per_clip)
