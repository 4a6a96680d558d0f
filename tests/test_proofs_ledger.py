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
from vaelib.config import PRIORS, InputError, ModelConfig, RunConfig, TrainConfig
from vaelib.evaluation.claims import Claim
from vaelib.manifest import UNLABELLED
from vaelib.models import MODELS
from vaelib.proofs import PROOFS, Proof, comparison_intervals, difficulty_table, read_claims, selection_guide, speed
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
SMALL = {"latent": 8, "components": 4}
QUICK = {"epochs": 1, "batch_size": 12, "eval_windows": 2, "precision": "32-true"}
VARIANTS = {
    "basic_vae": {}, "conv_vae": {}, "beta_vae": {}, "beta_vae-b2": {"beta": 2.0},
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
    for name, (condition, prior), beta, target, detilt in itertools.product(
        MODELS, conditions, (1.0, 2.0, 4.0, 8.0, 16.0), ("same", "other"), (False, True)
    ):
        if (name == "cvae") == bool(condition):
            model = ModelConfig(name, (16, 16), condition=condition, prior=prior)
            training = TrainConfig(beta=beta, target=target)
            found.add(RunConfig("c", "f", None, model, training, detilt, code="x").variant)
    return found


def test_every_claim_of_the_evidence_has_a_row():
    assert set(CLAIMS["id"]) >= EVIDENCE and len(EVIDENCE) == 31
    assert not CLAIMS.duplicated(["id", "metric"]).any()


def test_every_row_is_well_formed():
    known = variants()
    assert {"basic_vae", "beta_vae-b2", "vade-detilt", "cvae-genre-fixed"} <= known and "beta_vae-b4" not in known
    for row in CLAIMS.to_dict("records"):
        Claim(*(row[k] for k in ("id", "claim", "metric", "expected", "how", "direction", "low", "high")))
        assert row["proof"] in {*PROOFS, "parameters", "speed"}, row
        assert set(names(row["run"] + "|" + row["against_run"])) <= known, row
        assert bool(row["run"]) == (row["proof"] in PROOFS), row
        assert (row["how"] == "value") != bool(row["against_run"] or row["against_number"]), row
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
            config = plan(store, name.split("-")[0], model_settings=SMALL, **QUICK | changes)
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
        assert {row["number"], *names(row["null"])} <= known(variant, row["proof"])
    proof, _, numbers = row["against_number"].rpartition(" > ")
    rivals = [v for v in names(row["against_run"]) if v in trained]
    assert rivals or not row["against_run"]
    for variant in (rivals or subjects) if row["how"] != "value" else []:
        assert set((numbers or row["number"]).split("|")) <= known(variant, proof or row["proof"])


def test_one_seed_decides_what_is_counted_and_nothing_else(trained, extras):
    said = []
    found = proofs.ledger(list(trained.values()), extras, show=said.append)
    assert len(found) == len(CLAIMS) == len(said) and list(found["id"]) == list(CLAIMS["id"])
    counted = (CLAIMS["proof"] == "parameters").to_numpy()
    assert set(found[counted]["verdict"]) == {"supported", "refuted"}
    # six genres with one test clip each have no silhouette; nothing else is unknown
    unknown = found[found["verdict"] == "not tested"]
    assert set(unknown["metric"]) <= {"genres, label inferred, CVAE − best other"} | set(
        CLAIMS[CLAIMS["how"] == "ratio"]["metric"]
    )
    assert set(unknown["reason"]) <= {"undefined on this corpus"}
    rest = found[~counted & (found["verdict"] != "not tested")]
    assert set(rest["verdict"]) == {"inconclusive"} and np.isfinite(rest["value"]).sum() >= len(rest) - 1
    runs = rest[~rest["run"].eq("")]
    assert set(runs["n"]) == {1} and set(runs["reason"]) == {"1 seed: three are needed to decide"}
    row = found[found["metric"] == "R², Conv − Basic"].iloc[0]
    conv, basic = (
        registry.measure(trained[n], "reconstruction").numbers["R² against the mean spectrogram"]
        for n in ("conv_vae", "basic_vae")
    )
    assert row["value"] == pytest.approx(conv - basic) and row["run"] == "conv_vae against basic_vae"


# --- the ledger on fake runs ---


FAKE_TABLE = pd.DataFrame({"language": ["x", "y"], "genre": ["a", "b"], "tempo": [90.0, 120.0]})


def fake(name: str, *seeds: int, epochs: int = 16, **config) -> list:
    return [
        SimpleNamespace(
            name=name,
            config=SimpleNamespace(training=SimpleNamespace(seed=s), **config),
            summary={"epochs": epochs},
            store=SimpleNamespace(factors=["tempo"], table=FAKE_TABLE, rows=lambda split: FAKE_TABLE.index),
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
        "null": "", "notebook": "02",
    }  # fmt: skip
    assert set(row) <= set(given)
    return proofs.ledger(runs, extras, pd.DataFrame([given | row])).iloc[0]


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


def test_one_against_one_is_fair_only_after_as_many_epochs(numbers):
    fill(numbers, "a", [10.0, 20, 30])
    fill(numbers, "b", [9.0, 19, 29])
    mixed = [*fake("a", 0, 1, 2), *fake("b", 0, 1), *fake("b", 2, epochs=3)]
    row = judged(mixed, how="difference", against_run="b")
    assert (row["value"], row["n"]) == (1, 2)
    row = judged([*fake("a", 0, 1, 2), *fake("b", 0, 1, 2, epochs=60)], how="difference", against_run="b")
    assert row["verdict"] == "not tested" and "a and b were trained for 16 and 60 epochs" in row["reason"]


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
    assert judged(runs, how="difference", against_run="c")[["value", "low", "high"]].tolist() == [5, 5, 5]  # means
    assert judged(runs)["high"] > 8 > 6 == judged(runs)["value"]


def test_extras_are_counted_or_measured_by_rounds():
    rates = {"a": np.array([4.0, 8, 12]), "b": np.array([1.0, 2, 3]), "c": np.array([2.0, 4, 6])}
    given = {"parameters": {"a: compact": 5.0}, "speed": rates}
    row = judged([], given, run="", proof="parameters", number="a: compact", direction="within", low=4.0, high=6.0)
    assert row[["verdict", "value", "n", "reason"]].tolist() == ["supported", 5, 1, ""]
    row = judged([], given, run="", proof="speed", number="a", against_number="b|c", how="ratio", low=1.0, high=1.0)
    assert row[["verdict", "value", "low", "high", "n"]].tolist() == ["supported", 2, 2, 2, 3]
    row = judged([], given, run="", proof="speed", number="d", how="ratio", against_number="b")
    assert row["verdict"] == "not tested" and "'d' was not measured" in row["reason"]


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

    measured = {"MIG": 0.1, "MIG after random rotations, mean": 0.05, "MSE per bin": 0.02, "live dimensions": 7.0}
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


def corpora(monkeypatch, runs_of: dict[str, list]) -> None:
    folders = [Path("outputs") / corpus / f"run-{i}" for corpus, runs in runs_of.items() for i in range(len(runs))]
    monkeypatch.setattr(table_room, "find_runs", lambda root: folders)
    monkeypatch.setattr(table_room, "newest_of_each", lambda root, corpus: runs_of[corpus])


def test_the_difficulty_curve_is_of_the_largest_family_of_corpora(numbers, monkeypatch):
    def on(v, name, model, *seeds, detilt=False):
        runs = fake(name, *seeds, model=SimpleNamespace(name=model), detilt=detilt)
        for run in runs:
            run.name = name
            genre = {"genre: ARI": v, "genre: AMI": v + 1, "MIG": v + 2}
            baselines = {f"genre: {b} + K-Means, {m}": v + i for i, m in enumerate(("ARI", "AMI"), 3)
                         for b in ("PCA of the log-mel", "MFCC statistics")}  # fmt: skip
            numbers[name, run.config.training.seed] = genre | baselines
        return runs

    runs_of = {
        "demo-16x10s-v0-s0-compact": on(0.0, "conv_vae-x", "conv_vae", 0),
        "demo-16x10s-v0.5-s0-compact": on(0.5, "conv_vae-y", "conv_vae", 0),
        "demo-16x10s-v1-s0-compact": [],
        "demo-40x10s-v1-s0-compact": on(9.0, "conv_vae-z", "conv_vae", 0),
        "demo-16x10s-v1-s0-full": on(9.0, "conv_vae-z", "conv_vae", 0),
        "music-v1-compact": on(9.0, "conv_vae-z", "conv_vae", 0),
    }
    corpora(monkeypatch, runs_of)
    found = difficulty_table()
    assert list(found) == ["variation", "model", "seed", "ari", "ami", "mig"]
    assert found["model"].tolist() == [
        "conv_vae-x", "PCA of the log-mel + K-Means", "MFCC statistics + K-Means",
        "conv_vae-y", "PCA of the log-mel + K-Means", "MFCC statistics + K-Means",
    ]  # fmt: skip
    assert found["variation"].tolist() == [0, 0, 0, 0.5, 0.5, 0.5]
    assert found.iloc[3][["ari", "ami", "mig"]].tolist() == [0.5, 1.5, 2.5]
    assert found.iloc[4][["ari", "ami"]].tolist() == [3.5, 4.5] and np.isnan(found.iloc[4]["mig"])


def test_two_conv_runs_of_one_seed_have_one_baseline_and_another_input_its_own(numbers, monkeypatch):
    runs = [
        r
        for name, detilt in (("conv_vae", False), ("conv_vae-b2", False), ("conv_vae-detilt", True))
        for r in fake(name, 0, model=SimpleNamespace(name="conv_vae"), detilt=detilt)
    ]
    numbers |= {(r.name, 0): {"genre: ARI": 1.0} for r in runs}
    corpora(monkeypatch, {"demo-16x10s-v0-s0-compact": runs, "demo-16x10s-v1-s0-compact": runs})
    models = difficulty_table().query("variation == 0")["model"]
    assert len(models) == 7 and models.is_unique and "PCA of the log-mel, detilt + K-Means" in set(models)


@pytest.mark.parametrize("corpus", ["demo-16x10s-v0.5-s0-compact", "music-v1-compact"])
def test_one_corpus_is_no_curve(numbers, monkeypatch, corpus):
    corpora(monkeypatch, {corpus: fake("conv_vae", 0, 1, 2)})
    assert difficulty_table().empty
    corpora(monkeypatch, {})
    assert difficulty_table().empty


# --- which model for what ---


def serving(name: str, *seeds: int, condition="", detilt=False, target="same") -> list:
    model = SimpleNamespace(name=name.split("-")[0], condition=condition)
    runs = fake(name, *seeds, model=model, detilt=detilt)
    for run in runs:
        run.conditional, run.config.training.target = bool(condition), target
    return runs


def need(runs, text: str) -> pd.Series:
    return selection_guide(runs).set_index("need").loc[text]


def test_the_best_by_its_mean_is_chosen_and_told_from_the_next(numbers):
    fill(numbers, "basic_vae", [0.03, 0.03, 0.03], "MSE per bin")
    fill(numbers, "conv_vae", [0.01, 0.01, 0.01], "MSE per bin")
    runs = serving("basic_vae", 0, 1, 2) + serving("conv_vae", 0, 1, 2)
    row = need(runs, "reconstructions close to the original")
    assert row["choose"] == "conv_vae" and row["advice"] == "Conv"
    assert row["figure"] == "MSE per bin 0.01 [0.01, 0.01]" and row["next best"] == "basic_vae 0.03 [0.03, 0.03]"
    fill(numbers, "basic_vae", [0.3, 0.3, 0.3], "MIG")
    fill(numbers, "conv_vae", [0.1, 0.1, 0.1], "MIG")
    assert need(runs, "dimensions that stand for musical factors")["choose"] == "basic_vae"  # more is better


def test_overlapping_intervals_and_few_seeds_do_not_tell_models_apart(numbers):
    fill(numbers, "basic_vae", [1.0, 2, 3], "MSE per bin")
    fill(numbers, "conv_vae", [1.5, 2, 2], "MSE per bin")
    for seeds in ((0, 1, 2), (0, 1)):
        row = need(serving("basic_vae", *seeds) + serving("conv_vae", *seeds), "reconstructions close to the original")
        best, other = ("conv_vae", "basic_vae") if len(seeds) == 3 else ("basic_vae", "conv_vae")
        assert row["choose"] == f"{best} (not told apart from {other})"
    assert row["figure"] == "MSE per bin 1.5 (2 seeds)"
    alone = need(serving("conv_vae", 0), "reconstructions close to the original")
    assert alone[["choose", "figure", "next best"]].tolist() == ["conv_vae", "MSE per bin 1.5 (1 seed)", "–"]


def test_only_runs_that_can_serve_a_need_are_asked(numbers):
    for name, value in (("conv_vae", 0.2), ("conv_vae-detilt", 0.9), ("cvae-genre-fixed", 0.95), ("vade", np.nan)):
        fill(numbers, name, [value] * 3, "genre: AMI")
        fill(numbers, name, [value] * 3, "MSE per bin")
        fill(numbers, name, [value] * 3, "judge on samples")
    runs = [
        *serving("conv_vae", 0, 1, 2), *serving("conv_vae-detilt", 0, 1, 2, detilt=True),
        *serving("cvae-genre-fixed", 0, 1, 2, condition="genre"), *serving("vade", 0, 1, 2),
        *serving("basic_vae", 0, 1, 2),
    ]  # fmt: skip
    guide = selection_guide(runs).set_index("need")["choose"]
    assert guide["clusters without any labels"] == "conv_vae-detilt"
    assert guide["clusters by genre, labels for training only"] == "cvae-genre-fixed"
    assert guide["reconstructions close to the original"] == "conv_vae"  # errors of detilted inputs are others
    assert guide["samples of a genre you name"] == "cvae-genre-fixed"
    assert guide["samples of a language you name"] == guide["a word on how sure a cluster is"] == "not tested"
    assert len(guide) == len(guide_room.NEEDS) == len(selection_guide([]))


def test_every_number_of_the_guide_is_measured(trained):
    for text, _, proof, number, _, serves in guide_room.NEEDS:
        serving = [r for r in trained.values() if serves(r)]
        able = [r for r in serving if proof == "training" or r.config.model.name in PROOFS[proof][1]]
        assert able, text
        assert number in registry.measure(able[0], proof).numbers
