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

from vaelib.config import InputError
from vaelib.metrics.statistics import many_classes


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
    """Logistic regression on standardised inputs (N, D) and classes (N,), weighted equally; two or more classes."""
    model = LogisticRegression(max_iter=1000, class_weight="balanced", random_state=seed)
    return make_pipeline(StandardScaler(), model).fit(x, y)


def balanced_values(guess: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Values of clips whose mean is the mean recall over the classes of `truth`.

    Args:
        guess: The classifier's answers, (N,).
        truth: Classes, (N,).

    Returns:
        (N,): 0 for a clip that is taken for another class, and alike within a class.
    """
    classes, of_class, count = np.unique(truth, return_inverse=True, return_counts=True)
    return (np.asarray(guess) == truth) * len(truth) / (len(classes) * count[of_class])


def balanced_accuracy(truth: np.ndarray, guess: np.ndarray) -> float:
    """Mean recall over the classes of `truth` (N,): chance is 1 / classes however unequal they are."""
    return float(balanced_values(guess, truth).mean())


def linear_probe(
    train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, seed: int = 0
) -> ProbeScore:
    """How well a linear classifier, fitted on train, reads the class from the codes of test clips.

    As a leakage probe: a conditional model whose z still tells the class scores well above chance.

    Args:
        train_x: (N, D).
        train_y: Classes, (N,).
        test_x: (M, D).
        test_y: Classes, (M,).
        seed: Seed of the solver.

    Returns:
        The score; nan if train or test has a single class.
    """
    classes = len(np.unique(test_y))
    if classes < 2 or len(np.unique(train_y)) < 2:
        return ProbeScore(np.nan, 1 / max(classes, 1))
    guess = fit_linear(train_x, train_y, seed).predict(test_x)
    return ProbeScore(balanced_accuracy(test_y, guess), 1 / classes)


def spectrogram_features(x: np.ndarray) -> np.ndarray:
    """What the judge of spectra hears of (N, F, T): mean, spread and mean change over time per band, (N, 3F).

    Deaf to when anything happens, and strict about how much changes: samples that are too smooth fail it.
    """
    x = np.asarray(x, dtype=float)
    return np.concatenate([x.mean(2), x.std(2), np.abs(np.diff(x, axis=2)).mean(2)], axis=1)


def pixels(x: np.ndarray, most: int = 64) -> np.ndarray:
    """What the judge of pixels sees of (N, F, T): the window itself, thinned to at most `most` bands and frames."""
    bands, frames = (-(-n // most) for n in x.shape[1:])
    return np.asarray(x[:, ::bands, ::frames], np.float32).reshape(len(x), -1)


def fit_judge(train_x: np.ndarray, train_y: np.ndarray, seed: int = 0, components: int = 0) -> Pipeline:
    """Logistic regression on standardised features of real clips.

    Args:
        train_x: (N, D).
        train_y: Classes, (N,).
        seed: Seed of the solvers.
        components: On so many principal components of the features, for features that are many (pixels); at most one
            for every fourth clip. 0: on the features themselves.

    Raises:
        InputError: fewer than two classes.
    """
    if len(np.unique(train_y)) < 2:
        raise InputError("a judge needs clips of two classes to tell apart: label more clips of train")
    if not components:
        return fit_linear(train_x, train_y, seed)
    components = min(components, max(1, len(train_x) // 4), train_x.shape[1])  # the least ones of few clips are noise
    pca = PCA(components, svd_solver="randomized", random_state=seed).fit(train_x)
    return make_pipeline(pca, fit_linear(pca.transform(train_x), train_y, seed))


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
    """
    families = np.unique(families, return_inverse=True)[1]
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
