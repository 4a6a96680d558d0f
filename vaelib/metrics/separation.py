"""What a linear reader finds in an embedding, and whether class centroids lie in their families."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import pdist
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from vaelib.config import InputError
from vaelib.metrics.stats import Null, many_classes


class ProbeScore(NamedTuple):
    """Balanced accuracy on test, and that of a constant answer, 1 / classes of test."""

    balanced_accuracy: float
    chance: float


class Agreement(NamedTuple):
    """Correlation in [-1, 1], its p-value, and mean and 95th percentile under permuted families."""

    correlation: float
    p_value: float
    null_mean: float
    null_p95: float


@many_classes()
def fit_linear(x: np.ndarray, y: np.ndarray, seed: int) -> Pipeline:
    """Logistic regression on standardised inputs (N, D), classes weighted equally; two or more classes."""
    model = LogisticRegression(max_iter=1000, class_weight="balanced", random_state=seed)
    return make_pipeline(StandardScaler(), model).fit(x, y)


@many_classes()
def balanced_accuracy(truth: np.ndarray, guess: np.ndarray) -> float:
    """Mean recall over the classes of `truth`."""
    return float(recall_score(truth, guess, labels=np.unique(truth), average="macro"))


@many_classes()
def linear_probe(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, seed: int = 0
) -> ProbeScore:
    """How well a linear classifier, fitted on train, reads the class from the embedding of test clips.

    As a leakage probe: a conditional model whose z still tells the class scores well above chance.

    Args:
        train_x: (N, D).
        train_y: Classes, (N,).
        test_x: (M, D).
        test_y: Classes, (M,).
        seed: Seed of the solver.

    Returns:
        The score; nan if train or test has a single class.

    Raises:
        InputError: Lengths that differ.
    """
    if len(train_x) != len(train_y) or len(test_x) != len(test_y):
        raise InputError("the probe needs one label per clip, in train and in test")
    classes = len(np.unique(test_y))
    if classes < 2 or len(np.unique(train_y)) < 2:
        return ProbeScore(np.nan, 1 / max(classes, 1))
    guess = fit_linear(train_x, train_y, seed).predict(test_x)
    return ProbeScore(balanced_accuracy(test_y, guess), 1 / classes)


@many_classes()
def probe_null(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    n: int = 20,
    seed: int = 0,
) -> Null:
    """`linear_probe` fitted `n` times on shuffled training labels."""
    rng, train_y = np.random.default_rng(seed), np.asarray(train_y)
    shuffled = (rng.permutation(train_y) for _ in range(n))
    return Null.of([linear_probe(train_x, y, test_x, test_y, seed).balanced_accuracy for y in shuffled])


def cophenetic_agreement(centroids: np.ndarray, families: np.ndarray, n: int = 1000, seed: int = 0) -> Agreement:
    """Whether the tree of class centroids joins classes of one family before others.

    Correlation of the cophenetic distances (Sokal & Rohlf 1962) of average linkage with 0 for two classes of
    one family and 1 for two of different families, so that positive is agreement; the null shuffles the
    families over the classes (a Mantel test, 1967).

    Args:
        centroids: Class centroids, (C, D).
        families: Family of each class, (C,).
        n: Permutations.
        seed: Seed of the permutations.

    Returns:
        The agreement; all nan if it is undefined: fewer than 3 classes, one family, only families of one
        class, or centroids that all coincide.

    Raises:
        InputError: Lengths that differ.
    """
    families = np.unique(families, return_inverse=True)[1]
    if len(centroids) != len(families):
        raise InputError(f"{len(centroids)} centroids and {len(families)} families: one family per class is needed")
    apart = _apart(families)
    if len(families) < 3 or apart.all() or not apart.any():
        return Agreement(np.nan, np.nan, np.nan, np.nan)
    tree = cophenet(linkage(pdist(np.asarray(centroids, dtype=float)), "average"))  # (C (C-1) / 2,)
    if np.ptp(tree) <= 1e-12 * np.abs(tree).max():
        return Agreement(np.nan, np.nan, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    observed = float(np.corrcoef(tree, apart)[0, 1])
    null = np.array([np.corrcoef(tree, _apart(rng.permutation(families)))[0, 1] for _ in range(n)])
    p_value = (1 + (null >= observed - 1e-12).sum()) / (1 + n)  # the observed order is one of the permutations
    return Agreement(observed, float(p_value), float(null.mean()), float(np.percentile(null, 95)))


def _apart(families: np.ndarray) -> np.ndarray:
    first, second = np.triu_indices(len(families), k=1)  # pdist's order
    return families[first] != families[second]
