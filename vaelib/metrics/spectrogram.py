"""Spectrograms (N, F, T) in [0, 1]: what a reconstruction keeps, and what a pattern looks like; notebook 03."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vaelib.metrics.statistics import Scores, ratio_values

OBLIQUE = np.tan(np.pi / 8)  # a modulation within 22.5° of an axis counts as lying on it: four equal sectors
FLAT = 1e-3  # standard deviation under which a pattern in [0, 1] shows nothing


def onset_correlations(x: np.ndarray, xhat: np.ndarray) -> np.ndarray:
    """(N,) correlations of the onset envelopes of originals and reconstructions, both (N, F, T).

    The envelope is the rectified spectral flux summed over bands (Böck & Widmer 2013, DAFx, without their maximum
    filter). A reconstruction without any onset scores 0; an original without is nan.
    """
    a, b = (pd.DataFrame(np.maximum(np.diff(each, axis=2), 0).sum(axis=1)).T for each in (x, xhat))  # (T - 1, N)
    heard, kept = a.std() > 1e-10, b.std() > 1e-10  # float noise of a flat envelope is no onset
    return a.corrwith(b).where(kept, 0.0).where(heard).to_numpy()


def reconstruction_scores(x: np.ndarray, xhat: np.ndarray, mean_spectrogram: np.ndarray) -> Scores:
    """Everything that reconstructions are compared by; `x` and `xhat` (N, F, T), the training clips' mean (F, T).

    `rec.mse` per bin, in all and in thirds of the bands, and that of the mean; `rec.r2`, the variance explained beyond
    always answering the mean; `rec.edges_…`, squared differences of neighbouring bins along time and frequency over
    those of the originals (below 1 blurred; nan where all are flat); `rec.onset_r`, over clips that have an onset.
    """
    x, xhat = np.asarray(x, dtype=float), np.asarray(xhat, dtype=float)  # a mean of millions of float32 bins drifts
    error = (x - xhat) ** 2
    mse, spread = error.mean((1, 2)), ((x - np.asarray(mean_spectrogram, dtype=float)) ** 2).mean((1, 2))
    values = {"rec.mse": mse, "rec.r2": 1 - ratio_values(mse, spread), "rec.onset_r": onset_correlations(x, xhat)}
    for name, axis in {"rec.edges_time": 2, "rec.edges_freq": 1}.items():
        edges, kept = ((np.diff(each, axis=axis) ** 2).sum((1, 2)) for each in (x, xhat))
        values[name] = ratio_values(kept, edges)
    numbers = pd.DataFrame(values).mean().to_dict() | {"rec.mse_mean": float(spread.mean())}
    for part, bands in zip(("low", "middle", "high"), np.array_split(error.mean((0, 2)), 3), strict=True):
        numbers[f"rec.mse_{part}"] = float(bands.mean())
    return numbers, {name: v for name, v in values.items() if not np.isnan(v).any()}


def name_pattern(pattern: np.ndarray, frame_seconds: float) -> str:
    """What a pattern (mel, frame) in [0, 1] looks like, in words, from its modulation spectrum.

    A name needs more than half of its 2-D power (Singh & Theunissen 2003, doi:10.1121/1.1624067): within 22.5° of the
    spectral axis a `frequency band`, of the temporal axis an `onset` or `rhythm at 2.2 Hz` (a quarter on the axis
    itself: a product of both has none there), in one direction, with three times the other's, a sweep; else `mixed`.
    """
    x = np.asarray(pattern, dtype=float)
    bands, frames = x.shape
    power = np.abs(np.fft.rfft2(x - x.mean())) ** 2 / x.size**2  # (spectral, temporal ≥ 0) modulations
    power[:, 1 : (frames + 1) // 2] *= 2  # their mirror images at negative temporal modulations
    if power.sum() < FLAT**2:
        return "silent" if np.abs(x).max() < FLAT else "flat"
    spectral, t = np.fft.fftfreq(bands, 1 / bands), np.fft.rfftfreq(frames, 1 / frames)  # cycles per window
    share, f = power / power.sum(), np.abs(spectral)[:, None]
    if share[t < OBLIQUE * f].sum() > 0.5 and share[:, 0].sum() > 0.25:
        return "frequency band"
    if share[f < OBLIQUE * t].sum() > 0.5 and share[0].sum() > 0.25:
        course = x.mean(0) - x.mean()
        r = np.fft.irfft(np.abs(np.fft.rfft(course)) ** 2, frames)[: frames // 2 + 1]  # circular autocorrelation
        start = int((r < 0).argmax())
        lag = start + int((r[start:] > r[start:].max() - 1e-9 * r[0]).argmax())  # its first highest peak after a zero
        return f"rhythm at {1 / (lag * frame_seconds):.2g} Hz" if start and r[lag] > 0.4 * r[0] else "onset"
    moving = share[:, 1:].sum(1) * (2 * np.abs(spectral) < bands)  # at Nyquist both directions look the same
    falling, rising = moving[spectral > 0].sum(), moving[spectral < 0].sum()
    if max(falling, rising) > max(0.5, 3 * min(falling, rising)):
        return "falling sweep" if falling > rising else "rising sweep"
    return "mixed"
