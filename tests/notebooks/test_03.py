"""Notebook 03 as executed: reconstruction beside Basic, filters beside initialisation, the tree of genres."""

import nbformat
import numpy as np
import pytest

from vaelib.config import notebooks_dir

NAME = "03_conv_vae"


def test_reconstruction_is_compared_with_basic(notebooks):
    notebooks.run("02_basic_vae")
    found = notebooks.results(NAME)
    n = found.numbers
    assert 0 < n["rec.mse"] < 1 and -1 <= n["rec.onset_r"] <= 1
    assert n["rec.mse"] == pytest.approx(found.per_clip["rec.mse"].mean())
    assert f"MSE {n['rec.mse']:.4f}" in notebooks.printed(NAME) and "than basic_vae:" in notebooks.printed(NAME)


def test_filters_are_measured_beside_the_network_before_training_and_the_tree_has_its_null(notebooks):
    found = notebooks.results(NAME)
    n = found.numbers
    kinds = ("band", "onset", "sweep", "mixed", "flat")
    assert sum(n[f"filters.named.{k}"] for k in kinds) == sum(n[f"filters.named.init.{k}"] for k in kinds) == 128
    assert 0 < n["filters.units.init"] < 1 and 0 < n["filters.kernels.init"] < 1
    assert n["filters.units"] == pytest.approx(sum(n[f"filters.units.layer{i}"] for i in range(1, 5)) / 4)
    for name in ("filters.kernels", "filters.units", "filters.spectral.init"):
        assert n[name] == pytest.approx(found.per_clip[name].mean())
    assert -1 <= n["families.cophenetic"] <= 1 and 0 < n["families.p"] <= 1
    assert (n["families.cophenetic"] > n["families.null_p95"]) == (n["families.p"] < 0.05)
    assert (notebooks.trained(NAME).folder / "results" / "hierarchy.png").is_file()


def test_ripples_cover_both_axes_and_both_directions_once():
    cells, space = nbformat.read(notebooks_dir() / f"{NAME}.ipynb", 4).cells, {"np": np}
    exec(next(c.source for c in cells if "images = " in c.source).partition("\n\n\n")[0], space)
    images, temporal, spectral = (space[name] for name in ("images", "temporal", "spectral"))
    assert images.shape == (6 + 6 + 2 * 6 * 6, 4, 64, 64) and images.dtype == np.float32
    pairs = set(zip(temporal, spectral, strict=True))
    assert len(pairs) == len(temporal) and (0, 0) not in pairs
    assert {(t, -f) for t, f in pairs if t} == {(t, f) for t, f in pairs if t}
    falls = images[(temporal == 1) & (spectral == 1)][0, 0]
    assert falls[:, 0].argmax() == 0 and falls[:, 1].argmax() == 63  # a positive spectral modulation falls
