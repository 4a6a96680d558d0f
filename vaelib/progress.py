"""One line of live progress, clean in a terminal, in JupyterLab and in an executed notebook."""

from __future__ import annotations

import sys
import time
from typing import Any


def _notebook_shell() -> Any | None:
    """The running IPython kernel, or None; never imports IPython (a bare GPU host has none)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if shell is not None and hasattr(shell, "kernel") else None


class Progress:
    """A line that is rewritten in place.

    In a notebook it is one display that is updated, so an executed notebook keeps only the last state; in a
    terminal it is rewritten with a carriage return; in a log file only the last state is printed.

    Args:
        title: What is being done, e.g. `rendering`.
        total: Number of steps, or None if unknown.
        unit: What one step is.
    """

    def __init__(self, title: str, total: int | None = None, unit: str = "it") -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done, self.started, self._shown, self._width = 0, time.monotonic(), 0.0, 0
        self._handle: Any = None
        self._notebook = _notebook_shell() is not None
        self._live = self._notebook or sys.stderr.isatty()

    def step(self, n: int = 1) -> None:
        """Count `n` more steps and show count, rate and time left, at most five times a second."""
        self.done += n
        elapsed = max(time.monotonic() - self.started, 1e-9)
        rate = self.done / elapsed
        left = f", {clock((self.total - self.done) / rate)} left" if self.total and rate else ""
        of = f"/{self.total}" if self.total else ""
        self.show(f"{self.done}{of} {self.unit}, {rate:.1f} {self.unit}/s{left}")

    def show(self, text: str, force: bool = False) -> None:
        """Replace the line."""
        now = time.monotonic()
        if not force and (not self._live or now - self._shown < 0.2):
            return
        self._shown = now
        self._write(f"{self.title}: {text}")

    def close(self, text: str | None = None) -> None:
        """Leave the last state standing."""
        seconds = time.monotonic() - self.started
        self.show(text if text is not None else f"{self.done} {self.unit} in {clock(seconds)}", force=True)
        if not self._notebook:
            print(file=sys.stderr, flush=True)

    def _write(self, line: str) -> None:
        if self._notebook:
            from IPython.display import display

            bundle = {"text/plain": line}
            if self._handle is None:
                self._handle = display(bundle, raw=True, display_id=True)
            else:
                self._handle.update(bundle, raw=True)
        else:
            print(f"\r{line:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = len(line)


def clock(seconds: float) -> str:
    """`75` → `1:15`; short times keep a decimal: `4.2 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"
