"""What lies nearest in a latent space: of its own dimensions, never of a 2-D map."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from vaelib.config import InputError, one_of

METRICS = ("euclidean", "cosine")


def nearest(
    queries: np.ndarray,
    points: np.ndarray,
    k: int,
    metric: str = "euclidean",
    kin: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` points nearest to each query, exactly (no approximate index), nearest first.

    Args:
        queries: (Q, L).
        points: (N, L) of the same space.
        metric: `euclidean`, or `cosine` (angles alone count).
        kin: Groups of the queries (Q,) and of the points (N,): a point of the query's own group is passed over.
            To leave out only the query itself, give each point a number of its own.

    Returns:
        Places in `points` (Q, k) and distances (Q, k); -1 and nan where there are fewer than `k`.

    Raises:
        InputError: unknown metric, or `k` below 1.
    """
    one_of("metric", metric, METRICS)
    if k < 1:
        raise InputError(f"{k} neighbours cannot be found: ask for one or more")
    places = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.nan)
    if not len(queries) or not len(points):
        return places, distances
    # as many more as the query's own group can take away
    most = int(np.unique(kin[1], return_counts=True)[1].max()) if kin else 0
    found = NearestNeighbors(n_neighbors=min(k + most, len(points)), metric=metric).fit(points)
    far, near = found.kneighbors(queries)
    others = kin[1][near] != np.asarray(kin[0])[:, None] if kin else np.ones(near.shape, bool)
    order = np.argsort(~others, axis=1, kind="stable")[:, :k]  # those that may stay come first, in their order
    near, far, stays = (np.take_along_axis(a, order, 1) for a in (near, far, others))
    places[:, : near.shape[1]] = np.where(stays, near, -1)
    distances[:, : near.shape[1]] = np.where(stays, far, np.nan)
    return places, distances
