"""The measurements that every model's notebook takes of its run, so that notebook 07 can compare them."""

from __future__ import annotations

import numpy as np

from . import claims
from .config import InputError
from .factors import LIVE_KL, codes_of, factors_of, live_dimensions
from .metrics.disentanglement import coarse, component_codes, disentanglement_scores
from .runs import Run


def disentanglement(run: Run) -> claims.Results:
    """MIG, SAP and DCI of a run with their nulls and linear baselines, kept; written out in notebook 04.

    Without factors, and without audio to measure descriptors in, the reason is kept instead.
    """
    try:
        factors = factors_of(run)
    except InputError as e:
        claims.skip(run, "disentanglement", str(e))
        return claims.Results(skipped={"disentanglement": str(e)})
    train, test = (np.isin(factors.rows, run.rows(split)) for split in ("train", "test"))
    windows, seed = coarse(run.middle_windows(factors.rows)), run.config.training.seed
    pca, ica = component_codes(windows[train], windows, len(factors.values), seed)
    others = {"pca": pca, "ica": ica, "samples": codes_of(run, factors.rows, sampled=True)}
    numbers, per_clip = disentanglement_scores(
        codes_of(run, factors.rows), factors.values, live_dimensions(run), train, test, others, seed
    )
    numbers["live.count"] = float((run.embed("test").kl > LIVE_KL).sum())
    return claims.keep(run, "disentanglement", numbers, per_clip)
