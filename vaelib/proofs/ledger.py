"""The claims ledger: every claim of the source document on every rung, measured, with interval, null and verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..collection import LADDER, UNLABELLED
from ..config import ROOT, InputError
from ..metrics.claims import Claim, judge
from ..metrics.statistics import MIN_SEEDS
from ..runs import Run
from .clusters import LABELS
from .factors import true_factors
from .registry import measure

CLAIMS = ROOT / "data" / "claims.csv"
COLUMNS = ("id", "claim", "metric", "expected", "rung", "run", "proof", "number", "against_run", "against_number",
           "how", "direction", "low", "high", "share", "baseline", "null", "notebook")  # fmt: skip
ESTIMATED = "factors: librosa's estimates"
MACHINE = "on this machine"
NO_RUNG = "–"  # of what is counted or timed, on whatever corpus
Extras = Mapping[str, Mapping[str, float | np.ndarray]]


def read_claims(path: Path = CLAIMS) -> pd.DataFrame:
    """The table of claims; its columns are explained in `CONTRIBUTING.md`.

    Raises:
        InputError: a column is missing.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = set(COLUMNS) - set(table)
    if missing:
        raise InputError(f"{path} lacks the column(s) {', '.join(sorted(missing))}")
    return table.astype({"low": float, "high": float})


def by_rung(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the rung of the ladder that their store stands on, in the ladder's order; other corpora follow.

    Two stores of one rung stand on their own, the second under its corpus's name.
    """
    stores: dict[str, list[Run]] = {}
    for run in runs:
        stores.setdefault(run.config.fingerprint, []).append(run)
    found: dict[str, list[Run]] = {}
    for own in stores.values():
        rung = own[0].store.attrs.get("rung", own[0].config.corpus)
        found[own[0].config.corpus if rung in found else rung] = own
    return dict(sorted(found.items(), key=lambda item: place(item[0])))


def place(rung: str) -> int:
    """Where on the ladder; what is not on it comes last."""
    return LADDER.index(rung) if rung in LADDER else len(LADDER)


def ledger(
    runs: Sequence[Run],
    extras: Extras | None = None,
    claims: pd.DataFrame | None = None,
    show: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Judge every claim on finished runs: on the rung where it is first measured, and on all that are harder.

    What a claim needs and is not there makes it `not tested`, with the reason, and stops nothing. On harder rungs it is
    left out if it was tested elsewhere.

    Args:
        runs: Runs on one or several stores, any number of seeds.
        extras: Numbers that come from no run: `parameters` (counted: one decides), `speed` (one per turn).
        claims: From `read_claims`.
        show: Called with a line of progress.

    Returns:
        One row per part of a claim and rung: `id`, `claim`, `metric`, `expected`, `rung`, `how`, `direction`,
        `threshold_low`, `threshold_high`, `value`, `low`, `high` (95 % interval), `baseline` (what a simpler method
        reaches; of a difference or ratio, what it is to), `null`, `n` (seeds, or turns), `verdict`, `reason`,
        `how_far` (over all rungs), `run` (the variants that were measured), `notebook`.
    """
    claims, found, rungs = read_claims() if claims is None else claims, [], by_rung(runs)
    books = {rung: _Book(own, extras or {}) for rung, own in rungs.items()}
    nothing = _Book([], extras or {})
    for i, row in enumerate(claims.to_dict("records")):
        show(f"claim {i + 1}/{len(claims)}: {row['id']}")
        if row["rung"] == NO_RUNG:
            lines = [_judged(nothing, row, NO_RUNG)]
        else:
            lines = [_judged(b, row, r) for r, b in books.items() if place(r) >= place(row["rung"])]
            lines = lines or [_judged(nothing, row, row["rung"])]
        tested = [line for line in lines if line["verdict"] != "not tested"]
        kept = [line for line in lines if line in tested or line["rung"] == row["rung"]] or lines[:1]
        far = how_far({line["rung"]: line["verdict"] for line in kept})
        found += [line | {"how_far": far} for line in kept]
    order = [*LINE, "how_far", "run", "notebook"]
    return pd.DataFrame(found, columns=order)


LINE = ("id", "claim", "metric", "expected", "rung", "how", "direction", "threshold_low", "threshold_high", "value",
        "low", "high", "baseline", "null", "n", "verdict", "reason")  # fmt: skip


def _judged(book: _Book, row: dict, rung: str) -> dict:
    """A part of a claim on one rung."""
    spec = Claim(*(row[k] for k in ("id", "claim", "metric", "expected", "how", "direction", "low", "high")),
                 share=row["share"] == "yes")  # fmt: skip
    line = {
        **{k: row[k] for k in ("id", "claim", "metric", "expected", "how", "direction", "notebook")}, "rung": rung,
        "threshold_low": row["low"], "threshold_high": row["high"],
        **dict.fromkeys(("value", "low", "high", "baseline", "null"), np.nan), "n": 0,
        "verdict": "not tested", "reason": "", "run": "",
    }  # fmt: skip
    try:
        measured = book.values(row)
    except InputError as e:
        return line | {"reason": str(e)}
    turns = row["proof"] == "speed"
    found, said = judge(spec, measured.values, measured.rival, exact=row["proof"] == "parameters", turns=turns)
    seeds = f"{found.n} seed{'s' if found.n > 1 else ''}"
    reason = ""
    if said == "not tested":
        reason = "undefined on this corpus"
    elif turns:
        reason = f"{MACHINE}, {found.n} turns of a stopwatch"
    elif row["proof"] != "parameters" and found.n < MIN_SEEDS:
        over_clips = f"over clips or units of {seeds}: three decide beyond this run"
        reason = over_clips if measured.values.ndim > 1 else f"{seeds}: three are needed to decide"
    if row["proof"] == "disentanglement" and book.estimated:
        reason = "; ".join(filter(None, (ESTIMATED, reason)))
    return line | {
        "value": found.mean, "low": found.low, "high": found.high, "n": found.n, "verdict": said, "reason": reason,
        "baseline": measured.baseline, "null": measured.null, "run": measured.used,
    }  # fmt: skip


def how_far(verdicts: Mapping[str, str]) -> str:
    """In one phrase how far up the ladder a part of a claim holds.

    Args:
        verdicts: Rung → verdict, in the ladder's order.
    """
    tested = {rung: said for rung, said in verdicts.items() if said != "not tested"}
    if not tested:
        return "not tested"
    here = " (in this run)" if all("in this run" in s or s == "inconclusive" for s in tested.values()) else ""
    holds, breaks, open_ = (
        [rung for rung, said in tested.items() if said.startswith(start)]
        for start in ("supported", "refuted", "inconclusive")
    )
    if not holds and not breaks:
        return "undecided"
    if NO_RUNG in tested:
        return ("holds" if holds else "does not hold") + here
    if not holds and not open_:
        return "holds nowhere" + here
    parts = []
    if holds:
        in_a_row = list(tested)[: len(holds)] == holds
        parts.append(f"holds up to {holds[-1]}" if in_a_row and len(holds) > 2 else "holds on " + " and ".join(holds))
    parts += ["breaks on " + " and ".join(breaks)] if breaks else []
    parts += ["undecided on " + " and ".join(open_)] if open_ else []
    return "; ".join(parts) + here


class _Measured(NamedTuple):
    """Values (S,) or (S, N) of a part, those of its rival, mean baseline and null, and the variants that were read."""

    values: np.ndarray
    rival: np.ndarray | None
    baseline: float
    null: float
    used: str


class _Book:
    """Runs of one store by variant and seed, and the numbers measured on them."""

    def __init__(self, runs: Sequence[Run], extras: Extras) -> None:
        self.runs: dict[str, dict[int, Run]] = {}
        for run in runs:
            self.runs.setdefault(run.name, {})[run.config.training.seed] = run
        self.store = runs[0].store if runs else None
        self.estimated = bool(runs) and not true_factors(runs[0])
        self.extras = extras

    def values(self, row: dict) -> _Measured:
        """What a row asks for; its `number` may be the best of several, `a|b`.

        Raises:
            InputError: something of it is not there.
        """
        if row["proof"] in ("parameters", "speed"):
            return self._extra(row)
        subject = self._choose(row["run"], row["proof"], row["number"].split("|")[0], row["direction"])
        seeds, rival, used = sorted(self.runs[subject]), None, subject
        number, used_number = self._best_number(subject, seeds, row)
        used += used_number
        if row["how"] != "value":
            seeds, rival, name = self._rival(row, subject, seeds)
            used += f" against {name}" if name != subject else ""
        values = self._stack(subject, seeds, row["proof"], number)
        if rival is not None and values.ndim > rival.ndim:  # one number per seed, the same for all of its clips
            rival = np.broadcast_to(rival[:, None], values.shape)
        elif rival is not None and values.shape != rival.shape:  # other clips, or the rival's only
            values, rival = (v.mean(1) if v.ndim > 1 else v for v in (values, rival))
        null, baseline = (self._beside(row, subject, seeds, row[k]) for k in ("null", "baseline"))
        baseline = baseline if rival is None else float(np.mean(rival))
        return _Measured(values, rival, baseline, null, used)

    def _best_number(self, subject: str, seeds: Sequence[int], row: dict) -> tuple[str, str]:
        """The number of a row, and, if it is the best of several, which."""
        numbers = row["number"].split("|")
        if len(numbers) == 1:
            return numbers[0], ""
        there = [n for n in numbers if np.isfinite(self._mean(subject, row["proof"], n))]
        if not there:
            raise InputError(f"none of {', '.join(map(repr, numbers))} was measured")
        best = max(there, key=lambda n: self._mean(subject, row["proof"], n))
        return best, f" ({best})"

    def _beside(self, row: dict, subject: str, seeds: Sequence[int], number: str) -> float:
        """A baseline or a null: a number of this or another proof, one that is known, or (`–`) why there is none."""
        if number.startswith("–") or not number:
            return np.nan
        try:
            return float(number)
        except ValueError:
            proof, _, name = number.rpartition(" > ")
            return float(self._stack(subject, seeds, proof or row["proof"], name).mean())

    def _extra(self, row: dict) -> _Measured:
        given = self.extras.get(row["proof"])
        if given is None:
            raise InputError(f"no {row['proof']} was measured")
        rivals = [np.atleast_1d(self._known(given, n)) for n in row["against_number"].split("|") if n]
        best = self._hardest(rivals, row["direction"])
        rival = None if best is None else rivals[best]
        baseline = np.nan if rival is None else float(rival.mean())
        null = self._beside(row, "", [], row["null"])
        return _Measured(np.atleast_1d(self._known(given, row["number"])), rival, baseline, null, "")

    def _rival(self, row: dict, subject: str, seeds: list[int]) -> tuple[list[int], np.ndarray, str]:
        """Seeds in common, the values of the rival that is hardest to beat, and its variant.

        Rivals are other variants, other numbers of the same run (`against_number`, which may name another proof as
        `proof > number`, or be a multiple, `2 * number`), or both.
        """
        variants = [subject]
        if row["against_run"]:
            wanted = row["against_run"].replace(">", "|").split("|")
            variants = [v for v in wanted if v in self.runs and set(seeds) & set(self.runs[v])]
            if not variants:
                raise InputError(f"no finished run of {', '.join(wanted)} with a seed of {subject}")
            variants = variants[:1] if ">" in row["against_run"] else variants
        # a rival with fewer seeds must not cost the others theirs
        most = max(len(set(seeds) & set(self.runs[v])) for v in variants)
        variants = [v for v in variants if len(set(seeds) & set(self.runs[v])) == most]
        seeds = [s for s in seeds if all(s in self.runs[v] for v in variants)]
        if not seeds:
            raise InputError(f"{subject} and its rivals {', '.join(variants)} have no seed that all of them share")
        if "|" not in row["against_run"]:  # one against one: fair only if the rival was trained as long
            seeds = self._as_long(subject, variants[0], seeds)
        proof, _, numbers = row["against_number"].rpartition(" > ")
        candidates, names, refused = [], [], []
        for variant in variants:
            for number in (numbers or row["number"]).split("|"):
                times, _, number = number.rpartition(" * ")
                try:
                    candidates.append(float(times or 1) * self._stack(variant, seeds, proof or row["proof"], number))
                    names.append(variant)
                except InputError as e:
                    refused.append(e)
        best = self._hardest(candidates, row["direction"])
        if best is None:
            raise refused[0]
        return seeds, candidates[best], names[best]

    def _as_long(self, subject: str, rival: str, seeds: list[int]) -> list[int]:
        """Seeds for which the rival was trained for as many epochs as the subject, or for more."""
        ours, theirs = ([self.runs[v][s].summary["epochs"] for s in seeds] for v in (subject, rival))
        fair = [s for s, a, b in zip(seeds, ours, theirs, strict=True) if a <= b]
        if not fair:
            raise InputError(
                f"{subject} was trained for {ours[0]} epochs and {rival} for {theirs[0]}: train {rival} as long"
            )
        return fair

    def _choose(self, wanted: str, proof: str, number: str, direction: str) -> str:
        """The first variant of `a>b` that is there; of `a|b` the one with the best mean."""
        for group in wanted.split(">"):
            there = [v for v in group.split("|") if v in self.runs]
            if len(there) > 1:
                means = [self._mean(v, proof, number) for v in there]
                worst = np.inf if direction == "below" else -np.inf  # nan: unknown, so never the best
                means = np.where(np.isnan(means), worst, means)
                return there[int(np.argmin(means) if direction == "below" else np.argmax(means))]
            if there:
                return there[0]
        for label in LABELS if self.store else ():
            classes = set(self.store.table[label]) - {UNLABELLED}
            if f"cvae-{label}" in wanted and len(classes) < 2:
                raise InputError(
                    f"the corpus has {len(classes) or 'no'} {label}: a conditional model needs two classes"
                )
        raise InputError(f"no finished run of {wanted.replace('>', ' or ').replace('|', ', ')}")

    def _mean(self, variant: str, proof: str, number: str) -> float:
        try:
            return float(self._stack(variant, sorted(self.runs[variant]), proof, number).mean())
        except InputError:
            return np.nan

    def _stack(self, variant: str, seeds: Sequence[int], proof: str, number: str) -> np.ndarray:
        """(S, N) where the number is a mean over clips, else (S,)."""
        found = [measure(self.runs[variant][s], proof) for s in seeds]
        if all(number in m.per_clip for m in found) and len({len(m.per_clip[number]) for m in found}) == 1:
            return np.stack([m.per_clip[number] for m in found])
        return np.array([self._known(m.numbers, number) for m in found])

    @staticmethod
    def _known(given: Mapping, name: str) -> float | np.ndarray:
        if name not in given:
            raise InputError(f"{name!r} was not measured: the run or the labels it needs are missing")
        return given[name]

    @staticmethod
    def _hardest(candidates: Sequence[np.ndarray], direction: str) -> int | None:
        """The rival that is hardest to beat: the lowest mean for claims of `below`, else the highest."""
        means = [float(np.mean(c)) for c in candidates]
        if not means or np.isnan(means).all():
            return 0 if means else None
        return int(np.nanargmin(means) if direction == "below" else np.nanargmax(means))
