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
    chosen = product(*(range(len(c.positions(c.start))) for c in view.scenes))
    scenes = [_scene(view, places, pictures) for places in chosen]
    room = MOST_BYTES - sum(map(len, pictures))
    for i, scene in enumerate(scenes):
        scene["sounds"] = _sounds(view, scene, room / (len(scenes) - i))
        room -= sum(len(s["src"]) for s in scene["sounds"])
    choices = [view.described(c, c.positions(c.start)) for c in view.scenes]
    data = {"setup": view.setup(), "choices": choices, "scenes": scenes, "pictures": list(pictures)}
    return embed(view, "vaelib-view", data, SCRIPT)


def _scene(view: SpectrogramView, chosen: Sequence[int], pictures: dict[str, int]) -> dict:
    """One combination of the choices that the other controls depend on, with all frames of each control."""
    options = {c.name: c.positions(c.start)[k] for c, k in zip(view.scenes, chosen, strict=True)}
    start = view.start_of(view.start | options)
    common, controls = view.frame(start), []
    for c in (c for c in view.controls if c not in view.scenes):
        values = c.positions(start[c.name])
        frames = [common if v == start[c.name] else view.frame(start | {c.name: v}) for v in values]
        for i, frame in enumerate(frames):
            uri = picture.webp(frame["shades"], QUALITY)
            frames[i] = {k: frame[k] for k in frame if k != "shades"}
            frames[i]["picture"] = pictures.setdefault(uri, len(pictures))
        controls.append(view.described(c, values) | {"start": values.index(start[c.name]), "frames": frames})
    return {"values": start, "chosen": chosen, "controls": controls}


def _sounds(view: SpectrogramView, scene: dict, room: float) -> list[dict]:
    """Of the start's tiles and the buttons, then of the ends (of a choice: all) of the controls in turn."""
    ends = []
    for i, c in enumerate(scene["controls"]):
        at = range(len(c["values"]))
        ends.append([(i, k, view.first) for k in (at if not c["slider"] else (at[-1], at[0])) if k != c["start"]])
    first = scene["controls"][0]
    tiles = range(min(TILES, first["frames"][0]["count"]))
    tiles = [view.first, *(t for t in tiles if t != view.first), *(-1 - i for i in range(len(view.extras)))]
    turns = [end for turn in zip_longest(*ends) for end in turn if end]
    made = []
    for i, k, tile in [*((0, first["start"], t) for t in tiles), *turns[: view.offline_sounds]]:
        control = scene["controls"][i]
        values = scene["values"] | {control["name"]: control["values"][k]}
        try:
            src = picture.data_uri(view.sound_file(values, tile, SOUND_SECONDS), "audio/mpeg")
        except (ValueError, OSError):  # the clip's own file is gone: the picture is still there
            continue
        if (room := room - len(src)) < 0:
            break
        made.append({"control": i, "at": k, "tile": tile, "src": src})
    return made
