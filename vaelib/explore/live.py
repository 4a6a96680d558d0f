"""The live side of a view: ipywidgets controls, a canvas fed with bytes, and a player that sounds on release."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets

from ..config import InputError
from . import picture
from .offline import SCRIPT, STYLE

if TYPE_CHECKING:
    from .controls import Values
    from .view import SpectrogramView

AHEAD = 24  # frames in one message
PAUSE = 0.25  # seconds without a move before a sound is made (at once when a pointer lets go)


class Figure(anywidget.AnyWidget):
    """Canvas with axes, a player and its buttons; everything is drawn in the browser from shades of grey."""

    _esm, _css = SCRIPT, STYLE
    setup = traitlets.Dict().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    reference = traitlets.Dict().tag(sync=True)  # the frame that differences are taken from
    sound = traitlets.Dict().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)
    inputs = traitlets.Dict().tag(sync=True, **widgets.widget_serialization)  # so that the page hears of a move first
    held = traitlets.Bool(False).tag(sync=True)  # a pointer is down on the view


class Live:
    """The widgets of one view. Callbacks arrive on a thread of their own while a cell runs."""

    def __init__(self, view: SpectrogramView) -> None:
        self.view = view
        self.lock = threading.Lock()
        self.timer: threading.Timer | None = None
        self.moved = self.setting = False
        self.drawn: Values = {}
        self.tile = 0  # the one that sounds
        self.ahead: object = None  # who sends frames ahead
        self.figure = Figure(setup=view.setup(), layout=widgets.Layout(flex="0 1 36em", min_width="20em"))
        self.inputs = {c.name: c.widget() for c in view.controls}
        for w in self.inputs.values():
            w.style.description_width, w.layout.width = "13.5em", "33em"
            w.observe(self._on_move, "value")
        self.figure.inputs = self.inputs
        self.play = widgets.Checkbox(True, description="play when released", indent=False)
        self.play.layout.margin = "0.5em 0 0 13.8em"
        self.figure.observe(self._on_release, "held")
        self.figure.on_msg(self._on_button)
        panel = widgets.VBox([*self.inputs.values(), self.play], layout=widgets.Layout(margin="1.4em 0 0 0"))
        self.box = widgets.HBox(
            [self.figure, panel], layout=widgets.Layout(flex_flow="row wrap", align_items="flex-start")
        )
        self.box.add_class("vaelib-view")
        self.scene: Values = {}
        self.draw()

    @property
    def values(self) -> Values:
        """Rounded, for a browser sends 0.9649000000000005 back for 0.9649."""
        now = {name: w.value for name, w in self.inputs.items()}
        return {name: round(v, 4) if isinstance(v, float) else v for name, v in now.items()}

    def draw(self, begin: bool = True) -> None:
        with self.lock:
            self.drawn = self.values
            try:
                self._enter_scene(begin)
                self.figure.frame = picture.as_message(self.view.frame(self.drawn))
            except InputError as e:
                self.figure.note = str(e)

    def _enter_scene(self, begin: bool) -> None:
        """After a new choice of what the sliders stand for: their start (if asked), and the frame to compare with."""
        scene = {c.name: self.drawn[c.name] for c in self.view.scenes}
        if scene == self.scene and self.figure.reference:
            return
        start = self.view.start_of(self.drawn)
        if begin and self.view.begin and self.scene:
            self._set(start)
            self.drawn = self.values
        self.scene = scene
        self.figure.reference = picture.as_message(self.view.frame(start))

    def _set(self, values: Values) -> None:
        """Move the controls without drawing at each of them."""
        self.setting = True
        try:
            for name, value in values.items():
                self.inputs[name].value = value
        finally:
            self.setting = False

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
        values, tile = self.values, self.tile
        data = self._noted(lambda: self.view.sound_file(values, tile))
        if (values, tile) == (self.values, self.tile) and not self.figure.held:  # else: a later timer makes it
            self.figure.sound = {"data": data, "aloud": True, "turn": time.monotonic()}  # the same sound may come again

    def _noted(self, make: Callable[[], bytes]) -> bytes:
        """A sound file, with a word in the figure while it is made and if it cannot be."""
        self.figure.note, note = "making the sound …", ""
        try:
            return make()
        except (InputError, ValueError, OSError) as e:
            note = f"no sound: {e}"
            return b""
        finally:
            self.figure.note = note

    def _on_move(self, _: object) -> None:
        if self.setting or self.values == self.drawn:  # a slider may report its start anew when it appears
            return
        self.draw()
        self.moved = True
        if not self.figure.held:
            self.sound_after(PAUSE)

    def _on_release(self, change: dict) -> None:
        if not change["new"] and self.moved:
            self.sound_after(PAUSE / 5)

    def _on_button(self, _: object, message: dict, __: object) -> None:
        """A tile or a sound to hear, a slider that may move, a pinned setting or, without values, the start."""
        if message["do"] == "tile":
            self.tile = int(message["tile"])
            self.sound_after(0)
        elif message["do"] == "extra":
            threading.Thread(target=self._play_extra, args=(int(message["index"]), self.values), daemon=True).start()
        elif message["do"] == "ahead":
            threading.Thread(target=self._send_ahead, args=(message["slider"],), daemon=True).start()
        elif message["do"] == "go":
            self.go(message["values"] or self.view.start_of(self.values))

    def go(self, values: Values) -> None:
        """Move every control to where it was."""
        self._set(values)
        self.draw(begin=False)
        self.sound_after(0)

    def _send_ahead(self, slider: str) -> None:
        """The frames that a slider leads to, a few at a time, until another is asked for or another input moves.

        The last message may be empty: the page may ask again.
        """
        self.ahead = mine = object()
        values, sent = self.values, []
        try:
            for frame in self.view.ahead(slider, values):
                if self.ahead is not mine:
                    return
                if self.values | {slider: 0} != values | {slider: 0}:
                    sent = []
                    break
                sent.append(picture.as_message(frame))
                if len(sent) == AHEAD:
                    self._send_frames(slider, sent)
                    sent = []
        except InputError:  # the move itself will say so
            sent = []
        self._send_frames(slider, sent)

    def _send_frames(self, slider: str, frames: list[dict]) -> None:
        self.figure.send({"ahead": slider, "frames": frames}, [f.pop("shades") for f in frames])

    def _play_extra(self, index: int, values: Values) -> None:
        data = self._noted(lambda: self.view.extra_file(index, values))
        frames = self.view.path(index, values) if data else []
        shape = [len(frames), *np.shape(frames)[1:]]
        self.figure.send({"extra": index, "shape": shape}, [data, np.asarray(frames, np.uint8).tobytes()])
