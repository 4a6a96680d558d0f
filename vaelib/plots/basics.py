"""The pictures that proofs and notebooks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from ..audio import mel_frequencies
from ..config import FrontEnd

HERTZ = (100, 500, 1000, 2000, 4000, 8000)
CMAP = "magma"
Drawn = tuple[Figure, Axes | np.ndarray]


def _plain(text: object) -> str:
    """A label as it is: two dollar signs in a file's or class's name are no formula."""
    return str(text).replace("$", r"\$")


def _axes(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    if ax is not None:
        return ax.figure, ax
    return plt.subplots(figsize=size, layout="constrained")


def spectrogram(
    x: np.ndarray, fe: FrontEnd, ax: Axes | None = None, title: str = "", bare: bool = False, **image: object
) -> Drawn:
    """One spectrogram (mel, frame), low bands at the bottom, axes in Hz and seconds (`bare`: without axes)."""
    fig, ax = _axes(ax, (6, 2.6))
    settings = {"vmin": 0.0, "vmax": 1.0, "cmap": CMAP} | image
    seconds = x.shape[1] * fe.hop / fe.sample_rate
    ax.imshow(x, origin="lower", aspect="auto", interpolation="nearest", extent=(0, seconds, 0, x.shape[0]), **settings)
    ax.set_title(_plain(title), fontsize=9)
    if bare:
        ax.set(xticks=[], yticks=[])
    else:
        bands = np.interp(HERTZ, mel_frequencies(fe), np.arange(fe.n_mels) + 0.5)
        ax.set_yticks(bands, [f"{h / 1000:g}k" if h >= 1000 else str(h) for h in HERTZ], fontsize=8)
        ax.set(xlabel="time (s)", ylabel="frequency (Hz)")
    return fig, ax


def gallery(rows: Mapping[str, np.ndarray], fe: FrontEnd, columns: Sequence[str] | None = None, **image) -> Drawn:
    """A grid of spectrograms on one colour scale: each named row is an array (n, mel, frame)."""
    n = max(len(r) for r in rows.values())
    width = min(2.2, 12 / n)  # wide enough to see beats where there are few
    fig, axes = plt.subplots(
        len(rows), n, figsize=(1.5 + width * n, 0.4 + 0.85 * width * len(rows)), layout="constrained", squeeze=False
    )
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for i, ax in enumerate(line):
            if i < len(pictures):
                spectrogram(pictures[i], fe, ax, bare=True, **image)
            else:
                ax.axis("off")
        line[0].set_ylabel(_plain(name), rotation=0, ha="right", va="center", fontsize=9)
    for ax, title in zip(axes[0], () if columns is None else columns, strict=False):
        ax.set_title(_plain(title), fontsize=8)
    return fig, axes


def history(histories: Mapping[str, pd.DataFrame], columns: Sequence[str] = ("mse", "kl")) -> Drawn:
    """Training (solid) and validation (dashed) curves of one or several runs, one panel per column."""
    fig, axes = plt.subplots(
        1, len(columns), figsize=(4.2 * len(columns) + 1.8, 3), layout="constrained", squeeze=False
    )
    colours = dict(zip(histories, sns.color_palette("colorblind", len(histories)), strict=True))
    labels = {"mse": "squared error per bin", "kl": "KL to the prior (nats)", "loss": "loss (nats)"}
    for ax, column in zip(axes[0], columns, strict=True):
        for name, table in histories.items():
            for part, style in (("train", "-"), ("validation", "--")):
                values = _terms(table, part, column)
                if values is not None:
                    ax.plot(table["epoch"], values, style, color=colours[name], lw=1.5,
                            label=_plain(name) if part == "train" else None)  # fmt: skip
        ax.set(xlabel="epoch", ylabel=labels.get(column, _plain(column)))
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
        if column != "loss":
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(plt.FuncFormatter(lambda v, _: f"{v:g}"))
            low, high = ax.get_ylim()  # over more than a decade the labels of all minor ticks would overlap
            minor = "123456789" if high < 10 * low else "25"
            ax.yaxis.set_minor_formatter(plt.FuncFormatter(lambda v, _, m=minor: f"{v:g}" if f"{v:e}"[0] in m else ""))
            ax.tick_params(axis="y", which="both", labelsize=8)
    handles, names = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside right upper", fontsize=8, title="solid: training\ndashed: validation",
               title_fontsize=8)  # fmt: skip
    return fig, axes[0]


def _terms(table: pd.DataFrame, part: str, column: str) -> pd.Series | None:
    """A column of a history; VaDE's joint KL is the sum of its two terms."""
    name = f"{part}_{column}"
    values = table.get(name)
    if column == "kl" and f"{name}_z" in table:
        joint = table[f"{name}_z"] + table[f"{name}_c"]
        values = joint if values is None else values.fillna(joint)
    return values


def maps(
    points: Mapping[str, np.ndarray], labels: np.ndarray, title: str = "", columns: int = 4, size: float = 3.0
) -> Drawn:
    """2-D maps side by side, coloured by class (at most 12 named ones, else by a continuous palette).

    Args:
        points: Name → (clip, 2).
        labels: (clip,) class names, the same clips in every map.
    """
    classes = sorted(set(labels))
    rows = -(-len(points) // columns)
    columns = min(columns, len(points))
    fig, axes = plt.subplots(
        rows, columns, figsize=(size * columns, size * rows + 0.6), layout="constrained", squeeze=False
    )
    palette = sns.color_palette("colorblind" if len(classes) <= 10 else "husl", len(classes))
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.axis("off")
    for ax, (name, xy) in zip(axes.flat, points.items(), strict=False):
        ax.axis("on")
        for label, colour in zip(classes, palette, strict=True):
            own = labels == label
            ax.scatter(xy[own, 0], xy[own, 1], s=7, color=colour, label=_plain(label), linewidths=0)
        ax.set_title(_plain(name), fontsize=9)
    if len(classes) <= 12:
        handles, names = axes.flat[0].get_legend_handles_labels()
        fig.legend(handles, names, loc="outside lower center", ncols=min(len(classes), 6), fontsize=8, markerscale=2)
    fig.suptitle(_plain(title), fontsize=10)
    return fig, axes


def paths(frames: np.ndarray, fe: FrontEnd, steps: Mapping[str, np.ndarray], shown: int = 7, title: str = "") -> Drawn:
    """An interpolation: some of its frames (step, mel, frame), and the length of every step of several paths."""
    fig = plt.figure(figsize=(1.45 * shown, 4.2), layout="constrained")
    grid = fig.add_gridspec(2, shown, height_ratios=(1, 1.3))
    for column, i in enumerate(np.linspace(0, len(frames) - 1, shown).round().astype(int)):
        spectrogram(frames[i], fe, fig.add_subplot(grid[0, column]), f"{i / (len(frames) - 1):.0%}", bare=True)
    ax = fig.add_subplot(grid[1, :])
    for (name, values), colour in zip(steps.items(), sns.color_palette("colorblind"), strict=False):
        ax.plot(np.linspace(0, 100, len(values)), values, label=_plain(name), color=colour)
    ax.set(xlabel="position on the path (%)", ylabel="step length (share of the path)", ylim=(0, None))
    ax.legend(fontsize=8)
    fig.suptitle(_plain(title), fontsize=10)
    return fig, np.array(fig.axes)


def heatmap(table: pd.DataFrame, title: str = "", label: str = "", centre: float | None = None) -> Drawn:
    """A matrix with its values written in, rows and columns named by the table."""
    fig, ax = _axes(None, (2.2 + 0.75 * table.shape[1], 1.3 + 0.28 * table.shape[0]))
    cmap = "vlag" if centre is not None else "rocket_r"
    fmt = ",d" if all(pd.api.types.is_integer_dtype(kind) for kind in table.dtypes) else ".2f"
    sns.heatmap(
        table.rename(index=_plain, columns=_plain), annot=table.size <= 200, fmt=fmt, cmap=cmap, center=centre, ax=ax,
        annot_kws={"size": 8}, cbar_kws={"label": _plain(label)},
    )  # fmt: skip
    ax.tick_params(axis="x", rotation=30, labelsize=8)
    ax.tick_params(axis="y", rotation=0, labelsize=8)
    ax.set_title(_plain(title), fontsize=10)
    return fig, ax


def bars(
    values: Mapping[str, float],
    nulls: Mapping[str, float] | None = None,
    label: str = "",
    null: str = "95th percentile with permuted labels",
) -> Drawn:
    """Horizontal bars, one per named value, with its null (of the kind that `null` says) as a black tick."""
    fig, ax = _axes(None, (6.5, 0.8 + 0.36 * len(values)))
    names = list(values)
    ax.barh([_plain(n) for n in names], [values[n] for n in names], color=sns.color_palette("colorblind")[0])
    for i, name in enumerate(names):
        if nulls and name in nulls:
            ax.plot([nulls[name]] * 2, [i - 0.4, i + 0.4], color="black", lw=2)
        ax.text(max(values[name], 0), i, f" {values[name]:.3f}", va="center", fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.14)
    ax.set_xlabel(_plain(label) + (f"  (black tick: {null})" if nulls else ""), fontsize=8)
    return fig, ax


def reliability(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    margin: np.ndarray,
    ratio: np.ndarray,
    agrees: np.ndarray,
) -> Drawn:
    """Confidence against agreement per bin; and what the least certain clips lie between.

    Args:
        curves: Name → mean confidence, agreement and number of clips of every bin.
        margin: (clip,) log-odds of the first component against the second, nats.
        ratio: (clip,) distance to the first component over that to the second.
        agrees: (clip,) bool, whether the clip is of the first component's genre.
    """
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.4), layout="constrained")
    palette = sns.color_palette("colorblind")
    axes[0].plot([0, 1], [0, 1], ":", color="grey", label="perfectly calibrated")
    for (name, (confidence, accuracy, counts)), colour in zip(curves.items(), palette, strict=False):
        full = counts > 0
        axes[0].plot(confidence[full], accuracy[full], "-", color=colour, lw=1)
        axes[0].scatter(confidence[full], accuracy[full], 12 + 2 * counts[full], color=colour, label=_plain(name),
                        alpha=0.7, linewidths=0)  # fmt: skip
    axes[0].set(xlabel="confidence, max p(c|clip); area: clips", xlim=(-0.05, 1.08), ylim=(-0.05, 1.08),
                ylabel="share agreeing with\nthe cluster's majority genre")  # fmt: skip
    legend = axes[0].legend(
        fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False
    )  # over no point
    for handle in legend.legend_handles[1:]:
        handle.set_sizes([30])
    for right, size, marker in ((True, 14, "o"), (False, 26, "X")):
        own, name = agrees == right, f"{'' if right else 'not '}of the component's genre"
        axes[1].scatter(margin[own].clip(0.1), ratio[own], size, color=palette[0 if right else 1], marker=marker,
                        alpha=0.7, linewidths=0, label=name)  # fmt: skip
    axes[1].set(xlabel="log-odds of the likeliest component\nagainst the second (nats)", xscale="log",
                ylabel="distance to the likeliest\n/ to the second", ylim=(0, None))  # fmt: skip
    axes[1].xaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
    axes[1].xaxis.set_major_formatter(plt.FuncFormatter(lambda v, _: f"{v:g}"))
    axes[1].xaxis.set_minor_formatter(plt.NullFormatter())
    axes[1].legend(fontsize=8, loc="lower left", bbox_to_anchor=(-0.1, 1), ncols=2, frameon=False, columnspacing=1)
    return fig, axes


def ellipses(xy: np.ndarray, labels: np.ndarray, means: np.ndarray, covariances: np.ndarray, title: str = "") -> Drawn:
    """Gaussian components (K, 2), (K, 2, 2) as 1-σ ellipses over a linear map of the clips (clip, 2)."""
    fig, ax = _axes(None, (6.4, 5))
    classes = sorted(set(labels))
    palette = sns.color_palette("colorblind" if len(classes) <= 10 else "husl", len(classes))
    for label, colour in zip(classes, palette, strict=True):
        own = labels == label
        ax.scatter(xy[own, 0], xy[own, 1], s=8, color=colour, label=_plain(label), linewidths=0)
    for mean, covariance in zip(means, covariances, strict=True):
        size, axes = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))
        width, height = 2 * np.sqrt(np.maximum(size[::-1], 0))
        ax.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, color="black", lw=0.8, alpha=0.6))
    ax.set(xlabel="first principal axis of the latent space", ylabel="second principal axis", title=_plain(title))
    ax.legend(fontsize=8, markerscale=2, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)  # over no clip
    return fig, ax


def filters(groups: Mapping[str, np.ndarray], columns: int = 16) -> Drawn:
    """Small kernels (n, h, w) of several groups, each kernel on its own symmetric scale."""
    lines = [(name, k[i : i + columns]) for name, k in groups.items() for i in range(0, len(k), columns)]
    fig, axes = plt.subplots(
        len(lines), columns, figsize=(0.5 * columns + 1.2, 0.55 * len(lines) + 0.2), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for line, (name, kernels) in zip(axes, lines, strict=True):
        for ax in line:
            ax.axis("off")
        for ax, k in zip(line, kernels, strict=False):
            ax.imshow(k, origin="lower", cmap="vlag", vmin=-np.abs(k).max(), vmax=np.abs(k).max())
        line[0].text(-0.25, 0.5, _plain(name), transform=line[0].transAxes, ha="right", va="center", fontsize=8)
    return fig, axes
