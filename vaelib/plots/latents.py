"""The picture of what a latent dimension costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import seaborn as sns

from .basics import Drawn, _axes, _plain

MOST = 60  # directions in the picture


def prices(variances: np.ndarray, thresholds: Mapping[str, float]) -> Drawn:
    """Variance of the principal directions of windows, and the prices β · σ² that some settings ask of a dimension.

    Drawn are the directions that are worth it in some setting, and five more, but no more than `MOST`.

    Args:
        variances: (D,) summed over bins, largest first.
        thresholds: Setting → price; in the legend, how many directions are worth it.
    """
    fig, ax = _axes(None, (7.2, 3.2))
    worth = {name: int((variances > price).sum()) for name, price in thresholds.items()}
    shown = variances[: min(max(worth.values()) + 5, MOST)]
    ax.plot(np.arange(1, len(shown) + 1), shown, "o", ms=4, color="black")
    for (name, price), colour in zip(thresholds.items(), sns.color_palette("colorblind"), strict=False):
        ax.axhline(price, color=colour, lw=1.6, label=_plain(f"{name}: {worth[name]} directions lie above"))
    direction = f"principal direction of the training windows ({len(shown)} of {len(variances)})"
    ax.set(yscale="log", xlabel=direction, ylabel="variance, summed over bins")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return fig, ax
