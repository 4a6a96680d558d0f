"""Notebook 04 as executed, and its experiments on codes and decoders whose answer is known."""

import re
import shutil
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from vaelib import claims, runs
from vaelib.metrics.disentanglement import mig
from vaelib.runs import Embedding

from .cells import run_cells

NAME = "04_beta_vae"


@pytest.fixture(scope="module")
def space(tiny_runs, tmp_path_factory):
    """The experiments of 04, which have been executed on a tiny run."""
    folder = tmp_path_factory.mktemp("run") / tiny_runs["beta_vae"].folder.name
    shutil.copytree(tiny_runs["beta_vae"].folder, folder)
    yield run_cells(NAME, "setup", "test-disentanglement", "test-traversal", trained=str(folder))
    plt.close("all")


def desk(folder, turn=0.0, clips: int = 60):
    """Two patterns mixed at levels that the first two of three codes are, turned; the decoder mixes them again."""
    rng = np.random.default_rng(0)
    patterns, levels = rng.uniform(size=(2, 12, 3)), rng.uniform(-2, 2, (clips, 2))
    table = pd.DataFrame(levels * 5, columns=["drums", "bass"])
    rows = {None: np.arange(clips), "train": np.arange(40), "test": np.arange(40, clips)}
    q = np.eye(3)
    q[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    codes = np.c_[levels, np.zeros(clips)]

    def mix(z):
        return 0.5 + 0.1 * np.einsum("nk,kft->nft", z[:, :2], patterns)

    def embed(split):
        n = len(rows[split])
        return Embedding(codes[rows[split]] @ q, np.zeros((n, 3)), np.array([2.0, 1.0, 0.0]), rows[split])

    store = SimpleNamespace(factors=list(table), table=table, rows=lambda s=None: rows[s], attrs={}, units={})
    return SimpleNamespace(
        name="desk", folder=folder, store=store, config=SimpleNamespace(training=SimpleNamespace(seed=0)),
        embed=embed, rows=rows.get, middle_windows=lambda r: mix(codes[r]), decode=lambda z: mix(z @ q.T),
        history=pd.DataFrame({"phase": [""], "seconds": [1.0]}),
        summary={"clips_per_s": 1, "epochs": 1, "parameters": 1},
    )  # fmt: skip


def test_mutual_information_by_hand_of_codes_with_a_known_gap(space):
    z = np.tile(np.arange(4.0), 100)  # independent of the other
    other = np.repeat(np.arange(4.0), 100)
    codes = np.c_[z, z // 2, other]
    found = space["gaps"](codes, {"level": z.astype(int), "constant": np.ones(400)})
    assert list(found) == ["level"] and found["level"] == pytest.approx([1, 0.5])
    rng = np.random.default_rng(0)
    codes, factor = rng.normal(size=(500, 3)), rng.normal(size=500) + 2
    factors = {"measured": codes[:, 0] + 0.3 * factor}
    (first, second) = space["gaps"](codes, factors)["measured"]
    assert first - second == pytest.approx(mig(codes, factors).mean, abs=1e-3)


def test_nulls_by_hand_are_those_of_the_library_and_rotations_tell_axes_from_a_turned_space(space):
    codes = np.random.default_rng(0).uniform(-1, 1, (600, 3))
    factors = pd.DataFrame(codes[:, :2], columns=["f0", "f1"])
    permuted, rotated = space["nulls"](codes, factors, np.arange(3), 0)
    assert len(permuted) == 20 and len(rotated) == 40
    assert max(permuted) < 0.1 and np.percentile(rotated, 95) < mig(codes, factors).mean - 0.3
    assert np.ptp(space["nulls"](codes[:, :1], factors[["f0"]], np.arange(1), 0)[1]) < 1e-9


def test_a_slider_that_is_a_fader_is_found_out_and_one_that_moves_both_is_not(space, tmp_path):
    run = desk(tmp_path / "straight")
    space["traversal"](run)
    n, spread = claims.read(run).numbers, run.store.table["drums"][40:].std(ddof=0)
    low, high = np.percentile(run.embed("test").means[:, 0], [5, 95])
    assert n["traversal.dimension"] == 0 and n["traversal.live"] == 2
    assert n["traversal.effect.drums"] == pytest.approx(5 * (high - low) / spread, rel=0.02)
    assert n["traversal.share"] > 0.97 and 0.5 < n["traversal.share.random"] < 0.9
    assert n["traversal.share"] == pytest.approx(claims.read(run).per_clip["traversal.share"].mean())
    assert n["traversal.named"] == n["traversal.named_move"] == 2 and n["traversal.reader.bass"] > 0.99
    assert "z0 · drums (2.00 nats) moves drums most" in claims.read(run).texts["traversal"]
    turned = desk(tmp_path / "turned", np.pi / 4)
    space["traversal"](turned, 2)
    n = claims.read(turned).numbers
    assert n["traversal.dimension"] == 2 and n["traversal.effect.drums"] == pytest.approx(0, abs=1e-6)
    assert n["traversal.share"] == pytest.approx(0.5, abs=0.05) and n["traversal.share.random"] > 0.55
    plt.close("all")


@pytest.mark.notebooks
def test_the_executed_notebook_keeps_what_is_compared(notebooks):
    kept = notebooks.results(NAME)
    n, printed = kept.numbers, notebooks.printed(NAME)
    assert {"rec.mse", "genre.ari", "language.ami", "mig.mean", "sap.mean", "traversal.share"} <= set(n)
    assert -0.1 < n["mig.mean"] < 0.3 and n["mig.low"] <= n["mig.mean"] and n["live.own"] <= n["mig.factors"] == 4
    assert re.search(r"The main corpus:\n  (yes|in part|no)\. " + f"{n['live.own']:.0f} of 4 factors", printed)
    found = [runs.open_run(f) for f in runs.find_runs(notebooks.base / "outputs") if f.parent.name.startswith("desk")]
    assert {r.config.model.name for r in found} == {"beta_vae", "conv_vae"}
    for run in found:
        m = claims.read(run).numbers
        assert m["mig.factors"] == 5 and {"rec.r2", "traversal.share"} <= set(m) and "genre.ari" not in m
