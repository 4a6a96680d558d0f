"""Notebook 03 as executed: reconstruction beside Basic, filters beside initialisation, the tree of genres."""

import pytest

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
