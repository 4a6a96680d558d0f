"""The offline player: a view's frames and a few sounds inside one piece of HTML."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import TYPE_CHECKING

from . import picture

if TYPE_CHECKING:
    from .view import SpectrogramView

HERE = Path(__file__).parent
SCRIPT = (HERE / "figure.js").read_text() + (HERE / "view.js").read_text()
STYLE = (HERE / "figure.css").read_text() + (HERE / "view.css").read_text()
MOST_BYTES = 3_000_000
SOUND_SECONDS = 6.0
PLANS = ((85, 1), (60, 1), (60, 2), (50, 4), (40, 8), (30, 16))  # (WebP quality, every n-th position), best first


def player(view: SpectrogramView) -> str:
    """Self-contained HTML: each control moves through its frames while the others stay at their start.

    All words reach the page as JSON and are set as text, never as markup.
    """
    start = view.frame(view.start)
    shown = {c.name: [(v, view.frame(view.start | {c.name: v})) for v in c.positions()] for c in view.controls}
    for quality, stride in PLANS:
        controls = [_control(c, shown[c.name], quality, stride) for c in view.controls]
        size = sum(len(f["src"]) for c in controls for f in c["frames"])
        if size < 0.75 * MOST_BYTES:
            break
    data = {"setup": view.setup(), "controls": controls, "sounds": _sounds(view, controls, 0.95 * MOST_BYTES - size)}
    poster = picture.data_uri(picture.webp(picture.lut()[start["shades"]]), "image/webp")
    return (
        f'<div class="vaelib-player"><style>{STYLE}</style>'
        f'<img src="{poster}" alt="{html.escape(view.title)}" width="480" height="300">'
        f'<script type="application/json">{_json(data)}</script></div>'
        f'<script type="module">{SCRIPT}</script>'
    )


def _json(data: dict) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _control(control, frames: list, quality: int, stride: int) -> dict:
    last = len(frames) - 1
    kept = [(v, f) for i, (v, f) in enumerate(frames) if i % stride == 0 or i == last or v == control.start]
    return {
        "label": control.label,
        "slider": hasattr(control, "low"),
        "start": [v for v, _ in kept].index(control.start),
        "values": [v for v, _ in kept],
        "frames": [
            {
                "src": picture.data_uri(picture.webp(f["shades"], quality), "image/webp"),
                "text": control.text(v),
                "tiles": f["tiles"],
                "seconds": f["seconds"],
                "caption": f["caption"],
            }
            for v, f in kept
        ],
    }


def _sounds(view: SpectrogramView, controls: list[dict], room: float) -> list[dict]:
    """Sounds at the start and at the ends (all positions of a choice) of the controls, in turn, while there is room."""
    queues = []
    for i, c in enumerate(controls):
        at = range(len(c["frames"]))
        queues.append([(i, k) for k in (at if not c["slider"] else (at[-1], at[0])) if k != c["start"]])
    wanted = [(0, controls[0]["start"])]
    while any(queues) and len(wanted) < view.offline_sounds:
        wanted += [q.pop(0) for q in queues if q]
    made = []
    for i, k in wanted[: view.offline_sounds]:
        c = controls[i]
        values = view.start | {view.controls[i].name: c["values"][k]}
        try:
            uri = picture.data_uri(view.sound_file(values, seconds=SOUND_SECONDS), "audio/mpeg")
        except ValueError:  # the clip's own file is gone: the picture is still there
            continue
        if (room := room - len(uri)) < 0:
            break
        if any(uri == m["src"] for m in made):
            continue
        first = (i, k) == wanted[0]
        made.append({"control": i, "at": k, "src": uri, "text": "start" if first else _words(c, k)})
    return made


def _words(control: dict, k: int) -> str:
    text = control["frames"][k]["text"]
    return f"{control['label']} = {text}" if control["slider"] else text
