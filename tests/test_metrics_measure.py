"""What every model's notebook measures: kept with the run under its ids, or why it cannot be there."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from vaelib import claims, runs
from vaelib.metrics import measure


@pytest.fixture(scope="module")
def run(store):
    return runs.fit(runs.plan(store, "conv_vae", epochs=2, latent=8), store, show=False)


def test_reconstruction_is_measured_drawn_said_and_kept(run):
    found = measure.reconstruction(run)
    x, xhat = run.reconstruct("test")
    mean = np.mean(run.middle_windows(run.rows("train")), axis=0)
    assert found.numbers["rec.mse"] == pytest.approx(((x - xhat) ** 2).mean(), rel=1e-5)
    assert found.numbers["rec.r2"] == pytest.approx(1 - ((x - xhat) ** 2).sum() / ((x - mean) ** 2).sum(), rel=1e-4)
    kept = claims.read(run)
    assert kept.numbers["rec.mse"] == found.numbers["rec.mse"] and len(kept.per_clip["rec.mse"]) == len(x)
    assert f"{found.numbers['rec.mse']:.4f}" in kept.texts["reconstruction"]
    assert (run.folder / "results" / "reconstruction.png").is_file()


def test_clusters_are_those_of_kmeans_on_train_beside_spaces_without_training(run):
    found = measure.clustering(run).numbers
    train, test = (run.embed_tracks(split).means.astype(float) for split in ("train", "test"))
    clusters = KMeans(6, n_init=10, random_state=0).fit(train).predict(test)
    assert found["genre.k"] == 6 and found["language.k"] == 3
    assert found["genre.ari"] == pytest.approx(adjusted_rand_score(run.labels("test", "genre"), clusters))
    assert {f"language.ari.{name}" for name in measure.BASELINES} <= set(found)
    assert found["language.chance"] == pytest.approx(1 / 3)


def test_clips_without_a_label_are_not_scored_and_without_labels_the_reason_is_kept(run):
    table = run.store.table.copy()
    run = replace(run, store=replace(run.store, table=table))
    table.loc[run.rows("test")[0], "genre"] = measure.UNLABELLED
    assert len(measure.clustering(run).per_clip["genre.ari"]) == 5
    table[["genre", "language"]] = measure.UNLABELLED
    assert "fewer than two genres" in measure.clustering(run).skipped["clustering"]
    assert "genre.ari" not in claims.read(run).numbers and "clustering" in claims.read(run).skipped


def test_of_thousands_of_genres_the_most_frequent_are_scored():
    genres = np.array([f"g{i}" for i in (*range(3000), *range(700, 956))] + 9 * [measure.UNLABELLED])
    run = SimpleNamespace(labels=lambda split, label, tracks=False: genres)
    assert set(genres[measure.known(run, "test", "genre")]) == {f"g{i}" for i in range(700, 956)}


def test_the_untrained_network_is_the_one_that_the_run_started_from(run):
    a, b = measure.untrained(run), measure.untrained(run)
    fresh, trained = (dict(m.named_parameters()) for m in (a, run.model))
    assert all(torch.equal(p, fresh[n]) for n, p in b.named_parameters())
    assert any(not torch.equal(p, trained[n]) for n, p in fresh.items())


def test_independent_components_find_sources_that_principal_ones_mix():
    rng = np.random.default_rng(0)
    sources, patterns = rng.uniform(-1, 1, (800, 2)), rng.normal(size=(2, 6, 5))
    x, factors = np.einsum("ns,sft->nft", sources, patterns).reshape(800, -1), pd.DataFrame(sources)
    codes = measure.linear_codes(x, np.arange(800) < 600, 2, 0)
    assert codes["pca"].shape == codes["ica"].shape == (800, 2)
    assert measure.mig(codes["ica"], factors).mean > measure.mig(codes["pca"], factors).mean + 0.2
