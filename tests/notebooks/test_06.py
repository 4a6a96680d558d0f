"""Notebook 06 as executed, and its experiments on mixtures whose answer is known."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax

from .cells import run_cells

NAME = "06_vade"
TAGS = ("test-clustering_comparison", "test-gmm_components", "test-soft_clustering", "test-cluster_contents")


@pytest.fixture(scope="module")
def space(notebooks):
    """The experiments of 06 on the run of the executed notebook."""
    return run_cells(NAME, "setup", *TAGS, trained=str(notebooks.trained(NAME).folder))


def soft(space, log_p, genres, first):
    """The notebook's numbers for hand-made responsibilities (track, K); `first`: component → its genre."""
    table = pd.DataFrame({"genre": genres, "entropy": 0.0, "margin": space["clustering"].margins(log_p)})
    table["first_genre"] = [first[c] for c in log_p.argmax(1)]
    table["confidence"] = table["confidence.t1"] = np.exp(log_p).max(1)
    table["agreement"] = table["two"] = table["genre"] == table["first_genre"]
    table["between"], table["distance"] = True, np.exp(-table["margin"])
    return space["soft_numbers"](table.sort_values("margin", kind="stable", ignore_index=True))[0]


def test_the_executed_notebook_keeps_its_numbers(notebooks):
    kept = notebooks.results(NAME)
    n = kept.numbers
    assert n["vs.k"] == n["genre.k"] == n["contents.components"] == 8  # everyone has as many clusters
    for name in ("vade", "codes_kmeans", "codes_gmm", "pca", "mfcc", "untrained"):
        assert -0.5 <= n[f"vs.{name}.ari"] <= 1 and n[f"vs.{name}.ari"] <= n[f"vs.{name}.nmi"]
        assert kept.per_clip[f"vs.{name}.ari"].mean() == pytest.approx(n[f"vs.{name}.ari"])
    gap = n["vs.vade.ari"] - n["vs.pca.ari"]
    assert n["vs.gap.pca"] == pytest.approx(gap) and n["vs.gap.pca.low"] <= gap <= n["vs.gap.pca.high"]
    assert n["vs.vade.ari"] == pytest.approx(n["genre.ari"]) and n["vs.mfcc.ari"] == pytest.approx(n["genre.ari.mfcc"])
    assert 1 <= n["gmm.effective"] <= n["gmm.used"] == n["contents.used"] <= 8
    assert n["gmm.gap"] == pytest.approx(n["gmm.diagonal"] - n["gmm.spherical"])
    assert 0 <= n["soft.ece"] <= 1 and n["soft.agreement"] <= n["soft.two.least"] + n["soft.two.most"]
    assert 1 / 8 <= n["soft.confidence.lowest"] <= n["soft.confidence.t1"] <= 1
    assert 0 <= n["contents.genre"] <= 1 and n["contents.family.null_p95"] < 1
    assert {"rec.mse", "mig.mean", "language.ami"} <= set(n)


def test_a_mixture_that_is_sure_and_right_is_calibrated_and_one_that_is_wrong_is_not(space):
    genres = np.tile(["a", "b"], 20)
    right = log_softmax(np.where(np.tile(np.eye(2), (20, 1)) > 0, 20.0, 0.0), axis=1)
    numbers = soft(space, right, genres, {0: "a", 1: "b"})
    assert numbers["soft.agreement"] == 1 and numbers["soft.ece"] == pytest.approx(0, abs=1e-6)
    assert numbers["soft.confidence.lowest"] > 0.999 and "always sure" in space["calibration"](numbers)
    assert soft(space, right, genres, {0: "a", 1: "a"})["soft.ece"] == pytest.approx(0.5, abs=1e-6)


def test_the_margin_finds_the_quarter_that_is_wrong_and_lies_between(space):
    margins = np.arange(1.0, 41.0)
    log_p = log_softmax(np.stack([margins, np.zeros(40)], axis=1), axis=1)
    genres = np.where(margins <= 10, "b", "a")
    numbers = soft(space, log_p, genres, {0: "a", 1: "b"})
    assert numbers["soft.agreement.least"] == 0 and numbers["soft.agreement.most"] == 1
    assert numbers["soft.quarters"] == pytest.approx(1) and numbers["soft.distance"] > 0
    assert "as trained" in space["calibration"](numbers)


def test_components_that_are_the_genres_are_ahead_and_one_cluster_is_behind(space):
    truth, others = space["truth"], {c: a for c, a in space["clusters"].items() if c != "vade"}
    numbers = space["compare"]({"vade": np.unique(truth, return_inverse=True)[1]} | others)[1]
    assert numbers["vs.vade.ari"] == numbers["vs.vade.nmi"] == pytest.approx(1)
    assert numbers["vs.gap.pca.low"] > 0 and space["compared"](numbers, "pca").startswith("better than")
    numbers = space["compare"]({"vade": np.zeros(len(truth), int)} | others)[1]
    assert numbers["vs.vade.ari"] == 0 and space["compared"](numbers, "pca").startswith("worse than")
    assert "moved no test track" in space["compared"]({"vs.same_as_start": 1.0}, "vae_kmeans")
