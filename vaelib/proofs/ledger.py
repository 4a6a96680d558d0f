"""The claims ledger: every claim of the source document as measured rows with interval, null and verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..config import ROOT, InputError
from ..evaluation.claims import Claim, judge
from ..runs import Run
from .registry import Measured, measure

CLAIMS = ROOT / "data" / "claims.csv"
Extras = Mapping[str, Mapping[str, float | np.ndarray]]


def read_claims(path: Path = CLAIMS) -> pd.DataFrame:
    """The table of claims; its columns are explained in `data/README.md`.

    Raises:
        InputError: a column is missing.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = {"id", "claim", "metric", "expected", "run", "proof", "number", "how", "low", "high"} - set(table)
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
            subject, values, rival, null, line["run"] = book.values(row)
            interval, line["verdict"] = judge(spec, values, rival, exact=row["proof"] == "parameters")
            line |= {"value": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n, "null": null}
            if line["verdict"] == "not tested":
                line["reason"] = "undefined on this corpus"
            elif interval.n < 3 and line["verdict"] == "inconclusive":
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
        self.extras = extras

    def values(self, row: dict) -> tuple[str, np.ndarray, np.ndarray | None, float, str]:
        """Subject, its values (S,) or (S, N), the rival's, the mean null, and the variants that were read."""
        proof, number = row["proof"], row["number"]
        if proof in ("parameters", "speed"):
            given = self.extras.get(proof)
            if given is None:
                raise InputError(f"no {proof} were measured")
            values = np.atleast_1d(np.asarray(self._known(given, number), dtype=float))
            names = row["against_number"].split("|") if row["against_number"] else []
            rivals = [np.atleast_1d(np.asarray(self._known(given, n), dtype=float)) for n in names]
            return "", values, self._best(rivals, row["direction"]), np.nan, ""
        subject = self._choose(row["run"], proof, number, row["direction"])
        seeds, rival, used = sorted(self.runs[subject]), None, subject
        if row["how"] != "value":
            rival_proof, _, rival_number = row["against_number"].rpartition(" > ")
            rival_proof, names = rival_proof or proof, (rival_number or number).split("|")
            others = [v for v in row["against_run"].replace(">", "|").split("|") if v and v in self.runs]
            if ">" in row["against_run"]:
                others = others[:1]
            if row["against_run"] and not others:
                raise InputError(f"no finished run of {row['against_run'].replace('|', ', ')} to compare with")
            seeds = [s for s in seeds if not others or any(s in self.runs[v] for v in others)]
            others = [v for v in others if set(seeds) <= set(self.runs[v])] or others
            seeds = [s for s in seeds if all(s in self.runs[v] for v in others)]
            if not seeds:
                raise InputError(f"{subject} and {', '.join(others)} have no seed in common")
            candidates, told = [], []
            for v in others or [subject]:
                for name in names:
                    try:
                        candidates.append(self._stack(v, seeds, rival_proof, name))
                        told.append(v)
                    except InputError:
                        if len(others or [subject]) * len(names) == 1:
                            raise
            if not candidates:
                raise InputError(f"none of {', '.join(names)} was measured")
            rival = self._best(candidates, row["direction"])
            if others:
                used += f" against {told[next(i for i, c in enumerate(candidates) if c is rival)]}"
        values = self._stack(subject, seeds, proof, number)
        if rival is not None and values.shape != rival.shape:
            values, rival = (v.mean(1) if v.ndim > 1 else v for v in (values, rival))
        null = np.nan
        if row["null"]:
            null = float(np.mean([self._number(measure(self.runs[subject][s], proof), row["null"]) for s in seeds]))
        return subject, values, rival, null, used

    def _choose(self, wanted: str, proof: str, number: str, direction: str) -> str:
        """The first variant of `a>b` that is there; of `a|b` the one with the best mean."""
        for group in wanted.split(">"):
            there = [v for v in group.split("|") if v in self.runs]
            if len(there) > 1:
                means = [self._stack(v, sorted(self.runs[v]), proof, number).mean() for v in there]
                return there[int(np.argmin(means) if direction == "below" else np.argmax(means))]
            if there:
                return there[0]
        raise InputError(f"no finished run of {wanted.replace('>', ' or ').replace('|', ', ')}")

    def _stack(self, variant: str, seeds: Sequence[int], proof: str, number: str) -> np.ndarray:
        """(S, N) where the number is a mean over clips, else (S,)."""
        found = [measure(self.runs[variant][s], proof) for s in seeds]
        if all(number in m.per_clip for m in found) and len({len(m.per_clip[number]) for m in found}) == 1:
            return np.stack([m.per_clip[number] for m in found])
        return np.array([self._number(m, number) for m in found])

    @staticmethod
    def _number(found: Measured, name: str) -> float:
        if name not in found.numbers:
            raise InputError(f"{name!r} was not measured: its partner run or its labels are missing")
        return found.numbers[name]

    @staticmethod
    def _known(given: Mapping, name: str) -> float | np.ndarray:
        if name not in given:
            raise InputError(f"{name!r} was not measured")
        return given[name]

    @staticmethod
    def _best(candidates: Sequence[np.ndarray], direction: str) -> np.ndarray | None:
        """The rival that is hardest to beat: the highest mean for claims of `above`, the lowest for `below`."""
        if not candidates:
            return None
        means = [float(np.mean(c)) for c in candidates]
        return candidates[int(np.argmin(means) if direction == "below" else np.argmax(means))]
