"""Is a mixture's confidence honest? Calibration of soft assignments; explained in notebook 06."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax


def calibration_errors(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """(N,) values whose mean is the expected calibration error (Guo et al. 2017, arXiv:1706.04599).

    That is the mean distance of accuracy and confidence in ten bins of equal width over [0, 1]; a clip's value is what
    it adds, in the direction in which its bin is off.

    Args:
        confidence: Highest responsibility of each clip, (N,).
        correct: Whether the clip is of its component's class, (N,).
    """
    gap = np.asarray(correct, dtype=float) - np.asarray(confidence, dtype=float)
    place = np.digitize(confidence, np.arange(1, 10) / 10)  # linspace misses 0.6 by one rounding
    return gap * np.sign(np.bincount(place, gap))[place]


def tempered(log_responsibilities: np.ndarray, temperature: float) -> np.ndarray:
    """(N, K) responsibilities ∝ exp(log responsibility / temperature): above 1 less sure, in the same order."""
    return softmax(np.asarray(log_responsibilities, dtype=float) / temperature, axis=1)


def margins(log_responsibilities: np.ndarray) -> np.ndarray:
    """(N,) log-odds of the likeliest of (N, K) components against the second, nats: who is how sure where all say 1."""
    top = np.sort(np.asarray(log_responsibilities, dtype=float), axis=1)
    return top[:, -1] - top[:, -min(2, top.shape[1])]


def fit_temperature(log_responsibilities: np.ndarray, correct: np.ndarray) -> float:
    """The temperature, 0.1 to 10⁴, at which the highest of (N, K) responsibilities best forecasts `correct`, (N,).

    By its log loss, one number for all clips (Guo et al. 2017), of clips that are neither trained nor tested on.
    """
    correct = np.asarray(correct, dtype=bool)

    def loss(log_temperature: float) -> float:
        sure = tempered(log_responsibilities, np.exp(log_temperature)).max(1).clip(1e-6, 1 - 1e-6)
        return -float(np.log(np.where(correct, sure, 1 - sure)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.1), np.log(1e4)), method="bounded").x))
