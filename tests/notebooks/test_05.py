"""Notebook 05 as executed, and its experiments on codes and samples whose answer is known."""

import numpy as np
import pytest

from vaelib.runs import Embedding

from .cells import run_cells

NAME = "05_conditional_vae"
LABELS = {NAME: 5, f"{NAME}-genre": 45}  # executed notebook → classes of the tiny demo collection


@pytest.fixture(scope="module")
def space(notebooks):
    """The experiments of 05 on the run of the executed notebook."""
    folder = str(notebooks.trained(NAME).folder)
    return run_cells(NAME, "setup", "test-separation", "test-generate", trained=folder, n_samples=3)


@pytest.mark.parametrize(("name", "classes"), LABELS.items())
def test_the_executed_notebook_keeps_its_numbers(notebooks, name, classes):
    kept = notebooks.results(name)
    n = kept.numbers
    for mode in ("given", "inferred", "marginal"):
        assert -0.5 <= n[f"{mode}.ari"] <= 1 and 1 / classes <= n[f"{mode}.purity"] <= 1
        assert kept.per_clip[f"{mode}.ari"].mean() == pytest.approx(n[f"{mode}.ari"])
    assert n["separation.null_p95"] < 0.3 and n["separation.chance"] == n["judge.chance"] == pytest.approx(1 / classes)
    for judge in ("spectra", "pixels"):
        assert n[f"judge.{judge}.real"] > 3 / classes  # rendered classes are heard, a ceiling above chance
        of_classes = [v for i, v in n.items() if i.startswith(f"judge.{judge}.samples.")]
        assert len(of_classes) == classes
        assert n[f"judge.{judge}.samples"] == pytest.approx(np.mean(of_classes))
        assert n[f"judge.{judge}.swap_new"] + n[f"judge.{judge}.swap_old"] <= 1
    assert {"rec.mse", "genre.ari", "mig.mean", "families.cophenetic"} <= set(n)
    assert {"separation", "generate"} <= set(kept.texts)


@pytest.mark.parametrize("known", [True, False])
def test_codes_that_are_the_label_separate_and_codes_without_it_do_not(space, monkeypatch, known):
    run, rng = space["run"], np.random.default_rng(0)

    def embed_tracks(split, labels="inferred"):
        rows = run.rows(split, tracks=True)
        z = known * np.eye(8)[run.store.codes(run.config.model.condition, rows)]
        z += 0.01 * rng.normal(size=(len(rows), 8))
        return Embedding(z, np.zeros_like(z), np.zeros(8), rows)

    monkeypatch.setattr(run, "embed_tracks", embed_tracks)
    found = space["separation"](run)
    n, text = found.numbers, found.texts["separation"]
    if known:
        assert n["given.ari"] == n["inferred.purity"] == n["separation.probe"] == pytest.approx(1)
        assert "own: it does." in text
    else:
        assert abs(n["given.ari"]) < 0.1 and n["separation.probe"] < 0.5 and "own: it does not." in text


def test_what_the_prior_asks_is_answered_by_the_numbers(space):
    assert space["prior_kept"]("standard", 0.0, 0.22, 0.2).endswith("leave the class out: it does.")
    assert space["prior_kept"]("standard", 0.0, 0.82, 0.2).endswith("it does not.")
    assert space["prior_kept"]("fixed", 0.19, 0.82, 0.2).endswith("it does not.")
    assert space["prior_kept"]("fixed", 0.5, 0.82, 0.2).endswith("it does in part.")


def test_what_the_judges_are_given_of_a_window(space):
    x = np.array([[[0.0, 1, 0, 1], [2, 2, 2, 2]]])
    np.testing.assert_allclose(space["spectra"](x), [[0.5, 2, 0.5, 0, 1, 0]])
    wide = np.arange(70.0 * 130).reshape(1, 70, 130)  # every second band, every third frame
    np.testing.assert_array_equal(space["pixels"](wide), wide[:, ::2, ::3].reshape(1, -1))
