"""Notebook 02 as executed: paths with their controls, clusters by hand."""

import pytest

NAME = "02_basic_vae"


def test_paths_are_scored_beside_their_controls(notebooks):
    found = notebooks.results(NAME)
    n, per_pair = found.numbers, found.per_clip["smooth.gradual"]
    assert len(per_pair) == 4 and n["smooth.gradual"] == pytest.approx(per_pair.mean())  # `pairs` of the tiny notebooks
    assert n["smooth.gradual.constant"] == 0 and n["smooth.still.constant"] == 1  # must not pass for gradual
    assert n["smooth.step_ratio.untrained"] >= 1 and n["smooth.length.untrained"] >= 1
    assert f"{n['smooth.gradual']:.0%} are gradual" in found.texts["smoothness"]


def test_clusters_and_reconstruction_are_kept_for_the_comparison(notebooks):
    n = notebooks.results(NAME).numbers
    assert -0.5 <= n["genre.ari"] <= 1 and n["genre.ari.null_p95"] < 0.5
    assert {f"genre.ari.{short}" for short in ("pca", "mfcc", "untrained", "pca_raw")} | {"mig.mean"} <= set(n)
    assert 0 < n["rec.mse"] < 1 and n["rec.mse_mean"] > 0
    assert f"ARI {n['genre.ari']:.3f}" in notebooks.printed(NAME)
