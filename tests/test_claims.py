"""Results kept with a run, and the ledger that reads them: verdicts by hand on runs that only have results."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from vaelib import claims
from vaelib.collection import LADDER
from vaelib.config import DEFAULT_BETA, PRIORS, ModelConfig, RunConfig, TrainConfig
from vaelib.models import MODELS

CLAIMS = claims.read_claims()
OF_NO_RUN = {"run": "", "rung": "–"}
GROUPS = {"P": 5, "B": 3, "V": 6, "D": 4, "K": 6, "G": 6, "S": 1, "A": 2}  # claims of the source document


@pytest.fixture
def make(tmp_path):
    """Makes a run that has results and nothing else."""

    def run(name="conv_vae", seed=0, rung="loops", epochs=10, **kept):
        table = pd.DataFrame({"key": [1, 2], "genre": ["a", "b"], "language": ["x", "x"]})
        made = SimpleNamespace(
            folder=tmp_path / rung / f"{name}-s{seed}", name=name,
            summary={"epochs": epochs, "clips_per_s": 5, "parameters": 7},
            config=SimpleNamespace(fingerprint=rung, corpus=rung, training=SimpleNamespace(seed=seed)),
            store=SimpleNamespace(attrs={"rung": rung}, table=table, factors=("key",)),
            history=pd.DataFrame({"phase": ["vae", "joint"], "seconds": [1.0, 3.0]}),
        )  # fmt: skip
        numbers = {k: np.mean(v) for k, v in kept.items()}
        claims.keep(made, "measured", numbers, {k: v for k, v in kept.items() if np.ndim(v)})
        return made

    return run


@pytest.fixture
def ledger(monkeypatch):
    """The ledger of one claim: the number `x` of conv_vae is above 0, or what is given instead."""

    def of(runs, extras=None, **changes) -> pd.DataFrame:
        plain = dict.fromkeys(CLAIMS.columns, "") | {
            "rung": "loops", "run": "conv_vae", "number": "x", "how": "value", "direction": "above", "low": 0.0,
            "high": 0.0, "null": "0", "experiment": "e", "notebook": "03",
        }  # fmt: skip
        monkeypatch.setattr(claims, "read_claims", lambda: pd.DataFrame([plain | changes]))
        return claims.judge_claims(runs, extras or {})

    return of


@pytest.fixture
def judged(ledger):
    """Its first line."""
    return lambda *args, **changes: ledger(*args, **changes).iloc[0].to_dict()


def test_what_is_kept_is_read_again_and_a_later_result_takes_its_place(make):
    run = make()
    claims.keep(run, "smoothness", {"smooth.gradual": 0.5}, {"smooth.gradual": [0, 1]}, Figure(), "Half of them.")
    claims.skip(run, "separation", "this corpus has one language")
    found = claims.read(run)
    assert found.numbers["smooth.gradual"] == 0.5 and found.per_clip["smooth.gradual"].tolist() == [0, 1]
    assert found.texts == {"smoothness": "Half of them."}
    assert found.skipped == {"separation": "this corpus has one language"}
    assert (run.folder / "results" / "smoothness.png").read_bytes().startswith(b"\x89PNG")
    trained = {k: found.numbers[f"train.{k}"] for k in ("clips_per_s", "parameters", "epochs", "seconds_per_epoch")}
    assert trained == {"clips_per_s": 5, "parameters": 7, "epochs": 10, "seconds_per_epoch": 3}  # of the joint phase
    claims.skip(run, "smoothness", "no clips")
    assert "smooth.gradual" not in claims.read(run).numbers
    claims.keep(run, "smoothness", {"smooth.gradual": np.nan})
    assert np.isnan(claims.read(run).numbers["smooth.gradual"]) and "smoothness" not in claims.read(run).skipped


def variants() -> set[str]:
    """Every variant that a plan can train, by the configuration's own word."""
    conditions, found = [("", "standard"), *itertools.product(("language", "genre"), PRIORS)], set()
    of_training = itertools.product((1.0, 2.0, 4.0, 8.0, 16.0), ((0, 0), (0.2, 0), (0.2, 5)))
    trainings = [TrainConfig(beta=b, sigma=sigma, start_components=start) for b, (sigma, start) in of_training]
    for name, (condition, prior), training, detilt in itertools.product(MODELS, conditions, trainings, (False, True)):
        if (name == "cvae") == bool(condition):
            model = ModelConfig(name, (16, 16), condition=condition, prior=prior)
            found.add(RunConfig("c", "f", None, model, training, detilt, code="x").variant)
    return found


def test_every_claim_of_the_source_document_has_a_row_that_is_well_formed():
    assert CLAIMS["id"].str[0].groupby(CLAIMS["id"]).first().value_counts().to_dict() == GROUPS
    assert not CLAIMS.duplicated(["id", "metric"]).any() and DEFAULT_BETA["beta_vae"] == 4
    known = variants()
    for r in CLAIMS.to_dict("records"):
        named = (r["run"] + "|" + r["against_run"]).replace(">", "|").split("|")
        assert set(filter(None, named)) <= known, r
        assert r["how"] in ("value", "difference", "ratio") and r["direction"] in ("above", "below", "within")
        assert r["low"] <= r["high"] and (r["direction"] == "within" or r["low"] == r["high"]), r
        assert bool(r["run"]) == (r["experiment"] not in ("parameters", "speed")), r
        assert (r["how"] != "value") == bool(r["against_run"] or r["against_number"]), r
        assert r["rung"] in (LADDER if r["run"] else [claims.NO_RUNG]), r
        assert r["null"] and (r["baseline"] or r["how"] != "value"), r
        assert all(r[k] for k in ("claim", "metric", "expected", "notebook")), r


def test_three_seeds_decide_one_decides_about_itself(make, judged):
    three = [make(seed=s, x=v) for s, v in enumerate((1.0, 1.1, 1.2))]
    assert judged(three)["verdict"] == "supported" and judged(three)["n"] == 3
    assert judged(three, low=2.0, high=2.0)["verdict"] == "refuted"
    alone = judged(three[:1])
    assert alone["verdict"] == "inconclusive" and alone["reason"] == "1 seed: three decide beyond this run"
    clips = judged([make("basic_vae", x=[1.0, 1.2, 1.4])], run="basic_vae")
    assert clips["verdict"] == "supported in this run" and "over clips" in clips["reason"]
    assert clips["how_far"] == "holds on loops (in this run)" and clips["notebook"] == "03"


def test_null_and_baseline_are_numbers_or_reasons_and_a_share_stays_in_its_bounds(make, judged):
    runs = [make(seed=s, x=v, null=0.2, pca=0.4) for s, v in enumerate((0.9, 0.99, 0.999))]
    found = judged(runs, null="null", baseline="pca", share="yes")
    assert (found["null"], found["baseline"]) == pytest.approx((0.2, 0.4))
    assert found["high"] <= 1 < judged(runs)["high"]
    found = judged(runs, null="0.05", baseline="– nothing simpler")
    assert found["null"] == 0.05 and np.isnan(found["baseline"])


def test_a_difference_is_paired_by_seed_and_against_the_hardest(make, judged):
    own = [make(seed=s, x=v) for s, v in enumerate((1.0, 2.0, 3.0))]
    worse = {"basic_vae": 0.5, "vade": 0.1}
    others = [make(name, seed=s, x=s + 1 - less) for name, less in worse.items() for s in range(3)]
    found = judged(own + others, how="difference", against_run="basic_vae|vade")
    assert found["value"] == pytest.approx(0.1) and found["run"] == "conv_vae against vade"
    assert found["verdict"] == "supported" and found["baseline"] == pytest.approx(1.9)
    low = judged(own + others, how="difference", direction="below", against_run="basic_vae|vade")
    assert low["run"] == "conv_vae against basic_vae" and low["verdict"] == "refuted"


def test_other_numbers_multiples_and_the_first_variant_that_is_there_or_the_best(make, judged):
    runs = [make(seed=s, x=1.0 + s / 10, y=0.3, z=0.4) for s in range(3)]
    assert judged(runs, how="difference", against_number="y|z|gone")["baseline"] == pytest.approx(0.4)
    assert judged(runs, how="difference", against_number="y", times="2")["baseline"] == pytest.approx(0.6)
    best = judged(runs, number="z|y", null="y")
    assert best["run"] == "conv_vae (z)" and best["value"] == pytest.approx(0.4)
    assert judged(runs, how="ratio", against_number="y", low=2.0, high=2.0)["verdict"] == "supported"
    runs = [make("beta_vae", x=0.2), make("beta_vae-b8", x=0.5)]
    assert judged(runs, run="vade>beta_vae")["run"] == "beta_vae"
    assert judged(runs, run="beta_vae|beta_vae-b8")["run"] == "beta_vae-b8"
    assert judged(runs, run="beta_vae|beta_vae-b8", direction="below")["run"] == "beta_vae"


def test_one_against_one_is_fair_only_if_trained_as_long_and_by_seeds_in_common(make, judged):
    runs = [make(x=1.0, epochs=20), make("basic_vae", x=0.5, epochs=10)]
    found = judged(runs, how="difference", against_run="basic_vae")
    assert found["reason"] == "conv_vae shares no seed with basic_vae trained as long: train one"
    found = judged([*runs[:1], make("vade", seed=1, x=1)], how="difference", against_run="vade")
    assert found["reason"] == "no finished run of vade with seed 0" and np.isnan(found["value"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run": "vade|beta_vae"}, "no finished run of vade, beta_vae"),
        ({"number": "y"}, "y of conv_vae was not measured: execute notebook 03 on this corpus"),
        ({"number": "y", "experiment": "separation"}, "this corpus has one language"),
        ({"number": "nan"}, "undefined on this corpus"),
        (OF_NO_RUN | {"experiment": "speed", "number": "speed.vade.clips_per_s"}, "was not measured"),
    ],
)
def test_what_is_missing_is_not_tested_with_the_reason(make, judged, changes, reason):
    run = make(x=1.0, nan=np.nan)
    claims.skip(run, "separation", "this corpus has one language")
    found = judged([run], **changes)
    assert found["verdict"] == found["how_far"] == "not tested" and reason in found["reason"]


def test_what_is_counted_or_timed_belongs_to_no_run(judged):
    counted = OF_NO_RUN | {"experiment": "parameters", "number": "parameters.a", "low": 2.0, "high": 2.0}
    found = judged([], {"parameters.a": 3.0}, **counted)
    assert found["verdict"] == "supported" and found["how_far"] == "holds" and found["run"] == ""
    speeds = {"speed.a": np.array([4.0, 4.1, 4.2]), "speed.b": np.array([2.0, 2.0, 2.1]), "speed.c": np.ones(3)}
    asked = OF_NO_RUN | {"experiment": "speed", "number": "speed.a", "how": "ratio", "low": 1.0, "high": 1.0}
    timed = judged([], speeds, **asked, against_number="speed.b|speed.c")
    assert timed["verdict"] == "supported in this run" and timed["value"] == pytest.approx(2, rel=0.05)
    assert timed["reason"] == "on this machine, 3 turns of a stopwatch"
    assert judged([], speeds, **asked, against_number="speed.b|speed.d")["verdict"] == "not tested"  # all or none


def test_a_claim_is_judged_on_its_rung_and_on_all_that_are_harder(make, ledger):
    runs = [make(rung=r, x=[v, v + 0.01]) for r, v in (("composed", -1.0), ("loops", 1.0), ("desk", 1.0))]
    found = ledger(runs)
    assert found["rung"].tolist() == ["loops", "composed"]
    assert set(found["how_far"]) == {"holds on loops; fails on composed (in this run)"}
    assert ledger(runs, rung="desk")["rung"].tolist() == ["desk", "loops", "composed"]
    assert list(claims.by_rung([make(rung="my music"), *runs])) == ["desk", "loops", "composed", "my music"]
    assert ledger([])["verdict"].tolist() == ["not tested"]


def test_how_far_in_a_phrase():
    phrases = {
        ("supported", "supported", "supported"): "holds on a and b and c",
        ("supported", "supported", "refuted"): "holds on a and b; fails on c",
        ("inconclusive", "refuted in this run", "not tested"): "fails on b; undecided on a (in this run)",
        ("inconclusive", "inconclusive", "not tested"): "undecided on a and b",
        ("not tested",) * 3: "not tested",
    }
    for verdicts, phrase in phrases.items():
        assert claims.how_far(dict(zip("abc", verdicts, strict=True))) == phrase
