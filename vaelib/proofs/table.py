"""The comparison: the same metrics for every run, and their intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..config import InputError
from ..demo import variation_of
from ..evaluation.stats import bootstrap_interval
from ..models import VaDE
from ..runs import Run, find_runs, newest_of_each
from .registry import measure


def comparison_row(run: Run) -> dict[str, float | str]:
    """Reconstruction, clustering, disentanglement, size and speed of a run, from its proofs.

    Clusters are K-Means with as many clusters as there are classes, fitted on train; for VaDE its own assignments.
    A conditional model is scored against the classes of its condition and encodes without labels (inferred); its
    row with labels given stands beside it in notebook 05. What the corpus cannot tell is nan.
    """
    label = run.config.model.condition or "genre"
    rec, training = measure(run, "reconstruction").numbers, measure(run, "training").numbers
    clusters, factors = _or_nothing(run, "clustering"), _or_nothing(run, "disentanglement")
    mixture = isinstance(run.model, VaDE)
    return {
        "model": run.name,
        "seed": run.config.training.seed,
        "epochs": run.summary["epochs"],
        "mse": rec["MSE per bin"],
        "classes": label,
        "clusters": f"own mixture, {run.config.model.components}" if mixture else "K-Means",
        **{m: clusters.get(f"{label}: {n}", np.nan)
           for m, n in (("ari", "ARI"), ("ami", "AMI"), ("nmi", "NMI"), ("purity", "purity"))},
        "ari_null_p95": clusters.get(f"{label}: ARI with permuted labels, 95th percentile", np.nan),
        "silhouette": clusters.get(f"{label}: silhouette of the classes", np.nan),
        "mig": factors.get("MIG", np.nan),
        "mig_null_p95": factors.get("MIG with permuted factors, 95th percentile", np.nan),
        "live": factors.get("live dimensions", np.nan),
        "parameters": training["parameters"],
        "clips_per_s": training["training clips per second"],
        "seconds_per_epoch": training["seconds per epoch"],
        "train_seconds": run.summary["train_seconds"],
        "run": run.folder.name,
    }  # fmt: skip


def _or_nothing(run: Run, proof: str) -> dict[str, float]:
    try:
        return measure(run, proof).numbers
    except InputError:
        return {}  # the corpus has no labels or no factors for it


def comparison_intervals(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Mean and 95 % interval over seeds of each model and metric: columns model, metric, mean, low, high, seeds."""
    rows = []
    for model, group in table.groupby("model", sort=False):
        for metric in metrics:
            values = group[metric].astype(float).dropna().to_numpy()
            if len(values):
                mean, low, high, n = bootstrap_interval(values)
                rows.append({"model": model, "metric": metric, "mean": mean, "low": low, "high": high, "seeds": n})
    return pd.DataFrame(rows)


def sweep_table(runs: Sequence[Run]) -> pd.DataFrame:
    """β of the Conv network against error and disentanglement, one row per run: what notebook 04 draws.

    Plain runs on the unchanged input only: a Conv VAE is β = 1. Empty where the corpus has no usable factors.
    """
    rows = []
    for run in runs:
        c = run.config
        if c.model.name in ("conv_vae", "beta_vae") and not c.detilt and c.training.target == "same":
            numbers = _or_nothing(run, "disentanglement")
            if not numbers:
                continue
            rows.append({
                "beta": c.training.beta, "seed": c.training.seed, "epochs": run.summary["epochs"],
                "mse": measure(run, "reconstruction").numbers["MSE per bin"], "mig": numbers["MIG"],
                "mig_rotated": numbers["MIG after random rotations, mean"],
                "mig_null": numbers["MIG with permuted factors, 95th percentile"],
                "live": numbers["live dimensions"],
            })  # fmt: skip
    return pd.DataFrame(rows).sort_values(["beta", "seed"], ignore_index=True) if rows else pd.DataFrame()


def difficulty_table(root: Path | str | None = None) -> pd.DataFrame:
    """ARI, AMI and MIG against the demo corpus's `variation`: models, and baselines as further rows.

    From all runs on demo corpora that differ in nothing but variation; where there are several such families of
    corpora, from the one with most values of it. Empty with fewer than two.

    Returns:
        Columns variation, model, seed, ari, ami, mig; nan where a baseline has no such score.
    """
    families: dict[tuple, dict[float, str]] = {}
    for folder in find_runs(root):
        corpus = folder.parent.name
        if recipe := variation_of(corpus):
            families.setdefault(recipe[1], {})[recipe[0]] = corpus
    corpora = max(families.values(), key=len, default={})
    if len(corpora) < 2:
        return pd.DataFrame()
    rows = []
    for variation, corpus in sorted(corpora.items()):
        runs = newest_of_each(root, corpus=corpus)
        for run in runs:
            numbers, factors = _or_nothing(run, "clustering"), _or_nothing(run, "disentanglement")
            head = {"variation": variation, "seed": run.config.training.seed}
            rows.append(head | {
                "model": run.name, "ari": numbers.get("genre: ARI", np.nan), "ami": numbers.get("genre: AMI", np.nan),
                "mig": factors.get("MIG", np.nan),
            })  # fmt: skip
            for name in ("PCA of the log-mel", "MFCC statistics") if run.config.model.name == "conv_vae" else ():
                scores = {m: numbers.get(f"genre: {name} + K-Means, {m.upper()}", np.nan) for m in ("ari", "ami")}
                told = f"{name}, detilt" if run.config.detilt else name
                rows.append(head | {"model": f"{told} + K-Means", "mig": np.nan} | scores)
    # several Conv runs of one seed read the same input: their baselines are one measurement
    table = pd.DataFrame(rows, columns=["variation", "model", "seed", "ari", "ami", "mig"])
    return table.drop_duplicates(["variation", "model", "seed"], ignore_index=True)
