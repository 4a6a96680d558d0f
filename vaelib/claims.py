"""Results that notebooks keep with a run under short ids, and the ledger: every claim judged by them (notebook 07).

A claim of the source document is some rows of `data/claims.csv`; CONTRIBUTING.md explains the columns.
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .collection import LADDER
from .config import ROOT, InputError, write_atomic
from .metrics.statistics import MIN_SEEDS, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .runs import Run

NO_RUNG = "–"  # of what is counted or timed, on whatever corpus
OF_NO_RUN = ("parameters", "speed")
LINE = "id claim metric expected how direction notebook rung threshold_low threshold_high n run value low high baseline"


@dataclass(frozen=True)
class Results:
    """What the notebooks measured on a run.

    Attributes:
        numbers: Id → number; the ids of all experiments of a run differ.
        per_clip: Of some ids the values (N,), one per test clip (or pair of clips, or unit), whose mean the number is;
            of a number that is no mean, such as ARI, values whose spread is that of the number.
        texts: Experiment → the sentence that its notebook made of the numbers.
        skipped: Experiment → why this corpus or run cannot have it.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    per_clip: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

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
    joint = run.history[run.history["phase"] == "joint"]  # what an epoch of VaDE takes
    seconds = (joint if len(joint) else run.history)["seconds"].median()
    found = Results({f"train.{k}": float(run.summary[k]) for k in ("clips_per_s", "epochs", "parameters")})
    found.numbers["train.seconds_per_epoch"] = float(seconds)
    for path in sorted((run.folder / "results").glob("*.json")):
        kept = json.loads(path.read_text())
        found.numbers.update(kept.get("numbers", {}))
        found.per_clip.update({name: np.array(values) for name, values in kept.get("per_clip", {}).items()})
        for words, name in ((found.texts, "text"), (found.skipped, "skipped")):
            if kept.get(name):
                words[path.stem] = kept[name]
    return found


# --- the ledger ---


def read_claims() -> pd.DataFrame:
    """The table of claims, one row per measurable part."""
    table = pd.read_csv(ROOT / "data" / "claims.csv", dtype=str, keep_default_na=False)
    return table.astype({"low": float, "high": float})


def place(rung: str) -> int:
    """Where a rung stands on the ladder; what is not on it comes last."""
    return LADDER.index(rung) if rung in LADDER else len(LADDER)


def by_rung(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the rung of the ladder that their store stands on, in its order; a second store of it by its corpus."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        rung, own = run.store.attrs["rung"], run.config.fingerprint
        second = rung in found and found[rung][0].config.fingerprint != own
        found.setdefault(run.config.corpus if second else rung, []).append(run)
    return dict(sorted(found.items(), key=lambda item: place(item[0])))


def judge_claims(runs: Sequence[Run], extras: Mapping[str, float | np.ndarray]) -> pd.DataFrame:
    """Judge every claim on finished runs: on the rung where it is first measured, and on all that are harder.

    A claim whose numbers were not kept is `not tested`, with the reason. `extras` are numbers of no run by id:
    `parameters.…` in millions, `speed.…` (turns,).

    Returns:
        One row per part of a claim and rung: what the table says of it, `value`, `low`, `high` (95 % interval),
        `baseline` (what a simpler method reaches; of a difference or ratio, what it is to), `null`, `n` (seeds, or
        turns), `verdict`, `reason`, `how_far` (over all rungs), `run` (the variants that were measured).
    """
    rungs = {rung: _Rung(own, extras) for rung, own in by_rung(runs).items()}
    nothing, found = _Rung([], extras), []
    for claim in read_claims().to_dict("records"):
        there = [r for r in rungs if claim["rung"] != NO_RUNG and place(r) >= place(claim["rung"])]
        lines = [rungs.get(r, nothing).judged(claim) | {"rung": r} for r in there or [claim["rung"]]]
        shown = [x for x in lines if x["verdict"] != "not tested" or x["rung"] == claim["rung"]] or lines[:1]
        far = how_far({line["rung"]: line["verdict"] for line in shown})
        found += [line | {"how_far": far} for line in shown]
    return pd.DataFrame(found)[[*LINE.split(), "null", "verdict", "reason", "how_far"]]


def how_far(verdicts: Mapping[str, str]) -> str:
    """In one phrase how far up the ladder a part of a claim holds; rung → verdict, in the ladder's order."""
    tested = {rung: v for rung, v in verdicts.items() if v != "not tested"}
    here = " (in this run)" if all("in this run" in v or v == "inconclusive" for v in tested.values()) else ""
    outcomes = {"holds": "supported", "breaks": "refuted", "undecided": "inconclusive"}
    on = {word: [r for r, v in tested.items() if v.startswith(start)] for word, start in outcomes.items()}
    if not tested:
        return "not tested"
    if not on["holds"] and not on["breaks"]:
        return "undecided"
    if NO_RUNG in tested:
        return ("holds" if on["holds"] else "does not hold") + here
    if len(on["breaks"]) == len(tested):
        return "holds nowhere" + here
    parts = [f"{word} on {' and '.join(some)}" for word, some in on.items() if some]
    if len(on["holds"]) > 2 and list(tested)[: len(on["holds"])] == on["holds"]:
        parts[0] = f"holds up to {on['holds'][-1]}"
    return "; ".join(parts) + here


class _Rung:
    """What the runs of one store measured; what is counted or timed is a variant too, its turns like seeds."""

    def __init__(self, runs: Sequence[Run], extras: Mapping[str, float | np.ndarray]) -> None:
        self.kept = {(run.name, run.config.training.seed): read(run) for run in runs}
        for kind in OF_NO_RUN:
            turns = pd.DataFrame({name: np.atleast_1d(v) for name, v in extras.items() if name.startswith(kind)})
            turns = [dict(row) for _, row in turns.iterrows()] or [{}]
            self.kept |= {(kind, i): Results({"train.epochs": 0.0} | row) for i, row in enumerate(turns)}
        numbers = pd.DataFrame({key: results.numbers for key, results in self.kept.items()}).T  # (variant, seed) × id
        self.epochs = numbers["train.epochs"].unstack(0)  # seed × variant, nan where it was not trained
        self.means = numbers.groupby(level=0).agg(lambda of_seeds: of_seeds.mean(skipna=False))  # variant × id
        self.table = runs[0].store.table if runs else pd.DataFrame()
        factors = runs[0].store.factors if runs else ()
        self.estimated = not any(self.table[f].notna().all() and self.table[f].nunique() > 1 for f in factors)

    def judged(self, claim: dict) -> dict:
        """The ledger's line on one part of a claim."""
        line = claim | {"threshold_low": claim["low"], "threshold_high": claim["high"], "n": 0, "run": ""}
        line |= dict.fromkeys(("value", "low", "high", "baseline", "null"), np.nan)
        try:
            return line | self._measured(claim)
        except InputError as e:
            return line | {"verdict": "not tested", "reason": str(e)}

    def _measured(self, claim: dict) -> dict:
        """What is measured of that line; InputError: something is not there."""
        numbers, variants, against = claim["number"].split("|"), self._there(claim["run"] or claim["experiment"]), None
        means = self.means.reindex(index=variants, columns=numbers)
        subject = _best(means[numbers[0]], claim)
        number = _best(means.loc[subject], claim)
        seeds, words = self.epochs[subject].dropna().index, subject + (f" ({number})" if len(numbers) > 1 else "")
        if claim["how"] != "value":
            seeds, against, name = self._against(claim, subject, seeds)
            words += f" against {name}" if name != subject else ""
        values = self._values(subject, number, seeds, claim)
        if against is not None and values.ndim > against.ndim:  # one number per seed, the same for all of its clips
            against = np.broadcast_to(against[:, None], values.shape)
        elif against is not None and values.shape != against.shape:  # other clips, or those of `against` only
            values, against = (v.mean(1) if v.ndim > 1 else v for v in (values, against))
        counted, timed = (claim["experiment"] == kind for kind in OF_NO_RUN)
        asked = claim["how"], claim["direction"], (claim["low"], claim["high"]), claim["share"] == "yes"
        found, verdict = judge(values, against, *asked, exact=counted, turns=timed)
        line = {"value": found.mean, "low": found.low, "high": found.high, "n": found.n, "verdict": verdict}
        for name in ("baseline", "null"):  # a number, an id, or `– why there is none`
            if claim[name].replace(".", "", 1).isdigit():
                line[name] = float(claim[name])
            elif claim[name] and not claim[name].startswith("–"):
                line[name] = float(self._values(subject, claim[name], seeds, claim).mean())
        if against is not None:
            line["baseline"] = float(against.mean())
        return line | {"run": words if claim["run"] else "", "reason": self._reason(claim, verdict, values)}

    def _reason(self, claim: dict, verdict: str, values: np.ndarray) -> str:
        """What to bear in mind about a verdict."""
        n, seeds = len(values), f"{len(values)} seed{'s' if len(values) > 1 else ''}"
        reasons = ["factors: librosa's estimates"] * (self.estimated and claim["experiment"] == "disentanglement")
        if verdict == "not tested":
            reasons.append("undefined on this corpus")
        elif claim["experiment"] == "speed":
            reasons.append(f"on this machine, {n} turns of a stopwatch")
        elif claim["run"] and n < MIN_SEEDS and values.ndim > 1:
            reasons.append(f"over clips or units of {seeds}: three decide beyond this run")
        elif claim["run"] and n < MIN_SEEDS:
            reasons.append(f"{seeds}: three are needed to decide")
        return "; ".join(reasons)

    def _against(self, claim: dict, subject: str, seeds: pd.Index) -> tuple[pd.Index, np.ndarray, str]:
        """Seeds in common, and of other variants or other numbers, or both, the values hardest to beat and whose."""
        others = self._there(claim["against_run"], seeds, subject) if claim["against_run"] else [subject]
        there = self.epochs.loc[seeds, others].notna()
        others = there.columns[there.sum() == there.sum().max()]  # one with fewer seeds must not cost the others theirs
        seeds = there.index[there[others].all(axis=1)]
        if seeds.empty:
            raise InputError(f"{subject} and {', '.join(others)} have no seed that all of them share")
        if claim["against_run"] and "|" not in claim["against_run"]:  # fair only if the other was trained as long
            ours, theirs = self.epochs.loc[seeds, subject], self.epochs.loc[seeds, others[0]]
            seeds = seeds[ours <= theirs]
            if seeds.empty:
                epochs = f"{ours.iloc[0]:.0f} epochs and {others[0]} for {theirs.iloc[0]:.0f}"
                raise InputError(f"{subject} was trained for {epochs}: train {others[0]} as long")
        asked = [(v, n) for v in others for n in (claim["against_number"] or claim["number"]).split("|")]
        known = [(v, n) for v, n in asked if all(n in self.kept[v, s].numbers for s in seeds)]
        asked = known or asked if claim["run"] else asked  # of what is timed all must be there
        values = [float(claim["times"] or 1) * self._values(v, n, seeds, claim) for v, n in asked]
        best = _best(pd.Series([v.mean() for v in values]), claim)
        return seeds, values[best], asked[best][0]

    def _there(self, wanted: str, seeds: pd.Index | slice = slice(None), subject: str = "") -> list[str]:
        """The variants of `a|b>c` that are there (with one of these seeds): of the first group that has any."""
        for group in wanted.split(">"):
            there = [v for v in group.split("|") if v in self.epochs and self.epochs.loc[seeds, v].notna().any()]
            if there:
                return there
        for label in ("genre", "language"):
            if not subject and f"cvae-{label}" in wanted and label in self.table and self.table[label].nunique() < 2:
                raise InputError(f"the corpus has fewer than two {label}s: a conditional model needs two classes")
        which = wanted.replace(">", " or ").replace("|", ", ")
        raise InputError(f"no finished run of {which}" + (f" with a seed of {subject}" if subject else ""))

    def _values(self, variant: str, number: str, seeds: pd.Index, claim: dict) -> np.ndarray:
        """(S, N) where the number is a mean over clips, else (S,)."""
        found = [self.kept[variant, s] for s in seeds]
        for results in found:
            if number not in results.numbers:
                missing = f"{number} of {variant} was not measured: execute notebook {claim['notebook']} on this corpus"
                raise InputError(results.skipped.get(claim["experiment"], missing))
        if all(number in r.per_clip for r in found) and len({len(r.per_clip[number]) for r in found}) == 1:
            return np.stack([r.per_clip[number] for r in found])
        return np.array([r.numbers[number] for r in found])


def _best(means: pd.Series, claim: dict) -> str | int:
    """The best, and of others the hardest to beat: the lowest mean for claims of `below`, else the highest."""
    return (-means if claim["direction"] == "below" else means).fillna(-np.inf).idxmax()
