"""Figures that several notebooks draw: arrays and tables in, (figure, axes) out. Nothing here measures anything.

One palette for all of them and for the explorers: a class has the same colour everywhere on a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster import hierarchy

from .audio import mel_frequencies
from .collection import UNLABELLED
from .config import FrontEnd

# Okabe & Ito's colour-blind-safe hues without black and yellow, then three more; dark enough for lines on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#8C6239", "#7B4FC9")
GREY = "#9A9A9A"  # what has no class
MARKERS = "osD^vX"
HERTZ = {100: "100", 500: "500", 1000: "1k", 2000: "2k", 4000: "4k", 8000: "8k"}
CURVES = {"mse": "squared error per bin", "kl": "KL to the prior (nats)", "loss": "loss (nats)"}
Drawn = tuple[Figure, Axes | np.ndarray]
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE)  # also for what a notebook draws itself


def plain(text: object) -> str:
    """A label as it is: two dollar signs in a file's or class's name are no formula."""
    return str(text).replace("$", r"\$")


def class_styles(classes: Sequence[str]) -> dict[str, dict]:
    """Class → `color` and `marker`, sorted as in the explorers, 54 different ones; without a label: grey."""
    names, n = sorted(set(classes) - {UNLABELLED, ""}), len(PALETTE)
    styles = {name: {"color": PALETTE[i % n], "marker": MARKERS[i // n % len(MARKERS)]} for i, name in enumerate(names)}
    return styles | {name: {"color": GREY, "marker": "o"} for name in sorted(set(classes) - set(names))}


def spectrogram(
    x: np.ndarray, fe: FrontEnd, ax: Axes | None = None, title: str = "", bare: bool = False, **image: object
) -> Drawn:
    """One spectrogram (mel, frame), low bands at the bottom, axes in Hz and seconds (`bare`: without axes)."""
    ax = plt.subplots(figsize=(6, 2.6), layout="constrained")[1] if ax is None else ax
    settings = {"vmin": 0.0, "vmax": 1.0, "cmap": "magma", "interpolation": "nearest"} | image
    ax.imshow(x, origin="lower", aspect="auto", extent=(0, x.shape[1] * fe.hop / fe.sample_rate, 0, len(x)), **settings)
    ax.set_title(plain(title), fontsize=9)
    if bare:
        ax.set(xticks=[], yticks=[])
    else:
        bands = np.interp(list(HERTZ), mel_frequencies(fe), np.arange(fe.n_mels) + 0.5)
        ax.set_yticks(bands, HERTZ.values(), fontsize=8)
        ax.set(xlabel="time (s)", ylabel="frequency (Hz)")
    return ax.figure, ax


def gallery(
    rows: Mapping[str, np.ndarray], fe: FrontEnd, columns: Sequence[str] = (), title: str = "", **image: object
) -> Drawn:
    """A grid of spectrograms on one colour scale, rows name → (n, mel, frame); `image`: arguments of `imshow`."""
    n = max(len(r) for r in rows.values())
    width = min(2.2, 12 / n)  # wide enough to see beats where there are few
    size = (1.7 + width * n, 0.4 + 0.3 * bool(title) + 0.85 * width * len(rows))
    fig, axes = plt.subplots(len(rows), n, figsize=size, layout="constrained", squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for ax, picture in zip(line, pictures, strict=False):
            spectrogram(picture, fe, ax, bare=True, **image)
        for ax in line[len(pictures) :]:
            ax.axis("off")
        line[0].set_ylabel(plain(name), rotation=0, ha="right", va="center", fontsize=11)
    for ax, text in zip(axes[0], columns, strict=False):
        ax.set_title(plain(text), fontsize=10)
    fig.suptitle(plain(title), fontsize=11)
    return fig, axes


def history(histories: Mapping[str, pd.DataFrame], columns: Sequence[str] = ("mse", "kl")) -> Drawn:
    """Training (solid) and validation (dashed) curves of one or several runs, one panel per column of `run.history`."""
    n, styles = len(columns), class_styles(list(histories))
    fig, axes = plt.subplots(1, n, figsize=(4.2 * n + 1.8, 3), layout="constrained", squeeze=False)
    for ax, column in zip(axes[0], columns, strict=True):
        for name, table in histories.items():
            for part, dash, label in (("train", "-", plain(name)), ("validation", "--", None)):
                terms = table.columns.intersection([f"{part}_{column}{term}" for term in ("", "_z", "_c")])
                values = table[terms].sum(axis=1, min_count=1)  # the joint KL of VaDE is the sum of its two terms
                if len(terms):
                    ax.plot(table["epoch"], values, dash, color=styles[name]["color"], label=label)
        ax.set(xlabel="epoch", ylabel=CURVES.get(column, plain(column)), yscale="linear" if column == "loss" else "log")
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
        ax.tick_params(axis="y", which="both", labelsize=8)
    title, handles = "solid: training\ndashed: validation", axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside right upper", fontsize=8, title=title, title_fontsize=8)
    return fig, axes[0]


def maps(points: Mapping[str, np.ndarray], labels: np.ndarray, title: str = "", columns: int = 4) -> Drawn:
    """2-D maps, name → (clip, 2), `columns` in a row, coloured by class (clip,), with a legend of at most twelve."""
    styles, columns = class_styles(labels), min(columns, len(points))
    rows = -(-len(points) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3 * columns, 3 * rows + 0.6), layout="constrained", squeeze=False)
    for ax, (name, xy) in zip(axes.flat, points.items(), strict=False):
        for label, style in styles.items():
            ax.scatter(*xy[labels == label].T, s=7, label=plain(label), linewidths=0, **style)
        ax.set_title(plain(name), fontsize=9)
        ax.set(xticks=[], yticks=[])
    for ax in axes.flat[len(points) :]:
        ax.axis("off")
    if len(styles) <= 12:
        handles = axes.flat[0].get_legend_handles_labels()
        fig.legend(*handles, loc="outside lower center", ncols=min(len(styles), 6), fontsize=8, markerscale=2)
    fig.suptitle(plain(title), fontsize=10)
    return fig, axes


def heatmap(table: pd.DataFrame, title: str = "", label: str = "", centre: float | None = None) -> Drawn:
    """A matrix with its values written in, rows and columns named by the table; `label` names the colour bar."""
    size = (2.2 + 0.75 * table.shape[1], 1.3 + 0.28 * table.shape[0])
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    look = {"cmap": "rocket_r" if centre is None else "vlag", "center": centre, "annot_kws": {"size": 8}}
    look |= {"annot": table.size <= 200, "fmt": ",d" if table.dtypes.eq("int64").all() else ".2f"}
    sns.heatmap(table.rename(index=plain, columns=plain), cbar_kws={"label": plain(label)}, ax=ax, **look)
    ax.tick_params(axis="x", rotation=30, labelsize=8)
    ax.tick_params(axis="y", rotation=0, labelsize=8)
    ax.set_title(plain(title), fontsize=10)
    return fig, ax


def bars(values: Mapping[str, float], null: float, label: str, of: str = "permuted labels") -> Drawn:
    """Horizontal bars, one per named value, with a line at the 95th percentile of the null: of what `of` says."""
    fig, ax = plt.subplots(figsize=(6.5, 0.8 + 0.36 * len(values)), layout="constrained")
    ax.bar_label(ax.barh([plain(n) for n in values], list(values.values()), color=PALETTE[0]), fmt=" %.3f", fontsize=8)
    ax.axvline(null, color="black", lw=1.5)
    ax.invert_yaxis()
    ax.margins(x=0.14)
    ax.set_xlabel(f"{plain(label)}  (line: {of}, 95th percentile)", fontsize=8)
    return fig, ax


def dendrogram(linkage: np.ndarray, labels: Sequence[str], families: Sequence[str], title: str = "") -> Drawn:
    """The tree of classes, coloured by family, of scipy's linkage (C - 1, 4) of their centroids."""
    styles, names = class_styles(families), [plain(name) for name in labels]
    fig, ax = plt.subplots(figsize=(9, 1.1 + 0.21 * len(labels)), layout="constrained")
    looks = {"labels": names, "leaf_font_size": 8.5, "orientation": "left", "link_color_func": lambda _: GREY}
    leaves = hierarchy.dendrogram(linkage, ax=ax, **looks)["leaves"]
    for leaf, tick in zip(leaves, ax.get_yticklabels(), strict=True):
        tick.set_color(styles[families[leaf]]["color"])
    ax.set_title(plain(title), fontsize=10)
    ax.set_xlabel("distance at which the classes are joined")
    handles = [ax.plot([], [], label=plain(family), ls="", **style)[0] for family, style in styles.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), fontsize=8.5, frameon=False)
    return fig, ax
