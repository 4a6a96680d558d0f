"""What all explorers share: pictures, sounds, the live widget, and one piece of HTML for a saved page."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import anywidget
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import soundfile
import traitlets
from anywidget.experimental import command
from PIL import Image

from ..audio import Scaler, mel_frequencies
from ..config import FrontEnd, InputError

NO_PLAYERS = "VAELIB_NO_PLAYERS"  # in the environment of a kernel whose notebook becomes no page
HERE = Path(__file__).parent
STYLE = (HERE / "explore.css").read_text()
WIDTH = 640  # widest picture of one spectrogram, pixels
UNREADABLE = (InputError, OSError, ValueError, RuntimeError)  # what a damaged or absent file raises


def lut(name: str) -> list[list[int]]:
    """256 colours (red, green, blue) of a colour map of matplotlib."""
    return (matplotlib.colormaps[name](np.arange(256))[:, :3] * 255).round().astype(int).tolist()


def figure_setup(title: str, fe: FrontEnd, scaler: Scaler) -> dict:
    """What figure.js needs once: title, frequencies, colours of levels and of differences."""
    hz, db = mel_frequencies(fe).round().tolist(), [scaler.low_db, scaler.high_db]
    return {"title": title, "hz": hz, "db": db, "lut": lut("magma"), "contrast": lut("RdBu_r")}


def picture(x: np.ndarray, quality: int = 0, width: int = WIDTH) -> str:
    """Data URI of spectrograms (F, T) or (N, F, T) in [0, 1] below each other, low frequencies at the bottom.

    `quality` of WebP; 0: exact. A spectrogram wider than `width` is averaged over neighbouring frames.
    """
    if x.shape[-1] > width:
        edges = np.linspace(0, x.shape[-1], width + 1).astype(int)
        x = np.add.reduceat(x, edges[:-1], axis=-1) / np.diff(edges)
    shades = (np.clip(np.nan_to_num(x), 0, 1) * 255).round().astype(np.uint8)[..., ::-1, :]
    buffer, kind = io.BytesIO(), "webp" if quality else "bmp"
    Image.fromarray(shades.reshape(-1, shades.shape[-1])).save(buffer, kind, quality=quality, method=2)
    return data_uri(buffer.getvalue(), f"image/{kind}")


def mp3(wave: np.ndarray, rate: int, seconds: float | None = None) -> bytes:
    """(samples,) in [-1, 1] as MP3, the one small format that every browser plays; faded out if cut to `seconds`."""
    wave = np.array(wave, np.float32)
    if seconds is not None and len(wave) > seconds * rate:
        wave = wave[: int(seconds * rate)]
        wave[-(rate // 10) :] *= np.linspace(1, 0, rate // 10, dtype=np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.7)
    return buffer.getvalue()


def data_uri(data: bytes, mime: str = "audio/mpeg") -> str:
    """Bytes as a `data:` address, readable without any request."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


class Live(anywidget.AnyWidget):
    """The widget of an explorer: its page asks for what `answers` can make."""

    _css = STYLE
    setup = traitlets.Dict().tag(sync=True)

    def __init__(self, script: str, setup: dict, answers: dict[str, Callable]) -> None:
        self._esm, self.answers = script, answers
        super().__init__(setup=setup)

    @command
    def ask(self, given: list, buffers: list) -> tuple[dict, list]:
        try:
            return {"answer": self.answers[given[0]](*given[1:])}, buffers
        except UNREADABLE as e:
            return {"error": str(e)}, buffers


class Explorer:
    """Displays itself: a live widget in JupyterLab, a page without kernel and network where only HTML is shown.

    A subclass has a `title`, its `kind` (of script and CSS), `setup()` for its script, `answers` for the live page,
    `saved()` with all that a saved page holds, and a `poster()` for paper.
    """

    title: str
    kind: str
    answers: dict[str, Callable]

    @cached_property
    def script(self) -> str:
        return (HERE / "figure.js").read_text() + (HERE / f"{self.kind}.js").read_text()

    @cached_property
    def live(self) -> Live:
        return Live(self.script, self.setup(), self.answers)

    @cached_property
    def offline(self) -> str:
        """HTML of the saved page; all words are JSON and become text, never markup."""
        data = json.dumps(self.saved(), separators=(",", ":")).replace("<", "\\u003c")  # cannot end its script element
        return (
            f'<div class="vaelib-{self.kind}" data-saved><style>{STYLE}</style>{self.image()}'
            f'<script type="application/json">{data}</script></div><script type="module">{self.script}</script>'
        )

    def image(self) -> str:
        """The poster as HTML: what is seen where no script runs."""
        buffer, figure = io.BytesIO(), self.poster()
        plt.close(figure)  # else the notebook shows it too
        figure.savefig(buffer, format="webp", pil_kwargs={"quality": 70})
        src = data_uri(buffer.getvalue(), "image/webp")
        return f'<img src="{src}" alt="{html.escape(self.title)}" style="max-width: 100%">'

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        if os.environ.get(NO_PLAYERS):
            return {"text/plain": self.title, "text/html": self.image()}
        return self.live._repr_mimebundle_()[0] | {"text/plain": self.title, "text/html": self.offline}
