"""Spectrogram → picture, wave → sound file, bytes → data URI: pure functions without pyplot."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import matplotlib
import numpy as np
import soundfile
from matplotlib.figure import Figure
from PIL import Image

from ..audio import Scaler, mel_frequencies
from ..config import FrontEnd

WIDTH = 640  # widest picture of one spectrogram, pixels
GAP = 2  # pixels between tiles
TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000)


def lut(name: str) -> np.ndarray:
    """(256, 3) uint8 colours of a colour map of matplotlib."""
    return (matplotlib.colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def shrink(x: np.ndarray, width: int = WIDTH) -> np.ndarray:
    """(…, F, T) → (…, F, min(T, width)): means over neighbouring frames."""
    x, frames = np.asarray(x, np.float32), np.shape(x)[-1]
    if frames <= width:
        return x
    edges = np.linspace(0, frames, width + 1).astype(int)
    return np.add.reduceat(x, edges[:-1], axis=-1) / np.diff(edges)


def grid(n: int) -> tuple[int, int]:
    """Rows and columns in which `n` tiles are shown, at most six in a row."""
    columns = n if n < 4 else min(6, int(np.ceil(np.sqrt(1.5 * n))))
    return -(-n // columns), columns


def tile(x: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Lay spectrograms (F, T) or (N, F, T) in [0, 1] out in one picture, low frequencies at the bottom.

    Returns:
        The picture as (F', T') uint8 shades with gaps of `GAP` pixels, and its rows and columns.
    """
    x = np.asarray(x, np.float32)
    x = shrink(x[None] if x.ndim == 2 else x, WIDTH if x.ndim == 2 else WIDTH // 2)
    (n, height, width), (rows, columns) = x.shape, grid(len(x))
    shades = (np.clip(np.nan_to_num(x), 0, 1) * 255).round().astype(np.uint8)[:, ::-1]
    out = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP), np.uint8)
    for i in range(n):
        top, left = i // columns * (height + GAP), i % columns * (width + GAP)
        out[top : top + height, left : left + width] = shades[i]
    return out, (rows, columns)


def webp(pixels: np.ndarray, quality: int) -> str:
    """Data URI of (F, T) uint8 shades or (F, T, 3) colours as WebP."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", quality=quality, method=2)
    return data_uri(buffer.getvalue(), "image/webp")


def sound_bytes(wave: np.ndarray, rate: int, seconds: float | None = None) -> bytes:
    """(samples,) in [-1, 1] as MP3, the one small format that every browser plays; faded out if cut to `seconds`."""
    wave = np.array(wave, np.float32)
    if seconds is not None and len(wave) > seconds * rate:
        wave = wave[: int(seconds * rate)]
        fade = min(len(wave), rate // 10)
        wave[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.7)
    return buffer.getvalue()


def data_uri(data: bytes, mime: str) -> str:
    """Bytes as a `data:` address, readable without any request."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer)
    return buffer.getvalue()


def hz_ticks(fe: FrontEnd) -> list[tuple[float, str]]:
    """(share of the height from the bottom, label) of the frequency axis."""
    hz = mel_frequencies(fe)
    where = np.interp(TICKS_HZ, hz, (np.arange(fe.n_mels) + 0.5) / fe.n_mels)
    names = [f"{f} Hz" if f < 1000 else f"{f // 1000} kHz" for f in TICKS_HZ]
    return [(float(w), n) for f, w, n in zip(TICKS_HZ, where, names, strict=True) if hz[0] < f < hz[-1]]


def setup(title: str, fe: FrontEnd, scaler: Scaler) -> dict:
    """What figure.js needs once: title, axes, colours of levels and of differences."""
    return {
        "title": title,
        "ticks": hz_ticks(fe),
        "hz": mel_frequencies(fe).round(1).tolist(),
        "db": [scaler.low_db, scaler.high_db],
        "lut": lut("magma").tolist(),
        "contrast": lut("RdBu_r").tolist(),
        "gap": GAP,
    }


def strip(frames: Sequence[np.ndarray], labels: Sequence[str], fe: FrontEnd, title: str) -> bytes:
    """PNG of spectrograms (F, T) or (N, F, T) in [0, 1] side by side, each under its label."""
    many, magma = any(np.ndim(f) == 3 for f in frames), lut("magma")
    fig = Figure(figsize=(1.75 * len(frames) + 0.7, 2.6), layout="constrained", dpi=100)
    axes = np.atleast_1d(fig.subplots(1, len(frames), sharey=not many))
    for ax, x, label in zip(axes, frames, labels, strict=True):
        seconds = np.shape(x)[-1] * fe.hop / fe.sample_rate
        ax.imshow(magma[tile(x)[0]], aspect="auto", extent=(0, seconds, 0, 1), interpolation="nearest")
        ax.set_title(label, fontsize=9, parse_math=False)
        ax.set(xticks=[], yticks=[]) if many else ax.set_xlabel("s")
    if not many:
        ticks = hz_ticks(fe)
        axes[0].set_yticks([t for t, _ in ticks], [n for _, n in ticks])
    fig.suptitle(title, fontsize=10, parse_math=False)
    return png(fig)
