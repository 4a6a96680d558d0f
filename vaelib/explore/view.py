"""A view on a pure function: sliders and lists beside spectrograms that sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from ..audio import to_sound
from ..runs import Run
from .page import Explorer, figure_setup, picture, sound_of, wave_player

QUALITY, SOUND_SECONDS = 60, 6.0  # of WebP pictures and of sounds in a saved page
Values = dict[str, float | str]


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

    def evenly(self) -> list[float | str]:
        """The values in a saved page, both ends among them."""
        places = np.linspace(0, len(self.values) - 1, min(self.kept, len(self.values))).round().astype(int)
        return [self.values[i] for i in places]


@dataclass
class Shown:
    """What is seen, and heard by tile, where the controls stand."""

    x: np.ndarray  # (N, F, T) in [0, 1]
    labels: Sequence[str] = ()
    rows: Sequence[int | None] = ()  # the clip whose middle window sounds; None, as for tiles beyond: `x` is inverted
    tone: Sequence[float] = (0.0, 0.0)  # level and tilt (dB) that a scaler removed
    caption: str = ""


class SpectrogramView(Explorer):
    """Spectrograms that follow controls: all that is shown and heard is a function of the controls' values.

    `show` is that function, `begin` says where controls stand when a scene has changed, and the tile `first` sounds
    until another is clicked.
    """

    def __init__(self, run: Run, title: str, controls: Sequence[Control], show: Callable[[Values], Shown],
                 begin: Callable[[Values], Values] = lambda v: {}, first: int = 0) -> None:  # fmt: skip
        self.run, self.controls, self.show, self.begin, self.first = run, controls, show, begin, first
        choice = {c.name: c.start for c in controls if c.scene}
        self.start: Values = self.scene(choice)["start"]
        shown = [{"name": c.name, "label": c.label, "slider": c.slider} for c in controls]
        setup = figure_setup(run.store.front_end, run.scaler) | {"controls": shown, "choice": choice, "first": first}
        answers = {"scene": self.scene, "frame": self.frame, "sound": self.sound}
        super().__init__(title, setup, answers, ready=[("scene", choice), ("frame", self.start)])

    def scene(self, choice: Values, small: bool = False) -> dict:
        """Where controls start in a scene, and what each can be set to."""
        start = {c.name: choice.get(c.name, c.start) for c in self.controls}
        start |= self.begin(start)
        values = {c.name: list(c.evenly() if small else c.values) for c in self.controls}
        for c in self.controls:
            if start[c.name] not in values[c.name]:
                values[c.name] = sorted([*values[c.name], start[c.name]])
        return {"start": start, "values": values}

    def frame(self, values: Values, small: bool = False) -> dict:
        """The picture of all tiles, and the words with it."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # for one spectrogram a team on busy cores takes up to 150 ms instead of 2
        try:
            shown = self.show(values)
        finally:
            torch.set_num_threads(threads)
        fe, words = self.run.store.front_end, {"labels": list(shown.labels), "caption": shown.caption}
        seconds = shown.x.shape[-1] * fe.hop / fe.sample_rate
        return words | {"picture": picture(shown.x, QUALITY * small), "count": len(shown.x), "seconds": seconds}

    def sound(self, values: Values, tile: int, small: bool = False) -> str:
        """The sound of a tile as a data URI: a clip's own, else guessed from the picture by Griffin-Lim."""
        shown, store = self.show(values), self.run.store
        row = dict(enumerate(shown.rows)).get(tile)
        if row is None:
            wave = to_sound(self.run.scaler.inverse(shown.x[tile], *shown.tone), store.front_end)
        else:
            wave, _ = sound_of(store, row, window=True)
        return wave_player(wave, store.front_end.sample_rate, SOUND_SECONDS if small else None).src_attr()

    def kept(self) -> Iterator[tuple]:
        """Each control's move while the others stand at the start of a scene; sounds of that start and of the ends."""
        choices = [c for c in self.controls if c.scene]
        for given in product(*(c.evenly() for c in choices)):
            choice = {c.name: v for c, v in zip(choices, given, strict=True)}
            start, held = self.scene(choice, small=True).values()
            yield "scene", choice
            yield "frame", start
            yield from (("sound", start, tile) for tile in range(min(6, len(self.show(start).x))))
            for c in self.controls:
                heard = [c.values[0], c.values[-1]] if c.slider else c.values[:5]
                for v in [] if c.scene else held[c.name]:
                    moved = start | {c.name: v}
                    yield "frame", moved
                    if v in heard:
                        yield "sound", moved, self.first
