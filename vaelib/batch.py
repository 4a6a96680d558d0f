"""Notebooks executed by papermill: parameters checked first, unfinished files never look finished, runs resumed."""

from __future__ import annotations

import ast
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import papermill as pm
from nbconvert.filters import strip_ansi
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from traitlets.config import Config

from . import shelf
from .config import ROOT, InputError, digest, one_of, outputs_dir, papermill_dir, write_atomic
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
# For the time left: cost of an epoch (Conv VAE = 1; 05 trains two models, VaDE half as long again) and of the proofs.
COST, PROOFS_COST = {"02_basic_vae": 0.2, "05_conditional_vae": 2.0, "06_vade": 1.5}, 5
# What tells one trained run from another; `vaelib.runs.find_runs` knows these names.
TELLING = ("condition", "seed", "epochs", "detilt", "beta", "target")


FAILURES = ("failed", "refused")


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
    def words(self) -> list[str]:
        """The settings of a training as one says them: `language`, `60 epochs`, `detilt`, `seed 2`."""
        said = []
        for name, value in sorted(self.parameters.items(), key=lambda p: (not isinstance(p[1], str), p[0] == "seed")):
            if name == "epochs":
                said.append(f"{value} epochs")
            elif name != "store" and value is not False:
                said.append(name if value is True else value if isinstance(value, str) else f"{name} {value:g}")
        return said

    @property
    def title(self) -> str:
        """Notebook and label; of a training also its settings, because several of one notebook run at a time."""
        words = self.words if self.notebook in MODEL_NOTEBOOKS.values() else []
        parts = [self.notebook, self.label, *(w for w in words if w != self.label)]
        return "-".join(p for p in parts if p).replace(" ", "").replace("/", "+")

    @property
    def name(self) -> str:
        """Readable and unique: title, and a hash of parameters, store, notebook and library code."""
        code = [p.read_text() for p in sorted((ROOT / "vaelib").rglob("*.py"))]
        cells = [c.source for c in nbformat.read(self.source, 4).cells]
        data = [self.parameters, fingerprint_of(self.parameters.get("store", "")), str(outputs_dir())]
        return f"{self.title}-{digest([data, cells, code])}"

    @property
    def final(self) -> Path:
        """The executed notebook."""
        return papermill_dir() / f"{self.name}.ipynb"

    def runs(self, root: Path | None = None) -> list[tuple[dict[str, Any], Path | None]]:
        """The training runs that this notebook leaves (one for each prior, else one; none of other notebooks).

        Returns:
            For each what `find_runs` is asked for, and the newest finished run that also has the other parameters
            given here (learning rate, …), or None.
        """
        model = {v: k for k, v in MODEL_NOTEBOOKS.items()}.get(self.notebook)
        if model is None or "store" not in self.parameters:
            return []
        given = checked(self.notebook, self.parameters)
        values = defaults(self.notebook) | given
        wanted = {"model": model, "fingerprint": fingerprint_of(given["store"])}
        wanted |= {name: values[name] for name in TELLING if name in values}
        each = [wanted | {"prior": p} for p in values["priors"].split(",")] if "priors" in values else [wanted]

        def agrees(folder: Path) -> bool:
            config = json.loads((folder / "config.json").read_text())["config"]
            settings = config["model"] | config["training"]
            return all(settings.get(k, v) == v for k, v in given.items() if k not in TELLING)

        found = [[folder for folder in find_runs(root, **w) if agrees(folder)] for w in each]
        return [(w, folders[-1] if folders else None) for w, folders in zip(each, found, strict=True)]

    def left_its_run(self) -> bool:
        """Whether the training runs that this notebook leaves are (still) in the outputs; true for other notebooks."""
        return all(folder for _, folder in self.runs())

    def is_done(self) -> bool:
        """Whether it is executed with these parameters and this code, and its runs are there."""
        return self.final.is_file() and self.left_its_run()


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        job: The job.
        state: `done`, `already done`, `failed`, `refused` (by the notebook: bad input) or `left out`.
        seconds: Time it took.
        path: The executed notebook, or what is kept of a failed one.
        reason: Why it failed, was refused or left out.
    """

    job: Job
    state: str
    seconds: float = 0.0
    path: Path | None = None
    reason: str = ""

    def __str__(self) -> str:
        took = clock(self.seconds) if self.state in ("done", "failed") else ""
        return f"{self.state:<12} {took:>9}  {self.job.title}  {self.path or self.reason}"


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
    except (KeyError, TypeError, ValueError, OverflowError):
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
                try:
                    return client.execute(stderr=log)
                except Exception as e:
                    e.add_note(Path(log.name).read_text(errors="replace"))  # the last words of one that died
                    raise


pm.engines.papermill_engines.register("vaelib", LiveEngine)


class Terminal:
    """The state of running notebooks on one line of the terminal; finished ones stay above it, counted.

    Args:
        total: Notebooks in all.
    """

    def __init__(self, total: int = 1) -> None:
        self.lines: dict[str, str] = {}
        self.live, self.width, self.shown = sys.stderr.isatty(), 0, 0.0
        self.total, self.count, self.lock = total, 0, threading.Lock()
        self.work: dict[str, float] = {}
        self.worked, self.started = 0.0, time.monotonic()

    def expect(self, jobs: Sequence[Job]) -> None:
        """Trainings begin: from now on the time left can be told."""
        self.work = {j.title: COST.get(j.notebook, 1) * j.parameters.get("epochs", 16) + PROOFS_COST for j in jobs}
        self.worked, self.started = 0.0, time.monotonic()

    def progress(self) -> str:
        """`12/42 notebooks, about 31:00 min left`; the time once a tenth of the work is done."""
        left = sum(self.work.values())
        known = left and self.worked >= 0.1 * (self.worked + left)
        time_left = (time.monotonic() - self.started) * left / self.worked if known else 0
        return f"{self.count}/{self.total} notebooks" + (f", about {clock(time_left)} left" if known else "")

    def update(self, name: str, line: str) -> None:
        """A running notebook says something new."""
        self.lines[name] = line
        if self.live and time.monotonic() - self.shown > 0.2:
            self.shown = time.monotonic()
            parts = [*([self.progress()] if self.total > 1 else []), *self.lines.values()]
            text = "  |  ".join(parts)[: os.get_terminal_size(2).columns - 1]
            print(f"\r{text:<{self.width}}", end="", file=sys.stderr, flush=True)
            self.width = len(text)

    def finish(self, name: str, line: str, worked: bool = True) -> None:
        """A notebook is over: its line stays. Not `worked`: there was nothing to do, which says nothing of the pace."""
        with self.lock:
            self.lines.pop(name, None)
            self.count += 1
            self.worked += self.work.pop(name, 0.0) * worked
            count = f"{self.progress()}: " if self.total > 1 else ""
            print((f"\r{'':<{self.width}}\r" if self.live else "") + count + line, file=sys.stderr, flush=True)


def execute(job: Job, terminal: Terminal | None = None, again: bool = False) -> Path:
    """Execute one notebook; one that is already executed with these parameters and this code is not repeated.

    While it runs the file is called `….partial.ipynb`, after an error `….failed.ipynb` (with a `….failed.log` of what
    was said): neither looks finished. `index.html` shows what came of it.

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
    final, shown = job.final, job.title
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.is_file() and job.left_its_run() and not again:
        terminal.finish(shown, f"{shown}: already done, {final.name}", worked=False)
        shelf.update_or_say()
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
        _keep_failed(partial, failed, e)
        terminal.finish(shown, f"{shown}: FAILED after {clock(time.monotonic() - started)}")
        raise NotebookFailedError(f"{job.notebook} failed: {e.ename}: {e.evalue}; see {failed}") from e
    except Exception as e:  # a dead kernel leaves a notebook that looks executed
        _keep_failed(partial, failed, e)
        terminal.finish(shown, f"{shown}: FAILED after {clock(time.monotonic() - started)}")
        raise NotebookFailedError(f"{job.notebook} failed: {e}; what was executed is in {failed}") from e
    for left in (failed, failed.with_suffix(".log")):
        left.unlink(missing_ok=True)
    write_html(partial, final.with_suffix(".html"), title=final.stem)
    partial.replace(final)
    shelf.update_or_say()
    terminal.finish(shown, f"{shown}: done in {clock(time.monotonic() - started)}, {final.name}")
    return final


def _keep_failed(partial: Path, failed: Path, error: Exception) -> None:
    """What is left of a failed run: the notebook as far as it came, and a log of error, traceback and kernel."""
    if partial.exists():
        partial.replace(failed)
    words = "\n".join([str(error), *getattr(error, "__notes__", [])])
    write_atomic(failed.with_suffix(".log"), strip_ansi(words).strip() + "\n")
    shelf.update_or_say()


def attempt(job: Job, terminal: Terminal | None = None, again: bool = False) -> Outcome:
    """`execute`, with whatever comes of it as a value: one failure must not end a batch."""
    terminal = terminal or Terminal()
    started = time.monotonic()
    try:
        state = "already done" if not again and job.is_done() else "done"
        return Outcome(job, state, path=execute(job, terminal, again), seconds=time.monotonic() - started)
    except InputError as e:
        return Outcome(job, "refused", time.monotonic() - started, reason=str(e))
    except Exception as e:
        failed = job.final.with_suffix(".failed.ipynb")
        if not isinstance(e, NotebookFailedError):  # the disk is full, or the like
            terminal.finish(job.title, f"{job.title}: FAILED: {e}")
        return Outcome(job, "failed", time.monotonic() - started, failed if failed.is_file() else None, str(e))


def execute_each(jobs: Sequence[Job], workers: int | None = None, terminal: Terminal | None = None) -> list[Outcome]:
    """Execute independent notebooks, several at a time, the cores shared out among their kernels.

    Two kernels with one thread each train about a quarter more clips per second on two cores than one kernel with
    two threads, and the serial parts of one overlap with the training of the other.

    Args:
        workers: Notebooks at a time; default: one per core, at most four, one where there is a GPU.

    Returns:
        What came of each, in the order of `jobs`, failures too.

    Raises:
        InputError: some job's parameters are wrong (before anything runs).
    """
    import torch

    for job in jobs:
        checked(job.notebook, job.parameters)
    cores = len(os.sched_getaffinity(0))
    workers = workers or (1 if torch.cuda.is_available() else max(1, min(cores, 4, len(jobs))))
    terminal = terminal or Terminal(len(jobs))
    terminal.expect(jobs)
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // workers))
    try:
        with ThreadPoolExecutor(workers) as pool:
            try:
                return list(pool.map(lambda job: attempt(job, terminal), jobs))
            except KeyboardInterrupt:
                hint = "finished runs and checkpoints are kept, the same command continues"
                print(f"\ninterrupted: {hint}", file=sys.stderr, flush=True)
                os._exit(130)  # the kernels notice that their parent is gone; waiting for them would take minutes
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def execute_all(jobs: Sequence[Job], workers: int | None = None) -> list[Path]:
    """`execute_each`, for callers that need every one of them.

    Returns:
        Executed notebooks, in the order of `jobs`.

    Raises:
        InputError: some job's parameters are wrong (before anything runs), or notebooks refused their input.
        NotebookFailedError: some failed; the others were finished first.
    """
    done = execute_each(jobs, workers)
    raise_failures(done)
    return [outcome.path for outcome in done if outcome.path]


def raise_failures(outcomes: Sequence[Outcome]) -> None:
    """Raise one error that names all failures; none: do nothing.

    Raises:
        InputError: notebooks refused their input, and none failed.
        NotebookFailedError: some failed.
    """
    bad = [o for o in outcomes if o.state in FAILURES]
    if bad:
        kind = InputError if all(o.state == "refused" for o in bad) else NotebookFailedError
        raise kind(" | ".join(dict.fromkeys(o.reason for o in bad)))


def write_summary(outcomes: Sequence[Outcome]) -> Path:
    """Write `summary.csv` beside the executed notebooks: one row per job."""
    rows = [(o.job.title, o.state, round(o.seconds, 1), o.path.name if o.path else "", o.reason) for o in outcomes]
    table = pd.DataFrame(rows, columns=["run", "state", "seconds", "notebook", "reason"])
    return write_atomic(papermill_dir() / "summary.csv", table.to_csv(index=False))


def too_few_classes(store: Path | str, label: str) -> str:
    """Why there can be no conditional model of a label in a store; "" if there can."""
    found = open_store(store)
    if found.table[label].nunique() > 1:
        return ""
    return f"Conditional VAE by {label} left out: {found.path.name} has fewer than two of them"


def training_jobs(store: Path, epochs: int, seed: int = 0, **more: Any) -> list[Job]:
    """The five models of a store, Conditional twice (a label with fewer than two classes is left out).

    In an order that keeps two workers busy to the end and lets every notebook find the runs it compares with: Basic
    before Conv, Conv before VaDE.

    Raises:
        InputError: no such store, or parameters that some notebook does not know.
    """
    common = {"store": str(store), "epochs": epochs, "seed": seed} | more

    def job(model: str, **extra: str) -> Job:
        return Job(MODEL_NOTEBOOKS[model], checked(MODEL_NOTEBOOKS[model], common | extra), "-".join(extra.values()))

    cvae = []
    for label in ("language", "genre"):
        if why := too_few_classes(store, label):
            print(why, file=sys.stderr)
        else:
            cvae.append(job("cvae", condition=label))
    return [job("basic_vae"), *cvae[:1], job("conv_vae"), *cvae[1:], job("vade"), job("beta_vae")]
