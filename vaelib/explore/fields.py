"""What clips are coloured by, filtered by and described with in a list or a map, as JSON holds it.

A field has a `name`, `classes` with `colours` and `symbols`, and `values`, places in `classes` (-1: none): one list
(clip,) for all maps or one per map. `texts`, of the same shape: what is said instead of the name of the class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex
from scipy.optimize import linear_sum_assignment

from ..collection import LABELS, UNLABELLED
from ..metrics.clustering import kmeans_assign, margins
from ..models import VaDE
from ..plots import class_styles
from ..runs import Run
from ..store import Store

FEW, BINS = 60, 8  # names of a column, and factors, that become fields; classes that numbers are divided into
SYMBOLS = dict(zip("osD^vX", ("circle", "square", "diamond", "triangle", "inverted_triangle", "hex"), strict=True))
PITCHES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


def class_field(name: str, labels: Sequence[str]) -> dict:
    """A column of names, coloured as in the figures of `plots`; clips without a label are grey."""
    classes = sorted(set(labels) - {UNLABELLED, ""})
    values, styles = pd.Index(classes).get_indexer(np.asarray(labels, object)), class_styles(classes).values()
    colours, symbols = [s["color"] for s in styles], [SYMBOLS[s["marker"]] for s in styles]
    return {"name": name, "values": [values.tolist()], "classes": classes, "colours": colours, "symbols": symbols}


def number_field(name: str, values: np.ndarray, unit: str = "") -> dict:
    """Numbers (clip,) or (map, clip), nan: none, as classes: own values if few, else equally full bins; dark is low."""
    values = np.atleast_2d(np.asarray(values, float))
    known, palette = np.unique(values[~np.isnan(values)]), "viridis"
    if name.split()[0] == "key" and np.isin(known, range(12)).all():
        cut, classes, palette = pd.Categorical(values.ravel(), range(12)), PITCHES, "twilight"
    elif len(known) <= BINS:
        cut, classes = pd.Categorical(values.ravel(), known), [f"{v:.4g}" for v in known]
    else:
        cut = pd.qcut(values.ravel(), BINS, duplicates="drop")
        classes = [f"{c.left:.3g} to {c.right:.3g}" for c in cut.categories]
    colours = [to_hex(c) for c in colormaps[palette](np.linspace(0, 0.95, len(classes)))]
    field = {"name": f"{name} ({unit})" if unit else name, "values": cut.codes.reshape(values.shape).tolist()}
    field |= {"classes": classes, "colours": colours, "symbols": ["circle"] * len(classes)}
    texts = [[None if np.isnan(v) else f"{v:.4g}" for v in line] for line in values]
    return field if classes is PITCHES else field | {"texts": texts}


def fields_of(store: Store, table: pd.DataFrame, factors: Sequence[str]) -> list[dict]:
    """Labels, the split, other columns with few names, factors and measured level, of two or more values each."""
    others = {c for c in table if not pd.api.types.is_numeric_dtype(table[c])} - {*LABELS, "path", "split"}
    few = [c for c in (*sorted(others), "split") if table[c].nunique() <= min(FEW, len(table) - 1)]
    found = [class_field(c, table[c].fillna("").astype(str)) for c in (*LABELS, *few)]
    units = store.units | {"level_db": "dB", "tilt_db": "dB"}
    found += [number_field(c, table[c], units.get(c, "")) for c in (*factors[:FEW], "level_db", "tilt_db")]
    return [f for f in found if len(f["classes"]) > 1]


def model_fields(runs: Sequence[Run], split: str) -> list[dict]:
    """What each model says itself: its clusters, in the style of the genres they match, and VaDE's margins."""
    store, rows, found = runs[0].store, runs[0].store.rows(split), []
    genre = class_field("genre", store.table.loc[rows, "genre"])
    shares = [r.log_responsibilities(split) if isinstance(r.model, VaDE) else None for r in runs]
    if len(genre["classes"]) > 1:
        k = min(len(genre["classes"]), len(store.rows("train")))
        own = [kmeans_assign(r.embed("train").means, r.embed(split).means, k, r.config.training.seed)
               if s is None else s.argmax(1) for r, s in zip(runs, shares, strict=True)]  # fmt: skip
        values = [matched(np.array(genre["values"][0]), clusters).tolist() for clusters in own]
        hint = "K-Means in each model's own space (VaDE: components), in the style of the genre it matches; grey: none"
        found.append(genre | {"name": "cluster", "values": values, "hint": hint})
    if any(s is not None for s in shares):
        hint = "log-odds of the likeliest component against the second: small is unsure; grey: only VaDE has one"
        values = [np.full(len(rows), np.nan) if s is None else margins(s) for s in shares]
        found.append(number_field("margin", values, "nats") | {"hint": hint})
    return found


def matched(labels: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(clip,) the class that each clip's cluster matches best, one to one (Hungarian); -1: matches none."""
    table = pd.crosstab(clusters[labels >= 0], labels[labels >= 0])
    pairs = zip(*linear_sum_assignment(table, maximize=True), strict=True)
    class_of = {table.index[i]: table.columns[j] for i, j in pairs if table.iloc[i, j]}
    return np.array([class_of.get(c, -1) for c in clusters])
