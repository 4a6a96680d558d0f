"""Does one latent dimension carry one factor? MIG, DCI, SAP, and the rotation control.

Codes are (N, L): posterior means or samples. Factors are a dictionary of name to (N,) values: floats with
more distinct values than bins are continuous, everything else (integers, text, few levels) is discrete.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import entropy, ortho_group
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.metrics import r2_score

from vaelib.config import InputError
from vaelib.metrics.judges import balanced_accuracy
from vaelib.metrics.statistics import mean_known

Factors = Mapping[str, np.ndarray]
BINS = 20


class GapScore(NamedTuple):
    """MIG or SAP: mean over factors (without nan), each factor's gap, and the (L, K) matrix behind them."""

    mean: float
    per_factor: dict[str, float]
    matrix: np.ndarray


class DciScore(NamedTuple):
    """DCI, in [0, 1], higher better; informativeness per factor; importances (L, K), columns sum to 1."""

    disentanglement: float
    completeness: float
    informativeness: float
    per_factor: dict[str, float]
    importance: np.ndarray


def is_continuous(values: np.ndarray, bins: int = BINS) -> bool:
    """Whether a factor is measured (float, more than `bins` distinct values) and not a set of classes."""
    values = np.asarray(values)
    return np.issubdtype(values.dtype, np.floating) and len(np.unique(values)) > bins


def discretize(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Bin each column into `bins` bins of equal width over its own range, as disentanglement_lib does.

    Args:
        values: (N,) or (N, D).
        bins: Number of bins; 20 in Locatello et al. 2019, arXiv:1811.12359.

    Returns:
        Integers in [0, bins), same shape; a constant column is all 0.
    """
    values = np.asarray(values, dtype=float)
    low, width = values.min(axis=0), np.ptp(values, axis=0)
    share = (values - low) / np.where(width > 0, width, 1)
    return np.minimum((share * bins).astype(int), bins - 1)


def mutual_information(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Empirical mutual information of every code with every factor, nats.

    Args:
        codes: Discrete codes, integers from 0, (N, L).
        factors: Discrete factors, integers from 0, (N, K).

    Returns:
        (L, K). Biased upwards by about (levels - 1)² / 2N nats: compare it with a null, not with 0.
    """
    return np.stack([_information(codes, v) for v in factors.T], axis=1)


def _information(codes: np.ndarray, factor: np.ndarray) -> np.ndarray:
    dims, bins, levels = codes.shape[1], codes.max() + 1, factor.max() + 1
    cell = (np.arange(dims) * bins + codes) * levels + factor[:, None]  # one histogram for all dimensions
    joint = np.bincount(cell.ravel(), minlength=dims * bins * levels).reshape(dims, bins, levels)
    h_code, h_joint = entropy(joint.sum(2), axis=1), entropy(joint.reshape(dims, -1), axis=1)
    return np.maximum(h_code + entropy(np.bincount(factor)) - h_joint, 0.0)  # rounding dips below 0


def _checked(codes: np.ndarray, factors: Factors) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    codes = np.asarray(codes, dtype=float)
    if codes.ndim != 2 or codes.size == 0 or not np.isfinite(codes).all():
        raise InputError(f"codes must be finite and of shape (clips, dimensions), not {codes.shape}")
    if not factors:
        raise InputError("no factors: disentanglement needs at least one known factor per clip")
    factors = {name: np.asarray(values) for name, values in factors.items()}
    for name, values in factors.items():
        if values.shape != (len(codes),):
            raise InputError(f"factor {name!r} has shape {values.shape}, not one value for {len(codes)} clips")
        if (~np.isfinite(values) if values.dtype.kind == "f" else pd.isna(values)).any():
            raise InputError(f"factor {name!r} has missing values: leave those clips out")
    return codes, factors


def _levels(values: np.ndarray, bins: int) -> np.ndarray:
    if is_continuous(values, bins):
        return discretize(values, bins)
    return np.unique(values, return_inverse=True)[1]


def _gap(matrix: np.ndarray, names: list[str]) -> GapScore:
    # a single dimension has no rival: its gap is against 0
    ranked = np.sort(np.vstack([np.zeros(matrix.shape[1]), matrix]), axis=0)  # nan columns stay nan
    gaps = dict(zip(names, (ranked[-1] - ranked[-2]).tolist(), strict=True))
    return GapScore(mean_known(gaps.values()), gaps, matrix)


def mig(codes: np.ndarray, factors: Factors, bins: int = BINS) -> GapScore:
    """Mutual information gap: (highest - second highest MI with a factor) / entropy of the factor.

    Chen et al. 2018, arXiv:1802.04942, with binned codes and empirical entropies as in disentanglement_lib.

    Args:
        codes: Posterior means, or samples for the sampled variant, (N, L).
        factors: Name to values, (N,).
        bins: Bins of each dimension and each continuous factor.

    Returns:
        The mean gap, each factor's (nan for a constant factor), and MI / entropy, (L, K), in [0, 1].

    Raises:
        InputError: Shapes that do not fit, or missing values.
    """
    codes, factors = _checked(codes, factors)
    levels = np.stack([_levels(values, bins) for values in factors.values()], axis=1)  # (N, K)
    entropies = np.array([entropy(np.bincount(v)) for v in levels.T])  # (K,)
    information = mutual_information(discretize(codes, bins), levels)  # (L, K)
    return _gap(information / np.where(entropies > 0, entropies, np.nan), list(factors))


def mig_by_clip(codes: np.ndarray, factors: Factors, score: GapScore, bins: int = BINS) -> np.ndarray:
    """(N,) whose mean is the MIG: what each clip adds to it, so that an interval over clips can be given.

    Mutual information is the mean of log p(z, v) / p(z) p(v) over clips; here that of the best dimension minus that of
    the second best, over the entropy, averaged over factors.

    Args:
        codes, factors, bins: What `mig` was given.
        score: What it returned.
    """
    codes, factors = _checked(codes, factors)
    parts = []
    for name, column in zip(factors, score.matrix.T, strict=True):
        if np.isnan(column).any():
            continue
        v = _levels(factors[name], bins)
        z = discretize(codes[:, np.argsort(-column, kind="stable")[:2]], bins)
        known = [_pointwise(d, v) for d in z.T]
        parts.append((known[0] - sum(known[1:])) / entropy(np.bincount(v)))
    return np.mean(parts, axis=0) if parts else np.full(len(codes), np.nan)


def _pointwise(z: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(N,) log p(z, v) / p(z) p(v) of each clip's bin and level."""
    joint = np.zeros((z.max() + 1, v.max() + 1))
    np.add.at(joint, (z, v), 1)
    return np.log(joint[z, v] * len(z) / (joint.sum(1)[z] * joint.sum(0)[v]))


def sap(codes: np.ndarray, factors: Factors, bins: int = BINS) -> GapScore:
    """Separated attribute predictability: gap between the two single dimensions that best predict a factor.

    Kumar et al. 2018, arXiv:1711.00848. Continuous factors: R² of a linear fit. Discrete ones: balanced
    accuracy of the nearest class mean, rescaled so that chance is 0 and perfect is 1 like R²; the paper's
    linear SVM cannot single out a middle class on one axis. Arguments, nan and errors as `mig`; the matrix
    holds the scores.
    """
    codes, factors = _checked(codes, factors)
    columns = [_r2(codes, v) if is_continuous(v, bins) else _nearest_mean(codes, v) for v in factors.values()]
    return _gap(np.stack(columns, axis=1), list(factors))


def _r2(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    z, v = codes - codes.mean(0), values - values.mean()
    power = (z**2).sum(0) * (v @ v)
    live = z.var(0) > 1e-12  # disentanglement_lib's bound: a dead dimension predicts nothing
    return np.where(live, (v @ z) ** 2 / np.where(live, power, 1), 0.0)


def _nearest_mean(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    classes, y = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        return np.full(codes.shape[1], np.nan)
    of_class = np.eye(len(classes))[y] / np.bincount(y)  # (N, C), columns sum to 1
    means = of_class.T @ codes  # (C, L)
    scores = np.empty(codes.shape[1])
    for d, z in enumerate(codes.T):
        guess = np.abs(z[:, None] - means[:, d]).argmin(1)
        scores[d] = _above_chance(of_class[guess == y, y[guess == y]].sum() / len(classes), len(classes))
    return scores * (codes.var(0) > 1e-12)


def _above_chance(accuracy: float, classes: int) -> float:
    return max(0.0, (accuracy - 1 / classes) / (1 - 1 / classes))


def dci(
    codes_train: np.ndarray,
    factors_train: Factors,
    codes_test: np.ndarray,
    factors_test: Factors,
    seed: int = 0,
    trees: int = 50,
) -> DciScore:
    """Disentanglement, completeness, informativeness from the importances of tree ensembles.

    Eastwood & Williams 2018 (openreview By-7dz-AZ), with extremely randomised trees for their forests: one
    ensemble per factor, fitted on train. Informativeness is measured on test, floored at 0 and higher better:
    R² of a continuous factor, balanced accuracy above chance of a discrete one. Disentanglement of each
    dimension is weighted by its importance; a latent that tells nothing scores 0.

    Args:
        codes_train: (N, L).
        factors_train: Name to values, (N,).
        codes_test: (M, L).
        factors_test: The same names, (M,).
        seed: Seed of the trees.
        trees: Trees per factor.

    Returns:
        The scores. A factor that is constant in train or test is nan and left out; with a single factor
        (dimension) disentanglement (completeness) is undefined and nan.

    Raises:
        InputError: Shapes or names that do not fit, or missing values.
    """
    codes_train, factors_train = _checked(codes_train, factors_train)
    codes_test, factors_test = _checked(codes_test, factors_test)
    if list(factors_train) != list(factors_test):
        raise InputError(f"factors differ: {list(factors_train)} in train, {list(factors_test)} in test")
    importance, scores = np.full((codes_train.shape[1], len(factors_train)), np.nan), {}
    for k, (name, y) in enumerate(factors_train.items()):
        importance[:, k], scores[name] = _explain(codes_train, y, codes_test, factors_test[name], seed, trees)
    known = importance[:, ~np.isnan(importance).any(axis=0)]  # (L, factors that vary)
    weights = known.sum(axis=1)
    disentanglement = _concentration(known) @ (weights / weights.sum() if weights.any() else weights)
    completeness = _concentration(known.T).mean() if known.size else np.nan
    informativeness = mean_known(scores.values())
    return DciScore(float(disentanglement), float(completeness), informativeness, scores, importance)


def _explain(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, seed: int, trees: int
) -> tuple[np.ndarray | float, float]:
    """Importances (L,) and test score of one factor."""
    if len(np.unique(y)) < 2 or len(np.unique(y_test)) < 2:
        return np.nan, np.nan
    continuous = is_continuous(y)
    if not continuous:  # a float with few levels is a set of classes, which trees would refuse
        y, y_test = np.asarray(y).astype(str), np.asarray(y_test).astype(str)
    kind = ExtraTreesRegressor if continuous else ExtraTreesClassifier
    # Every dimension at every split: drawn subsets would hand importance to noise dimensions. One thread: several sum
    # the trees in the order in which they finish, and are no faster.
    model = kind(trees, max_depth=8, min_samples_leaf=3, max_features=None, n_jobs=1, random_state=seed)
    model.fit(x, y)
    if continuous:
        return model.feature_importances_, max(0.0, float(r2_score(y_test, model.predict(x_test))))
    accuracy = balanced_accuracy(y_test, model.predict(x_test))
    return model.feature_importances_, _above_chance(accuracy, len(np.unique(y_test)))


def _concentration(rows: np.ndarray) -> np.ndarray:
    """1 - entropy of each row / that of an even one; an empty row is 0, and a single column nan."""
    if rows.shape[1] < 2:
        return np.full(len(rows), np.nan)
    share = np.where(rows.any(1, keepdims=True), rows, 1.0)
    return 1 - entropy(share, axis=1) / np.log(rows.shape[1])


def random_rotations(dim: int, n: int, seed: int = 0) -> np.ndarray:
    """`n` uniformly random orthogonal matrices, (n, dim, dim)."""
    if dim == 1:
        return np.ones((n, 1, 1))  # scipy refuses one dimension
    return ortho_group.rvs(dim, size=n, random_state=np.random.default_rng(seed)).reshape(n, dim, dim)


def rotation_control(
    codes: np.ndarray,
    factors: Factors,
    n: int = 10,
    seed: int = 0,
    live: np.ndarray | None = None,
    bins: int = BINS,
) -> np.ndarray:
    """MIG after random rotations of the latent space, (n,): the same information, off its axes.

    A MIG that rotation does not lower is no evidence of axes. Pass `live` (indices or mask, of L) to rotate
    among the live dimensions only: diluting the signal over dead ones would make the control easy to beat.
    """
    codes = np.asarray(codes, dtype=float)
    codes = codes if live is None else codes[:, live]
    return np.array([mig(codes @ q, factors, bins).mean for q in random_rotations(codes.shape[1], n, seed)])
