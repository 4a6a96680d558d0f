"""Clusters against labels, clusters as shapes, spaces without any training, and neighbours in a space.

What is fitted is fitted on train and read on test. Notebook 03 explains the scores, 02 computes the ARI by hand.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.fft import dct
from scipy.optimize import linear_sum_assignment
from sklearn import metrics
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.cluster import contingency_matrix
from sklearn.neighbors import NearestNeighbors

from vaelib.config import InputError, one_of
from vaelib.metrics.statistics import Null, many_classes

MAPS = ("pca", "tsne", "umap")
DISTANCES = ("euclidean", "cosine")

# --- clusters against labels ---


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


# The two scores of which a random clustering gets 0 on average
ADJUSTED = {"ari": metrics.adjusted_rand_score, "ami": adjusted_mutual_info}


@many_classes()
def cluster_scores(labels: np.ndarray, assignments: np.ndarray) -> dict[str, float]:
    """Agreement of clusters with labels.

    ARI (Hubert & Arabie 1985) and AMI (Vinh et al. 2010) are 0 on average for random clusters; the others are not,
    and grow with the number of clusters. If both sides are a single group, scikit-learn calls that perfect (1).

    Args:
        labels: Classes, (N,), any type.
        assignments: Clusters, (N,).

    Returns:
        `ari`, `ami`, `nmi`, `v_measure`, `homogeneity`, `completeness`; `purity`, the share of clips of their
        cluster's majority class; `accuracy`, that under the best one-to-one match of clusters and classes (Xie et al.
        2016, arXiv:1511.06335, eq. 10), where what is left unmatched is wrong.

    Raises:
        InputError: No clips, or two lengths.
    """
    if len(labels) != len(assignments) or len(labels) == 0:
        raise InputError(f"{len(labels)} labels and {len(assignments)} assignments: one of each per clip is needed")
    table = contingency_matrix(labels, assignments)  # (classes, clusters)
    homogeneity, completeness, v_measure = metrics.homogeneity_completeness_v_measure(labels, assignments)
    return {
        "ari": float(metrics.adjusted_rand_score(labels, assignments)),
        "ami": adjusted_mutual_info(labels, assignments),
        "nmi": float(metrics.normalized_mutual_info_score(labels, assignments)),
        "v_measure": float(v_measure),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "purity": float(table.max(axis=0).sum() / table.sum()),
        "accuracy": float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum()),
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
    a, b = (np.unique(x, return_inverse=True)[1] for x in (labels, assignments))
    _, first, group = np.unique(a * (b.max() + 1) + b, return_index=True, return_inverse=True)
    keep = ~np.eye(len(labels), dtype=bool)[first]
    without = np.array([metric(labels[k], assignments[k]) for k in keep])[group]
    return metric(labels, assignments) + (len(labels) - 1) * (without.mean() - without)


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


@many_classes()
def geometry_scores(points: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Shape of the groups in their space: silhouette (up), Davies-Bouldin (down), Calinski-Harabasz (up).

    All nan where they are undefined: fewer than two groups, as many groups as clips, points that are not
    finite, or points that all coincide (where scikit-learn would return a perfect Davies-Bouldin of 0).
    Calinski-Harabasz is inf for groups without spread (scikit-learn returns 1).

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


class ClusteringScores(NamedTuple):
    """Numbers by id (`ari`, `ami.null_p95`, `ari.pca`, …), and for some of them values per clip (see `claims`)."""

    numbers: dict[str, float]
    per_clip: dict[str, np.ndarray]


def clustering_scores(
    labels: np.ndarray, clusters: np.ndarray, codes: np.ndarray, baselines: Mapping[str, np.ndarray]
) -> ClusteringScores:
    """Everything that clusters of test clips are compared by: scores, permuted labels, baselines, shape of the classes.

    Args:
        labels: Classes, (N,).
        clusters: Clusters of the model, (N,).
        codes: The model's codes of these clips, (N, L), in which the classes have a shape.
        baselines: Short name → clusters (N,) of a space without training, as many as the model's.
    """
    numbers, per_clip = cluster_scores(labels, clusters), {}
    for name, metric in ADJUSTED.items():
        numbers[f"{name}.null_p95"] = permutation_null(metric, labels, clusters, n=50).p95
        per_clip[name] = leave_one_out_values(metric, labels, clusters)
    numbers |= geometry_scores(codes, labels)
    if not np.isnan(numbers["silhouette"]):
        per_clip["silhouette"] = metrics.silhouette_samples(codes, labels)
    for baseline, assigned in baselines.items():
        scores = cluster_scores(labels, assigned)
        numbers |= {f"{name}.{baseline}": scores[name] for name in ("ari", "ami", "purity")}
        per_clip |= {f"{n}.{baseline}": leave_one_out_values(m, labels, assigned) for n, m in ADJUSTED.items()}
    return ClusteringScores(numbers, per_clip)


# --- the clusterer ---


def kmeans_assign(train: np.ndarray, test: np.ndarray, k: int, seed: int, n_init: int = 10) -> np.ndarray:
    """K-Means fitted on train (N, D); clusters of test (M, D) as (M,) integers.

    Coinciding points make fewer clusters than `k`.

    Raises:
        InputError: fewer training clips than clusters, or codes that are not finite.
    """
    if not 1 <= k <= len(train):
        raise InputError(f"{k} clusters asked of {len(train)} training clips: choose between 1 and {len(train)}")
    if not np.isfinite(train).all():
        raise InputError("the embedding holds values that are not finite: the run diverged, train it again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than k: a collapsed latent
        model = KMeans(k, n_init=n_init, random_state=seed).fit(np.asarray(train, dtype=float))
    return model.predict(np.asarray(test, dtype=float))


# --- spaces without training ---
# Windows are (N, W, F, T): clips, evenly spaced windows of a clip, mel bands, frames; log-mel on any linear scale.


def pca_codes(train: np.ndarray, test: np.ndarray, dims: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of whole windows, fitted on train, averaged over the windows of a clip.

    Args:
        train: (N, W, F, T).
        test: (M, W, F, T).
        dims: Components; fewer if there are fewer windows or bins.
        seed: Of the randomised solver.

    Returns:
        (N, dims) and (M, dims).
    """
    flat = train.reshape(train.shape[0] * train.shape[1], -1)
    pca = PCA(min(dims, *flat.shape), svd_solver="randomized", random_state=seed).fit(flat)

    def mean(x: np.ndarray) -> np.ndarray:
        return pca.transform(x.reshape(-1, flat.shape[1])).reshape(*x.shape[:2], -1).mean(1)

    return mean(train), mean(test)


def mfcc_statistics(windows: np.ndarray, coefficients: int = 20) -> np.ndarray:
    """Mean and standard deviation over time of the mel cepstrum's first coefficients, (N, 2 · coefficients).

    The classical summary of timbre (Tzanetakis & Cook 2002); DCT-II as in librosa's `mfcc`.
    """
    cepstrum = dct(np.asarray(windows, np.float32), axis=2, norm="ortho")[:, :, :coefficients]
    return np.concatenate([cepstrum.mean((1, 3)), cepstrum.std((1, 3))], axis=1)


def standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with mean 0 and deviation 1 per column of train; a constant column stays 0."""
    # rounding gives a constant column a deviation that is not quite 0
    mean, deviation = train.mean(0), np.where(np.ptp(train, axis=0) > 0, train.std(0), 1.0)
    return (train - mean) / deviation, (test - mean) / deviation


# --- neighbours and maps ---


def nearest(
    queries: np.ndarray,
    points: np.ndarray,
    k: int,
    metric: str = "euclidean",
    groups: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` points nearest to each query in the space itself (never in a 2-D map), exactly, nearest first.

    Args:
        queries: (Q, L).
        points: (N, L) of the same space.
        k: Neighbours of each query, at least 1.
        metric: `euclidean`, or `cosine` (angles alone count).
        groups: Of the queries (Q,) and of the points (N,): a point of the query's own group is passed over.
            To leave out only the query itself, give each point a number of its own.

    Returns:
        Places in `points` (Q, k) and distances (Q, k); -1 and nan where there are fewer than `k`.

    Raises:
        InputError: unknown metric, or `k` below 1.
    """
    one_of("metric", metric, DISTANCES)
    if k < 1:
        raise InputError(f"{k} neighbours cannot be found: ask for one or more")
    places = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.nan)
    if not len(queries) or not len(points):
        return places, distances
    # as many more as the query's own group can take away
    most = int(np.unique(groups[1], return_counts=True)[1].max()) if groups else 0
    found = NearestNeighbors(n_neighbors=min(k + most, len(points)), metric=metric).fit(points)
    far, near = found.kneighbors(queries)
    others = groups[1][near] != np.asarray(groups[0])[:, None] if groups else np.ones(near.shape, bool)
    order = np.argsort(~others, axis=1, kind="stable")[:, :k]  # those that may stay come first, in their order
    near, far, stays = (np.take_along_axis(a, order, 1) for a in (near, far, others))
    places[:, : near.shape[1]] = np.where(stays, near, -1)
    distances[:, : near.shape[1]] = np.where(stays, far, np.nan)
    return places, distances


def project(points: np.ndarray, method: str = "umap", seed: int = 0) -> np.ndarray:
    """A map (clip, 2) of codes (clip, L), for looking only: no metric is computed in it.

    PCA, t-SNE (van der Maaten & Hinton 2008) or UMAP (McInnes et al. 2018). With fewer than 10 clips every method is
    PCA, because neighbourhoods need neighbours.

    Raises:
        InputError: unknown method.
    """
    one_of("map", method, MAPS)
    n = len(points)
    if method == "pca" or n < 10:
        flat = PCA(min(2, *points.shape), random_state=seed).fit_transform(points)
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    if method == "tsne":
        from sklearn.manifold import TSNE

        return TSNE(2, perplexity=min(30, (n - 1) / 3), init="pca", random_state=seed).fit_transform(points)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a seed makes UMAP single-threaded, and it says so every time
        import umap

        return umap.UMAP(n_neighbors=min(15, n - 1), random_state=seed).fit_transform(points)
