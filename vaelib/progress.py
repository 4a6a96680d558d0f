"""One live line, clean in a terminal, in JupyterLab and in an executed notebook."""

from __future__ import annotations

import sys
import time
from typing import Any


class Progress:
    """A line that is rewritten in place.

    In a notebook it is one display that is updated: an executed notebook keeps only the last state, and a batch can
    show it. In a terminal it is rewritten with a carriage return; in a log file only the last state is printed.
    """

    def __init__(self, title: str) -> None:
        self.title, self.text, self._shown, self._width, self._handle = title, "", 0.0, 0, None
        ipython = sys.modules.get("IPython")  # never imported here: a bare GPU host has none
        shell: Any = ipython.get_ipython() if ipython else None
        self._notebook = hasattr(shell, "kernel")
        self._live = self._notebook or sys.stderr.isatty()

    def show(self, text: str) -> None:
        """Replace the line, at most five times a second."""
        self.text = text
        if self._live and time.monotonic() - self._shown > 0.2:
            self._write()

    def close(self, text: str = "") -> None:
        """Leave a last state standing; by default the one that was shown last."""
        self.text = text or self.text
        self._write()
        if not self._notebook:
            print(file=sys.stderr, flush=True)

    def _write(self) -> None:
        self._shown, line = time.monotonic(), f"{self.title}: {self.text}"
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
