"""What clips are coloured by, filtered by and described with in a list or a map."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex
from scipy.optimize import linear_sum_assignment

from ..metrics.clustering import kmeans_assign
from ..metrics.mixture import margins
from ..manifest import LABELS, UNLABELLED
from ..models import VaDE
from ..runs import Run

FEW = 60  # a column with more values than this is no drop-down

# Okabe & Ito's colour-blind-safe hues (without black), then two more; markers tell more classes apart
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442", "#8C6239", "#7B4FC9")
GREY = "#9A9A9A"
MARKERS = "osD^vX"  # matplotlib's names; clips.js draws the same six
PITCHES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")


@dataclass(frozen=True)
class Field:
    """One property of the clips.

    Attributes:
        values: Arrays (clip,): one for all maps, or one per map (None: this map has none). Codes of `classes` as
            int16, -1 for none; without classes numbers as float32, nan for none.
        colours, markers: The look of each class; `markers` are places in `MARKERS`.
        hint: A sentence for the reader.
        none: What is said of a clip that has no class.
        filter: Whether the list can be narrowed by it.
    """

    name: str
    values: tuple[np.ndarray | None, ...]
    classes: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    markers: tuple[int, ...] = ()
    hint: str = ""
    none: str = "–"
    filter: bool = False

    def packed(self, keep: np.ndarray) -> dict:
        """What the page gets: of the clips `keep`."""
        known = [v[np.isfinite(v)] for v in self.values if v is not None]
        known = np.concatenate([*known, np.zeros(0)]) if not self.classes else np.zeros(0)
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        return {
            "name": self.name,
            "classes": self.classes,
            "colours": self.colours,
            "markers": self.markers,
            "hint": self.hint,
            "none": self.none,
            "filter": self.filter,
            "low": low,
            "high": high,
            "values": [None if v is None else packed(v[keep], "i2" if self.classes else "f4") for v in self.values],
        }


def packed(values: np.ndarray, kind: str) -> str:
    """Numbers as base64 of little-endian bytes, which a page reads without parsing."""
    return base64.b64encode(np.ascontiguousarray(values, f"<{kind}").tobytes()).decode()


def looks(n: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Colours and markers of `n` classes; beyond seven they differ in both, and up to 54 no two are the same."""
    hue, turn = np.arange(n) % len(HUES), np.arange(n) // len(HUES)
    marker = (hue + turn) % len(MARKERS) if n > 7 else np.zeros(n, int)
    return tuple(HUES[h] for h in hue), tuple(int(m) for m in marker)


def class_field(name: str, labels: Sequence[str], hint: str = "") -> Field:
    """A column of names; clips without a label are grey."""
    labels = np.asarray(labels, str)
    classes = sorted(set(labels) - {UNLABELLED, ""})
    colours, markers = looks(len(classes))
    codes = pd.Index(classes).get_indexer(labels).astype(np.int16)
    return Field(name, (codes,), tuple(classes), colours, markers, hint, filter=True)


def genre_field(table: pd.DataFrame) -> Field:
    """Genres: the hue is that of the family where there are several, the marker counts the genres of a family."""
    field = class_field("genre", table["genre"])
    kin = table.drop_duplicates("genre").set_index("genre").reindex(field.classes)
    families = sorted(set(kin["family"]) - {UNLABELLED})
    if len(field.classes) <= 7:
        return field
    hint = f"{len(field.classes)} genres cannot all be told apart by eye: point at a name to see its clips alone"
    if len(families) < 2:
        return Field(field.name, field.values, field.classes, field.colours, field.markers, hint, filter=True)
    hue, _ = looks(len(families))
    colours = tuple(GREY if f == UNLABELLED else hue[families.index(f)] for f in kin["family"])
    markers = tuple(int(m) % len(MARKERS) for m in kin.groupby("family").cumcount())
    hint = f"hue: family, marker: genre within it. {hint}"
    return Field(field.name, field.values, field.classes, colours, markers, hint, filter=True)


def number_field(name: str, values: np.ndarray, hint: str = "") -> Field:
    """A column of numbers; a `key` of 0 to 11 becomes pitch classes in a cyclic palette."""
    values = np.asarray(values, np.float32)
    known = values[np.isfinite(values)]
    if name.split()[0] != "key" or not known.size or not np.isin(known, range(12)).all():
        return Field(name, (values,), hint=hint)
    codes = np.where(np.isfinite(values), np.nan_to_num(values), -1).astype(np.int16)
    colours = tuple(to_hex(c) for c in colormaps["twilight"]((np.arange(12) + 0.5) / 12))
    return Field(name, (codes,), PITCHES, colours, (0,) * 12, hint, filter=True)


def fields_of(table: pd.DataFrame, factors: Sequence[str]) -> list[Field]:
    """Labels with two or more values, the split, other columns with few names, then factors and measured level."""
    names = [c for c in table if c != "path" and not pd.api.types.is_numeric_dtype(table[c])]
    names = [*LABELS, *sorted(set(names) - {*LABELS, "split"}), "split"]
    few = [c for c in names if c in table and (c in LABELS or 2 <= table[c].nunique() <= min(FEW, len(table) - 1))]
    found = [genre_field(table) if c == "genre" else class_field(c, table[c].fillna("").astype(str)) for c in few]
    numbers = [c for c in (*factors, "level_db", "tilt_db") if table[c].notna().any()]
    return [f for f in found if len(f.classes) > 1] + [number_field(c, table[c].to_numpy()) for c in numbers]


def own_fields(runs: Sequence[Run], split: str) -> list[Field]:
    """What each model says itself: its clusters, in the look of the genres they match, and VaDE's margins."""
    store, rows = runs[0].store, runs[0].store.rows(split)
    genre = genre_field(store.table.loc[rows])
    shares = [r.log_responsibilities(split) if isinstance(r.model, VaDE) else None for r in runs]
    found = []
    if (k := len(genre.classes)) > 1:
        own = [
            kmeans_assign(r.embed("train").means, r.embed(split).means, min(k, len(store.rows("train"))),
                          r.config.training.seed) if s is None else s.argmax(1)
            for r, s in zip(runs, shares, strict=True)
        ]  # fmt: skip
        hint = (
            "each model's own clusters (K-Means with as many as there are genres; VaDE: its components), in the look "
            "of the genre they match best, one to one; grey: matches none"
        )
        codes, named = tuple(matched(genre.values[0], c) for c in own), tuple(f"≈ {g}" for g in genre.classes)
        found.append(Field("cluster", codes, named, genre.colours, genre.markers, hint, none="matches no genre"))
    if any(s is not None for s in shares):
        hint = "log-odds of the likeliest component against the second: small is unsure; grey: only VaDE has one"
        sure = tuple(None if s is None else margins(s).astype(np.float32) for s in shares)
        found.append(Field("margin (nats)", sure, hint=hint))
    return found


def matched(labels: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(clip,) int16: the class that each clip's cluster matches best, one to one (Hungarian); -1: matches none."""
    names, at = np.unique(clusters, return_inverse=True)
    table = np.zeros((len(names), int(labels.max()) + 1), int)
    np.add.at(table, (at[labels >= 0], labels[labels >= 0]), 1)
    class_of = np.full(len(names), -1, np.int16)
    for cluster, label in zip(*linear_sum_assignment(table, maximize=True), strict=True):
        class_of[cluster] = label if table[cluster, label] else -1
    return class_of[at]
