"""Proofs that ask for labels or factors on corpora as people have them: gaps, one class, 100 to 1, many classes."""

import re
import warnings

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import RATE, TINY, tone
from sklearn.exceptions import ConvergenceWarning

from vaelib import plots, proofs, reports
from vaelib.config import InputError
from vaelib.runs import fit, plan
from vaelib.store import build_store, open_store

PAIRS = [(f"{a}", f"{a}_{b}", b) for a in "abc" for b in ("pop", "folk")]
NOTHING = (None, None, None)
CORPORA = {
    "unlabelled": [NOTHING] * 24,
    "one_class": [("a", "pop", "x"), NOTHING] * 12,
    "partly": [p if k % 2 else NOTHING for k in range(8) for p in PAIRS],
    "unbalanced": [("a", "pop", "x")] * 100 + [("b", "folk", "y")],
    "many": [(f"l{i}", f"l{i}g{j}", f"f{j % 3}") for i in range(6) for j in range(8) for _ in range(2)],
}
MODELS = {
    "conv_vae": {},
    "vade": {"pretrain_epochs": 1},
    "cvae": {"condition": "language", "prior": "fixed"},
}
LABELLED = ["separation", "generate", "clustering_comparison", "gmm_components", "soft_clustering", "cluster_contents",
            "clustering", "hierarchy"]  # fmt: skip
UNHEARD = (DeprecationWarning, PendingDeprecationWarning, ResourceWarning)


@pytest.fixture(scope="module", params=CORPORA)
def own(request, tmp_path_factory):
    """Name of a corpus, its store, and what could be trained on it, one epoch each."""
    folder, rows = tmp_path_factory.mktemp(request.param), []
    for n, (language, genre, family) in enumerate(CORPORA[request.param]):
        pitch = 100 * (1 + len(genre or "") + ord((language or "a")[-1]) % 5)
        soundfile.write(folder / f"{n:03d}.flac", tone(pitch, 6 + 0.25 * (n % 3), amplitude=0.1 + n % 9 / 50), RATE)
        rows.append({"path": f"{n:03d}.flac", "language": language, "genre": genre, "family": family})
        rows[-1] |= {} if request.param == "unlabelled" else {"tempo": 90.0 + n}
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "OUTPUTS"):
            patch.setenv(f"VAELIB_{name}", str(folder / name.lower()))
        store, runs = open_store(build_store(folder, TINY)), {}
        for model, changes in MODELS.items():
            quick = {"epochs": 1, "batch_size": 10, "eval_windows": 2, "precision": "32-true"} | changes
            try:
                config = plan(store, model, model_settings={"latent": 8, "components": 4}, **quick)
                runs[model] = fit(config, store, show=False)
            except InputError:
                assert model == "cvae" and request.param in ("unlabelled", "one_class")
        yield request.param, store, runs
    plt.close("all")


def test_a_proof_is_a_finding_or_a_sentence_and_never_a_warning(own):
    name, _, runs = own
    told = {}
    for proof in LABELLED:
        for run in (r for r in runs.values() if r.config.model.name in proofs.PROOFS[proof][1]):
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                found = proofs.attempt(proofs.PROOFS[proof][0], run)
            assert not [str(w.message) for w in heard if not issubclass(w.category, UNHEARD)], (proof, run.name)
            told[proof, run.config.model.name] = found
            text = str(found).replace("\n", " ")
            assert not re.search(r"\bnan\b", text) and text.endswith(".") and len(found.table()) >= 0
            if isinstance(found, proofs.Proof):
                assert (run.folder / "figures" / f"{proof}.png").is_file()
                assert "unlabelled" not in text.replace(name, ""), text
                plt.close(found.figure)
    tested = {proof for (proof, _), found in told.items() if isinstance(found, proofs.Proof)}
    if name in ("unlabelled", "one_class"):
        assert tested == {"gmm_components", "cluster_contents"}
        assert "is not tested: " in str(told["clustering", "conv_vae"])
    if name == "unbalanced":  # its one other clip is for training
        assert tested == {"gmm_components", "cluster_contents"}
        assert "has one language in test" in str(told["separation", "cvae"]).replace("\n", " ")
    if name == "partly":
        assert tested == set(LABELLED)
    if name == "many":
        assert tested == set(LABELLED)
        assert told["separation", "cvae"].numbers["chance"] == pytest.approx(1 / 6)
        assert "K-Means (K = 6) finds the language" in told["separation", "cvae"].sentence


def test_the_comparison_goes_through_and_says_why_a_claim_was_not_tested(own):
    name, _, runs = own
    found = list(runs.values())
    claims = proofs.read_claims()
    claims = claims[claims["proof"].isin(["clustering", "separation", "soft_clustering", "disentanglement"])]
    claims = claims.assign(run=claims["run"].replace("beta_vae", "conv_vae"))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        ledger = proofs.ledger(found, claims=claims)
        table = pd.DataFrame([proofs.comparison_row(r) for r in found])
        intervals = proofs.comparison_intervals(table, ["mse", "ari", "mig"])
        figure, _ = plots.comparison(table, {"mse": "MSE", "ari": "ARI", "mig": "MIG"}, intervals)
        page, _ = plots.claims(ledger)
        guide = proofs.selection_guide(found, found[0].config.corpus, {})
        ladder = proofs.ladder_table(found)
        climbed, _ = plots.ladder(ladder, reports.LADDER_METRICS, reports.EXPECTED_SCORES)
        short = reports.claims_in_short(ledger)
        lesson = reports.learned(ledger, ladder, ladder["rung"].iloc[0])
        shown = reports.claims_table(ledger)
    assert not [str(w.message) for w in heard if not issubclass(w.category, UNHEARD)]
    assert "nan" not in lesson and not short.astype(str).stack().str.contains("nan").any() and climbed.axes
    assert figure.axes and page.axes and np.isfinite(table["mse"]).all() and np.isfinite(table["mig"]).all()
    untested = ledger[ledger["verdict"] == "not tested"]
    assert untested["reason"].str.len().gt(10).all() and not shown["measured [95 %]"].str.contains("nan").any()
    supervised = ledger[ledger["id"].isin(["K1", "K2"])]
    if name in ("unlabelled", "one_class"):
        assert set(supervised["verdict"]) == {"not tested"}
        number = "no" if name == "unlabelled" else "1"
        said = f"the corpus has {number} language: a conditional model needs two classes"
        assert set(supervised["reason"]) == {said}
        assert set(ledger.loc[ledger["id"].isin(["G3", "B3"]), "verdict"]) == {"not tested"}
    mig = ledger[(ledger["id"] == "D1") & ledger["value"].notna()]
    estimated = name == "unlabelled"  # this one has no factor column
    assert set(mig["reason"].str.startswith("factors: librosa's estimates; ")) == {estimated}
    assert not ledger["metric"].str.contains("librosa").any()
    assert guide["figure"].str.contains("librosa").any() == estimated


@pytest.mark.parametrize("own", ["one_class"], indirect=True)
def test_speed_is_measured_without_classes(own):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)  # fewer distinct clips than components
        numbers = proofs.speed(own[1], rounds=1, steps=1, batch_size=4)
    assert "vade: clips per second" in numbers and "cvae: clips per second" not in numbers
