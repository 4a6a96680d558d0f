"""What clips are coloured by, filtered by and described with in a list or a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex
from scipy.optimize import linear_sum_assignment

from ..collection import LABELS, UNLABELLED
from ..metrics.clustering import kmeans_assign
from ..metrics.mixture import margins
from ..models import VaDE
from ..plots import colours_and_markers
from ..runs import Run
from ..store import Store

FEW = 60  # a column with more names than this is no field
SYMBOLS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex")  # Bokeh's, for those of `plots`
PITCHES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


@dataclass(frozen=True)
class Field:
    """One property of the clips.

    Attributes:
        name: With its unit, if it has one.
        values: Arrays (clip,): one for all maps, or one per map (None: this map has none). Places in `classes`, -1 for
            none; without classes numbers, nan for none.
        classes: Names; () for numbers.
        colours, symbols: The style of each class.
        hint: A sentence for the reader.
        none: What is said of a clip that has no class.
    """

    name: str
    values: tuple[np.ndarray | None, ...]
    classes: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    hint: str = ""
    none: str = "–"

    def packed(self, keep: np.ndarray) -> dict:
        """What the page gets: of the clips `keep`."""
        return vars(self) | {"values": [None if v is None else listed(v[keep]) for v in self.values]}


def listed(values: np.ndarray) -> list:
    """Numbers with four digits as JSON can hold them; nan is null."""
    if values.dtype.kind == "i":
        return values.tolist()
    return [None if not np.isfinite(v) else float(f"{v:.4g}") for v in values.tolist()]


def class_field(name: str, labels: Sequence[str]) -> Field:
    """A column of names, coloured as in the figures of `plots`; clips without a label are grey."""
    labels = np.asarray(labels, str)
    classes = sorted(set(labels) - {UNLABELLED, ""})
    colours, markers = colours_and_markers(len(classes))
    hint = f"{len(classes)} names cannot all be told apart by eye: point at one to see its clips alone"
    symbols = tuple(SYMBOLS[m] for m in markers)
    return Field(name, (pd.Index(classes).get_indexer(labels),), tuple(classes), colours, symbols,
                 hint if len(classes) > 12 else "")  # fmt: skip


def number_field(name: str, values: np.ndarray, unit: str = "") -> Field:
    """A column of numbers; a `key` of 0 to 11 becomes pitch classes in a cyclic palette."""
    values = np.asarray(values, float)
    if name.split()[0] != "key" or not np.isin(values[np.isfinite(values)], range(12)).all():
        return Field(f"{name} ({unit})" if unit else name, (values,))
    codes = np.where(np.isfinite(values), np.nan_to_num(values), -1).astype(int)
    colours = tuple(to_hex(c) for c in colormaps["twilight"]((np.arange(12) + 0.5) / 12))
    return Field(name, (codes,), PITCHES, colours, SYMBOLS[:1] * 12)


def fields_of(store: Store, table: pd.DataFrame, factors: Sequence[str]) -> list[Field]:
    """Labels with two or more values, the split, other columns with few names, then factors and measured level."""
    names = [c for c in table if c != "path" and not pd.api.types.is_numeric_dtype(table[c])]
    names = [*LABELS, *sorted(set(names) - {*LABELS, "split"}), "split"]
    few = [c for c in names if c in table and (c in LABELS or 2 <= table[c].nunique() <= min(FEW, len(table) - 1))]
    found = [class_field(c, table[c].fillna("").astype(str)) for c in few]
    units = store.units | {"level_db": "dB", "tilt_db": "dB"}
    numbers = [c for c in (*factors, "level_db", "tilt_db") if table[c].notna().any()]
    numbers = [number_field(c, table[c].to_numpy(), units.get(c, "")) for c in numbers]
    return [f for f in found if len(f.classes) > 1] + numbers


def model_fields(runs: Sequence[Run], split: str) -> list[Field]:
    """What each model says itself: its clusters, in the style of the genres they match, and VaDE's margins."""
    store, rows = runs[0].store, runs[0].store.rows(split)
    genre = class_field("genre", store.table.loc[rows, "genre"])
    shares = [r.log_responsibilities(split) if isinstance(r.model, VaDE) else None for r in runs]
    found = []
    if (k := len(genre.classes)) > 1:
        own = [
            kmeans_assign(r.embed("train").means, r.embed(split).means, min(k, len(store.rows("train"))),
                          r.config.training.seed) if s is None else s.argmax(1)
            for r, s in zip(runs, shares, strict=True)
        ]  # fmt: skip
        hint = (
            "each model's own clusters (K-Means with as many as there are genres; VaDE: its components), in the style "
            "of the genre they match best, one to one; grey: matches none"
        )
        codes, named = tuple(matched(genre.values[0], c) for c in own), tuple(f"≈ {g}" for g in genre.classes)
        found.append(Field("cluster", codes, named, genre.colours, genre.symbols, hint, "matches no genre"))
    if any(s is not None for s in shares):
        hint = "log-odds of the likeliest component against the second: small is unsure; grey: only VaDE has one"
        found.append(Field("margin (nats)", tuple(None if s is None else margins(s) for s in shares), hint=hint))
    return found


def matched(labels: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(clip,) the class that each clip's cluster matches best, one to one (Hungarian); -1: matches none."""
    names, at = np.unique(clusters, return_inverse=True)
    table = np.zeros((len(names), int(labels.max()) + 1), int)
    np.add.at(table, (at[labels >= 0], labels[labels >= 0]), 1)
    class_of = np.full(len(names), -1)
    for cluster, label in zip(*linear_sum_assignment(table, maximize=True), strict=True):
        class_of[cluster] = label if table[cluster, label] else -1
    return class_of[at]
