"""Results that notebooks keep with a run under short ids, and the ledger of claims judged by them (notebook 07)."""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .collection import LADDER
from .config import ROOT, InputError, write_atomic
from .metrics.statistics import MIN_SEEDS, judge
from .runs import Run

NO_RUNG = "–"  # of what is counted or timed, on whatever corpus
OUTCOMES = {"supported": "holds", "refuted": "fails", "inconclusive": "undecided"}  # verdict → its word on a rung
LINE = """id claim metric expected how direction notebook rung threshold_low threshold_high n run value low high
baseline null verdict reason how_far"""


@dataclass(frozen=True)
class Results:
    """What the notebooks measured on a run; the ids of all of its experiments differ."""

    numbers: dict[str, float] = field(default_factory=dict)
    per_clip: dict[str, np.ndarray] = field(default_factory=dict)  # (N,) of clips, pairs or units: mean or spread of it
    texts: dict[str, str] = field(default_factory=dict)  # experiment → the sentence that its notebook made of them
    skipped: dict[str, str] = field(default_factory=dict)  # experiment → why this corpus or run cannot have it

    def __str__(self) -> str:
        sentences = [*self.texts.values(), *(f"Not tested: {reason}." for reason in self.skipped.values())]
        return "\n\n".join(textwrap.fill(text, 100) for text in sentences)


def keep(
    run: Run, experiment: str, numbers: Mapping[str, float], per_clip: Mapping[str, np.ndarray] | None = None,
    figure: Figure | None = None, text: str = "",
) -> Results:  # fmt: skip
    """Keep results of a run as `results/<experiment>.json` and `.png`, in place of older ones; see `Results`."""
    folder, numbers = run.folder / "results", {name: float(value) for name, value in numbers.items()}
    values = {name: np.asarray(v, float).round(9) for name, v in (per_clip or {}).items()}
    if figure is not None:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        write_atomic(folder / f"{experiment}.png", buffer.getvalue())
    content = {"numbers": numbers, "per_clip": {name: v.tolist() for name, v in values.items()}, "text": text}
    write_atomic(folder / f"{experiment}.json", json.dumps(content, indent=1))
    return Results(numbers, values, {experiment: text} if text else {})


def skip(run: Run, experiment: str, reason: str) -> Results:
    """Keep why a run cannot have an experiment; the ledger then says `not tested: <reason>`."""
    write_atomic(run.folder / "results" / f"{experiment}.json", json.dumps({"skipped": reason}))
    return Results(skipped={experiment: reason})


def read(run: Run) -> Results:
    """Everything that was kept for a run, and of its training `train.epochs`, `.parameters` and the two speeds."""
    seconds = run.history.groupby("phase", sort=False)["seconds"].median()  # VaDE's last phase is the joint one
    found = Results({f"train.{k}": float(run.summary[k]) for k in ("clips_per_s", "epochs", "parameters")})
    found.numbers["train.seconds_per_epoch"] = float(seconds.iloc[-1])
    for path in sorted((run.folder / "results").glob("*.json")):
        kept = json.loads(path.read_text())
        found.numbers.update(kept.get("numbers", {}))
        found.per_clip.update({name: np.array(values) for name, values in kept.get("per_clip", {}).items()})
        for texts, name in ((found.texts, "text"), (found.skipped, "skipped")):
            texts.update({path.stem: kept[name]} if kept.get(name) else {})
    return found


def read_claims() -> pd.DataFrame:
    """The table of claims, one row per measurable part."""
    table = pd.read_csv(ROOT / "data" / "claims.csv", dtype=str, keep_default_na=False)
    return table.astype({"low": float, "high": float})


def place(rung: str) -> int:
    """Where a rung stands on the ladder; what is not on it comes last."""
    return [*LADDER, rung].index(rung)


def by_rung(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the rung of the ladder that their store stands on, in its order; a second store of it by its corpus."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        rung = run.store.attrs["rung"]
        second = rung in found and found[rung][0].config.fingerprint != run.config.fingerprint
        found.setdefault(run.config.corpus if second else rung, []).append(run)
    return {rung: found[rung] for rung in sorted(found, key=place)}


def judge_claims(runs: Sequence[Run], extras: Mapping[str, float | np.ndarray]) -> pd.DataFrame:
    """Judge every claim on finished runs: on the rung where it is first measured, and on all that are harder.

    `extras` are numbers of no run by id: `parameters.…` in millions, `speed.…` (turns,). Returns one row per part of a
    claim and rung: what the table says of it, `value`, `low`, `high` (95 % interval), `baseline` (what a simpler method
    reaches; of a difference or ratio, what it is to), `null`, `n` (seeds, or turns), `verdict` (`not tested` if numbers
    are missing), `reason`, `how_far` (over all rungs), `run` (the variants that were measured).
    """
    rungs, found = {rung: _Rung(own, extras) for rung, own in by_rung(runs).items()}, []
    for claim in read_claims().rename(columns={"low": "threshold_low", "high": "threshold_high"}).to_dict("records"):
        there = [r for r in rungs if claim["rung"] != NO_RUNG and place(r) >= place(claim["rung"])]
        lines = [rungs.get(r, _Rung([], extras)).judged(claim) | {"rung": r} for r in there or [claim["rung"]]]
        shown = [x for x in lines if x["verdict"] != "not tested" or x["rung"] == claim["rung"]] or lines[:1]
        found += [line | {"how_far": how_far({x["rung"]: x["verdict"] for x in shown})} for line in shown]
    return pd.DataFrame(found).reindex(columns=LINE.split())


def how_far(verdicts: Mapping[str, str]) -> str:
    """In one phrase how far up the ladder a part of a claim holds; rung → verdict, in the ladder's order."""
    on = {word: [r for r, v in verdicts.items() if v.startswith(verdict)] for verdict, word in OUTCOMES.items()}
    decided = set(verdicts.values()) - {"inconclusive", "not tested"}
    here = " (in this run)" if decided and all(verdict.endswith("in this run") for verdict in decided) else ""
    parts = [f"{word} on {' and '.join(some)}" for word, some in on.items() if some]
    return "; ".join(parts).removesuffix(f" on {NO_RUNG}") + here or "not tested"


class _Rung:
    """What the runs of one store measured; what is counted or timed is a variant too, its turns like seeds."""

    def __init__(self, runs: Sequence[Run], extras: Mapping[str, float | np.ndarray]) -> None:
        self.kept: dict[str, dict[int, Results]] = {"parameters": {0: Results()}, "speed": {0: Results()}}
        for run in runs:
            self.kept.setdefault(run.name, {})[run.config.training.seed] = read(run)
        for name, values in extras.items():
            for turn, value in enumerate(np.atleast_1d(values)):
                self.kept[name.partition(".")[0]].setdefault(turn, Results()).numbers[name] = float(value)
        self.table, factors = (runs[0].store.table, runs[0].store.factors) if runs else (pd.DataFrame(), ())
        self.estimated = not any(self.table[f].notna().all() and self.table[f].nunique() > 1 for f in factors)

    def judged(self, claim: dict) -> dict:
        """The ledger's line on one part of a claim."""
        line = claim | {"n": 0, "run": "", "baseline": np.nan, "null": np.nan}
        try:
            return line | self._measured(claim)
        except InputError as e:
            return line | {"verdict": "not tested", "reason": str(e)}

    def _measured(self, claim: dict) -> dict:
        """What is measured of that line; InputError: something is not there."""
        subject, number = self._best(claim, self._there(claim["run"] or claim["experiment"]), claim["number"])
        seeds, name, against = sorted(self.kept[subject]), subject, None
        if claim["how"] != "value":
            seeds, name, against = self._against(claim, subject)
        values = self._values(claim, subject, number, seeds)
        if against is not None and against.shape[1] not in (1, values.shape[1]):  # other clips
            values, against = (v.mean(1, keepdims=True) for v in (values, against))
        how = [claim["how"], claim["direction"], (claim["threshold_low"], claim["threshold_high"])]
        of, share = claim["experiment"], claim["share"] == "yes"
        found, verdict = judge(values, against, *how, share, exact=of == "parameters", turns=of == "speed")
        line = found._asdict() | {"value": found.mean, "verdict": verdict}
        for column in ("baseline", "null"):
            if claim[column] and not claim[column].startswith("–"):  # the reason why there is none
                line[column] = float(self._values(claim, subject, claim[column], seeds).mean())
        if against is not None:
            line["baseline"] = float(against.mean())
        words = subject + f" ({number})" * ("|" in claim["number"]) + f" against {name}" * (name != subject)
        n, tested, over = len(values), verdict != "not tested", "over clips or units of " * (values.shape[1] > 1)
        reasons = {
            "factors: librosa's estimates": self.estimated and of == "disentanglement",
            "undefined on this corpus": not tested,
            f"on this machine, {n} turns of a stopwatch": of == "speed",
            f"{over}{n} seed{'s' * (n > 1)}: three decide beyond this run": claim["run"] and n < MIN_SEEDS and tested,
        }
        reason = "; ".join(reason for reason, applies in reasons.items() if applies)
        return line | {"run": words if claim["run"] else "", "reason": reason}

    def _against(self, claim: dict, subject: str) -> tuple[list[int], str, np.ndarray]:
        """Seeds in common, and of other variants or other numbers, or both, whose is hardest to beat and its values."""
        seeds = sorted(self.kept[subject])
        others = self._there(claim["against_run"], seeds) if claim["against_run"] else [subject]
        common = {other: [s for s in seeds if s in self.kept[other]] for other in others}
        others = [o for o in others if len(common[o]) == max(map(len, common.values()))]  # of fewer seeds: left out
        seeds = [s for s in seeds if all(s in common[o] for o in others)]
        if claim["against_run"] and "|" not in claim["against_run"]:  # fair only if the other was trained as long
            ours, theirs = (self.kept[v] for v in (subject, others[0]))
            seeds = [s for s in seeds if ours[s].numbers["train.epochs"] <= theirs[s].numbers["train.epochs"]]
        if not seeds:
            raise InputError(f"{subject} shares no seed with {', '.join(others)} trained as long: train one")
        other, number = self._best(claim, others, claim["against_number"] or claim["number"], seeds)
        return seeds, other, float(claim["times"] or 1) * self._values(claim, other, number, seeds)

    def _there(self, wanted: str, seeds: Sequence[int] = ()) -> list[str]:
        """The variants of `a|b>c` that are there (with one of these seeds): of the first group that has any."""
        for group in wanted.split(">"):
            there = [v for v in group.split("|") if v in self.kept and (not seeds or set(seeds) & set(self.kept[v]))]
            if there:
                return there
        for label in ("genre", "language"):
            if f"cvae-{label}" in wanted and label in self.table and self.table[label].nunique() < 2:
                raise InputError(f"the corpus has fewer than two {label}s: a conditional model needs two classes")
        with_seed = f" with seed {' or '.join(map(str, seeds))}" if seeds else ""
        raise InputError(f"no finished run of {wanted.replace('>', ' or ').replace('|', ', ')}{with_seed}")

    def _best(self, claim: dict, variants: list[str], numbers: str, seeds: Sequence[int] = ()) -> tuple[str, str]:
        """The best variant and number, of others the hardest to beat: the lowest mean for `below`, else the highest."""
        pairs = [(v, n) for v in variants for n in numbers.split("|")]
        found = {(v, n): [self.kept[v][s].numbers.get(n, np.nan) for s in seeds or self.kept[v]] for v, n in pairs}
        means = pd.Series({pair: np.mean(values) for pair, values in found.items()})
        if not claim["run"] and means.isna().any():  # of what is timed all must be there
            return means.isna().idxmax()
        return (-means if claim["direction"] == "below" else means).fillna(-np.inf).idxmax()

    def _values(self, claim: dict, variant: str, number: str, seeds: Sequence[int]) -> np.ndarray:
        """(S, N) where the number is a mean over clips, else (S, 1); what the table gives as a figure as it is."""
        if number.replace(".", "", 1).isdigit():
            return np.array([[float(number)]])
        found = [self.kept[variant][s] for s in seeds]
        for results in (r for r in found if number not in r.numbers):
            missing = f"{number} of {variant} was not measured: execute notebook {claim['notebook']} on this corpus"
            raise InputError(results.skipped.get(claim["experiment"], missing))
        clips = [r.per_clip.get(number, ()) for r in found]
        alike = 0 < min(map(len, clips)) == max(map(len, clips))
        return np.stack(clips) if alike else np.array([[r.numbers[number]] for r in found])
