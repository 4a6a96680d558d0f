"""The live side of a view: ipywidgets controls, a canvas fed with bytes, and a player that sounds on release."""

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

PAUSE = 0.25  # seconds without a move before a sound is made (at once when a pointer lets go)


class Figure(anywidget.AnyWidget):
    """Canvas with axes and a player; everything is drawn in the browser from shades of grey."""

    _esm, _css = SCRIPT, STYLE
    setup = traitlets.Dict().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    sound = traitlets.Dict().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)
    held = traitlets.Bool(False).tag(sync=True)  # a pointer is down on the view
    tile = traitlets.Int(0).tag(sync=True)  # the tile that sounds


class Live:
    """The widgets of one view. Callbacks arrive on a thread of their own while a cell runs."""

    def __init__(self, view: SpectrogramView) -> None:
        self.view = view
        self.lock = threading.Lock()
        self.timer: threading.Timer | None = None
        self.moved = self.resetting = False
        self.figure = Figure(setup=view.setup(), layout=widgets.Layout(flex="0 1 36em", min_width="20em"))
        self.inputs = {c.name: c.widget() for c in view.controls}
        for w in self.inputs.values():
            w.style.description_width, w.layout.width = "14em", "33em"
            w.observe(self._on_move, "value")
        self.play = widgets.Checkbox(True, description="play when released", indent=False)
        reset = widgets.Button(description="Reset", layout=widgets.Layout(width="8em"))
        reset.on_click(self._on_reset)
        self.figure.observe(self._on_release, "held")
        self.figure.observe(self._on_tile, "tile")
        buttons = widgets.HBox([reset, self.play], layout=widgets.Layout(margin="0.5em 0 0 14.3em"))
        panel = widgets.VBox([*self.inputs.values(), buttons])
        self.box = widgets.HBox([self.figure, panel], layout=widgets.Layout(flex_flow="row wrap", align_items="center"))
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
                f = self.view.frame(self.drawn)
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
        self.figure.note, data, note = "making the sound …", b"", ""
        try:
            data = self.view.sound_file(values, tile)
        except (InputError, ValueError, OSError) as e:
            note = f"no sound: {e}"
        if (values, tile) == (self.values, self.figure.tile) and not self.figure.held:  # else: a later timer makes it
            self.figure.sound = {"data": data, "aloud": True, "turn": time.monotonic()}  # the same sound may come again
        self.figure.note = note

    def _on_move(self, _: object) -> None:
        if self.resetting or self.values == self.drawn:  # a slider may report its start anew when it appears
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
