"""The ledger: every claim of the source document, judged by the results that the notebooks kept with their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .claims import read
from .config import ROOT, InputError
from .metrics.statistics import MIN_SEEDS, judge

if TYPE_CHECKING:
    from .runs import Run

CLAIMS = ROOT / "data" / "claims.csv"  # one row per measurable part; CONTRIBUTING.md explains its columns
LADDER = ("desk", "loops", "loops, full range", "loops, cut anywhere", "composed")  # the demo's, from easy to difficult
NO_RUNG = "–"  # of what is counted or timed, on whatever corpus
OF_NO_RUN = ("parameters", "speed")
OUTCOMES = ("supported", "refuted", "inconclusive")


def read_claims() -> pd.DataFrame:
    """The table of claims."""
    return pd.read_csv(CLAIMS, dtype=str, keep_default_na=False).astype({"low": float, "high": float})


def place(rung: str) -> int:
    """Where a rung stands on the ladder; what is not on it comes last."""
    return LADDER.index(rung) if rung in LADDER else len(LADDER)


def by_rung(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the rung of the ladder that their store stands on, in the ladder's order; other corpora follow.

    Two stores of one rung stand on their own, the second under its corpus's name.
    """
    stores: dict[str, list[Run]] = {}
    for run in runs:
        stores.setdefault(run.config.fingerprint, []).append(run)
    found: dict[str, list[Run]] = {}
    for own in stores.values():
        rung = own[0].store.attrs["rung"]
        found[own[0].config.corpus if rung in found else rung] = own
    return dict(sorted(found.items(), key=lambda item: place(item[0])))


def judge_claims(
    runs: Sequence[Run], extras: Mapping[str, float | np.ndarray] | None = None, claims: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Judge every claim on finished runs: on the rung where it is first measured, and on all that are harder.

    What a claim needs and is not among the kept results makes it `not tested`, with the reason, and stops nothing.

    Args:
        runs: Runs on one or several stores, any number of seeds.
        extras: Numbers that come from no run, by id: `parameters.<model>.<front end>` in millions, and
            `speed.<model>.clips_per_s` and `.seconds_per_epoch`, (turns,) each.
        claims: Other rows than those of `read_claims`.

    Returns:
        One row per part of a claim and rung: what the table says of it, `value`, `low`, `high` (95 % interval),
        `baseline` (what a simpler method reaches; of a difference or ratio, what it is to), `null`, `n` (seeds, or
        turns), `verdict`, `reason`, `how_far` (over all rungs), `run` (the variants that were measured).
    """
    rungs = {rung: _Measurements(own, extras or {}) for rung, own in by_rung(runs).items()}
    nothing, found = _Measurements([], extras or {}), []
    for row in (read_claims() if claims is None else claims).to_dict("records"):
        there = {r: m for r, m in rungs.items() if row["rung"] != NO_RUNG and place(r) >= place(row["rung"])}
        lines = [_judged(m, row, r) for r, m in (there or {row["rung"]: nothing}).items()]
        tested = [line for line in lines if line["verdict"] != "not tested"]
        shown = [line for line in lines if line in tested or line["rung"] == row["rung"]] or lines[:1]
        far = how_far({line["rung"]: line["verdict"] for line in shown})
        found += [line | {"how_far": far} for line in shown]
    return pd.DataFrame(found)


def _judged(measurements: _Measurements, row: dict, rung: str) -> dict:
    """A part of a claim on one rung."""
    line = {k: row[k] for k in ("id", "claim", "metric", "expected", "how", "direction", "notebook")} | {"rung": rung}
    line |= {"threshold_low": row["low"], "threshold_high": row["high"], "n": 0, "run": ""}
    line |= dict.fromkeys(("value", "low", "high", "baseline", "null"), np.nan)
    try:
        values, against, more = measurements.of(row)
    except InputError as e:
        return line | {"verdict": "not tested", "reason": str(e)}
    counted, timed = (row["experiment"] == e for e in OF_NO_RUN)
    threshold, share = (row["low"], row["high"]), row["share"] == "yes"
    found, verdict = judge(values, against, row["how"], row["direction"], threshold, share, exact=counted, turns=timed)
    seeds, reason = f"{found.n} seed{'s' if found.n > 1 else ''}", ""
    if verdict == "not tested":
        reason = "undefined on this corpus"
    elif timed:
        reason = f"on this machine, {found.n} turns of a stopwatch"
    elif not counted and found.n < MIN_SEEDS:
        over_clips = f"over clips or units of {seeds}: three decide beyond this run"
        reason = over_clips if values.ndim > 1 else f"{seeds}: three are needed to decide"
    if row["experiment"] == "disentanglement" and measurements.estimated:
        reason = "; ".join(filter(None, ("factors: librosa's estimates", reason)))
    interval = {"value": found.mean, "low": found.low, "high": found.high, "n": found.n}
    return line | interval | {"verdict": verdict, "reason": reason} | more


def how_far(verdicts: Mapping[str, str]) -> str:
    """In one phrase how far up the ladder a part of a claim holds; rung → verdict, in the ladder's order."""
    tested = {rung: v for rung, v in verdicts.items() if v != "not tested"}
    if not tested:
        return "not tested"
    here = " (in this run)" if all("in this run" in v or v == "inconclusive" for v in tested.values()) else ""
    holds, breaks, undecided = ([rung for rung, v in tested.items() if v.startswith(start)] for start in OUTCOMES)
    if not holds and not breaks:
        return "undecided"
    if NO_RUNG in tested:
        return ("holds" if holds else "does not hold") + here
    if not holds and not undecided:
        return "holds nowhere" + here
    parts = [f"{word} on {' and '.join(some)}" for word, some in (("breaks", breaks), ("undecided", undecided)) if some]
    if holds:
        in_a_row = list(tested)[: len(holds)] == holds and len(holds) > 2
        parts.insert(0, f"holds up to {holds[-1]}" if in_a_row else "holds on " + " and ".join(holds))
    return "; ".join(parts) + here


class _Measurements:
    """The results of the runs of one store, by variant and seed, and what a row of the table asks of them."""

    def __init__(self, runs: Sequence[Run], extras: Mapping[str, float | np.ndarray]) -> None:
        self.extras, self.results, self.epochs = extras, {}, {}
        for run in runs:
            self.results.setdefault(run.name, {})[run.config.training.seed] = read(run)
            self.epochs[run.name, run.config.training.seed] = run.summary["epochs"]
        self.table = runs[0].store.table if runs else pd.DataFrame()
        factors = runs[0].store.factors if runs else ()
        self.estimated = not any(self.table[f].notna().all() and self.table[f].nunique() > 1 for f in factors)

    def of(self, row: dict) -> tuple[np.ndarray, np.ndarray | None, dict]:
        """Values (S,) or (S, N) that a row asks for, those they are held against, and `baseline`, `null` and `run`.

        Its `number` may be the best of several, `a|b`. InputError: something is not there.
        """
        if row["experiment"] in OF_NO_RUN:
            values = self._extra(row["number"])
            others = [self._extra(n) for n in row["against_number"].split("|") if n]
            best = others[_hardest(others, row["direction"])] if others else None
            baseline = np.nan if best is None else float(best.mean())
            return values, best, {"baseline": baseline, "null": _known(row["null"])}
        numbers = row["number"].split("|")
        subject = self._choose(row["run"], numbers[0], row)
        seeds, against, variants = sorted(self.results[subject]), None, subject
        if len(numbers) > 1:
            means = {n: self._mean(subject, n, row) for n in numbers}
            numbers = [max((n for n in means if np.isfinite(means[n])), key=means.get, default=numbers[0])]
            variants += f" ({numbers[0]})"
        if row["how"] != "value":
            seeds, against, name = self._against(row, subject, seeds)
            variants += f" against {name}" if name != subject else ""
        values = self._stack(subject, seeds, numbers[0], row)
        if against is not None and values.ndim > against.ndim:  # one number per seed, the same for all of its clips
            against = np.broadcast_to(against[:, None], values.shape)
        elif against is not None and values.shape != against.shape:  # other clips, or those of `against` only
            values, against = (v.mean(1) if v.ndim > 1 else v for v in (values, against))
        more = {"run": variants}
        for name in ("baseline", "null"):
            known = _known(row[name])
            more[name] = float(self._stack(subject, seeds, row[name], row).mean()) if known is None else known
        return values, against, more if against is None else more | {"baseline": float(np.mean(against))}

    def _against(self, row: dict, subject: str, seeds: list[int]) -> tuple[list[int], np.ndarray, str]:
        """Seeds in common, the values that are hardest to beat, and their variant.

        They are those of other variants (`against_run`), other numbers of the same run (`against_number`, which may be
        a multiple, `2 * mig.mean`), or both.
        """
        variants = [subject]
        if row["against_run"]:
            wanted = row["against_run"].replace(">", "|").split("|")
            variants = [v for v in wanted if set(seeds) & set(self.results.get(v, {}))]
            if not variants:
                raise InputError(f"no finished run of {', '.join(wanted)} with a seed of {subject}")
            variants = variants[:1] if ">" in row["against_run"] else variants
        # a variant with fewer seeds must not cost the others theirs
        most = max(len(set(seeds) & set(self.results[v])) for v in variants)
        variants = [v for v in variants if len(set(seeds) & set(self.results[v])) == most]
        seeds = [s for s in seeds if all(s in self.results[v] for v in variants)]
        if not seeds:
            raise InputError(f"{subject} and {', '.join(variants)} have no seed that all of them share")
        if "|" not in row["against_run"]:  # one against one: fair only if the other was trained as long
            other, ours, theirs = variants[0], *(self.epochs[v, seeds[0]] for v in (subject, variants[0]))
            seeds = [s for s in seeds if self.epochs[subject, s] <= self.epochs[other, s]]
            if not seeds:
                asked = f"train {other} as long"
                raise InputError(f"{subject} was trained for {ours} epochs and {other} for {theirs}: {asked}")
        candidates, refused = [], None
        for variant in variants:
            for number in (row["against_number"] or row["number"]).split("|"):
                times, _, number = number.rpartition(" * ")
                try:
                    candidates.append((float(times or 1) * self._stack(variant, seeds, number, row), variant))
                except InputError as e:
                    refused = refused or e
        if not candidates:
            raise refused
        values, name = candidates[_hardest([v for v, _ in candidates], row["direction"])]
        return seeds, values, name

    def _choose(self, wanted: str, number: str, row: dict) -> str:
        """The first variant of `a>b` that is there; of `a|b` the one with the best mean."""
        for group in wanted.split(">"):
            there = [v for v in group.split("|") if v in self.results]
            if there:
                sign = -1 if row["direction"] == "below" else 1
                means = [sign * self._mean(v, number, row) for v in there]
                return there[int(np.argmax(np.nan_to_num(means, nan=-np.inf)))]
        for label in ("genre", "language"):
            if f"cvae-{label}" in wanted and label in self.table and self.table[label].nunique() < 2:
                raise InputError(f"the corpus has fewer than two {label}s: a conditional model needs two classes")
        raise InputError(f"no finished run of {wanted.replace('>', ' or ').replace('|', ', ')}")

    def _mean(self, variant: str, number: str, row: dict) -> float:
        try:
            return float(self._stack(variant, sorted(self.results[variant]), number, row).mean())
        except InputError:
            return np.nan

    def _stack(self, variant: str, seeds: Sequence[int], number: str, row: dict) -> np.ndarray:
        """(S, N) where the number is a mean over clips, else (S,)."""
        found = [self.results[variant][s] for s in seeds]
        for results in found:
            if number not in results.numbers:
                missing = f"{number} of {variant} was not measured: execute notebook {row['notebook']} on this corpus"
                raise InputError(results.skipped.get(row["experiment"], missing))
        if all(number in r.per_clip for r in found) and len({len(r.per_clip[number]) for r in found}) == 1:
            return np.stack([r.per_clip[number] for r in found])
        return np.array([r.numbers[number] for r in found])

    def _extra(self, name: str) -> np.ndarray:
        if name not in self.extras:
            raise InputError(f"{name} was not measured")
        return np.atleast_1d(self.extras[name])


def _known(text: str) -> float | None:
    """A baseline or null that needs no run: a number, or nan where there can be none (`– why`); None: a result's id."""
    if not text or text.startswith("–"):
        return np.nan
    return float(text) if text.replace(".", "", 1).isdigit() else None


def _hardest(candidates: Sequence[np.ndarray], direction: str) -> int:
    """The one that is hardest to beat: the lowest mean for claims of `below`, else the highest."""
    means = np.array([float(np.mean(c)) for c in candidates])
    worst = np.inf if direction == "below" else -np.inf
    means = np.where(np.isnan(means), worst, means)
    return int(means.argmin() if direction == "below" else means.argmax())
