"""Notebooks executed by papermill on Dask's workers: what failed or was cut short never looks finished."""

from __future__ import annotations

import ast
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import nbformat
import pandas as pd
import papermill as pm
from distributed import Client, Future, get_worker, wait
from distributed.utils import CancelledError
from filelock import FileLock
from nbconvert.filters import strip_ansi
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from rich.console import Console
from rich.progress import Progress, TextColumn
from traitlets.config import Config

from . import report
from .config import InputError, code_version, digest, notebooks_dir, one_of, outputs_dir, papermill_dir, write_atomic
from .progress import clock
from .store import attributes
from .workers import NOTEBOOK, Workers, connected, kernel_environment

MODEL_NOTEBOOKS = {
    "basic_vae": "02_basic_vae",
    "conv_vae": "03_conv_vae",
    "beta_vae": "04_beta_vae",
    "cvae": "05_conditional_vae",
    "vade": "06_vade",
}
FAILURES = ("failed", "refused")
REFUSALS = ("InputError",)  # what a notebook was given was wrong, not the notebook
INTERRUPTED = "interrupted: finished runs and checkpoints are kept, the same command continues"
GONE = "the Dask scheduler went away; the same command continues on another one"
POLL = 0.3  # seconds until a batch looks again who is free
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True, frozen=True)

Show = Callable[[str], None]


class NotebookFailedError(RuntimeError):
    """A notebook stopped with an error; the message names it, the error and the kept file."""


# --- what is executed ---


@dataclass(frozen=True)
class Job:
    """One notebook with parameters."""

    notebook: str  # name without suffix, e.g. `03_conv_vae`
    parameters: dict[str, Any] = field(default_factory=dict)  # values for its parameters cell
    label: str = ""  # part of the title, e.g. `language`
    page: bool = True  # whether it becomes an HTML page, with explorers in it
    again: bool = False  # execute it also where it is done
    needs: tuple[int, ...] = ()  # numbers of earlier jobs without which this one is left out
    after: tuple[int, ...] = ()  # numbers of earlier jobs that it waits for, whatever comes of them
    check: Callable[[], str] | None = None  # called before it starts: a reason to leave it out, or ""

    @property
    def title(self) -> str:
        """Notebook and label; of a training also its settings, because several of one notebook run at a time."""
        words = [self.notebook, self.label]
        if self.notebook in MODEL_NOTEBOOKS.values():
            given = {k: v for k, v in self.parameters.items() if not isinstance(v, str) and v is not False}
            words += [f"{name}{value:g}" if value is not True else name for name, value in given.items()]
        return "-".join(w for w in words if w)

    @property
    def name(self) -> str:
        """Title, and a digest of the notebook's code, its parameters, the stores, and the code that trains."""
        nb = nbformat.read(notebooks_dir() / f"{self.notebook}.ipynb", 4)
        cells = [c.source for c in nb.cells if c.cell_type == "code"]
        stores = [attributes(self.parameters.get(name, "")).get("fingerprint", "") for name in ("store", "desk")]
        parts = [cells, self.parameters, stores, self.page, version("vaelib"), code_version()]
        return f"{self.title}-{digest(parts)}"

    @property
    def final(self) -> Path:
        """The executed notebook."""
        return papermill_dir() / f"{self.name}.ipynb"

    def runs(self, outputs: Path | str | None = None) -> list[Path]:
        """Folders of the training runs of the newest notebook, executed or failed, that had these parameters."""
        given = checked(self.notebook, self.parameters)
        files = [p for p in papermill_dir().glob(f"{self.notebook}-*.ipynb") if not p.name.endswith(".partial.ipynb")]
        for path in sorted(files, key=lambda p: p.stat().st_mtime, reverse=True):
            metadata = nbformat.read(path, 4).metadata
            if metadata.get("papermill", {}).get("parameters") == given:
                return [Path(outputs or outputs_dir()) / name for name in metadata.get("vaelib", {}).get("runs", [])]
        return []

    def is_done(self) -> bool:
        """Whether it is executed with these parameters and this code, and its training runs are still there."""
        return self.final.is_file() and all((folder / "done.json").is_file() for folder in self.runs())


@dataclass(frozen=True)
class Outcome:
    """What came of a job."""

    job: Job
    state: str  # `done`, `already done`, `failed`, `refused` (by the notebook: bad input) or `left out`
    seconds: float = 0.0
    path: Path | None = None  # the executed notebook, or what is kept of a failed one
    reason: str = ""  # why it failed, was refused or left out


def raise_failures(outcomes: Sequence[Outcome]) -> None:
    """Raise one error that names all failures: NotebookFailedError, or InputError if all of them were refusals."""
    bad = [o for o in outcomes if o.state in FAILURES]
    if bad:
        kind = InputError if all(o.state == "refused" for o in bad) else NotebookFailedError
        raise kind(" | ".join(dict.fromkeys(o.reason for o in bad)))


# --- parameters ---


def validated(model: type[BaseModel], values: Mapping[str, Any], where: str) -> BaseModel:
    """Values as a pydantic model; InputError: an unknown name, or a value that the model does not take."""
    try:
        return model.model_validate(values)
    except ValidationError as e:
        error = e.errors()[0]
        place = ".".join([str(part) for part in (where, *error["loc"])])
        if error["type"] == "extra_forbidden":
            one_of(f"name in {where}", str(error["loc"][-1]), model.model_fields)
        raise InputError(f"{place}: {error['msg']}, but it is {repr(error['input'])[:200]}") from None


@cache
def parameters_of(path: Path) -> type[BaseModel]:
    """The cell tagged `parameters` of a notebook as a pydantic model: names, types, defaults."""
    found = {name: ast.literal_eval(p["default"]) for name, p in pm.inspect_notebook(path).items()}
    return create_model(path.stem, __config__=STRICT, **{name: (type(value), value) for name, value in found.items()})


def defaults(notebook: str) -> dict[str, Any]:
    """Names and default values in a notebook's parameters cell."""
    model = parameters_of(notebooks_dir() / f"{notebook}.ipynb")
    return {name: field.default for name, field in model.model_fields.items()}


def checked(notebook: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the types of their defaults (a command line has strings); InputError as of `validated`."""
    values = validated(parameters_of(notebooks_dir() / f"{notebook}.ipynb"), given, f"notebook {notebook}")
    return {name: getattr(values, name) for name in given}


# --- one notebook ---


class _Client(PapermillNotebookClient):
    """Passes the live lines of a running notebook (updated displays) on to a callback."""

    show: Any = None

    def process_message(self, msg: dict, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in ("display_data", "update_display_data"):
            line = msg["content"].get("data", {}).get("text/plain", "")
            if msg["content"].get("transient", {}).get("display_id") and "\n" not in line:
                self.show(line)
        return super().process_message(msg, cell, cell_index)


def kernel_settings(folder: str, page: bool) -> tuple[Config, dict[str, str]]:
    """Configuration and environment of a kernel: sockets in a folder of this user, explorers only for a page."""
    sockets = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/k"}})
    environment = os.environ | ({} if page else {"VAELIB_NO_PLAYERS": "1"})
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else every kernel compiles all that it imports
    return sockets, environment


class _Engine(NBClientEngine):
    """papermill's engine, with the notebook's own progress line passed on, and its training runs noted."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, show, page, **kwargs):
        """Execute all cells; `show` is called with every progress line. Without a page explorers are not drawn."""
        with tempfile.TemporaryDirectory(prefix="vaelib-") as folder:
            trained, log = Path(folder, "runs"), Path(folder, "kernel.log")
            sockets, environment = kernel_settings(folder, page)
            environment |= kernel_environment() | {"VAELIB_TRAINED": str(trained)}
            client = _Client(nb_man, kernel_name=kernel_name, startup_timeout=120, timeout=None, config=sockets)
            client.show = show
            try:
                with log.open("wb") as stderr:
                    return client.execute(stderr=stderr, env=environment)
            except Exception as e:
                e.add_note(log.read_text(errors="replace"))  # the last words of a kernel that died
                raise
            finally:
                runs = trained.read_text().split("\n")[:-1] if trained.is_file() else []
                nb_man.nb.metadata["vaelib"] = {"runs": sorted(set(runs))}


pm.engines.papermill_engines.register("vaelib", _Engine)


def execute(job: Job, show: Show = lambda line: None) -> Outcome:
    """Execute one notebook, unless it is done or another process does it now; one failure must not end a batch.

    While it runs the file is called `….partial.ipynb`, after an error `….failed.ipynb` (with a `….failed.log`):
    neither looks finished. A finished one has its HTML page beside it.

    Args:
        show: Gets every progress line of the notebook.
    """
    started, state, path, reason = time.monotonic(), "already done", None, ""
    try:
        values, final = checked(job.notebook, job.parameters), job.final
        lock = papermill_dir() / ".locks" / f"{final.stem}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if job.again or not job.is_done():
                _execute(job, values, final, show)
                state = "done"
        path = final
    except InputError as e:
        state, reason = "refused", str(e)
    except Exception as e:  # a notebook that failed, a full disk, or the like
        failed = final.with_suffix(".failed.ipynb")
        state, path, reason = "failed", failed if failed.is_file() else None, str(e)
    with suppress(OSError):  # a page that cannot be written does not undo the run
        report.update_index()
    return Outcome(job, state, time.monotonic() - started, path, reason)


def _execute(job: Job, values: dict[str, Any], final: Path, show: Show) -> None:
    partial_, failed = final.with_suffix(".partial.ipynb"), final.with_suffix(".failed.ipynb")
    log = failed.with_suffix(".log")
    try:
        pm.execute_notebook(
            notebooks_dir() / f"{job.notebook}.ipynb", partial_, values, engine_name="vaelib", kernel_name="python3",
            progress_bar=False, cwd=notebooks_dir(), show=show, page=job.page,
        )  # fmt: skip
    except Exception as e:
        if getattr(e, "ename", "") in REFUSALS:
            partial_.unlink(missing_ok=True)
            raise InputError(e.evalue) from e
        if partial_.exists():
            partial_.replace(failed)
        with suppress(OSError):  # a full disk must not hide why the notebook failed
            words = "\n".join([str(e), *getattr(e, "__notes__", [])])
            write_atomic(log, strip_ansi(words).strip() + "\n")
        why = f"{e.ename}: {e.evalue}" if isinstance(e, pm.PapermillExecutionError) else str(e)
        raise NotebookFailedError(f"{job.notebook} failed: {why}; see {failed}") from e
    failed.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    if job.page:
        report.write_html(partial_, final.with_suffix(".html"), title=final.stem)
    partial_.replace(final)


# --- many notebooks ---


class Board(Progress):
    """One live line for each notebook that runs, and a line that stays for each that is over, on stderr."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        console = Console(stderr=True)
        columns = [TextColumn("{task." + part + "}", markup=False) for part in ("description", "fields[line]")]
        super().__init__(*columns, console=console, disable=not console.is_terminal)
        self.jobs, self.over, self.rows = jobs, 0, {}

    def show(self, number: int, line: str) -> None:
        """The notebook of the job with this number shows a new line."""
        if number not in self.rows:
            self.rows[number] = self.add_task(self.jobs[number].title, line=line)
        self.update(self.rows[number], line=line)

    def finish(self, number: int, outcome: Outcome) -> None:
        """A notebook is over."""
        if number in self.rows:
            self.update(self.rows[number], visible=False)
        self.over += 1
        words = f"{self.over}/{len(self.jobs)} notebooks: {outcome.job.title}: {outcome.state}"
        words += f" in {clock(outcome.seconds)}" if outcome.state == "done" else ""
        words += f": {outcome.reason}" if outcome.reason else ""
        self.console.print(words, markup=False, highlight=False, soft_wrap=True)


def run_alone(job: Job) -> Path:
    """One notebook in this process, without workers; its lines are shown. Errors as of `raise_failures`."""
    with Board([job]) as board:
        board.show(0, "starting")
        outcome = execute(job, partial(board.show, 0))
        board.finish(0, outcome)
    raise_failures([outcome])
    return outcome.path


def run(jobs: Sequence[Job], workers: Workers | None = None) -> list[Outcome]:
    """Execute notebooks on Dask's workers (default: this machine's); failures leave the others running.

    A worker that dies (killed, out of memory) is started again and its notebook continues from its checkpoint; when it
    has died twice, the notebook counts as failed. A killed batch is continued by the same call.

    Returns:
        What came of each, in the order of `jobs`.

    Raises:
        InputError: some job's parameters are wrong (before anything runs), or there are no such workers.
    """
    for job in jobs:
        checked(job.notebook, job.parameters)
    outcomes: dict[int, Outcome] = {}
    with connected(workers or Workers(), len(jobs)) as client, Board(jobs) as board, client.as_current():
        topic = f"vaelib-{uuid4().hex}"  # other batches may have the same scheduler
        client.subscribe_topic(topic, lambda event: board.show(*event[1]))
        try:
            _hand_out(client, topic, jobs, outcomes, board)
        except KeyboardInterrupt:
            board.console.print(INTERRUPTED)
            raise
    return [outcomes[i] for i in range(len(jobs))]


def _hand_out(client: Client, topic: str, jobs: Sequence[Job], outcomes: dict[int, Outcome], board: Board) -> None:
    """Submit what is ready, one notebook for each free worker.

    Dask would take them all at once, but it gives them to workers before these are free, behind whatever runs there,
    and holds every notebook that was given to a worker responsible for its death.
    """
    graph = TopologicalSorter({i: (*job.needs, *job.after) for i, job in enumerate(jobs)})
    graph.prepare()
    ready: list[int] = []
    running: dict[int, Future] = {}
    environment = {name: value for name, value in os.environ.items() if name.startswith("VAELIB_")}
    while graph.is_active():
        ready = sorted([*ready, *graph.get_ready()])
        while ready and len(running) < _places(client):
            i = ready.pop(0)
            given = (topic, i, jobs[i], [outcomes[k] for k in jobs[i].needs], environment)
            running[i] = client.submit(_work, *given, key=f"{topic}-{i}", resources={NOTEBOOK: 1}, pure=False)
        with suppress(TimeoutError, CancelledError):
            wait(list(running.values()), timeout=POLL, return_when="FIRST_COMPLETED")
        gone = client.status != "running"
        for i in [i for i, future in running.items() if gone or future.done()]:
            future = running.pop(i)
            try:
                outcomes[i] = future.result() if not gone else Outcome(jobs[i], "failed", reason=GONE)
            except Exception as e:  # its worker died, or what it sent back cannot be read
                outcomes[i] = Outcome(jobs[i], "failed", reason=f"{jobs[i].title}: {type(e).__name__}: {e}")
            board.finish(i, outcomes[i])
            graph.done(i)


def _places(client: Client) -> int:
    """How many notebooks the workers take; a queue may bring more of them at any time."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return max(1, round(sum(w["resources"].get(NOTEBOOK, 0) for w in workers)))


def _work(topic: str, number: int, job: Job, needed: list[Outcome], environment: dict[str, str]) -> Outcome:
    """On a worker: execute one notebook in the driver's environment, unless what it needs is not there."""
    os.environ.update(environment)
    missing = [o.job.label or o.job.title for o in needed if o.state in (*FAILURES, "left out")]
    why = f"{' and '.join(missing)} could not be made" if missing else job.check() if job.check else ""
    if why:
        return Outcome(job, "left out", reason=why)
    worker = get_worker()
    worker.log_event(topic, (number, "starting"))
    return execute(job, lambda line: worker.log_event(topic, (number, line)))


def write_summary(outcomes: Sequence[Outcome]) -> Path:
    """Write `summary.csv` beside the executed notebooks: one row per job."""
    rows = [(o.job.title, o.state, round(o.seconds, 1), o.path.name if o.path else "", o.reason) for o in outcomes]
    table = pd.DataFrame(rows, columns=["run", "state", "seconds", "notebook", "reason"])
    return write_atomic(papermill_dir() / "summary.csv", table.to_csv(index=False))
