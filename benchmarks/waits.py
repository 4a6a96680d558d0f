"""What a person waits for besides arithmetic: what surrounds the cells of a batch, and imports."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import pandas as pd

from vaelib.config import InputError, papermill_dir

IMPORTED = ("torch", "vaelib.cli", "vaelib.store", "vaelib.training", "vaelib.runs", "vaelib.explore")


def batch() -> list[dict]:
    """Seconds of every notebook of the newest batch, and those that no cell took: kernel, page, index."""
    summary = papermill_dir() / "summary.csv"
    table = pd.read_csv(summary) if summary.is_file() else pd.DataFrame(columns=["state"])
    done = table[table["state"] == "done"]
    if done.empty:
        raise InputError(f"no notebook was executed in {papermill_dir()}: run `make demo` first")
    return done[["run", "seconds", "around"]].to_dict("records")


def imports(rounds: int) -> list[list[str]]:
    """Seconds that importing a module takes in a new process, in all; the median of `rounds` after a first one."""
    rows = []
    for name in IMPORTED:
        took = []
        for _ in range(1 + rounds):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True, env=os.environ)
            took.append(time.perf_counter() - started)
        rows.append([f"`{name}`", f"{statistics.median(took[1:]):.1f}"])
    return rows
