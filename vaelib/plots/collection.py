"""Pictures of a collection: lengths, loudness, classes, silence and clipping. They stand any name and any number."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.font_manager import FontProperties, findfont, get_font

from .basics import Drawn, _plain

TOP, BOTTOM = 20, 12  # classes drawn when there are more than both together and a few
LONGEST = 34  # characters of a name
# Marks of a logarithmic axis of lengths
CLOCK = {
    n * unit: f"{n:g} {name}" for unit, name in ((1, "s"), (60, "min"), (3600, "h")) for n in (1, 2, 5, 10, 20, 30)
}
CLOCK = {0.1: "0.1 s", 0.3: "0.3 s"} | CLOCK
DECADE = 8.0  # largest over smallest value from which on an axis is logarithmic


def durations(seconds: np.ndarray, title: str = "") -> Drawn:
    """How long the files are."""
    fig, ax = plt.subplots(figsize=(5.2, 2.8), layout="constrained")
    values = _finite(seconds)
    values = values[values > 0]
    if len(values):
        wide = values.max() > DECADE * values.min()
        sns.histplot(x=values, bins=_edges(values, wide), ax=ax, edgecolor="white", linewidth=0.3)
        if wide:
            ax.set_xscale("log")
            low, high = ax.get_xlim()
            marks = [s for s in CLOCK if low <= s <= high]
            ax.set_xticks(marks[:: -(-len(marks) // 9)], [CLOCK[s] for s in marks[:: -(-len(marks) // 9)]], fontsize=8)
            ax.set_xticks([], minor=True)
        ax.yaxis.set_major_locator(plt.MaxNLocator(integer=True))
    ax.set(xlabel="length of a file" if ax.get_xscale() == "log" else "length of a file (s)", ylabel="files")
    ax.set_title(_plain(title), fontsize=10)
    return fig, ax


def loudness(rms_db: np.ndarray, peak: np.ndarray | None = None, title: str = "") -> Drawn:
    """How loud the files are (dBFS), and how high their peaks reach if those are known."""
    fig, axes = plt.subplots(1, 1 if peak is None else 2, figsize=(5.2 if peak is None else 8.6, 2.8),
                             layout="constrained", squeeze=False)  # fmt: skip
    shown = [(_finite(rms_db), "loudness, RMS (dB re full scale)")]
    if peak is not None:
        shown.append((20 * np.log10(np.maximum(_finite(peak), 1e-5)), "peak (dB re full scale)"))
    for ax, (values, label) in zip(axes[0], shown, strict=True):
        if len(values):
            sns.histplot(x=values, bins=_edges(values), ax=ax, edgecolor="white", linewidth=0.3)
            ax.yaxis.set_major_locator(plt.MaxNLocator(integer=True))
        ax.set(xlabel=label, ylabel="files")
    if peak is not None:
        axes[0, 1].axvline(0, color="black", lw=1, ls="--")
    fig.suptitle(_plain(title), fontsize=10)
    return fig, axes[0]


def balance(counts: pd.DataFrame, title: str = "", label: str = "tracks") -> Drawn:
    """Size of every class as a bar, in parts (splits) if there are several columns; of very many, both ends.

    Args:
        counts: Classes in the order to be shown × parts.
    """
    n = len(counts)
    gap = n > TOP + BOTTOM + 4
    rows = [*range(TOP), -1, *range(n - BOTTOM, n)] if gap else list(range(n))
    fig, ax = plt.subplots(figsize=(7, 1.3 + 0.21 * max(len(rows), 3)), layout="constrained")
    values = counts.to_numpy(float)
    parts = values.shape[1]
    colours = sns.color_palette("colorblind", parts)
    at = [y for y, r in enumerate(rows) if r >= 0]
    kept = values[[r for r in rows if r >= 0]]
    left = np.zeros(len(kept))
    for part, colour in zip(range(parts), colours, strict=True):
        name = _plain(counts.columns[part]) if parts > 1 else None
        ax.barh(at, kept[:, part], left=left, color=colour, height=0.75, label=name)
        left += kept[:, part]
    for y, total in zip(at, left, strict=True):
        ax.text(total, y, f" {total:,.0f}", va="center", fontsize=7)
    words = [f"… {n - TOP - BOTTOM:,} more classes …" if r < 0 else short(counts.index[r]) for r in rows]
    ax.set_yticks(range(len(rows)), words, fontsize=8)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.margins(x=0.1)
    ax.set_xlabel(_plain(label))
    if parts > 1 and n:
        ax.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=parts, frameon=False)
    fig.suptitle(_plain(title), fontsize=10)
    return fig, ax


def faults(silent: np.ndarray, clipped: np.ndarray, limits: tuple[float, float], title: str = "") -> Drawn:
    """How silent and how clipped every file is, most first, and from where on a file is suspicious.

    Args:
        silent, clipped: (file,) shares.
        limits: Shares from which on a file is suspicious.
    """
    fig, axes = plt.subplots(1, 2, figsize=(8.6, 2.8), layout="constrained")
    names = ("share of blocks that are silent", "share of samples at full scale")
    for ax, values, limit, name in zip(axes, (silent, clipped), limits, names, strict=True):
        values = np.sort(_finite(values))[::-1] * 100
        ax.plot(np.arange(1, len(values) + 1), values, ".-", ms=4 if len(values) < 200 else 0, lw=1.2)
        ax.axhline(100 * limit, color="black", lw=1, ls="--")
        top = max(values.max(initial=0), 200 * limit)
        ax.set(xlabel="files, worst first", ylabel="%", ylim=(-0.03 * top, 1.05 * min(top, 100)))
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
        ax.set_title(f"{name} (dashed: {100 * limit:g} %)", fontsize=9)
    fig.suptitle(_plain(title), fontsize=10)
    return fig, axes


# --- names ---


def short(name: object) -> str:
    """A name for an axis: on one line, cut in the middle; a character that no font has becomes □."""
    text = "".join(_drawable(c) for c in " ".join(str(name).split()))
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 + 1 :]}"
    return _plain(text) or "(no name)"


@lru_cache(maxsize=4096)
def _drawable(character: str) -> str:
    """The character, "" if it is not seen (marks of direction, joiners), or □ where the fonts lack it."""
    if unicodedata.category(character) in ("Cf", "Cc", "Mn") and character != "\u200c":
        return "" if unicodedata.category(character) != "Mn" or not _has_glyph(character) else character
    return character if character == " " or _has_glyph(character) else "□"


def _has_glyph(character: str) -> bool:
    fonts = (get_font(findfont(FontProperties(family=[family]))) for family in plt.rcParams["font.family"])
    return any(font.get_char_index(ord(character)) for font in fonts)


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    return values[np.isfinite(values)]


def _edges(values: np.ndarray, log: bool = False, most: int = 40) -> np.ndarray:
    """Edges of at most 40 bars; equal values get one narrow bar rather than none."""
    low, high = values.min(), values.max()
    if high - low < 1e-6 * max(abs(high), 1e-6):
        return np.array([low - 0.5, low + 0.5])
    n = int(np.clip(np.sqrt(len(values)) * 1.5, 8, most))
    return np.geomspace(low, high, n + 1) if log else np.linspace(low, high, n + 1)
