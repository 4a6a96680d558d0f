"""Clips to look at and listen to: in a list, and in linked maps of several models; live and in a saved page.

The maps stand on Bokeh (zoom, pan, lasso); docs/EXPLORERS.md says what it gives and costs.
"""

from __future__ import annotations

import base64
import gzip
import html
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import PurePath

import anywidget
import numpy as np
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from ..audio import Scaler
from ..config import InputError
from ..descriptors import describe
from ..metrics.clustering import nearest, project
from ..plots import GREY
from ..runs import Run, labels_of
from ..store import Store
from . import picture
from .fields import Field, fields_of, listed, model_fields
from .offline import HERE, STYLE, embed, still
from .view import as_message
from .views import own_sound

SCRIPT = (HERE / "figure.js").read_text() + (HERE / "clips.js").read_text()
MOST_CLIPS = 400  # of a saved page that keep a picture; a saved list keeps no others
PICTURE_WIDTH, PICTURE_QUALITY = 240, 40  # of a clip in a saved page
SOUND_SECONDS = 3.0  # of a sound in a saved page
SOUND_BYTES = 3_000_000  # of all sounds in a saved page
RELATED = ("artist", "track")  # clips that share one sound alike for that alone; the first that a clip has counts
UNREADABLE = (InputError, OSError, ValueError, RuntimeError)  # what a damaged or absent file raises


def short_names(paths: Sequence[str]) -> list[str]:
    """File names, or, where two files share one, the whole paths."""
    names = [PurePath(p).name for p in paths]
    return names if len(set(names)) == len(names) else list(paths)


def in_turns(groups: Sequence[str]) -> np.ndarray:
    """Order in which clips are kept: the first of every group, then the second of every group, and so on."""
    codes, _ = pd.factorize(np.asarray(groups), sort=True)
    turn = pd.Series(codes).groupby(codes).cumcount().to_numpy()
    return np.lexsort((codes, turn))


class ClipsView:
    """Displays itself: a live widget in JupyterLab, a page that needs no kernel wherever only HTML is shown.

    Args:
        store: Where the clips are.
        scaler: Of the spectrograms shown.
        rows: Rows of the store.
        fields: What clips are coloured by, filtered by and described with; maps need one class field at least.
        title: Plain text.
        maps: Method (`UMAP`, …) → name of the map → (clip, 2); the same names in every method.
        rejected: Files that could not be used: `path`, `reason`; None: not shown.
        neighbours: As `neighbours_of` finds them; None: not shown.
    """

    def __init__(
        self,
        store: Store,
        scaler: Scaler,
        rows: np.ndarray,
        fields: Sequence[Field],
        title: str,
        maps: Mapping[str, Mapping[str, np.ndarray]] | None = None,
        rejected: pd.DataFrame | None = None,
        neighbours: dict | None = None,
    ) -> None:
        self.store, self.scaler, self.rows, self.fields = store, scaler, np.asarray(rows), list(fields)
        self.title, self.maps, self.rejected, self.neighbours = title, dict(maps or {}), rejected, neighbours
        self.paths = store.table.loc[self.rows, "path"].astype(str).tolist()
        self.names = short_names(self.paths)
        self.sound_file = lru_cache(maxsize=64)(self._sound_file)  # (clip, seconds) → MP3
        self._live: Live | None = None
        self._offline = ""

    @property
    def selected(self) -> np.ndarray:
        """Rows of the store of the clips that pass filters, legend and lasso in the live view."""
        return self.rows[self.live().widget.selected]

    def payload(self, keep: np.ndarray) -> dict:
        """Everything but pictures and sounds, which come on demand; of the clips `keep`."""
        names = list(next(iter(self.maps.values()), {}))
        return {
            "title": self.title,
            "figure": picture.setup("", self.store.front_end, self.scaler),
            "total": len(self.rows),
            "names": [self.names[i] for i in keep],
            "paths": [self.paths[i] for i in keep],
            "fields": [f.packed(keep) for f in self.fields],
            "maps": names,
            "methods": {m: [[listed(xy[n][:, 0]), listed(xy[n][:, 1])] for n in names] for m, xy in self.maps.items()},
            "neighbours": self.neighbours,
            "ramp": picture.lut("viridis").tolist(),
            "rejected": None if self.rejected is None else self.rejected[["path", "reason"]].to_numpy(str).tolist(),
        } | (linked_figures(len(names)) if names else {})

    def frame(self, clip: int, width: int = picture.WIDTH) -> dict:
        """Spectrogram of the clip at a place of `rows`, as a figure draws it."""
        x = self.store.spectrogram(int(self.rows[clip]), self.scaler)
        shades, tiles = picture.tile(picture.shrink(x, width))
        seconds = x.shape[-1] * self.store.front_end.hop / self.store.front_end.sample_rate
        return {"shades": shades, "tiles": tiles, "count": 1, "seconds": seconds, "caption": "", "labels": []}

    def _sound_file(self, clip: int, seconds: float | None = None) -> bytes:
        return picture.sound_bytes(*own_sound(self.store, int(self.rows[clip])), seconds)

    def turns(self) -> np.ndarray:
        """Places of `rows` in the order in which a saved page keeps them: evenly from the classes."""
        names = {f.name for f in self.fields}
        column = next((c for c in ("genre", "language", "family") if c in names), "split")
        return in_turns(self.store.table.loc[self.rows, column])[:MOST_CLIPS]

    def saved(self) -> dict:
        """The payload of a saved page, its pictures, and as many sounds as fit. Maps keep every clip."""
        order = self.turns()
        shown = np.arange(len(self.rows)) if self.maps else np.sort(order)
        place, room = {int(i): k for k, i in enumerate(shown)}, SOUND_BYTES
        pictures, sounds, lengths = {}, {}, {}
        for i in map(int, order):
            frame = self.frame(i, PICTURE_WIDTH)
            pictures[place[i]] = picture.webp(frame["shades"], PICTURE_QUALITY)
            lengths[place[i]] = round(frame["seconds"], 3)
        for i in map(int, order):
            try:
                uri = picture.data_uri(self._sound_file(i, SOUND_SECONDS), "audio/mpeg")
            except UNREADABLE:
                continue
            if (room := room - len(uri)) < 0:
                break
            sounds[place[i]] = uri
        kept = {"pictures": pictures, "sounds": sounds, "lengths": lengths, "seconds": SOUND_SECONDS}
        return self.payload(shown) | {"saved": kept}

    def strip(self, n: int = 6) -> bytes:
        """PNG of the view on paper: its maps in the style of the first field, or a few clips of different classes."""
        if self.maps:
            return picture.png(self._map_picture())
        order = self.turns()
        picked = order[np.unique(np.linspace(0, len(order) - 1, n).astype(int))]
        frames = [self.store.spectrogram(int(r), self.scaler) for r in self.rows[picked]]
        return picture.strip(frames, [self.names[i] for i in picked], self.store.front_end, self.title)

    def _map_picture(self) -> Figure:
        method, maps = next(iter(self.maps.items()))
        field = next(f for f in self.fields if f.classes and len(f.values) == 1)
        columns = int(np.ceil(np.sqrt(len(maps))))
        lines = -(-len(maps) // columns)
        fig = Figure(figsize=(3.0 * columns, 2.4 * lines + 0.5), layout="constrained", dpi=90)
        colours = [field.colours[c] if c >= 0 else GREY for c in field.values[0]]
        for k, (name, xy) in enumerate(maps.items()):
            ax = fig.add_subplot(lines, columns, k + 1)
            ax.scatter(*xy.T, s=7, c=colours, linewidths=0)
            ax.set(xticks=[], yticks=[])
            ax.set_title(name, fontsize=9, parse_math=False)
        fig.suptitle(f"{self.title} · {method} · {field.name}", fontsize=10, parse_math=False)
        return fig

    def offline(self) -> str:
        """HTML that needs no kernel and asks for nothing; all words are text, never markup."""
        self._offline = self._offline or embed(self, "vaelib-clips", self.saved(), SCRIPT)
        return self._offline

    def live(self) -> Live:
        """The widget, made on first use."""
        self._live = self._live or Live(self)
        return self._live

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        if shown := still(self):
            return shown
        html = self.offline()
        return self.live().widget._repr_mimebundle_()[0] | {"text/plain": self.title, "text/html": html}


def linked_figures(count: int) -> dict:
    """A Bokeh document with `count` maps of the same clips, and the library that draws it; clips.js fills the columns.

    Sources by name: `clips` (x0, y0, x1, … and the style of each clip in each map), `rings` around some of them, and
    `ties` from one clip to its neighbours.
    """
    from bokeh.document import Document
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure
    from bokeh.resources import Resources

    document = Document()
    clips, rings, ties = (ColumnDataSource(name=name) for name in ("clips", "rings", "ties"))
    for k in range(count):
        p = figure(
            name=f"map {k}", tools="pan,wheel_zoom,lasso_select", active_scroll=None, active_drag="lasso_select",
            toolbar_location=None, height=230, sizing_mode="stretch_width", background_fill_color=None,
            border_fill_color=None, outline_line_color=GREY, min_border=2,
        )  # fmt: skip
        p.axis.visible = p.grid.visible = False
        style = {"marker": f"symbol{k}", "fill_color": f"colour{k}", "size": f"size{k}", "fill_alpha": f"alpha{k}"}
        p.segment(f"x0{k}", f"y0{k}", f"x1{k}", f"y1{k}", source=ties, line_color=GREY)
        p.scatter(f"x{k}", f"y{k}", source=clips, line_color=None, **style)
        p.scatter(f"x{k}", f"y{k}", source=rings, fill_color=None, line_color=GREY, size="size", line_width="width")
        document.add_root(p)
    library = Resources("inline", components=["bokeh"]).js_raw[0]
    return {
        "document": document.to_json(deferred=False),
        "library": base64.b64encode(gzip.compress(library.encode(), mtime=0)).decode(),
    }


# --- live ---


class ClipsWidget(anywidget.AnyWidget):
    """List, maps and figure; they are drawn in the browser, which asks for pictures and sounds one at a time."""

    _esm, _css = SCRIPT, STYLE
    setup = traitlets.Dict().tag(sync=True)
    clip = traitlets.Int(-1).tag(sync=True)  # asked for: its picture
    heard = traitlets.Dict().tag(sync=True)  # asked for: the sound of a clip
    frame = traitlets.Dict().tag(sync=True)
    sound = traitlets.Dict().tag(sync=True)
    note = traitlets.Dict().tag(sync=True)
    selected = traitlets.List().tag(sync=True)  # places of the clips that pass filters, legend and lasso


class Live:
    """The kernel's side of a view. Callbacks arrive on a thread of their own while a cell runs."""

    def __init__(self, view: ClipsView) -> None:
        self.view, self.lock = view, threading.Lock()
        every = np.arange(len(view.rows))
        self.widget = ClipsWidget(setup=view.payload(every), selected=every.tolist())
        self.sounds = ThreadPoolExecutor(1, "vaelib-sound")  # a sound must not hold up the next picture
        self.widget.observe(self._on_clip, "clip")
        self.widget.observe(lambda change: self.sounds.submit(self._make_sound, change["new"]), "heard")

    def _on_clip(self, _: object) -> None:
        with self.lock:
            clip = self.widget.clip  # the newest: who waited here for an older one finds it done
            if clip == self.widget.frame.get("clip"):
                return
            try:
                self.widget.frame = as_message(self.view.frame(clip)) | {"clip": clip}
            except UNREADABLE as e:
                self._note(clip, f"no picture: {e}")

    def _make_sound(self, wanted: dict) -> None:
        clip = wanted["clip"]
        if wanted != self.widget.heard:  # another clip is wanted by now
            return
        try:
            self.widget.sound = {"clip": clip, "data": self.view.sound_file(clip), "turn": time.monotonic()}
        except UNREADABLE as e:
            self._note(clip, f"no sound: {self.view.names[clip]} {e}")

    def _note(self, clip: int, text: str) -> None:
        self.widget.note = {"clip": clip, "text": text, "turn": time.monotonic()}


# --- what notebooks show ---


def clip_browser(store: Store, scaler: Scaler, rejected: pd.DataFrame | None = None) -> ClipsView:
    """All clips of a store in a list with filters and search, with their own sound; notebook 01.

    Args:
        store: The clips.
        scaler: Of the spectrograms shown.
        rejected: `path` and `reason` of files; None: the list that preprocessing left beside the store.
    """
    if rejected is None:
        beside = store.path.with_suffix(".rejected.csv")
        rejected = pd.read_csv(beside, dtype=str, keep_default_na=False) if beside.is_file() else None
    fields = fields_of(store, store.table, store.factors)
    return ClipsView(store, scaler, store.rows(), fields, f"{store.attrs['corpus']}: the clips", rejected=rejected)


def latent_map(
    runs: Sequence[Run],
    split: str = "test",
    projections: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> ClipsView:
    """Maps of several runs' latent spaces side by side, of the same clips: what lies where, and how it sounds.

    The neighbours of a chosen clip are those of each model's own space, whatever the map makes of them; notebook 07.

    Args:
        runs: Trained on one store.
        split: Whose clips are shown.
        projections: Method → run (its name, with the seed where two share it) → (clip, 2), e.g. those of a picture
            made before; None: UMAP.

    Raises:
        InputError: no run, runs of different stores, or a projection of other clips.
    """
    if not runs or len({r.config.fingerprint for r in runs}) > 1:
        raise InputError(f"{len(runs)} runs to map: give one or more, all of the same store")
    store, names = runs[0].store, labels_of(runs)
    rows = store.rows(split)
    if projections is None:
        projections = {"UMAP": {n: project(r.embed(split).means) for n, r in zip(names, runs, strict=True)}}
    for method, maps in projections.items():
        wrong = [n for n in names if np.shape(maps.get(n)) != (len(rows), 2)]
        if wrong:
            raise InputError(f"{method} of {wrong[0]} is not ({len(rows)}, 2): project the {split} clips of each run")
    maps = {method: {n: np.asarray(xy[n], float) for n in names} for method, xy in projections.items()}
    table, factors = store.table.loc[rows], store.factors
    if not factors:  # descriptors stand in, as in notebook 04
        measured = describe(store).loc[rows].add_suffix(" (measured)")
        table, factors = table.join(measured), list(measured)
    fields = [*fields_of(store, table, factors), *model_fields(runs, split)]
    order = {"language": 0, "family": 1, "genre": 2, "cluster": 3, "margin (nats)": 4}
    fields.sort(key=lambda f: order.get(f.name, 5))
    lists = neighbours_of([r.embed(split).means for r in runs], table)
    scaler = next((r.scaler for r in runs if not r.config.detilt), runs[0].scaler)
    return ClipsView(store, scaler, rows, fields, f"latent spaces of the {split} clips", maps, neighbours=lists)


def neighbours_of(codes: Sequence[np.ndarray], table: pd.DataFrame, k: int = 8) -> dict:
    """The `k` nearest clips of each clip by Euclidean distance in several spaces, never itself.

    Args:
        codes: (clip, L) in each space.
        table: The clips; those that share an `artist`, else a `track`, are related.
        k: How many.

    Returns:
        `every`: for each space lists of places, nearest first; `others`: the same without related clips;
        `related`: `artist`, `track`, or "" where no clips are; `groups`: a number per clip, shared by related ones.
    """
    own = np.array([f"clip {i}" for i in range(len(table))], object)
    for column in (c for c in reversed(RELATED) if c in table):
        given = table[column].fillna("").astype(str).to_numpy()
        own = np.where(given == "", own, column + " " + given.astype(object))
    groups, shared = pd.factorize(own)[0], pd.Series(own)[pd.Series(own).duplicated()].astype(str)
    related = next((c for c in RELATED if shared.str.startswith(f"{c} ").any()), "")

    def lists(own: np.ndarray) -> list[list[list[int]]]:
        found = (nearest(z, z, k, groups=(own, own))[0].tolist() for z in codes)
        return [[[i for i in line if i >= 0] for line in places] for places in found]

    every = lists(np.arange(len(table)))
    others = lists(groups) if related else every
    return {"every": every, "others": others, "related": related, "groups": groups.tolist()}


class Players:
    """Displays itself: one line per row of a store with its name, a note, and the beginning of its sound; notebook 01.

    Args:
        store: The clips.
        notes: Row of the store → note; in this order.
        seconds: Length of the sounds; they are part of the page.
        nothing: What is shown when there are no rows.
    """

    def __init__(self, store: Store, notes: Mapping[int, str], seconds: float = 6.0, nothing: str = "none") -> None:
        self.store, self.notes, self.seconds, self.nothing = store, dict(notes), seconds, nothing

    def _line(self, row: int, note: str) -> str:
        try:
            sound = picture.data_uri(picture.sound_bytes(*own_sound(self.store, row), self.seconds), "audio/mpeg")
            heard = f'<audio controls preload="none" src="{sound}" style="height: 32px"></audio>'
        except UNREADABLE as e:
            heard = _text(f"no sound: {e}")
        start = self.store.table.loc[row].get("start_s", 0.0)
        name = f"{self.store.table.loc[row, 'path']}" + (f" (from {start:.1f} s)" if start else "")
        cells = (f'<td style="text-align: left">{c}</td>' for c in (_text(note), _text(name), heard))
        return f"<tr>{''.join(cells)}</tr>"

    def _repr_html_(self) -> str:
        lines = "".join(self._line(row, note) for row, note in self.notes.items())
        return f"<table>{lines}</table>" if lines else f"<p>{_text(self.nothing)}</p>"


def _text(words: object) -> str:
    """Words as text, never markup; what is no character (a byte of a file's name that is not UTF-8) as ?."""
    return html.escape(str(words).encode("utf-8", "replace").decode())
