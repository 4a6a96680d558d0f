"""Figures: every function gives (figure, axes), shows what it was given, and takes any label as it is."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import TINY
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import linkage

from vaelib import plots

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(3, 16, 16))
HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "train_mse": [0.3, 0.2, 0.1], "validation_mse": [0.4, 0.3, 0.2]})
FORMULA = "a $\\frac{ b$ <img src=x onerror=alert(1)>"  # two dollar signs that enclose no formula


def every(text: str) -> dict:
    """Each function, called with `text` wherever it takes words."""
    classes, tree = np.array([text, "b", "c"] * 2), linkage([[0.0], [1], [5]])
    return {
        "spectrogram": lambda: plots.spectrogram(X[0], TINY, title=text),
        "gallery": lambda: plots.gallery({text: X, "b": X[:1]}, TINY, [text] * 3, text),
        "history": lambda: plots.history({text: HISTORY.assign(**{f"train_{text}": 1.0})}, ("mse", text)),
        "maps": lambda: plots.maps({text: RNG.normal(size=(6, 2))}, classes, text),
        "heatmap": lambda: plots.heatmap(pd.DataFrame([[1.0, 2.0]], [text], [text, "b"]), text, text),
        "bars": lambda: plots.bars({text: 0.3, "b": -0.1}, 0.1, text),
        "dendrogram": lambda: plots.dendrogram(tree, [text, "b", "c"], [text, "y", text], text),
    }


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
@pytest.mark.parametrize("text", [FORMULA, "x" * 300 + "\nline", ""], ids=["formula", "long", "empty"])
@pytest.mark.parametrize("name", every("a"))
def test_a_label_is_drawn_as_it_is_whatever_it_is(name, text):
    figure, _ = every(text)[name]()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    plt.close(figure)
    every_text = figure.findobj(matplotlib.text.Text)
    drawn = [t for t in every_text if t.get_text().replace(r"\$", "$").strip() == text.strip()]
    assert drawn and not any(t._preprocess_math(t.get_text())[1] for t in drawn)  # read as text, not as a formula


def test_a_spectrogram_is_upright_in_seconds_and_hertz():
    _, ax = plots.spectrogram(X[0], TINY, title="clip")
    (image,) = ax.images
    assert np.array_equal(image.get_array(), X[0]) and image.origin == "lower" and image.get_clim() == (0, 1)
    assert image.get_extent() == [0, pytest.approx(16 * 2048 / 22_050), 0, 16]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["100", "500", "1k", "2k", "4k", "8k"]
    assert (np.diff(ax.get_yticks()) > 0).all() and 0 <= ax.get_yticks().min() <= ax.get_yticks().max() <= 16


def test_histories_with_and_without_validation_and_of_vade_in_both_phases():
    vade = {"train_kl": [5.0, np.nan, np.nan], "train_kl_z": [np.nan, 2.0, 3.0], "train_kl_c": [np.nan, 0.5, 0.25]}
    table = HISTORY.assign(**vade)
    _, axes = plots.history({"a": table, "b": table.drop(columns="validation_mse")}, ["mse", "kl", "absent"])
    assert [len(a.lines) for a in axes] == [3, 2, 0] and axes[1].lines[0].get_ydata().tolist() == [5, 2.5, 3.25]
    colours = [line.get_color() for line in axes[0].lines]
    assert colours[0] == colours[1] != colours[2] and axes[0].lines[1].get_linestyle() == "--"
    assert axes[0].get_yscale() == "log"
    assert plots.history({"a": HISTORY.assign(train_loss=[1.0, -1, -2])}, ["loss"])[1][0].get_yscale() == "linear"


def test_classes_can_be_told_apart_and_what_has_none_is_grey():
    styles = plots.class_styles([f"{i:02d}" for i in range(54)])
    assert len({tuple(style.values()) for style in styles.values()}) == 54
    few = plots.class_styles(["b", plots.UNLABELLED, "a"])
    assert list(few) == ["a", "b", plots.UNLABELLED] and few[plots.UNLABELLED]["color"] == plots.GREY
    assert [few[n]["color"] for n in "ab"] == list(plots.PALETTE[:2])  # no colour is lost to it


def test_leaves_have_the_colours_of_their_families():
    tree = linkage(np.array([[0.0], [1], [10], [11], [30]]))
    _, ax = plots.dendrogram(tree, list("abcde"), ["x", "x", "y", "z", "y"], "tree")
    leaves = {t.get_text(): t.get_color() for t in ax.get_yticklabels()}
    assert leaves["a"] == leaves["b"] == plots.PALETTE[0] and leaves["c"] == leaves["e"] != leaves["d"]


def test_a_small_picture_fills_its_frame():
    _, axes = plots.gallery({"kernels": X[:, :4, :4]}, TINY)
    assert axes[0, 0].get_ylim() == (0, 4)
