"""One picture of a benchmark: trainings with rivals and limits, preprocessing with its rivals."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import write_atomic
from .preprocessing import TITLES
from .report import in_order, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's palette: told apart by colour-blind readers; the marks differ in shape too
PROFILES = {"compact": ("#0072B2", "o"), "full": ("#D55E00", "s")}
BARS = {"ours": "#0072B2", "librosa": "#999999", "decode": "#56B4E9"}


def draw(result: dict) -> Figure:
    """The picture of what was measured; empty without trainings and preprocessing.

    Args:
        result: What the program writes to bench.json.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    rows, parts = in_order(result["training"]), result["preprocessing"]
    panels = [p for p in (rows, parts) if p]
    lines = max(len({r["title"] for r in rows}), 4 * len(parts))
    figure = Figure(figsize=(7.2 * max(1, len(panels)), 2.2 + 0.5 * lines), layout="constrained")
    axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
    if rows:
        _trainings(axes[0], rows)
    if parts:
        _preprocessing(axes[-1], parts)
    m = result["machine"]
    where = m["gpu"] if result["device"] == "cuda" else f"{m['cores']} × {m['processor']}"
    figure.suptitle(f"{where}, {m['date']}, torch {m['torch']}, load before {m['load']}", fontsize=10, color="0.3")
    return figure


def save(result: dict, path: Path) -> Path:
    """Write the picture as a PNG file."""
    content = io.BytesIO()
    draw(result).savefig(content, format="png", dpi=150)
    return write_atomic(path, content.getvalue())


def _trainings(ax: Axes, rows: Sequence[dict]) -> None:
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(r["title"] for r in rows))
    places = {name: i for i, name in enumerate(names)}
    every = [r["clips_per_s"] for r in rows] + [r["limit"] for r in rows if "limit" in r]
    for row in rows:
        colour, mark = PROFILES[row["profile"]]
        y = places[row["title"]]
        ours = "limit" in row
        if ours:
            ax.plot([row["clips_per_s"], row["limit"]], [y, y], color=colour, lw=1.2, alpha=0.35, zorder=1)
            ax.plot([row["limit"]] * 2, [y - 0.3, y + 0.3], color=colour, lw=2.2, zorder=2)
        ax.plot(row["clips_per_s"], y, mark, color=colour, ms=8, mfc=colour if ours else "white", mew=1.6, zorder=3)
        text = number(row["clips_per_s"]) + ("" if ours else f" (Conv {row['conv_over_it']['ratio']:.2f} ×)")
        side = -1 if row["profile"] == "full" else 1  # above or below: figures of two profiles never meet
        ax.annotate(text, (row["clips_per_s"], y), xytext=(0, 6 * side), textcoords="offset points", ha="center",
                    va="bottom" if side > 0 else "top", fontsize=8.5,
                    bbox={"fc": "white", "ec": "none", "pad": 0.5, "alpha": 0.8})  # fmt: skip
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.3, -0.7)
    ax.set_xscale("log")
    ax.set_xlim(min(every) / 3, max(every) * 2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.xaxis.set_minor_formatter(lambda value, _: "")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title("Training", loc="left", fontweight="bold")
    ax.set_xlabel("clips per second, median of the rounds (logarithmic)")
    key = [Line2D([], [], color=PROFILES[p][0], marker=PROFILES[p][1], ls="", ms=8, label=f"{p} profile")
           for p in PROFILES if any(r["profile"] == p for r in rows)]  # fmt: skip
    key.append(Line2D([], [], color="0.3", marker="|", ls="", ms=13, mew=2.2, label="hardware limit"))
    if any("rival_of" in r for r in rows):
        key.append(Line2D([], [], color="0.3", marker="o", mfc="white", mew=1.6, ls="", ms=8, label="rival of Conv"))
    ax.legend(handles=key, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=len(key), frameon=False, fontsize=9,
              columnspacing=1.3, handletextpad=0.3)  # fmt: skip


def _preprocessing(ax: Axes, parts: Sequence[dict]) -> None:
    ticks, labels, y = [], [], 0.0
    widest = max(part[name]["highest"] for part in parts for name in TITLES)
    for part in parts:
        head = f"{part['profile']} front end, {part['clips']} clips of {part['seconds']:g} s"
        ax.text(0, y, head, fontsize=9.5, va="center", color="0.3")
        for name, title in TITLES.items():
            y += 1
            row = part[name]
            ax.barh(y, row["clips_per_s"], 0.7, color=BARS[name])
            ax.plot([row["lowest"], row["highest"]], [y, y], color="black", lw=1.2)
            over = {"librosa": "over_librosa", "decode": "over_decode"}.get(name)
            note = f"   (ours {part[over]['ratio']:.2f} ×)" if over else ""
            ax.text(max(row["highest"], row["clips_per_s"]) + 0.015 * widest, y, number(row["clips_per_s"]) + note,
                    va="center", fontsize=8.5)  # fmt: skip
            ticks.append(y)
            labels.append(title)
        y += 1.2
    ax.set_yticks(ticks, labels)
    ax.set_ylim(y - 0.5, -0.6)
    ax.set_xlim(0, widest * 1.45)
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title("Preprocessing", loc="left", fontweight="bold")
    ax.set_xlabel("clips per second, median and range of the rounds")
