"""Do 16-bit trainings end where 32-bit ones do? The Conv VAE, the same seeds in both precisions."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from vaelib.config import FrontEnd

PRECISIONS = ("32-true", "bf16-mixed")
METRICS = {"validation_nll": "negative log-likelihood (nats per clip)", "validation_mse": "squared error per bin"}


def compare(
    corpus: Path, fe: FrontEnd, *, seeds: Sequence[int], epochs: int, show: Callable[[str], None] = lambda line: None
) -> dict[str, object]:
    """Train in both precisions, seed by seed, and compare the last epoch's validation metrics."""
    import pandas as pd

    from vaelib.runs import plan
    from vaelib.store import build_store, open_store
    from vaelib.training import train

    from .preprocessing import folders

    rows = []
    with folders():
        store = open_store(build_store(corpus, fe))
        for seed in seeds:
            for precision in PRECISIONS:
                show(f"seed {seed}, {precision}")
                run = train(plan(store, "conv_vae", seed=seed, epochs=epochs, precision=precision), store, show=False)
                last = pd.read_csv(run / "history.csv").iloc[-1]
                rows.append({"precision": precision, "seed": seed} | {m: float(last[m]) for m in METRICS})
    return {"corpus": corpus.name, "profile": fe.name, "epochs": epochs, "runs": rows, "metrics": summary(rows)}


def summary(rows: Sequence[dict]) -> dict[str, dict]:
    """Mean and spread over seeds of every metric in both precisions.

    bf16 counts as equal when the two means are no further apart than two seeds of one precision usually are: their
    standard deviation (the larger of both).
    """
    found = {}
    for metric in METRICS:
        values = {p: [r[metric] for r in rows if r["precision"] == p] for p in PRECISIONS}
        means = {p: statistics.mean(v) for p, v in values.items()}
        spreads = {p: statistics.stdev(v) for p, v in values.items()}
        difference = means["bf16-mixed"] - means["32-true"]
        found[metric] = {
            "mean": means,
            "sd": spreads,
            "difference": difference,
            "within_seed_noise": abs(difference) <= max(spreads.values()),
        }
    return found
