"""A view on a pure render function: sliders and choices beside a spectrogram that sounds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path

import anywidget
import numpy as np
import torch
import traitlets

from ..audio import Scaler, to_sound
from ..config import FrontEnd, InputError, write_atomic
from . import picture
from .offline import SCRIPT, STYLE, page, still

AHEAD = 16  # frames in one message
Values = dict[str, float | str]
Sound = tuple[np.ndarray, int]  # wave (samples,) in [-1, 1] and its rate


@dataclass(frozen=True)
class Slider:
    """A number from `low` to `high` in steps, starting at `value`; `kept` of them have a frame in a saved page."""

    name: str
    label: str
    low: float
    high: float
    step: float
    value: float
    kept: int = 15

    def snap(self, value: float) -> float:
        """The grid's value nearest to `value`."""
        steps = np.clip(round((float(value) - self.low) / self.step), 0, round((self.high - self.low) / self.step))
        return round(self.low + self.step * float(steps), 4)

    @property
    def start(self) -> float:
        return self.snap(self.value)

    @property
    def grid(self) -> list[float]:
        """All values that it can be set to."""
        return [self.snap(self.low + k * self.step) for k in range(round((self.high - self.low) / self.step) + 1)]

    def positions(self, start: float) -> list[float]:
        """Values kept for the saved page: evenly spread, both ends and the start among them."""
        return sorted({self.snap(v) for v in [*np.linspace(self.low, self.high, self.kept), start]})

    def text(self, value: float) -> str:
        return f"{value:g}" if float(self.step).is_integer() else f"{value:.2f}"


@dataclass(frozen=True)
class Choice:
    """One of several names, starting at `start`.

    `scenes` > 0: what the other controls do depends on it; in a saved page they move for this many of its options.
    """

    name: str
    label: str
    options: tuple[str, ...]
    start: str
    scenes: int = 0

    @property
    def grid(self) -> tuple[str, ...]:
        return self.options

    def positions(self, start: str) -> list[str]:
        """Options kept for the saved page: all, or the start and others evenly spread."""
        n, first = len(self.options), self.options.index(self.start)
        if not self.scenes or self.scenes >= n:
            return list(self.options)
        return [self.options[(first + i * n // self.scenes) % n] for i in range(self.scenes)]

    def text(self, value: str) -> str:
        return value


def as_message(frame: dict) -> dict:
    """A frame as its figure in the page unpacks it."""
    return frame | {"shades": frame["shades"].tobytes(), "shape": frame["shades"].shape}


decoding = threading.RLock()  # the number of threads belongs to the process


@contextmanager
def one_thread() -> Iterator[None]:
    """Decode on one thread: for one spectrogram a team that shares busy cores takes up to 150 ms instead of 2."""
    with decoding:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@dataclass(eq=False)
class SpectrogramView:
    """Displays itself: a live widget in JupyterLab, a page that needs no kernel wherever only HTML is shown."""

    render: Callable[[Values], np.ndarray]  # pure, from several threads; → (F, T) or, as tiles, (N, F, T) in [0, 1]
    controls: Sequence[Slider | Choice]
    front_end: FrontEnd
    scaler: Scaler
    title: str
    _: KW_ONLY
    sound: Callable[[Values, int], Sound | None] = lambda v, tile: None  # of a tile; None: inverted by Griffin-Lim
    caption: Callable[[Values], str] = lambda v: ""
    tone: Callable[[Values], tuple[float, float]] = lambda v: (0.0, 0.0)  # level and tilt (dB) that a scaler removed
    begin: Callable[[Values], Values] = lambda v: {}  # where controls stand when a choice with scenes has changed
    extras: dict[str, Callable[[Values], Sound]] = field(default_factory=dict)  # buttons with sounds of their own
    tiles: Callable[[Values], Sequence[str]] = lambda v: ()  # a name for each tile
    first: int = 0  # the tile that sounds until another is clicked; if it is not 0, the strip shows it alone
    offline_sounds: int = 5  # positions of a scene that keep their sound in a saved page

    def __post_init__(self) -> None:
        self.start: Values = {c.name: c.start for c in self.controls}
        self.scenes = tuple(c for c in self.controls if isinstance(c, Choice) and c.scenes)
        self._sound = lru_cache(maxsize=64)(self._make_sound)
        self._live: Live | None = None
        self._offline = ""

    def start_of(self, values: Values) -> Values:
        """Where Reset leads: the scene of `values` with every other control at its start."""
        chosen = self.start | {c.name: values[c.name] for c in self.scenes}
        return chosen | self.begin(chosen)

    def frame(self, values: Values) -> dict:
        """What is shown: shades of grey, their layout, and the words with them."""
        with one_thread():
            x = np.asarray(self.render(values))
        shades, tiles = picture.tile(x)
        return {
            "shades": shades,
            "tiles": tiles,
            "count": len(x) if x.ndim == 3 else 1,
            "seconds": x.shape[-1] * self.front_end.hop / self.front_end.sample_rate,
            "caption": self.caption(values),
            "labels": list(self.tiles(values)),
        }

    def ahead(self, name: str, values: Values) -> Iterator[dict]:
        """Frames of all positions that a slider leads to from `values`, the nearest first."""
        grid = next(c.grid for c in self.controls if c.name == name)
        for v in sorted(grid, key=lambda v: abs(v - values[name])):
            yield self.frame(values | {name: v}) | {"values": values | {name: v}}

    def described(self, control: Slider | Choice, values: Sequence[float | str]) -> dict:
        """A control for the page, with the positions that it has there."""
        kind = {"name": control.name, "label": control.label, "slider": isinstance(control, Slider)}
        texts = [control.text(v) for v in values]
        return kind | {"scene": control in self.scenes, "values": list(values), "texts": texts}

    def setup(self) -> dict:
        """What does not change: title, axes, colours, buttons."""
        more = {"extras": list(self.extras), "first": self.first}
        return picture.setup(self.title, self.front_end, self.scaler) | more

    def sound_file(self, values: Values, tile: int, seconds: float | None = None) -> bytes:
        """The sound of a tile at these values as MP3; a negative number is that of a button (-1 the first)."""
        return self._sound(tuple(values.items()), tile, seconds)

    def _make_sound(self, items: tuple, tile: int, seconds: float | None) -> bytes:
        values = dict(items)
        made = list(self.extras.values())[-1 - tile](values) if tile < 0 else self.sound(values, tile)
        if made is None:
            x = np.asarray(self.render(values))
            made = self.to_sound(x if x.ndim == 2 else x[min(tile, len(x) - 1)], values)
        return picture.sound_bytes(*made, seconds)

    def to_sound(self, x: np.ndarray, values: Values) -> Sound:
        """(F, T) in [0, 1] → the wave guessed from it and its rate."""
        return to_sound(self.scaler.inverse(x, *self.tone(values)), self.front_end), self.front_end.sample_rate

    def strip(self, n: int = 7) -> bytes:
        """PNG of the first control that is no scene at `n` positions, the others at their start."""
        control = next((c for c in self.controls if c not in self.scenes), self.controls[0])
        positions = control.positions(self.start[control.name])
        picked = [positions[i] for i in np.unique(np.linspace(0, len(positions) - 1, n).round().astype(int))]
        frames = [np.asarray(self.render(self.start | {control.name: v})) for v in picked]
        frames = [x[self.first] if self.first else x for x in frames]
        labels, title = [control.text(v) for v in picked], f"{self.title} · {control.label}"
        return picture.strip(frames, labels, self.front_end, title)

    def save(self, folder: Path, name: str) -> SpectrogramView:
        """Leave the strip as a picture in a folder; returns the view, so that a cell can end with it."""
        write_atomic(folder / f"{name}.png", self.strip())
        return self

    def offline(self) -> str:
        """HTML of the saved page: all frames inside, no request, no kernel."""
        self._offline = self._offline or page(self)
        return self._offline

    def live(self) -> Live:
        """The widget, made on first use."""
        self._live = self._live or Live(self)
        return self._live

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        if shown := still(self):
            return shown
        html = self.offline()
        return self.live()._repr_mimebundle_()[0] | {"text/plain": self.title, "text/html": html}


class Live(anywidget.AnyWidget):
    """The widget of one view; everything is drawn in the browser from shades of grey."""

    _esm, _css = SCRIPT, STYLE
    setup = traitlets.Dict().tag(sync=True)
    values = traitlets.Dict().tag(sync=True, echo_update=False)  # an echo would delay the picture
    frame = traitlets.Dict().tag(sync=True)  # with the values that it was made for
    reference = traitlets.Dict().tag(sync=True)  # the start, which differences are taken from until a picture is pinned
    note = traitlets.Unicode().tag(sync=True)

    def __init__(self, view: SpectrogramView) -> None:
        self.view, self.lock, self.scene = view, threading.Lock(), {}
        controls = [view.described(c, c.grid) for c in view.controls]
        super().__init__(setup=view.setup() | {"controls": controls}, values=view.start)
        self.draw()
        self.observe(self.draw, "values")
        self.on_msg(self._on_message)

    def draw(self, _: object = None) -> None:
        """Send the picture, and after a new choice of what the sliders stand for the one to compare with."""
        with self.lock:
            values = self.values
            try:
                if (scene := {c.name: values[c.name] for c in self.view.scenes}) != self.scene or not self.reference:
                    self.scene, self.reference = scene, self._frame(self.view.start_of(values))
                self.frame = self._frame(values)
            except InputError as e:
                self.note = str(e)

    def _frame(self, values: Values) -> dict:
        return as_message(self.view.frame(values)) | {"values": values}

    def _on_message(self, _: object, message: dict, __: object) -> None:
        """What the page asks for comes from a thread of its own: pictures do not wait for sounds."""
        do = {"start": self.go_to_start, "ahead": self.send_ahead, "sound": self.make_sound}[message.pop("do")]
        threading.Thread(target=do, kwargs=message, daemon=True).start()

    def go_to_start(self, values: Values) -> None:
        """Move the controls to the start of the scene of `values`."""
        self.values = self.view.start_of(values)

    def send_ahead(self, name: str, values: Values) -> None:
        """Send the frames that a slider leads to, so that the page draws a move at once, until others are asked for."""
        self.asked = asked = object()
        frames = (as_message(f) for f in self.view.ahead(name, values))
        while self.asked is asked and (some := list(islice(frames, AHEAD))):
            self.send({"ahead": name, "frames": some}, [f.pop("shades") for f in some])

    def make_sound(self, tile: int, values: Values) -> None:
        """Send the sound of a tile or, negative, of a button."""
        self.note, note = "making the sound …", ""
        try:
            data = self.view.sound_file(values, tile)
        except (InputError, ValueError, OSError) as e:  # the clip's own file may be gone
            data, note = b"", f"no sound: {e}"
        self.note = note
        self.send({"sound": tile, "values": values}, [data])
