"""Pictures of a collection: one class or thousands, equal values or none, names in any script."""

import warnings

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from vaelib import plots
from vaelib.plots.collection import LONGEST, short

RNG = np.random.default_rng(0)
SPLITS = ["train", "validation", "test"]
NAMES = [
    "rock", "x" * 300, "two\nlines", "", "$a$ $\\frac{", "<img src=x onerror=alert(1)>", "أغنية شعبية", "שיר עם",
    "🎵🎶 emoji", "বাউল গান", "民謡", "\u202eevil\u202c", "tab\tand\x00nul", "hindi गीत",
]  # fmt: skip


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(figure):
    """Render it; a warning (a missing glyph, a layout that does not fit) is an error: it would stand in the report."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    return figure


def counts(n: int, names=None) -> pd.DataFrame:
    return pd.DataFrame(RNG.integers(0, 50, (n, 3)), names or [f"class {i}" for i in range(n)], SPLITS)


@pytest.mark.parametrize("n", [0, 1, 2, 36, 37, 5000])
def test_any_number_of_classes_fits_on_a_page(n):
    sizes = counts(n)
    figure, ax = plots.balance(sizes, "classes")
    drawn(figure)
    words = [t.get_text() for t in ax.get_yticklabels()]
    assert figure.get_size_inches()[1] < 10 and len(words) <= 36
    if n == 5000:
        assert words[20] == "… 4,968 more classes …" and words[-1] == "class 4999"
    assert [t.get_text().strip() for t in ax.texts[:2]] == [f"{v:,}" for v in sizes.sum(axis=1)[:2]]


def test_bars_are_stacked_from_their_parts():
    sizes = counts(3)
    _, ax = plots.balance(sizes)
    widths = np.array([p.get_width() for p in ax.patches]).reshape(3, 3).T
    assert np.array_equal(widths, sizes.to_numpy())
    _, ax = plots.balance(sizes[["train"]])
    assert ax.get_legend() is None and len(ax.patches) == 3


def test_hostile_names_are_short_plain_and_drawable():
    figure, ax = plots.balance(counts(len(NAMES), NAMES), "$x$", "$y$")
    drawn(figure)
    left = ax.get_window_extent().x0
    assert left < 0.5 * figure.bbox.width  # the names leave room for the bars
    assert all(len(short(name).replace("\\$", "$")) <= LONGEST for name in NAMES)
    words = {name: short(name) for name in NAMES}
    assert words["rock"] == "rock" and words["two\nlines"] == "two lines" and words[""] == "(no name)"
    assert words["\u202eevil\u202c"] == "evil" and words["أغنية شعبية"] == "أغنية شعبية"
    assert short("a byte \udcff that is no text") == "a byte □ that is no text"
    assert words["🎵🎶 emoji"] == "□□ emoji" and "…" in words["x" * 300]


@pytest.mark.parametrize("values", [[], [3.0], [3.0] * 9, [0.1, 36_000.0], [5.0, np.nan, 6.0]], ids=str)
def test_lengths_of_any_kind(values):
    figure, ax = plots.durations(np.array(values))
    drawn(figure)
    assert sum(p.get_height() for p in ax.patches) == np.isfinite(values).sum()
    assert (ax.get_xscale() == "log") == (values == [0.1, 36_000.0])


def test_a_wide_range_of_lengths_has_marks_that_are_read_as_times():
    _, ax = plots.durations(RNG.lognormal(5, 0.6, 400))
    words = [t.get_text() for t in ax.get_xticklabels()]
    assert 3 <= len(words) <= 9 and {"1 min", "2 min", "5 min"} <= set(words)
    assert ax.get_xticks()[words.index("2 min")] == 120


@pytest.mark.parametrize("n", [0, 1, 500])
def test_loudness_with_and_without_peaks(n):
    rms = RNG.normal(-20, 5, n)
    figure, axes = plots.loudness(rms, np.linspace(0, 1.2, n))
    assert [sum(p.get_height() for p in a.patches) for a in drawn(figure).axes] == [n, n] and len(axes) == 2
    figure, axes = plots.loudness(rms)
    assert len(axes) == 1 and sum(p.get_height() for p in axes[0].patches) == n
    drawn(figure)


@pytest.mark.parametrize("n", [0, 1, 500])
def test_faults_are_drawn_worst_first(n):
    silent, clipped = RNG.uniform(size=n), np.zeros(n)
    figure, axes = plots.faults(silent, clipped, (0.5, 0.001))
    drawn(figure)
    assert np.allclose(axes[0].lines[0].get_ydata(), 100 * np.sort(silent)[::-1])
    assert axes[0].lines[1].get_ydata()[0] == 50 and axes[1].lines[1].get_ydata()[0] == pytest.approx(0.1)
    assert axes[1].get_ylim()[1] < 1  # a limit of 0.1 % is not drawn on an axis to 100 %
