"""Clips to look at and listen to: in a list, and in linked maps (Bokeh) of several models.

They are coloured by, filtered by and described with fields, dictionaries as JSON holds them. A field has a `name`,
`classes` with `colours` and `symbols`, and `values`, places in `classes` (-1: none): one list (clip,) for all maps or
one per map. `texts`, of the same shape: what is said instead of the name of the class.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence

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
from ..runs import Run
from ..store import Store
from .page import Explorer, clip_names, frame_of, sound_of, wave_player

MOST_PICTURES, SOUND_SECONDS = 400, 3.0  # in a saved page
FEW, BINS = 60, 8  # names of a column, and factors, that become fields; classes that numbers are divided into
SYMBOLS = dict(zip("osD^vX", ("circle", "square", "diamond", "triangle", "inverted_triangle", "hex"), strict=True))
PITCHES = dict(enumerate(("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")))


def clips_view(store: Store, scaler: Scaler, rows: np.ndarray, fields: list[dict], title: str,
               maps: Sequence[str] = (), **more: object) -> Explorer:  # fmt: skip
    """A list of the clips in some rows of a store, with their maps where there are any; `more` is for clips.js.

    The view's `selected` are those rows that pass search, legend and lasso in the live view. A saved page has pictures
    of some clips, evenly from the genres, and as many of their sounds as fit.
    """

    def picture(clip: int, small: bool = False) -> dict:
        return frame_of(store.spectrogram(int(rows[clip]), scaler)[None], store.front_end, small)

    def sound(clip: int, small: bool = False) -> str:
        return wave_player(*sound_of(store, int(rows[clip])), SOUND_SECONDS if small else None).src_attr()

    def select(clips: list[int]) -> None:
        view.selected = rows[clips]

    genre = store.table.loc[rows, "genre"]
    first = genre.groupby(genre).cumcount().argsort(kind="stable")[:MOST_PICTURES].tolist()
    kept = [(what, clip) for clip in first for what in ("picture", "sound")]
    more |= {"fields": [f for f in fields if len(f["classes"]) > 1], "maps": maps, "names": clip_names(store, rows)}
    view = Explorer(title, store, scaler, {"picture": picture, "sound": sound, "select": select}, kept, **more)
    view.selected = rows
    return view


def linked_plots(count: int, clips: int) -> dict:
    """A Bokeh document of `count` maps, `plots`, and the `library` that draws it.

    clips.js fills their one source, `clips`; the filters `chosen` and `near 0`, … have rings.
    """
    from bokeh import document, layouts, models, plotting, resources

    doc, tools = document.Document(), []
    source, chosen = models.ColumnDataSource(name="clips"), models.IndexFilter(name="chosen", indices=[])
    for k in range(count):
        p = plotting.figure(name=f"map {k}", tools="pan,wheel_zoom,lasso_select,zoom_in,zoom_out,reset", min_border=2,
                            toolbar_location=None, aspect_ratio=1.3, sizing_mode="scale_width", outline_line_color=GREY,
                            background_fill_color=None, border_fill_color=None)  # fmt: skip
        p.axis.visible = p.grid.visible = False
        place = {"x": f"x{k}", "y": f"y{k}", "source": source, "line_color": GREY}
        dots = p.scatter(**place, marker=f"symbol{k}", fill_color=f"colour{k}", size=max(5, min(9, 130 / clips**0.5)),
                         line_width=0, hover_line_width=4, nonselection_fill_alpha=0.12)  # fmt: skip
        for ringed, size in ((chosen, 17), (models.IndexFilter(name=f"near {k}", indices=[]), 12)):
            p.scatter(**place, view=models.CDSView(filter=ringed), fill_color=None, size=size, line_width=size / 7,
                      nonselection_line_alpha=1)  # fmt: skip
        p.x_range.renderers = p.y_range.renderers = p.select_one(models.LassoSelectTool).renderers = [dots]
        tools += p.tools
        p.add_tools(models.HoverTool(renderers=[dots], tooltips=f"@text @{{words{k}}}", limit=1))
        doc.add_root(p)
    tools = layouts.group_tools(tools)
    lasso = next(t for t in tools if isinstance(t.tools[0], models.LassoSelectTool))
    doc.add_root(models.Toolbar(name="toolbar", tools=tools, logo=None, active_drag=lasso))
    library = gzip.compress(resources.Resources("inline", components=["bokeh"]).js_raw[0].encode(), mtime=0)
    return {"plots": doc.to_json(deferred=False), "library": base64.b64encode(library).decode()}


def clip_browser(store: Store, scaler: Scaler, rejected: pd.DataFrame | None = None) -> Explorer:
    """All clips of a store in a list, and `path` and `reason` of files that could not be used; notebook 01."""
    files = [] if rejected is None else (rejected["path"] + ": " + rejected["reason"]).tolist()
    fields = fields_of(store, store.table, store.factors)
    return clips_view(store, scaler, store.rows(), fields, f"{store.attrs['corpus']}: the clips", rejected=files)


def latent_map(
    runs: Sequence[Run], split: str = "test", projections: Mapping[str, Mapping[str, np.ndarray]] | None = None
) -> Explorer:
    """Maps of several runs' latent spaces side by side, of the same clips: what lies where, and how it sounds.

    The neighbours of a clip are those of each model's own space. `projections`: method → name of the run, with the
    seed where several share it → (clip, 2); None: UMAP. InputError: no run, or runs of different stores; notebook 07.
    """
    if len({r.config.fingerprint for r in runs}) != 1:
        raise InputError(f"{len(runs)} runs to map: give one or more, all of the same store")
    store, rows, codes = runs[0].store, runs[0].store.rows(split), [r.embed(split).means for r in runs]
    table, factors, names = store.table.loc[rows], store.factors, [r.name for r in runs]
    names = [r.name if names.count(r.name) == 1 else f"{r.name}, seed {r.config.training.seed}" for r in runs]
    maps = projections or {"UMAP": dict(zip(names, map(project, codes), strict=True))}
    if not factors:  # descriptors stand in, as in notebook 04
        measured = describe(store).loc[rows].add_suffix(" (measured)")
        table, factors = table.join(measured), list(measured)
    fields = [*fields_of(store, table, factors), *model_fields(runs, split)]
    fields.sort(key=lambda f: f["name"] not in (*LABELS, "cluster", "margin (nats)"))
    methods = {method: [np.round(xy[n], 3).T.tolist() for n in names] for method, xy in maps.items()}
    more = linked_plots(len(names), len(rows)) | neighbours_of(codes, table)
    title = f"latent spaces of the {split} clips"
    return clips_view(store, store.fit_scaler(), rows, fields, title, names, methods=methods, **more)


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


def number_field(name: str, values: np.ndarray) -> dict:
    """Numbers (clip,) or (map, clip), nan: none, as classes: own values if few, else equally full bins; dark is low."""
    values = np.atleast_2d(np.asarray(values, float))
    known = np.unique(values[~np.isnan(values)])
    if len(known) <= BINS:
        cut, classes = pd.Categorical(values.ravel(), known), [f"{v:.4g}" for v in known]
    else:
        cut = pd.qcut(values.ravel(), BINS, duplicates="drop")
        classes = [f"{c.left:.3g} to {c.right:.3g}" for c in cut.categories]
    colours = [to_hex(c) for c in colormaps["viridis"](np.linspace(0, 0.95, len(classes)))]
    texts = [[None if np.isnan(v) else f"{v:.4g}" for v in line] for line in values]
    return {"name": name, "values": cut.codes.reshape(values.shape).tolist(), "texts": texts,
            "classes": classes, "colours": colours, "symbols": ["circle"] * len(classes)}  # fmt: skip


def fields_of(store: Store, table: pd.DataFrame, factors: Sequence[str]) -> list[dict]:
    """Labels, the split and other columns with few names (keys as pitches), then factors and measured level."""
    keys = [c for c in factors if c.split()[0] == "key" and table[c].dropna().isin(PITCHES).all()]
    table = table.assign(**{c: table[c].map(PITCHES) for c in keys})
    others = {c for c in table if not pd.api.types.is_numeric_dtype(table[c])} - {*LABELS, "path", "split"}
    few = [c for c in (*sorted(others), "split") if table[c].nunique() <= min(FEW, len(table) - 1)]
    found = [class_field(c, table[c].fillna("").astype(str)) for c in (*LABELS, *few)]
    units = store.units | {"level_db": "dB", "tilt_db": "dB"}
    numbers = [c for c in (*factors[:FEW], "level_db", "tilt_db") if c not in keys]
    return found + [number_field(f"{c} ({units[c]})" if c in units else c, table[c]) for c in numbers]


def model_fields(runs: Sequence[Run], split: str) -> list[dict]:
    """What each model says itself: its clusters, in the style of the genres they match, and VaDE's margins."""
    store, rows = runs[0].store, runs[0].store.rows(split)
    genre = class_field("genre", store.table.loc[rows, "genre"])
    k = max(1, min(len(genre["classes"]), len(store.rows("train"))))
    clusters, certain = [], []
    for r in runs:
        if isinstance(r.model, VaDE):
            shares = r.log_responsibilities(split)
            own, certainty = shares.argmax(1), margins(shares)
        else:
            own = kmeans_assign(r.embed("train").means, r.embed(split).means, k, r.config.training.seed)
            certainty = np.full(len(rows), np.nan)
        clusters.append(matched(np.array(genre["values"][0]), own).tolist())
        certain.append(certainty)
    hint = "K-Means in each model's own space (VaDE: components), in the style of the genre it matches; grey: none"
    log_odds = "log-odds of the likeliest component against the second: small is unsure; grey: only VaDE has one"
    return [
        genre | {"name": "cluster", "values": clusters, "hint": hint},
        number_field("margin (nats)", np.stack(certain)) | {"hint": log_odds},
    ]


def matched(labels: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(clip,) the class that each clip's cluster matches best, one to one (Hungarian); -1: matches none."""
    table = pd.crosstab(clusters[labels >= 0], labels[labels >= 0])
    pairs = zip(*linear_sum_assignment(table, maximize=True), strict=True)
    class_of = {table.index[i]: table.columns[j] for i, j in pairs if table.iloc[i, j]}
    return np.array([class_of.get(c, -1) for c in clusters])
