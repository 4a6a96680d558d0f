"""Clips to look at and listen to: in a list, and in linked maps (Bokeh) of several models.

They are coloured by, filtered by and described with fields, dictionaries as JSON holds them. A field has a `name`,
`classes` with `colours` and `symbols`, and `values`, places in `classes` (-1: none): one list (clip,) for all maps or
one per map. `texts`, of the same shape: what is said instead of the name of the class.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex
from scipy.optimize import linear_sum_assignment

from ..audio import Scaler
from ..collection import LABELS, UNLABELLED, groups_of
from ..config import InputError
from ..descriptors import describe
from ..metrics.clustering import kmeans_assign, margins, nearest, project
from ..models import VaDE
from ..plots import GREY, class_styles
from ..runs import Run, labels_of
from ..store import Store
from .page import Explorer, sound_of, wave_player

MOST_PICTURES, SOUND_SECONDS = 400, 3.0  # in a saved page
FEW, BINS = 60, 8  # names of a column, and factors, that become fields; classes that numbers are divided into
SYMBOLS = dict(zip("osD^vX", ("circle", "square", "diamond", "triangle", "inverted_triangle", "hex"), strict=True))
PITCHES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")
Maps = Mapping[str, Mapping[str, np.ndarray]]  # method (`UMAP`, …) → name of the map → (clip, 2)


class ClipsView(Explorer):
    """A list of the clips in some rows of a store, and their maps where there are any; `more` is for clips.js."""

    def __init__(self, store: Store, scaler: Scaler, rows: np.ndarray, fields: list[dict], title: str,
                 maps: Maps | None = None, **more: object) -> None:  # fmt: skip
        self.rows, self.fields = rows, fields
        self.selected = rows  # of the store, that pass search, legend and lasso in the live view
        files, names = [store.name(r) for r in rows], list(next(iter((maps or {}).values()), {}))
        short = [f.rsplit("/", 1)[-1] for f in files]
        if maps:
            more["methods"] = {m: [np.round(xy[n], 3).T.tolist() for n in names] for m, xy in maps.items()}
            more |= linked_plots(len(names), len(rows))
        more |= {"fields": fields, "maps": names, "names": short if len(set(short)) == len(short) else files}
        super().__init__(title, store, scaler, {f.__name__: f for f in (self.picture, self.sound, self.select)}, **more)

    def picture(self, clip: int, small: bool = False) -> dict:
        """Spectrogram of the clip at a place of `rows`."""
        return self.frame_of(self.store.spectrogram(int(self.rows[clip]), self.scaler)[None], small)

    def sound(self, clip: int, small: bool = False) -> str:
        """Data URI of the clip at a place of `rows`."""
        return wave_player(*sound_of(self.store, int(self.rows[clip])), SOUND_SECONDS if small else None).src_attr()

    def select(self, clips: list[int]) -> None:
        """Called by the live view, with places of `rows`."""
        self.selected = self.rows[clips]

    def kept(self) -> Iterator[tuple]:
        """Pictures of some clips, evenly from the genres, and as many of their sounds as fit."""
        genre = next((f for f in self.fields if f["name"] == "genre"), self.fields[0])["values"][0]
        for clip in np.lexsort((genre, pd.Series(genre).groupby(genre).cumcount()))[:MOST_PICTURES].tolist():
            yield "picture", clip
            yield "sound", clip


def linked_plots(count: int, clips: int) -> dict:
    """A Bokeh document of `count` maps, `plots`, and the `library` that draws it.

    clips.js fills their one source, `clips`; the filters `chosen` and `near 0`, … have rings.
    """
    from bokeh.document import Document
    from bokeh.layouts import group_tools
    from bokeh.models import CDSView, ColumnDataSource, HoverTool, IndexFilter, LassoSelectTool, Toolbar
    from bokeh.plotting import figure
    from bokeh.resources import Resources

    document, tools = Document(), []
    source, chosen = ColumnDataSource(name="clips"), IndexFilter(name="chosen", indices=[])
    for k in range(count):
        p = figure(name=f"map {k}", tools="pan,wheel_zoom,lasso_select,zoom_in,zoom_out,reset", toolbar_location=None,
                   active_drag="lasso_select", aspect_ratio=1.3, sizing_mode="scale_width", min_border=2,
                   background_fill_color=None, border_fill_color=None, outline_line_color=GREY)  # fmt: skip
        p.axis.visible = p.grid.visible = False
        place = {"x": f"x{k}", "y": f"y{k}", "source": source, "line_color": GREY}
        dots = p.scatter(**place, marker=f"symbol{k}", fill_color=f"colour{k}", size=max(5, min(9, 130 / clips**0.5)),
                         line_width=0, hover_line_width=4, nonselection_fill_alpha=0.12)  # fmt: skip
        for ringed, size in ((chosen, 17), (IndexFilter(name=f"near {k}", indices=[]), 12)):
            p.scatter(**place, view=CDSView(filter=ringed), fill_color=None, size=size, line_width=size / 7,
                      nonselection_line_alpha=1)  # fmt: skip
        p.x_range.renderers = p.y_range.renderers = [dots]
        p.select_one(LassoSelectTool).renderers = [dots]
        tools += p.tools
        p.add_tools(HoverTool(renderers=[dots], tooltips=f"@text @{{words{k}}}", limit=1))
        document.add_root(p)
    tools = group_tools(tools)
    lasso = next(t for t in tools if isinstance(t.tools[0], LassoSelectTool))
    document.add_root(Toolbar(name="toolbar", tools=tools, logo=None, active_drag=lasso))
    library = gzip.compress(Resources("inline", components=["bokeh"]).js_raw[0].encode(), mtime=0)
    return {"plots": document.to_json(deferred=False), "library": base64.b64encode(library).decode()}


def clip_browser(store: Store, scaler: Scaler, rejected: pd.DataFrame | None = None) -> ClipsView:
    """All clips of a store in a list, and `path` and `reason` of files that could not be used; notebook 01."""
    files = [] if rejected is None else (rejected["path"] + ": " + rejected["reason"]).tolist()
    fields = fields_of(store, store.table, store.factors)
    return ClipsView(store, scaler, store.rows(), fields, f"{store.attrs['corpus']}: the clips", rejected=files)


def latent_map(runs: Sequence[Run], split: str = "test", projections: Maps | None = None) -> ClipsView:
    """Maps of several runs' latent spaces side by side, of the same clips: what lies where, and how it sounds.

    The neighbours of a clip are those of each model's own space, whatever the maps make of them (`projections`, with a
    seed in a run's name where two share it; None: UMAP). InputError: no run, or runs of different stores; notebook 07.
    """
    if len({r.config.fingerprint for r in runs}) != 1:
        raise InputError(f"{len(runs)} runs to map: give one or more, all of the same store")
    store, rows, codes = runs[0].store, runs[0].store.rows(split), [r.embed(split).means for r in runs]
    maps = projections or {"UMAP": {n: project(z) for n, z in zip(labels_of(runs), codes, strict=True)}}
    maps = {method: {n: np.asarray(xy[n], float) for n in labels_of(runs)} for method, xy in maps.items()}
    table, factors = store.table.loc[rows], store.factors
    if not factors:  # descriptors stand in, as in notebook 04
        measured = describe(store).loc[rows].add_suffix(" (measured)")
        table, factors = table.join(measured), list(measured)
    fields = [*fields_of(store, table, factors), *model_fields(runs, split)]
    order = {"language": 0, "family": 1, "genre": 2, "cluster": 3, "margin (nats)": 4}
    fields.sort(key=lambda f: order.get(f["name"], 5))
    scaler = next((r.scaler for r in runs if not r.config.detilt), runs[0].scaler)
    title = f"latent spaces of the {split} clips"
    return ClipsView(store, scaler, rows, fields, title, maps, **neighbours_of(codes, table))


def neighbours_of(codes: Sequence[np.ndarray], table: pd.DataFrame, k: int = 8) -> dict:
    """The `k` nearest clips of each clip by Euclidean distance in several spaces (clip, L): `near`, lists of places.

    Not the clip itself nor its `groups` (a number per clip): of one artist, track or sound, alike for that alone.
    """
    groups = pd.factorize(groups_of(table))[0]
    found = [nearest(z, z, k, groups=(groups, groups))[0] for z in codes]
    return {"near": [[line[line >= 0].tolist() for line in places] for places in found], "groups": groups.tolist()}


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
