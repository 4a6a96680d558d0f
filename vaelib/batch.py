"""Notebooks executed by papermill: parameters checked first, unfinished files never look finished, runs resumed."""

from __future__ import annotations

import ast
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import papermill as pm
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from traitlets.config import Config

from .config import ROOT, InputError, digest, one_of, outputs_dir, papermill_dir
from .progress import clock
from .runs import find_runs
from .store import fingerprint_of, open_store

NOTEBOOKS = ROOT / "notebooks"
MODEL_NOTEBOOKS = {
    "basic_vae": "02_basic_vae",
    "conv_vae": "03_conv_vae",
    "beta_vae": "04_beta_vae",
    "cvae": "05_conditional_vae",
    "vade": "06_vade",
}


class NotebookFailedError(RuntimeError):
    """A notebook stopped with an error; the message names it, the error and the kept file."""


@dataclass(frozen=True)
class Job:
    """One notebook with parameters.

    Attributes:
        notebook: Name without suffix, e.g. `03_conv_vae`.
        parameters: Values for its parameters cell.
        label: Added to the name of the executed notebook, e.g. `language`.
    """

    notebook: str
    parameters: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def source(self) -> Path:
        return NOTEBOOKS / f"{self.notebook}.ipynb"

    @property
    def name(self) -> str:
        """Readable and unique: notebook, label, and a hash of parameters, store, notebook and library code."""
        code = [p.read_text() for p in sorted((ROOT / "vaelib").rglob("*.py"))]
        cells = [c.source for c in nbformat.read(self.source, 4).cells]
        parts = [self.notebook, *([self.label] if self.label else [])]
        data = [self.parameters, fingerprint_of(self.parameters.get("store", "")), str(outputs_dir())]
        return "-".join([*parts, digest([data, cells, code])])

    def left_its_run(self) -> bool:
        """Whether the training run that this notebook leaves is (still) in the outputs; true for other notebooks."""
        model = {v: k for k, v in MODEL_NOTEBOOKS.items()}.get(self.notebook)
        if model is None or "store" not in self.parameters:
            return True
        wanted = {k: self.parameters.get(k) for k in ("condition", "seed", "epochs")}
        return bool(find_runs(model=model, fingerprint=fingerprint_of(self.parameters["store"]), **wanted))


def defaults(notebook: str) -> dict[str, Any]:
    """Names and default values in a notebook's parameters cell.

    Raises:
        InputError: no such notebook.
    """
    one_of("notebook", notebook, sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb")))
    found = pm.inspect_notebook(str(NOTEBOOKS / f"{notebook}.ipynb"))
    return {name: ast.literal_eval(p["default"]) for name, p in found.items()}


def checked(notebook: str, given: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the types of their defaults; strings from a command line are converted.

    Raises:
        InputError: an unknown name (with the nearest valid one) or a value of another type.
    """
    known = defaults(notebook)
    values = {}
    for name, value in given.items():
        default = known[one_of(f"parameter of notebook {notebook}", name, known)]
        values[name] = _as_type_of(default, value, f"parameter {name!r} of notebook {notebook}")
    return values


def _as_type_of(default: Any, value: Any, what: str) -> Any:
    kind = type(default)
    try:
        if kind is bool and isinstance(value, str):
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        if kind is int and isinstance(value, float) and value != int(value):
            raise ValueError
        if kind in (list, tuple) and isinstance(value, str):
            return [v for v in value.split(",") if v]
        if isinstance(value, bool) and kind is not bool:
            raise ValueError
        return kind(value) if kind in (bool, int, float, str) else value
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{what} is {value!r}, but it must be of type {kind.__name__}, like its default {default!r}"
        ) from None


class _LiveClient(PapermillNotebookClient):
    """Passes the live lines of a running notebook (updated displays) on to a callback."""

    show: Any = None

    def process_message(self, msg: dict, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in ("display_data", "update_display_data") and self.show:
            content = msg["content"]
            line = content.get("data", {}).get("text/plain", "")
            if content.get("transient", {}).get("display_id") and "\n" not in line:
                self.show(line)
        return super().process_message(msg, cell, cell_index)


class LiveEngine(NBClientEngine):
    """papermill's engine, with the notebook's own progress line shown in the terminal."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, show=None, start_timeout=120, **kwargs):
        """Execute all cells; `show` is called with every progress line."""
        with tempfile.TemporaryDirectory(prefix="vaelib-") as folder:  # sockets that only this user can reach
            sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/k"}})
            client = _LiveClient(
                nb_man, kernel_name=kernel_name, startup_timeout=start_timeout, timeout=None, config=sockets
            )
            client.show = show
            with open(f"{folder}/kernel.log", "wb") as log:  # kernels grumble on their way out
                return client.execute(stderr=log)


pm.engines.papermill_engines.register("vaelib", LiveEngine)


class Terminal:
    """The state of running notebooks on one line of the terminal; finished ones stay above it."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}
        self.live, self.width, self.shown = sys.stderr.isatty(), 0, 0.0

    def update(self, name: str, line: str) -> None:
        """A running notebook says something new."""
        self.lines[name] = line
        if self.live and time.monotonic() - self.shown > 0.2:
            self.shown = time.monotonic()
            text = "  |  ".join(self.lines.values())[: os.get_terminal_size(2).columns - 1]
            print(f"\r{text:<{self.width}}", end="", file=sys.stderr, flush=True)
            self.width = len(text)

    def finish(self, name: str, line: str) -> None:
        """A notebook is over: its line stays."""
        self.lines.pop(name, None)
        print((f"\r{'':<{self.width}}\r" if self.live else "") + line, file=sys.stderr, flush=True)


def execute(job: Job, terminal: Terminal | None = None, again: bool = False) -> Path:
    """Execute one notebook; one that is already executed with these parameters and this code is not repeated.

    While it runs the file is called `….partial.ipynb`, after an error `….failed.ipynb`: neither looks finished.

    Args:
        again: Execute in any case.

    Returns:
        The executed notebook in `papermill_runs/`; its HTML report lies beside it.

    Raises:
        InputError: unknown notebook or parameters, or input that the notebook refused.
        NotebookFailedError: a cell raised.
    """
    from .reports import write_html

    terminal = terminal or Terminal()
    values = checked(job.notebook, job.parameters)
    final = papermill_dir() / f"{job.name}.ipynb"
    final.parent.mkdir(parents=True, exist_ok=True)
    shown = "-".join([job.notebook, *([job.label] if job.label else [])])
    if final.is_file() and job.left_its_run() and not again:
        terminal.finish(shown, f"{shown}: already done, {final.name}")
        return final
    partial, failed = final.with_suffix(".partial.ipynb"), final.with_suffix(".failed.ipynb")
    started = time.monotonic()
    terminal.update(shown, f"{shown}: starting")
    try:
        pm.execute_notebook(
            str(job.source), str(partial), values, engine_name="vaelib", kernel_name="python3", progress_bar=False,
            cwd=str(NOTEBOOKS), show=lambda line: terminal.update(shown, f"{shown}: {line}"),
        )  # fmt: skip
    except pm.PapermillExecutionError as e:
        if e.ename in ("InputError", "UnreadableAudio"):  # not a failure of the notebook: nothing is left of it
            partial.unlink(missing_ok=True)
            terminal.finish(shown, f"{shown}: refused")
            raise InputError(e.evalue) from e
        partial.replace(failed)
        terminal.finish(shown, f"{shown}: FAILED after {clock(time.monotonic() - started)}")
        raise NotebookFailedError(f"{job.notebook} failed: {e.ename}: {e.evalue}; see {failed}") from e
    except Exception as e:  # a dead kernel leaves a notebook that looks executed
        if partial.exists():
            partial.replace(failed)
        terminal.finish(shown, f"{shown}: FAILED after {clock(time.monotonic() - started)}")
        raise NotebookFailedError(f"{job.notebook} failed: {e}; what was executed is in {failed}") from e
    failed.unlink(missing_ok=True)
    write_html(partial, final.with_suffix(".html"), title=shown)
    partial.replace(final)
    terminal.finish(shown, f"{shown}: done in {clock(time.monotonic() - started)}, {final.name}")
    return final


def execute_all(jobs: Sequence[Job], workers: int | None = None) -> list[Path]:
    """Execute independent notebooks, several at a time, the cores shared out among their kernels.

    Two kernels with one thread each train about a quarter more clips per second on two cores than one kernel with
    two threads, and the serial parts of one overlap with the training of the other.

    Args:
        workers: Notebooks at a time; default: one per core, at most four, one where there is a GPU.

    Returns:
        Executed notebooks, in the order of `jobs`.

    Raises:
        InputError: some job's parameters are wrong (before anything runs).
        NotebookFailedError: some failed; the others were finished first.
    """
    import torch

    for job in jobs:
        checked(job.notebook, job.parameters)
    cores = len(os.sched_getaffinity(0))
    workers = workers or (1 if torch.cuda.is_available() else max(1, min(cores, 4, len(jobs))))
    terminal = Terminal()
    errors: list[Exception] = []

    def one(job: Job) -> Path | None:
        try:
            return execute(job, terminal)
        except Exception as e:
            errors.append(e)
            return None

    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // workers))
    try:
        with ThreadPoolExecutor(workers) as pool:
            done = list(pool.map(one, jobs))
    except KeyboardInterrupt:
        print("\ninterrupted: finished runs and checkpoints are kept, the same command continues", file=sys.stderr)
        os._exit(130)  # the kernels notice that their parent is gone; waiting for them would take minutes
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    if errors:
        kind = InputError if all(isinstance(e, InputError) for e in errors) else NotebookFailedError
        raise kind(" | ".join(dict.fromkeys(str(e) for e in errors)))
    return [path for path in done if path]


def training_jobs(store: Path, epochs: int, seed: int = 0, **more: Any) -> list[Job]:
    """The five models of a store, Conditional twice (a label with fewer than two classes is left out).

    In an order that keeps two workers busy to the end and lets every notebook find the runs it compares with: Basic
    before Conv, Conv before VaDE.
    """
    common = {"store": str(store), "epochs": epochs, "seed": seed} | more

    def job(model: str, **extra: str) -> Job:
        return Job(MODEL_NOTEBOOKS[model], common | extra, "-".join(extra.values()))

    table = open_store(store).table
    cvae = []
    for label in ("language", "genre"):
        if table[label].nunique() < 2:
            print(f"Conditional VAE by {label} left out: {store.name} has fewer than two of them", file=sys.stderr)
        else:
            cvae.append(job("cvae", condition=label))
    return [job("basic_vae"), *cvae[:1], job("conv_vae"), *cvae[1:], job("vade"), job("beta_vae")]
