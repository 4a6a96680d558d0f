"""Notebooks executed by papermill on Dask's workers: what failed or was cut short never looks finished."""

from __future__ import annotations

import ast
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import nbformat
import pandas as pd
import papermill as pm
from distributed import Future, get_worker
from filelock import FileLock
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbconvert.filters import strip_ansi
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from tqdm import tqdm

from . import report
from .config import InputError, code_version, digest, notebooks_dir, one_of, outputs_dir, papermill_dir, write_atomic
from .store import attributes
from .workers import GONE, NOTEBOOK, Workers, connected, kernel_environment, places

MODEL_NOTEBOOKS = {
    "basic_vae": "02_basic_vae",
    "conv_vae": "03_conv_vae",
    "beta_vae": "04_beta_vae",
    "cvae": "05_conditional_vae",
    "vade": "06_vade",
}
INTERRUPTED = "interrupted: finished runs and checkpoints are kept, the same command continues"
POLL = 0.3  # seconds until a batch looks again who is free
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True, frozen=True)


class NotebookFailedError(RuntimeError):
    """A notebook stopped with an error; the message names it, the error and the kept file."""


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
    cells: tuple[str, ...] = ()  # tags of the only cells to execute, besides the parameters; (): all

    @property
    def title(self) -> str:
        """Notebook and label; of a training also its settings, because several of one notebook run at a time."""
        words = [self.notebook, self.label]
        if self.notebook in MODEL_NOTEBOOKS.values():
            given = {k: v for k, v in self.parameters.items() if not isinstance(v, str) and v is not False}
            words += [f"{name}{value:g}" if value is not True else name for name, value in given.items()]
        return "-".join(w for w in words if w)

    def source(self) -> nbformat.NotebookNode:
        """The notebook to execute."""
        nb = nbformat.read(notebooks_dir() / f"{self.notebook}.ipynb", 4)
        if self.cells:
            nb.cells = [c for c in nb.cells if {"parameters", *self.cells} & {*c.metadata.get("tags", [])}]
        return nb

    @property
    def final(self) -> Path:
        """The executed notebook: its name has a digest of code, parameters, stores, and of the code that trains."""
        code = [cell.source for cell in self.source().cells if cell.cell_type == "code"]
        stores = [attributes(self.parameters.get(name, "")).get("fingerprint", "") for name in ("store", "desk")]
        name = digest([code, self.parameters, stores, self.page, version("vaelib"), code_version()])
        return papermill_dir() / f"{self.title}-{name}.ipynb"

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
    around: float = 0.0  # of the seconds, those that no cell took: kernel, page, index


def raise_failures(outcomes: Sequence[Outcome]) -> None:
    """Raise one error that names all failures: NotebookFailedError, or InputError if all of them were refusals."""
    bad = [o for o in outcomes if o.state in ("failed", "refused")]
    if bad:
        kind = InputError if all(o.state == "refused" for o in bad) else NotebookFailedError
        raise kind(" | ".join(dict.fromkeys(o.reason for o in bad)))


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
def _parameters(path: Path) -> type[BaseModel]:
    """The cell tagged `parameters` of a notebook as a pydantic model: names, types, defaults."""
    cells = [cell.source for cell in nbformat.read(path, 4).cells if "parameters" in cell.metadata.get("tags", [])]
    lines = [node for node in ast.parse("\n".join(cells)).body if isinstance(node, ast.AnnAssign)]
    found = {node.target.id: ast.literal_eval(node.value) for node in lines}
    return create_model(path.stem, __config__=STRICT, **{name: (type(value), value) for name, value in found.items()})


def defaults(notebook: str) -> dict[str, Any]:
    """Names and default values in a notebook's parameters cell."""
    return dict(_parameters(notebooks_dir() / f"{notebook}.ipynb")())


def checked(notebook: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the types of their defaults (a command line has strings); InputError as of `validated`."""
    values = validated(_parameters(notebooks_dir() / f"{notebook}.ipynb"), given, f"notebook {notebook}")
    return {name: getattr(values, name) for name in given}


class _Client(PapermillNotebookClient):
    """Passes the live line of a running notebook, which a progress bar rewrites, on to a callback."""

    show: Any = None

    def process_message(self, msg: dict, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] == "stream" and "\r" in msg["content"]["text"]:
            self.show(msg["content"]["text"].rpartition("\r")[2].strip())
        return super().process_message(msg, cell, cell_index)


class _Engine(NBClientEngine):
    """papermill's engine with the notebook's live line passed to `show`, and the training runs noted in its metadata.

    Without a `page` explorers are not drawn. The kernel's sockets lie in a folder of this user.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, show, page, **kwargs):
        too_long = len(os.fsencode(tempfile.gettempdir())) > 80  # the path of a socket has at most 107 bytes
        with tempfile.TemporaryDirectory(prefix="vaelib-", dir="/tmp" if too_long else None) as folder:  # noqa: S108
            trained, log = Path(folder, "runs"), Path(folder, "kernel.log")
            trained.touch()
            environment = os.environ | kernel_environment() | {"VAELIB_TRAINED": str(trained)}
            environment |= {} if page else {"VAELIB_NO_PLAYERS": "1"}
            client = _Client(nb_man, startup_timeout=120, timeout=None, coalesce_streams=True)
            client.show, own = show, KernelSpecManager(kernel_dirs=[])  # no other kernel that is called python3
            client.km = AsyncKernelManager(kernel_spec_manager=own, transport="ipc", ip=f"{folder}/k")
            try:
                with log.open("wb") as stderr:
                    return client.execute(stderr=stderr, env=environment)
            except Exception as e:
                e.add_note(log.read_text(errors="replace"))  # the last words of a kernel that died
                raise
            finally:
                nb_man.nb.metadata["vaelib"] = {"runs": sorted(set(trained.read_text().splitlines()))}


pm.engines.papermill_engines.register("vaelib", _Engine)
pm.log.logger.setLevel("ERROR")  # what it warns of in parameters is checked here


def execute(job: Job, show: Callable[[str], object] = str) -> Outcome:
    """Execute one notebook, unless it is done or another process does it now; `show` gets its live lines.

    While it runs the file is called `….partial.ipynb`, after an error `….failed.ipynb` (with a `….failed.log`):
    neither looks finished. A finished one has its HTML page beside it.
    """
    started, state, path, reason, cells, final = time.monotonic(), "already done", None, "", 0.0, job.final
    lock = papermill_dir() / ".locks" / f"{final.stem}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if job.again or not job.is_done():
                cells = _execute(job, final, show)
                state = "done"
        path = final
    except InputError as e:
        state, reason = "refused", str(e)
    except Exception as e:  # a notebook that failed, a full disk, or the like
        failed = final.with_suffix(".failed.ipynb")
        state, path, reason = "failed", failed if failed.is_file() else None, str(e)
    with suppress(OSError, InputError):  # an index that cannot be written does not undo the run
        if not job.cells:
            report.update_index()
    seconds = time.monotonic() - started
    return Outcome(job, state, seconds, path, reason, seconds - cells if state == "done" else 0.0)


def _execute(job: Job, final: Path, show: Callable[[str], object]) -> float:
    """Execute a notebook and write its page; returns the seconds that its cells took."""
    partial_, failed, log = (final.with_suffix(f".{kind}") for kind in ("partial.ipynb", "failed.ipynb", "failed.log"))
    target = str(partial_).replace("{", "{{").replace("}", "}}")  # papermill puts parameters where braces are
    how = {"engine_name": "vaelib", "kernel_name": "python3", "progress_bar": False, "cwd": notebooks_dir()}
    values = checked(job.notebook, job.parameters)
    try:
        nb = pm.execute_notebook(job.source(), target, values, **how, show=show, page=job.page)
    except Exception as e:
        if getattr(e, "ename", "") == "InputError":  # what it was given is wrong, not the notebook
            partial_.unlink(missing_ok=True)
            raise InputError(e.evalue) from e
        if partial_.exists():
            partial_.replace(failed)
        with suppress(InputError):  # a full disk must not hide why the notebook failed
            write_atomic(log, strip_ansi("\n".join([str(e), *getattr(e, "__notes__", [])])).strip() + "\n")
        why = f"{e.ename}: {e.evalue}" if isinstance(e, pm.PapermillExecutionError) else str(e)
        raise NotebookFailedError(f"{job.notebook} failed: {why}; see {failed}") from e
    failed.unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    if job.page:
        report.write_html(partial_, final.with_suffix(".html"), title=final.stem)
    partial_.replace(final)
    return sum(cell.metadata.papermill.duration or 0 for cell in nb.cells)


class Board(AbstractContextManager):
    """One live line for each notebook that runs, and a line that stays for each that is over, on stderr."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs, self.over, self.bars = jobs, 0, {}

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is KeyboardInterrupt:
            tqdm.write(INTERRUPTED, file=sys.stderr)

    def show(self, number: int, line: str) -> None:
        """The notebook of the job with this number shows a new line."""
        if number not in self.bars:
            self.bars[number] = tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True, disable=None)
        self.bars[number].set_description_str(f"{self.jobs[number].title}: {line}")

    def finish(self, number: int, outcome: Outcome) -> None:
        """A notebook is over."""
        if number in self.bars:
            self.bars[number].close()
        self.over += 1
        words = f"{self.over}/{len(self.jobs)} notebooks: {outcome.job.title}: {outcome.state}"
        words += f" in {tqdm.format_interval(outcome.seconds)}" if outcome.state == "done" else ""
        tqdm.write(words + (f": {outcome.reason}" if outcome.reason else ""), file=sys.stderr)


def run_alone(job: Job) -> Path:
    """One notebook in this process, without workers; its lines are shown. Errors as of `raise_failures`."""
    with Board([job]) as board:
        outcome = execute(job, partial(board.show, 0))
        board.finish(0, outcome)
    raise_failures([outcome])
    return outcome.path


def run(jobs: Sequence[Job], workers: Workers | None = None) -> list[Outcome]:
    """Execute notebooks on Dask's workers (default: this machine's); failures leave the others running.

    A worker that dies (killed, out of memory) is started again and its notebook continues from its checkpoint; when it
    has died twice, the notebook counts as failed. A killed batch is continued by the same call. Dask holds every
    notebook that was given to a worker responsible for its death: so each is submitted when a worker is free.
    InputError: a job's parameters are wrong (before anything runs), or there are no such workers.
    """
    for job in jobs:
        checked(job.notebook, job.parameters)
    workers, topic = workers or Workers(), f"vaelib-{uuid4().hex}"  # other batches may have the same scheduler
    about = topic, {k: v for k, v in os.environ.items() if k.startswith("VAELIB_")}, workers.devices()
    outcomes: dict[int, Outcome] = {}
    running: dict[int, Future] = {}
    with connected(workers, len(jobs)) as client, Board(jobs) as board:
        client.subscribe_topic(topic, lambda event: board.show(*event[1]))
        while len(outcomes) < len(jobs):
            waiting = [i for i in range(len(jobs)) if i not in outcomes and i not in running]
            ready = [i for i in waiting if outcomes.keys() >= {*jobs[i].needs, *jobs[i].after}]
            for i in ready[: max(0, places(client) - len(running))]:
                given = (*about, i, jobs[i], [outcomes[k] for k in jobs[i].needs])
                running[i] = client.submit(_work, *given, key=f"{topic}-{i}", resources={NOTEBOOK: 1}, pure=False)
            time.sleep(POLL)
            if client.status != "running":
                return [outcomes.get(i, Outcome(job, "failed", reason=GONE)) for i, job in enumerate(jobs)]
            for i in [i for i, future in running.items() if future.done()]:
                try:
                    outcomes[i] = running.pop(i).result()
                except Exception as e:  # its worker died
                    outcomes[i] = Outcome(jobs[i], "failed", reason=f"{jobs[i].title}: {type(e).__name__}: {e}")
                board.finish(i, outcomes[i])
    return [outcomes[i] for i in range(len(jobs))]


def _work(topic: str, environment: dict, gpus: list[str], number: int, job: Job, needed: list[Outcome]) -> Outcome:
    """On a worker: execute one notebook in the driver's environment, unless what it needs is not there."""
    worker = get_worker()
    os.environ.update(environment | ({"CUDA_VISIBLE_DEVICES": gpus[worker.name % len(gpus)]} if gpus else {}))
    missing = [o.job.label or o.job.title for o in needed if not o.state.endswith("done")]
    why = f"{' and '.join(missing)} could not be made" if missing else job.check() if job.check else ""
    if why:
        return Outcome(job, "left out", reason=why)
    worker.log_event(topic, (number, "starting"))
    return execute(job, lambda line: worker.log_event(topic, (number, line)))


def write_summary(outcomes: Sequence[Outcome]) -> Path:
    """Write `summary.csv` beside the executed notebooks: one row per job; `around`: seconds that no cell took."""
    columns = ["run", "state", "seconds", "around", "notebook", "reason"]
    rows = [
        (o.job.title, o.state, round(o.seconds, 1), round(o.around, 1), o.path.name if o.path else "", o.reason)
        for o in outcomes
    ]
    return write_atomic(papermill_dir() / "summary.csv", pd.DataFrame(rows, columns=columns).to_csv(index=False))
