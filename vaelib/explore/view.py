"""A view on a pure render function: sliders and choices beside a spectrogram that sounds."""

from __future__ import annotations

import io
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anywidget
import ipywidgets as widgets
import numpy as np
import torch
import traitlets
from IPython.display import Image

from ..audio import Scaler, mel_frequencies, to_sound
from ..config import FrontEnd, InputError
from . import picture
from .offline import SOUND_SECONDS, player

HERE = Path(__file__).parent
SCRIPT, STYLE = (HERE / "view.js").read_text(), (HERE / "view.css").read_text()
PAUSE = 0.25  # seconds without a move before a sound is made (at once when a pointer lets go)
KEPT_SOUNDS = 64

Values = dict[str, float | str]


@dataclass(frozen=True)
class Slider:
    """A number: `steps` values from `low` to `high`, starting at `value`."""

    name: str
    label: str
    low: float
    high: float
    steps: int
    value: float

    def positions(self) -> list[float]:
        """Every value it can take, the starting one among them."""
        return sorted({*np.linspace(self.low, self.high, self.steps).round(6).tolist(), float(self.value)})

    def text(self, value: float) -> str:
        return f"{value:g}" if self._whole() else f"{value:.2f}"

    def _whole(self) -> bool:
        return all(float(v).is_integer() for v in self.positions())

    def widget(self) -> widgets.Widget:
        return widgets.FloatSlider(
            self.value, min=self.low, max=self.high, step=(self.high - self.low) / max(self.steps - 1, 1),
            description=self.label, readout_format="d" if self._whole() else ".2f",
        )  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One of several names, starting at `value`."""

    name: str
    label: str
    options: tuple[str, ...]
    value: str

    def positions(self) -> list[str]:
        return list(self.options)

    def text(self, value: str) -> str:
        return value

    def widget(self) -> widgets.Widget:
        return widgets.Dropdown(options=list(self.options), value=self.value, description=self.label)


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
        self.start: Values = {c.name: c.value for c in self.controls}
        self._sounds: OrderedDict[tuple, bytes] = OrderedDict()
        self._sound_lock = threading.Lock()
        self._live: _Live | None = None
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
        key = self._sound_key(values, tile, seconds)
        with self._sound_lock:
            if key not in self._sounds:
                self._sounds[key] = picture.sound_bytes(*self.sound(values, tile), seconds)
                if len(self._sounds) > KEPT_SOUNDS:
                    self._sounds.popitem(last=False)
            return self._sounds[key]

    @staticmethod
    def _sound_key(values: Values, tile: int, seconds: float | None) -> tuple:
        return (*values.values(), tile, seconds)

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
        self._offline = self._offline or player(self, SCRIPT, STYLE)
        return self._offline

    def live(self) -> _Live:
        """The widget, made on first use."""
        self._live = self._live or _Live(self)
        return self._live

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        html, live = self.offline(), self.live()
        live.figure.sound = live.figure.sound or {
            "data": self._sounds.get(self._sound_key(self.start, 0, SOUND_SECONDS), b"")
        }
        return live.box._repr_mimebundle_() | {"text/plain": self.title, "text/html": html}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Decode on one thread: for a single spectrogram a team that shares busy cores takes 130 ms instead of 2."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Figure(anywidget.AnyWidget):
    """Canvas with axes and a player; everything is drawn in the browser from shades of grey."""

    _esm, _css = SCRIPT, STYLE
    setup = traitlets.Dict().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    sound = traitlets.Dict().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)
    held = traitlets.Bool(False).tag(sync=True)  # a pointer is down on the view
    tile = traitlets.Int(0).tag(sync=True)  # the tile that sounds


class _Live:
    """The widgets of one view. Callbacks arrive on a thread of their own while a cell runs."""

    def __init__(self, view: SpectrogramView) -> None:
        self.view = view
        self.lock = threading.Lock()
        self.timer: threading.Timer | None = None
        self.moved = self.resetting = False
        self.figure = _Figure(setup=view.setup())
        self.inputs = {c.name: c.widget() for c in view.controls}
        for w in self.inputs.values():
            w.style.description_width, w.layout.width = "11em", "30em"
            w.observe(self._on_move, "value")
        self.play = widgets.Checkbox(True, description="play when released", indent=False)
        reset = widgets.Button(description="Reset", layout=widgets.Layout(width="8em"))
        reset.on_click(self._on_reset)
        self.figure.observe(self._on_release, "held")
        self.figure.observe(self._on_tile, "tile")
        buttons = widgets.HBox([reset, self.play], layout=widgets.Layout(margin="0.5em 0 0 11.3em"))
        panel = widgets.VBox([*self.inputs.values(), buttons])
        self.box = widgets.HBox([self.figure, panel], layout=widgets.Layout(flex_flow="row wrap", align_items="center"))
        self.box.add_class("vaelib-view")
        self.draw()

    @property
    def values(self) -> Values:
        return {name: w.value for name, w in self.inputs.items()}

    def _key(self) -> tuple:
        return tuple(round(v, 4) if isinstance(v, float) else v for v in self.values.values())

    def draw(self) -> None:
        with self.lock:
            self.drawn = self._key()
            try:
                f = self.view.frame(self.values)
            except InputError as e:
                self.figure.note = str(e)
                return
            self.figure.frame = f | {"shades": f["shades"].tobytes(), "shape": f["shades"].shape}

    def sound_after(self, pause: float) -> None:
        """Make the sound once nothing has moved for `pause` seconds."""
        if self.timer:
            self.timer.cancel()
        if self.play.value:
            self.timer = threading.Timer(pause, self._make_sound)
            self.timer.daemon = True
            self.timer.start()

    def _make_sound(self) -> None:
        self.moved = False
        values, tile = self.values, self.figure.tile
        self.figure.note = "making the sound …"
        try:
            data, note = self.view.sound_file(values, tile), ""
        except InputError as e:
            data, note = b"", f"no sound: the file {e}"
        if (values, tile) == (self.values, self.figure.tile) and not self.figure.held:  # else: a later timer makes it
            self.figure.sound = {"data": data, "aloud": True, "turn": time.monotonic()}  # the same sound may come again
        self.figure.note = note

    def _on_move(self, _: object) -> None:
        if self.resetting or self._key() == self.drawn:  # a slider reports its rounded start when it appears
            return
        self.draw()
        self.moved = True
        if not self.figure.held:
            self.sound_after(PAUSE)

    def _on_release(self, change: dict) -> None:
        if not change["new"] and self.moved:
            self.sound_after(PAUSE / 5)

    def _on_tile(self, _: object) -> None:
        self.sound_after(0)

    def _on_reset(self, _: object) -> None:
        self.resetting = True
        try:
            for name, value in self.view.start.items():
                self.inputs[name].value = value
        finally:
            self.resetting = False
        self._on_move(None)
