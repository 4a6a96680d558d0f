"""One live line, clean in a terminal, in JupyterLab and in an executed notebook."""

from __future__ import annotations

import sys
import time
from typing import Any


class Progress:
    """A line that is rewritten in place.

    In a notebook it is one display that is updated, so that an executed notebook keeps only the last state and a batch
    can show it; in a terminal it is rewritten with a carriage return; in a log file only the last state is printed.
    """

    def __init__(self, title: str, total: int = 0, unit: str = "") -> None:
        self.title, self.total, self.unit, self.done, self.started = title, total, unit, 0, time.monotonic()
        self._shown, self._width, self._handle = 0.0, 0, None
        ipython = sys.modules.get("IPython")  # never imported here: a bare GPU host has none
        shell: Any = ipython.get_ipython() if ipython else None
        self._notebook = hasattr(shell, "kernel")
        self._live = self._notebook or sys.stderr.isatty()

    def step(self, n: int = 1) -> None:
        """Count `n` more of the total, and show how long the rest will take."""
        self.done += n
        left = (time.monotonic() - self.started) * (self.total - self.done) / max(self.done, 1)
        self.show(f"{self.done:,}/{self.total:,} {self.unit}, {clock(left)} left")

    def show(self, text: str) -> None:
        """Replace the line, at most five times a second."""
        if self._live and time.monotonic() - self._shown > 0.2:
            self._write(text)

    def close(self, text: str = "") -> None:
        """Leave a last state standing; by default the count and the time that it took."""
        self._write(text or f"{self.done:,} {self.unit} in {clock(time.monotonic() - self.started)}")
        if not self._notebook:
            print(file=sys.stderr, flush=True)

    def _write(self, text: str) -> None:
        self._shown, line = time.monotonic(), f"{self.title}: {text}"
        if not self._notebook:
            print(f"\r{line:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(line)
        elif self._handle is None:
            from IPython.display import display

            self._handle = display({"text/plain": line}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": line}, raw=True)


def clock(seconds: float) -> str:
    """`75` → `1:15 min`; short times in seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
