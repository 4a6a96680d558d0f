"""Figures that several notebooks draw, (figure, axes): one palette for them and the explorers, nothing is measured."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from scipy.cluster import hierarchy

from .audio import mel_frequencies
from .collection import UNLABELLED
from .config import FrontEnd

# Okabe & Ito's colour-blind-safe hues without black and yellow, then three more; dark enough for lines on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#8C6239", "#7B4FC9")
GREY = "#9A9A9A"  # what has no class
HERTZ = {100: "100", 500: "500", 1000: "1k", 2000: "2k", 4000: "4k", 8000: "8k"}
CURVES = {"mse": "squared error per bin", "kl": "KL to the prior (nats)", "loss": "loss (nats)"}
SIZES = {"axes.titlesize": 10, "figure.titlesize": 11, "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8}
plt.rcParams.update(SIZES | {"axes.prop_cycle": plt.cycler(color=PALETTE), "figure.constrained_layout.use": True})
BARE = {"frame_on": False, "xticks": [], "yticks": [], "xlabel": "", "ylabel": ""}


def plain(text: object) -> str:
    """A label as it is: two dollar signs in a file's or class's name are no formula."""
    return str(text).replace("$", r"\$")


def class_styles(classes: list[str]) -> dict[str, dict]:
    """Class → `color` and `marker`, sorted as in the explorers, 54 different ones; without a label: grey."""
    names, n = sorted(set(classes) - {UNLABELLED, ""}), len(PALETTE)
    styles = {name: {"color": PALETTE[i % n], "marker": "osD^vX"[i // n % 6]} for i, name in enumerate(names)}
    return styles | {name: {"color": GREY, "marker": "o"} for name in sorted(set(classes) - set(names))}


def spectrogram(x: np.ndarray, fe: FrontEnd, ax: plt.Axes | None = None, title: str = "", **image: object) -> tuple:
    """One spectrogram (mel, frame), low bands at the bottom, axes in Hz and seconds; `image`: arguments of `imshow`."""
    ax = ax or plt.subplots(figsize=(6, 2.6))[1]
    settings = {"vmin": 0.0, "vmax": 1.0, "cmap": "magma", "interpolation": "nearest"} | image
    ax.imshow(x, origin="lower", aspect="auto", extent=(0, x.shape[1] * fe.hop / fe.sample_rate, 0, len(x)), **settings)
    ax.set_yticks(np.interp(list(HERTZ), mel_frequencies(fe), np.arange(fe.n_mels) + 0.5), HERTZ.values())
    ax.set_ylim(0, len(x))  # ticks beyond a small picture would stretch the axis
    ax.set(xlabel="time (s)", ylabel="frequency (Hz)", title=plain(title))
    return ax.figure, ax


def gallery(rows: dict, fe: FrontEnd, columns: list[str] | tuple = (), title: str = "", **image: object) -> tuple:
    """A grid of spectrograms on one colour scale, rows name → (n, mel, frame); `image`: arguments of `imshow`."""
    n = max(map(len, rows.values()))
    width = min(2.2, 12 / n)  # wide enough to see beats where there are few
    size = (1.7 + width * n, 0.4 + 0.3 * bool(title) + 0.85 * width * len(rows))
    fig, axes = plt.subplots(len(rows), n, figsize=size, squeeze=False, subplot_kw=BARE)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for ax, picture in zip(line, pictures, strict=False):
            spectrogram(picture, fe, ax, **image)[1].set(**BARE)
        line[0].set_ylabel(plain(name), rotation=0, ha="right", va="center", fontsize=11)
    for ax, text in zip(axes[0], columns, strict=False):
        ax.set_title(plain(text))
    fig.suptitle(plain(title))
    return fig, axes


def history(histories: dict[str, pd.DataFrame], columns: list[str] = ("mse", "kl")) -> tuple:
    """Training (solid) and validation (dashed) curves of one or several runs, one panel per column of `run.history`."""
    n, styles = len(columns), class_styles(list(histories))
    fig, axes = plt.subplots(1, n, figsize=(4.2 * n + 1.8, 3), squeeze=False)
    for ax, column in zip(axes[0], columns, strict=True):
        for name, table in histories.items():
            for part, dash, label in (("train", "-", plain(name)), ("validation", "--", None)):
                terms = table.columns.intersection([f"{part}_{column}{term}" for term in ("", "_z", "_c")])
                values = table[terms].sum(axis=1, min_count=1)  # the joint KL of VaDE is the sum of its two terms
                if len(terms):
                    ax.plot(table["epoch"], values, dash, color=styles[name]["color"], label=label)
        ax.set(xlabel="epoch", ylabel=CURVES.get(column, plain(column)), yscale="linear" if column == "loss" else "log")
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside right upper", title="solid: training\ndashed: validation", title_fontsize=8)
    return fig, axes[0]


def maps(points: dict[str, np.ndarray], labels: np.ndarray, title: str = "") -> tuple:
    """2-D maps, name → (clip, 2), four in a row, coloured by class (clip,), with a legend of at most twelve."""
    styles, columns, rows = class_styles(labels), min(4, len(points)), -(-len(points) // 4)
    fig, axes = plt.subplots(rows, columns, figsize=(3 * columns, 3 * rows + 0.6), squeeze=False, subplot_kw=BARE)
    for ax, (name, xy) in zip(axes.flat, points.items(), strict=False):
        for label, style in styles.items():
            ax.scatter(*xy[labels == label].T, s=7, label=plain(label), linewidths=0, **style)
        ax.set(title=plain(name), frame_on=True)
    if len(styles) <= 12:
        fig.legend(handles=axes[0, 0].collections, loc="outside lower center", ncols=min(len(styles), 6), markerscale=2)
    fig.suptitle(plain(title))
    return fig, axes


def heatmap(table: pd.DataFrame, title: str = "", label: str = "", **look: object) -> tuple:
    """A matrix with its values written in, rows and columns named by the table; `label` names the colour bar."""
    fig, ax = plt.subplots(figsize=(2.2 + 0.75 * table.shape[1], 1.3 + 0.28 * table.shape[0]))
    counts, table = table.dtypes.eq("int64").all(), table.rename(index=plain, columns=plain)
    look = {"cmap": "rocket_r", "fmt": ",d" if counts else ".2f", "annot": table.size <= 200} | look
    sns.heatmap(table, ax=ax, annot_kws={"size": 8}, cbar_kws={"label": plain(label)}, **look)
    ax.tick_params("x", rotation=30)
    ax.tick_params("y", rotation=0)
    ax.set_title(plain(title))
    return fig, ax


def bars(values: dict[str, float], null: float, label: str) -> tuple:
    """Horizontal bars, one per named value, with a line at the 95th percentile under permuted labels."""
    fig, ax = plt.subplots(figsize=(6.5, 0.8 + 0.36 * len(values)))
    ax.bar_label(ax.barh([plain(n) for n in values], list(values.values())), fmt=" %.3f", fontsize=8)
    ax.axvline(null, color="black", lw=1.5)
    ax.invert_yaxis()
    ax.set(xmargin=0.14, xlabel=f"{plain(label)}  (line: permuted labels, 95th percentile)")
    return fig, ax


def dendrogram(linkage: np.ndarray, labels: list[str], families: list[str], title: str = "") -> tuple:
    """The tree of classes, coloured by family, of scipy's linkage (C - 1, 4) of their centroids."""
    fig, ax = plt.subplots(figsize=(9, 1.1 + 0.21 * len(labels)))
    look, styles = {"orientation": "left", "link_color_func": lambda _: GREY}, class_styles(families)
    tree = hierarchy.dendrogram(linkage, ax=ax, labels=[plain(name) for name in labels], leaf_font_size=8.5, **look)
    for leaf, tick in zip(tree["leaves"], ax.get_yticklabels(), strict=True):
        tick.set_color(styles[families[leaf]]["color"])
    ax.set(title=plain(title), xlabel="distance at which the classes are joined")
    handles = [ax.plot([], [], label=plain(family), ls="", **style)[0] for family, style in styles.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False)
    return fig, ax
