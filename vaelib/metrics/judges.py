"""What a classifier finds: classes in a code, classes in generated spectrograms, families in a tree of classes.

Notebook 05 explains the probe and the two judges; notebooks 03 and 05 draw the tree.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


class ProbeScore(NamedTuple):
    """Balanced accuracy on test, and that of a constant answer, 1 / classes of test."""

    balanced_accuracy: float
    chance: float


class Agreement(NamedTuple):
    """Correlation in [-1, 1], its p-value, and mean and 95th percentile under permuted families; nan: undefined."""

    correlation: float = np.nan
    p_value: float = np.nan
    null_mean: float = np.nan
    null_p95: float = np.nan


def balanced_values(guess: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Values (N,) whose mean is the mean recall over the classes of `truth`, both (N,); 0 where the guess is wrong."""
    classes, of_class, count = np.unique(truth, return_inverse=True, return_counts=True)
    return (np.asarray(guess) == truth) * len(truth) / (len(classes) * count[of_class])


def linear_probe(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, seed: int = 0
) -> ProbeScore:
    """How well a linear classifier, fitted on train, reads the class (N,) from the codes (N, D) of test clips.

    nan if train or test has a single class.
    """
    classes = len(np.unique(test_y))
    if classes < 2 or len(np.unique(train_y)) < 2:
        return ProbeScore(np.nan, 1 / max(classes, 1))
    guess = fit_judge(train_x, train_y, seed).predict(test_x)
    return ProbeScore(float(balanced_values(guess, test_y).mean()), 1 / classes)


def fit_judge(x: np.ndarray, y: np.ndarray, seed: int = 0, components: int = 0) -> Pipeline:
    """Logistic regression on standardised features (N, D) of real clips; classes (N,), two or more, weighted equally.

    With `components`, on so many principal components, at most one for every fourth clip: the least ones are noise.
    """
    logistic = LogisticRegression(max_iter=1000, class_weight="balanced", random_state=seed)
    linear = make_pipeline(StandardScaler(), logistic)
    if not components:
        return linear.fit(x, y)
    components = min(components, max(1, len(x) // 4), x.shape[1])
    pca = PCA(components, svd_solver="randomized", random_state=seed).fit(x)
    return make_pipeline(pca, linear.fit(pca.transform(x), y))


def cophenetic_agreement(centroids: np.ndarray, families: np.ndarray) -> Agreement:
    """Whether the tree of class centroids (C, D) joins classes of one family, (C,), before others.

    Correlation of the cophenetic distances (Sokal & Rohlf 1962) of average linkage with 0 for two classes of one family
    and 1 for two of different ones; the null shuffles the families over the classes (a Mantel test, 1967). nan with
    fewer than 3 classes, one family, only families of one class, or centroids that all coincide.
    """
    families = np.unique(families, return_inverse=True)[1]
    first, second = np.triu_indices(len(families), k=1)  # pdist's order
    apart = families[first] != families[second]
    if len(families) < 3 or apart.all() or not apart.any():
        return Agreement()
    tree = cophenet(linkage(pdist(np.asarray(centroids, dtype=float)), "average"))  # (C (C-1) / 2,)
    if np.ptp(tree) <= 1e-12 * np.abs(tree).max():
        return Agreement()
    rng = np.random.default_rng(0)
    observed = float(np.corrcoef(tree, apart)[0, 1])
    orders = [rng.permutation(families) for _ in range(1000)]
    null = np.array([np.corrcoef(tree, order[first] != order[second])[0, 1] for order in orders])
    p_value = (1 + (null >= observed - 1e-12).sum()) / (1 + len(null))  # the observed order is one of the permutations
    return Agreement(observed, float(p_value), float(null.mean()), float(np.percentile(null, 95)))
