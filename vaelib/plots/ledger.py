"""The claims ledger as one page: expectation, interval, null and verdict of every claim at a glance."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import text_to_path

from .basics import Drawn, _plain

GROUPS = {
    "P": "Parameters", "B": "Basic VAE", "V": "Convolutional VAE", "D": "Beta-VAE", "K": "Conditional VAE",
    "G": "VaDE", "S": "Training speed", "A": "Our own aims",
}  # fmt: skip
OTHER = "Other claims"
NUMBERS = ("threshold_low", "threshold_high", "value", "low", "high", "baseline", "null", "n")
# Told apart by sign and lightness too; dark enough to be read as text on white.
VERDICTS = {
    "supported": ("✓", "#0064a3"), "supported in this run": ("✓", "#3a83b8"),
    "refuted": ("✗", "#b84a00"), "refuted in this run": ("✗", "#b5652e"),
    "inconclusive": ("?", "#555555"), "not tested": ("–", "#808080"),
}  # fmt: skip
SHADE, INK, FAINT = "#d3e4f2", "#1b1b1b", "#666666"

# Everything is placed in inches from the top left, so that a row is as high with 1 claim as with 60.
WIDTH, HEAD, HEADING, ROW, LINE = 14.0, 1.5, 0.42, 0.36, 0.14
ID, CLAIM, STRIP, EXPECTED, MEASURED, VERDICT = 0.3, 0.85, 5.5, 8.5, 10.25, 12.55  # left edges
GAP = 0.15  # between columns


def claims(ledger: pd.DataFrame) -> Drawn:
    """The claims ledger on one page, grouped by model (the first letter of `id`).

    Every row has a strip on a scale of its own, chosen so that threshold, interval and null are all inside; an
    infinite value is an arrow at the strip's end. Long texts are cut with "…".

    Args:
        ledger: One row per measurement: `id`, `claim`, `metric`, `expected` (the source document's words), `rung`,
            `how` (value, difference, ratio), `direction` (above, below, within), `threshold_low`, `threshold_high`,
            `value`, `low`, `high`, `baseline`, `null` (nan where there is none), `n` (seeds), `verdict`, `reason` (why
            it was not tested).
    """
    rows = ledger.astype(dict.fromkeys(NUMBERS, float)).to_dict("records")
    groups: dict[str, list[dict]] = {name: [] for name in (*GROUPS.values(), OTHER)}
    for row in rows:
        groups[GROUPS.get(str(row["id"])[:1], OTHER)].append(row)
    groups = {name: own for name, own in groups.items() if own}
    height = HEAD + HEADING * len(groups) + ROW * len(rows) + 0.2
    fig = plt.figure(figsize=(WIDTH, height))
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(height, 0))
    ax.axis("off")
    _head(ax, rows)
    y = HEAD
    for name, own in groups.items():
        counts = [f"{VERDICTS[v][0]} {sum(r['verdict'] == v for r in own)}" for v in VERDICTS]
        ax.add_patch(Rectangle((ID - 0.1, y + 0.07), WIDTH - 2 * ID + 0.2, HEADING - 0.12, color="#e9eaee", lw=0))
        _put(ax, ID, y + 0.28, name, STRIP - ID, 11, weight="bold")
        _put(ax, VERDICT, y + 0.27, " · ".join(c for c in counts if c[-2:] != " 0"), 1.3, 9, color=FAINT)
        y += HEADING
        above: dict = {}
        for row in own:
            _row(ax, y, row, above)
            y, above = y + ROW, row
    return fig, ax


def _head(ax: Axes, rows: list[dict]) -> None:
    """Title, verdicts with their numbers, what the marks mean, names of the columns."""
    _put(ax, ID, 0.38, "What the source document expects, and what was measured", 8, 14, weight="bold")
    x = ID
    for verdict, (sign, colour) in VERDICTS.items():
        words = f"{sign} {sum(r['verdict'] == verdict for r in rows)} {verdict}"
        _put(ax, x, 0.72, words, 3, 10.5, color=colour, weight="bold")
        x += _inches(words, 10.5, "bold") + 0.25
    handles = [
        Patch(facecolor=SHADE, label="values that agree with the claim"),
        Line2D([], [], color=INK, lw=1.4, marker="|", ls="", ms=11, mew=1.6, label="threshold of the claim"),
        Line2D([], [], color=FAINT, marker="o", lw=5, solid_capstyle="butt", label="mean, 95 % interval", ms=6.5),
        Line2D([], [], color=INK, marker="D", mfc="none", ls="", ms=7, label="null: a control without the effect"),
        Line2D([], [], color=INK, marker="s", mfc="none", ls="", ms=6, label="baseline: a simpler method"),
    ]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(ID - 0.1, 0.88), ncols=5, fontsize=9,
              bbox_transform=ax.transData, frameon=False, borderpad=0, handlelength=1.8)  # fmt: skip
    names = {CLAIM: "claim, and what is measured", STRIP: "every row on its own scale", EXPECTED: "expected",
             MEASURED: "measured, baseline, null", VERDICT: "verdict, n, rung"}  # fmt: skip
    for x, text in names.items():
        _put(ax, x, HEAD - 0.09, text, 3, 9, color=FAINT, style="italic")


def _row(ax: Axes, y: float, row: dict, above: dict) -> None:
    """One row whose upper edge is at `y`; id and claim are left out where they repeat the row above."""
    first, second = y + 0.155, y + 0.155 + LINE  # base lines of the text
    same = all(_words(row[k]) == _words(above.get(k)) for k in ("id", "claim"))
    if not same:
        ax.plot([ID - 0.1, WIDTH - ID + 0.1], [y, y], color="#dddddd", lw=0.6)
        _put(ax, ID, first, row["id"], CLAIM - ID - 0.05, 9, weight="bold")
        _put(ax, CLAIM, first, row["claim"], STRIP - CLAIM - GAP, 9.5)
    _put(ax, CLAIM, first if same else second, row["metric"], STRIP - CLAIM - GAP, 8.5, color=FAINT)
    sign, colour = VERDICTS.get(row["verdict"], ("", FAINT))
    if np.isnan(row["value"]):
        reason = _words(row.get("reason")) or "no value"
        _put(ax, STRIP, first, reason, EXPECTED - STRIP - GAP, 8.5, 2, color=FAINT, style="italic")
    else:
        _strip(ax, y, row, colour)
        _put(ax, MEASURED, first, _measured(row), VERDICT - MEASURED - GAP, 9)
        names = {"baseline" if row["how"] == "value" else "against": "baseline", "null": "null"}
        notes = [f"{name} {_number(row[k])}" for name, k in names.items() if not np.isnan(row[k])]
        notes += ["factors estimated"] if "estimates" in _words(row["reason"]) else []
        _put(ax, MEASURED, second, " · ".join(notes), VERDICT - MEASURED - GAP, 8.5, color=FAINT)
    _put(ax, EXPECTED, first, row["expected"], MEASURED - EXPECTED - GAP, 9, 2)
    said, _, here = _words(row["verdict"]).partition(" in this ")
    _put(ax, VERDICT, first, f"{sign} {said}", WIDTH - VERDICT - 0.1, 10, color=colour, weight="bold")
    notes = [f"in this {here}"] if here else [f"n = {row['n']:.0f}"] if row["n"] > 0 else []
    notes += [row["rung"]] if row["rung"] != "–" else []
    _put(ax, VERDICT, second, " · ".join(notes), WIDTH - VERDICT - 0.1, 8.5, color=FAINT)


def _strip(ax: Axes, y: float, row: dict, colour: str) -> None:
    """Threshold, its supported side, interval and null of a row, scaled to what they span."""
    own = row["how"] == "value"  # else it is what the difference or ratio is to, on another scale
    shown = [row[k] if own or k != "baseline" else np.nan for k in NUMBERS[:-1]]
    finite = [v for v in shown if np.isfinite(v)] or [0.0]
    margin = 0.15 * (max(finite) - min(finite)) or max(abs(finite[0]), 1e-12)  # a single value stands in the middle
    start, stop = min(finite) - margin, max(finite) + margin
    left, width = STRIP, EXPECTED - STRIP - GAP

    def at(v: float) -> float:
        return left + width * float(np.clip((v - start) / (stop - start), 0, 1))

    middle, half = y + ROW / 2, 0.36 * ROW
    ax.add_patch(Rectangle((left, middle - half), width, 2 * half, color="#f4f4f4", lw=0, zorder=1))
    low, high = shown[:2]
    if not np.isnan([low, high]).any():
        edges = {"above": (low, np.inf), "below": (-np.inf, high), "within": (low, high)}.get(row["direction"])
        if edges is not None:
            a, b = map(at, edges)
            ax.add_patch(Rectangle((a, middle - half), b - a, 2 * half, color=SHADE, lw=0, zorder=1.1))
        for v in {v for v in (low, high) if np.isfinite(v)}:
            ax.plot([at(v)] * 2, [middle - half, middle + half], color=INK, lw=1.4, zorder=2)
    value, low, high, baseline, null = shown[2:]
    if not np.isnan([low, high]).any():
        ax.plot([at(low), at(high)], [middle] * 2, color=colour, lw=5, alpha=0.55, solid_capstyle="butt", zorder=3)
    marks = ((value, "o", 6.5, colour, colour), (baseline, "s", 6, "none", INK), (null, "D", 7, "none", INK))
    for v, marker, size, face, edge in marks:
        if not np.isnan(v):
            arrow = {np.inf: ">", -np.inf: "<"}.get(v, marker)
            ax.plot(at(v), middle, arrow, ms=size, mfc=face, mec=edge, zorder=4, clip_on=False)


def _measured(row: dict) -> str:
    """Mean and interval with the same number of decimals; a counted quantity has no interval."""
    value, low, high = row["value"], row["low"], row["high"]
    if np.isnan([low, high]).any() or low == high:
        return _number(value)
    largest = max((abs(v) for v in (value, low, high) if np.isfinite(v)), default=0.0)
    return f"{_number(value, largest)} [{_number(low, largest)}, {_number(high, largest)}]"


def _number(v: float, largest: float | None = None) -> str:
    """Three digits of the largest number beside it (two of a small one); thousands are grouped."""
    if not np.isfinite(v):
        return "–" if np.isnan(v) else "∞" if v > 0 else "−∞"
    largest = abs(v) if largest is None else largest
    if not largest:
        return "0"
    if 1e-5 <= largest < 1e9:
        decimals = (2 if largest >= 0.1 else 1) - np.floor(np.log10(largest))
        text = f"{v:,.{int(max(decimals, 0))}f}"
    else:
        text = f"{v:.2g}"
    return text.replace("-", "−")


def _words(value: object) -> str:
    """A cell on one line; nothing for a missing one."""
    return "" if value is None or value is pd.NA or value != value else " ".join(str(value).split())


@lru_cache(maxsize=10_000)
def _inches(text: str, size: float, weight: str = "normal") -> float:
    """Width of a text as it will be drawn, read from the font: no renderer is needed before the figure is saved."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight=weight), False)[0] / 72


def _put(
    ax: Axes,
    x: float,
    y: float,
    value: object,
    width: float,
    size: float,
    lines: int = 1,
    color: str = INK,
    **font: str,
) -> None:
    """Write a cell from (x, y), its first base line, on at most `lines` lines of `width` inches."""

    def inches(text: str) -> float:
        return 1.02 * _inches(text, size, font.get("weight", "normal"))  # 1.02: hinting rounds every glyph

    rest = _words(value)
    for i in range(lines):
        part, rest = rest, ""
        if inches(part) > width:
            fits = bisect_right(range(1, len(part)), width, key=lambda n, part=part: inches(part[:n] + "…"))
            if i == lines - 1:
                part = part[:fits].rstrip() + "…"
            else:
                cut = part.rfind(" ", 0, fits + 1)
                cut = cut if cut > 0 else fits
                part, rest = part[:cut], part[cut:].strip()
        ax.text(x, y + i * LINE, _plain(part), fontsize=size, color=color, zorder=5, **font)
