"""Pictures: every function gives (figure, axes), shows what it was given, and stands any label."""

import inspect

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import TINY
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from vaelib import plots

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(3, 16, 16))
HISTORY = pd.DataFrame({
    "epoch": [1, 2, 3], "train_mse": [0.3, 0.2, 0.1], "validation_mse": [0.4, 0.3, 0.2], "train_kl": [1.0, 2, 3],
    "validation_kl": [1.0, 2, 3],
})  # fmt: skip
FORMULA = "a $\\frac{ b$ <img src=x onerror=alert(1)>"  # two dollar signs that enclose no formula
ODD = {"signs": "$ 100 % #_^{}\\", "long": "x" * 300, "lines": "two\nlines", "empty": ""}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def every(text: str) -> dict:
    """Each function, called with `text` wherever it takes words."""
    classes = np.array([text, "b", "c"] * 2)
    return {
        "spectrogram": lambda: plots.spectrogram(X[0], TINY, title=text),
        "gallery": lambda: plots.gallery({text: X, "b": X[:1]}, TINY, [text] * 3),
        "history": lambda: plots.history({text: HISTORY.assign(**{f"train_{text}": 1.0})}, ("mse", text)),
        "maps": lambda: plots.maps({text: RNG.normal(size=(6, 2))}, classes, text),
        "paths": lambda: plots.paths(X, TINY, {text: np.ones(2)}, title=text),
        "heatmap": lambda: plots.heatmap(pd.DataFrame([[1.0, 2.0]], [text], [text, "b"]), text, text),
        "bars": lambda: plots.bars({text: 0.3, "b": -0.1}, {text: 0.1}, text),
        "reliability": lambda: plots.reliability(
            {text: (np.array([np.nan, 0.75]), np.array([np.nan, 0.5]), np.array([0, 9]))},
            RNG.uniform(size=9),
            RNG.uniform(size=9),
            np.arange(9) > 4,
        ),
        "ellipses": lambda: plots.ellipses(
            RNG.normal(size=(6, 2)), classes, np.zeros((2, 2)), np.stack([np.eye(2), np.zeros((2, 2))]), text
        ),
        "filters": lambda: plots.filters({text: RNG.normal(size=(20, 4, 4)), "b": np.zeros((3, 4, 4))}),
        "comparison": lambda: plots.comparison(
            pd.DataFrame({"model": [text, "b"], "mse": [0.1, np.nan]}), {"mse": text}
        ),
    }


def test_every_public_function_is_tried_here():
    public = {
        n for n, f in inspect.getmembers(plots.basics, inspect.isfunction) if f.__module__ == "vaelib.plots.basics"
    }
    assert {n for n in public if not n.startswith("_")} | {"comparison"} == set(every("a"))  # others: test_plots_ledger


@pytest.mark.parametrize("name", every("a"))
def test_figure_and_axes_come_back_and_can_be_saved(name, tmp_path):
    figure, axes = every("plain")[name]()
    assert isinstance(figure, Figure)
    found = [axes] if isinstance(axes, Axes) else list(np.ravel(axes))
    assert found and all(isinstance(a, Axes) and a.figure is figure for a in found)
    figure.savefig(tmp_path / "x.png", dpi=40)
    assert plt.imread(tmp_path / "x.png").std() > 0.01


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
@pytest.mark.parametrize("name", every("a"))
def test_a_hostile_label_is_drawn_as_it_is(name):
    figure, _ = every(FORMULA)[name]()
    figure.draw_without_rendering()
    drawn = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text().replace(r"\$", "$").strip() == FORMULA]
    assert drawn and not any(t._preprocess_math(t.get_text())[1] for t in drawn)  # read as text, not as a formula


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
@pytest.mark.parametrize("name", ["gallery", "maps", "heatmap", "bars", "ellipses", "comparison"])
@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_long_and_odd_labels_do_not_stop_a_picture(name, text):
    figure, _ = every(text)[name]()
    figure.draw_without_rendering()


# --- what they show ---


def test_a_spectrogram_is_upright_in_seconds_and_hertz():
    figure, ax = plots.spectrogram(X[0], TINY, title="clip")
    (image,) = ax.images
    assert np.array_equal(image.get_array(), X[0]) and image.origin == "lower"
    assert image.get_extent() == [0, pytest.approx(16 * 2048 / 22_050), 0, 16] and image.get_clim() == (0, 1)
    heights = ax.get_yticks()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["100", "500", "1k", "2k", "4k", "8k"]
    assert (np.diff(heights) > 0).all() and heights.min() >= 0 and heights.max() <= 16
    assert (ax.get_xlabel(), ax.get_title()) == ("time (s)", "clip")
    assert plots.spectrogram(X[0], TINY, ax) == (figure, ax)
    _, bare = plots.spectrogram(X[0], TINY, bare=True, vmax=0.5, cmap="gray")
    assert not len(bare.get_xticks()) and bare.images[0].get_clim() == (0, 0.5) and bare.images[0].cmap.name == "gray"


def test_a_gallery_leaves_the_missing_pictures_empty():
    _, axes = plots.gallery({"all": X, "one": X[:1]}, TINY, ["p", "q", "r"])
    assert axes.shape == (2, 3) and [len(a.images) for a in axes.flat] == [1, 1, 1, 1, 0, 0]
    assert [a.get_title() for a in axes[0]] == ["p", "q", "r"]
    assert [line[0].get_ylabel() for line in axes] == ["all", "one"]
    _, axes = plots.gallery({"all": X}, TINY, np.array(["p", "q"]))  # an array of titles, fewer than pictures
    assert [a.get_title() for a in axes[0]] == ["p", "q", ""]


def test_histories_with_and_without_validation():
    train_only = HISTORY.drop(columns=["validation_mse", "validation_kl"])
    empty = HISTORY.assign(validation_mse=np.nan, validation_kl=np.nan)
    for table, lines in ((HISTORY, 2), (train_only, 1), (empty, 2)):
        figure, axes = plots.history({"run": table})
        assert len(axes) == 2 and [len(a.lines) for a in axes] == [lines, lines]
        figure.draw_without_rendering()
    figure, axes = plots.history({"a": HISTORY, "b": train_only}, ["mse", "absent"])
    assert [len(a.lines) for a in axes] == [3, 0] and axes[1].get_ylabel() == "absent"
    colours = [line.get_color() for line in axes[0].lines]
    assert colours[0] == colours[1] != colours[2]
    assert plots.history({"a": HISTORY.assign(train_loss=[1.0, -1, -2])}, ["loss"])[1][0].get_yscale() == "linear"
    assert axes[0].get_yscale() == "log" and axes[0].lines[1].get_linestyle() == "--"


def test_vade_has_one_kl_curve_over_both_phases():
    table = HISTORY.assign(
        train_kl=[5.0, np.nan, np.nan], train_kl_z=[np.nan, 2.0, 3.0], train_kl_c=[np.nan, 0.5, 0.25]
    )
    _, axes = plots.history({"vade": table}, ["kl"])
    assert axes[0].lines[0].get_ydata().tolist() == [5, 2.5, 3.25]
    _, axes = plots.history({"vade": table.drop(columns="train_kl")}, ["kl"])
    np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), [np.nan, 2.5, 3.25])


def test_maps_show_every_clip_once_with_a_legend_of_few_classes():
    labels = np.array(list("aabbbc"))
    points = {f"map {i}": RNG.normal(size=(6, 2)) for i in range(3)}
    figure, axes = plots.maps(points, labels, "title", columns=2)
    assert axes.shape == (2, 2) and not axes[1, 1].axison and axes[1, 0].axison
    for ax, (name, xy) in zip(axes.flat, points.items(), strict=False):
        shown = np.concatenate([c.get_offsets() for c in ax.collections])
        assert ax.get_title() == name and [len(c.get_offsets()) for c in ax.collections] == [2, 3, 1]
        assert np.allclose(shown, xy)  # these labels are already in the order of the classes
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "b", "c"]
    many = np.array([f"{i:02d}" for i in range(13)])
    figure, axes = plots.maps({"m": RNG.normal(size=(13, 2))}, many)
    assert not figure.legends and len({tuple(c.get_facecolor()[0]) for c in axes[0, 0].collections}) == 13


def test_paths_show_both_ends_and_every_step():
    frames = np.linspace(0, 1, 9)[:, None, None] * np.ones((9, 16, 16))
    _, axes = plots.paths(frames, TINY, {"run": np.full(8, 1 / 8), "cut": np.eye(8)[4]}, shown=5)
    assert [a.images[0].get_array().mean() for a in axes[:5]] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert [a.get_title() for a in axes[:5]] == ["0%", "25%", "50%", "75%", "100%"]
    assert [line.get_ydata().tolist() for line in axes[5].lines] == [[1 / 8] * 8, np.eye(8)[4].tolist()]


def test_a_heatmap_writes_its_values_and_centres_signed_ones():
    table = pd.DataFrame([[-1.0, 0.25], [0.5, 3.0]], ["z1", "z2"], ["loud", "bright"])
    _, ax = plots.heatmap(table, "t", "nats", 0.0)
    assert [t.get_text() for t in ax.texts] == ["-1.00", "0.25", "0.50", "3.00"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["z1", "z2"]
    _, plain = plots.heatmap(table.abs())
    assert ax.collections[0].cmap.name != plain.collections[0].cmap.name
    _, large = plots.heatmap(pd.DataFrame(np.zeros((101, 2))))
    assert not large.texts


def test_bars_have_their_nulls():
    _, ax = plots.bars({"a": 0.5, "b": -0.25, "c": 0.125}, {"a": 0.1, "c": 0.2}, "AMI")
    assert [p.get_width() for p in ax.patches] == [0.5, -0.25, 0.125]
    assert [line.get_xdata()[0] for line in ax.lines] == [0.1, 0.2]
    assert [line.get_ydata().mean() for line in ax.lines] == [0, 2]
    assert [t.get_text().strip() for t in ax.texts] == ["0.500", "-0.250", "0.125"]
    assert "permuted" in ax.get_xlabel() and plots.bars({"a": 1.0}, label="AMI")[1].get_xlabel() == "AMI"


def test_reliability_leaves_empty_bins_out_and_marks_the_clips_that_do_not_agree():
    confidence, agreement, counts = np.array([np.nan, 0.5, 0.9]), np.array([np.nan, 0.5, 1.0]), np.array([0, 4, 2])
    margin, agrees = np.arange(6.0), np.array([False, True, True, True, True, False])
    _, (left, right) = plots.reliability({"a": (confidence, agreement, counts)}, margin, margin / 6, agrees)
    assert left.lines[1].get_xydata().tolist() == [[0.5, 0.5], [0.9, 1.0]]
    dots = left.collections[0]
    assert dots.get_offsets().tolist() == [[0.5, 0.5], [0.9, 1.0]] and np.ptp(dots.get_sizes()) > 0
    assert [c.get_offsets()[:, 0].tolist() for c in right.collections] == [[1, 2, 3, 4], [0.1, 5]]  # a log axis


def test_an_ellipse_has_the_axes_of_its_covariance():
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    covariance = turn @ np.diag([9.0, 1.0]) @ turn.T
    xy, labels = RNG.normal(size=(4, 2)), np.array(list("abab"))
    _, ax = plots.ellipses(xy, labels, np.array([[2.0, 3.0]]), covariance[None])
    (found,) = [p for p in ax.patches if isinstance(p, Ellipse)]
    assert (found.width, found.height) == pytest.approx((6, 2)) and tuple(found.center) == (2, 3)
    assert found.angle % 180 == pytest.approx(np.degrees(0.5))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]


def test_kernels_are_on_their_own_symmetric_scale():
    kernels = RNG.normal(size=(20, 4, 4)) * np.arange(1, 21)[:, None, None]
    _, axes = plots.filters({"trained": kernels, "initial": kernels[:3]}, columns=16)
    assert axes.shape == (3, 16) and [sum(len(a.images) for a in line) for line in axes] == [16, 4, 3]
    for ax, kernel in zip(axes[0], kernels, strict=False):
        assert np.array_equal(ax.images[0].get_array(), kernel)
        assert ax.images[0].get_clim() == (-np.abs(kernel).max(), np.abs(kernel).max())
    assert [line[0].texts[0].get_text() for line in axes] == ["trained", "trained", "initial"]


def test_a_comparison_has_one_row_per_model_and_a_dot_per_seed():
    table = pd.DataFrame({"model": ["a", "b", "a"], "mse": [0.1, 0.2, 0.3], "mig": [np.nan] * 3})
    figure, axes = plots.comparison(table, {"mse": "MSE ↓", "mig": "MIG ↑"})
    assert axes[0].collections[0].get_offsets().tolist() == [[0.1, 0], [0.2, 1], [0.3, 0]]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["a", "b"] and axes[0].yaxis_inverted()
    assert [a.get_title() for a in axes] == ["MSE ↓", "MIG ↑"]
    figure.draw_without_rendering()  # a column without any value
    assert not figure.legends and not figure.get_supxlabel()


def test_a_comparison_draws_intervals_over_its_seeds():
    table = pd.DataFrame({"model": ["a", "b", "a"], "classes": ["genre", "language", "genre"], "ari": [0.1, 0.2, 0.3]})
    intervals = pd.DataFrame({
        "model": ["a", "b", "PCA", "a"], "metric": ["ari", "ari", "ari", "other"], "mean": [0.2, 0.25, 0.5, 9],
        "low": [0.15, np.nan, 0.4, 8], "high": [0.25, np.nan, 0.6, 10], "null": [0.01, np.nan, np.nan, 7],
    })  # fmt: skip
    figure, (ax,) = plots.comparison(table, {"ari": "ARI ↑"}, intervals, {"ari": {"MFCC $a$": 0.12}, "mse": {"x": 1}})
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "PCA"] and ax.yaxis_inverted()
    assert ax.collections[0].get_offsets()[:, 0].tolist() == [0.1, 0.2, 0.3]
    line, *rows = [(*line.get_xdata(), *np.round(np.unique(line.get_ydata()), 2)) for line in ax.lines]
    assert line == (0.12, 0.12, 0, 1) and ax.lines[0].get_linestyle() == "--" and ax.lines[0].get_linewidth() == 1
    assert rows[:3] == [(0.01, 0.01, -0.3, 0.3), (0.15, 0.25, 0), (0.2, 0)]  # null, interval and mean of the row a
    assert rows[6:] == [rows[6], (0.4, 0.6, 2), (0.5, 2)]
    means = [line for line in ax.lines if line.get_marker() == "o"]
    assert means[1].get_markerfacecolor() == "white" != means[0].get_markerfacecolor()  # against the languages
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [r"MFCC \$a\$"]
    assert all(word in figure.get_supxlabel() for word in ("hollow", "95 %", "null"))
    figure.draw_without_rendering()
