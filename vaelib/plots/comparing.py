"""Models side by side: intervals over seeds, sweeps, classes and clusters, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.cluster import hierarchy

from ..audio import mel_frequencies
from ..config import FrontEnd
from .basics import HERTZ, Drawn, _axes, _plain, spectrogram

# Colour-blind-safe, none too pale for a thin line or a word on white; marker and dashes tell the same again.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#882255", "#b8860b", "#332288", "#3d9ad1", "#7f7f7f", "#cc6677", "#7a7a1f")
MARKERS = "os^Dv<>PX*"
DASHES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (8, 3)), (0, (1, 1)), (0, (4, 2, 1, 2)))


def _styles(names: Sequence[str]) -> dict[str, dict]:
    """Colour, marker and dashes of every name; more than ten names get colours that only marker and dashes secure."""
    names = list(dict.fromkeys(names))
    colours = COLOURS if len(names) <= len(COLOURS) else sns.husl_palette(len(names), l=0.5)
    return {
        n: {"color": c, "marker": MARKERS[i % len(MARKERS)], "ls": DASHES[i % len(DASHES)]}
        for i, (n, c) in enumerate(zip(names, colours, strict=False))
    }


def comparison(
    table: pd.DataFrame,
    metrics: Mapping[str, str],
    intervals: pd.DataFrame | None = None,
    nulls: Mapping[str, Mapping[str, float]] | None = None,
) -> Drawn:
    """One dot panel per metric, models as rows: the comparison at a glance.

    Args:
        table: One row per run, the model's name in `model`, what its clusters were scored against in `classes`.
        metrics: Column → title with its direction.
        intervals: `model`, `metric` (a column), `mean`, `low`, `high` (nan: no interval), drawn over the dots of the
            seeds, and `null` where there is one, a short line in the model's row. Its models need no run in `table`.
        nulls: Column → name of a null or baseline → its value, a thin line across all models.
    """
    means = pd.DataFrame(columns=["model", "metric"]) if intervals is None else intervals
    means = means[means["metric"].isin(list(metrics))].reindex(
        columns=["model", "metric", "mean", "low", "high", "null"]
    )
    models = list(dict.fromkeys([*table["model"], *means["model"]]))
    lines = _styles([None, *(name for column in metrics for name in (nulls or {}).get(column, {}))])
    del lines[None]  # the style of the models' own dots
    fig, axes = plt.subplots(
        1, len(metrics), figsize=(2.4 * len(metrics) + 1.4, 0.36 * len(models) + 1.3 + 0.2 * bool(lines)),
        sharey=True, layout="constrained", squeeze=False,
    )  # fmt: skip
    blue = COLOURS[0]
    other = [c != "genre" for c in table.get("classes", ["genre"] * len(table))]
    faces = [("white" if o else blue) for o in other]
    of_model = dict(zip(table["model"], faces, strict=True))
    notes = ["hollow: clusters scored against the languages, filled: against the genres"] * any(other)
    notes += ["small dots: seeds; large dots: mean and 95 % interval"] * bool(len(means))
    notes += ["grey tick: null of the row"] * bool(means["null"].notna().any())
    fig.supxlabel("  ·  ".join(notes), fontsize=8)
    for ax, (column, title) in zip(axes[0], metrics.items(), strict=True):
        for name, value in (nulls or {}).get(column, {}).items():
            ax.axvline(value, color=lines[name]["color"], ls=lines[name]["ls"], lw=1, zorder=0)
        rows = [models.index(m) + 0.25 * bool(len(means)) for m in table["model"]]  # below the mean
        dots = {"s": 12, "alpha": 0.5, "linewidths": 0.7} if len(means) else {"s": 32}
        values = table[column].astype(float) if column in table else [np.nan] * len(table)
        ax.scatter(values, rows, edgecolors=blue, facecolors=faces, **dots)
        for r in means[means["metric"] == column].itertuples():
            y = models.index(r.model)
            ax.plot([r.null] * 2, [y - 0.3, y + 0.3], color="#888888", lw=1.6)
            ax.plot([r.low, r.high], [y, y], color=blue, lw=2.2, solid_capstyle="butt")
            ax.plot(r.mean, y, "o", ms=6.5, mec=blue, mfc=of_model.get(r.model, blue), zorder=3)
        ax.set_title(_plain(title), fontsize=9)
        ax.grid(axis="y", alpha=0.3)
        ax.margins(x=0.15)
        ax.tick_params(labelsize=8)
        ax.xaxis.set_major_locator(plt.MaxNLocator(3))
    axes[0, 0].set_yticks(range(len(models)), [_plain(m) for m in models])
    axes[0, 0].set_ylim(len(models) - 0.4, -0.6)
    if lines:
        handles = [Line2D([], [], color=s["color"], ls=s["ls"], lw=1, label=_plain(n)) for n, s in lines.items()]
        fig.legend(handles=handles, loc="outside upper center", ncols=min(len(lines), 2 * len(metrics)), fontsize=8,
                   frameon=False)  # fmt: skip
    return fig, axes[0]


def _curve(ax: Axes, x: pd.Series, y: pd.Series, label: str, **style: object) -> pd.Series:
    """Faint dots of the seeds and the line of their means, which is returned, by x, without gaps."""
    y = y.astype(float).replace([np.inf, -np.inf], np.nan)
    ax.plot(x, y, ls="", marker=style["marker"], ms=3.5, color=style["color"], alpha=0.35, mew=0)
    mean = y.groupby(x.astype(float)).mean().dropna()
    ax.plot(mean.index, mean, lw=1.8, ms=6, mec="white", mew=0.6, label=_plain(label), **style)
    return mean


def sweep(table: pd.DataFrame) -> Drawn:
    """What the KL weight costs and buys: β against the error, the mutual information gap and the live dimensions.

    Args:
        table: One row per run: `beta`, `seed`, `mse` (per bin), `mig`, and, if there, `mig_rotated` and
            `mig_null` (95th percentiles after random rotations and with permuted factors), `live` (dimensions).
    """
    panels = [
        ("squared error per bin", {"mse": "squared error"}),
        ("mutual information gap", {
            "mig": "axes as learned", "mig_rotated": "rotated, 95th percentile",
            "mig_null": "permuted, 95th percentile",
        }),
        ("live dimensions", {"live": "live dimensions"}),
    ]  # fmt: skip
    panels = [p for p in panels if set(p[1]) & set(table)]
    fig, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.4), layout="constrained")
    ticks = np.unique(table["beta"].astype(float))
    for ax, (title, columns) in zip(axes, panels, strict=True):
        for (column, label), style in zip(columns.items(), _styles(list(columns)).values(), strict=True):
            if column in table:
                _curve(ax, table["beta"], table[column], label, **style)
        if (ticks > 0).all():
            ax.set_xscale("log", base=2)
        else:  # β = 0 is an autoencoder
            ax.set_xscale("symlog", base=2, linthresh=ticks[ticks > 0].min(initial=1.0))
        ax.set_xticks(ticks, [f"{b:g}" for b in ticks], minor=False)
        ax.set_xticks([], minor=True)
        ax.set(xlabel="β, weight of the KL", title=title, ylim=(0, None) if title != panels[0][0] else None)
        ax.title.set_fontsize(10)
        ax.grid(alpha=0.25)
        if len(columns) > 1:
            ax.legend(fontsize=8)
    return fig, axes


def _spread(y: np.ndarray, gap: float) -> np.ndarray:
    """Heights (n,) moved apart to at least `gap` within [0, 1], in the same order, as little as both sides allow."""
    order = np.argsort(y, kind="stable")
    steps = gap * np.arange(len(y))
    flat = np.asarray(y, dtype=float)[order] - steps  # rises where the heights are far enough apart
    flat = (np.maximum.accumulate(flat) + np.minimum.accumulate(flat[::-1])[::-1]) / 2
    placed = np.empty(len(y))
    placed[order] = np.clip(flat, 0, 1 - steps[-1:]) + steps
    return placed


def ladder(
    table: pd.DataFrame,
    metrics: Mapping[str, str],
    expected: Mapping[str, Mapping[str, float]] | None = None,
) -> Drawn:
    """Scores against the rung of the ladder of difficulty: a line per model, grey ones for baselines, named at its end.

    Args:
        table: One row per run: `rung` (in the order of the ladder), `model`, `baseline` (whether it is one), `seed` and
            the metrics.
        metrics: Column → title, one panel each; one without any value is left out.
        expected: Column → model → what the source document expects, a dashed line.
    """
    metrics = {column: title for column, title in metrics.items() if table[column].notna().any()}
    rungs = list(dict.fromkeys(table["rung"]))
    table = table.assign(x=table["rung"].map(rungs.index))
    plain = table["baseline"].astype(bool)
    styles = {name: style | {"ls": "-"} for name, style in _styles(table["model"][~plain]).items()}
    greys = ("#555555", "#777777", "#999999")
    for i, name in enumerate(dict.fromkeys(table["model"][plain])):
        styles[name] = {"color": greys[i % 3], "marker": MARKERS[i % len(MARKERS)], "ls": DASHES[1:][i % 8]}
    rows = -(-len(metrics) // 2)
    fig, axes = plt.subplots(
        rows, min(2, len(metrics)), figsize=(13.5, 4.6 * rows), layout="constrained", squeeze=False
    )  # fmt: skip
    for ax, (column, title) in zip(axes.flat, metrics.items(), strict=False):
        wanted = (expected or {}).get(column, {})
        means = {}
        for model, style in styles.items():
            own = table[table["model"] == model]
            if own[column].notna().any():
                means[model] = _curve(ax, own["x"], own[column], model, **style)
                if model in wanted:
                    ax.axhline(wanted[model], color=style["color"], ls="--", lw=0.9, alpha=0.7, zorder=0)
        ax.set_title(_plain(title), fontsize=10.5, loc="left")
        ax.set_xticks(range(len(rungs)), [_plain(r.replace(", ", ",\n")) for r in rungs], fontsize=9)
        ax.set_xlim(-0.15, len(rungs) - 0.85)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        _name_ends(ax, means, styles, wanted, 0.19 / 3.6)
        low, high = ax.get_ylim()
        grey = {name: means[name] for name in dict.fromkeys(table["model"][plain]) if name in means}
        for name, mean in grey.items():  # those whose right ends lie together are named where they start, too
            near = [abs(m.iloc[-1] - mean.iloc[-1]) < 0.05 * (high - low) for n, m in grey.items() if n != name]
            if any(near) and len(mean) > 1:
                ax.annotate(_plain(name), (mean.index[0], mean.iloc[0]), (8, 6), textcoords="offset points",
                            fontsize=8.5, color=styles[name]["color"])  # fmt: skip
    for ax in axes.flat[len(metrics) :]:
        ax.set_visible(False)
    return fig, axes


def _name_ends(
    ax: Axes,
    means: Mapping[str, pd.Series],
    styles: Mapping[str, dict],
    wanted: Mapping[str, float],
    gap: float,
) -> None:
    """Names beside the right ends of lines, moved apart; `wanted` is what the source document expects of some."""
    low, high = ax.get_ylim()
    last = max((mean.index[-1] for mean in means.values()), default=0)
    early = {model: mean for model, mean in means.items() if mean.index[-1] < last}
    means = {model: mean for model, mean in means.items() if mean.index[-1] == last}
    early_heights, heights = (
        _spread([(mean.iloc[-1] - low) / (high - low) for mean in ends.values()], gap) for ends in (early, means)
    )
    for (model, mean), y in zip(early.items(), early_heights, strict=True):
        # beside the line's end: a long pointer would look like data
        ax.annotate(_plain(model), (mean.index[-1], low + y * (high - low)), (7, 0), textcoords="offset points",
                    va="center", fontsize=8.5, color=styles[model]["color"])  # fmt: skip
    for (model, mean), y in zip(means.items(), heights, strict=True):
        name = str(model) if len(str(model)) <= 28 else f"{str(model)[:27]}…"
        name += f", {wanted[model]:g} expected" if model in wanted else ""
        colour = styles[model]["color"]
        ax.annotate(
            _plain(name), (mean.index[-1], mean.iloc[-1]), (1.04, y), textcoords="axes fraction", va="center",
            fontsize=8.5, color=colour, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "relpos": (0, 0.5), "shrinkB": 4},
        )  # fmt: skip
    ax.set_ylim(low, high)


def kl_spectrum(kl: Mapping[str, np.ndarray], threshold: float) -> Drawn:
    """Mean KL of every latent dimension (L,), in nats, largest first, one line per model.

    Args:
        kl: Model → (L,).
        threshold: Dimensions above it are live; their number stands in the legend.
    """
    fig, ax = _axes(None, (7.6, 3.8))
    floor = threshold / 100  # what is below carries nothing: one height for all of it, zero included
    for (name, values), style in zip(kl.items(), _styles(list(kl)).values(), strict=True):
        values = np.asarray(values, dtype=float)
        label = f"{_plain(name)}: {(values > threshold).sum()} of {len(values)} live"
        values = np.sort(values[np.isfinite(values)])[::-1].clip(floor)
        ax.plot(
            1 + np.arange(len(values)),
            values,
            color=style["color"],
            ls=style["ls"],
            lw=1.8,
            marker="o" * (len(values) == 1),
            label=label,
        )
    ax.axhline(threshold, ls=":", color="black", lw=1, label=f"live above {threshold:g} nats")
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor * 0.8)
    ax.yaxis.set_major_formatter(plt.FuncFormatter(lambda v, _: f"{v:g}"))
    ax.set(xlabel="latent dimension, by its KL", ylabel="KL to the prior (nats)")
    fig.legend(loc="outside right upper", fontsize=8)
    return fig, ax


def dendrogram(linkage: np.ndarray, labels: Sequence[str], families: Sequence[str], title: str = "") -> Drawn:
    """The tree of the classes, leaves coloured by family; a branch has the colour of the one family below it.

    Args:
        linkage: (C - 1, 4), from `scipy.cluster.hierarchy.linkage` of the classes' centroids.
        labels: (C,) names of the classes.
        families: (C,) family of each class.
    """
    styles, n = _styles(sorted(set(families))), len(labels)  # as in `contents`
    fig, ax = _axes(None, (9, 1.1 + 0.21 * n))
    below = [{f} for f in families]  # the families under every node, leaves first
    for a, b in np.asarray(linkage).reshape(-1, 4)[:, :2].astype(int):
        below.append(below[a] | below[b])
    order = [0]
    if n > 1:
        tree = hierarchy.dendrogram(
            linkage, orientation="left", ax=ax, no_labels=True,
            link_color_func=lambda k: styles[min(below[k])]["color"] if len(below[k]) == 1 else "#c8c8c8",
        )  # fmt: skip
        order = tree["leaves"]
    own = [styles[families[i]] for i in order]
    heights = 5 + 10 * np.arange(n)  # where scipy puts the leaves
    ax.yaxis.tick_right()
    ax.set_yticks(heights, [_plain(labels[i]) for i in order], fontsize=8.5)
    ax.tick_params(axis="y", right=False, pad=6)
    for y, style, tick in zip(heights, own, ax.get_yticklabels(), strict=True):
        ax.plot(0, y, style["marker"], color=style["color"], ms=5, clip_on=False, zorder=3)
        tick.set_color(style["color"])
    ax.set(ylim=(0, 10 * n), xlabel="distance at which the classes are joined")
    ax.set_title(_plain(title), fontsize=10)
    ax.spines[["left", "right", "top"]].set_visible(False)
    handles = [Line2D([], [], ls="", marker=s["marker"], color=s["color"], label=_plain(f)) for f, s in styles.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), fontsize=8.5, frameon=False)
    return fig, ax


def contents(table: pd.DataFrame, title: str = "") -> Drawn:
    """What every cluster contains: the share of each family, stacked, and at the right its most frequent genre.

    Clusters of one main family stand together, the purest first.

    Args:
        table: One row per clip: `component`, `family`, `genre`.
    """
    table = table.assign(family=table["family"].fillna("unknown"), genre=table["genre"].fillna("unknown"))
    counts = pd.crosstab(table["component"], table["family"])
    clips = counts.sum(axis=1)
    share = counts.div(clips, axis=0)
    share = share.iloc[np.lexsort((-share.max(axis=1), share.to_numpy().argmax(axis=1)))]
    fig, ax = _axes(None, (9.5, 1.2 + 0.2 * len(share)))
    rows, left = np.arange(len(share)), np.zeros(len(share))
    for family, style in _styles(share.columns).items():
        colour, width = style["color"], share[family].to_numpy()
        ax.barh(rows, width, left=left, color=colour, label=_plain(family), height=0.82, ec="white", lw=0.6)
        left += width
    for y, component in enumerate(share.index):
        genres = table.loc[table["component"] == component, "genre"].value_counts()
        words = f"{genres.index[0]} {genres.iloc[0] / clips[component]:.0%}"
        ax.text(1.01, y, _plain(words), va="center", fontsize=8)
    ax.set_yticks(rows, [_plain(f"{c}  ({clips[c]})") for c in share.index], fontsize=8)
    ax.set(xlim=(0, 1), ylim=(len(share) - 0.4, -0.6), ylabel="cluster (clips)", xlabel="share of its clips")
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    ax.spines[["left", "right", "top"]].set_visible(False)
    ax.set_title(_plain(title), fontsize=10, pad=10 + 14 * -(-counts.shape[1] // 9))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=9, fontsize=8, frameon=False, borderpad=0,
              columnspacing=1.2, handlelength=1.4)  # fmt: skip
    return fig, ax


def error_map(error: np.ndarray | Mapping[str, np.ndarray], fe: FrontEnd, title: str = "") -> Drawn:
    """Mean squared error of the reconstruction over (mel, frame); several named maps share one scale."""
    maps = error if isinstance(error, Mapping) else {title: error}
    top = max((float(np.nanmax(e, initial=0)) for e in maps.values()), default=0) or 1.0
    fig, axes = plt.subplots(1, len(maps), figsize=(0.9 + 3.6 * len(maps), 3), layout="constrained", squeeze=False)
    for ax, (name, e) in zip(axes[0], maps.items(), strict=True):
        spectrogram(e, fe, ax, name, vmin=0, vmax=top, cmap="rocket_r")
        ax.label_outer()
    fig.colorbar(axes[0, -1].images[0], ax=axes[0], label="mean squared error")
    if isinstance(error, Mapping):
        fig.suptitle(_plain(title), fontsize=10)
    return fig, axes[0] if isinstance(error, Mapping) else axes[0, 0]


def error_by_band(error: Mapping[str, np.ndarray], fe: FrontEnd) -> Drawn:
    """Mean squared error of the reconstruction by frequency band: one line per model, (mel,)."""
    fig, ax = _axes(None, (7.6, 3.6))
    bands = mel_frequencies(fe)
    for (name, values), style in zip(error.items(), _styles(list(error)).values(), strict=True):
        ax.plot(bands, values, color=style["color"], ls=style["ls"], lw=1.8, label=_plain(name))
    ax.set_xscale("log")
    shown = [h for h in HERTZ if bands[0] <= h <= bands[-1]]
    ax.set_xticks(shown, [f"{h / 1000:g}k" if h >= 1000 else str(h) for h in shown])
    ax.set_xticks([], minor=True)
    ax.set(xlabel="frequency (Hz)", ylabel="mean squared error per bin", ylim=(0, None))
    ax.grid(alpha=0.25)
    fig.legend(loc="outside right upper", fontsize=8)
    return fig, ax
