"""The comparison: the same metrics for every run, their intervals over seeds, and what they are on every rung."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..config import DEFAULT_BETA, InputError, outputs_dir
from ..metrics.statistics import bootstrap_interval
from ..models import VaDE
from ..runs import Run, find_runs, newest_of_each
from .ledger import by_rung
from .registry import measure

SCORES = ("ari", "ami", "nmi", "purity", "silhouette", "mig")  # at most 1, and so are the ends of their intervals


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
        "r2": rec["R² against the mean spectrogram"],
        "classes": label,
        "clusters": f"own mixture, {run.config.model.components}" if mixture else "K-Means",
        **{m: clusters.get(f"{label}: {n}", np.nan)
           for m, n in (("ari", "ARI"), ("ami", "AMI"), ("nmi", "NMI"), ("purity", "purity"))},
        "ari_null_p95": clusters.get(f"{label}: ARI with permuted labels, 95th percentile", np.nan),
        "silhouette": clusters.get(f"{label}: silhouette of the classes", np.nan),
        "mig": factors.get("MIG", np.nan),
        "mig_null_p95": factors.get("MIG with permuted factors, 95th percentile", np.nan),
        "live": int(factors["live dimensions"]) if factors else np.nan,
        "parameters": int(training["parameters"]),
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
                bounds = (0.0 if values.mean() >= 0 else -1.0, 1.0) if metric in SCORES else None
                mean, low, high, n = bootstrap_interval(values, bounds=bounds)
                rows.append({"model": model, "metric": metric, "mean": mean, "low": low, "high": high, "seeds": n})
    return pd.DataFrame(rows)


def sweep_table(runs: Sequence[Run]) -> pd.DataFrame:
    """β of the Conv network against error and disentanglement, one row per run: what notebook 04 draws.

    Plain runs on the unchanged input only, with a learned σ and a random start: a Conv VAE is β = 1. Empty where the
    corpus has no usable factors.
    """
    rows = []
    for run in runs:
        c = run.config
        t = c.training
        plain = not c.detilt and t.target == "same" and not t.sigma and not t.start_components
        if c.model.name in ("conv_vae", "beta_vae") and plain:
            numbers = _or_nothing(run, "disentanglement")
            if not numbers:
                continue
            rows.append({
                "beta": t.beta, "seed": t.seed, "epochs": run.summary["epochs"],
                "mse": measure(run, "reconstruction").numbers["MSE per bin"], "mig": numbers["MIG"],
                "mig_rotated": numbers["MIG after random rotations, 95th percentile"],
                "mig_null": numbers["MIG with permuted factors, 95th percentile"],
                "live": numbers["live dimensions"],
            })  # fmt: skip
    return pd.DataFrame(rows).sort_values(["beta", "seed"], ignore_index=True) if rows else pd.DataFrame()


def main_corpus(root: Path | str | None = None, among: Sequence[Path] | None = None) -> str:
    """Corpus and profile of the newest run, that on the desk left aside if there are others.

    Raises:
        InputError: no run at all.
    """
    corpora = dict.fromkeys(f.parent.name for f in reversed(among or find_runs(root)))
    if not corpora:
        raise InputError(f"no finished run in {root or outputs_dir()}: train one first, e.g. `vaelib train`")
    return next((c for c in corpora if not c.startswith("desk-")), next(iter(corpora)))


def runs_of_rungs(
    root: Path | str | None, corpus: str, among: Sequence[Path] | None = None, epochs: int | None = None
) -> list[Run]:
    """The newest run of every variant and seed on a corpus, and on the newest corpus of every other rung of the ladder.

    Args:
        root: Folder of the runs.
        corpus: The main one, with its profile.
        among: Only these folders, then on every corpus that they have; None for all.
        epochs: Runs on the main corpus of so many epochs only; None: of any number.
    """
    profile, found = corpus.rpartition("-")[2], newest_of_each(root, among=among, corpus=corpus, epochs=epochs)
    rungs = set(by_rung(found))
    others = dict.fromkeys(f.parent.name for f in reversed(among or find_runs(root)))  # the newest first
    for other in others:
        if other == corpus or not other.endswith(f"-{profile}"):
            continue
        runs = newest_of_each(root, among=among, corpus=other)
        # a plan's corpora are all compared, also two of one rung
        if runs and "rung" in runs[0].store.attrs and (among is not None or not rungs & set(by_rung(runs))):
            rungs |= set(by_rung(runs))
            found += runs
    return found


def ladder_table(runs: Sequence[Run]) -> pd.DataFrame:
    """What models and baselines reach on every rung of the ladder.

    Returns:
        One row per rung, model or `baseline` (True), and seed: `rung`, `model`, `seed`, `ari` (clusters against the
        genres; not of a model that is given the languages), `mig`, `r2` (against the mean training spectrogram),
        `samples` (share that the judge hears as the class that was asked for; its chance and what real clips get are
        rows too). nan where there is no such number. The sweep over β is left out.
    """
    rows: dict[tuple, dict] = {}
    for rung, own in by_rung(runs).items():
        for run in own:
            m, t = run.config.model, run.config.training
            if t.beta != DEFAULT_BETA.get(m.name, 1.0):
                continue
            clusters, factors, judged = (_or_nothing(run, p) for p in ("clustering", "disentanglement", "generate"))
            own_name = _told(run, rung)
            if (rung, own_name, t.seed) in rows:  # a second start or σ of a model on the desk
                own_name = run.name
            scores = {
                own_name: {
                    "ari": np.nan if m.condition == "language" else clusters.get("genre: ARI", np.nan),
                    "mig": factors.get("MIG", np.nan),
                    "r2": _or_nothing(run, "reconstruction").get("R² against the mean spectrogram", np.nan),
                    "samples": judged.get("judge on samples", np.nan),
                }
            }
            if m.name == "conv_vae":
                for name in ("PCA of the log-mel", "MFCC statistics", "untrained encoder"):
                    scores[name] = {"ari": clusters.get(f"genre: {name} + K-Means, ARI", np.nan)}
                scores["PCA of the log-mel"]["mig"] = factors.get("MIG of PCA components", np.nan)
                scores["FastICA"] = {"mig": factors.get("MIG of FastICA components", np.nan)}
                scores["mean spectrogram"] = {"r2": 0.0}
            if m.name == "cvae":
                scores[f"real clips, {m.condition}"] = {"samples": judged.get("judge on real test clips", np.nan)}
                scores[f"chance, {m.condition}"] = {"samples": judged.get("chance", np.nan)}
            for model, found in scores.items():  # several runs of one seed have the same baselines
                head = {"rung": rung, "model": model, "baseline": model != own_name, "seed": t.seed}
                rows.setdefault((rung, model, t.seed), head | found)
    return pd.DataFrame(rows.values(), columns=["rung", "model", "baseline", "seed", "ari", "mig", "r2", "samples"])


def _told(run: Run, rung: str) -> str:
    """A variant's name on the ladder: its own; on the desk, where σ is fixed, without σ and with a random start."""
    t = run.config.training
    if rung != "desk" or not t.sigma:
        return run.name
    name = "-".join(p for p in run.name.split("-") if not p.startswith("sigma") and p != "components")
    return name + ("" if t.start_components else ", random start")
