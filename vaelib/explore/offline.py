"""A view in a saved page: its frames and a few sounds inside one piece of HTML."""

from __future__ import annotations

import html
import io
import json
import os
from collections.abc import Sequence
from itertools import product, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from . import picture

if TYPE_CHECKING:
    from .clips import ClipsView
    from .view import SpectrogramView

NO_PLAYERS = "VAELIB_NO_PLAYERS"  # in the environment of a kernel whose notebook becomes no page
HERE = Path(__file__).parent
STYLE = (HERE / "explore.css").read_text()
SCRIPT = (HERE / "figure.js").read_text() + (HERE / "view.js").read_text()
QUALITY = 60  # of WebP
MOST_BYTES = 4_000_000  # of a page, as far as sounds can be left out
SOUND_SECONDS = 6.0
TILES = 6  # of a start keep a sound at most


def still(view: SpectrogramView | ClipsView) -> dict[str, str]:
    """A picture in place of controls and sounds where nobody will use them (`NO_PLAYERS`), by MIME type; else {}."""
    if not os.environ.get(NO_PLAYERS):
        return {}
    return {"text/plain": view.title, "text/html": image_of(view)}


def image_of(view: SpectrogramView | ClipsView) -> str:
    """The view on paper: what is seen where no script runs."""
    with Image.open(io.BytesIO(view.strip())) as image:
        src = picture.webp(np.asarray(image.convert("RGB")), 70)
    return f'<img src="{src}" alt="{html.escape(view.title)}" style="max-width: 100%">'


def embed(view: SpectrogramView | ClipsView, name: str, data: dict, script: str) -> str:
    """HTML that needs no kernel and asks for nothing; all words are JSON and become text, never markup."""
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # cannot end the script element it is in
    return (
        f'<div class="{name}" data-saved><style>{STYLE}</style>{image_of(view)}'
        f'<script type="application/json">{text}</script></div><script type="module">{script}</script>'
    )


def page(view: SpectrogramView) -> str:
    """Each control moves through its frames while the others stay at their start."""
    pictures: dict[str, int] = {}  # every picture once, however many positions show it
    chosen = list(product(*(c.positions(c.start) for c in view.scenes)))
    scenes = [_scene(view, options, pictures) for options in chosen]
    room = MOST_BYTES - sum(map(len, pictures))
    for i, scene in enumerate(scenes):
        scene["sounds"] = _sounds(view, scene, room / (len(scenes) - i))
        room -= sum(len(s["src"]) for s in scene["sounds"])
    return embed(view, "vaelib-view", {"setup": view.setup(), "scenes": scenes, "pictures": list(pictures)}, SCRIPT)


def _scene(view: SpectrogramView, options: Sequence[str], pictures: dict[str, int]) -> dict:
    """One combination of the choices that the other controls depend on, with all frames of each control."""
    chosen = {c.name: option for c, option in zip(view.scenes, options, strict=True)}
    start = view.start_of(view.start | chosen)
    controls = [view.described(c, c.positions(start[c.name])) for c in view.controls]
    settings = [start | {c["name"]: v} for c in controls if not c["scene"] for v in c["values"]]
    frames = []
    for values in [start, *(v for v in settings if v != start)]:
        frame = view.frame(values) | {"values": values}
        uri = picture.webp(frame.pop("shades"), QUALITY)
        frames.append(frame | {"picture": pictures.setdefault(uri, len(pictures))})
    return {"start": start, "controls": controls, "frames": frames}


def _sounds(view: SpectrogramView, scene: dict, room: float) -> list[dict]:
    """Of the start's tiles and the buttons, then of the ends (of a choice: all) of the controls in turn."""
    start, ends = scene["start"], []
    for c in (c for c in scene["controls"] if not c["scene"]):
        kept = [c["values"][-1], c["values"][0]] if c["slider"] else c["values"]
        ends.append([start | {c["name"]: v} for v in kept if v != start[c["name"]]])
    turns = [values for turn in zip_longest(*ends) for values in turn if values]
    tiles = range(min(TILES, scene["frames"][0]["count"]))
    tiles = [view.first, *(t for t in tiles if t != view.first), *(-1 - i for i in range(len(view.extras)))]
    made = []
    for values, tile in [*((start, t) for t in tiles), *((v, view.first) for v in turns[: view.offline_sounds])]:
        try:
            src = picture.data_uri(view.sound_file(values, tile, SOUND_SECONDS), "audio/mpeg")
        except (ValueError, OSError):  # the clip's own file is gone: the picture is still there
            continue
        if (room := room - len(src)) < 0:
            break
        made.append({"values": values, "tile": tile, "src": src})
    return made
