"""The picture of what a latent dimension costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import seaborn as sns

from .basics import Drawn, _axes, _plain


def prices(variances: np.ndarray, thresholds: Mapping[str, float], shown: int = 40) -> Drawn:
    """Variance of the principal directions of windows, and the prices β · σ² that some settings ask of a dimension.

    Args:
        variances: (D,) summed over bins, largest first.
        thresholds: Setting → price; in the legend, how many directions are worth it.
        shown: Directions that are drawn.
    """
    fig, ax = _axes(None, (7.2, 3.2))
    ax.plot(np.arange(1, min(shown, len(variances)) + 1), variances[:shown], "o", ms=4, color="black")
    for (name, price), colour in zip(thresholds.items(), sns.color_palette("colorblind"), strict=False):
        worth = int((variances > price).sum())
        ax.axhline(price, color=colour, lw=1.6, label=_plain(f"{name}: {worth} directions lie above"))
    ax.set(yscale="log", xlabel="principal direction of the training windows", ylabel="variance, summed over bins")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return fig, ax
