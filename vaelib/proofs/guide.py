"""Which model for what: the source document's advice beside what was measured, and whether it is good enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..config import InputError
from ..metrics.claims import Claim, judge
from ..runs import Run
from .factors import true_factors
from .ledger import ESTIMATED, by_rung
from .registry import measure


def _plain(run: Run) -> bool:
    """Runs on the unchanged input: errors and factors of detilted ones are not comparable."""
    return not run.config.detilt and run.config.training.target == "same"


@dataclass(frozen=True)
class Need:
    """Something a model is wanted for.

    Attributes:
        need, advice: In words; the model that the source document advises.
        proof, number: What tells how well a run serves it; `speed`: side by side, not of a run.
        above: More is better.
        bar: What is good enough: the source document's expectation, or ours where it has none; nan: the best will do.
        serves: Which runs can serve it.
        desk: Measured on the desk, not on the main corpus.
    """

    need: str
    advice: str
    proof: str
    number: str
    above: bool
    bar: float
    serves: Callable[[Run], bool] = lambda run: True
    desk: bool = False


NEEDS = (
    Need("a baseline, soon", "Basic", "speed", "clips per second", True, np.nan),
    Need("reconstructions close to the original", "Conv", "reconstruction", "MSE per bin", False, 0.012, _plain),
    Need("dimensions that stand for the faders of a mix", "Beta", "disentanglement", "MIG", True, 0.3, _plain, True),
    Need("dimensions that stand for musical factors", "Beta", "disentanglement", "MIG", True, 0.3, _plain),
    Need("clusters without any labels", "VaDE", "clustering", "genre: ARI", True, 0.6, lambda r: not r.conditional),
    Need("clusters by genre, labels for training only", "Conditional", "clustering", "genre: ARI", True, 0.5,
         lambda r: r.config.model.condition == "genre"),
    Need("samples of a language you name", "Conditional", "generate", "judge on samples", True, 0.8,
         lambda r: r.config.model.condition == "language"),
    Need("samples of a genre you name", "Conditional", "generate", "judge on samples", True, 0.8,
         lambda r: r.config.model.condition == "genre"),
    Need("a word on how sure a cluster is", "VaDE", "soft_clustering", "expected calibration error", False, 0.1,
         lambda r: r.config.model.name == "vade"),
)  # fmt: skip


def selection_guide(runs: Sequence[Run], corpus: str, speeds: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Choose X if …: for every need the variant that measured best, if it is good enough, and those not told from it.

    Args:
        runs: On the main corpus and, if there is one, on the desk.
        corpus: The main corpus.
        speeds: From `proofs.speed`.

    Returns:
        Columns need, choose (`none is good enough` below the bar), figure (mean and 95 % interval, over seeds or, of
        one seed, over clips), bar, next best, advice (the source document's).
    """
    main = [r for r in runs if r.config.corpus == corpus]
    desk = by_rung(runs).get("desk", [])
    return pd.DataFrame([_advised(need, desk if need.desk else main, speeds) for need in NEEDS])


def _advised(need: Need, runs: Sequence[Run], speeds: Mapping[str, np.ndarray]) -> dict[str, str]:
    turns = need.proof == "speed"
    if turns:
        found = {k.partition(":")[0]: dict(enumerate(v)) for k, v in speeds.items() if k.endswith(need.number)}
    else:
        found = _measured(need, runs)
    bar = "" if np.isnan(need.bar) else f"{'at least' if need.above else 'at most'} {need.bar:g}"
    row = {"need": need.need, "choose": "not tested", "figure": "", "bar": bar, "next best": "", "advice": need.advice}
    means = {name: float(np.mean([np.mean(v) for v in values.values()])) for name, values in found.items()}
    order = sorted(means, key=means.__getitem__, reverse=need.above)
    if not order:
        return row
    best, rest = order[0], order[1:]
    like = [name for name in rest if not _apart(need, found[best], found[name], turns)]
    enough = np.isnan(need.bar) or (means[best] >= need.bar if need.above else means[best] <= need.bar)
    estimated = f" ({ESTIMATED})" if need.proof == "disentanglement" and not true_factors(runs[0]) else ""
    words = f" (not told apart from {', '.join(like)})" if like else ""
    return row | {
        "choose": best + words if enough else f"none is good enough (best: {best})",
        "figure": f"{need.number} {_said(need, found[best])}{estimated}",
        "next best": f"{rest[0]} {_said(need, found[rest[0]])}" if rest else "–",
    }


def _measured(need: Need, runs: Sequence[Run]) -> dict[str, dict[int, np.ndarray]]:
    """Variant → seed → the number, or its values per clip (N,)."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for run in filter(need.serves, runs):
        try:
            measured = measure(run, need.proof)
        except InputError:
            continue
        value = measured.numbers.get(need.number, np.nan)
        if np.isfinite(value):
            values = np.atleast_1d(measured.per_clip.get(need.number, value))
            found.setdefault(run.name, {})[run.config.training.seed] = values
    return found


def _apart(need: Need, best: dict[int, np.ndarray], other: dict[int, np.ndarray], turns: bool) -> bool:
    """Whether two variants differ, paired by the seeds (and clips, or turns) that they share."""
    seeds = sorted(set(best) & set(other))
    if not seeds:
        return False
    a, b = (_table([values[s] for s in seeds]) for values in (best, other))
    if a.shape != b.shape:
        a, b = (v.mean(1) if v.ndim > 1 else v for v in (a, b))
    claim = Claim("", need.need, need.number, "", "difference", "above" if need.above else "below", 0.0, 0.0)
    return judge(claim, a, b, turns=turns)[1].startswith("supported")


def _table(values: Sequence[np.ndarray]) -> np.ndarray:
    """(S,) numbers of seeds, or (S, N) of seeds and clips where all have as many."""
    same = len({np.size(v) for v in values}) == 1 and np.size(values[0]) > 1
    return np.stack(values) if same else np.array([np.mean(v) for v in values])


def _said(need: Need, values: dict[int, np.ndarray]) -> str:
    table, turns = _table(list(values.values())), need.proof == "speed"
    share = need.number not in ("MSE per bin", "clips per second")
    found, _ = judge(Claim("", need.need, need.number, "", "value", "above", 0.0, 0.0, share), table, turns=turns)
    count = f"{found.n} {'turn' if turns else 'seed'}{'s' if found.n > 1 else ''}"
    if np.isnan(found.low):
        return f"{found.mean:.3g} ({count})"
    return f"{found.mean:.3g} [{found.low:.3g}, {found.high:.3g}] ({count})"
