"""Musical attributes measured in spectrograms, (N, F, T) in [0, 1]."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vaelib.evaluation.reconstruction import onset_envelope

ATTRIBUTES = ("loudness", "brightness", "tempo", "pitch")


def attributes(x: np.ndarray, frames_per_minute: float) -> pd.DataFrame:
    """Four attributes per spectrogram; only their changes are meant to be compared.

    `loudness`: mean level. `brightness`: centroid over the mel bands, 0 to 1. `tempo`: beats per minute of the
    shortest strong period of the onset envelope between 40 and 240, 0 where there is none. `pitch`: place of the
    strongest band of a frame, 0 to 1, averaged over frames.

    Args:
        x: (N, F, T).
        frames_per_minute: 60 · sample rate / hop.

    Returns:
        (N, 4), columns `ATTRIBUTES`.
    """
    x = np.asarray(x, dtype=float)
    bands = np.linspace(0, 1, x.shape[1])
    weight = np.maximum(x.sum((1, 2)), 1e-9)
    return pd.DataFrame({
        "loudness": x.mean((1, 2)),
        "brightness": (x * bands[:, None]).sum((1, 2)) / weight,
        "tempo": tempo(onset_envelope(x)[:, 1:], frames_per_minute),
        "pitch": bands[x.argmax(1)].mean(1),
    })  # fmt: skip


def tempo(envelopes: np.ndarray, frames_per_minute: float, low: float = 40.0, high: float = 240.0) -> np.ndarray:
    """(N,) beats per minute of the shortest strong period of onset envelopes (N, T) between `low` and `high`.

    The shortest lag whose autocorrelation is a peak at least half as high as the highest, refined by a parabola
    through its neighbours: three beats of a period that is no whole number of frames fall together more exactly than
    one. 0 for an envelope without onsets or without a lag in reach (Ellis 2007, without the perceptual weighting: no
    prior on what a tempo should be). A beat shorter than about four frames may be heard at half its tempo.
    """
    e = np.asarray(envelopes, dtype=float)
    frames = e.shape[1]
    first, last = max(int(np.ceil(frames_per_minute / high)), 1), min(int(frames_per_minute / low), frames - 2)
    if last < first:
        return np.zeros(len(e))
    e = np.pad(e - e.mean(1, keepdims=True), ((0, 0), (1, 1)))
    e = (e[:, :-2] + 2 * e[:, 1:-1] + e[:, 2:]) / 4  # an onset falls between two frames
    spectrum = np.abs(np.fft.rfft(e, 2 * frames, axis=1)) ** 2
    correlation = np.fft.irfft(spectrum, axis=1)[:, :frames]
    silent = correlation[:, 0] <= 1e-12
    before, reach, after = (correlation[:, first + d : last + 1 + d] for d in (-1, 0, 1))
    strong = (reach >= before) & (reach >= after) & (reach >= 0.5 * reach.max(1, keepdims=True))
    lag = first + np.where(strong.any(1), strong.argmax(1), reach.argmax(1))
    a, b, c = (correlation[np.arange(len(e)), lag + d] for d in (-1, 0, 1))
    curve = a - 2 * b + c
    shift = np.where(curve < 0, 0.5 * (a - c) / np.where(curve < 0, curve, 1), 0.0).clip(-0.5, 0.5)
    return np.where(silent, 0.0, frames_per_minute / (lag + shift))
