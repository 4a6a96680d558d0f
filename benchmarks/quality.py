"""Do 16-bit trainings end where 32-bit ones do? The Conv VAE, the same seeds in both precisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vaelib.config import FrontEnd, InputError

PRECISIONS = ("32-true", "bf16-mixed")
METRICS = {"validation_nll": "negative log-likelihood (nats per clip)", "validation_mse": "squared error per bin"}


def compare(
    corpus: Path,
    fe: FrontEnd,
    *,
    epochs: int,
    seeds: Sequence[int] = (0, 1, 2),
    show: Callable[[str], None] = lambda line: None,
) -> dict:
    """Train in both precisions, seed by seed; mean and deviation over seeds of the last epoch's validation metrics.

    bf16 counts as equal when the two means are no further apart than two seeds of one precision usually are: their
    standard deviation (the larger of both).
    """
    import pandas as pd

    from vaelib.runs import plan
    from vaelib.store import build_store, open_store
    from vaelib.training import train

    from .preprocessing import folders

    rows = []
    with folders():
        store = open_store(build_store(corpus, fe))
        if not len(store.rows("validation")):
            raise InputError(f"{corpus.name} is too small for a validation split: give more --clips")
        for seed in seeds:
            for precision in PRECISIONS:
                show(f"seed {seed}, {precision}")
                run = train(plan(store, "conv_vae", seed=seed, epochs=epochs, precision=precision), store, show=False)
                last = pd.read_csv(run / "history.csv").iloc[-1]
                rows.append({"precision": precision, "seed": seed} | {m: float(last[m]) for m in METRICS})
    groups, found = pd.DataFrame(rows).groupby("precision"), {}
    for metric in METRICS:
        mean, sd = groups[metric].mean().to_dict(), groups[metric].std().to_dict()
        difference = mean["bf16-mixed"] - mean["32-true"]
        equal = bool(abs(difference) <= max(sd.values()))
        found[metric] = {"mean": mean, "sd": sd, "difference": difference, "within_seed_noise": equal}
    return {"corpus": corpus.name, "profile": fe.name, "epochs": epochs, "runs": rows, "metrics": found}
