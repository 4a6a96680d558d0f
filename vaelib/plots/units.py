"""The picture of what convolutional units look for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from .basics import CMAP, Drawn


def units(
    kernels: Mapping[str, np.ndarray],
    selectivity: Mapping[str, Sequence[np.ndarray]],
    patterns: Mapping[str, Sequence[tuple[np.ndarray, Sequence[str]]]],
    counts: Mapping[str, Mapping[str, int]],
    frame_seconds: float,
    shown: int = 5,
) -> Drawn:
    """First-layer kernels, how selective and of which kind units are, and the inputs that drive them most.

    Args:
        kernels: Network → (n, h, w), every kernel on its own symmetric scale.
        selectivity: Network → per layer (unit,); nan is left out.
        patterns: Network → per layer the patterns (n, mel, frame) in [0, 1] and their names.
        counts: Network → kind of name → units.
        frame_seconds: Seconds per frame.
        shown: Patterns drawn of each layer, evenly spaced.
    """
    depth = len(next(iter(patterns.values())))
    fig = plt.figure(figsize=(12.8, 2.9 + 1.5 * depth), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=(2.9, 1.5 * depth), hspace=0.03)
    left, right = top.subfigures(1, 2, width_ratios=(1, 1.1))
    left.suptitle("first-layer kernels, time edges to frequency edges\n(red: positive, blue: negative)", fontsize=9)
    for ax, (name, group) in zip(left.subplots(len(kernels), 1, squeeze=False)[:, 0], kernels.items(), strict=True):
        ax.imshow(_tiles(group), cmap="vlag", vmin=-1, vmax=1)
        ax.set(xticks=[], yticks=[], ylabel=name, frame_on=False)
    _dots(right.subplots(1, 2), selectivity, counts)
    halves = bottom.subfigures(1, len(patterns), wspace=0.03, squeeze=False)[0]
    for half, (name, layers) in zip(halves, patterns.items(), strict=True):
        half.suptitle(f"{name}: inputs that drive units most (time →, frequency ↑, bright: loud)", fontsize=9)
        axes = half.subplots(depth, shown, squeeze=False)
        for layer, (line, (found, names)) in enumerate(zip(axes, layers, strict=True), 1):
            bands, frames = found.shape[1:]
            line[0].set_ylabel(f"layer {layer}\n{bands} bands\n{frames * frame_seconds:.1f} s", fontsize=8)
            for ax in line:
                ax.set(xticks=[], yticks=[], frame_on=False)
            picked = np.linspace(0, len(found) - 1, min(shown, len(found))).round().astype(int)
            for ax, unit in zip(line, picked, strict=False):
                ax.imshow(found[unit], origin="lower", cmap=CMAP, vmin=0, vmax=1)
                ax.set_title(names[unit], fontsize=7.5)
    return fig, np.array(fig.axes)


def _tiles(kernels: np.ndarray, columns: int = 16) -> np.ndarray:
    """(n, h, w) → one picture, low bands at the bottom of each kernel, a blank line between the kernels."""
    n, h, w = kernels.shape
    rows = -(-n // columns)
    sheet = np.full((rows * columns, h + 1, w + 1), np.nan)
    sheet[:n, :h, :w] = kernels[:, ::-1] / np.maximum(np.abs(kernels).max((1, 2), keepdims=True), 1e-12)
    return sheet.reshape(rows, columns, h + 1, w + 1).swapaxes(1, 2).reshape(rows * (h + 1), -1)[:-1, :-1]


def _dots(axes: np.ndarray, selectivity: Mapping[str, Sequence[np.ndarray]], counts: Mapping[str, Mapping]) -> None:
    for i, (name, layers) in enumerate(selectivity.items()):
        look = {"color": sns.color_palette("colorblind")[i], "marker": "os"[i % 2]}
        y, known = np.arange(len(layers)) + 0.14 * (2 * i - 1), [s[~np.isnan(s)] for s in layers]
        for place, s in zip(y, known, strict=True):
            if len(s):
                axes[0].plot(np.percentile(s, (10, 90)), [place] * 2, color=look["color"], lw=2)
                axes[0].plot(s.mean(), place, **look)
        kinds = counts[name]
        axes[1].plot(list(kinds.values()), np.arange(len(kinds)) + 0.14 * (2 * i - 1), ls="", label=name, **look)
    axes[0].set_yticks(range(len(layers)), [f"layer {k}" for k in range(1, len(layers) + 1)])
    axes[0].set_xlabel("selectivity for ripples (0: all alike,\n1: a single one), mean and 10 to 90 %", fontsize=8)
    axes[1].set_yticks(range(len(kinds)), list(kinds))
    axes[1].set_xlabel(f"of {sum(kinds.values())} units so many are driven\nmost by an input of this kind", fontsize=8)
    axes[1].legend(fontsize=8)
    for ax in axes:
        ax.tick_params(labelsize=8)
        ax.set_xlim(-0.03 * ax.get_xlim()[1], None)
        ax.invert_yaxis()
        ax.grid(axis="x", alpha=0.3)
