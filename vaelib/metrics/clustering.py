"""Classes in a space: clusters, probes, trees, soft clusters; spaces without any training; neighbours.

Fitted on train, read on test. Notebooks 02 and 03 explain scores and trees, 05 the probe, 06 the calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.fft import dct
from scipy.optimize import linear_sum_assignment, minimize_scalar
from scipy.spatial.distance import pdist
from scipy.special import softmax
from sklearn import metrics
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics.cluster import contingency_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vaelib.metrics.statistics import Scores

DISTANCES = ("euclidean", "cosine")
KINDS, BLOCKS = 500, 100  # a jackknife leaves out each kind of clips in turn; of more kinds, random blocks of clips

# The two scores of which a random clustering gets 0 on average: Hubert & Arabie 1985; Vinh, Epps & Bailey 2010, rounded
# so that it is 0 and not 1e-12 where every clip is a class of its own
ADJUSTED = {
    "ari": metrics.adjusted_rand_score,
    "ami": lambda labels, clusters: round(metrics.adjusted_mutual_info_score(labels, clusters), 10) + 0.0,
}


def cluster_scores(labels: np.ndarray, assignments: np.ndarray) -> dict[str, float]:
    """Agreement of clusters (N,) with labels (N,) of any type, in eight scores.

    All but ARI and AMI grow with the number of clusters. Purity is the share of clips of their cluster's majority
    class; accuracy that under the best one-to-one match of clusters and classes (Xie et al. 2016, arXiv:1511.06335).
    """
    scores = {name: score(labels, assignments) for name, score in ADJUSTED.items()}
    h, c, v = metrics.homogeneity_completeness_v_measure(labels, assignments)
    share = contingency_matrix(labels, assignments) / len(labels)  # (classes, clusters)
    matched = share[linear_sum_assignment(share, maximize=True)].sum()
    scores |= {"homogeneity": h, "completeness": c, "v_measure": v, "nmi": v}
    return scores | {"purity": share.max(axis=0).sum(), "accuracy": matched}


def leave_one_out_values(metric: Callable, labels: np.ndarray, assignments: np.ndarray) -> np.ndarray:
    """Values (N,) whose mean is `metric(labels, assignments)` and whose spread is that of its jackknife.

    So a score of all clips together has an interval over clips (Efron & Stein 1981, doi:10.1214/aos/1176345462).
    """
    n, kind = len(labels), pd.DataFrame({0: labels, 1: assignments}).groupby([0, 1]).ngroup().to_numpy()  # of all alike
    left_out, scale = np.unique(kind, return_index=True)[1], n - 1
    if len(left_out) > KINDS:
        kind, scale = np.random.default_rng(0).permutation(n) % BLOCKS, (BLOCKS - 1) * np.sqrt(n / BLOCKS)
        left_out = [np.flatnonzero(kind == block) for block in range(BLOCKS)]
    without = np.array([metric(np.delete(labels, i), np.delete(assignments, i)) for i in left_out])[kind]
    return metric(labels, assignments) + scale * (without.mean() - without)


def clustering_scores(
    labels: np.ndarray, clusters: np.ndarray, codes: np.ndarray, baselines: Mapping[str, np.ndarray]
) -> Scores:
    """Everything that clusters (N,) of test clips are compared by; the null permutes the labels (N,).

    `codes` (N, L) are the model's; `baselines` are as many clusters (N,) of spaces without training, by short name. The
    shape of the classes, silhouette and others, is nan for fewer than two, one for each clip, or codes that coincide.
    """
    numbers, per_clip, codes = cluster_scores(labels, clusters), {}, np.asarray(codes, dtype=float)
    defined = 2 <= len(np.unique(labels)) < len(labels) and np.isfinite(codes).all() and np.ptp(codes, axis=0).any()
    for name in ("silhouette", "davies_bouldin", "calinski_harabasz"):
        numbers[name] = getattr(metrics, f"{name}_score")(codes, labels) if defined else np.nan
    if defined:
        per_clip["silhouette"] = metrics.silhouette_samples(codes, labels)
    for name, metric in ADJUSTED.items():
        rng = np.random.default_rng(0)
        numbers[f"{name}.null_p95"] = np.percentile([metric(rng.permutation(labels), clusters) for _ in range(50)], 95)
    for short, assigned in {"": clusters, **{f".{name}": found for name, found in baselines.items()}}.items():
        scores = cluster_scores(labels, assigned)
        numbers |= {f"{name}{short}": scores[name] for name in ("ari", "ami", "purity")}
        per_clip |= {f"{n}{short}": leave_one_out_values(m, labels, assigned) for n, m in ADJUSTED.items()}
    return numbers, per_clip


def kmeans_assign(train: np.ndarray, test: np.ndarray, k: int, seed: int) -> np.ndarray:
    """K-Means fitted on train (N, D), N ≥ k; clusters (M,) of test (M, D), fewer than `k` of points that coincide."""
    return KMeans(k, n_init=10, random_state=seed).fit(np.asarray(train, float)).predict(np.asarray(test, float))


def balanced_values(guess: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Values (N,) whose mean is the mean recall over the classes of `truth`, both (N,); 0 where the guess is wrong."""
    classes, of_class, count = np.unique(truth, return_inverse=True, return_counts=True)
    return (np.asarray(guess) == truth) * len(truth) / (len(classes) * count[of_class])


def linear_probe(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, seed: int) -> float:
    """Balanced accuracy on test of a linear classifier of classes (N,) by codes (N, D), fitted on train."""
    logistic = LogisticRegression(max_iter=1000, class_weight="balanced", random_state=seed)
    guess = make_pipeline(StandardScaler(), logistic).fit(train_x, train_y).predict(test_x)
    return float(balanced_values(guess, test_y).mean())


def cophenetic_agreement(centroids: np.ndarray, families: np.ndarray) -> tuple[float, float, float]:
    """Whether the tree of class centroids (C, D) joins classes of one family, (C,), before others.

    Correlation of the cophenetic distances (Sokal & Rohlf 1962) with whether two classes are of different families; its
    p-value and 95th percentile under shuffled families (Mantel 1967). nan without two families, classes or places.
    """
    kinds, families = np.unique(families, return_inverse=True)
    if not 1 < len(kinds) < len(families):
        return np.nan, np.nan, np.nan
    tree = cophenet(linkage(pdist(np.asarray(centroids, dtype=float)), "average"))  # (C (C-1) / 2,)
    if np.ptp(tree) <= 1e-12 * tree.max():
        return np.nan, np.nan, np.nan
    first, second = np.triu_indices(len(families), k=1)  # pdist's order of pairs
    rng = np.random.default_rng(0)
    orders = [families, *(rng.permutation(families) for _ in range(1000))]
    observed, *null = (np.corrcoef(tree, order[first] != order[second])[0, 1] for order in orders)
    p_value = (1 + np.sum(np.array(null) >= observed - 1e-12)) / (1 + len(null))  # the observed order is one of them
    return float(observed), float(p_value), float(np.percentile(null, 95))


def calibration_errors(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """(N,) values whose mean is the expected calibration error (Guo et al. 2017, arXiv:1706.04599).

    That is the mean distance of `confidence`, a clip's highest responsibility, and share of `correct` in ten bins.
    """
    gap = np.asarray(correct, dtype=float) - np.asarray(confidence, dtype=float)
    place = np.digitize(confidence, np.arange(1, 10) / 10)  # linspace misses 0.6 by one rounding
    return gap * np.sign(np.bincount(place, gap))[place]


def margins(log_responsibilities: np.ndarray) -> np.ndarray:
    """(N,) log-odds of the likeliest of (N, K) components against the second, nats: who is how sure where all say 1."""
    top = np.sort(np.asarray(log_responsibilities, dtype=float), axis=1)
    return top[:, -1] - top[:, -2:][:, 0]


def fit_temperature(log_responsibilities: np.ndarray, correct: np.ndarray) -> float:
    """Temperature, 0.1 to 10⁴, at which the highest of (N, K) responsibilities best forecasts `correct` by log loss."""

    def loss(log_temperature: float) -> float:
        sure = softmax(log_responsibilities / np.exp(log_temperature), axis=1).max(1).clip(1e-6, 1 - 1e-6)
        return -float(np.log(np.where(correct, sure, 1 - sure)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.1), np.log(1e4)), method="bounded").x))


def pca_codes(*splits: np.ndarray) -> list[np.ndarray]:
    """(N, ≤ 32) principal components, fitted on the first split, of its and others' windows (N, W, F, T), mean of W."""
    flat = [x.reshape(-1, x.shape[2] * x.shape[3]) for x in splits]
    pca = PCA(min(32, *flat[0].shape), svd_solver="randomized", random_state=0).fit(flat[0])
    return [pca.transform(f).reshape(*x.shape[:2], -1).mean(1) for f, x in zip(flat, splits, strict=True)]


def mfcc_statistics(windows: np.ndarray) -> np.ndarray:
    """(N, 40) mean and deviation over time of 20 MFCC (Tzanetakis & Cook 2002) of log-mel windows (N, W, F, T)."""
    cepstrum = dct(np.asarray(windows, np.float32), axis=2, norm="ortho")[:, :, :20]
    return np.concatenate([cepstrum.mean((1, 3)), cepstrum.std((1, 3))], axis=1)


def nearest(
    queries: np.ndarray, points: np.ndarray, k: int, metric: str = "euclidean", groups: tuple | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Places and distances, (Q, min(k, N)), of the points (N, L) nearest to queries (Q, L), by one of `DISTANCES`.

    Points of the query's own group, of `groups` (Q,) and (N,), are passed over; -1 and nan where fewer are left.
    """

    def closest(block: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
        if groups is not None:
            block[groups[0][start : start + len(block), None] == groups[1]] = np.inf
        order = np.argsort(block, axis=1, kind="stable")[:, :k]
        return order, np.take_along_axis(block, order, axis=1)

    blocks = metrics.pairwise_distances_chunked(queries, points, reduce_func=closest, metric=metric)
    places, distances = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return np.where(np.isinf(distances), -1, places), np.where(np.isinf(distances), np.nan, distances)


def project(points: np.ndarray, method: str = "umap") -> np.ndarray:
    """A map (clip, 2) of codes (clip, L), for looking only: `pca`, `tsne` or `umap`; of fewer than 10 clips PCA."""
    n = len(points)
    if method == "pca" or n < 10:
        flat = PCA(min(2, *points.shape), random_state=0).fit_transform(points)
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    if method == "tsne":
        return TSNE(2, perplexity=min(30, (n - 1) / 3), init="pca", random_state=0).fit_transform(points)
    import umap  # compiles for seconds

    return umap.UMAP(n_neighbors=min(15, n - 1), random_state=0, n_jobs=1).fit_transform(points)
