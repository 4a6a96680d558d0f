"""One row of the comparison: the same metrics for every run."""

from __future__ import annotations

import json

import numpy as np
from sklearn.metrics import adjusted_rand_score

from ..config import InputError, write_atomic
from ..evaluation import clustering as clu
from ..evaluation.reconstruction import mse_per_bin
from ..models import VaDE
from ..runs import Run
from .factors import mig_and_null


def comparison_row(run: Run) -> dict[str, float | str]:
    """Reconstruction, clustering against the genres, disentanglement, size and speed of a run, on test.

    Clusters are K-Means with as many clusters as there are genres, fitted on train; for VaDE its own assignments.
    A conditional model encodes without labels (inferred); its row with labels given stands beside it in notebook
    05. Kept in the run's folder as `metrics.json`.
    """
    path = run.folder / "metrics.json"
    if path.is_file() and path.stat().st_mtime >= (run.folder / "done.json").stat().st_mtime:
        return json.loads(path.read_text())
    label = run.config.model.condition or "genre"
    seed, truth = run.config.training.seed, run.labels("test", label)
    train, test = run.embed("train").means, run.embed("test").means
    classes = len(set(run.labels("train", label)))
    k = min(max(classes, 2), len(train))
    if isinstance(run.model, VaDE):
        found, how = run.responsibilities("test").argmax(1), f"own mixture, {run.config.model.components}"
    else:
        found, how = clu.kmeans_assign(train, test, k, seed), f"K-Means, {k}"
    scores = clu.cluster_scores(truth, found)
    if classes < 2:  # nothing to score against
        scores = dict.fromkeys(scores, np.nan)
    null = clu.permutation_null(adjusted_rand_score, truth, found, n=50)
    try:
        gap, gap_null = mig_and_null(run)
        mig = {"mig": gap.mean, "mig_null_p95": gap_null.p95}
    except InputError:
        mig = {"mig": np.nan, "mig_null_p95": np.nan}  # no factors in this corpus
    row = {
        "model": run.name,
        "seed": seed,
        "epochs": run.summary["epochs"],
        "mse": mse_per_bin(*run.reconstruct("test")),
        "classes": label,
        "clusters": how,
        **{m: scores[m] for m in ("ari", "ami", "nmi", "purity")},
        "ari_null_p95": null.p95,
        "silhouette": clu.geometry_scores(test, truth)["silhouette"],
        **mig,
        "parameters": run.summary["parameters"],
        "clips_per_s": run.summary["clips_per_s"],
        "seconds_per_epoch": run.summary["seconds_per_epoch"],
        "train_seconds": run.summary["train_seconds"],
        "run": run.folder.name,
    }
    write_atomic(path, json.dumps(row, indent=1))
    return row
