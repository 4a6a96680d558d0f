"""Clips to look at and listen to: in a list, and in linked maps (Bokeh) of several models; live and in a saved page."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd

from .. import plots
from ..audio import Scaler
from ..collection import groups_of
from ..config import InputError
from ..descriptors import describe
from ..metrics.clustering import nearest, project
from ..runs import Run, labels_of
from ..store import Store
from .fields import fields_of, model_fields
from .page import Explorer, figure_setup, picture, sound_of, wave_player

MOST_PICTURES, SMALL, SOUND_SECONDS = 400, {"quality": 40, "width": 240}, 3.0  # in a saved page
Maps = Mapping[str, Mapping[str, np.ndarray]]  # method (`UMAP`, …) → name of the map → (clip, 2)


class ClipsView(Explorer):
    """A list of the clips in some rows of a store, and their maps where there are any; `more` is for clips.js."""

    def __init__(self, store: Store, scaler: Scaler, rows: np.ndarray, fields: list[dict], title: str,
                 maps: Maps | None = None, **more: object) -> None:  # fmt: skip
        self.store, self.scaler, self.rows, self.fields = store, scaler, rows, fields
        self.selected = rows  # of the store, that pass search, legend and lasso in the live view
        files, names = [store.name(r) for r in rows], list(next(iter((maps or {}).values()), {}))
        short = [f.rsplit("/", 1)[-1] for f in files]
        setup = figure_setup(store.front_end, scaler) | more | {"fields": fields, "maps": names}
        setup["names"] = short if len(set(short)) == len(short) else files
        if maps:
            setup |= {"plots": linked_plots(len(names), len(rows)), "library": bokeh_library()}
            setup["methods"] = {m: [np.round(xy[n], 3).T.tolist() for n in names] for m, xy in maps.items()}
        super().__init__(title, setup, {"picture": self.picture, "sound": self.sound, "select": self.select})

    def picture(self, clip: int, small: bool = False) -> dict:
        """Spectrogram of the clip at a place of `rows`, as a figure draws it."""
        x, fe = self.store.spectrogram(int(self.rows[clip]), self.scaler), self.store.front_end
        shown = {"count": 1, "seconds": x.shape[-1] * fe.hop / fe.sample_rate, "caption": "", "labels": []}
        return shown | {"picture": picture(x, **(SMALL if small else {}))}

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
    """A Bokeh document of `count` maps; clips.js fills their one source, `clips`.

    So a lasso and the clip under the pointer show in all of them. The filters `chosen` and `near 0`, … have rings.
    """
    from bokeh.document import Document
    from bokeh.layouts import group_tools
    from bokeh.models import CDSView, ColumnDataSource, HoverTool, IndexFilter, LassoSelectTool, Toolbar
    from bokeh.plotting import figure

    document, tools = Document(), []
    source, chosen = ColumnDataSource(name="clips"), IndexFilter(name="chosen", indices=[])
    for k in range(count):
        p = figure(name=f"map {k}", tools="pan,wheel_zoom,lasso_select,zoom_in,zoom_out,reset", toolbar_location=None,
                   active_drag="lasso_select", aspect_ratio=1.3, sizing_mode="scale_width", min_border=2,
                   background_fill_color=None, border_fill_color=None, outline_line_color=plots.GREY)  # fmt: skip
        p.axis.visible = p.grid.visible = False
        place = {"x": f"x{k}", "y": f"y{k}", "source": source, "line_color": plots.GREY}
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
    return document.to_json(deferred=False)


@cache
def bokeh_library() -> str:
    """What draws the maps, without widgets and tables: gzip in base64."""
    from bokeh.resources import Resources

    script = Resources("inline", components=["bokeh"]).js_raw[0]
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


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
