"""Notebook 03 as executed: reconstruction beside Basic, filters beside initialisation, the tree of genres."""

import json

import pytest

from vaelib.config import notebooks_dir

NAME = "03_conv_vae"


def test_the_notebook_itself_computes():
    cells = json.loads((notebooks_dir() / f"{NAME}.ipynb").read_text())["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    for step in (
        "(x - copy) ** 2",
        "np.corrcoef",
        "conv2d(",
        "torch.autograd.grad",
        "linkage(",
        "cophenet(",
        "rng.permutation",
    ):
        assert step in code, step


@pytest.mark.notebooks
def test_reconstruction_is_compared_with_basic(notebooks):
    notebooks.run("02_basic_vae")
    found = notebooks.results(NAME)
    assert 0 < found.numbers["rec.mse"] < 1 and -1 <= found.numbers["rec.onset_r"] <= 1
    assert found.numbers["rec.mse"] == pytest.approx(found.per_clip["rec.mse"].mean())
    assert f"MSE {found.numbers['rec.mse']:.4f}" in notebooks.printed(NAME)


@pytest.mark.notebooks
def test_filters_are_measured_beside_the_network_before_training(notebooks):
    found = notebooks.results(NAME)
    n = found.numbers
    kinds = ("band", "onset", "sweep", "mixed", "flat")
    assert sum(n[f"filters.named.{k}"] for k in kinds) == sum(n[f"filters.named.init.{k}"] for k in kinds) == 128
    assert 0 < n["filters.units.init"] < 1 and 0 < n["filters.kernels.init"] < 1
    layers = [n[f"filters.units.layer{i}"] for i in range(1, 5)]
    assert n["filters.units"] == pytest.approx(sum(layers) / 4)
    assert n["filters.kernels"] == pytest.approx(found.per_clip["filters.kernels"].mean())


@pytest.mark.notebooks
def test_the_tree_of_genres_has_its_null(notebooks):
    found = notebooks.results(NAME)
    n = found.numbers
    assert -1 <= n["families.cophenetic"] <= 1 and 0 < n["families.p"] <= 1
    assert (n["families.cophenetic"] > n["families.null_p95"]) == (n["families.p"] < 0.05)
    assert (notebooks.trained(NAME).folder / "results" / "hierarchy.png").is_file()
