"""Which model for what: the source document's advice beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ..config import InputError
from ..evaluation.stats import MIN_SEEDS, Interval, bootstrap_interval
from ..runs import Run
from .factors import true_factors
from .ledger import ESTIMATED
from .registry import measure

# need, advice of the source document, proof, number, whether more is better, which runs can serve it
Need = tuple[str, str, str, str, bool, Callable[[Run], bool]]


def _plain(run: Run) -> bool:
    """Runs on the unchanged input: errors and factors of detilted ones are not comparable."""
    return not run.config.detilt and run.config.training.target == "same"


NEEDS: tuple[Need, ...] = (
    ("a baseline, soon", "Basic", "training", "training clips per second", True, lambda r: True),
    ("reconstructions close to the original", "Conv", "reconstruction", "MSE per bin", False, _plain),
    ("dimensions that stand for musical factors", "Beta", "disentanglement", "MIG", True, _plain),
    ("clusters without any labels", "VaDE", "clustering", "genre: AMI", True, lambda r: not r.conditional),
    ("clusters by genre, labels for training only", "Conditional", "clustering", "genre: AMI", True,
     lambda r: r.config.model.condition == "genre"),
    ("samples of a language you name", "Conditional", "generate", "judge on samples", True,
     lambda r: r.config.model.condition == "language"),
    ("samples of a genre you name", "Conditional", "generate", "judge on samples", True,
     lambda r: r.config.model.condition == "genre"),
    ("a word on how sure a cluster is", "VaDE", "soft_clustering", "expected calibration error", False,
     lambda r: r.config.model.name == "vade"),
)  # fmt: skip


def selection_guide(runs: Sequence[Run]) -> pd.DataFrame:
    """Choose X if …: for every need the variant that measured best, its figure and the next best one's.

    Returns:
        Columns need, choose, figure (mean over seeds and 95 % interval), next best, advice (the source document's).
        `choose` names both where the intervals overlap or rest on fewer than three seeds.
    """
    rows, estimated = [], ESTIMATED if runs and not true_factors(runs[0]) else ""
    for need, advice, proof, number, more, serves in NEEDS:
        found = {}
        for run in runs:
            if not serves(run):
                continue
            try:
                value = measure(run, proof).numbers.get(number, np.nan)
            except InputError:
                continue
            if np.isfinite(value):
                found.setdefault(run.name, []).append(value)
        intervals = {name: bootstrap_interval(np.array(v)) for name, v in found.items()}
        order = sorted(intervals, key=lambda n: intervals[n].mean, reverse=more)
        if not order:
            rows.append({"need": need, "choose": "not tested", "figure": "", "next best": "", "advice": advice})
            continue
        best, rest = order[0], order[1:]
        unclear = rest and not _apart(intervals[best], intervals[rest[0]])
        rows.append({
            "need": need,
            "choose": f"{best} (not told apart from {rest[0]})" if unclear else best,
            "figure": f"{number} {_said(intervals[best])}{estimated if proof == 'disentanglement' else ''}",
            "next best": f"{rest[0]} {_said(intervals[rest[0]])}" if rest else "–",
            "advice": advice,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _apart(a: Interval, b: Interval) -> bool:
    return min(a.n, b.n) >= MIN_SEEDS and (a.low > b.high or b.low > a.high)


def _said(value: Interval) -> str:
    if value.n < MIN_SEEDS:
        return f"{value.mean:.3g} ({value.n} seed{'s' if value.n > 1 else ''})"
    return f"{value.mean:.3g} [{value.low:.3g}, {value.high:.3g}]"
