"""Training speed of the five models, measured side by side in one process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from ..config import DEFAULT_BETA
from ..corpus import UNLABELLED
from ..models import MODELS, VaDE
from ..runs import plan
from ..store import Store
from ..training import Trainer, init_mixture, weights_at, window_codes


class _Timed(Trainer):
    """A trainer that takes some steps and keeps nothing."""

    def steps(self, n: int) -> float:
        """Train `n` steps as in the last epoch; clips per second."""
        mixture = isinstance(self.model, VaDE)
        if mixture and not bool(self.model.mixture_ready):
            init_mixture(self.model, window_codes(self.model, self._sample(), 1), self.cfg.seed)
        self.module.train()
        weights, done = weights_at(self.cfg, math.inf, mixture), 0
        started = time.monotonic()
        while done < n:
            for x, y in self._batches(mixture):
                self._step_number = done = done + 1
                self._step(x, y, weights, 1.0)
                if done == n:
                    break
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return n * min(self.cfg.batch_size, len(self.data.train)) / (time.monotonic() - started)


def speed(
    store: Store, rounds: int = 5, steps: int = 8, batch_size: int = 32, show: Callable[[str], None] = lambda line: None
) -> dict[str, np.ndarray]:
    """Training speed of every model at its own objective, VaDE in its joint phase; the models take turns.

    A step is what `Trainer` does in training: forward, loss, backward, clipping, AdamW. Turns in one process see
    the same machine, so ratios hold even where the absolute figures wander with other work.

    Args:
        store: Its training clips are used; nothing is written.
        rounds: Turns of every model after one to warm up.
        steps: Steps per turn.
        show: Called with a line of progress.

    Returns:
        `<model>: clips per second` and `<model>: seconds per epoch` (of the store's training clips), (rounds,) each.
    """
    trainers = {}
    for name in MODELS:
        labels = [c for c in ("language", "genre") if len(set(store.table[c]) - {UNLABELLED}) > 1]
        if name == "cvae" and not labels:
            continue
        condition = labels[0] if name == "cvae" else ""
        settings = {"model_settings": {"components": min(50, len(store.rows("train")))}} if name == "vade" else {}
        beta = DEFAULT_BETA.get(name, 1.0)
        config = plan(store, name, condition=condition, epochs=1, batch_size=batch_size, beta=beta, **settings)
        trainers[name] = _Timed(config, store, show=False)
    found: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(rounds + 1):
        for name, trainer in trainers.items():
            rate = trainer.steps(steps)
            if turn:  # the first turn warms up
                found[name].append(rate)
        show(f"speed, round {turn} of {rounds}")
    epoch = len(store.rows("train"))
    numbers = {f"{name}: clips per second": np.array(rates) for name, rates in found.items()}
    return numbers | {f"{name}: seconds per epoch": epoch / np.array(rates) for name, rates in found.items()}
