"""What a linear classifier reads from a code (notebook 05), and families in a tree of classes (notebook 03)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import pdist
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


class ProbeScore(NamedTuple):
    """Balanced accuracy on test, and that of a constant answer, 1 / classes of test."""

    balanced_accuracy: float
    chance: float


class Agreement(NamedTuple):
    """Correlation in [-1, 1], its p-value, and the 95th percentile under permuted families; nan: undefined."""

    correlation: float = np.nan
    p_value: float = np.nan
    null_p95: float = np.nan


def balanced_values(guess: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Values (N,) whose mean is the mean recall over the classes of `truth`, both (N,); 0 where the guess is wrong."""
    classes, of_class, count = np.unique(truth, return_inverse=True, return_counts=True)
    return (np.asarray(guess) == truth) * len(truth) / (len(classes) * count[of_class])


def linear_probe(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, seed: int = 0
) -> ProbeScore:
    """How well a linear classifier, fitted on train, reads one of two or more classes (N,) from codes (N, D)."""
    logistic = LogisticRegression(max_iter=1000, class_weight="balanced", random_state=seed)
    guess = make_pipeline(StandardScaler(), logistic).fit(train_x, train_y).predict(test_x)
    return ProbeScore(float(balanced_values(guess, test_y).mean()), 1 / len(np.unique(test_y)))


def cophenetic_agreement(centroids: np.ndarray, families: np.ndarray) -> Agreement:
    """Whether the tree of class centroids (C, D) joins classes of one family, (C,), before others.

    Correlation of the cophenetic distances (Sokal & Rohlf 1962) of average linkage with 0 for two classes of one family
    and 1 for two of different ones; the null shuffles the families over the classes (a Mantel test, 1967). nan if it is
    undefined: one family, only families of one class, or centroids that all coincide.
    """
    kinds, families = np.unique(families, return_inverse=True)
    if not 1 < len(kinds) < len(families):
        return Agreement()
    tree = cophenet(linkage(pdist(np.asarray(centroids, dtype=float)), "average"))  # (C (C-1) / 2,)
    if np.ptp(tree) <= 1e-12 * tree.max():
        return Agreement()
    first, second = np.triu_indices(len(families), k=1)  # pdist's order of pairs
    rng = np.random.default_rng(0)
    orders = [families, *(rng.permutation(families) for _ in range(1000))]
    observed, *null = (np.corrcoef(tree, order[first] != order[second])[0, 1] for order in orders)
    p_value = (1 + np.sum(np.array(null) >= observed - 1e-12)) / (1 + len(null))  # the observed order is one of them
    return Agreement(float(observed), float(p_value), float(np.percentile(null, 95)))
