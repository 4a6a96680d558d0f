"""The picture of what a latent dimension costs."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np

from vaelib import plots


def test_prices_count_the_directions_that_are_worth_them():
    variances = np.array([8.0, 4.0, 1.0, 0.5, *np.linspace(0.2, 0.1, 96)])
    _, ax = plots.prices(variances, {"β = 4, σ = 1": 4.0, "β = 1, σ = 0.5": 0.25})
    words = [t.get_text() for t in ax.get_legend().get_texts()]
    assert words == ["β = 4, σ = 1: 1 directions lie above", "β = 1, σ = 0.5: 4 directions lie above"]
    assert ax.lines[0].get_ydata().tolist() == variances[:9].tolist() and ax.get_yscale() == "log"
    _, ax = plots.prices(variances, {"β = 1, σ = 0.1": 0.01})
    assert len(ax.lines[0].get_ydata()) == 60  # "100 directions lie above"
    plt.close("all")
