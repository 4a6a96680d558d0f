"""Notebooks executed by papermill on Dask's workers: what failed or was cut short never looks finished."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import nbformat
import pandas as pd
import papermill as pm
from dask.system import CPU_COUNT
from distributed import Client, Future, LocalCluster, SpecCluster, get_worker
from distributed.security import Security
from filelock import FileLock
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbconvert.filters import strip_ansi
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from tqdm import tqdm

from . import report
from .config import InputError, notebooks_dir, outputs_dir, papermill_dir, write_atomic
from .plans import Job, Plan, checked, runs_of

INTERRUPTED = "interrupted: finished runs and checkpoints are kept, the same command continues"
GONE = "the Dask scheduler went away; the same command continues on another one"
NOTEBOOK = "notebook"  # what a worker has one of, because it executes one notebook at a time
SECONDS = 10  # that a scheduler may take to answer
POLL = 0.3  # seconds until a batch looks again who is free
# A notebook that has killed its worker twice is not tried a third time; a worker has longer than 15 s to come back
SETTINGS = {"distributed.scheduler.allowed-failures": 1, "distributed.deploy.lost-worker-timeout": "10 minutes"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class NotebookFailedError(RuntimeError):
    """A notebook stopped with an error; the message names it, the error and the kept file."""


@dataclass(frozen=True)
class Outcome:
    """What came of a job."""

    job: Job
    state: str  # `done`, `already done`, `failed`, `refused` (by the notebook: bad input) or `left out`
    reason: str = ""  # why it failed, was refused or left out
    path: Path | None = None  # the executed notebook, or what is kept of a failed one
    seconds: float = 0.0
    around: float = 0.0  # of the seconds, those that no cell took: kernel, page, index


def raise_failures(outcomes: Sequence[Outcome]) -> None:
    """Raise one error that names all failures: NotebookFailedError, or InputError if all of them were refusals."""
    bad = [o for o in outcomes if o.state in ("failed", "refused")]
    if bad:
        kind = InputError if all(o.state == "refused" for o in bad) else NotebookFailedError
        raise kind(" | ".join(dict.fromkeys(o.reason for o in bad)))


class _Client(PapermillNotebookClient):
    """Passes the live line of a running notebook, which a progress bar rewrites, on to a callback."""

    show: Any = None

    def process_message(self, msg: dict, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] == "stream" and "\r" in msg["content"]["text"]:
            self.show(msg["content"]["text"].rpartition("\r")[2].strip())
        return super().process_message(msg, cell, cell_index)


class _Engine(NBClientEngine):
    """papermill's engine: live lines go to `show`, training runs are noted, without a `page` no explorer is drawn."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, show, page, **kwargs):
        # the kernel's sockets lie in a folder of this user; the path of one has at most 107 bytes
        too_long = len(os.fsencode(tempfile.gettempdir())) > 80
        with tempfile.TemporaryDirectory(prefix="vaelib-", dir="/tmp" if too_long else None) as folder:  # noqa: S108
            trained, log = Path(folder, "runs"), Path(folder, "kernel.log")
            trained.touch()
            environment = os.environ | {"VAELIB_TRAINED": str(trained)} | ({} if page else {"VAELIB_NO_PLAYERS": "1"})
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
    started, cells, final = time.monotonic(), None, job.final
    kept, failed, log = (final.with_suffix(f".{kind}") for kind in ("partial.ipynb", "failed.ipynb", "failed.log"))
    lock = papermill_dir() / ".locks" / f"{final.stem}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        try:
            if not job.again and job.is_done():
                return Outcome(job, "already done", path=final)
            nb = _papermill(job, kept, show)
            if job.page:
                report.write_html(kept, final.with_suffix(".html"), title=final.stem)
            kept.replace(final)
            failed.unlink(missing_ok=True)
            log.unlink(missing_ok=True)
            cells = sum(cell.metadata.papermill.duration or 0 for cell in nb.cells)
            outcome = Outcome(job, "done", path=final)
        except Exception as e:  # a notebook that failed, a full disk, or the like
            if getattr(e, "ename", "") == "InputError":  # what it was given is wrong, not the notebook
                kept.unlink(missing_ok=True)
                return Outcome(job, "refused", e.evalue)
            with suppress(OSError):
                kept.replace(failed)
            with suppress(InputError):  # a full disk must not hide why the notebook failed
                write_atomic(log, strip_ansi("\n".join([str(e), *getattr(e, "__notes__", [])])).strip() + "\n")
            why = f"{e.ename}: {e.evalue}" if isinstance(e, pm.PapermillExecutionError) else str(e)
            why = f"{job.notebook} failed: {why}; see {failed}"
            outcome = Outcome(job, "failed", why, failed if failed.is_file() else None)
    if not job.cells:
        with suppress(OSError, InputError):  # an index that cannot be written does not undo the run
            report.update_index()
    seconds = time.monotonic() - started
    return replace(outcome, seconds=seconds, around=0.0 if cells is None else seconds - cells)


def _papermill(job: Job, target: Path, show: Callable[[str], object]) -> nbformat.NotebookNode:
    """Execute a notebook, or those of its cells that the job names."""
    nb = nbformat.read(notebooks_dir() / f"{job.notebook}.ipynb", 4)
    if job.cells:
        nb.cells = [c for c in nb.cells if {"parameters", *job.cells} & {*c.metadata.get("tags", [])}]
    path = str(target).replace("{", "{{").replace("}", "}}")  # papermill puts parameters where braces are
    how = {"engine_name": "vaelib", "kernel_name": "python3", "progress_bar": False, "cwd": notebooks_dir()}
    return pm.execute_notebook(nb, path, checked(job.notebook, job.parameters), **how, show=show, page=job.page)


class _Board(AbstractContextManager):
    """One live line for each notebook that runs, and a line that stays for each that is over, on stderr."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs, self.over, self.bars = jobs, 0, {}

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is KeyboardInterrupt:
            tqdm.write(INTERRUPTED, file=sys.stderr)

    def show(self, number: int, line: str) -> None:
        if number not in self.bars:
            self.bars[number] = tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True, disable=None)
        self.bars[number].set_description_str(f"{self.jobs[number].title}: {line}")

    def finish(self, number: int, outcome: Outcome) -> None:
        if number in self.bars:
            self.bars[number].close()
        self.over += 1
        words = f"{self.over}/{len(self.jobs)} notebooks: {outcome.job.title}: {outcome.state}"
        words += f" in {tqdm.format_interval(outcome.seconds)}" if outcome.state == "done" else ""
        tqdm.write(words + (f": {outcome.reason}" if outcome.reason else ""), file=sys.stderr)


def run_alone(job: Job) -> Path:
    """One notebook in this process, without workers; its lines are shown. Errors as of `raise_failures`."""
    with _Board([job]) as board:
        outcome = execute(job, partial(board.show, 0))
        board.finish(0, outcome)
    raise_failures([outcome])
    return outcome.path


@dataclass(frozen=True)
class Workers:
    """Which workers execute a batch; InputError: two of the last four, or a count for a running scheduler."""

    count: int | None = None  # default: one for each GPU, else one for each core, at most four
    gpus: str = ""  # `all`, or numbers with commas: a worker for each, which sees no other GPU
    scheduler: str = ""  # address of a running one, whose workers offer `--resources "notebook=1"`
    slurm: str = ""  # section of dask-jobqueue's configuration: what a worker asks the queue for
    pbs: str = ""  # the same

    def __post_init__(self) -> None:
        given = [f"--{name}" for name in ("gpus", "scheduler", "slurm", "pbs") if getattr(self, name)]
        given += ["--workers"] if self.scheduler and self.count else []
        if len(given) > 1:
            raise InputError(f"{given[0]} and {given[1]} exclude each other: give one of them")

    def devices(self) -> list[str]:
        """Numbers of this machine's GPUs to use, as CUDA_VISIBLE_DEVICES names them; InputError: there is no such."""
        if self.scheduler or self.slurm or self.pbs:
            return []
        import torch  # here: it takes a second

        count = torch.cuda.device_count()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        there = visible.split(",")[:count]
        wanted = there if self.gpus in ("", "all") else [number.strip() for number in self.gpus.split(",")]
        if self.gpus and (not there or not set(wanted) <= set(there)):
            raise InputError(f"--gpus {self.gpus}: this machine has {', '.join(there) or 'no GPU'}")
        return wanted


@contextmanager
def connected(workers: Workers, most: int = 4) -> Iterator[Client]:
    """A client of workers that execute one notebook each at a time; more than `most` would have nothing to do.

    InputError: no such GPU, no scheduler at the address, no worker that takes notebooks, or no dask-jobqueue.
    """
    with dask.config.set(SETTINGS), ExitStack() as stack:
        cluster = workers.scheduler
        if not cluster:
            made = _queued(workers, most) if workers.slurm or workers.pbs else _local(workers, most)
            cluster = stack.enter_context(made)
        try:
            client = stack.enter_context(Client(cluster, timeout=SECONDS, set_as_default=False))
        except Exception as e:  # whatever answers there, or does not, is no Dask scheduler that lets us in
            raise InputError(f"no Dask scheduler answers at {cluster}: start one with `dask scheduler`") from e
        if workers.scheduler and not _places(client):
            start = f'`dask worker {cluster} --resources "{NOTEBOOK}=1"`'
            raise InputError(f"no worker of this scheduler takes notebooks: start one with {start}")
        yield client


def _places(client: Client) -> int:
    """How many notebooks the workers take at a time; a queue may bring more of them later."""
    there = client.scheduler_info(n_workers=-1)["workers"].values()
    return round(sum(worker["resources"].get(NOTEBOOK, 0) for worker in there))


def _local(workers: Workers, most: int) -> LocalCluster:
    """Workers on this machine. The connection is encrypted: whoever can reach a scheduler can run code through it."""
    count = workers.count or min(len(workers.devices()) or min(CPU_COUNT, 4), most)
    return LocalCluster(
        n_workers=count, threads_per_worker=max(1, CPU_COUNT // count), resources={NOTEBOOK: 1}, memory_limit=0,
        protocol="tls://", security=Security.temporary(), silence_logs=logging.ERROR, dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    )  # fmt: skip


def _queued(workers: Workers, most: int) -> SpecCluster:
    kind, section = ("SLURMCluster", workers.slurm) if workers.slurm else ("PBSCluster", workers.pbs)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue
    except ImportError:
        raise InputError("--slurm and --pbs need dask-jobqueue: `pip install dask-jobqueue`") from None
    finally:
        signal.signal(signal.SIGINT, interrupt)  # its import makes Ctrl-C a silent end of the process
    if section not in dask.config.get("jobqueue", {}):
        raise InputError(f"dask-jobqueue has no section {section!r}: write it into ~/.config/dask/jobqueue.yaml")
    offered = [*(dask.config.get(f"jobqueue.{section}.worker-extra-args", None) or []), "--resources", f"{NOTEBOOK}=1"]
    keys = papermill_dir() / ".workers"  # whoever can read them can run code on the workers
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    safe = {"protocol": "tls://", "security": True, "shared_temp_directory": str(keys)}
    cluster = getattr(dask_jobqueue, kind)(config_name=section, worker_extra_args=offered, **safe)
    cluster.scale(jobs=workers.count or most)
    return cluster


def run(jobs: Sequence[Job], workers: Workers | None = None) -> list[Outcome]:
    """Execute notebooks on Dask's workers (default: this machine's); failures leave the others running.

    A worker that dies is started again and its notebook continues; when it has died twice, the notebook has failed.
    A killed batch is continued by the same call. InputError: wrong parameters (before anything runs), no such workers.
    """
    for job in jobs:
        checked(job.notebook, job.parameters)
    workers, topic = workers or Workers(), f"vaelib-{uuid4().hex}"  # other batches may have the same scheduler
    about = topic, {k: v for k, v in os.environ.items() if k.startswith("VAELIB_")}, workers.devices()
    outcomes: dict[int, Outcome] = {}
    running: dict[int, Future] = {}
    with connected(workers, len(jobs)) as client, _Board(jobs) as board:
        client.subscribe_topic(topic, lambda event: board.show(*event[1]))
        while len(outcomes) < len(jobs):
            waiting = [i for i in range(len(jobs)) if i not in outcomes and i not in running]
            ready = [i for i in waiting if outcomes.keys() >= {*jobs[i].needs, *jobs[i].after}]
            # Dask holds all notebooks that a worker was given responsible for its death: one at a time
            for i in ready[: max(0, _places(client) - len(running))]:
                given = (*about, i, jobs[i], [outcomes[k] for k in jobs[i].needs])
                running[i] = client.submit(_work, *given, key=f"{topic}-{i}", resources={NOTEBOOK: 1}, pure=False)
            time.sleep(POLL)
            if client.status != "running":
                return [outcomes.get(i, Outcome(job, "failed", GONE)) for i, job in enumerate(jobs)]
            for i in [i for i, future in running.items() if future.done()]:
                try:
                    outcomes[i] = running.pop(i).result()
                except Exception as e:  # its worker died
                    outcomes[i] = Outcome(jobs[i], "failed", f"{jobs[i].title}: {type(e).__name__}: {e}")
                board.finish(i, outcomes[i])
    return [outcomes[i] for i in range(len(jobs))]


def _work(topic: str, environment: dict, gpus: list[str], number: int, job: Job, needed: list[Outcome]) -> Outcome:
    """On a worker: execute one notebook in the driver's environment, unless what it needs is not there."""
    worker = get_worker()
    os.environ.update(environment | dict.fromkeys(THREADS, str(worker.state.nthreads)))
    os.environ.update({"CUDA_VISIBLE_DEVICES": gpus[worker.name % len(gpus)]} if gpus else {})
    missing = [o.job.label or o.job.title for o in needed if not o.state.endswith("done")]
    why = f"{' and '.join(missing)} could not be made" if missing else job.check() if job.check else ""
    if why:
        return Outcome(job, "left out", why)
    worker.log_event(topic, (number, "starting"))
    return execute(job, lambda line: worker.log_event(topic, (number, line)))


def write_summary(outcomes: Sequence[Outcome]) -> Path:
    """Write `summary.csv` beside the executed notebooks: one row per job; `around`: seconds that no cell took."""
    columns = ["run", "state", "seconds", "around", "notebook", "reason"]
    rows = [(o.job.title, o.state, o.seconds, o.around, o.path.name if o.path else "", o.reason) for o in outcomes]
    table = pd.DataFrame(rows, columns=columns).round(1)
    return write_atomic(papermill_dir() / "summary.csv", table.to_csv(index=False))


def execute_plan(plan: Plan, workers: Workers | None = None, compare: bool = True) -> Path:
    """Do what is missing of a plan: notebook 01 for each corpus, all trainings, one comparison; print a summary.

    The comparison (unless `compare` is off) is made from what is there; its HTML report is returned. InputError: a
    store or folder is not there (before anything runs); errors as of `raise_failures`.
    """
    workers, outputs = workers or Workers(), outputs_dir().resolve()
    stale = [corpus.job.parameters for corpus in plan.corpora if not corpus.is_current()]  # before anything is done
    jobs = [replace(job, again=job.parameters in stale) for job in plan.jobs]
    target = outputs / (f"comparison-{plan.name}" if len(plan.music) > 1 else "comparison")
    if compare:
        given = {"outputs": outputs, "plan": plan.saved(), "target": target, "corpus": plan.music[0].store.stem}
        given = {name: str(value) for name, value in given.items()}
        check = partial(_nothing_to_compare, plan)
        jobs.append(Job("07_compare", given, again=True, after=tuple(range(len(jobs))), check=check))
    cores = min(workers.count or min(CPU_COUNT, 4), len(jobs))
    about = f"about {plan.seconds() / cores / 60:.0f} minutes on {cores} cores"
    print(f"{len(jobs)} notebooks: {about}", file=sys.stderr, flush=True)
    outcomes = run(jobs, workers)
    print(write_summary(outcomes), flush=True)
    raise_failures(outcomes)
    return target / "model_comparison.html"


def _nothing_to_compare(plan: Plan) -> str:
    return "" if runs_of(plan)[0] else "the plan has no finished run"
