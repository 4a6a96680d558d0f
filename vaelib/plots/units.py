"""The picture of what convolutional units look for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from .basics import CMAP, Drawn


def units(
    kernels: Mapping[str, np.ndarray],
    patterns: Mapping[str, Sequence[tuple[np.ndarray, Sequence[str]]]],
    selectivity: Mapping[str, Sequence[np.ndarray]],
    frame_seconds: float,
    shown: int = 6,
) -> Drawn:
    """First-layer kernels, how selective the units of each layer are, and the patterns that drive them most.

    Args:
        kernels: Network → (n, h, w), every kernel on its own symmetric scale.
        patterns: Network → per layer the patterns (n, mel, frame) in [0, 1] and their names.
        selectivity: Network → per layer (unit,); nan is left out.
        frame_seconds: Seconds per frame.
        shown: Patterns drawn of each layer, evenly spaced.
    """
    depth = len(next(iter(patterns.values())))
    fig = plt.figure(figsize=(0.9 + 0.98 * shown * len(patterns), 2.9 + 1.32 * depth), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=(2.9, 1.32 * depth))
    left, right = top.subfigures(1, 2, width_ratios=(1.5, 1))
    left.suptitle("first-layer kernels, in one order (blue: quiet, red: loud here)", fontsize=9)
    for ax, (name, group) in zip(left.subplots(len(kernels), 1, squeeze=False)[:, 0], kernels.items(), strict=True):
        ax.imshow(_tiles(group), origin="lower", cmap="vlag", vmin=-1, vmax=1)
        ax.set(xticks=[], yticks=[], ylabel=name, frame_on=False)
    _dots(right, selectivity)
    for i, (half, (name, layers)) in enumerate(zip(bottom.subfigures(1, len(patterns)), patterns.items(), strict=True)):
        half.suptitle(f"{name}: input that drives a unit most (bright: loud)", fontsize=9)
        axes = half.subplots(depth, shown, squeeze=False)
        for layer, (line, (found, names)) in enumerate(zip(axes, layers, strict=True), 1):
            picked = np.linspace(0, len(found) - 1, min(shown, len(found))).round().astype(int)
            for ax in line:
                ax.axis("off")
            for ax, unit in zip(line, picked, strict=False):
                ax.axis("on")
                ax.imshow(found[unit], origin="lower", cmap=CMAP, vmin=0, vmax=1)
                ax.set(xticks=[], yticks=[])
                ax.set_title(names[unit].replace(" at ", "\nat ").replace(" ", "\n", 1), fontsize=7)
            if i == 0:
                bands, frames = found.shape[1:]
                line[0].set_ylabel(f"layer {layer}\n{bands} bands\n{frames * frame_seconds:.1f} s", fontsize=8)
    return fig, np.array(fig.axes)


def _tiles(kernels: np.ndarray, columns: int = 16) -> np.ndarray:
    """(n, h, w) → one picture, a blank line between the kernels."""
    n, h, w = kernels.shape
    scale = np.maximum(np.abs(kernels).max((1, 2), keepdims=True), 1e-12)
    rows = -(-n // columns)
    sheet = np.full((rows * columns, h + 1, w + 1), np.nan)
    sheet[:n, :h, :w] = kernels / scale
    return sheet.reshape(rows, columns, h + 1, w + 1)[::-1].swapaxes(1, 2).reshape(rows * (h + 1), -1)


def _dots(fig: plt.Figure, selectivity: Mapping[str, Sequence[np.ndarray]]) -> None:
    ax = fig.subplots()
    for i, ((name, layers), colour) in enumerate(
        zip(selectivity.items(), sns.color_palette("colorblind"), strict=False)
    ):
        y = np.arange(len(layers)) + 0.12 * (2 * i - 1)
        low, middle, high = np.array([np.nanpercentile(s, (10, 50, 90)) for s in layers]).T
        ax.hlines(y, low, high, color=colour, lw=2)
        ax.plot([np.nanmean(s) for s in layers], y, "os"[i % 2], color=colour, label=name)
    ax.set_yticks(range(len(layers)), [f"layer {k}" for k in range(1, len(layers) + 1)], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(0, None)
    ax.set_xlabel(
        "selectivity for ripples: 0 all alike, 1 a single one\n(mean, and 10 to 90 % of the units)", fontsize=8
    )
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=8)
