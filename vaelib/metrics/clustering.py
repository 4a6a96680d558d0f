"""Clusters against labels, clusters as shapes, and the two clusterers, fitted on train and read on test."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn import metrics
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.cluster import contingency_matrix
from sklearn.mixture import GaussianMixture

from vaelib.config import InputError
from vaelib.metrics.statistics import Null, many_classes

Covariance = Literal["diag", "spherical"]


def _table(labels: np.ndarray, assignments: np.ndarray) -> np.ndarray:
    if len(labels) != len(assignments) or len(labels) == 0:
        raise InputError(f"{len(labels)} labels and {len(assignments)} assignments: one of each per clip is needed")
    return contingency_matrix(labels, assignments)  # (classes, clusters)


def purity(labels: np.ndarray, assignments: np.ndarray) -> float:
    """Share of clips that belong to their cluster's majority class; 1 for one clip per cluster, so mind K."""
    table = _table(labels, assignments)
    return float(table.max(axis=0).sum() / table.sum())


def hungarian_accuracy(labels: np.ndarray, assignments: np.ndarray) -> float:
    """Accuracy under the best one-to-one match of clusters and classes; what is left unmatched is wrong.

    Source: Xie et al. 2016, arXiv:1511.06335, eq. 10; the match is scipy's `linear_sum_assignment`.
    """
    table = _table(labels, assignments)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())


@many_classes()
def adjusted_mutual_info(labels: np.ndarray, assignments: np.ndarray) -> float:
    """Adjusted mutual information (Vinh, Epps & Bailey 2010; scikit-learn), (N,) classes against (N,) clusters.

    Where one of the two puts every clip into a group of its own and the other does not, any order has the same mutual
    information: they agree by chance only, and the score is 0, not the 10⁻¹² that rounding leaves.
    """
    groups = {len(np.unique(labels)), len(np.unique(assignments))}
    if len(groups) == 2 and len(labels) in groups:
        return 0.0
    return float(metrics.adjusted_mutual_info_score(labels, assignments))


@many_classes()
def cluster_scores(labels: np.ndarray, assignments: np.ndarray) -> dict[str, float]:
    """Agreement of clusters with labels.

    ARI (Hubert & Arabie 1985) and AMI (Vinh et al. 2010) are 0 on average for random clusters; the others are
    not, and grow with the number of clusters. If both sides are a single group, sklearn calls that perfect
    (1).

    Args:
        labels: Classes, (N,), any type.
        assignments: Clusters, (N,).

    Returns:
        `ari`, `ami`, `nmi`, `v_measure`, `homogeneity`, `completeness`, `purity`, `hungarian`.

    Raises:
        InputError: No clips, or two lengths.
    """
    _table(labels, assignments)
    homogeneity, completeness, v_measure = metrics.homogeneity_completeness_v_measure(labels, assignments)
    return {
        "ari": float(metrics.adjusted_rand_score(labels, assignments)),
        "ami": adjusted_mutual_info(labels, assignments),
        "nmi": float(metrics.normalized_mutual_info_score(labels, assignments)),
        "v_measure": float(v_measure),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "purity": purity(labels, assignments),
        "hungarian": hungarian_accuracy(labels, assignments),
    }


@many_classes()
def leave_one_out_values(
    metric: Callable[[np.ndarray, np.ndarray], float], labels: np.ndarray, assignments: np.ndarray
) -> np.ndarray:
    """Values (N,) whose mean is `metric(labels, assignments)` and whose spread is that of its jackknife.

    A score of all clips together (ARI, AMI) is no mean over clips; what it changes by without each of them gives it
    an interval over clips nevertheless, and the difference of two clusterings of the same clips a paired one (Tukey
    1958; Efron & Stein 1981, doi:10.1214/aos/1176345462). Clips of one class in one cluster are interchangeable, so
    that the metric is computed once for each such group.
    """
    labels, assignments = np.asarray(labels), np.asarray(assignments)
    _, first, group = np.unique(_pairs(labels, assignments), return_index=True, return_inverse=True)
    keep = ~np.eye(len(labels), dtype=bool)[first]
    without = np.array([metric(labels[k], assignments[k]) for k in keep])[group]
    return metric(labels, assignments) + (len(labels) - 1) * (without.mean() - without)


def _pairs(labels: np.ndarray, assignments: np.ndarray) -> np.ndarray:
    """(N,) a number for every pair of class and cluster."""
    a, b = (np.unique(x, return_inverse=True)[1] for x in (labels, assignments))
    return a * (b.max() + 1) + b


@many_classes()
def geometry_scores(points: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Shape of the groups in their space: silhouette (up), Davies-Bouldin (down), Calinski-Harabasz (up).

    All nan where they are undefined: fewer than two groups, as many groups as clips, points that are not
    finite, or points that all coincide (where sklearn would return a perfect Davies-Bouldin of 0).
    Calinski-Harabasz is inf for groups without spread (sklearn returns 1).

    Args:
        points: Embedding, (N, D).
        groups: Clusters or classes, (N,).
    """
    points = np.asarray(points, dtype=float)
    keys = ("silhouette", "davies_bouldin", "calinski_harabasz")
    names = np.unique(groups)
    if not 2 <= len(names) < len(points) or not np.isfinite(points).all() or not np.ptp(points, axis=0).any():
        return dict.fromkeys(keys, np.nan)
    spread = any(np.ptp(points[groups == name], axis=0).any() for name in names)
    return {
        "silhouette": float(metrics.silhouette_score(points, groups)),
        "davies_bouldin": float(metrics.davies_bouldin_score(points, groups)),
        "calinski_harabasz": float(metrics.calinski_harabasz_score(points, groups)) if spread else np.inf,
    }


def _check_k(train: np.ndarray, k: int) -> np.ndarray:
    if not 1 <= k <= len(train):
        raise InputError(f"{k} clusters asked of {len(train)} training clips: choose between 1 and {len(train)}")
    if not np.isfinite(train).all():
        raise InputError("the embedding holds values that are not finite: the run diverged, train it again")
    return np.asarray(train, dtype=float)


def kmeans_assign(train: np.ndarray, test: np.ndarray, k: int, seed: int, n_init: int = 10) -> np.ndarray:
    """K-Means fitted on train (N, D); clusters of test (M, D) as (M,) integers.

    Coinciding points make fewer clusters than `k`. InputError for fewer training clips than clusters.
    """
    train = _check_k(train, k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than k: a collapsed latent
        model = KMeans(k, n_init=n_init, random_state=seed).fit(train)
    return model.predict(np.asarray(test, dtype=float))


def fit_gmm(train: np.ndarray, k: int, seed: int, covariance: Covariance = "diag", n_init: int = 5) -> GaussianMixture:
    """Gaussian mixture fitted on train (N, D), the best of `n_init` K-Means starts by likelihood.

    Variances are floored at a thousandth of the mean variance of the data, whatever its unit: with a few
    clips per component an unfloored one shrinks onto a clip. InputError for fewer training clips than
    components.
    """
    train = _check_k(train, k)
    floor = 1e-3 * float(train.var(axis=0).mean()) + 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(
            k, covariance_type=covariance, n_init=n_init, reg_covar=floor, max_iter=200, random_state=seed
        ).fit(train)


def gmm_assign(
    train: np.ndarray, test: np.ndarray, k: int, seed: int, covariance: Covariance = "diag", n_init: int = 5
) -> np.ndarray:
    """Most likely component of each test clip, (M,), under `fit_gmm` on train; its arguments and errors."""
    return fit_gmm(train, k, seed, covariance, n_init).predict(np.asarray(test, dtype=float))


@many_classes()
def permutation_null(
    metric: Callable[[np.ndarray, np.ndarray], float],
    labels: np.ndarray,
    assignments: np.ndarray,
    n: int = 100,
    seed: int = 0,
) -> Null:
    """`metric(labels, assignments)` with shuffled labels, `n` times: chance, for these group sizes."""
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    return Null.of([float(metric(rng.permutation(labels), assignments)) for _ in range(n)])
