"""Clusters against labels, spaces without any training, neighbours in a space, and soft clusters.

What is fitted is fitted on train and read on test. Notebook 03 explains the scores, 02 computes the ARI by hand, 06 the
calibration.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
from scipy.fft import dct
from scipy.optimize import linear_sum_assignment, minimize_scalar
from scipy.special import softmax
from sklearn import metrics
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.cluster import contingency_matrix

from vaelib.metrics.statistics import Scores

DISTANCES = ("euclidean", "cosine")

# --- clusters against labels ---


def adjusted_mutual_info(labels: np.ndarray, assignments: np.ndarray) -> float:
    """Adjusted mutual information (Vinh, Epps & Bailey 2010; scikit-learn), (N,) classes against (N,) clusters."""
    groups = {len(np.unique(labels)), len(np.unique(assignments))}
    if len(groups) == 2 and len(labels) in groups:  # every clip in a group of its own: 0, but for rounding
        return 0.0
    return float(metrics.adjusted_mutual_info_score(labels, assignments))


# The two scores of which a random clustering gets 0 on average
ADJUSTED = {"ari": metrics.adjusted_rand_score, "ami": adjusted_mutual_info}


def cluster_scores(labels: np.ndarray, assignments: np.ndarray) -> dict[str, float]:
    """Agreement of clusters (N,) with labels (N,) of any type, in eight scores.

    ARI (Hubert & Arabie 1985) and AMI are 0 on average for random clusters; the others grow with their number. Purity
    is the share of clips of their cluster's majority class; accuracy that under the best one-to-one match of clusters
    and classes (Xie et al. 2016, arXiv:1511.06335, eq. 10).
    """
    table = contingency_matrix(labels, assignments)  # (classes, clusters)
    homogeneity, completeness, v_measure = metrics.homogeneity_completeness_v_measure(labels, assignments)
    return {name: float(score(labels, assignments)) for name, score in ADJUSTED.items()} | {
        "nmi": float(metrics.normalized_mutual_info_score(labels, assignments)),
        "v_measure": float(v_measure),
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
        "purity": float(table.max(axis=0).sum() / table.sum()),
        "accuracy": float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum()),
    }


def leave_one_out_values(metric: Callable, labels: np.ndarray, assignments: np.ndarray) -> np.ndarray:
    """Values (N,) whose mean is `metric(labels, assignments)` and whose spread is that of its jackknife.

    So a score of all clips together has an interval over clips (Efron & Stein 1981, doi:10.1214/aos/1176345462).
    """
    labels, assignments = np.asarray(labels), np.asarray(assignments)
    a, b = (np.unique(x, return_inverse=True)[1] for x in (labels, assignments))
    # clips of one class in one cluster are interchangeable: the metric is computed once for each such group
    _, first, group = np.unique(a * (b.max() + 1) + b, return_index=True, return_inverse=True)
    keep = ~np.eye(len(labels), dtype=bool)[first]
    without = np.array([metric(labels[k], assignments[k]) for k in keep])[group]
    return metric(labels, assignments) + (len(labels) - 1) * (without.mean() - without)


def geometry_scores(points: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Shape of the groups (N,) of points (N, D): silhouette (up), Davies-Bouldin (down), Calinski-Harabasz (up).

    All nan with fewer than two groups, as many groups as clips, and points that all coincide or are not finite.
    """
    points = np.asarray(points, dtype=float)
    defined = 2 <= len(np.unique(groups)) < len(points) and np.isfinite(points).all() and np.ptp(points, axis=0).any()
    names = "silhouette", "davies_bouldin", "calinski_harabasz"
    return {x: float(getattr(metrics, f"{x}_score")(points, groups)) if defined else np.nan for x in names}


def clustering_scores(
    labels: np.ndarray, clusters: np.ndarray, codes: np.ndarray, baselines: Mapping[str, np.ndarray]
) -> Scores:
    """Everything that clusters (N,) of test clips are compared by; the null permutes the labels (N,).

    `codes` (N, L) are the model's; `baselines` are as many clusters (N,) of spaces without training, by short name.
    """
    numbers, per_clip = cluster_scores(labels, clusters), {}
    for name, metric in ADJUSTED.items():
        rng = np.random.default_rng(0)
        null = [metric(rng.permutation(labels), clusters) for _ in range(50)]
        numbers[f"{name}.null_p95"] = float(np.percentile(null, 95))
        per_clip[name] = leave_one_out_values(metric, labels, clusters)
    numbers |= geometry_scores(codes, labels)
    if not np.isnan(numbers["silhouette"]):
        per_clip["silhouette"] = metrics.silhouette_samples(codes, labels)
    for baseline, assigned in baselines.items():
        scores = cluster_scores(labels, assigned)
        numbers |= {f"{name}.{baseline}": scores[name] for name in ("ari", "ami", "purity")}
        per_clip |= {f"{n}.{baseline}": leave_one_out_values(m, labels, assigned) for n, m in ADJUSTED.items()}
    return numbers, per_clip


def kmeans_assign(train: np.ndarray, test: np.ndarray, k: int, seed: int) -> np.ndarray:
    """K-Means fitted on train (N, D), N ≥ k; clusters of test (M, D) as (M,) integers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than k: a collapsed latent
        model = KMeans(k, n_init=10, random_state=seed).fit(np.asarray(train, dtype=float))
    return model.predict(np.asarray(test, dtype=float))


# --- spaces without training ---
# Windows are (N, W, F, T): clips, evenly spaced windows of a clip, mel bands, frames; log-mel on any linear scale.


def pca_codes(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 32) and (M, 32) principal components of windows (fewer of few), fitted on train, averaged over a clip."""
    flat = train.reshape(train.shape[0] * train.shape[1], -1)
    pca = PCA(min(32, *flat.shape), svd_solver="randomized", random_state=0).fit(flat)
    codes = [pca.transform(x.reshape(-1, flat.shape[1])).reshape(*x.shape[:2], -1).mean(1) for x in (train, test)]
    return codes[0], codes[1]


def mfcc_statistics(windows: np.ndarray) -> np.ndarray:
    """(N, 40) mean and deviation over time of librosa's `mfcc`, the first 20 (Tzanetakis & Cook 2002)."""
    cepstrum = dct(np.asarray(windows, np.float32), axis=2, norm="ortho")[:, :, :20]
    return np.concatenate([cepstrum.mean((1, 3)), cepstrum.std((1, 3))], axis=1)


def standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with mean 0 and deviation 1 per column of train; a constant column (by range: rounding) stays 0."""
    mean, deviation = train.mean(0), np.where(np.ptp(train, axis=0) > 0, train.std(0), 1.0)
    return (train - mean) / deviation, (test - mean) / deviation


# --- neighbours and maps ---


def nearest(
    queries: np.ndarray, points: np.ndarray, k: int, metric: str = "euclidean", groups: tuple | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Places and distances, (Q, min(k, N)), of the points (N, L) nearest to queries (Q, L), by one of `DISTANCES`.

    `groups` of the queries (Q,) and of the points (N,): a point of the query's own group is passed over. Nearest
    first; -1 and nan where fewer are left.
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
    """A map (clip, 2) of codes (clip, L), for looking only: `pca`, `tsne` or `umap`; of fewer than 10 clips PCA.

    t-SNE: van der Maaten & Hinton 2008. UMAP: McInnes et al. 2018.
    """
    n = len(points)
    if method == "pca" or n < 10:
        flat = PCA(min(2, *points.shape), random_state=0).fit_transform(points)
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    if method == "tsne":
        from sklearn.manifold import TSNE

        return TSNE(2, perplexity=min(30, (n - 1) / 3), init="pca", random_state=0).fit_transform(points)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a seed makes UMAP single-threaded, and it says so every time
        import umap

        return umap.UMAP(n_neighbors=min(15, n - 1), random_state=0).fit_transform(points)


# --- soft clusters: is a mixture's confidence honest? ---


def calibration_errors(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """(N,) values whose mean is the expected calibration error (Guo et al. 2017, arXiv:1706.04599).

    That is the mean distance of accuracy and confidence in ten bins over [0, 1], from each clip's highest
    responsibility, (N,), and whether it is of its component's class, (N,).
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

    By its log loss (Guo et al. 2017), of clips that are neither trained nor tested on.
    """
    correct = np.asarray(correct, dtype=bool)

    def loss(log_temperature: float) -> float:
        sure = tempered(log_responsibilities, np.exp(log_temperature)).max(1).clip(1e-6, 1 - 1e-6)
        return -float(np.log(np.where(correct, sure, 1 - sure)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.1), np.log(1e4)), method="bounded").x))
