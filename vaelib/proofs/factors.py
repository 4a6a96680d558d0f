"""Proofs about single latent dimensions: what they know of the factors, and what they change."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .. import plots
from ..config import InputError
from ..evaluation import disentanglement as dis
from ..evaluation.reconstruction import onset_envelope
from ..evaluation.stats import Null
from ..runs import Embedding, Run
from .proof import Proof

MAIN_FACTORS = ("tempo", "key", "energy", "brightness", "vocal_level")
LIVE_KL = 0.05  # nats; below this a dimension carries next to nothing


def factors_of(run: Run, split: str | None = None) -> dict[str, np.ndarray]:
    """Ground-truth factors of a split (None: of every clip): the five of the claims if they are there, else all.

    Raises:
        InputError: the corpus has none, or none without gaps.
    """
    names = [f for f in MAIN_FACTORS if f in run.store.factors] or run.store.factors
    if not names:
        raise InputError(
            f"corpus {run.store.attrs['corpus']} has no factor columns: add numeric ones (tempo, loudness, …) to its "
            "manifest.csv, or use the demo corpus"
        )
    table = run.store.table.loc[run.store.rows(split)]
    complete = {name: table[name].to_numpy() for name in names if table[name].notna().all()}
    if not complete:
        raise InputError(
            f"every factor column of {run.store.attrs['corpus']} has gaps: fill at least one in manifest.csv"
        )
    return complete


def live_dimensions(embedding: Embedding) -> np.ndarray:
    """Dimensions whose mean KL exceeds `LIVE_KL`, most informative first (at least one)."""
    order = np.argsort(-embedding.kl)
    return order[: max(1, int((embedding.kl > LIVE_KL).sum()))]


def mig_and_null(run: Run, permutations: int = 20) -> tuple[dis.GapScore, Null]:
    """MIG of the posterior means, and the same with the factors' clips permuted.

    On every clip, not on test alone: nothing is fitted to the factors, and mutual information estimated from a few
    hundred clips in 20 × 20 bins is mostly bias.
    """
    codes, factors = run.embed(None).means, factors_of(run)
    rng = np.random.default_rng(run.config.training.seed)
    null = []
    for _ in range(permutations):
        order = rng.permutation(len(codes))
        null.append(dis.mig(codes, {k: v[order] for k, v in factors.items()}).mean)
    return dis.mig(codes, factors), Null.of(null)


def disentanglement(run: Run, shown: int = 12) -> Proof:
    """Mutual information gap on the true factors, its null, and the same after rotating the live dimensions."""
    embedding, factors = run.embed(None), factors_of(run)
    score, null = mig_and_null(run)
    live = live_dimensions(embedding)
    rotated = dis.rotation_control(embedding.means, factors, live=np.isin(np.arange(len(embedding.kl)), live))
    numbers = {
        "MIG": score.mean,
        "MIG with permuted factors, mean": null.mean,
        "MIG with permuted factors, 95th percentile": null.p95,
        "MIG after random rotations, mean": float(rotated.mean()),
        "live dimensions": float((embedding.kl > LIVE_KL).sum()),
        **{f"MIG of {k}": v for k, v in score.per_factor.items()},
    }
    top = live[:shown]
    matrix = pd.DataFrame(score.matrix[top], [f"z{d}" for d in top], list(score.per_factor))
    figure, _ = plots.heatmap(
        matrix, f"{run.name}: share of each factor's entropy known from one dimension", "mutual information / entropy"
    )
    best = max(score.per_factor, key=lambda k: np.nan_to_num(score.per_factor[k], nan=-1))  # nan: constant here
    sentence = (
        f"MIG is {score.mean:.3f}, against {null.p95:.3f} (95th percentile) for permuted factors and "
        f"{rotated.mean():.3f} after random rotations of the {len(live)} live dimensions; {best} separates best "
        f"({score.per_factor[best]:.3f}). "
        + ("The axes mean more than chance." if score.mean > null.p95 else "That is not distinguishable from chance.")
        + " One seed."
    )
    return Proof("disentanglement", run.name, numbers, sentence, figure)


def attributes(x: np.ndarray) -> pd.DataFrame:
    """Musical attributes measured in spectrograms (n, mel, frame) in [0, 1].

    Loudness (mean level), brightness (centroid over the mel bands), contrast (spread of the bins) and onset
    strength (mean rectified flux).
    """
    bands = np.linspace(0, 1, x.shape[1])[:, None]
    weight = np.maximum(x.sum((1, 2)), 1e-9)
    return pd.DataFrame({
        "loudness": x.mean((1, 2)),
        "brightness": (x * bands).sum((1, 2)) / weight,
        "contrast": x.std((1, 2)),
        "onset strength": onset_envelope(x).mean(1),
    })  # fmt: skip


def traversal(run: Run, dimension: int | None = None, clips: int = 16) -> Proof:
    """Move one dimension over its range and measure what changes in the decoded spectrogram.

    Args:
        dimension: Index of the latent dimension; the most informative one when None.
        clips: Test clips from which the traversal starts; effects are averaged over them.
    """
    embedding = run.embed("test")
    size = embedding.means.shape[1]
    if dimension is not None and not 0 <= dimension < size:
        raise InputError(f"dimension {dimension} is not there: {run.name} has dimensions 0 to {size - 1}")
    live = live_dimensions(embedding)
    asked = int(live[0]) if dimension is None else dimension
    spread = attributes(run.reconstruct("test")[0]).std()
    shown = list(dict.fromkeys([*live[:8].tolist(), asked]))
    effects = traversal_effects(run, embedding, shown, clips, spread)
    own = effects.loc[f"z{asked}"].abs()
    main, total = own.idxmax(), max(own.sum(), 1e-9)
    alive = embedding.kl[asked] > LIVE_KL
    numbers = {
        "dimension": float(asked),
        "KL (nats)": float(embedding.kl[asked]),
        f"effect on {main} (its own standard deviations)": float(effects.loc[f"z{asked}", main]),
        "share of the effect on its main attribute": float(own.max() / total),
        "mean share over the live dimensions": float((effects.abs().max(axis=1) / effects.abs().sum(axis=1)).mean()),
        "share if all attributes moved alike": 1 / effects.shape[1],
    }
    figure, _ = plots.heatmap(
        effects,
        f"{run.name}: change from one end of a dimension to the other",
        "standard deviations of test clips",
        0.0,
    )
    n, share = effects.shape[1], own.max() / total
    if not alive:
        said = "It is dead: the posterior equals the prior, and moving it changes next to nothing."
    elif own.max() < 0.05:
        said = "It is all but dead: moving it changes no attribute by a twentieth of its standard deviation."
    else:
        said = (
            f"It changes {main} most ({effects.loc[f'z{asked}', main]:+.2f} standard deviations), with {share:.0%} of "
            f"its effect there (a dimension that changed all {n} alike would have {1 / n:.0%}). The attributes are "
            "themselves correlated, so 100 % is not to be expected."
        )
    sentence = f"z{asked} carries {embedding.kl[asked]:.2f} nats. {said}"
    return Proof("traversal", run.name, numbers, sentence, figure)


def traversal_effects(run: Run, embedding: Embedding, dims: list[int], clips: int, spread: pd.Series) -> pd.DataFrame:
    """(dimension, attribute): change of each attribute from the 5th to the 95th percentile of a dimension.

    In standard deviations `spread` of the attribute over real clips, averaged over starting clips.
    """
    starts = embedding.means[np.linspace(0, len(embedding.means) - 1, min(clips, len(embedding.means))).astype(int)]
    rows = {}
    for d in dims:
        low, high = np.percentile(embedding.means[:, d], [5, 95])
        z = np.repeat(starts, 2, axis=0)
        z[0::2, d], z[1::2, d] = low, high
        label = np.zeros(len(z), int) if run.conditional else None
        measured = attributes(run.decode(z, label))
        change = measured.iloc[1::2].to_numpy() - measured.iloc[0::2].to_numpy()
        rows[f"z{d}"] = change.mean(0) / np.maximum(spread.to_numpy(), 1e-9)
    return pd.DataFrame(rows, index=spread.index).T


def name_dimensions(run: Run, dims: np.ndarray) -> dict[int, str]:
    """What each dimension knows most of, for slider labels: 17 → `energy, MI 0.31`."""
    embedding = run.embed(None)
    try:
        score = dis.mig(embedding.means, factors_of(run))
    except InputError:
        return {int(d): f"KL {embedding.kl[d]:.2f}" for d in dims}
    factors, matrix = list(score.per_factor), np.nan_to_num(score.matrix)  # nan: a factor that is constant here
    names = {}
    for d in dims:
        best = int(matrix[d].argmax())
        names[int(d)] = f"{factors[best].replace('_', ' ')}, MI {matrix[d, best]:.2f}"
    return names
