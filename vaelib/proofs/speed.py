"""Training speed of the five models, measured side by side in one process."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from ..bench.race import Contestant, take_turns
from ..bench.training import Variant, contestant, fit_together
from ..collection import UNLABELLED
from ..models import MODELS, build
from ..store import Store
from ..windows import Clips

CLIPS = 1024  # of the store that are used, at most: they lie on the device
SECONDS = 5.0  # of a turn, about: a step of a full-size model takes as long on a processor


def speed(
    store: Store, rounds: int = 3, steps: int = 4, batch_size: int = 32, show: Callable[[str], None] = lambda line: None
) -> dict[str, np.ndarray]:
    """Training speed of every model at its own objective, VaDE in its joint phase; the models take turns.

    It is timed as by the benchmark program: a step is what `Trainer` does in training (forward, loss, backward,
    clipping, AdamW). Turns in one process see the same machine, so ratios hold even where the absolute figures wander
    with other work. On CUDA, and where not all models fit in memory, each model has its turns alone.

    Args:
        store: Its training clips are used; nothing is written.
        rounds: Turns of every model after one to warm up.
        steps: Steps per turn; fewer, but at least one, where they would take longer than `SECONDS`.
        show: Called with a line of progress.

    Returns:
        `<model>: clips per second` and `<model>: seconds per epoch` (of the store's training clips), (rounds,) each.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    epoch = store.rows("train")
    rows = epoch[np.unique(np.linspace(0, len(epoch) - 1, CLIPS).astype(int))]
    clips = Clips.read(store, store.fit_scaler(), rows, device)
    label = next((c for c in ("language", "genre") if len(set(store.table[c]) - {UNLABELLED}) > 1), "")
    codes = torch.from_numpy(store.codes(label, rows)) if label else None
    variants = {
        name: Variant(name, name, len(store.classes(label)) if name == "cvae" else 0, name == "vade")
        for name in MODELS
        if name != "cvae" or label
    }

    def made(variant: Variant) -> Contestant:
        return contestant(variant, clips, min(batch_size, len(clips)), device, y=codes if variant.classes else None)

    def warm_up(one: Contestant) -> None:
        one.run(1)
        started = time.perf_counter()
        one.run(1)
        one.amount = max(1, min(steps, round(SECONDS / (time.perf_counter() - started))))

    makers = {name: lambda v=v: made(v) for name, v in variants.items()}
    with torch.device("meta"):  # counted without their weights
        parameters = [build(v.model_config(store.front_end.shape)).parameter_count() for v in variants.values()]
    groups = [list(makers)] if fit_together(parameters, device) else [[name] for name in makers]
    told = lambda line: show(f"speed, {line}")  # noqa: E731
    windows = take_turns(makers, groups, device, warm_up, rounds, told)
    rates = {name: np.array(found) / variants[name].windows for name, found in windows.items()}
    numbers = {f"{name}: clips per second": rate for name, rate in rates.items()}
    return numbers | {f"{name}: seconds per epoch": len(epoch) / rate for name, rate in rates.items()}
