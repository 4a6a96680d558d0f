"""What notebook 04 learns, in sentences made of its runs' own numbers: what the start does, and what β does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..config import InputError
from ..metrics.statistics import bootstrap_interval
from ..runs import Run
from .factors import axes_verdict, separates
from .registry import Measured, measure


def starts_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Disentanglement of runs on one store beside that of linear components of its windows, which had no training.

    Returns:
        One row per method. `rotated` and `permuted` are the 95th percentiles of MIG under random rotations of the live
        dimensions and under permuted factors; `nats` is the KL of a test window; `one factor` the mean share of a
        dimension's effect that its main factor takes.
    """
    first = measure(runs[0], "disentanglement").numbers
    k = int(first["factors"])
    rows = {f"{n}, {k} components of the windows": {"MIG": first[f"MIG of {n} components"]} for n in ("PCA", "FastICA")}
    for run in runs:
        known, moved = measure(run, "disentanglement").numbers, _moved(run)
        rows[_said(run)] = {
            "MIG": known["MIG"],
            "rotated": known["MIG after random rotations, 95th percentile"],
            "permuted": known["MIG with permuted factors, 95th percentile"],
            "DCI": known["DCI disentanglement"],
            "SAP": known["SAP"],
            "one factor": moved["mean share over the live dimensions"],
            "live": known["live dimensions"],
            "nats": float(run.embed("test").kl.sum()),
            "R²": measure(run, "reconstruction").numbers["R² against the mean spectrogram"],
        }
    return pd.DataFrame(rows).T


def _moved(run: Run) -> dict[str, float]:
    """Numbers of the traversal; nan where no reader reads the factors (few clips)."""
    try:
        return measure(run, "traversal").numbers
    except InputError:
        return dict.fromkeys(("mean share over the live dimensions", "mean share along random directions"), np.nan)


def _said(run: Run) -> str:
    start = "start on components" if run.config.training.start_components else "random start"
    return f"VAE, β = {run.config.training.beta:g}, {start}"


def desk_lessons(runs: Sequence[Run]) -> list[str]:
    """What the desk tells apart: what the start does, what β does, whether sliders are faders.

    Args:
        runs: On the desk, β > 1 first; with the same start and β = 1, and from a random start, as far as trained.
    """
    run, numbers = runs[0], measure(runs[0], "disentanglement").numbers
    drawn = [r for r in runs if not r.config.training.start_components]
    linear = {n: numbers[f"MIG of {n} components"] for n in ("PCA", "FastICA")}
    told = []
    if run.config.training.start_components:
        told.append(
            f"Start: from independent components the codes end at MIG {numbers['MIG']:.2f}; FastICA, a linear method "
            f"without a decoder, has {linear['FastICA']:.2f}, PCA {linear['PCA']:.2f}. "
            + (_start(run, drawn[0]) if drawn else "What training finds from a random start was not tried here.")
        )
    if plain := _same_but_beta(run, runs):
        told.append(_beta(run, plain))
    own, factors = numbers["factors with one dimension of their own"], numbers["factors"]
    moved = _moved(run)
    told.append(
        f"Sliders: {own:.0f} of {factors:.0f} faders have exactly one dimension of their own, and a dimension's main "
        f"fader takes {moved['mean share over the live dimensions']:.0%} of what it moves (random directions: "
        f"{moved['mean share along random directions']:.0%}). {axes_verdict(numbers)}"
    )
    return told


def _start(run: Run, drawn: Run) -> str:
    """What the start of `run` did, against a random one: judged by rotations, then by the difference over clips."""
    a, b = (measure(r, "disentanglement") for r in (run, drawn))
    apart = bootstrap_interval((a.per_clip["MIG"] - b.per_clip["MIG"])[None])
    said = f"From a random start {b.numbers['MIG']:.2f}: "
    if not separates(a.numbers):
        return said + ("only that one separates." if separates(b.numbers) else "neither separates.")
    if not separates(b.numbers):
        return said + "it is the start that separates."
    return said + ("the start separates further." if apart.low > 0 else "the start was not needed.")


def corpus_lessons(run: Run, others: Sequence[Run]) -> list[str]:
    """The same of a corpus where factors act together: are axes more than directions, and what does β change?

    Args:
        others: Among which β = 1 with the same settings is looked for.
    """
    try:
        numbers = measure(run, "disentanglement").numbers
    except InputError as e:
        return [str(e)]
    told = [
        f"{run.store.attrs['corpus']}: MIG {numbers['MIG']:.3f} with {numbers['live dimensions']:.0f} live dimensions. "
        + axes_verdict(numbers)
    ]
    plain = _same_but_beta(run, others)
    told.append(_beta(run, plain) if plain else "No run with β = 1 and these settings was there to compare with.")
    return told


def answer(run: Run, where: str) -> str:
    """The opening question, answered for one run: does each dimension come to stand for one factor?"""
    try:
        numbers = measure(run, "disentanglement").numbers
    except InputError:
        return f"{where}: nobody can say, without factors."
    own, factors = numbers["factors with one dimension of their own"], numbers["factors"]
    above = separates(numbers)
    word = "yes" if above and own == factors else "in part" if above and own else "no"
    return (
        f"{where}: {word}. {own:.0f} of {factors:.0f} factors have one dimension of their own; MIG {numbers['MIG']:.3f}"
        f" is {'above' if above else 'not told apart from'} what random directions of the same space reach "
        f"({numbers['MIG after random rotations, 95th percentile']:.3f})."
    )


def _same_but_beta(run: Run, runs: Sequence[Run]) -> Run | None:
    """The run with β = 1 and the other training settings of `run`, if it is there."""
    wanted = replace(run.config.training, beta=1.0)
    return next((other for other in runs if other.config.training == wanted), None)


def _beta(run: Run, plain: Run) -> str:
    a, b = (measure(r, "disentanglement") for r in (run, plain))
    apart = bootstrap_interval((a.per_clip["MIG"] - b.per_clip["MIG"])[None])
    effect = (
        "which is no difference that these clips could tell"
        if apart.low <= 0 <= apart.high
        else "it separates more" if apart.mean > 0 else "it separates less"
    )  # fmt: skip
    beta = run.config.training.beta
    return (
        f"β = {beta:g} instead of 1: MIG {b.numbers['MIG']:.3f} → {a.numbers['MIG']:.3f} ({apart.mean:+.3f}, 95 % over "
        f"clips {apart.low:+.3f} to {apart.high:+.3f}): {effect}. {_paid(run, plain, a, b)}"
    )


def _paid(run: Run, plain: Run, a: Measured, b: Measured) -> str:
    live = [f"{m.numbers['live dimensions']:.0f}" for m in (b, a)]
    nats = [r.embed("test").kl.sum() for r in (plain, run)]
    r2 = [measure(r, "reconstruction").numbers["R² against the mean spectrogram"] for r in (plain, run)]
    return (
        f"Live dimensions {live[0]} → {live[1]}, {nats[0]:.1f} → {nats[1]:.1f} nats per window, R² {r2[0]:.2f} → "
        f"{r2[1]:.2f}."
    )
