"""The factors of a collection, and which of them each latent dimension of a run knows; explained in notebook 04."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .config import InputError
from .descriptors import describe
from .metrics import disentanglement as dis
from .runs import Run

MAIN_FACTORS = ("tempo", "key", "energy", "brightness", "vocal_level")  # of the claims
CLASSES = ("key",)  # numbers that are names: B lies next to C
LIVE_KL = 0.05  # nats, mean over test clips; below this a dimension carries next to nothing


class Factors(NamedTuple):
    """Values (clip,) by name, of the clips `rows`, and where they come from: `true` or `measured`."""

    values: dict[str, np.ndarray]
    source: str
    rows: np.ndarray

    def of(self, rows: np.ndarray) -> Factors:
        """Those of the clips among `rows`."""
        inside = np.isin(self.rows, rows)
        return Factors({k: v[inside] for k, v in self.values.items()}, self.source, self.rows[inside])

    def text(self, name: str) -> str:
        """A factor in words: `vocal level`, `measured loudness`."""
        return ("" if self.source == "true" else "measured ") + name.replace("_", " ")


class Meaning(NamedTuple):
    """What a live dimension stands for."""

    factor: str  # that it is named after, in words, or "" where none stands clear
    information: float  # with the factor it knows most about, share of that factor's entropy
    unit: str = ""  # of the factor
    slope: float = 0.0  # the factor is about slope · z + offset; 0 where a line says less than half of it
    offset: float = 0.0


def factors_of(run: Run) -> Factors:
    """Factors that every clip has and that vary: the main ones if some are there, else all.

    Without any, audio descriptors measured by librosa, of the clips that have them.

    Raises:
        InputError: nothing could be measured.
    """
    table, source = run.store.table.loc[run.store.rows()], "true"
    there = [f for f in run.store.factors if f in table and table[f].notna().all() and table[f].nunique() > 1]
    if there:
        table = table[[f for f in MAIN_FACTORS if f in there] or there]
    else:
        table, source = describe(run.store).loc[run.store.rows()], "measured"
        table = table.loc[:, table.notna().mean() > 0.5].dropna()
    if table.empty:
        raise InputError(
            f"{run.store.attrs['corpus']} has no factors, and most of its clips no descriptors: fill a column of its "
            "manifest, or use clips that are neither silent nor shorter than a fifth of a second"
        )
    values = {name: table[name].to_numpy() for name in table}
    values |= {name: values[name].round().astype(int) for name in CLASSES if name in values}
    return Factors(values, source, table.index.to_numpy())


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


def meanings(run: Run) -> dict[int, Meaning]:
    """What each live dimension stands for (`best_known`): the names of sliders, and of the rows of every matrix."""
    live = live_dimensions(run)
    try:
        factors = factors_of(run)
    except InputError:
        return {int(d): Meaning("", 0.0) for d in live}
    codes, values = codes_of(run, factors.rows), factors.values
    permuted = dis.permuted_scores(codes, values, run.config.training.seed)
    found = {}
    for d, (name, known) in dis.best_known(dis.mig(codes, values), permuted, live).items():
        if not name:
            found[d] = Meaning("", known)
            continue
        z, v = codes[:, d], values[name].astype(float)
        straight = name not in CLASSES and np.corrcoef(z, v)[0, 1] ** 2 > 0.5
        line = np.polyfit(z, v, 1).tolist() if straight else (0.0, 0.0)
        found[d] = Meaning(factors.text(name), known, run.store.units.get(name, ""), *line)
    return found


def label(dimension: int, found: dict[int, Meaning]) -> str:
    """`z17 · drums`, or `z17` where no factor stands clear (or the dimension is dead)."""
    factor = found[dimension].factor if dimension in found else ""
    return f"z{dimension} · {factor}" if factor else f"z{dimension}"
