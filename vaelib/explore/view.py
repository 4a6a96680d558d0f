"""A view on a pure render function: sliders and choices beside a spectrogram that sounds."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np
import torch
from IPython.display import Image

from ..audio import Scaler, mel_frequencies, to_sound
from ..config import FrontEnd
from . import picture
from .live import Live
from .offline import player

KEPT_SOUNDS = 64

Values = dict[str, float | str]


@dataclass(frozen=True)
class Slider:
    """A number: `steps` values about `low` to `high`, `value` (the start) among them."""

    name: str
    label: str
    low: float
    high: float
    steps: int
    value: float

    def positions(self) -> list[float]:
        """Every value it can take: a grid through the start, for a browser moves a value off the grid onto it."""
        step = round((self.high - self.low) / max(self.steps - 1, 1), 4) or 1.0
        before = round((self.value - self.low) / step)
        return [round(self.start + step * (i - before), 4) for i in range(self.steps)]

    @property
    def start(self) -> float:
        return round(self.value, 4)

    def text(self, value: float) -> str:
        return f"{value:g}" if self._whole() else f"{value:.2f}"

    def _whole(self) -> bool:
        return all(float(v).is_integer() for v in self.positions())

    def widget(self) -> widgets.Widget:
        at = self.positions()
        return widgets.FloatSlider(
            self.start, min=at[0], max=at[-1], step=at[1] - at[0] if len(at) > 1 else 1.0,
            description=self.label, readout_format="d" if self._whole() else ".2f",
        )  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One of several names, starting at `value`."""

    name: str
    label: str
    options: tuple[str, ...]
    value: str

    @property
    def start(self) -> str:
        return self.value

    def positions(self) -> list[str]:
        return list(self.options)

    def text(self, value: str) -> str:
        return value

    def widget(self) -> widgets.Widget:
        return widgets.Dropdown(options=list(self.options), value=self.value, description=self.label)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Decode on one thread: for a single spectrogram a team that shares busy cores takes 130 ms instead of 2."""
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
        tone: Level (dB) and tilt (dB) put back by a scaler that removed them.
        offline_sounds: How many positions get a sound in the offline player.
    """

    def __init__(
        self,
        render: Callable[[Values], np.ndarray],
        controls: Sequence[Slider | Choice],
        front_end: FrontEnd,
        scaler: Scaler,
        title: str,
        sound: Callable[[Values, int], tuple[np.ndarray, int]] | None = None,
        caption: str | Callable[[Values], str] = "",
        tone: tuple[float, float] = (0.0, 0.0),
        offline_sounds: int = 5,
    ) -> None:
        self.render, self.controls, self.front_end, self.scaler = render, tuple(controls), front_end, scaler
        self.title, self.caption, self.tone, self.offline_sounds = title, caption, tone, offline_sounds
        self.sound = sound or self._inverted
        self.start: Values = {c.name: c.start for c in self.controls}
        self._sounds: OrderedDict[tuple, bytes] = OrderedDict()
        self._sound_lock = threading.Lock()
        self._live: Live | None = None
        self._offline = ""

    def frame(self, values: Values) -> dict:
        """What is shown: shades of grey, their layout, and the words below."""
        with _one_thread():
            x = np.asarray(self.render(values))
        shades, tiles = picture.tile(x)
        caption = self.caption(values) if callable(self.caption) else self.caption
        seconds = x.shape[-1] * self.front_end.hop / self.front_end.sample_rate
        return {"shades": shades, "tiles": tiles, "seconds": seconds, "caption": caption}

    def setup(self) -> dict:
        """What does not change: title, axes, colours."""
        return {
            "title": self.title,
            "ticks": picture.hz_ticks(self.front_end),
            "hz": mel_frequencies(self.front_end).round(1).tolist(),
            "db": [self.scaler.low_db, self.scaler.high_db],
            "lut": picture.lut().tolist(),
            "gap": picture.GAP,
        }

    def sound_file(self, values: Values, tile: int = 0, seconds: float | None = None) -> bytes:
        """The sound at these values as MP3; made once, one at a time."""
        key = (*values.values(), tile, seconds)
        with self._sound_lock:
            if key not in self._sounds:
                self._sounds[key] = picture.sound_bytes(*self.sound(values, tile), seconds)
                if len(self._sounds) > KEPT_SOUNDS:
                    self._sounds.popitem(last=False)
            return self._sounds[key]

    def _inverted(self, values: Values, tile: int) -> tuple[np.ndarray, int]:
        x = np.asarray(self.render(values))
        x = x if x.ndim == 2 else x[min(tile, len(x) - 1)]
        return to_sound(self.scaler.inverse(x, *self.tone), self.front_end), self.front_end.sample_rate

    def strip(self, control: str | None = None, n: int = 7) -> Image:
        """Picture of one control (default: the first) at `n` positions, the others at their start."""
        chosen = next(c for c in self.controls if control in (None, c.name))
        positions = chosen.positions()
        picked = [positions[i] for i in np.unique(np.linspace(0, len(positions) - 1, n).round().astype(int))]
        frames = [self.render(self.start | {chosen.name: v}) for v in picked]
        labels = [chosen.text(v) for v in picked]
        fig, _ = picture.strip(frames, labels, self.front_end, f"{self.title} · {chosen.label}")
        buffer = io.BytesIO()
        fig.savefig(buffer)
        return Image(buffer.getvalue())

    def offline(self) -> str:
        """HTML of the offline player: all frames inside, no request, no kernel."""
        self._offline = self._offline or player(self)
        return self._offline

    def live(self) -> Live:
        """The widget, made on first use."""
        self._live = self._live or Live(self)
        return self._live

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        html, live = self.offline(), self.live()
        if not live.figure.sound:  # the first one made is that of the start
            live.figure.sound = {"data": next(iter(self._sounds.values()), b"")}
        return live.box._repr_mimebundle_() | {"text/plain": self.title, "text/html": html}
