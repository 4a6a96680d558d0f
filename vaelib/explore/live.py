"""The live side of a view: ipywidgets controls, a canvas fed with bytes, and a player that sounds when one lets go."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import anywidget
import ipywidgets as widgets
import traitlets

from ..config import InputError
from .offline import SCRIPT, STYLE

if TYPE_CHECKING:
    from .view import SpectrogramView, Values

PAUSE = 0.3  # seconds without a move before a sound is made


def as_message(frame: dict) -> dict:
    """A frame as its figure in the page unpacks it."""
    return frame | {"shades": frame["shades"].tobytes(), "shape": frame["shades"].shape}


class Figure(anywidget.AnyWidget):
    """Canvas with axes, a player and its buttons; everything is drawn in the browser from shades of grey."""

    _esm, _css = SCRIPT, STYLE
    setup = traitlets.Dict().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    reference = traitlets.Dict().tag(sync=True)  # the start, which differences are taken from until a picture is pinned
    sound = traitlets.Dict().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)


class Live:
    """The widgets of one view. Callbacks arrive on a thread of their own while a cell runs."""

    def __init__(self, view: SpectrogramView) -> None:
        self.view, self.lock, self.setting = view, threading.Lock(), False
        self.timer = threading.Timer(0, print)
        self.tile = view.first  # the one that sounds
        self.drawn: Values = {}
        self.scene: Values | None = None
        self.figure = Figure(setup=view.setup(), layout=widgets.Layout(flex="1 1 20em", max_width="40em"))
        self.inputs = {c.name: c.widget() for c in view.controls}
        for control, w in zip(view.controls, self.inputs.values(), strict=True):
            w.description = w.tooltip = control.label
            w.style.description_width, w.layout.width = "11em", "auto"
            w.observe(self._on_move, "value")
        self.play = widgets.Checkbox(True, description="play when released", indent=False)
        self.figure.on_msg(self._on_button)
        panel = widgets.VBox([*self.inputs.values(), self.play], layout=widgets.Layout(flex="1 1 20em"))
        self.box = widgets.HBox([self.figure, panel], layout=widgets.Layout(flex_flow="row wrap"))
        self.box.add_class("vaelib-view")
        self.draw()

    @property
    def values(self) -> Values:
        """Rounded, for a browser sends 0.9649000000000005 back for 0.9649."""
        now = {name: w.value for name, w in self.inputs.items()}
        return {name: round(v, 4) if isinstance(v, float) else v for name, v in now.items()}

    def draw(self) -> None:
        with self.lock:
            self.drawn = self.values
            try:
                self._enter_scene()
                self.figure.frame = as_message(self.view.frame(self.drawn))
            except InputError as e:
                self.figure.note = str(e)

    def _enter_scene(self) -> None:
        """After a new choice of what the sliders stand for: their start, and the frame to compare with."""
        scene = {c.name: self.drawn[c.name] for c in self.view.scenes}
        if scene != self.scene:
            start = self.view.start_of(self.drawn)
            if self.scene is not None:
                self._set(start)
            self.scene = scene
            self.figure.reference = as_message(self.view.frame(start))

    def _set(self, values: Values) -> None:
        """Move the controls without drawing at each of them."""
        self.setting = True
        for name, value in values.items():
            self.inputs[name].value = value
        self.setting, self.drawn = False, self.values

    def sound_after(self, pause: float, tile: int) -> None:
        """Make a sound once nothing has moved for `pause` seconds."""
        self.timer.cancel()
        self.timer = threading.Timer(pause, self._make_sound, (tile,))
        self.timer.daemon = True
        self.timer.start()

    def _make_sound(self, tile: int) -> None:
        values = self.values
        self.figure.note, note = "making the sound …", ""
        try:
            data = self.view.sound_file(values, tile)
        except (InputError, ValueError, OSError) as e:  # the clip's own file may be gone
            data, note = b"", f"no sound: {e}"
        self.figure.note = note
        if data and values == self.values:  # else: a later timer makes it
            self.figure.sound = {"data": data, "turn": time.monotonic()}  # the same sound may come again

    def _on_move(self, _: object) -> None:
        if self.setting or self.values == self.drawn:  # a slider may report its start anew when it appears
            return
        self.draw()
        if self.play.value:
            self.sound_after(PAUSE, self.tile)

    def _on_button(self, _: object, message: dict, __: object) -> None:
        """A tile (or, negative, a button) to hear, or back to the start."""
        if message["do"] == "reset":
            self._set(self.view.start_of(self.values))
            self.draw()
        else:
            self.tile = max(self.tile, 0) if message["tile"] < 0 else message["tile"]
            self.sound_after(0, message["tile"])
