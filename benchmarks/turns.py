"""Candidates that take turns, so that whatever else the machine does meets all of them; medians and ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass
class Candidate:
    """Something that works on clips and can be timed.

    Attributes:
        name: What it is called in tables.
        run: Does an amount of work (steps, passes), waits until it is done, and returns the number of clips.
        amount: Work of one round.
    """

    name: str
    run: Callable[[int], int]
    amount: int = 1

    def calibrate(self, seconds: float) -> None:
        """Warm up (compilation, caches), then choose the amount that takes about `seconds`."""
        self.run(5)  # on a GPU the fourth step is recorded
        amount = 1
        while True:
            took = _timed(self.run, amount)[1]
            if took > seconds / 4:
                break
            amount *= 2
        self.amount = max(1, round(amount * seconds / took))


def _timed(run: Callable[[int], int], amount: int) -> tuple[int, float]:
    started = time.perf_counter()
    clips = run(amount)
    return clips, max(time.perf_counter() - started, 1e-9)


def alternate(
    candidates: Sequence[Candidate], rounds: int, show: Callable[[str], None] = lambda line: None
) -> dict[str, list[float]]:
    """Clips per second of every (calibrated) candidate in every round; in a round each has one turn."""
    samples: dict[str, list[float]] = {c.name: [] for c in candidates}
    for i in range(rounds):
        for c in candidates:
            show(f"round {i + 1}/{rounds}: {c.name}")
            clips, seconds = _timed(c.run, c.amount)
            samples[c.name].append(clips / seconds)
    return samples


def build_and_alternate(
    makers: dict[str, Callable[[], Candidate]],
    device: torch.device,
    seconds: float,
    rounds: int,
    show: Callable[[str], None] = lambda line: None,
) -> dict[str, list[float]]:
    """Build candidates, calibrate them to turns of `seconds`, and let them take turns."""
    if device.type == "cuda":
        # models share the code of `forward`: the second would be compiled for the shapes of both, the ninth not at all
        torch._dynamo.reset()
    built = []
    for name, make in makers.items():
        show(f"warming up {name}")
        built.append(make())
        built[-1].calibrate(seconds)
    samples = alternate(built, rounds, show)
    built.clear()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return samples


def figures(samples: Sequence[float]) -> dict[str, float | list[float]]:
    """Median, lowest and highest of the rounds, and all of them."""
    return {
        "clips_per_s": statistics.median(samples),
        "lowest": min(samples),
        "highest": max(samples),
        "samples": list(samples),
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as fast we are: the ratio of the medians, and the spread of the ratios round by round."""
    per_round = [a / b for a, b in zip(ours, theirs, strict=True)]
    whole = statistics.median(ours) / statistics.median(theirs)
    return {"ratio": whole, "lowest": min(per_round), "highest": max(per_round)}
