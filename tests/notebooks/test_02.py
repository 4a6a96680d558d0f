"""Notebook 02 as executed: paths with their controls, clusters by hand."""

import json

import pytest

from vaelib.config import notebooks_dir

NAME = "02_basic_vae"


def test_the_notebook_itself_computes():
    cells = json.loads((notebooks_dir() / f"{NAME}.ipynb").read_text())["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    for step in (
        "np.diff(path",
        "np.linalg.norm",
        "KMeans(",
        "pd.crosstab",
        "rng.permutation",
        "assert np.isclose|allclose",
    ):
        assert any(part in code for part in step.split("|")), step


@pytest.mark.notebooks
def test_paths_are_scored_beside_their_controls(notebooks):
    found = notebooks.results(NAME)
    n = found.numbers
    assert 0 <= n["smooth.gradual"] <= 1 and n["smooth.gradual"] == pytest.approx(
        found.per_clip["smooth.gradual"].mean()
    )
    assert n["smooth.gradual.constant"] == 0 and n["smooth.still.constant"] == 1  # must not pass for gradual
    assert n["smooth.step_ratio.untrained"] >= 1 and n["smooth.length.untrained"] >= 1
    assert f"{n['smooth.gradual']:.0%} are gradual" in found.texts["smoothness"]
    assert len(found.per_clip["smooth.gradual"]) == 4  # `pairs` of the tiny notebooks


@pytest.mark.notebooks
def test_clusters_and_reconstruction_are_kept_for_the_comparison(notebooks):
    found = notebooks.results(NAME)
    n = found.numbers
    assert -0.5 <= n["genre.ari"] <= 1 and n["genre.ari.null_p95"] < 0.5
    assert {f"genre.ari.{short}" for short in ("pca", "mfcc", "untrained", "pca_raw")} <= set(n)
    assert 0 < n["rec.mse"] < 1 and n["rec.mse_mean"] > 0
    assert "mig.mean" in n or "disentanglement" in found.skipped
    said = notebooks.printed(NAME)
    assert f"ARI {n['genre.ari']:.3f}" in said and "through an untrained" in said
