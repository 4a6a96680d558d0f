"""The picture of what a latent dimension costs."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np

from vaelib import plots


def test_prices_count_the_directions_that_are_worth_them():
    fig, ax = plots.prices(np.array([8.0, 4.0, 1.0, 0.5, 0.1]), {"β = 4, σ = 1": 4.0, "β = 1, σ = 0.5": 0.25}, shown=3)
    words = [t.get_text() for t in ax.get_legend().get_texts()]
    assert words == ["β = 4, σ = 1: 1 directions lie above", "β = 1, σ = 0.5: 4 directions lie above"]
    assert ax.lines[0].get_ydata().tolist() == [8, 4, 1] and ax.get_yscale() == "log"
    plt.close(fig)
