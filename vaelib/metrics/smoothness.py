"""Is a decoded path between two clips gradual?"""

from __future__ import annotations

import numpy as np

from vaelib.config import InputError


def path_smoothness(path: np.ndarray, reference: float | None = None) -> dict[str, float | bool]:
    """Smoothness of one path, (steps, ...): the first entries of `paths_smoothness`, as plain numbers."""
    scores = paths_smoothness(np.asarray(path)[None], None if reference is None else np.array([reference]))
    return {key: value[0].item() for key, value in scores.items()}


def paths_smoothness(
    paths: np.ndarray, reference: np.ndarray | None = None, min_share: float = 0.05
) -> dict[str, np.ndarray]:
    """Evenness and straightness of many paths in data space, by Euclidean distance.

    Args:
        paths: Decoded points, (P, steps, ...), at least two steps.
        reference: Distance between the two original clips of each path, (P,).
        min_share: A path that stays nearer to its start than this share of its reference counts as collapsed: a
            decoder that hardly moves is smooth for the wrong reason.

    Returns:
        Arrays of (P,): `step_ratio`, largest step / mean step (1 even, steps - 1 one jump); `length_ratio`,
        path length / distance of its ends (1 straight); `length`; `collapsed`. A collapsed path has both
        ratios inf, the worst value, so that no average or median calls it smooth.

    Raises:
        InputError: Fewer than two steps.
    """
    paths = np.asarray(paths, dtype=float)
    if paths.ndim < 2 or paths.shape[1] < 2:
        raise InputError(f"a path needs at least two steps, (paths, steps, ...), not the shape {paths.shape}")
    flat = paths.reshape(len(paths), paths.shape[1], -1)  # (P, steps, D)
    steps = np.linalg.norm(np.diff(flat, axis=1), axis=2)  # (P, steps - 1)
    length = steps.sum(axis=1)
    ends = np.linalg.norm(flat[:, -1] - flat[:, 0], axis=1)
    reach = np.linalg.norm(flat - flat[:, :1], axis=2).max(axis=1)  # a length would add up jitter
    least = 1e-6 * np.maximum(1.0, np.linalg.norm(flat[:, 0], axis=1))
    if reference is not None:
        least = np.maximum(least, min_share * np.asarray(reference, dtype=float))
    collapsed = ~(reach > least)  # nan counts as collapsed
    with np.errstate(divide="ignore", invalid="ignore"):
        step_ratio = np.where(collapsed, np.inf, steps.max(axis=1) / steps.mean(axis=1))
        length_ratio = np.where(collapsed, np.inf, length / ends)  # a path that returns to its start: inf
    return {"step_ratio": step_ratio, "length_ratio": length_ratio, "length": length, "collapsed": collapsed}
