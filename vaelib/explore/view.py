"""A view on a pure render function: sliders and choices beside a spectrogram that sounds."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from ..audio import Scaler, to_sound
from ..config import FrontEnd, write_atomic
from . import picture
from .controls import Choice, Extra, Slider, Values
from .live import Live
from .offline import player, still

KEPT_SOUNDS = 64
AHEAD_BYTES = 2_000_000  # most that is sent to the page before a slider moves


_decoding = threading.RLock()  # the number of threads belongs to the process: one frame at a time changes it


@contextmanager
def _one_thread() -> Iterator[None]:
    """Decode on one thread: for a single spectrogram a team that shares busy cores takes 130 ms instead of 2."""
    with _decoding:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


class SpectrogramView:
    """Displays itself: a live widget in JupyterLab, an offline player wherever only HTML is shown.

    Args:
        render: Pure function of the controls' values → (F, T) or, shown as tiles, (N, F, T) in [0, 1].
            It is called from several threads.
        controls: Sliders and choices.
        front_end: What the spectrograms were made with.
        scaler: [0, 1] ↔ dB.
        title, caption: Plain text; a function caption gets the values.
        sound: Function (values, tile) → (wave, rate); None: the tile inverted by Griffin-Lim.
        tone: Function of the values → level (dB) and tilt (dB) put back by a scaler that removed them.
        begin: Where the sliders stand when a choice with scenes has changed; None: they stay where they are.
        extras: Buttons with sounds of their own.
        tiles: Function of the values → a word for each tile.
        offline_sounds: How many positions of a scene get a sound in the offline player.
    """

    def __init__(
        self,
        render: Callable[[Values], np.ndarray],
        controls: Sequence[Slider | Choice],
        front_end: FrontEnd,
        scaler: Scaler,
        title: str,
        *,
        sound: Callable[[Values, int], tuple[np.ndarray, int]] | None = None,
        caption: str | Callable[[Values], str] = "",
        tone: Callable[[Values], tuple[float, float]] = lambda v: (0.0, 0.0),
        begin: Callable[[Values], Values] | None = None,
        extras: Sequence[Extra] = (),
        tiles: Callable[[Values], Sequence[str]] | None = None,
        offline_sounds: int = 5,
    ) -> None:
        self.render, self.controls, self.front_end, self.scaler = render, tuple(controls), front_end, scaler
        self.title, self.caption, self.tone, self.begin, self.tiles = title, caption, tone, begin, tiles
        self.extras, self.offline_sounds = tuple(extras), offline_sounds
        self.sound = sound or self._inverted
        self.start: Values = {c.name: c.start for c in self.controls}
        self._sounds: OrderedDict[tuple, bytes] = OrderedDict()
        self._sound_lock = threading.Lock()
        self._live: Live | None = None
        self._offline = ""

    @property
    def scenes(self) -> tuple[Choice, ...]:
        """The choices that the other controls depend on."""
        return tuple(c for c in self.controls if isinstance(c, Choice) and c.scenes)

    def start_of(self, values: Values) -> Values:
        """Where Reset leads: the scene of `values` with every other control at its start."""
        chosen = self.start | {c.name: values[c.name] for c in self.scenes}
        return chosen | self.begin(chosen) if self.begin else chosen

    def frame(self, values: Values) -> dict:
        """What is shown: shades of grey, their layout, and the words with them."""
        with _one_thread():
            x = np.asarray(self.render(values))
        shades, tiles = picture.tile(x)
        return {
            "shades": shades, "tiles": tiles, "count": len(x) if x.ndim == 3 else 1,
            "seconds": x.shape[-1] * self.front_end.hop / self.front_end.sample_rate,
            "caption": self.caption(values) if callable(self.caption) else self.caption,
            "labels": list(self.tiles(values)) if self.tiles and x.ndim == 3 else [],
            "values": dict(values), "said": self._said(values),
        }  # fmt: skip

    def ahead(self, name: str, values: Values) -> Iterator[dict]:
        """Frames that a slider leads to from `values`, the nearest first, each with the `gap` between their positions.

        All of its positions where their pictures are small; fewer where they would take more than `AHEAD_BYTES`.
        """
        slider = next(c for c in self.controls if c.name == name)
        most = max(2, AHEAD_BYTES // self.frame(values)["shades"].nbytes)
        positions, gap = slider.around(values[name], most)
        for v in positions:
            yield self.frame(values | {name: v}) | {"gap": gap}

    def _said(self, values: Values) -> str:
        """The values that are not at their start, in a few words: the name of a pinned setting."""
        start = self.start_of(values)
        moved = [c for c in self.controls if c in self.scenes or values[c.name] != start[c.name]]
        names = [f"{c.label.split(':')[0]} {c.text(values[c.name])}" for c in moved if isinstance(c, Slider)]
        return " · ".join([*[c.text(values[c.name]) for c in moved if isinstance(c, Choice)], *(names or ["start"])])

    def setup(self) -> dict:
        """What does not change: title, axes, colours, buttons."""
        more = {
            "extras": [e.label for e in self.extras],
            "sliders": [c.name for c in self.controls if isinstance(c, Slider)],
        }
        return picture.setup(self.title, self.front_end, self.scaler) | more

    def sound_file(self, values: Values, tile: int = 0, seconds: float | None = None) -> bytes:
        """The sound at these values as MP3; made once, one at a time."""
        return self._kept((*values.values(), tile, seconds), lambda: self.sound(values, tile), seconds)

    def extra_file(self, index: int, values: Values, seconds: float | None = None) -> bytes:
        """The sound of a button as MP3."""
        key = ("extra", index, *values.values(), seconds)
        return self._kept(key, lambda: self.extras[index].sound(values), seconds)

    def path(self, index: int, values: Values) -> list[np.ndarray]:
        """Shades shown while an extra sounds: of every kept position of the slider that it moves, or its own."""
        extra = self.extras[index]
        if extra.shows:
            return [picture.tile(extra.shows(values))[0]]
        moved = [c for c in self.controls if c.name == extra.moves]
        return [self.frame(values | {c.name: v})["shades"] for c in moved for v in c.positions()]

    def _kept(self, key: tuple, make: Callable[[], tuple[np.ndarray, int]], seconds: float | None) -> bytes:
        with self._sound_lock:
            if key not in self._sounds:
                self._sounds[key] = picture.sound_bytes(*make(), seconds)
                if len(self._sounds) > KEPT_SOUNDS:
                    self._sounds.popitem(last=False)
            return self._sounds[key]

    def _inverted(self, values: Values, tile: int) -> tuple[np.ndarray, int]:
        x = np.asarray(self.render(values))
        return self.to_sound(x if x.ndim == 2 else x[min(tile, len(x) - 1)], values)

    def to_sound(self, x: np.ndarray, values: Values) -> tuple[np.ndarray, int]:
        """(F, T) in [0, 1] → the wave guessed from it and its rate."""
        return to_sound(self.scaler.inverse(x, *self.tone(values)), self.front_end), self.front_end.sample_rate

    def strip(self, control: str | None = None, n: int = 7) -> bytes:
        """PNG of one control (default: the first that is not a scene) at `n` positions, the others at their start."""
        free = [c for c in self.controls if c not in self.scenes] or self.controls
        chosen = next(c for c in (free if control is None else self.controls) if control in (None, c.name))
        positions = chosen.positions()
        picked = [positions[i] for i in np.unique(np.linspace(0, len(positions) - 1, n).round().astype(int))]
        frames = [self.render(self.start | {chosen.name: v}) for v in picked]
        labels = [chosen.text(v) for v in picked]
        fig, _ = picture.strip(frames, labels, self.front_end, f"{self.title} · {chosen.label}")
        buffer = io.BytesIO()
        fig.savefig(buffer)
        return buffer.getvalue()

    def save(self, folder: Path, name: str) -> SpectrogramView:
        """Leave the strip as a picture in a folder; returns the view, so that a cell can end with it."""
        write_atomic(folder / f"{name}.png", self.strip())
        return self

    def offline(self) -> str:
        """HTML of the offline player: all frames inside, no request, no kernel."""
        self._offline = self._offline or player(self)
        return self._offline

    def live(self) -> Live:
        """The widget, made on first use."""
        self._live = self._live or Live(self)
        return self._live

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        if shown := still(self):
            return shown
        html, live = self.offline(), self.live()
        if not live.figure.sound:  # the first one made is that of the start
            live.figure.sound = {"data": next(iter(self._sounds.values()), b"")}
        return live.box._repr_mimebundle_() | {"text/plain": self.title, "text/html": html}
