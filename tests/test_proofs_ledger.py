"""The ledger: verdicts by hand on fake runs, and every number that the table of claims names, on real ones."""

import dataclasses
import functools
import importlib
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from vaelib import proofs, reports, steps
from vaelib.collection import LADDER, UNLABELLED
from vaelib.config import DEFAULT_BETA, PRIORS, InputError, ModelConfig, RunConfig, TrainConfig
from vaelib.metrics.claims import Claim
from vaelib.models import MODELS
from vaelib.proofs import PROOFS, Proof, comparison_intervals, ladder_table, read_claims, selection_guide, speed
from vaelib.proofs.ledger import NO_RUNG, by_rung, how_far
from vaelib.proofs.registry import Measured
from vaelib.runs import fit, plan

# `proofs.ledger` is the function; these are the files
ledger_room, registry, table_room, guide_room, proof_room = (
    importlib.import_module(f"vaelib.proofs.{name}") for name in ("ledger", "registry", "table", "guide", "proof")
)
EVIDENCE = {
    *(f"P{i}" for i in range(1, 6)), *(f"B{i}" for i in range(1, 4)), *(f"V{i}" for i in range(1, 7)),
    *(f"D{i}" for i in range(1, 5)), *(f"K{i}" for i in range(1, 7)), *(f"G{i}" for i in range(1, 7)), "S1",
}  # fmt: skip
CLAIMS = read_claims()
ROWS = [pytest.param(r, id=f"{i}-{r['id']}") for i, r in enumerate(CLAIMS.to_dict("records"))]
QUICK = {"epochs": 1, "batch_size": 12, "eval_windows": 2, "precision": "32-true"}
VARIANTS = {
    "basic_vae": {}, "conv_vae": {}, "beta_vae": {}, "beta_vae-b2": {"beta": 2.0}, "beta_vae-sigma0.2": {"sigma": 0.2},
    "beta_vae-sigma0.2-components": {"sigma": 0.2, "start_components": 2},
    "conv_vae-sigma0.2-components": {"sigma": 0.2, "start_components": 2},
    "cvae-language-fixed": {"condition": "language", "prior": "fixed"},
    "cvae-language-standard": {"condition": "language"},
    "cvae-genre-fixed": {"condition": "genre", "prior": "fixed"},
    "vade": {"pretrain_epochs": 1},
}  # fmt: skip


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def names(text: str) -> list[str]:
    return [n for n in text.replace(">", "|").split("|") if n]


# --- the table of claims ---


def variants() -> set[str]:
    """Every variant that a plan can train, by the configuration's own word."""
    found = set()
    conditions = [("", "standard"), *itertools.product(("language", "genre"), PRIORS)]
    for name, (condition, prior), beta, target, detilt, (sigma, start) in itertools.product(
        MODELS, conditions, (1.0, 2.0, 4.0, 8.0, 16.0), ("same", "other"), (False, True), ((0, 0), (0.2, 0), (0.2, 5))
    ):
        if (name == "cvae") == bool(condition):
            model = ModelConfig(name, (16, 16), condition=condition, prior=prior)
            training = TrainConfig(beta=beta, target=target, sigma=sigma, start_components=start)
            found.add(RunConfig("c", "f", None, model, training, detilt, code="x").variant)
    return found


def test_every_claim_of_the_evidence_has_a_row():
    assert set(CLAIMS["id"]) >= EVIDENCE and len(EVIDENCE) == 31
    assert not CLAIMS.duplicated(["id", "metric"]).any()
    desk = CLAIMS.loc[CLAIMS["rung"] == "desk", "id"]
    assert set(desk) == {"D1", "D3", "D4"}


def test_every_row_is_well_formed():
    known = variants()
    assert {"basic_vae", "beta_vae-b2", "vade-detilt", "cvae-genre-fixed"} <= known and "beta_vae-b4" not in known
    for row in CLAIMS.to_dict("records"):
        Claim(*(row[k] for k in ("id", "claim", "metric", "expected", "how", "direction", "low", "high")))
        assert row["proof"] in {*PROOFS, "parameters", "speed"}, row
        assert set(names(row["run"] + "|" + row["against_run"])) <= known, row
        assert bool(row["run"]) == (row["proof"] in PROOFS), row
        assert (row["how"] == "value") != bool(row["against_run"] or row["against_number"]), row
        assert row["rung"] in (LADDER if row["run"] else [NO_RUNG]) and row["share"] in ("yes", ""), row
        assert row["null"] and (row["baseline"] or row["how"] != "value"), row
        assert row["notebook"] in {f"{i:02}" for i in range(2, 8)} and all(row[k] for k in ("claim", "expected")), row


def test_a_table_without_a_column_is_a_sentence(tmp_path):
    CLAIMS.drop(columns=["direction", "null"]).to_csv(tmp_path / "claims.csv", index=False)
    with pytest.raises(InputError, match=r"claims\.csv lacks the column\(s\) direction, null"):
        read_claims(tmp_path / "claims.csv")


# --- what the table names is what the proofs measure ---


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """A run of every variant, one epoch on the tones; proofs without pictures, filters of two units per layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        patch.setattr(proof_room, "png", lambda figure: b"")
        filters, models = PROOFS["filters"]
        patch.setitem(PROOFS, "filters", (functools.partial(filters, examined=2), models))
        runs = {}
        for name, changes in VARIANTS.items():
            small = {"latent": 8} | ({"components": 4} if name == "vade" else {})
            config = plan(store, name.split("-")[0], model_settings=small, **QUICK | changes)
            runs[name] = fit(config, store, show=False)
            assert runs[name].name == name
        yield runs


@pytest.fixture(scope="module")
def speeds(store):
    return speed(store, rounds=2, steps=1, batch_size=12)


@pytest.fixture(scope="module")
def extras(speeds):
    return {"parameters": reports.parameter_counts(), "speed": speeds}


@pytest.mark.parametrize("row", ROWS)
def test_every_number_of_the_table_is_measured(trained, extras, row):
    def known(variant: str, proof: str) -> set[str]:
        return set(extras[proof] if proof in extras else registry.measure(trained[variant], proof).numbers)

    subjects = [v for v in names(row["run"]) if v in trained] or [""] * (row["proof"] in extras)
    assert subjects, f"no variant of {row['run']} is trained here"
    for variant in subjects:
        assert set(row["number"].split("|")) <= known(variant, row["proof"])
        for beside in (row["null"], row["baseline"]):
            proof, _, number = beside.rpartition(" > ")
            if number and not number.startswith("–") and not number.isdigit():
                assert number in known(variant, proof or row["proof"])
    proof, _, numbers = row["against_number"].rpartition(" > ")
    rivals = [v for v in names(row["against_run"]) if v in trained]
    assert rivals or not row["against_run"]
    for variant in (rivals or subjects) if row["how"] != "value" else []:
        wanted = {n.rpartition(" * ")[2] for n in (numbers or row["number"]).split("|")}
        assert wanted <= known(variant, proof or row["proof"])


def test_one_seed_decides_what_is_counted_and_the_rest_for_this_run_only(trained, extras):
    said = []
    found = proofs.ledger(list(trained.values()), extras, show=said.append)
    assert len(found) == len(CLAIMS) == len(said) and list(found["id"]) == list(CLAIMS["id"])
    counted, timed = ((CLAIMS["proof"] == p).to_numpy() for p in ("parameters", "speed"))
    assert set(found[counted]["verdict"]) == {"supported", "refuted"}
    assert set(found[counted | timed]["rung"]) == {NO_RUNG} and set(found[~counted & ~timed]["rung"]) == {"tones"}
    # six genres with one test clip each have no silhouette; nothing else is unknown
    unknown = found[found["verdict"] == "not tested"]
    assert set(unknown["metric"]) <= {"genres, label inferred, CVAE − best other"} | set(
        CLAIMS[CLAIMS["how"] == "ratio"]["metric"]
    )
    assert set(unknown["reason"]) <= {"undefined on this corpus"}
    rest = found[~counted & (found["verdict"] != "not tested")]
    assert not set(rest["verdict"]) & {"supported", "refuted"} and np.isfinite(rest["value"]).sum() >= len(rest) - 1
    assert set(rest[timed[rest.index]]["reason"]) == {"on this machine, 2 turns of a stopwatch"}
    runs = rest[~rest["run"].eq("")]
    assert set(runs["n"]) == {1} and runs["reason"].str.contains("1 seed").all()
    decided = runs[runs["verdict"].str.endswith("in this run")]
    assert decided["reason"].str.contains("over clips or units of 1 seed").all() and len(decided)
    inside = found[CLAIMS["share"].eq("yes").to_numpy()][["low", "high"]].dropna()
    assert inside["low"].min() >= -1 and inside["high"].max() <= 1
    assert np.isfinite(found.loc[found["verdict"] != "not tested", "null"]).mean() > 0.8
    row = found[found["metric"] == "R², Conv − Basic"].iloc[0]
    conv, basic = (
        registry.measure(trained[n], "reconstruction").numbers["R² against the mean spectrogram"]
        for n in ("conv_vae", "basic_vae")
    )
    assert row["value"] == pytest.approx(conv - basic) and row["run"] == "conv_vae against basic_vae"


# --- the ledger on fake runs ---


FAKE_TABLE = pd.DataFrame({"language": ["x", "y"], "genre": ["a", "b"], "tempo": [90.0, 120.0]})


def fake(name: str, *seeds: int, epochs: int = 16, rung: str = "loops", **config) -> list:
    return [
        SimpleNamespace(
            name=name,
            config=SimpleNamespace(
                training=SimpleNamespace(seed=s, sigma=0, start_components=0), fingerprint=rung, corpus=rung, **config
            ),
            summary={"epochs": epochs},
            store=SimpleNamespace(
                factors=["tempo"], table=FAKE_TABLE, rows=lambda split: FAKE_TABLE.index, attrs={"rung": rung}
            ),
        )
        for s in seeds
    ]


@pytest.fixture
def numbers(monkeypatch):
    """(variant, seed) → number → value or values per clip; whatever is not there was not measured."""
    book = {}

    def measure(run, proof):
        given = book.get((run.name, run.config.training.seed))
        if given is None:
            raise InputError(f"{run.name} cannot have {proof}")
        given = {k.removeprefix(f"{proof} > "): v for k, v in given.items()}
        clips = {k: np.array(v) for k, v in given.items() if np.ndim(v)}
        return Measured({k: float(np.mean(v)) for k, v in given.items()}, clips)

    for room in (ledger_room, table_room, guide_room):
        monkeypatch.setattr(room, "measure", measure)
    return book


def judged(runs, extras=None, **row) -> pd.Series:
    given = {
        "id": "X1", "claim": "c", "metric": "m", "expected": "e", "run": "a", "proof": "p", "number": "n",
        "against_run": "", "against_number": "", "how": "value", "direction": "above", "low": 0.0, "high": 0.0,
        "share": "", "baseline": "", "null": "", "notebook": "02", "rung": "loops",
    }  # fmt: skip
    assert set(row) <= set(given)
    found = proofs.ledger(runs, extras, pd.DataFrame([given | row]))
    assert len(found) == 1
    return found.iloc[0]


def fill(book, name, values, number="n"):
    for seed, value in enumerate(values):
        book.setdefault((name, seed), {})[number] = value


def test_three_seeds_support_or_refute(numbers):
    fill(numbers, "a", [0.75, 0.75, 0.75])
    fill(numbers, "a", [0.25, 0.5, 0.75], "chance")
    row = judged(fake("a", 0, 1, 2), low=0.5, high=0.5, null="chance")
    assert (row["verdict"], row["value"], row["low"], row["high"], row["n"]) == ("supported", 0.75, 0.75, 0.75, 3)
    assert row["null"] == 0.5 and row["run"] == "a" and row["reason"] == ""
    assert (row["threshold_low"], row["threshold_high"], row["direction"]) == (0.5, 0.5, "above")
    assert judged(fake("a", 0, 1, 2), direction="below", low=0.5, high=0.5)["verdict"] == "refuted"
    assert judged(fake("a", 0, 1, 2), direction="within", low=0.5, high=1.0)["verdict"] == "supported"
    fill(numbers, "a", [1.0, 2, 3])  # -0.69 to 4.69
    row = judged(fake("a", 0, 1, 2))
    assert (row["verdict"], row["reason"]) == ("inconclusive", "") and row["low"] == pytest.approx(-0.689, abs=1e-3)


@pytest.mark.parametrize(("seeds", "said"), [(1, "1 seed: three are needed"), (2, "2 seeds: three are needed")])
def test_too_few_seeds_say_so(numbers, seeds, said):
    fill(numbers, "a", [0.75] * 3)
    row = judged(fake("a", *range(seeds)))
    assert (row["verdict"], row["n"]) == ("inconclusive", seeds) and row["reason"].startswith(said)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run": "b>c"}, "no finished run of b or c"),
        ({"run": "b|c"}, "no finished run of b, c"),
        ({"how": "difference", "against_run": "b"}, "no finished run of b with a seed of a"),
        ({"how": "difference", "against_run": "far"}, "no finished run of far with a seed of a"),
        ({"number": "m"}, "'m' was not measured"),
        ({"null": "z"}, "'z' was not measured"),
        ({"how": "difference", "against_number": "m"}, "'m' was not measured"),
        ({"run": "dumb"}, "dumb cannot have p"),
        ({"proof": "speed"}, "no speed was measured"),
        ({"number": "gap"}, "undefined on this corpus"),
    ],
)
def test_what_is_missing_is_not_tested_for_a_reason_and_stops_nothing(numbers, changes, reason):
    fill(numbers, "a", [1.0, 1, 1])
    fill(numbers, "a", [1.0, np.nan, 1], "gap")
    row = judged([*fake("a", 0, 1, 2), *fake("far", 7), *fake("dumb", 0, 1, 2)], **changes)
    assert row["verdict"] == "not tested" and reason in row["reason"] and np.isnan(row["value"])
    assert (row["n"] == 0) == (reason != "undefined on this corpus")


def test_only_seeds_in_common_are_compared_and_pair_by_pair(numbers):
    fill(numbers, "a", [10.0, 20, 30, 1000])
    fill(numbers, "b", [9.0, 19, 29])
    row = judged([*fake("b", 2, 0, 1), *fake("a", 3, 1, 0, 2)], how="difference", against_run="b")
    assert (row["value"], row["low"], row["high"], row["n"], row["verdict"]) == (1, 1, 1, 3, "supported")
    assert row["run"] == "a against b"
    row = judged([*fake("a", 0, 1, 2, 3), *fake("b", 0, 1)], how="difference", against_run="b")
    assert (row["value"], row["n"], row["verdict"]) == (1, 2, "inconclusive")


def test_the_first_of_alternatives_is_taken_and_the_best_of_a_choice(numbers):
    for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0), ("dumb", np.nan)):
        fill(numbers, name, [value] * 3)
    runs = [*fake("c", 0, 1, 2), *fake("b", 0, 1, 2), *fake("a", 0, 1, 2), *fake("dumb", 0, 1, 2), *fake("none", 0)]
    assert judged(runs, run="x>a>c")[["run", "value"]].tolist() == ["a", 1]
    assert judged(runs, run="a|c|b")[["run", "value"]].tolist() == ["c", 3]
    assert judged(runs, run="c|a|b", direction="below")[["run", "value"]].tolist() == ["a", 1]
    for direction, best in (("above", "b"), ("below", "a")):  # neither nan nor what cannot be measured is the best
        assert judged(runs, run="dumb|none|a|b", direction=direction)["run"] == best
    assert judged(runs, run="x|y>b")["run"] == "b"
    assert judged(runs, run="c", how="difference", against_run="x>a>b")[["run", "value"]].tolist() == ["c against a", 2]


def test_one_against_one_is_fair_only_if_the_rival_was_trained_as_long(numbers):
    fill(numbers, "a", [10.0, 20, 30])
    fill(numbers, "b", [9.0, 19, 29])
    mixed = [*fake("a", 0, 1, 2), *fake("b", 0), *fake("b", 1, epochs=60), *fake("b", 2, epochs=3)]
    row = judged(mixed, how="difference", against_run="b")
    assert (row["value"], row["n"]) == (1, 2)
    row = judged([*fake("a", 0, 1, 2, epochs=60), *fake("b", 0, 1, 2)], how="difference", against_run="b")
    assert row["verdict"] == "not tested"
    assert "a was trained for 60 epochs and b for 16: train b as long" in row["reason"]


def test_the_hardest_rival_is_the_one_to_beat(numbers):
    for name, value in (("a", 2.0), ("b", 1.0), ("c", 3.0), ("dumb", np.nan)):
        fill(numbers, name, [value] * 3)
    runs = [r for n in ("a", "b", "c", "dumb", "none") for r in fake(n, 0, 1, 2)]
    row = judged(runs, how="difference", against_run="b|c|dumb|none|gone")
    assert row[["run", "value", "verdict"]].tolist() == ["a against c", -1, "refuted"]
    row = judged(runs, how="difference", against_run="b|c|dumb", direction="below")
    assert row[["run", "value", "verdict"]].tolist() == ["a against b", 1, "refuted"]
    row = judged(runs, how="ratio", against_run="b", low=1.5, high=1.5)
    assert row[["value", "verdict"]].tolist() == [2, "supported"]
    row = judged(runs, how="difference", against_run="b", against_number="3 * n")
    assert row[["value", "baseline", "verdict"]].tolist() == [-1, 3, "refuted"]


def test_rivals_of_the_same_run_and_of_another_proof(numbers):
    fill(numbers, "a", [5.0, 6, 7])
    fill(numbers, "a", [4.0, 5, 6], "PCA")
    fill(numbers, "a", [1.0, 1, 1], "MFCC")
    fill(numbers, "b", [3.0, 4, 5], "clustering > n")
    runs = [*fake("a", 0, 1, 2), *fake("b", 0, 1, 2)]
    row = judged(runs, how="difference", against_number="PCA|MFCC")
    assert row[["run", "value", "low", "high"]].tolist() == ["a", 1, 1, 1]
    row = judged(runs, how="difference", against_run="b", against_number="clustering > n")
    assert row[["run", "value", "low", "high"]].tolist() == ["a against b", 2, 2, 2]


def test_a_rival_with_fewer_seeds_does_not_cost_the_others_theirs(numbers):
    for name, value in (("a", 5.0), ("b", 1.0), ("c", 9.0)):
        fill(numbers, name, [value] * 3)
    runs = [*fake("a", 0, 1, 2), *fake("b", 0, 1, 2), *fake("c", 0)]
    assert judged(runs, how="difference", against_run="b|c")[["value", "n"]].tolist() == [4, 3]


def test_rivals_that_share_no_seed_are_a_reason(numbers):
    for name in "abc":
        fill(numbers, name, [1.0] * 3)
    runs = [*fake("a", 0, 1), *fake("b", 0), *fake("c", 1)]
    row = judged(runs, how="difference", against_run="b|c")
    assert (
        row["verdict"] == "not tested" and "a and its rivals b, c have no seed that all of them share" in row["reason"]
    )


def test_clips_are_kept_where_both_sides_have_them(numbers):
    for name, shift in (("a", 2.0), ("b", 1.0)):
        fill(numbers, name, [[shift, shift + 4, shift + 8]] * 3)
    fill(numbers, "c", [1.0, 1, 1])
    runs = [r for n in "abc" for r in fake(n, 0, 1, 2)]
    assert judged(runs, how="difference", against_run="b")[["value", "low", "high"]].tolist() == [1, 1, 1]
    row, alone = judged(runs, how="difference", against_run="c"), judged(runs)  # one number of c is every clip's rival
    assert row[["value", "low", "high"]].tolist() == pytest.approx([alone[k] - 1 for k in ("value", "low", "high")])
    assert judged(runs)["high"] > 8 > 6 == judged(runs)["value"]


def test_extras_are_counted_or_measured_by_turns_of_a_stopwatch_which_are_no_seeds():
    rates = {"a": np.array([4.0, 8, 12]), "b": np.array([1.0, 2, 3]), "c": np.array([2.0, 4, 6])}
    given, spec = {"parameters": {"a: compact": 5.0}, "speed": rates}, {"run": "", "rung": NO_RUNG}
    counted = {"proof": "parameters", "number": "a: compact", "direction": "within", "low": 4.0, "high": 6.0}
    row = judged([], given, **spec, **counted)
    assert row[["verdict", "value", "n", "reason", "how_far"]].tolist() == ["supported", 5, 1, "", "holds"]
    spec |= {"proof": "speed", "how": "ratio", "low": 1.0, "high": 1.0}
    row = judged([], given, **spec, number="a", against_number="b|c", null="1")
    assert row[["verdict", "value", "low", "high", "n"]].tolist() == ["supported in this run", 2, 2, 2, 3]
    assert row[["reason", "baseline", "null"]].tolist() == ["on this machine, 3 turns of a stopwatch", 4, 1]
    row = judged([], given, **spec, number="d", against_number="b")
    assert row["verdict"] == "not tested" and "'d' was not measured" in row["reason"]


# --- rungs ---


def test_runs_stand_on_their_rungs_in_the_ladders_order():
    runs = [r for rung in ("mine", "composed", "desk", "loops") for r in fake("a", 0, 1, rung=rung)]
    twin = fake("a", 0, rung="loops")
    twin[0].config.fingerprint, twin[0].config.corpus = "other", "demo-40x6s"
    found = by_rung([*runs, *twin])
    assert list(found) == ["desk", "loops", "composed", "mine", "demo-40x6s"]
    assert [len(own) for own in found.values()] == [2, 2, 2, 2, 1]
    old = fake("a", 0, rung="x")[0]
    old.store.attrs = {}
    assert list(by_rung([old])) == ["x"]  # a store that does not know: its corpus


def test_a_claim_is_judged_on_its_rung_and_on_all_that_are_harder(numbers):
    fill(numbers, "a", [1.0, 1, 1])
    runs = [r for rung in ("composed", "desk", "loops") for r in fake("a", 0, 1, 2, rung=rung)]
    row = {**CLAIMS.iloc[0], "run": "a", "proof": "p", "number": "n", "how": "value", "direction": "above"}
    row |= {"low": 0.0, "high": 0.0, "null": "0", "baseline": "", "rung": "loops"}
    found = proofs.ledger(runs, claims=pd.DataFrame([row]))
    assert found["rung"].tolist() == ["loops", "composed"]
    assert set(found["how_far"]) == {"holds on loops and composed"}
    found = proofs.ledger(runs, claims=pd.DataFrame([row | {"rung": "desk"}]))
    assert found["rung"].tolist() == ["desk", "loops", "composed"]
    # what is missing on a harder rung is left out, on the claim's own rung it is said; and so it is if nothing is there
    only = [*fake("a", 0, 1, 2, rung="desk"), *fake("b", 0, rung="loops"), *fake("b", 0, rung="composed")]
    found = proofs.ledger(only, claims=pd.DataFrame([row | {"rung": "desk"}]))
    assert found["rung"].tolist() == ["desk"]
    found = proofs.ledger(only, claims=pd.DataFrame([row]))
    assert found[["rung", "verdict"]].to_numpy().tolist() == [["loops", "not tested"]]
    found = proofs.ledger([], claims=pd.DataFrame([row]))
    assert found[["rung", "verdict", "reason"]].to_numpy().tolist() == [["loops", "not tested", "no finished run of a"]]


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ({}, "not tested"),
        ({"desk": "not tested"}, "not tested"),
        ({"–": "supported"}, "holds"),
        ({"–": "refuted in this run"}, "does not hold (in this run)"),
        ({"desk": "supported"}, "holds on desk"),
        ({"desk": "supported", "loops": "supported"}, "holds on desk and loops"),
        ({"desk": "supported", "loops": "supported", "composed": "supported"}, "holds up to composed"),
        ({"loops": "supported", "composed": "refuted"}, "holds on loops; breaks on composed"),
        ({"loops": "supported", "composed": "inconclusive"}, "holds on loops; undecided on composed"),
        ({"loops": "refuted", "composed": "supported"}, "holds on composed; breaks on loops"),
        ({"loops": "refuted", "composed": "refuted"}, "holds nowhere"),
        ({"loops": "refuted", "composed": "inconclusive"}, "breaks on loops; undecided on composed"),
        ({"loops": "inconclusive", "composed": "inconclusive"}, "undecided"),
        ({"loops": "supported in this run", "composed": "inconclusive"},
         "holds on loops; undecided on composed (in this run)"),
        ({"loops": "supported", "composed": "refuted in this run"}, "holds on loops; breaks on composed"),
    ],
)  # fmt: skip
def test_how_far_a_claim_holds(verdicts, said):
    assert how_far(verdicts) == said


def test_one_seed_supports_a_statement_about_its_own_clips(numbers):
    fill(numbers, "a", [[0.9, 1.0, 0.8, 0.9]])
    fill(numbers, "b", [[0.5, 0.6, 0.4, 0.5]])
    runs = [*fake("a", 0), *fake("b", 0)]
    row = judged(runs, how="difference", against_run="b", share="yes", null="0")
    assert row[["verdict", "n", "how_far"]].tolist() == ["supported in this run", 1, "holds on loops (in this run)"]
    assert row["reason"] == "over clips or units of 1 seed: three decide beyond this run"
    assert row[["value", "low", "high", "baseline", "null"]].tolist() == pytest.approx([0.4, 0.4, 0.4, 0.5, 0])
    fill(numbers, "a", [0.2], "permuted, 95th percentile")  # one number per run: the same for every clip
    row = judged(runs, how="difference", against_number="permuted, 95th percentile")
    assert row[["verdict", "value", "baseline"]].tolist() == ["supported in this run", pytest.approx(0.7), 0.2]
    assert row["low"] < 0.7 < row["high"]
    fill(numbers, "a", [0.7], "agreement")  # without clips nothing is decided, however far above its null
    row = judged(runs, number="agreement", how="difference", against_number="permuted, 95th percentile")
    assert row[["verdict", "reason"]].tolist() == ["inconclusive", "1 seed: three are needed to decide"]


def test_the_best_of_several_numbers_may_still_lose(numbers):
    for number, value in (("VaDE", 0.3), ("VAE", 0.4), ("MFCC", 0.6)):
        fill(numbers, "a", [value] * 3, number)
    row = judged(fake("a", 0, 1, 2), number="VaDE|VAE|gone", how="difference", against_number="MFCC|VaDE")
    assert row[["value", "verdict"]].tolist() == [pytest.approx(-0.2), "refuted"]
    assert row["run"] == "a (VAE)"
    row = judged(fake("a", 0, 1, 2), number="x|y")
    assert row["verdict"] == "not tested" and "none of 'x', 'y' was measured" in row["reason"]


def test_a_baseline_is_a_number_of_any_proof_or_known_or_explained(numbers):
    fill(numbers, "a", [1.0, 1, 1])
    fill(numbers, "a", [0.4, 0.5, 0.6], "clustering > PCA")
    runs = fake("a", 0, 1, 2)
    assert judged(runs, baseline="clustering > PCA")["baseline"] == pytest.approx(0.5)
    assert judged(runs, baseline="1", null="0.25")[["baseline", "null"]].tolist() == [1, 0.25]
    assert np.isnan(judged(runs, baseline="– there is none")["baseline"])


def test_a_claim_that_makes_no_sense_stops_the_ledger(numbers):
    with pytest.raises(InputError, match="unknown `how` of claim X1"):
        judged(fake("a", 0), how="sum")


# --- what is measured is kept ---


@pytest.fixture
def counting(tmp_path, monkeypatch):
    """A run's stand-in, and a proof that counts its calls and measures their number."""
    calls = []

    def counted(run):
        calls.append(run)
        values = np.array([len(calls), len(calls) + 2.0])
        figure = plt.figure(figsize=(1, 1))
        partners = ("plain-s0",) if partner else ()
        return Proof("counted", "run", {"n": values.mean(), "nan": np.nan}, "One.", figure, {"n": values}, partners)

    partner = []
    monkeypatch.setitem(PROOFS, "counted", (counted, ("basic_vae",)))
    run = SimpleNamespace(folder=tmp_path / "run", config=SimpleNamespace(model=SimpleNamespace(name="basic_vae")))
    return run, calls, partner


def test_a_proof_is_measured_once_and_then_read(counting):
    run, calls, _ = counting
    for _ in range(3):
        found = proofs.measure(run, "counted")
        assert found.numbers["n"] == 2 and np.isnan(found.numbers["nan"])
        assert found.per_clip["n"].tolist() == [1, 3]
    assert len(calls) == 1 and not plt.get_fignums()
    assert (run.folder / "figures" / "counted.txt").read_text() == "One."


def test_other_code_measures_again(counting, monkeypatch):
    run, calls, _ = counting
    proofs.measure(run, "counted")
    for room in (registry, proof_room):
        monkeypatch.setattr(room, "code_version", lambda: "another")
    assert proofs.measure(run, "counted").numbers["n"] == 3
    assert proofs.measure(run, "counted").numbers["n"] == 3 and len(calls) == 2


def test_another_partner_measures_again(counting, monkeypatch):
    run, calls, partner = counting
    function, models = PROOFS["counted"]

    def comparison(run):
        proof = function(run)
        return dataclasses.replace(proof, name="clustering_comparison")

    monkeypatch.setitem(PROOFS, "clustering_comparison", (comparison, models))
    monkeypatch.setattr(registry, "rival", lambda run: None)
    proofs.measure(run, "clustering_comparison")
    proofs.measure(run, "clustering_comparison")
    assert len(calls) == 1
    monkeypatch.setattr(registry, "rival", lambda run: SimpleNamespace(folder=Path("out/plain-s0")))
    partner.append(1)  # a plain VAE has been trained since
    assert proofs.measure(run, "clustering_comparison").numbers["n"] == 3
    proofs.measure(run, "clustering_comparison")
    assert len(calls) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"code": "x"}', "\x00"])
def test_a_damaged_file_is_measured_again(counting, text):
    run, calls, _ = counting
    proofs.measure(run, "counted")
    path = run.folder / "figures" / "counted.json"
    path.write_text(text)
    assert proofs.measure(run, "counted").numbers["n"] == 3
    assert json.loads(path.read_text())["numbers"]["n"] == 3 and len(calls) == 2


def test_a_proof_that_a_run_cannot_have_is_refused(counting):
    run = counting[0]
    with pytest.raises(InputError, match="unknown proof 'countd': did you mean 'counted'"):
        proofs.measure(run, "countd")
    with pytest.raises(InputError, match="unknown model of proof 'gmm_components' 'basic_vae': valid: vade"):
        proofs.measure(run, "gmm_components")


def test_training_tells_size_and_speed_and_of_vade_the_joint_phase(trained):
    run = trained["vade"]
    found = proofs.measure(run, "training").numbers
    assert found["parameters"] == run.model.parameter_count() and found["epochs"] == 2
    assert found["seconds per epoch"] == run.history["seconds"].iloc[-1] != run.history["seconds"].iloc[0]
    assert found["training clips per second"] == run.summary["clips_per_s"]


# --- speed ---


def test_every_model_takes_its_turns_and_nothing_is_written(store, tmp_path, monkeypatch, speeds):
    assert set(speeds) == {f"{m}: {w}" for m in MODELS for w in ("clips per second", "seconds per epoch")}
    for model in MODELS:
        rates, seconds = speeds[f"{model}: clips per second"], speeds[f"{model}: seconds per epoch"]
        assert rates.shape == seconds.shape == (2,) and (rates > 0).all()
        np.testing.assert_allclose(rates * seconds, 24)  # training clips
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "outputs"))
    table = store.table.assign(language=UNLABELLED, genre="one")
    said = []
    found = speed(dataclasses.replace(store, table=table), rounds=1, steps=1, batch_size=4, show=said.append)
    assert {k.split(":")[0] for k in found} == set(MODELS) - {"cvae"}  # no classes to be told
    assert not (tmp_path / "outputs").exists()
    turns = ["speed, round 1/1: " + name for name in MODELS if name != "cvae"]
    assert [line for line in said if "round" in line] == turns


def test_speed_is_that_of_the_step_of_training_on_the_clips_of_the_store(store, monkeypatch):
    seen = {}

    class Spy(steps.Stepper):
        def __call__(self, x, y, weights, rate):
            seen[self.model.config.name] = (x, y, bool(weights["mixture"]))
            return super().__call__(x, y, weights, rate)

    monkeypatch.setattr("vaelib.bench.training.Stepper", Spy)
    speed(store, rounds=1, steps=1, batch_size=99)
    assert set(seen) == set(MODELS)
    for name, (x, y, mixture) in seen.items():
        assert mixture == (name == "vade") and x.shape == (48 if mixture else 24, 1, *store.front_end.shape)
        labels = store.codes("language", store.rows("train")) if name == "cvae" else np.full(24, -1)
        assert sorted(y.tolist()) == sorted(labels.repeat(2 if mixture else 1))


@pytest.mark.parametrize(("seconds", "turn"), [(1e-9, 1), (1e9, 3)])
def test_a_turn_has_fewer_steps_where_they_take_long(store, monkeypatch, seconds, turn):
    taken = dict.fromkeys(MODELS, 0)

    class Spy(steps.Stepper):
        def __call__(self, *given):
            taken[self.model.config.name] += 1
            return super().__call__(*given)

    monkeypatch.setattr("vaelib.bench.training.Stepper", Spy)
    monkeypatch.setattr(sys.modules["vaelib.proofs.speed"], "SECONDS", seconds)
    speed(store, rounds=2, steps=3, batch_size=4)
    assert set(taken.values()) == {2 + 2 * turn}


def test_models_that_do_not_fit_together_are_timed_one_after_the_other(store, monkeypatch):
    said = []
    monkeypatch.setattr("vaelib.bench.training._free_bytes", lambda: 0)
    speed(store, rounds=2, steps=1, batch_size=4, show=said.append)
    assert [line.split(": ")[1] for line in said if "round" in line] == [name for name in MODELS for _ in range(2)]


# --- the comparison ---


def test_intervals_over_seeds_by_hand():
    table = pd.DataFrame({
        "model": ["b", "a", "b", "b"], "mse": [1.0, 5, 2, 3], "mig": [0.5, np.nan, 0.5, 0.5], "run": "x",
    })  # fmt: skip
    found = comparison_intervals(table, ["mse", "mig"]).set_index(["model", "metric"])
    assert list(found.index) == [("b", "mse"), ("b", "mig"), ("a", "mse")]  # a has no MIG at all
    assert found.loc[("b", "mse")].tolist() == pytest.approx([2, 2 - 2.6887, 2 + 2.6887, 3], abs=1e-3)
    assert found.loc[("b", "mig")].tolist() == [0.5, 0.5, 0.5, 3]
    mean, low, high, seeds = found.loc[("a", "mse")]
    assert (mean, seeds) == (5, 1) and np.isnan([low, high]).all()


def test_the_sweep_is_of_plain_conv_networks_by_beta(numbers):
    def swept(name, model, beta, *seeds, detilt=False, target="same"):
        runs = fake(name, *seeds, model=SimpleNamespace(name=model), detilt=detilt)
        for run in runs:
            run.config.training.beta, run.config.training.target, run.summary = beta, target, {"epochs": 3}
        return runs

    measured = {"MIG": 0.1, "MSE per bin": 0.02, "live dimensions": 7.0}
    measured["MIG after random rotations, 95th percentile"] = 0.05
    measured["MIG with permuted factors, 95th percentile"] = 0.01
    numbers |= {(n, s): measured for n in ("beta_vae", "conv_vae") for s in (0, 1)}
    runs = [
        *swept("beta_vae", "beta_vae", 4.0, 1, 0), *swept("conv_vae", "conv_vae", 1.0, 0),
        *swept("basic_vae", "basic_vae", 1.0, 0), *swept("conv_vae-detilt", "conv_vae", 1.0, 0, detilt=True),
        *swept("beta_vae-other", "beta_vae", 4.0, 0, target="other"),
    ]  # fmt: skip
    found = proofs.sweep_table(runs)
    assert found[["beta", "seed"]].to_numpy().tolist() == [[1, 0], [4, 0], [4, 1]]
    assert found.iloc[0][["mse", "mig", "mig_rotated", "mig_null", "live"]].tolist() == [0.02, 0.1, 0.05, 0.01, 7]
    numbers.clear()  # no factors: no sweep, and no crash
    assert proofs.sweep_table(runs).empty and proofs.sweep_table([]).empty


def climbing(rung: str, name: str, *seeds: int, condition: str = "", beta: float = 0.0, **training) -> list:
    model = SimpleNamespace(name=name.split("-")[0], condition=condition)
    runs = fake(name, *seeds, rung=rung, model=model, detilt=False)
    for run in runs:
        vars(run.config.training).update(beta=beta or DEFAULT_BETA.get(model.name, 1.0), **training)
    return runs


def test_the_ladder_has_models_and_baselines_on_every_rung(numbers):
    started = ("conv_vae-sigma0.2-components", "conv_vae-sigma0.5-components", "beta_vae-sigma0.2")
    for name in ("conv_vae", *started, "cvae-language-fixed", "beta_vae-b2"):
        numbers[name, 0] = {
            "genre: ARI": 0.5, "MIG": 0.4, "R² against the mean spectrogram": 0.7, "judge on samples": 0.9,
            "judge on real test clips": 1.0, "chance": 0.2, "genre: PCA of the log-mel + K-Means, ARI": 0.3,
            "genre: MFCC statistics + K-Means, ARI": 0.2, "MIG of PCA components": 0.17,
        }  # fmt: skip
    runs = [
        *climbing("loops", "conv_vae", 0), *climbing("loops", "cvae-language-fixed", 0, condition="language"),
        *climbing("loops", "beta_vae-b2", 0, beta=2.0),
        *climbing("loops", "conv_vae-sigma0.2-components", 0, sigma=0.2, start_components=5),
        *climbing("desk", "conv_vae-sigma0.2-components", 0, sigma=0.2, start_components=5),
        *climbing("desk", "conv_vae-sigma0.5-components", 0, sigma=0.5, start_components=5),
        *climbing("desk", "beta_vae-sigma0.2", 0, sigma=0.2),
    ]  # fmt: skip
    found = ladder_table(runs)
    assert list(dict.fromkeys(found["rung"])) == ["desk", "loops"]
    models = found[~found["baseline"]].set_index(["rung", "model"])
    assert list(models.index) == [
        ("desk", "conv_vae"), ("desk", "conv_vae-sigma0.5-components"), ("desk", "beta_vae, random start"),
        ("loops", "conv_vae"), ("loops", "cvae-language-fixed"), ("loops", "conv_vae-sigma0.2-components"),
    ]  # fmt: skip
    assert models.loc[("loops", "conv_vae"), ["ari", "mig", "r2"]].tolist() == [0.5, 0.4, 0.7]
    assert np.isnan(models.loc[("loops", "cvae-language-fixed"), "ari"])  # it is told apart by another label
    plain = found[found["baseline"]].set_index(["rung", "model"])
    assert plain.loc[("loops", "PCA of the log-mel"), ["ari", "mig"]].tolist() == [0.3, 0.17]
    assert (
        plain.loc[("loops", "chance, language"), "samples"] == 0.2
        and plain.loc[("desk", "mean spectrogram"), "r2"] == 0
    )
    assert ladder_table([]).empty


def test_the_main_corpus_is_joined_by_one_corpus_of_every_other_rung(monkeypatch):
    def on(corpus: str, rung: str | None) -> list:
        runs = fake("a", 0, rung=corpus)
        runs[0].store.attrs = {"rung": rung} if rung else {}
        return runs

    runs_of = {  # the newest last
        "demo-40x6s-compact": on("demo-40x6s-compact", "loops"), "desk-60x6s-compact": on("desk-60x6s-compact", "desk"),
        "old-compact": on("old-compact", None), "twin-compact": on("twin-compact", "loops"),
        "demo-full": on("demo-full", "composed"), "desk-1500x6s-compact": on("desk-1500x6s-compact", "desk"),
    }  # fmt: skip
    folders = [Path("outputs") / corpus / "run" for corpus in runs_of]
    monkeypatch.setattr(table_room, "find_runs", lambda root: folders)
    monkeypatch.setattr(
        table_room, "newest_of_each", lambda root, among=None, corpus="", epochs=None: [*runs_of[corpus]]
    )
    found = proofs.runs_of_rungs(None, "demo-40x6s-compact")
    assert [r.config.corpus for r in found] == ["demo-40x6s-compact", "desk-1500x6s-compact"]
    assert proofs.main_corpus() == "demo-full" and proofs.main_corpus(None, folders[1:2]) == "desk-60x6s-compact"
    folders.clear()
    with pytest.raises(InputError, match="no finished run in"):
        proofs.main_corpus()


# --- which model for what ---


def serving(name: str, *seeds: int, condition="", detilt=False, target="same") -> list:
    model = SimpleNamespace(name=name.split("-")[0], condition=condition)
    runs = fake(name, *seeds, model=model, detilt=detilt)
    for run in runs:
        run.conditional, run.config.training.target = bool(condition), target
    return runs


def advice(runs, speeds=None) -> pd.DataFrame:
    return selection_guide(runs, "loops", speeds or {}).set_index("need")


RECONSTRUCTIONS, FACTORS = "reconstructions close to the original", "dimensions that stand for musical factors"


def test_the_best_by_its_mean_is_chosen_and_told_from_the_next(numbers):
    fill(numbers, "basic_vae", [0.03, 0.03, 0.03], "MSE per bin")
    fill(numbers, "conv_vae", [0.01, 0.01, 0.01], "MSE per bin")
    runs = serving("basic_vae", 0, 1, 2) + serving("conv_vae", 0, 1, 2)
    row = advice(runs).loc[RECONSTRUCTIONS]
    assert row["choose"] == "conv_vae" and row["advice"] == "Conv" and row["bar"] == "at most 0.012"
    assert row["figure"] == "MSE per bin 0.01 [0.01, 0.01] (3 seeds)"
    assert row["next best"] == "basic_vae 0.03 [0.03, 0.03] (3 seeds)"
    fill(numbers, "basic_vae", [0.4, 0.4, 0.4], "MIG")
    fill(numbers, "conv_vae", [0.1, 0.1, 0.1], "MIG")
    assert advice(runs).loc[FACTORS, "choose"] == "basic_vae"  # more is better


def test_none_is_good_enough_below_the_bar(numbers):
    fill(numbers, "basic_vae", [0.03, 0.03, 0.03], "MSE per bin")
    fill(numbers, "basic_vae", [0.1, 0.1, 0.1], "MIG")
    found = advice(serving("basic_vae", 0, 1, 2))
    assert (
        found.loc[RECONSTRUCTIONS, "choose"] == found.loc[FACTORS, "choose"] == "none is good enough (best: basic_vae)"
    )
    assert found.loc[FACTORS, "bar"] == "at least 0.3"


def test_models_are_told_apart_pair_by_pair_or_named_together(numbers):
    fill(numbers, "basic_vae", [0.001, 0.002, 0.003], "MSE per bin")
    fill(
        numbers, "conv_vae", [0.0015, 0.0025, 0.0035], "MSE per bin"
    )  # overlapping intervals, the same distance always
    fill(numbers, "vade", [0.003, 0.002, 0.001], "MSE per bin")
    runs = serving("basic_vae", 0, 1, 2) + serving("conv_vae", 0, 1, 2) + serving("vade", 0, 1, 2)
    assert advice(runs).loc[RECONSTRUCTIONS, "choose"] == "basic_vae (not told apart from vade)"
    one = serving("basic_vae", 0) + serving("conv_vae", 0)  # one seed, and no clips to resample
    row = advice(one).loc[RECONSTRUCTIONS]
    assert row["choose"] == "basic_vae (not told apart from conv_vae)" and row["figure"] == "MSE per bin 0.001 (1 seed)"
    for name, shift in (("basic_vae", 0.0), ("conv_vae", 0.001)):  # paired by clip they differ
        numbers[name, 0]["MSE per bin"] = [0.001 + shift, 0.004 + shift, 0.002 + shift]
    assert advice(one).loc[RECONSTRUCTIONS, "choose"] == "basic_vae"
    assert advice(one[:1]).loc[RECONSTRUCTIONS, ["choose", "next best"]].tolist() == ["basic_vae", "–"]


def test_the_quickest_is_chosen_by_turns_and_the_faders_on_the_desk(numbers):
    speeds = {
        "basic_vae: clips per second": np.array([300.0, 310, 305]),
        "vade: clips per second": np.array([99.0, 101, 100]),
    }
    speeds |= {"vade: seconds per epoch": np.ones(3)}
    fill(numbers, "beta_vae", [0.42, 0.4, 0.41], "MIG")
    desk = serving("beta_vae", 0, 1, 2)
    for run in desk:
        run.config.fingerprint, run.config.corpus, run.store.attrs = "f", "desk-9x6s", {"rung": "desk"}
    found = advice([*desk, *serving("conv_vae", 0)], speeds)
    assert (
        found.loc["a baseline, soon", "choose"] == "basic_vae"
        and "(3 turns)" in found.loc["a baseline, soon", "figure"]
    )
    assert found.loc["dimensions that stand for the faders of a mix", "choose"] == "beta_vae"
    assert found.loc[FACTORS, "choose"] == "not tested"


def test_only_runs_that_can_serve_a_need_are_asked(numbers):
    for name, value in (("conv_vae", 0.2), ("conv_vae-detilt", 0.9), ("cvae-genre-fixed", 0.95), ("vade", np.nan)):
        fill(numbers, name, [value] * 3, "genre: ARI")
        fill(numbers, name, [value / 100] * 3, "MSE per bin")
        fill(numbers, name, [value] * 3, "judge on samples")
    runs = [
        *serving("conv_vae", 0, 1, 2), *serving("conv_vae-detilt", 0, 1, 2, detilt=True),
        *serving("cvae-genre-fixed", 0, 1, 2, condition="genre"), *serving("vade", 0, 1, 2),
        *serving("basic_vae", 0, 1, 2),
    ]  # fmt: skip
    guide = advice(runs)["choose"]
    assert guide["clusters without any labels"] == "conv_vae-detilt"
    assert guide["clusters by genre, labels for training only"] == "cvae-genre-fixed"
    assert guide["reconstructions close to the original"] == "conv_vae"  # errors of detilted inputs are others
    assert guide["samples of a genre you name"] == "cvae-genre-fixed"
    assert guide["samples of a language you name"] == guide["a word on how sure a cluster is"] == "not tested"
    assert len(guide) == len(guide_room.NEEDS) == len(advice([]))


def test_every_number_of_the_guide_is_measured(trained):
    for need in guide_room.NEEDS[1:]:
        able = [r for r in trained.values() if need.serves(r) and r.config.model.name in PROOFS[need.proof][1]]
        assert able, need
        assert need.number in registry.measure(able[0], need.proof).numbers
