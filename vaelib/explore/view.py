"""A view on a pure function: sliders and lists beside spectrograms that sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from matplotlib.figure import Figure

from ..audio import to_sound
from ..plots import gallery
from ..runs import Run
from ..store import Store
from .page import UNREADABLE, Explorer, data_uri, figure_setup, mp3, picture

QUALITY = 60  # of the WebP pictures in a saved page
SOUNDS, SOUND_SECONDS = 90, 6.0  # in a saved page at most
Values = dict[str, float | str]


def sound_of(store: Store, row: int, window: bool = False) -> tuple[np.ndarray, int]:
    """The wave (samples,) of a clip's file, or of its middle window, which models are given; and its rate."""
    wave, fe = store.load(row).numpy(), store.front_end
    frames = min(int(store.table.loc[row, "n_frames"]), store.heard_frames)
    start = fe.hop * round((frames - fe.frames) / 2)
    return wave[start : start + fe.frames * fe.hop] if window else wave, fe.sample_rate


@dataclass(frozen=True)
class Control:
    """A slider over numbers or a list of names; about `kept` of its values are in a saved page.

    `scene`: the other controls depend on it; they go to their start when it changes.
    """

    name: str
    label: str
    values: Sequence[float] | Sequence[str]
    start: float | str
    kept: int = 15
    scene: bool = False

    @property
    def slider(self) -> bool:
        return not isinstance(self.start, str)

    def snap(self, value: float) -> float:
        """The slider's value nearest to `value`."""
        return min(self.values, key=lambda v: abs(v - value))

    def evenly(self, n: int) -> list[float | str]:
        """`n` of the values, both ends among them."""
        places = np.linspace(0, len(self.values) - 1, min(n, len(self.values))).round().astype(int)
        return [self.values[i] for i in places]


def slider(name: str, label: str, low: float, high: float, step: float, start: float) -> Control:
    """Numbers from `low` to `high` in steps, starting near `start`."""
    values = np.round(low + step * np.arange(round((high - low) / step) + 1), 4).tolist()
    return Control(name, label, values, min(values, key=lambda v: abs(v - start)))


@dataclass
class Shown:
    """What is seen, and heard by tile, where the controls stand."""

    x: np.ndarray  # (N, F, T) in [0, 1]
    labels: Sequence[str] = ()
    rows: Sequence[int | None] = ()  # the clip whose middle window sounds; None, as for tiles beyond: `x` is inverted
    tone: Sequence[float] = (0.0, 0.0)  # level and tilt (dB) that a scaler removed
    caption: str = ""


@dataclass(eq=False)
class SpectrogramView(Explorer):
    """Spectrograms that follow controls: all that is shown and heard is a function of the controls' values."""

    run: Run
    title: str
    controls: Sequence[Control]
    show: Callable[[Values], Shown]  # pure
    begin: Callable[[Values], Values] = lambda v: {}  # where controls stand when a scene has changed
    first: int = 0  # the tile that sounds until another is clicked

    kind = "view"

    def __post_init__(self) -> None:
        self.answers = {"scene": self.scene, "frames": lambda all_: [self.frame(v) for v in all_], "sound": self.sound}
        self.start: Values = self.scene({c.name: c.start for c in self.controls})["start"]

    def setup(self, live: bool = True) -> dict:
        controls = [vars(c) | {"slider": c.slider} for c in self.controls]
        ready = {"scene": self.scene(self.start), "frames": [self.frame(self.start)]} if live else {}
        more = {"start": self.start, "controls": controls, "first": self.first, "ready": ready}
        return figure_setup(self.title, self.run.store.front_end, self.run.scaler) | more

    def scene(self, values: Values, kept: bool = False) -> dict:
        """Where controls start in the scene of `values`, and what each can be set to (`kept`: in a saved page)."""
        start = {c.name: values[c.name] if c.scene else c.start for c in self.controls}
        start |= self.begin(start)
        held = [[v for v in c.values if not kept or v == start[c.name] or v in c.evenly(c.kept)] for c in self.controls]
        return {"start": start, "values": held}

    def frame(self, values: Values, quality: int = 0) -> dict:
        """The picture of all tiles, and the words with it."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # for one spectrogram a team on busy cores takes up to 150 ms instead of 2
        try:
            shown = self.show(values)
        finally:
            torch.set_num_threads(threads)
        fe, words = self.run.store.front_end, {"labels": list(shown.labels), "caption": shown.caption}
        seconds = shown.x.shape[-1] * fe.hop / fe.sample_rate
        return words | {"picture": picture(shown.x, quality), "count": len(shown.x), "seconds": seconds}

    def sound(self, values: Values, tile: int, seconds: float | None = None) -> str:
        """The sound of a tile as a data URI: a clip's own, else guessed from the picture by Griffin-Lim."""
        shown, store = self.show(values), self.run.store
        if tile < len(shown.rows) and shown.rows[tile] is not None:
            return data_uri(mp3(*sound_of(store, shown.rows[tile], window=True), seconds))
        wave = to_sound(self.run.scaler.inverse(shown.x[tile], *shown.tone), store.front_end)
        return data_uri(mp3(wave, store.front_end.sample_rate, seconds))

    def poster(self) -> Figure:
        """The first tile at seven values of the first control that is no scene, the others at their start."""
        control = next(c for c in self.controls if not c.scene)
        values = control.evenly(7)
        x = np.stack([self.show(self.start | {control.name: v}).x[self.first] for v in values])
        names = [v if isinstance(v, str) else f"{v:.4g}" for v in values]
        return gallery({control.label: x}, self.run.store.front_end, names, self.title)[0]

    def saved(self) -> dict:
        """What the page holds: frames of each control's move while the others stand at the start of their scene."""
        choices = [c for c in self.controls if c.scene]
        chosen = product(*(c.evenly(c.kept) for c in choices))
        scenes = [self.scene({c.name: v for c, v in zip(choices, given, strict=True)}, kept=True) for given in chosen]
        pictures: dict[str, int] = {}  # every picture once, however many positions show it
        frames = []
        for start, held in (s.values() for s in scenes):
            settings = [(start, range(6))]  # with the tiles that keep a sound
            for c, values in zip(self.controls, held, strict=True):
                heard = [c.values[0], c.values[-1]] if c.slider else c.values[:5]
                moves = [] if c.scene else [v for v in values if v != start[c.name]]
                settings += [(start | {c.name: v}, [self.first] if v in heard else []) for v in moves]
            for values, tiles in settings:
                frame = self.frame(values, QUALITY) | {"values": values, "sounds": {}}
                frame["picture"] = pictures.setdefault(frame["picture"], len(pictures))
                frames.append(frame)
                for tile in tiles[: frame["count"]] if sum(len(f["sounds"]) for f in frames) < SOUNDS else ():
                    with suppress(*UNREADABLE):  # the clip's own file may be gone
                        frame["sounds"][tile] = self.sound(values, tile, SOUND_SECONDS)
        return {"setup": self.setup(live=False), "scenes": scenes, "frames": frames, "pictures": list(pictures)}
