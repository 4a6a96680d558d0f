"""What all explorers share: pictures, sounds, the live widget, and one piece of HTML for a saved page."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import anywidget
import matplotlib
import numpy as np
import soundfile
import traitlets
from anywidget.experimental import command
from IPython.display import Audio
from PIL import Image

from ..audio import Scaler, mel_frequencies
from ..collection import UNLABELLED
from ..config import FrontEnd, InputError
from ..store import Store

NO_PLAYERS = "VAELIB_NO_PLAYERS"  # in the environment of a kernel whose notebook becomes no page
HERE = Path(__file__).parent
SCRIPT = "".join((HERE / f"{name}.js").read_text() for name in ("figure", "view", "clips", "page"))
STYLE = (HERE / "explore.css").read_text()
WIDTH = 640, 320  # widest picture of one spectrogram (pixels), and in a saved page
SOUND_BYTES = 4_000_000  # of all sounds in a saved page
UNREADABLE = (InputError, OSError, ValueError, RuntimeError)  # what a damaged or absent file raises


class Explorer(anywidget.AnyWidget):
    """Displays itself: a live widget in JupyterLab, a page without kernel and network where only HTML is shown.

    What the page asks for, `[name, …]`, is answered by `answers[name](…)`, with `small=True` for a saved page, which
    holds the answers to `kept`. The live page has those to `ready` from the beginning, however busy the kernel is.
    """

    _esm, _css = SCRIPT, STYLE
    setup = traitlets.Dict().tag(sync=True)

    def __init__(self, title: str, store: Store, scaler: Scaler, answers: dict[str, Callable],
                 kept: Iterable[tuple], ready: Iterable[tuple] = (), **setup: object) -> None:  # fmt: skip
        self.title, self.store, self.scaler, self.answers, self.kept = title, store, scaler, answers, kept
        for name, colours in (("lut", "magma"), ("contrast", "RdBu_r")):
            setup[name] = matplotlib.colormaps[colours](range(256), bytes=True)[:, :3].tolist()
        setup |= {"hz": mel_frequencies(store.front_end).round().tolist(), "db": [scaler.low_db, scaler.high_db]}
        super().__init__(setup={"title": title} | setup | self.known(ready))

    @command
    def ask(self, questions: list[list], buffers: list) -> tuple[list[dict], list]:
        """Called by the live page: the `answer` to each question, or the `error`."""
        replies = []
        for what, *given in questions:
            try:
                replies.append({"answer": self.answers[what](*given)})
            except UNREADABLE as e:
                replies.append({"error": str(e)})
        return replies, buffers

    def known(self, questions: Iterable[tuple], **how: bool) -> dict:
        """Questions with the places of their answers, each of which is held once, as JSON."""
        known, answers, left = [], {}, SOUND_BYTES
        for what, *given in questions:
            if what == "sound" and left < 0:
                continue
            with suppress(*UNREADABLE):
                answer = json.dumps(self.answers[what](*given, **how))
                known.append([[what, *given], answers.setdefault(answer, len(answers))])
                left -= len(answer) * (what == "sound")
        return {"known": known, "answers": list(answers)}

    @cached_property
    def offline(self) -> str:
        """HTML of the saved page; all words are JSON and become text, never markup."""
        data = json.dumps(self.setup | self.known(self.kept, small=True), separators=(",", ":"))
        data = data.replace("<", "\\u003c")  # cannot end its script element
        return (
            f'<div class="vaelib" data-saved><style>{STYLE}</style><p>{html.escape(self.title)}: needs JavaScript</p>'
            f'<script type="application/json">{data}</script></div>'
            f'<script type="module">{SCRIPT}</script>'
        )

    def _repr_mimebundle_(self, **kwargs: object) -> dict:
        if os.environ.get(NO_PLAYERS):
            return {"text/plain": self.title}
        return super()._repr_mimebundle_()[0] | {"text/plain": self.title, "text/html": self.offline}


def frame_of(x: np.ndarray, fe: FrontEnd, small: bool, labels: Sequence[str] = (), caption: str = "") -> dict:
    """Spectrograms (N, F, T) in [0, 1] as figure.js draws them: below each other, low frequencies at the bottom.

    Wider ones than can be seen are averaged over neighbouring frames; `small`: not exact either.
    """
    shades = (np.clip(np.nan_to_num(x), 0, 1) * 255).round().astype(np.uint8)[:, ::-1]
    image = Image.fromarray(shades.reshape(-1, shades.shape[-1]))
    image = image.resize((min(image.width, WIDTH[small]), image.height), Image.Resampling.BOX)
    buffer, kind = io.BytesIO(), "webp" if small else "bmp"
    image.save(buffer, kind, quality=50, method=2)
    picture = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    seconds = x.shape[-1] * fe.hop / fe.sample_rate
    return {"picture": picture, "count": len(x), "seconds": seconds, "labels": list(labels), "caption": caption}


def sound_of(store: Store, row: int, window: bool = False) -> tuple[np.ndarray, int]:
    """The wave (samples,) of a clip's file, or of its middle window, which models are given; and its rate."""
    wave, fe = store.load(row).numpy(), store.front_end
    frames = min(int(store.table.loc[row, "n_frames"]), store.heard_frames)
    start = fe.hop * round((frames - fe.frames) / 2)
    return wave[start : start + fe.frames * fe.hop] if window else wave, fe.sample_rate


def wave_player(wave: np.ndarray, rate: int, seconds: float | None = None) -> Audio:
    """A player of (samples,) in [-1, 1] as MP3, which is small and plays everywhere; faded out if cut to `seconds`."""
    wave = np.array(wave, np.float32)
    if seconds is not None and len(wave) > seconds * rate:
        wave = wave[: int(seconds * rate)]
        wave[-(rate // 10) :] *= np.linspace(1, 0, rate // 10, dtype=np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.7)
    shown = Audio(data=buffer.getvalue())
    shown.mimetype = "audio/mpeg"
    return shown


def player(store: Store, row: int) -> Audio:
    """A player of one clip's file."""
    return wave_player(*sound_of(store, row))


def clip_name(store: Store, row: int) -> str:
    """Genre (or language) and file name of a clip, as text; the label is left out where the file name says it."""
    file = store.name(row).rsplit("/", 1)[-1]
    kind = next((k for c in ("genre", "language") if (k := str(store.table.at[row, c])) != UNLABELLED), "")
    return file if kind in file else f"{kind} · {file}"


def clip_names(store: Store, rows: Sequence[int]) -> list[str]:
    """The name of each clip; where it is not the only one of that name, its path."""
    names = [clip_name(store, row) for row in rows]
    times = Counter(names)
    return [name if times[name] == 1 else store.name(row) for name, row in zip(names, rows, strict=True)]
