"""Figures that several notebooks draw: arrays and tables in, (figure, axes) out. Nothing here measures anything.

One palette for all of them and for the explorers: a class has the same colour everywhere on a page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.cluster import hierarchy

from vaelib.audio import mel_frequencies
from vaelib.collection import UNLABELLED
from vaelib.config import FrontEnd

# Okabe & Ito's colour-blind-safe hues without black and yellow, then three more; dark enough for lines on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#8C6239", "#7B4FC9")
GREY = "#9A9A9A"  # what has no class
MARKERS = "osD^vX"
DASHES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (8, 3)))
HERTZ = (100, 500, 1000, 2000, 4000, 8000)
Drawn = tuple[Figure, Axes | np.ndarray]
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE)  # also for what a notebook draws itself


def plain(text: object) -> str:
    """A label as it is: two dollar signs in a file's or class's name are no formula."""
    return str(text).replace("$", r"\$")


def colours_and_markers(n: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Colours of `n` classes, and places in `MARKERS`: up to 54 no two are the same."""
    turn = np.arange(n) // len(PALETTE) % len(MARKERS)
    return tuple(PALETTE[i % len(PALETTE)] for i in range(n)), tuple(turn.tolist())


def class_styles(classes: Sequence[str]) -> dict[str, dict]:
    """Class → `color` and `marker` for a scatter plot, in sorted order as in the explorers; unlabelled: grey."""
    names = sorted(set(classes) - {UNLABELLED, ""})
    colours, markers = colours_and_markers(len(names))
    styles = {n: {"color": c, "marker": MARKERS[m]} for n, c, m in zip(names, colours, markers, strict=True)}
    return styles | {n: {"color": GREY, "marker": "o"} for n in sorted(set(classes) - set(names))}


def line_styles(names: Sequence[str]) -> dict[str, dict]:
    """Name → `color`, `marker` and `ls` of a curve; marker and dashes tell names apart where colours repeat."""
    return {
        n: {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)], "ls": DASHES[i % len(DASHES)]}
        for i, n in enumerate(dict.fromkeys(names))
    }


def spectrogram(
    x: np.ndarray, fe: FrontEnd, ax: Axes | None = None, title: str = "", bare: bool = False, **image: object
) -> Drawn:
    """One spectrogram (mel, frame), low bands at the bottom, axes in Hz and seconds (`bare`: without axes)."""
    fig, ax = plt.subplots(figsize=(6, 2.6), layout="constrained") if ax is None else (ax.figure, ax)
    settings = {"vmin": 0.0, "vmax": 1.0, "cmap": "magma"} | image
    seconds = x.shape[1] * fe.hop / fe.sample_rate
    ax.imshow(x, origin="lower", aspect="auto", interpolation="nearest", extent=(0, seconds, 0, x.shape[0]), **settings)
    ax.set_title(plain(title), fontsize=9)
    if bare:
        ax.set(xticks=[], yticks=[])
    else:
        bands = np.interp(HERTZ, mel_frequencies(fe), np.arange(fe.n_mels) + 0.5)
        ax.set_yticks(bands, [f"{h / 1000:g}k" if h >= 1000 else str(h) for h in HERTZ], fontsize=8)
        ax.set(xlabel="time (s)", ylabel="frequency (Hz)")
    return fig, ax


def gallery(
    rows: Mapping[str, np.ndarray], fe: FrontEnd, columns: Sequence[str] = (), title: str = "", **image: object
) -> Drawn:
    """A grid of spectrograms on one colour scale, e.g. originals above reconstructions.

    Args:
        rows: Name → (n, mel, frame); a shorter row leaves its last places empty.
        columns: Titles of the columns.
        image: Arguments of `imshow`, such as `vmin`.
    """
    n = max(len(r) for r in rows.values())
    width = min(2.2, 12 / n)  # wide enough to see beats where there are few
    size = (1.7 + width * n, 0.4 + 0.3 * bool(title) + 0.85 * width * len(rows))
    fig, axes = plt.subplots(len(rows), n, figsize=size, layout="constrained", squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for i, ax in enumerate(line):
            if i < len(pictures):
                spectrogram(pictures[i], fe, ax, bare=True, **image)
            else:
                ax.axis("off")
        line[0].set_ylabel(plain(name), rotation=0, ha="right", va="center", fontsize=11)
    for ax, text in zip(axes[0], columns, strict=False):
        ax.set_title(plain(text), fontsize=10)
    fig.suptitle(plain(title), fontsize=11)
    return fig, axes


def history(histories: Mapping[str, pd.DataFrame], columns: Sequence[str] = ("mse", "kl")) -> Drawn:
    """Training (solid) and validation (dashed) curves of one or several runs, one panel per column of `run.history`."""
    size = (4.2 * len(columns) + 1.8, 3)
    fig, axes = plt.subplots(1, len(columns), figsize=size, layout="constrained", squeeze=False)
    labels = {"mse": "squared error per bin", "kl": "KL to the prior (nats)", "loss": "loss (nats)"}
    for ax, column in zip(axes[0], columns, strict=True):
        for (name, table), style in zip(histories.items(), line_styles(list(histories)).values(), strict=True):
            for part, dash in (("train", "-"), ("validation", "--")):
                values, parts = table.get(f"{part}_{column}"), table.filter(regex=f"^{part}_{re.escape(column)}_[zc]$")
                if parts.shape[1]:  # VaDE's joint KL is the sum of its two terms
                    joint = parts.sum(axis=1, skipna=False)
                    values = joint if values is None else values.fillna(joint)
                if values is not None:
                    label = plain(name) if part == "train" else None
                    ax.plot(table["epoch"], values, dash, color=style["color"], lw=1.5, label=label)
        ax.set(xlabel="epoch", ylabel=labels.get(column, plain(column)), yscale="linear" if column == "loss" else "log")
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
        ax.tick_params(axis="y", which="both", labelsize=8)
    handles, names = axes[0, 0].get_legend_handles_labels()
    title = "solid: training\ndashed: validation"
    fig.legend(handles, names, loc="outside right upper", fontsize=8, title=title, title_fontsize=8)
    return fig, axes[0]


def maps(points: Mapping[str, np.ndarray], labels: np.ndarray, title: str = "", columns: int = 4) -> Drawn:
    """2-D maps, name → (clip, 2), `columns` in a row, coloured by class (clip,), with a legend of at most twelve."""
    styles = class_styles(labels)
    rows, columns = -(-len(points) // columns), min(columns, len(points))
    size = (3 * columns, 3 * rows + 0.6)
    fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.axis("off")
    for ax, (name, xy) in zip(axes.flat, points.items(), strict=False):
        ax.axis("on")
        for label, style in styles.items():
            ax.scatter(*xy[labels == label].T, s=7, label=plain(label), linewidths=0, **style)
        ax.set_title(plain(name), fontsize=9)
    if len(styles) <= 12:
        handles, names = axes.flat[0].get_legend_handles_labels()
        fig.legend(handles, names, loc="outside lower center", ncols=min(len(styles), 6), fontsize=8, markerscale=2)
    fig.suptitle(plain(title), fontsize=10)
    return fig, axes


def heatmap(table: pd.DataFrame, title: str = "", label: str = "", centre: float | None = None) -> Drawn:
    """A matrix with its values written in, rows and columns named by the table; `label` names the colour bar."""
    size = (2.2 + 0.75 * table.shape[1], 1.3 + 0.28 * table.shape[0])
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    cmap = "vlag" if centre is not None else "rocket_r"
    fmt = ",d" if all(pd.api.types.is_integer_dtype(kind) for kind in table.dtypes) else ".2f"
    sns.heatmap(
        table.rename(index=plain, columns=plain), annot=table.size <= 200, fmt=fmt, cmap=cmap, center=centre, ax=ax,
        annot_kws={"size": 8}, cbar_kws={"label": plain(label)},
    )  # fmt: skip
    ax.tick_params(axis="x", rotation=30, labelsize=8)
    ax.tick_params(axis="y", rotation=0, labelsize=8)
    ax.set_title(plain(title), fontsize=10)
    return fig, ax


def bars(
    values: Mapping[str, float],
    nulls: Mapping[str, float] | None = None,
    label: str = "",
    null: str = "95th percentile with permuted labels",
) -> Drawn:
    """Horizontal bars, one per named value, with its null (of the kind that `null` says) as a black tick."""
    fig, ax = plt.subplots(figsize=(6.5, 0.8 + 0.36 * len(values)), layout="constrained")
    ax.barh([plain(n) for n in values], list(values.values()), color=PALETTE[0])
    for i, (name, value) in enumerate(values.items()):
        if nulls and name in nulls:
            ax.plot([nulls[name]] * 2, [i - 0.4, i + 0.4], color="black", lw=2)
        ax.text(max(value, 0), i, f" {value:.3f}", va="center", fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.14)
    ax.set_xlabel(plain(label) + (f"  (black tick: {null})" if nulls else ""), fontsize=8)
    return fig, ax


def dendrogram(linkage: np.ndarray, labels: Sequence[str], families: Sequence[str], title: str = "") -> Drawn:
    """The tree of the classes, leaves coloured by family; a branch has the colour of the one family below it.

    Of scipy's linkage (C - 1, 4) of the classes' centroids, names (C,) and families (C,) of the classes.
    """
    colours = {family: style["color"] for family, style in class_styles(families).items()}
    below = [{f} for f in families]  # the families under every node, leaves first
    for a, b in np.asarray(linkage)[:, :2].astype(int):
        below.append(below[a] | below[b])
    fig, ax = plt.subplots(figsize=(9, 1.1 + 0.21 * len(labels)), layout="constrained")
    leaves = hierarchy.dendrogram(
        linkage, orientation="left", ax=ax, labels=[plain(name) for name in labels], leaf_font_size=8.5,
        link_color_func=lambda k: colours[min(below[k])] if len(below[k]) == 1 else "#c8c8c8",
    )["leaves"]  # fmt: skip
    for leaf, tick in zip(leaves, ax.get_yticklabels(), strict=True):
        tick.set_color(colours[families[leaf]])
    ax.set_xlabel("distance at which the classes are joined")
    ax.set_title(plain(title), fontsize=10)
    ax.spines[["left", "right", "top"]].set_visible(False)
    handles = [Line2D([], [], color=colour, marker="o", ls="", label=plain(f)) for f, colour in colours.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), fontsize=8.5, frameon=False)
    return fig, ax
