"""Health and meaning of a mixture: occupancy, calibration of soft assignments, shape of components."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics.cluster import contingency_matrix

from vaelib.config import InputError
from vaelib.metrics.clustering import fit_gmm


class Reliability(NamedTuple):
    """One entry per confidence bin, (bins,): edges, clips, mean confidence and accuracy (nan if empty)."""

    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


class Occupancy(NamedTuple):
    """Clips per component, (K,); components with any; effective number; entropy per clip, nats, (N,)."""

    counts: np.ndarray
    populated: int
    effective: float
    entropy: np.ndarray


class CovarianceComparison(NamedTuple):
    """Held-out log-likelihood, nats per clip, of both shapes, and diagonal - spherical per clip, (M,)."""

    diag: float
    spherical: float
    difference: np.ndarray


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> Reliability:
    """Accuracy against confidence in `bins` bins of equal width over [0, 1] (Guo et al. 2017,
    arXiv:1706.04599).

    Args:
        confidence: Highest responsibility of each clip, (N,), in [0, 1].
        correct: Whether the clip is of its cluster's class, (N,); see `majority_classes`.
        bins: Number of bins; a value on an edge belongs to the upper bin, 1 to the last.

    Raises:
        InputError: Lengths that differ, or a confidence outside [0, 1].
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    # softmax in float32 may exceed 1 by rounding
    if confidence.shape != correct.shape or not ((confidence >= -1e-6) & (confidence <= 1 + 1e-6)).all():
        raise InputError("reliability needs one confidence between 0 and 1 and one answer per clip")
    edges, place = np.arange(bins + 1) / bins, _bins(confidence, bins)
    count = np.bincount(place, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    mean_confidence = np.bincount(place, confidence, bins) / filled
    return Reliability(edges[:-1], edges[1:], count, mean_confidence, np.bincount(place, correct, bins) / filled)


def _bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    """(N,) the bin of each confidence."""
    edges = np.arange(bins + 1) / bins  # linspace misses 0.6 by one rounding
    return np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)


def calibration_errors(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> np.ndarray:
    """(N,) values whose mean is the expected calibration error: the mean distance of accuracy and confidence by bin.

    A clip's value is what it adds, in the direction in which its bin is off; 0 throughout is calibrated. Arguments
    and errors as `reliability`.
    """
    table = reliability(confidence, correct, bins)
    gap = np.asarray(correct, dtype=float) - np.asarray(confidence, dtype=float)
    return gap * np.sign(table.accuracy - table.confidence)[_bins(confidence, bins)]


def tempered(log_responsibilities: np.ndarray, temperature: float) -> np.ndarray:
    """(N, K) responsibilities ∝ exp(log responsibility / temperature): above 1 less sure, in the same order."""
    return softmax(np.asarray(log_responsibilities, dtype=float) / temperature, axis=1)


def margins(log_responsibilities: np.ndarray) -> np.ndarray:
    """(N,) log-odds of the likeliest of (N, K) components against the second, nats: who is how sure where all say 1."""
    top = np.sort(np.asarray(log_responsibilities, dtype=float), axis=1)
    return top[:, -1] - top[:, -min(2, top.shape[1])]


def fit_temperature(log_responsibilities: np.ndarray, correct: np.ndarray) -> float:
    """The temperature at which the highest responsibility is the best forecast of `correct`, by its log loss.

    One number for all clips (Guo et al. 2017, arXiv:1706.04599), between 0.1 and 10⁴; no cluster changes by it.

    Args:
        log_responsibilities: (N, K) of clips that are neither trained nor tested on.
        correct: Whether each clip agrees with its likeliest component, (N,).
    """
    correct = np.asarray(correct, dtype=bool)

    def loss(log_temperature: float) -> float:
        sure = tempered(log_responsibilities, np.exp(log_temperature)).max(1).clip(1e-6, 1 - 1e-6)
        return -float(np.log(np.where(correct, sure, 1 - sure)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.1), np.log(1e4)), method="bounded").x))


def occupancy(responsibilities: np.ndarray) -> Occupancy:
    """How many components live, and how sure each clip is.

    The effective number is exp(entropy) of the shares of clips by their most likely component (Hill 1973): K
    if all are used evenly, 1 if one holds every clip. Soft shares would call a mixture that never decides
    full.

    Args:
        responsibilities: p(component | clip), (N, K), rows sum to 1.

    Raises:
        InputError: No clips, or rows that are no probabilities.
    """
    r = np.asarray(responsibilities, dtype=float)
    if r.ndim != 2 or r.size == 0 or (r < 0).any() or not np.allclose(r.sum(axis=1), 1, atol=1e-3):
        raise InputError(f"responsibilities must be (clips, components) with rows that sum to 1, not {r.shape}")
    counts = np.bincount(r.argmax(axis=1), minlength=r.shape[1])
    return Occupancy(counts, int((counts > 0).sum()), float(np.exp(entropy(counts))), entropy(r, axis=1))


def majority_classes(assignments: np.ndarray, labels: np.ndarray) -> dict[int, str]:
    """Cluster → the most frequent class of its clips; a tie goes to the class first in order."""
    classes, clusters = np.unique(labels), np.unique(assignments)
    return dict(zip(clusters.tolist(), classes[contingency_matrix(labels, assignments).argmax(0)], strict=True))


def diag_vs_spherical_loglik(train: np.ndarray, test: np.ndarray, k: int, seed: int = 0) -> CovarianceComparison:
    """Are clusters elliptical? Diagonal against spherical mixtures, fitted on train, scored on test.

    Pass live dimensions only: dead ones, all narrow, would make every cluster look elliptical.

    Args:
        train: (N, D).
        test: (M, D).
        k: Components.
        seed: Seed of both fits.

    Raises:
        InputError: Fewer training clips than components.
    """
    test = np.asarray(test, dtype=float)
    diag, spherical = (fit_gmm(train, k, seed, shape).score_samples(test) for shape in ("diag", "spherical"))
    return CovarianceComparison(float(diag.mean()), float(spherical.mean()), diag - spherical)
