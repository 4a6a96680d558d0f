"""Health and meaning of a mixture: occupancy, calibration of soft assignments, shape of components."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import entropy
from sklearn.metrics.cluster import contingency_matrix

from vaelib.config import InputError
from vaelib.evaluation.clustering import fit_gmm


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
        correct: Whether the clip agrees with its cluster, (N,); see `majority_agreement`.
        bins: Number of bins; a value on an edge belongs to the upper bin, 1 to the last.

    Raises:
        InputError: Lengths that differ, or a confidence outside [0, 1].
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    # softmax in float32 may exceed 1 by rounding
    if confidence.shape != correct.shape or not ((confidence >= -1e-6) & (confidence <= 1 + 1e-6)).all():
        raise InputError("reliability needs one confidence between 0 and 1 and one answer per clip")
    edges = np.arange(bins + 1) / bins  # linspace misses 0.6 by one rounding
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    mean_confidence = np.bincount(place, confidence, bins) / filled
    return Reliability(edges[:-1], edges[1:], count, mean_confidence, np.bincount(place, correct, bins) / filled)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> float:
    """Mean distance of accuracy and confidence over clips, by bin; 0 is calibrated. nan without clips."""
    table = reliability(confidence, correct, bins)
    gap = np.nan_to_num(np.abs(table.accuracy - table.confidence))
    return float((table.count * gap).sum() / table.count.sum()) if table.count.any() else np.nan


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


def majority_agreement(
    train_assign: np.ndarray, train_labels: np.ndarray, test_assign: np.ndarray, test_labels: np.ndarray
) -> np.ndarray:
    """Whether each test clip's class is the majority class, on train, of its cluster, (M,) bool.

    False in a cluster without training clips: it stands for no class. A tie goes to the class first in order.
    """
    classes, clusters = np.unique(train_labels), np.unique(train_assign)
    majority = dict(zip(clusters, classes[contingency_matrix(train_labels, train_assign).argmax(0)], strict=True))
    return np.array([majority.get(c) == y for c, y in zip(test_assign, test_labels, strict=True)], dtype=bool)


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
