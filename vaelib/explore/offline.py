"""The offline player: a view's frames and a few sounds inside one piece of HTML."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import picture
from .controls import Choice, Slider

if TYPE_CHECKING:
    from .clips import ClipsView
    from .view import SpectrogramView

NO_PLAYERS = "VAELIB_NO_PLAYERS"  # in the environment of a kernel whose notebook becomes no page
HERE = Path(__file__).parent
SCRIPT = (HERE / "figure.js").read_text() + (HERE / "view.js").read_text()
STYLE = (HERE / "figure.css").read_text() + (HERE / "view.css").read_text()
MOST_BYTES = 3_000_000
SOUND_SECONDS = 6.0
SCENES_WITH_SOUND = 12  # the first of a saved copy: inverting a spectrogram takes a quarter of a second
SHARED = ("tiles", "count", "seconds", "caption", "labels")  # kept with a frame only where they differ from the start's
PLANS = ((85, 1), (60, 1), (60, 2), (50, 4), (40, 8), (30, 16))  # (WebP quality, every n-th position), best first


def still(view: SpectrogramView | ClipsView) -> dict[str, str]:
    """A picture in place of controls and sounds where nobody will use them (`NO_PLAYERS`), by MIME type; else {}."""
    if not os.environ.get(NO_PLAYERS):
        return {}
    image = f'<img src="{picture.poster(view.strip())}" alt="{html.escape(view.title)}" width="900">'
    return {"text/plain": view.title, "text/html": image}


def player(view: SpectrogramView) -> str:
    """Self-contained HTML: each control moves through its frames while the others stay at their start.

    All words reach the page as JSON and are set as text, never as markup. Where no script runs, the strip is seen.
    """
    made = [_Scene(view, chosen) for chosen in product(*(c.positions() for c in view.scenes))]
    for quality, stride in PLANS[_first_plan(made) :]:
        pictures = _Pictures(quality)
        scenes = [scene.record(pictures, stride) for scene in made]
        if pictures.size < 0.7 * MOST_BYTES:
            break
    room = 0.95 * MOST_BYTES - pictures.size
    for i, (scene, record) in enumerate(zip(made, scenes, strict=True)):
        share = room / min(len(made), SCENES_WITH_SOUND) if i < SCENES_WITH_SOUND else 0
        record |= scene.sounds(record["controls"], share, pictures)
    data = {"setup": view.setup(), "choices": [{"label": c.label, "options": c.positions()} for c in view.scenes],
            "scenes": scenes, "pictures": pictures.kept}  # fmt: skip
    return (
        f'<div class="vaelib-player"><style>{STYLE}</style>'
        f'<img src="{picture.poster(view.strip())}" alt="{html.escape(view.title)}" width="900">'
        f'<script type="application/json">{as_json(data)}</script></div>'
        f'<script type="module">{SCRIPT}</script>'
    )


def _first_plan(made: Sequence[_Scene]) -> int:
    """Number of the best plan that may fit, guessed from one picture of each scene.

    Frames of a full-size model are costly: those that will be left out are not rendered.
    """
    for number, (quality, stride) in enumerate(PLANS):
        sizes = (scene.count(stride) * len(picture.webp(scene.common["shades"], quality)) for scene in made)
        if sum(sizes) < 0.7 * MOST_BYTES:  # in base64 a third more; others may be a little smaller
            return number
    return len(PLANS) - 1


def as_json(data: dict) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


class _Pictures:
    """Every picture once, however many positions show it."""

    def __init__(self, quality: int) -> None:
        self.quality, self.kept, self.size = quality, [], 0
        self.index: dict[bytes, int] = {}

    def add(self, shades: np.ndarray) -> int:
        key = bytes(str(shades.shape), "ascii") + shades.tobytes()
        if key not in self.index:
            self.index[key] = len(self.kept)
            self.kept.append(picture.data_uri(picture.webp(shades, self.quality), "image/webp"))
            self.size += len(self.kept[-1])
        return self.index[key]


class _Scene:
    """One combination of the choices that the other controls depend on, with all its frames."""

    def __init__(self, view: SpectrogramView, chosen: Sequence[str]) -> None:
        self.view = view
        self.chosen = [c.positions().index(o) for c, o in zip(view.scenes, chosen, strict=True)]
        self.start = view.start_of(view.start | {c.name: o for c, o in zip(view.scenes, chosen, strict=True)})
        self.free = [c for c in view.controls if c not in view.scenes]
        self.frames: dict[tuple, dict] = {}
        self.common = view.frame(self.start)

    def frame(self, name: str, value: object) -> dict:
        """The frame of one control at a value, made once."""
        if (name, value) not in self.frames:
            at_start = value == self.start[name]
            self.frames[name, value] = self.common if at_start else self.view.frame(self.start | {name: value})
        return self.frames[name, value]

    def kept(self, control: Slider | Choice, stride: int) -> list:
        """Every n-th position of a control, its start and its end."""
        start, every = self.start[control.name], control.positions(self.start[control.name])
        return [v for i, v in enumerate(every) if i % stride == 0 or i == len(every) - 1 or v == start]

    def count(self, stride: int) -> int:
        """Frames of all controls."""
        return sum(len(self.kept(c, stride)) for c in self.free)

    def record(self, pictures: _Pictures, stride: int) -> dict:
        """What the page gets: words that differ from those of the start only where they do."""
        controls = [self._control(c, pictures, stride) for c in self.free]
        return {"chosen": self.chosen, "controls": controls} | {k: self.common[k] for k in SHARED}

    def _control(self, control: Slider | Choice, pictures: _Pictures, stride: int) -> dict:
        values = self.kept(control, stride)
        frames = [self.frame(control.name, v) for v in values]
        return {
            "label": control.label,
            "slider": isinstance(control, Slider),
            "start": values.index(self.start[control.name]),
            "values": values,
            "frames": [
                {"picture": pictures.add(f["shades"]), "text": control.text(v), "said": f["said"]}
                | {k: f[k] for k in SHARED if f[k] != self.common[k]}
                for v, f in zip(values, frames, strict=True)
            ],
        }

    def sounds(self, controls: list[dict], room: float, pictures: _Pictures) -> dict:
        """Of start and extras, then of the ends (of a choice: all) of the controls in turn, while there is room."""
        queues = []
        for i, c in enumerate(controls):
            at = range(len(c["frames"]))
            queues.append([(i, k) for k in (at if not c["slider"] else (at[-1], at[0])) if k != c["start"]])
        wanted = [(0, controls[0]["start"])]
        while any(queues) and len(wanted) < self.view.offline_sounds:
            wanted += [q.pop(0) for q in queues if q]
        extras, names = [], [c.name for c in self.free]
        for i, e in enumerate(self.view.extras):
            src, room = self._fitting(room, lambda i=i: self.view.extra_file(i, self.start, SOUND_SECONDS))
            shown = pictures.add(self.view.path(i, self.start)[0]) if src and e.shows else None
            extras.append({"src": src, "control": names.index(e.moves) if e.moves else None, "picture": shown})
        made: list[dict] = []
        for i, k in wanted[: self.view.offline_sounds]:
            c = controls[i]
            values = self.start | {names[i]: c["values"][k]}
            src, room = self._fitting(room, lambda v=values: self.view.sound_file(v, seconds=SOUND_SECONDS))
            if src and all(src != m["src"] for m in made):
                said = f"{c['label'].split(':')[0]} = {c['frames'][k]['text']}" if c["slider"] else ""
                made.append({"control": i, "at": k, "src": src, "text": said if (i, k) != wanted[0] else "start"})
        return {"sounds": made, "extras": extras}

    @staticmethod
    def _fitting(room: float, make: Callable[[], bytes]) -> tuple[str, float]:
        """A sound's address ("" if there is no room, or no file to take it from) and the room left."""
        try:
            src = picture.data_uri(make(), "audio/mpeg") if room > 0 else ""
        except ValueError:  # the clip's own file is gone: the picture is still there
            src = ""
        return (src, room - len(src)) if len(src) <= room else ("", room)
