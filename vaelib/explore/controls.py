"""What a view can be asked for: numbers on a grid, names from a list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np
import traitlets

Values = dict[str, float | str]


class PromptSlider(widgets.FloatSlider):
    """ipywidgets' slider without the echo that a kernel sends back before it answers a move: it delays the picture.

    The echo keeps a second browser window on the same kernel in step; there, the picture follows, the handle does not.
    """

    value = traitlets.CFloat(0.0).tag(sync=True, echo_update=False)


@dataclass(frozen=True)
class Slider:
    """A number from `low` to `high` in steps; `kept` of them have a frame in a saved report.

    `value` is where it starts, moved onto the grid (a browser would move it there anyway).
    """

    name: str
    label: str
    low: float
    high: float
    step: float
    value: float
    kept: int = 21

    def snap(self, value: float) -> float:
        """The grid's value nearest to `value`."""
        last = round((self.high - self.low) / self.step)
        at = min(max(round((float(value) - self.low) / self.step), 0), last)
        return round(self.low + self.step * at, 4)

    @property
    def start(self) -> float:
        return self.snap(self.value)

    def positions(self, start: float | None = None) -> list[float]:
        """Values kept for the saved report: evenly spread, both ends and the start among them."""
        spread = np.linspace(self.low, self.high, self.kept)
        return sorted({self.snap(v) for v in [*spread, self.start if start is None else start]})

    def around(self, value: float, most: int) -> tuple[list[float], float]:
        """At most `most` values of the grid, evenly spread and the nearest to `value` first, and their distance."""
        steps = round((self.high - self.low) / self.step)
        stride = self.step * max(1, -(-(steps + 1) // most))
        offsets = np.arange(-(steps * self.step) // stride, steps * self.step / stride + 1) * stride
        inside = self.snap(value) + offsets
        inside = inside[(inside > self.low - self.step / 2) & (inside < self.high + self.step / 2)]
        return [self.snap(v) for v in sorted(inside, key=lambda v: abs(v - value))], stride

    def text(self, value: float) -> str:
        return f"{value:g}" if float(self.step).is_integer() else f"{value:.2f}"

    def widget(self) -> widgets.Widget:
        whole = float(self.step).is_integer()
        return PromptSlider(
            self.start, min=self.low, max=self.high, step=self.step, description=self.label,
            readout_format="d" if whole else ".2f",
        )  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One of several names, starting at `value`.

    `scenes` > 0: what the other controls do depends on it; in a saved report they move for this many of its options.
    """

    name: str
    label: str
    options: tuple[str, ...]
    value: str
    scenes: int = 0

    @property
    def start(self) -> str:
        return self.value

    def positions(self, start: str | None = None) -> list[str]:
        """Options kept for the saved report: all, or the start and others evenly spread."""
        n = len(self.options)
        if not self.scenes or self.scenes >= n:
            return list(self.options)
        first = self.options.index(self.start)
        return [self.options[(first + i * n // self.scenes) % n] for i in range(self.scenes)]

    def text(self, value: str) -> str:
        return value

    def widget(self) -> widgets.Widget:
        return widgets.Dropdown(options=list(self.options), value=self.value, description=self.label)


@dataclass(frozen=True)
class Extra:
    """A button with a sound of its own: function of the values → (wave, rate).

    `moves` names a slider whose positions are shown one after the other while it sounds; `shows` is a function of the
    values → (F, T), a spectrogram that is shown instead.
    """

    label: str
    sound: Callable[[Values], tuple[np.ndarray, int]]
    moves: str = ""
    shows: Callable[[Values], np.ndarray] | None = None
