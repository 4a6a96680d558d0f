"""2-D maps of an embedding. For looking only: no metric is computed in them."""

from __future__ import annotations

import warnings

import numpy as np

from ..config import one_of

METHODS = ("pca", "tsne", "umap")


def project(points: np.ndarray, method: str = "umap", seed: int = 0) -> np.ndarray:
    """Map (clip, L) to (clip, 2) with PCA, t-SNE (van der Maaten & Hinton 2008) or UMAP (McInnes et al. 2018).

    With fewer than 10 clips every method is PCA, because neighbourhoods need neighbours.

    Raises:
        InputError: unknown method.
    """
    from sklearn.decomposition import PCA

    one_of("map", method, METHODS)
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
