"""Does one latent dimension carry one factor? MIG, SAP, DCI and their controls; explained in notebook 04.

Codes are (N, L); factors are a table of K columns (N,), each continuous (`is_continuous`) or discrete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import entropy, ortho_group
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.feature_selection import r_regression
from sklearn.linear_model import RidgeCV
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from vaelib.metrics.statistics import Scores, bootstrap_interval

BINS = 20  # of every dimension and every continuous factor, as in Locatello et al. 2019, arXiv:1811.12359
PERMUTATIONS, ROTATIONS = 20, 40
KNOWN = 0.1  # share of a factor's entropy, beyond chance, that a dimension named after it must know
DEAD = 1e-12  # variance of a dimension that predicts nothing, as in disentanglement_lib


class GapScore(NamedTuple):
    """MIG or SAP: mean over factors (without nan), each factor's gap, and the (L, K) matrix behind them."""

    mean: float
    per_factor: dict[str, float]
    matrix: np.ndarray


def is_continuous(values: np.ndarray) -> bool:
    """Whether a factor is a float of more than `BINS` distinct values; integers, text and few levels are discrete."""
    return np.issubdtype(np.asarray(values).dtype, np.floating) and len(np.unique(values)) > BINS


def discretize(values: np.ndarray) -> np.ndarray:
    """(N,) or (N, D) numbers → integers from 0: `BINS` bins of equal width over each column's own range."""
    values = np.asarray(values, dtype=float)
    low, width = values.min(axis=0), np.ptp(values, axis=0)
    share = (values - low) / np.where(width > 0, width, 1)
    return np.minimum((share * BINS).astype(int), BINS - 1)


def _levels(values: np.ndarray) -> np.ndarray:
    return discretize(values) if is_continuous(values) else np.unique(values, return_inverse=True)[1]


def mutual_information(codes: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """(L,) mutual information of codes (N, L) with a factor (N,), integers from 0, nats: biased upwards."""
    dims, bins, levels = codes.shape[1], codes.max() + 1, factor.max() + 1
    cell = (np.arange(dims) * bins + codes) * levels + factor[:, None]  # one histogram for all dimensions
    joint = np.bincount(cell.ravel(), minlength=dims * bins * levels).reshape(dims, bins, levels)
    h_code, h_joint = entropy(joint.sum(2), axis=1), entropy(joint.reshape(dims, -1), axis=1)
    return np.maximum(h_code + entropy(np.bincount(factor)) - h_joint, 0.0)  # rounding dips below 0


def _gap(columns: Sequence[np.ndarray], factors: pd.DataFrame) -> GapScore:
    matrix = np.stack(columns, axis=1)
    ranked = np.sort(np.vstack([np.zeros(len(columns)), matrix]), axis=0)  # a single dimension: its gap is against 0
    gaps = pd.Series(ranked[-1] - ranked[-2], list(factors))  # nan columns stay nan
    return GapScore(float(gaps.mean()), gaps.to_dict(), matrix)


def mig(codes: np.ndarray, factors: pd.DataFrame) -> GapScore:
    """Mutual information gap: (highest - second highest MI with a factor) / entropy of the factor.

    Chen et al. 2018, arXiv:1802.04942, with binned codes and empirical entropies as in disentanglement_lib. The matrix
    is MI / entropy, in [0, 1]; a constant factor is nan.
    """
    bins, levels = discretize(codes), [_levels(values) for _, values in factors.items()]
    return _gap([mutual_information(bins, v) / (entropy(np.bincount(v)) or np.nan) for v in levels], factors)


def mig_by_clip(codes: np.ndarray, factors: pd.DataFrame, score: GapScore) -> np.ndarray:
    """(N,) whose mean is the MIG `score` of codes and factors: log p(z, v) / p(z) p(v) in place of its mean, the MI."""
    parts = []
    for (_, values), column in zip(factors.items(), score.matrix.T, strict=True):
        v, known = _levels(values), []
        for z in discretize(codes[:, np.argsort(-column, kind="stable")[:2]]).T:
            joint = np.histogram2d(z, v, (np.arange(BINS + 1), np.arange(v.max() + 2)))[0]  # (bin, level)
            known.append(np.log(joint[z, v] * len(z) / (joint.sum(1)[z] * joint.sum(0)[v])))
        parts.append((known[0] - sum(known[1:])) / (entropy(np.bincount(v)) or np.nan))
    return pd.DataFrame(parts).mean().to_numpy()  # without nan


def sap(codes: np.ndarray, factors: pd.DataFrame) -> GapScore:
    """Separated attribute predictability: gap between the two single dimensions that best predict a factor.

    Kumar et al. 2018, arXiv:1711.00848. Continuous factors: R² of a linear fit. Discrete ones: balanced accuracy above
    chance of the nearest class mean; the paper's linear SVM cannot single out a middle class on one axis.
    """
    codes = np.asarray(codes, dtype=float)
    found = [r_regression(codes, v) ** 2 if is_continuous(v) else _nearest_mean(codes, v) for _, v in factors.items()]
    return _gap([np.multiply(column, codes.var(0) > DEAD) for column in found], factors)


def _nearest_mean(codes: np.ndarray, values: np.ndarray) -> list[float] | float:
    classes, y = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        return np.nan
    means = pd.DataFrame(codes).groupby(y).mean().to_numpy()  # (C, L)
    guesses = [np.abs(z[:, None] - means[:, d]).argmin(1) for d, z in enumerate(codes.T)]
    return [max(0.0, balanced_accuracy_score(y, guess, adjusted=True)) for guess in guesses]


def dci(
    codes: np.ndarray, factors: pd.DataFrame, train: np.ndarray, test: np.ndarray, seed: int = 0
) -> tuple[float, float, float]:
    """Disentanglement, completeness, informativeness, each in [0, 1], from the importances of tree ensembles.

    Eastwood & Williams 2018 (openreview By-7dz-AZ), with extremely randomised trees, one ensemble per factor, fitted on
    `train`, (N,) bool. Informativeness, on `test`: R² or balanced accuracy above chance, at least 0. A factor that is
    constant in one of them is left out; with a single factor (dimension) disentanglement (completeness) is nan.
    """
    importances, scores = [], []
    for _, y in factors.items():
        if min(y[train].nunique(), y[test].nunique()) < 2:
            continue
        kind, score = ExtraTreesRegressor, r2_score
        if not is_continuous(y[train]):  # a float with few levels is a set of classes, which trees would refuse
            y, kind, score = y.astype(str), ExtraTreesClassifier, partial(balanced_accuracy_score, adjusted=True)
        # Every dimension at every split: drawn subsets would hand importance to noise dimensions. One thread: several
        # sum the trees in the order in which they finish.
        trees = kind(50, max_depth=8, min_samples_leaf=3, max_features=None, n_jobs=1, random_state=seed)
        scores.append(max(0.0, score(y[test], trees.fit(codes[train], y[train]).predict(codes[test]))))
        importances.append(trees.feature_importances_)
    if not scores:
        return np.nan, np.nan, np.nan
    known = np.stack(importances, axis=1)  # (L, factors that vary)
    weights = known.sum(axis=1)
    disentanglement = _concentration(known) @ (weights / weights.sum() if weights.any() else weights)
    return float(disentanglement), float(_concentration(known.T).mean()), float(np.mean(scores))


def _concentration(rows: np.ndarray) -> np.ndarray:
    """1 - entropy of each row / that of an even one; an empty row is 0, and a single column nan."""
    if rows.shape[1] < 2:
        return np.full(len(rows), np.nan)
    share = np.where(rows.any(1, keepdims=True), rows, 1.0)
    return 1 - entropy(share, axis=1) / np.log(rows.shape[1])


def permuted_scores(codes: np.ndarray, factors: pd.DataFrame, seed: int) -> list[GapScore]:
    """`PERMUTATIONS` times the MIG with the factors of other clips: what chance and the bias of binning give."""
    rng = np.random.default_rng(seed)
    return [mig(codes, factors.iloc[rng.permutation(len(codes))]) for _ in range(PERMUTATIONS)]


def axes_verdict(numbers: Mapping[str, float]) -> str:
    """What the nulls say of the axes, in a sentence: over clips, the MIG must exceed chance and random rotations."""
    if numbers["mig.low"] <= numbers["mig.null_p95"]:
        return "That is not told apart from chance."
    if numbers["mig.low"] <= numbers["mig.rotated_p95"]:
        return "The space knows the factors, but its axes are not told apart from random directions."
    return "The axes mean more than chance: turned at random, the same space separates less."


def best_known(score: GapScore, permuted: Sequence[GapScore], live: np.ndarray) -> dict[int, str]:
    """The factor after which each `live` dimension may be named, "" for most.

    Its information must exceed the 95th percentile of the largest with `permuted` factors and, without its mean under
    permutation, be at least `KNOWN` of the factor's entropy and twice that of any other factor.
    """
    names, found = list(score.per_factor), {}
    chance = np.percentile([np.nanmax(p.matrix[live]) for p in permuted], 95)
    excesses = score.matrix - np.mean([p.matrix for p in permuted], axis=0)
    for d in live:
        best, excess = int(np.nan_to_num(score.matrix[d]).argmax()), excesses[d]  # nan: a factor that is constant here
        unclear = score.matrix[d, best] <= chance or excess[best] < KNOWN
        found[int(d)] = "" if unclear or np.any(np.delete(excess, best) > excess[best] / 2) else names[best]
    return found


def disentanglement_scores(
    codes: np.ndarray, factors: pd.DataFrame, live: np.ndarray, train: np.ndarray, test: np.ndarray,
    others: Mapping[str, np.ndarray], seed: int = 0,
) -> Scores:  # fmt: skip
    """MIG (per clip too), SAP and DCI of codes (N, L), with permuted factors, rotations and the MIG of `others`, codes.

    MIG and SAP are of every clip: nothing is fitted, and few clips in 20 × 20 bins are mostly bias. DCI is fitted on
    `train` and read on `test`, (N,) bool. It and rotations are of `live` dimensions: dead ones would dilute the signal.
    """
    numbers, per_clip = {"mig.factors": factors.shape[1], "sap.mean": sap(codes, factors).mean}, {}
    for name, z in {**others, "mean": codes}.items():  # the codes last: `score` is theirs
        score = mig(z, factors)
        numbers[f"mig.{name}"], per_clip[f"mig.{name}"] = score.mean, mig_by_clip(z, factors, score)
    permuted, alive = permuted_scores(codes, factors, seed), codes[:, live]
    null = [p.mean for p in permuted]
    rotations = ortho_group.rvs(len(live), size=ROTATIONS, random_state=np.random.default_rng(seed))  # (rotation, D, D)
    rotated = [mig(alive @ q, factors).mean for q in rotations]
    straight, turned = (dci(z, factors, train, test, seed) for z in (alive, alive @ rotations[0]))
    own = pd.Series([name for name in best_known(score, permuted, live).values() if name], dtype=str).value_counts()
    numbers |= {f"mig.of.{name}": gap for name, gap in score.per_factor.items()}
    numbers |= {"mig.low": bootstrap_interval(per_clip["mig.mean"][None]).low, "mig.null_mean": np.mean(null)}
    numbers |= {"mig.null_p95": np.percentile(null, 95), "mig.rotated_p95": np.percentile(rotated, 95)}
    numbers |= dict(zip(("dci.disentanglement", "dci.completeness", "dci.informativeness"), straight, strict=True))
    numbers |= {"dci.rotated": turned[0], "live.named": own.sum(), "live.own": (own == 1).sum()}
    return {name: float(value) for name, value in numbers.items()}, per_clip


def coarse(x: np.ndarray) -> np.ndarray:
    """Spectrograms (N, F, T) → (N, ≤ 64 · 64): means over neighbouring bands and frames."""
    for axis in (1, 2):
        if x.shape[axis] > 64:
            edges = np.linspace(0, x.shape[axis], 65).astype(int)
            x = np.stack([part.mean(axis) for part in np.split(x, edges[1:-1], axis)], axis)
    return x.reshape(len(x), -1)


def linear_reader(x: np.ndarray, factors: pd.DataFrame) -> Pipeline:
    """Ridge regression from real spectrograms (at most 2000) to their factors; `predict` reads decoded ones, (n, K)."""
    picked = np.unique(np.linspace(0, len(x) - 1, min(len(x), 2000)).astype(int))
    ridge = RidgeCV(np.logspace(-2, 4, 13), alpha_per_target=True)
    reader = TransformedTargetRegressor(ridge, transformer=StandardScaler())
    return make_pipeline(FunctionTransformer(coarse), reader).fit(x[picked], factors.to_numpy(float)[picked])


def main_share(effects: np.ndarray) -> np.ndarray:
    """Share that the main factor takes of the effects (D, S, K) of directions from S ≥ 2 starts on factors.

    (S,) values whose mean is the mean share over directions, and whose spread is that of its jackknife over starts.
    """

    def mean_share(starts: np.ndarray) -> float:
        effect = np.abs(effects[:, starts].mean(1))  # (D, K)
        total = effect.sum(1, keepdims=True)  # a direction that moves nothing moves all factors alike
        return np.where(total > 1e-6, effect / np.maximum(total, 1e-6), 1 / effect.shape[1]).max(1).mean()

    n = effects.shape[1]
    without = np.array([mean_share(others) for others in ~np.eye(n, dtype=bool)])
    return mean_share(np.arange(n)) + (n - 1) * (without.mean() - without)
