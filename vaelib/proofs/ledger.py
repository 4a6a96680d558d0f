"""The claims ledger: every claim of the source document as measured rows with interval, null and verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..config import ROOT, InputError
from ..evaluation.claims import Claim, judge
from ..evaluation.stats import MIN_SEEDS
from ..manifest import UNLABELLED
from ..runs import Run
from .clusters import LABELS
from .factors import true_factors
from .registry import measure

CLAIMS = ROOT / "data" / "claims.csv"
COLUMNS = ("id", "claim", "metric", "expected", "run", "proof", "number", "against_run", "against_number", "how",
           "direction", "low", "high", "null", "notebook")  # fmt: skip
ESTIMATED = " (factors: librosa's estimates)"
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


def ledger(
    runs: Sequence[Run],
    extras: Extras | None = None,
    claims: pd.DataFrame | None = None,
    show: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Judge every claim on finished runs.

    What a claim needs and is not there makes it `not tested`, with the reason, and stops nothing.

    Args:
        runs: Runs on one store, any number of seeds.
        extras: Numbers that come from no run: `parameters` (counted: one decides), `speed` (one per round).
        claims: From `read_claims`.
        show: Called with a line of progress.

    Returns:
        One row per part of a claim: `id`, `claim`, `metric`, `expected`, `direction`, `threshold_low`,
        `threshold_high`, `value`, `low`, `high` (95 % interval), `null`, `n` (seeds), `verdict`, `reason`,
        `run` (the variants that were measured), `notebook`.
    """
    claims, found, book = read_claims() if claims is None else claims, [], _Book(runs, extras or {})
    for i, row in enumerate(claims.to_dict("records")):
        show(f"claim {i + 1}/{len(claims)}: {row['id']}")
        spec = Claim(*(row[k] for k in ("id", "claim", "metric", "expected", "how", "direction", "low", "high")))
        line = {
            **{k: row[k] for k in ("id", "claim", "metric", "expected", "direction")},
            "threshold_low": row["low"], "threshold_high": row["high"],
            "value": np.nan, "low": np.nan, "high": np.nan, "null": np.nan, "n": 0,
            "verdict": "not tested", "reason": "", "run": "", "notebook": row["notebook"],
        }  # fmt: skip
        try:
            values, rival, null, line["run"] = book.values(row)
            if row["proof"] == "disentanglement" and book.estimated:
                line["metric"] += ESTIMATED
            interval, line["verdict"] = judge(spec, values, rival, exact=row["proof"] == "parameters")
            line |= {"value": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n, "null": null}
            if line["verdict"] == "not tested":
                line["reason"] = "undefined on this corpus"
            elif interval.n < MIN_SEEDS and line["verdict"] == "inconclusive":
                line["reason"] = f"{interval.n} seed{'s' if interval.n > 1 else ''}: three are needed to decide"
        except InputError as e:
            line["reason"] = str(e)
        found.append(line)
    return pd.DataFrame(found)


class _Book:
    """Runs by variant and seed, and the numbers measured on them."""

    def __init__(self, runs: Sequence[Run], extras: Extras) -> None:
        self.runs: dict[str, dict[int, Run]] = {}
        for run in runs:
            self.runs.setdefault(run.name, {})[run.config.training.seed] = run
        self.store = runs[0].store if runs else None
        self.estimated = bool(runs) and not true_factors(runs[0])
        self.extras = extras

    def values(self, row: dict) -> tuple[np.ndarray, np.ndarray | None, float, str]:
        """Values (S,) or (S, N) of a row, those of its rival, the mean null, and the variants that were read."""
        if row["proof"] in ("parameters", "speed"):
            return self._extra(row)
        subject = self._choose(row["run"], row["proof"], row["number"], row["direction"])
        seeds, rival, used = sorted(self.runs[subject]), None, subject
        if row["how"] != "value":
            seeds, rival, name = self._rival(row, subject, seeds)
            used += f" against {name}" if name != subject else ""
        values = self._stack(subject, seeds, row["proof"], row["number"])
        if rival is not None and values.shape != rival.shape:  # clips on one side only
            values, rival = (v.mean(1) if v.ndim > 1 else v for v in (values, rival))
        null = np.nan
        if row["null"]:
            found = [measure(self.runs[subject][s], row["proof"]) for s in seeds]
            null = float(np.mean([self._known(m.numbers, row["null"]) for m in found]))
        return values, rival, null, used

    def _extra(self, row: dict) -> tuple[np.ndarray, np.ndarray | None, float, str]:
        given = self.extras.get(row["proof"])
        if given is None:
            raise InputError(f"no {row['proof']} was measured")
        rivals = [np.atleast_1d(self._known(given, n)) for n in row["against_number"].split("|") if n]
        best = self._hardest(rivals, row["direction"])
        return np.atleast_1d(self._known(given, row["number"])), None if best is None else rivals[best], np.nan, ""

    def _rival(self, row: dict, subject: str, seeds: list[int]) -> tuple[list[int], np.ndarray, str]:
        """Seeds in common, the values of the rival that is hardest to beat, and its variant.

        Rivals are other variants, other numbers of the same run (`against_number`, which may name another proof as
        `proof > number`), or both.
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
        if "|" not in row["against_run"]:  # one against one: fair only after equally long training
            seeds = self._as_long(subject, variants[0], seeds)
        proof, _, numbers = row["against_number"].rpartition(" > ")
        candidates, names, refused = [], [], []
        for variant in variants:
            for number in (numbers or row["number"]).split("|"):
                try:
                    candidates.append(self._stack(variant, seeds, proof or row["proof"], number))
                    names.append(variant)
                except InputError as e:
                    refused.append(e)
        best = self._hardest(candidates, row["direction"])
        if best is None:
            raise refused[0]
        return seeds, candidates[best], names[best]

    def _as_long(self, subject: str, rival: str, seeds: list[int]) -> list[int]:
        """Seeds for which both were trained for as many epochs."""
        ours, theirs = ([self.runs[v][s].summary["epochs"] for s in seeds] for v in (subject, rival))
        same = [s for s, a, b in zip(seeds, ours, theirs, strict=True) if a == b]
        if not same:
            raise InputError(
                f"{subject} and {rival} were trained for {ours[0]} and {theirs[0]} epochs: train both equally long"
            )
        return same

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
