"""Proofs about single latent dimensions: what they know of the factors, and what they change."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import plots
from ..config import InputError
from ..evaluation import disentanglement as dis
from ..evaluation.attributes import attributes
from ..evaluation.stats import Null
from ..runs import Embedding, Run
from .proof import Proof

MAIN_FACTORS = ("tempo", "key", "energy", "brightness", "vocal_level")
CLASSES = ("key",)  # numbers that are names: B lies next to C
LIVE_KL = 0.05  # nats; below this a dimension carries next to nothing


class Factors(NamedTuple):
    """Values (clip,) by name, of the clips `rows`, and where they come from: `true` or `measured`."""

    values: dict[str, np.ndarray]
    source: str
    rows: np.ndarray


def factors_of(run: Run, split: str | None = None) -> Factors:
    """Factors of a split (None: of every clip): the five of the claims if they are there, else all columns.

    A corpus without a factor column free of gaps gets audio descriptors measured by librosa in their stead.

    Raises:
        InputError: nothing could be measured.
    """
    names = true_factors(run)
    names = [f for f in MAIN_FACTORS if f in names] or names
    rows = run.store.rows(split)
    if names:
        table, source = run.store.table.loc[rows, names], "true"
    else:
        from ..descriptors import describe

        table, source = describe(run.store).loc[rows], "measured"
        table = table.loc[:, table.notna().mean() > 0.5].dropna()
    if table.empty:
        raise InputError(
            f"{run.store.attrs['corpus']} has no factors, and most of its clips no descriptors: fill a column of its "
            "manifest, or use clips that are neither silent nor shorter than a fifth of a second"
        )
    values = {name: table[name].to_numpy() for name in table}
    values |= {name: values[name].round().astype(int) for name in CLASSES if name in values}
    return Factors(values, source, table.index.to_numpy())


def true_factors(run: Run) -> list[str]:
    """Factor columns of the corpus that every clip has; without any, descriptors stand in."""
    table = run.store.table.loc[run.store.rows(None)]
    return [name for name in run.store.factors if name in table and table[name].notna().all()]


def _said(factors: Factors) -> str:
    if factors.source == "true":
        return ""
    return (
        " The corpus has no true factors (or only with gaps): descriptors measured in the audio by librosa stand in "
        f"({', '.join(factors.values)}), which are themselves estimates and correlated."
    )


def codes_of(run: Run, rows: np.ndarray, sampled: bool = False) -> np.ndarray:
    """(clip, L) posterior means of the clips `rows`, or one draw from each posterior."""
    embedding = run.embed(None)
    at = np.searchsorted(embedding.rows, rows)
    means = embedding.means[at]
    if not sampled:
        return means
    noise = np.random.default_rng(run.config.training.seed).standard_normal(means.shape)
    return means + noise * np.exp(0.5 * embedding.logvars[at])


def live_dimensions(embedding: Embedding) -> np.ndarray:
    """Dimensions whose mean KL exceeds `LIVE_KL`, most informative first (at least one)."""
    order = np.argsort(-embedding.kl)
    return order[: max(1, int((embedding.kl > LIVE_KL).sum()))]


def disentanglement(run: Run, shown: int = 12, permutations: int = 20) -> Proof:
    """MIG, SAP and DCI on the factors, with permuted factors and random rotations of the live dimensions.

    MIG and SAP are measured on every clip, not on test alone: nothing is fitted to the factors, and mutual
    information estimated from a few hundred clips in 20 × 20 bins is mostly bias. DCI is fitted on train.
    """
    embedding, factors = run.embed(None), factors_of(run)
    codes, values = codes_of(run, factors.rows), factors.values
    rng = np.random.default_rng(run.config.training.seed)
    score = dis.mig(codes, values)
    null = Null.of([
        dis.mig(codes, {k: v[order] for k, v in values.items()}).mean
        for order in (rng.permutation(len(codes)) for _ in range(permutations))
    ])  # fmt: skip
    live = live_dimensions(embedding)
    rotated = dis.rotation_control(codes, values, live=np.isin(np.arange(codes.shape[1]), live))
    dci, turned = _dci(run, factors, live)
    numbers = {
        "MIG": score.mean,
        "MIG with permuted factors, mean": null.mean,
        "MIG with permuted factors, 95th percentile": null.p95,
        "MIG after random rotations, mean": float(rotated.mean()),
        "MIG of posterior samples": dis.mig(codes_of(run, factors.rows, sampled=True), values).mean,
        "SAP": dis.sap(codes, values).mean,
        "DCI disentanglement": dci.disentanglement,
        "DCI disentanglement after a random rotation": turned.disentanglement,
        "DCI completeness": dci.completeness,
        "DCI informativeness": dci.informativeness,
        "live dimensions": float((embedding.kl > LIVE_KL).sum()),
        **{f"MIG of {k}": v for k, v in score.per_factor.items()},
    }
    top = live[:shown]
    matrix = pd.DataFrame(score.matrix[top], [f"z{d}" for d in top], list(score.per_factor))
    figure, _ = plots.heatmap(
        matrix,
        f"{run.name}: share of each {'factor' if factors.source == 'true' else 'measured descriptor'}'s entropy known "
        "from one dimension",
        "mutual information / entropy",
    )
    best = max(score.per_factor, key=lambda k: np.nan_to_num(score.per_factor[k], nan=-1))  # nan: constant here
    sentence = (
        f"MIG is {score.mean:.3f}, against {null.p95:.3f} (95th percentile) for permuted factors and "
        f"{rotated.mean():.3f} after random rotations of the {len(live)} live dimensions; {best} separates best "
        f"({score.per_factor[best]:.3f}). "
        + ("The axes mean more than chance." if score.mean > null.p95 else "That is not distinguishable from chance.")
        + _said(factors)
        + " One seed."
    )
    return Proof("disentanglement", run.name, numbers, sentence, figure)


def _dci(run: Run, factors: Factors, live: np.ndarray) -> tuple[dis.DciScore, dis.DciScore]:
    """DCI of the live dimensions, as they are and after one random rotation."""
    inside = [np.isin(factors.rows, run.store.rows(split)) for split in ("train", "test")]
    train, test = (codes_of(run, factors.rows[i])[:, live] for i in inside)
    fit, held = ({k: v[i] for k, v in factors.values.items()} for i in inside)
    turn = dis.random_rotations(len(live), 1, run.config.training.seed)[0]
    seed = run.config.training.seed
    return dis.dci(train, fit, test, held, seed), dis.dci(train @ turn, fit, test @ turn, held, seed)


def traversal(run: Run, dimension: int | None = None, clips: int = 16, most: int = 24) -> Proof:
    """Move one dimension at a time over its range and measure what changes in the decoded spectrogram.

    The null moves along random directions of the live dimensions instead of along axes.

    Args:
        dimension: Index of the latent dimension the sentence is about; the most informative one when None.
        clips: Test clips from which the traversal starts; effects are averaged over them.
        most: Live dimensions that are traversed, the most informative ones.

    Raises:
        InputError: no such dimension.
    """
    embedding = run.embed("test")
    size = embedding.means.shape[1]
    if dimension is not None and not 0 <= dimension < size:
        raise InputError(f"dimension {dimension} is not there: {run.name} has dimensions 0 to {size - 1}")
    live = live_dimensions(embedding)
    asked = int(live[0]) if dimension is None else dimension
    spread = measured_attributes(run, run.reconstruct("test")[0]).std()
    moved = list(dict.fromkeys([*live[:most].tolist(), asked]))
    effects = traversal_effects(run, embedding, np.eye(size)[moved], clips, spread)
    effects.index = [f"z{d}" for d in moved]
    rng = np.random.default_rng(run.config.training.seed)
    random = np.zeros((len(moved), size))
    random[:, live] = rng.standard_normal((len(moved), len(live)))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    null = _main_share(traversal_effects(run, embedding, random, clips, spread))
    shares = _main_share(effects)
    own = effects.loc[f"z{asked}"].abs()
    main, share = own.idxmax(), float(shares[f"z{asked}"])
    alive = embedding.kl[asked] > LIVE_KL
    numbers = {
        "dimension": float(asked),
        "KL (nats)": float(embedding.kl[asked]),
        f"effect on {main} (its own standard deviations)": float(effects.loc[f"z{asked}", main]),
        "share of the effect on its main attribute": share,
        "mean share over the live dimensions": float(shares.mean()),
        "mean share along random directions": float(null.mean()),
        "share if all attributes moved alike": 1 / effects.shape[1],
        "live dimensions": float((embedding.kl > LIVE_KL).sum()),
    }
    figure, _ = plots.heatmap(
        effects.loc[[f"z{d}" for d in dict.fromkeys([*moved[:12], asked])]],
        f"{run.name}: change from one end of a dimension to the other",
        "standard deviations of test clips",
        0.0,
    )
    if not alive:
        said = "It is dead: the posterior equals the prior, and moving it changes next to nothing."
    elif own.max() < 0.05:
        said = "It is all but dead: moving it changes no attribute by a twentieth of its standard deviation."
    else:
        said = (
            f"It changes {main} most ({effects.loc[f'z{asked}', main]:+.2f} standard deviations), with {share:.0%} of "
            "its effect there."
        )
    sentence = (
        f"z{asked} carries {embedding.kl[asked]:.2f} nats. {said} Over {len(moved)} dimensions the main attribute "
        f"takes {shares.mean():.0%} of the effect on average, along random directions {null.mean():.0%} (all "
        f"{effects.shape[1]} alike would be {1 / effects.shape[1]:.0%}). The attributes are themselves correlated, "
        "so 100 % is not to be expected."
    )
    return Proof("traversal", run.name, numbers, sentence, figure)


def _main_share(effects: pd.DataFrame) -> pd.Series:
    """Share of each row's total effect that its largest entry has; rows that move nothing are left out."""
    total = effects.abs().sum(axis=1)
    kept = total > 1e-6
    return (effects.abs().max(axis=1)[kept] / total[kept]).reindex(effects.index, fill_value=1 / effects.shape[1])


def measured_attributes(run: Run, x: np.ndarray) -> pd.DataFrame:
    """Attributes of spectrograms (n, mel, frame) of a run's front end."""
    fe = run.store.front_end
    return attributes(x, 60 * fe.sample_rate / fe.hop)


def traversal_effects(
    run: Run, embedding: Embedding, directions: np.ndarray, clips: int, spread: pd.Series
) -> pd.DataFrame:
    """(direction, attribute): change of each attribute from the 5th to the 95th percentile along a direction.

    In standard deviations `spread` of the attribute over real clips, averaged over starting clips.

    Args:
        directions: Unit vectors, (D, L); the rows of the identity are the axes.
    """
    means = embedding.means
    starts = means[np.linspace(0, len(means) - 1, min(clips, len(means))).astype(int)]
    rows = []
    for u in directions:
        low, high = np.percentile(means @ u, [5, 95])
        z = np.repeat(starts, 2, axis=0)
        z[0::2] += (low - starts @ u)[:, None] * u
        z[1::2] += (high - starts @ u)[:, None] * u
        label = np.zeros(len(z), int) if run.conditional else None
        measured = measured_attributes(run, run.decode(z, label))
        change = measured.iloc[1::2].to_numpy() - measured.iloc[0::2].to_numpy()
        rows.append(change.mean(0) / np.maximum(spread.to_numpy(), 1e-9))
    return pd.DataFrame(rows, columns=spread.index)


def name_dimensions(run: Run, dims: np.ndarray) -> dict[int, str]:
    """What each dimension knows most of, for slider labels: 17 → `energy, MI 0.31`; a dead one is called dead.

    Descriptors that stand in for factors are called so: `measured loudness, MI 0.31`.
    """
    embedding = run.embed(None)
    try:
        factors = factors_of(run)
        score = dis.mig(codes_of(run, factors.rows), factors.values)
    except InputError:
        return {int(d): f"KL {embedding.kl[d]:.2f}" for d in dims}
    names, matrix = list(score.per_factor), np.nan_to_num(score.matrix)  # nan: a factor that is constant here
    found, source = {}, "" if factors.source == "true" else "measured "
    for d in dims:
        best = int(matrix[d].argmax())
        known = f"{source}{names[best].replace('_', ' ')}, MI {matrix[d, best]:.2f}"
        found[int(d)] = known if embedding.kl[d] > LIVE_KL else "dead"
    return found
