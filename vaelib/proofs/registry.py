"""The proofs by name, and the numbers of a run: read from its folder if they are current, else measured and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from ..config import InputError, one_of
from ..runs import Run
from .clusters import clustering, hierarchy
from .factors import disentanglement, traversal
from .filters import filters
from .networks import reconstruction, smoothness
from .proof import NotTested, Proof, code_version

CONVOLUTIONAL = ("conv_vae", "beta_vae", "cvae", "vade")

# name on the command line → function, the models it speaks about (the first is the default)
PROOFS: dict[str, tuple[Callable[..., Proof], tuple[str, ...]]] = {
    "smoothness": (smoothness, ("basic_vae", *CONVOLUTIONAL)),
    "filters": (filters, CONVOLUTIONAL),
    "reconstruction": (reconstruction, ("conv_vae", "basic_vae", "beta_vae", "cvae", "vade")),
    "disentanglement": (disentanglement, ("beta_vae", "conv_vae", "basic_vae", "cvae", "vade")),
    "traversal": (traversal, ("beta_vae", "conv_vae", "basic_vae", "vade")),
    "clustering": (clustering, ("conv_vae", "basic_vae", "beta_vae", "cvae", "vade")),
    "hierarchy": (hierarchy, ("conv_vae", "basic_vae", "beta_vae", "cvae", "vade")),
}


class Measured(NamedTuple):
    """Numbers by name, and for those of test clips the values whose mean they are, (N,) (`Proof.per_clip`)."""

    numbers: dict[str, float]
    per_clip: dict[str, np.ndarray]


def measure(run: Run, name: str) -> Measured:
    """The numbers of a proof on a run; `training` stands for size and speed.

    What a notebook or `vaelib test` has measured with the same code is read from the run's folder.

    Raises:
        InputError: unknown proof, or one that this run cannot have.
    """
    if name == "training":
        return Measured(_training(run), {})
    function, models = PROOFS[one_of("proof", name, PROOFS)]
    one_of(f"model of proof {name!r}", run.config.model.name, models)
    path = run.folder / "figures" / f"{name}.json"
    kept = _read(path)
    if kept is None or kept["code"] != code_version():
        proof = function(run)
        proof.save(path.parent)
        plt.close(proof.figure)
        kept = _read(path)
    return Measured(kept["numbers"], {k: np.asarray(v) for k, v in kept["per_clip"].items()})


def attempt(function: Callable[..., Proof], run: Run, *how: object, **also: object) -> Proof | NotTested:
    """A proof, saved with its run; or why this corpus cannot have it.

    For notebooks, which must go on where labels or factors are missing.

    Args:
        how, also: Further arguments of the proof.
    """
    try:
        proof = function(run, *how, **also)
    except InputError as e:
        return NotTested(function.__name__, run.name, str(e))
    proof.save(run.folder / "figures")
    return proof


def _read(path: Path) -> dict | None:
    try:
        kept = json.loads(path.read_text())
        whole = isinstance(kept, dict) and {"code", "partners", "numbers", "per_clip"} <= set(kept)
        return kept if whole else None
    except (OSError, ValueError):
        return None  # never measured, or half of a copied folder


def _training(run: Run) -> dict[str, float]:
    """Speed and size of a finished run; the seconds of a VaDE epoch are those of its joint phase."""
    table = run.history
    joint = table[table["phase"] == "joint"] if (table["phase"] == "joint").any() else table
    return {
        "training clips per second": run.summary["clips_per_s"],
        "seconds per epoch": float(joint["seconds"].median()),
        "epochs": float(run.summary["epochs"]),
        "parameters": float(run.summary["parameters"]),
    }
