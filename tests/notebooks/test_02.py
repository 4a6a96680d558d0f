"""Notebook 02 as executed: paths with their controls, clusters by hand."""

import ast

import nbformat
import numpy as np
import pytest

from vaelib.config import notebooks_dir

NAME = "02_basic_vae"


def test_paths_and_clusters_are_scored_beside_their_controls_and_kept_for_the_comparison(notebooks):
    found = notebooks.results(NAME)
    n, per_pair = found.numbers, found.per_clip["smooth.gradual"]
    assert len(per_pair) == 4 and n["smooth.gradual"] == pytest.approx(per_pair.mean())  # `pairs` of the tiny notebooks
    assert n["smooth.gradual.constant"] == 0 and n["smooth.still.constant"] == 1  # must not pass for gradual
    assert n["smooth.step_ratio.untrained"] >= 1 and n["smooth.length.untrained"] >= 1
    assert f"{n['smooth.gradual']:.0%} are gradual" in found.texts["smoothness"]
    assert -0.5 <= n["genre.ari"] <= 1 and n["genre.ari.null_p95"] < 0.5
    assert {f"genre.ari.{short}" for short in ("pca", "mfcc", "untrained", "pca_raw")} | {"mig.mean"} <= set(n)
    assert 0 < n["rec.mse"] < 1 and n["rec.mse_mean"] > 0
    assert f"ARI {n['genre.ari']:.3f}" in notebooks.printed(NAME)


def test_straight_jumping_round_closed_and_collapsed_paths():
    cells = {c.id: c.source for c in nbformat.read(notebooks_dir() / f"{NAME}.ipynb", 4).cells}
    defined, space = ast.parse(cells["02-metric"]), {"np": np}
    defined.body = defined.body[:1]
    exec(compile(defined, NAME, "exec"), space)
    score, t = space["smoothness"], np.linspace(0, 1, 33)
    line = t[:, None, None] * np.ones((4, 5))
    assert score(line, 4.0) == pytest.approx((1, 1, 0)) and score(line > 0.5) == pytest.approx((32, 1, 0))
    assert score(np.c_[np.cos(np.pi * t), np.sin(np.pi * t)]) == pytest.approx((1, np.pi / 2, 0), rel=1e-3)
    assert score(np.array([[0.0], [1], [0]])) == (1, np.inf, False)  # closed
    jitter = np.random.default_rng(0).normal(size=(33, 6))
    for stays in (0 * jitter, 0.4 + 1e-9 * jitter, np.nan * jitter):
        assert score(stays) == (np.inf, np.inf, True)
    assert score(0.01 * line)[0] == pytest.approx(1) and score(0.01 * line, 4.0)[2]  # evenness alone is fooled
