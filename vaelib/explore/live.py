"""The live side of a view: one widget that sends what its controls are set to and is sent pictures and sounds."""

from __future__ import annotations

import threading
from itertools import islice
from typing import TYPE_CHECKING

import anywidget
import traitlets

from ..config import InputError
from .offline import SCRIPT, STYLE

if TYPE_CHECKING:
    from .view import SpectrogramView, Values


AHEAD = 16  # frames in one message


def as_message(frame: dict) -> dict:
    """A frame as its figure in the page unpacks it."""
    return frame | {"shades": frame["shades"].tobytes(), "shape": frame["shades"].shape}


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
