"""Clips to look at and listen to: in a list, and in linked 2-D maps of several models; live and in a saved page."""

from __future__ import annotations

import html
import io
import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import anywidget
import ipywidgets as widgets
import numpy as np
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from ..audio import Scaler
from ..config import InputError
from ..descriptors import describe
from ..metrics.clustering import project
from ..runs import Run, labels_of
from ..store import Store
from . import picture
from .fields import MARKERS, Field, fields_of, own_fields, packed
from .near import NEIGHBOURS, Near, find_near
from .offline import as_json, still
from .views import own_sound

HERE = Path(__file__).parent
SCRIPT = "".join((HERE / f"{name}.js").read_text() for name in ("figure", "near", "clips"))
STYLE = (HERE / "figure.css").read_text() + (HERE / "clips.css").read_text()

MOST_BYTES = 2_500_000  # of a saved page
MOST_PICTURES = 400  # of a saved list; a saved map keeps one of every clip if they fit
NEAR_SHARE = 0.2  # of the room in a saved page for the neighbours of all clips
PICTURE_SHARE = 0.4  # of what is left then; sounds get the rest
SOUND_SECONDS = 3.0  # of a sound in a saved page
PLANS = ((picture.WIDTH, 75), (picture.WIDTH, 50), (320, 50), (160, 40))  # (widest picture, WebP quality), best first
UNREADABLE = (InputError, OSError, ValueError, RuntimeError)  # what a damaged or absent file raises


def short_names(paths: Sequence[str]) -> list[str]:
    """File names, or, where two files share one, paths without the folders that all have in common."""
    parts = [Path(p).parts for p in paths]
    if len({p[-1] for p in parts}) == len(parts):
        return [p[-1] for p in parts]
    depth = 0
    while len({p[: depth + 1] for p in parts}) == 1:
        depth += 1
    return ["/".join(p[depth:]) for p in parts]


# --- what a saved page keeps ---


def in_turns(groups: np.ndarray) -> np.ndarray:
    """Order in which clips are kept: the first of every group, then the second of every group, and so on."""
    codes, _ = pd.factorize(np.asarray(groups), sort=True)
    turn = pd.Series(codes).groupby(codes).cumcount().to_numpy()
    return np.lexsort((codes, turn))


def that_fit(made: Iterable[str], room: float) -> list[str]:
    """The first of `made` that together are no longer than `room`; the rest is not even made."""
    kept: list[str] = []
    for text in made:
        if (room := room - len(text)) < 0:
            break
        kept.append(text)
    return kept


# --- the view ---


class ClipsView:
    """Displays itself: a live widget in JupyterLab, a page that needs no kernel wherever only HTML is shown.

    Args:
        rows: Rows of the store.
        fields: What clips are coloured by, filtered by and described with; one class field of `maps` at least.
        maps: Method (`UMAP`, …) → name of the map → (clip, 2); the same names in every method.
        rejected: Files that could not be used: `path`, `reason`; None: not shown.
        aloud: Whether a chosen clip sounds at once (else on Enter and on ▶).
        near: The nearest clips of each clip, in the order of the maps; None: not shown.
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
        aloud: bool = False,
        near: Near | None = None,
    ) -> None:
        self.store, self.scaler, self.rows, self.fields = store, scaler, np.asarray(rows), list(fields)
        self.title, self.maps, self.rejected, self.aloud = title, dict(maps or {}), rejected, aloud
        self.near = near
        self.paths = [str(p) for p in store.table.loc[self.rows, "path"]]
        self.names = short_names(self.paths)
        self.sound_file = lru_cache(maxsize=64)(self._sound_file)  # (clip, seconds) → MP3
        self._live: Live | None = None
        self._offline = ""

    def payload(self, keep: np.ndarray | None = None, room: float = math.inf) -> dict:
        """Everything but pictures and sounds, which come on demand; only of the clips `keep`.

        A page that has `room` for so many characters gets fewer neighbours of each clip if need be.
        """
        keep = np.arange(len(self.rows)) if keep is None else keep
        rejected = None if self.rejected is None else self.rejected[["path", "reason"]].astype(str).to_numpy().tolist()
        names = list(next(iter(self.maps.values()), {}))
        return {
            "title": self.title,
            "figure": picture.setup("the chosen clip", self.store.front_end, self.scaler),
            "total": len(self.rows),
            "names": [self.names[i] for i in keep],
            "paths": [self.paths[i] for i in keep],
            "fields": [f.packed(keep) for f in self.fields],
            "maps": names,
            "methods": {m: [packed(xy[n][keep], "f4") for n in names] for m, xy in self.maps.items()},
            "near": self.near.packed(NEAR_SHARE * room) if self.near else None,
            "ramp": picture.lut("viridis").tolist() if self.maps else [],
            "rejected": rejected,
            "aloud": self.aloud,
        }

    def frame(self, clip: int, width: int = picture.WIDTH) -> dict:
        """Spectrogram of the clip at a place of `rows`, as a figure draws it."""
        x = self.store.spectrogram(int(self.rows[clip]), self.scaler)
        shades, tiles = picture.tile(picture.shrink(x, width))
        seconds = x.shape[-1] * self.store.front_end.hop / self.store.front_end.sample_rate
        return {"shades": shades, "tiles": tiles, "seconds": seconds, "caption": ""}

    def _sound_file(self, clip: int, seconds: float | None = None) -> bytes:
        """The clip's own sound as MP3."""
        return picture.sound_bytes(*own_sound(self.store, int(self.rows[clip])), seconds)

    def turns(self) -> np.ndarray:
        """Places of `rows` in the order in which a saved page keeps them: evenly from the classes."""
        column = next((c for c in ("genre", "language", "family") if any(f.name == c for f in self.fields)), None)
        table = self.store.table.loc[self.rows]
        return in_turns(table[column] if column else np.zeros(len(table)))

    def saved(self, room: float = MOST_BYTES) -> dict:
        """The payload of a saved page with the pictures and sounds that `room` characters hold.

        Maps keep every clip; a list keeps those that have a picture.
        """
        order = self.turns()[: None if self.maps else MOST_PICTURES]
        whole = room
        room -= len(as_json(self.payload(None if self.maps else order, whole))) + 24 * len(
            self.rows
        )  # lengths and places
        pictures = that_fit(self._pictures(order, PICTURE_SHARE * room), PICTURE_SHARE * room)
        kept = order[: len(pictures)]
        shown = np.arange(len(self.rows)) if self.maps else np.sort(kept)
        sounds = self._sounds(kept, room - sum(map(len, pictures)))
        place = {int(i): k for k, i in enumerate(shown)}
        return self.payload(shown, whole) | {"saved": {
            "pictures": {place[int(i)]: p for i, p in zip(kept, pictures, strict=True)},
            "sounds": {place[i]: s for i, s in sounds.items()},
            "seconds": SOUND_SECONDS,
            "lengths": [self._seconds(i) for i in shown],
        }}  # fmt: skip

    def _seconds(self, clip: int) -> float:
        fe = self.store.front_end
        return round(float(self.store.table.loc[self.rows[clip], "n_frames"]) * fe.hop / fe.sample_rate, 3)

    def _pictures(self, order: np.ndarray, room: float) -> Iterable[str]:
        """WebP of the clips, made one by one, in the best quality in which a sample says that all fit."""
        for width, quality in PLANS:
            sample = [self._picture(i, width, quality) for i in order[:: max(1, len(order) // 12)]]
            if np.mean([len(s) for s in sample]) * len(order) < room:
                break
        return (self._picture(i, width, quality) for i in order)

    def _picture(self, clip: int, width: int, quality: int) -> str:
        return picture.data_uri(picture.webp(self.frame(clip, width)["shades"], quality), "image/webp")

    def _sounds(self, order: np.ndarray, room: float) -> dict[int, str]:
        """Beginnings of the clips' own sounds while there is room; an unreadable file is passed over."""
        kept: dict[int, str] = {}
        for i in map(int, order):
            try:
                uri = picture.data_uri(self._sound_file(i, SOUND_SECONDS), "audio/mpeg")
            except UNREADABLE:
                continue
            if (room := room - len(uri)) < 0:
                break
            kept[i] = uri
        return kept

    def strip(self, n: int = 6) -> bytes:
        """PNG of the view on paper: its maps in the look of the first field, or a few clips of different classes."""
        buffer = io.BytesIO()
        (self._map_picture() if self.maps else self._clip_picture(n)).savefig(buffer)
        return buffer.getvalue()

    def _clip_picture(self, n: int) -> Figure:
        order = self.turns()[: max(n, len(self.turns()) // 5)]
        picked = order[np.unique(np.linspace(0, len(order) - 1, n).astype(int))]
        fe, rows = self.store.front_end, self.rows[picked]
        frames = [self.store.spectrogram(int(r), self.scaler) for r in rows]
        return picture.strip(frames, [self.names[i] for i in picked], fe, self.title)[0]

    def _map_picture(self) -> Figure:
        method, maps = next(iter(self.maps.items()))
        columns = int(np.ceil(np.sqrt(len(maps))))
        field = next(f for f in self.fields if f.classes and len(f.values) == 1)
        lines = -(-len(maps) // columns)
        fig = Figure(figsize=(3.0 * columns, 2.4 * lines + 0.8), layout="constrained", dpi=90)
        axes = fig.subplots(lines, columns, squeeze=False)
        for ax in axes.flat:
            ax.set_axis_off()
        for ax, (name, xy) in zip(axes.flat, maps.items(), strict=False):
            for c, (label, colour, marker) in enumerate(zip(field.classes, field.colours, field.markers, strict=True)):
                own = field.values[0] == c
                ax.scatter(*xy[own].T, s=7, color=colour, marker=MARKERS[marker], linewidths=0, label=label)
            ax.set_title(name, fontsize=9, parse_math=False)
        if len(field.classes) <= 12:
            shown = axes.flat[0].get_legend_handles_labels()
            for text in fig.legend(*shown, loc="outside lower center", ncols=6, fontsize=8, markerscale=2).get_texts():
                text.set_parse_math(False)
        fig.suptitle(f"{self.title} · {method} · {field.name}", fontsize=10, parse_math=False)
        return fig

    def offline(self) -> str:
        """HTML that needs no kernel and asks for nothing; all words are text, never markup."""
        if not self._offline:
            poster = picture.poster(self.strip())
            data = as_json(self.saved(MOST_BYTES - len(poster) - len(SCRIPT) - len(STYLE)))
            self._offline = (
                f'<div class="vaelib-clips" data-saved><style>{STYLE}</style>'
                f'<img src="{poster}" alt="{html.escape(self.title)}" style="max-width: 100%">'
                f'<script type="application/json">{data}</script></div>'
                f'<script type="module">{SCRIPT}</script>'
            )
        return self._offline

    def live(self) -> Live:
        """The widget, made on first use."""
        self._live = self._live or Live(self)
        return self._live

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        if shown := still(self):
            return shown
        return self.live().box._repr_mimebundle_() | {"text/plain": self.title, "text/html": self.offline()}


# --- live ---


class Player(anywidget.AnyWidget):
    """List, maps and figure; they are drawn in the browser, which asks for pictures and sounds one at a time."""

    _esm, _css = SCRIPT, STYLE
    setup = traitlets.Dict().tag(sync=True)
    clip = traitlets.Int(-1).tag(sync=True)  # asked for: its picture
    heard = traitlets.Dict().tag(sync=True)  # asked for: the sound of a clip
    frame = traitlets.Dict().tag(sync=True)
    sound = traitlets.Dict().tag(sync=True)
    note = traitlets.Dict().tag(sync=True)


class Live:
    """The kernel's side of a view. Callbacks arrive on a thread of their own while a cell runs."""

    def __init__(self, view: ClipsView) -> None:
        self.view, self.lock = view, threading.Lock()
        self.player = Player(setup=view.payload())
        self.box = widgets.VBox([self.player])
        self.sounds = ThreadPoolExecutor(1, "vaelib-sound")  # a sound must not hold up the next picture
        self.player.observe(self._on_clip, "clip")
        self.player.observe(self._on_heard, "heard")
        self.player.clip = min(0, len(view.rows) - 1)  # one to begin with

    def _on_clip(self, _: object) -> None:
        with self.lock:
            clip = self.player.clip  # the newest: who waited here for an older one finds it done
            if clip == self.player.frame.get("clip") or not 0 <= clip < len(self.view.rows):
                return
            try:
                f = self.view.frame(clip)
            except UNREADABLE as e:
                self._say(clip, f"no picture: {e}")
                return
            self.player.frame = picture.as_message(f) | {"clip": clip}

    def _on_heard(self, change: dict) -> None:
        self.sounds.submit(self._make_sound, change["new"])

    def _make_sound(self, wanted: dict) -> None:
        clip = wanted["clip"]
        if wanted != self.player.heard or not 0 <= clip < len(self.view.rows):  # another clip is wanted by now
            return
        try:
            data = self.view.sound_file(clip)
        except UNREADABLE as e:
            self._say(clip, f"no sound: {self.view.names[clip]} {e}")
            return
        self.player.sound = {"clip": clip, "data": data, "turn": time.monotonic()}  # the same sound may come again

    def _say(self, clip: int, text: str) -> None:
        self.player.note = {"clip": clip, "text": text, "turn": time.monotonic()}


# --- the two views of the notebooks ---


def clip_browser(store: Store, scaler: Scaler, rejected: pd.DataFrame | None = None) -> ClipsView:
    """All clips of a store in a list with filters and search, with their own sound; and the files that were rejected.

    Args:
        scaler: Of the spectrograms shown.
        rejected: `path` and `reason`; None: the list that preprocessing left beside the store.
    """
    if rejected is None:
        beside = store.path.with_suffix(".rejected.csv")
        rejected = pd.read_csv(beside, dtype=str, keep_default_na=False) if beside.is_file() else None
    fields = fields_of(store.table, store.factors)
    return ClipsView(store, scaler, store.rows(), fields, f"{store.attrs['corpus']}: the clips", rejected=rejected)


def latent_map(
    runs: Sequence[Run],
    split: str = "test",
    projections: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    neighbours: int = NEIGHBOURS,
    metric: str = "euclidean",
) -> ClipsView:
    """Maps of several runs' latent spaces side by side, of the same clips: what is near what, and how it sounds.

    The nearest clips of a chosen one are those of each model's own space, whatever the map makes of them.

    Args:
        runs: Trained on one store.
        projections: Method → run (its name, with the seed where two share it) → (clip, 2), e.g. those of a picture
            made before; None: UMAP.
        neighbours: How many of the nearest clips are listed for each model; 0: none.
        metric: `euclidean` or `cosine`.

    Raises:
        InputError: no run, runs of different stores, a projection of other clips, or another metric.
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
    maps = {method: {n: np.asarray(xy[n], np.float32) for n in names} for method, xy in projections.items()}
    factors = store.factors
    table = store.table.loc[rows]
    if not factors:  # descriptors stand in, as in the proofs
        measured = describe(store).loc[rows].add_suffix(" (measured)")
        table, factors = table.join(measured), list(measured)
    fields = [*fields_of(table, factors), *own_fields(runs, split)]
    order = {"language": 0, "family": 1, "genre": 2, "cluster": 3, "margin (nats)": 4}
    fields.sort(key=lambda f: order.get(f.name, 5))
    near = find_near(runs, split, neighbours, metric) if neighbours else None
    scaler = next((r.scaler for r in runs if not r.config.detilt), runs[0].scaler)
    return ClipsView(store, scaler, rows, fields, f"latent spaces of the {split} clips", maps, aloud=True, near=near)
