"""Proofs about single latent dimensions: what they know of the factors, and what they change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import plots
from ..config import InputError
from ..metrics import disentanglement as dis
from ..metrics.disentanglement import component_codes
from ..metrics.reading import Reader, coarse
from ..metrics.statistics import Null, bootstrap_interval
from ..runs import Embedding, Run
from .proof import Proof

MAIN_FACTORS = ("tempo", "key", "energy", "brightness", "vocal_level")
CLASSES = ("key",)  # numbers that are names: B lies next to C
LIVE_KL = 0.05  # nats, mean over test clips; below this a dimension carries next to nothing
PERMUTATIONS, ROTATIONS = 20, 40
KNOWN = 0.1  # share of a factor's entropy, beyond chance, that a dimension named after it must know
READABLE = 0.5  # R² on real test windows from which a reader's readings are used


class Factors(NamedTuple):
    """Values (clip,) by name, of the clips `rows`, and where they come from: `true` or `measured`."""

    values: dict[str, np.ndarray]
    source: str
    rows: np.ndarray

    def of(self, rows: np.ndarray) -> Factors:
        """Those of the clips among `rows`."""
        inside = np.isin(self.rows, rows)
        return Factors({k: v[inside] for k, v in self.values.items()}, self.source, self.rows[inside])

    def said(self, name: str) -> str:
        """A factor as one says it: `vocal level`, `measured loudness`."""
        return ("" if self.source == "true" else "measured ") + name.replace("_", " ")


def factors_of(run: Run, split: str | None = None) -> Factors:
    """Factors of a split (None: of every clip) that vary: the five of the claims if they are there, else all columns.

    A corpus without a factor column free of gaps gets audio descriptors measured by librosa in their stead.

    Raises:
        InputError: nothing could be measured.
    """
    names = true_factors(run)
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
    """Factors that every clip has and that vary: the five of the claims if some are there, else all.

    Without any, descriptors stand in.
    """
    table = run.store.table.loc[run.store.rows(None)]
    there = [f for f in run.store.factors if f in table and table[f].notna().all() and table[f].nunique() > 1]
    return [f for f in MAIN_FACTORS if f in there] or there


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


def live_dimensions(run: Run) -> np.ndarray:
    """Dimensions whose mean KL over the test clips exceeds `LIVE_KL`, most informative first (at least one)."""
    kl = run.embed("test").kl
    return np.argsort(-kl)[: max(1, int((kl > LIVE_KL).sum()))]


def _live(run: Run) -> float:
    return float((run.embed("test").kl > LIVE_KL).sum())


# --- what a dimension knows ---


class Meaning(NamedTuple):
    """What a live dimension stands for.

    Attributes:
        factor: The factor it knows most about, or "" where none stands clear.
        information: Mutual information with the factor it knows most about, share of that factor's entropy.
        unit: Of the factor.
        slope, offset: The factor is about `slope · z + offset`; slope 0 where a line says less than half of it.
    """

    factor: str
    information: float
    unit: str = ""
    slope: float = 0.0
    offset: float = 0.0


def meanings(run: Run) -> dict[int, Meaning]:
    """What each live dimension knows most about: the names of sliders, and of the rows of every matrix.

    A dimension is named after a factor only where their mutual information exceeds what permuted factors reach (95th
    percentile of the largest among all live dimensions and factors), and where, after subtraction of the mean under
    permutation, which is bias, it is at least a tenth of the factor's entropy and twice what the dimension knows of
    any other factor.
    """
    live = live_dimensions(run)
    try:
        factors = factors_of(run)
    except InputError:
        return {int(d): Meaning("", 0.0) for d in live}
    codes = codes_of(run, factors.rows)
    score, permuted = dis.mig(codes, factors.values), _permuted(run, codes, factors)
    return _meanings(run, live, codes, factors, score, permuted)


def _permuted(run: Run, codes: np.ndarray, factors: Factors) -> list[dis.GapScore]:
    rng = np.random.default_rng(run.config.training.seed)
    orders = (rng.permutation(len(codes)) for _ in range(PERMUTATIONS))
    return [dis.mig(codes, {k: v[order] for k, v in factors.values.items()}) for order in orders]


def _meanings(
    run: Run,
    live: np.ndarray,
    codes: np.ndarray,
    factors: Factors,
    score: dis.GapScore,
    permuted: Sequence[dis.GapScore],
) -> dict[int, Meaning]:
    names = list(factors.values)
    chance = np.percentile([np.nanmax(p.matrix[live]) for p in permuted], 95)
    bias = np.mean([p.matrix for p in permuted], axis=0)
    found = {}
    for d in live:
        best = int(np.nan_to_num(score.matrix[d]).argmax())  # nan: a factor that is constant here
        excess = score.matrix[d] - bias[d]
        small = score.matrix[d, best] <= chance or excess[best] < KNOWN
        if small or np.any(np.delete(excess, best) > excess[best] / 2):
            found[int(d)] = Meaning("", float(score.matrix[d, best]))
            continue
        name = names[best]
        z, v = codes[:, d], factors.values[name].astype(float)
        slope = float(np.cov(z, v)[0, 1] / z.var(ddof=1))
        straight = name not in CLASSES and np.corrcoef(z, v)[0, 1] ** 2 > 0.5
        line = (slope, float(v.mean() - slope * z.mean())) if straight else (0.0, 0.0)
        found[int(d)] = Meaning(factors.said(name), float(score.matrix[d, best]), run.store.units.get(name, ""), *line)
    return found


def label(dimension: int, found: Mapping[int, Meaning]) -> str:
    """`z17 · drums`, or `z17` where no factor stands clear (or the dimension is dead)."""
    factor = found[dimension].factor if dimension in found else ""
    return f"z{dimension} · {factor}" if factor else f"z{dimension}"


def disentanglement(run: Run, shown: int = 12) -> Proof:
    """MIG, SAP and DCI on the factors, with permuted factors and random rotations of the live dimensions.

    MIG and SAP are measured on every clip, not on test alone: nothing is fitted to the factors, and mutual
    information estimated from a few hundred clips in 20 × 20 bins is mostly bias. DCI is fitted on train. Dimensions
    are live, here as everywhere, by their KL on test clips.

    Beside the codes stand the linear ones: as many principal and independent components of the training windows as
    there are factors.
    """
    factors, live = factors_of(run), live_dimensions(run)
    codes, values = codes_of(run, factors.rows), factors.values
    seed = run.config.training.seed
    score, permuted = dis.mig(codes, values), _permuted(run, codes, factors)
    null = Null.of([p.mean for p in permuted])
    found = _meanings(run, live, codes, factors, score, permuted)
    rotated = Null.of(dis.rotation_control(codes[:, live], values, seed))
    dci, turned_dci = _dci(run, factors, live)
    train = coarse(run.middle_windows(factors.of(run.store.rows("train")).rows))
    linear = component_codes(train, coarse(run.middle_windows(factors.rows)), len(values), seed)
    others = {
        "MIG of PCA components": linear[0],
        "MIG of FastICA components": linear[1],
        "MIG of posterior samples": codes_of(run, factors.rows, sampled=True),
    }
    scores = {name: dis.mig(c, values) for name, c in others.items()}
    own = [m.factor for m in found.values() if m.factor]
    by_clip = dis.mig_by_clip(codes, values, score)
    numbers = {
        "MIG": score.mean,
        "MIG, low": bootstrap_interval(by_clip[None]).low,
        "MIG with permuted factors, mean": null.mean,
        "MIG with permuted factors, 95th percentile": null.p95,
        "MIG after random rotations, 95th percentile": rotated.p95,
        **{name: s.mean for name, s in scores.items()},
        "SAP": dis.sap(codes, values).mean,
        "DCI disentanglement": dci.disentanglement,
        "DCI disentanglement after a random rotation": turned_dci.disentanglement,
        "DCI completeness": dci.completeness,
        "DCI informativeness": dci.informativeness,
        "live dimensions": _live(run),
        "dimensions named after a factor": float(len(own)),
        "factors with one dimension of their own": float(sum(own.count(f) == 1 for f in set(own))),
        "factors": float(len(values)),
        **{f"MIG of {k}": v for k, v in score.per_factor.items()},
    }
    per_clip = {name: dis.mig_by_clip(others[name], values, s) for name, s in scores.items()}
    per_clip["MIG"] = by_clip
    top = live[:shown]
    matrix = pd.DataFrame(score.matrix[top], [label(int(d), found) for d in top], [factors.said(k) for k in values])
    what = "factor" if factors.source == "true" else "measured descriptor"
    figure, _ = plots.heatmap(
        matrix,
        f"{run.name}: what a dimension knows of each {what}\n({len(top)} of {_live(run):.0f} live dimensions)",
        "MI / entropy",
    )
    best = max(score.per_factor, key=lambda k: np.nan_to_num(score.per_factor[k], nan=-1))  # nan: constant here
    sentence = (
        f"MIG is {score.mean:.3f}, against {null.p95:.3f} for permuted factors and {rotated.p95:.3f} after random "
        f"rotations of the {_live(run):.0f} live dimensions (95th percentiles); {factors.said(best)} separates best "
        f"({score.per_factor[best]:.3f}). {axes_verdict(numbers)} As many linear components of the windows reach "
        f"{numbers['MIG of PCA components']:.3f} (PCA) and {numbers['MIG of FastICA components']:.3f} (FastICA). "
        f"{_named(found, len(values), what)}{_said(factors)} One seed."
    )
    return Proof("disentanglement", run.name, numbers, sentence, figure, per_clip)


def separates(numbers: Mapping[str, float]) -> bool:
    """Whether the axes mean more than chance: over clips, MIG above permuted factors and above random rotations."""
    return numbers["MIG, low"] > max(
        numbers[f"MIG {null}, 95th percentile"] for null in ("with permuted factors", "after random rotations")
    )


def axes_verdict(numbers: Mapping[str, float]) -> str:
    """What the nulls say of the axes: rotations decide."""
    if numbers["MIG, low"] <= numbers["MIG with permuted factors, 95th percentile"]:
        return "That is not told apart from chance."
    if not separates(numbers):
        return "The space knows the factors, but its axes are not told apart from random directions."
    return "The axes mean more than chance: turned at random, the same space separates less."


def _named(found: Mapping[int, Meaning], factors: int, what: str) -> str:
    own = [m.factor for m in found.values() if m.factor]
    if not own:
        return (
            f"No dimension stands clear for one {what} (knows at least {KNOWN:.0%} of it, and at most half as much of "
            "any other)."
        )
    return (
        f"{len(own)} of {len(found)} live dimensions {'stands' if len(own) == 1 else 'stand'} clear for one {what} "
        f"each (at least {KNOWN:.0%} of it known); {sum(own.count(f) == 1 for f in set(own))} of {factors} {what}s "
        "have exactly one dimension."
    )


def _dci(run: Run, factors: Factors, live: np.ndarray) -> tuple[dis.DciScore, dis.DciScore]:
    """DCI of the live dimensions, as they are and after one random rotation."""
    fit, held = (factors.of(run.store.rows(split)) for split in ("train", "test"))
    train, test = (codes_of(run, f.rows)[:, live] for f in (fit, held))
    seed = run.config.training.seed
    turn = dis.random_rotations(len(live), 1, seed)[0]
    return (
        dis.dci(train, fit.values, test, held.values, seed),
        dis.dci(train @ turn, fit.values, test @ turn, held.values, seed),
    )


# --- what a dimension changes ---


def traversal(run: Run, dimension: int | None = None, clips: int = 16, most: int = 24) -> Proof:
    """Move one dimension at a time over its range and measure which factors change in the decoded spectrogram.

    Factors are read by a linear reader that was fitted on real training windows (`evaluation.reading`); only those
    that it reads in real test windows with R² above 0.5 count. The null moves along random directions of the live
    dimensions instead of along axes.

    Args:
        dimension: Index of the latent dimension the sentence is about; the most informative one when None.
        clips: Test clips from which the traversal starts; effects are averaged over them.
        most: Live dimensions that are traversed, the most informative ones.

    Raises:
        InputError: no such dimension, or fewer than two factors that can be read.
    """
    embedding = run.embed("test")
    size = embedding.means.shape[1]
    if dimension is not None and not 0 <= dimension < size:
        raise InputError(f"dimension {dimension} is not there: {run.name} has dimensions 0 to {size - 1}")
    live, found = live_dimensions(run), meanings(run)
    asked, moved = int(live[0]) if dimension is None else dimension, live[:most]
    factors = factors_of(run).of(run.store.rows("test"))
    reader, r2 = _reader(run)
    readable = [name for name, value in r2.items() if value > READABLE]
    words = {name: factors.said(name) for name in r2}
    spread = np.array([factors.values[name].astype(float).std() for name in readable])

    def along(directions: np.ndarray) -> np.ndarray:
        return traversal_effects(run, embedding, directions, clips, reader, readable) / np.maximum(spread, 1e-9)

    rng = np.random.default_rng(run.config.training.seed)
    random = np.zeros((len(moved), size))
    random[:, live] = rng.standard_normal((len(moved), len(live)))
    shares = {
        "mean share over the live dimensions": along(np.eye(size)[moved]),
        "mean share along random directions": along(random / np.linalg.norm(random, axis=1, keepdims=True)),
    }
    axes, null = (float(_main_share(x.mean(1)).mean()) for x in shares.values())
    effects = pd.DataFrame(shares["mean share over the live dimensions"].mean(1), moved, [words[k] for k in readable])
    if asked not in effects.index:
        effects.loc[asked] = along(np.eye(size)[[asked]])[0].mean(0)
    own = effects.loc[asked]
    main, share = own.abs().idxmax(), float(_main_share(own.to_numpy()[None])[0])
    named = [d for d in moved if found[int(d)].factor]
    kept = [d for d in named if effects.loc[d].abs().idxmax() == found[int(d)].factor]
    numbers = {
        "dimension": float(asked),
        "KL (nats)": float(embedding.kl[asked]),
        f"effect on {main} (its own standard deviations)": float(own[main]),
        "share of the effect on its main factor": share,
        "mean share over the live dimensions": axes,
        "mean share along random directions": null,
        "share if all factors moved alike": 1 / len(readable),
        "live dimensions": _live(run),
        "dimensions named after a factor": float(len(named)),
        "of these, dimensions that move it most": float(len(kept)),
        **{f"reader: R² of {name}": value for name, value in r2.items()},
    }
    table = effects.loc[list(dict.fromkeys([*moved[:12], asked]))]
    figure, _ = plots.heatmap(
        table.rename(index=lambda d: label(int(d), found)),
        f"{run.name}: change from one end\nof a dimension to the other",
        "standard deviations",
        0.0,
    )
    if embedding.kl[asked] <= LIVE_KL:
        said = "It is dead: the posterior equals the prior, and moving it changes next to nothing."
    elif own.abs().max() < 0.05:
        said = "It is all but dead: moving it changes no factor by a twentieth of its standard deviation."
    else:
        said = f"It moves {main} most ({own[main]:+.2f} standard deviations), with {share:.0%} of its effect there."
    left_out = ", ".join(f"{words[k]} {v:.2f}" for k, v in r2.items() if k not in readable)
    sentence = (
        f"{label(asked, found)} carries {embedding.kl[asked]:.2f} nats. {said} Over {len(moved)} of {_live(run):.0f} "
        f"live dimensions the main factor takes {axes:.0%} of the effect on average, along random directions "
        f"{null:.0%} (all {len(readable)} alike would be {1 / len(readable):.0%}). "
        + (f"{len(kept)} of the {len(named)} named after a factor move it most. " if named else "")
        + "What changes is read in the decoded windows by a linear reader (R² on real test windows: "
        + ", ".join(f"{words[k]} {r2[k]:.2f}" for k in readable)
        + (f"; left out, because it cannot read them: {left_out}" if left_out else "")
        + ")."
    )
    per_clip = {name: _values_by_clip(x) for name, x in shares.items()}
    return Proof("traversal", run.name, numbers, sentence, figure, per_clip)


def _reader(run: Run) -> tuple[Reader, dict[str, float]]:
    """The reader of a corpus's factors and its R² on real test windows.

    Raises:
        InputError: it reads fewer than two factors.
    """
    factors = factors_of(run)
    train, test = (factors.of(run.store.rows(split)) for split in ("train", "test"))
    reader = Reader(run.middle_windows(train.rows), train.values)
    r2 = reader.r2(run.middle_windows(test.rows), test.values)
    if sum(value > READABLE for value in r2.values()) < 2:
        said = ", ".join(f"{factors.said(k)} {v:.2f}" for k, v in r2.items())
        raise InputError(
            f"a linear reader of the windows of {run.store.attrs['corpus']} reads fewer than two factors with R² above "
            f"{READABLE} ({said}), so that nobody could say what moves: use more clips, or other factor columns"
        )
    return reader, r2


def _main_share(effects: np.ndarray) -> np.ndarray:
    """(D,) share of each row's total effect (D, K) that its largest entry has; alike for rows that move nothing."""
    total = np.abs(effects).sum(1)
    return np.where(total > 1e-6, np.abs(effects).max(1) / np.maximum(total, 1e-6), 1 / effects.shape[1])


def _values_by_clip(effects: np.ndarray) -> np.ndarray:
    """(S,) with the mean main share of effects (D, S, K) as their mean, and its spread over starts (jackknife)."""
    n = effects.shape[1]
    whole = _main_share(effects.mean(1)).mean()
    if n < 2:
        return np.array([whole])
    without = np.array([_main_share(np.delete(effects, i, axis=1).mean(1)).mean() for i in range(n)])
    return whole + (n - 1) * (without.mean() - without)


def traversal_effects(
    run: Run, embedding: Embedding, directions: np.ndarray, clips: int, reader: Reader, names: Sequence[str]
) -> np.ndarray:
    """(D, S, K): change of K factors, in their units, from the 5th to the 95th percentile along D directions.

    Args:
        directions: Unit vectors, (D, L); rows of the identity are axes.
        clips: S, the clips from which each traversal starts; fewer if there are fewer.
        names: The K factors.
    """
    means = embedding.means
    starts = means[np.linspace(0, len(means) - 1, min(clips, len(means))).astype(int)]
    found = []
    for u in directions:
        low, high = np.percentile(means @ u, [5, 95])
        z = np.repeat(starts, 2, axis=0)
        z[0::2] += (low - starts @ u)[:, None] * u
        z[1::2] += (high - starts @ u)[:, None] * u
        label = np.zeros(len(z), int) if run.conditional else None
        read = reader.read(run.decode(z, label))[list(names)].to_numpy()
        found.append(read[1::2] - read[0::2])
    return np.stack(found)
