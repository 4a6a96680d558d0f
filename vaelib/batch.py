"""Many notebooks, scheduled by Dask: dependencies respected, independent ones in parallel, a live line for each."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
from distributed import Client, Future, get_worker, wait
from distributed.utils import CancelledError
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from . import engine
from .cluster import NOTEBOOK, Workers, connected
from .config import papermill_dir, write_atomic
from .jobs import FAILURES, Job, Outcome, checked, defaults, raise_failures
from .progress import clock

# Whose runs a notebook puts beside its own
BESIDE = {"03_conv_vae": "02_basic_vae", "06_vade": "03_conv_vae"}
# For the time that work takes, roughly, on one core of 2026: seconds of an epoch of 1,000 windows of 64 × 64 in batches
# of 8 (VaDE: half as many joint epochs, of its own) …
EPOCH = {"02_basic_vae": 1.5, "03_conv_vae": 6.0, "04_beta_vae": 6.0, "05_conditional_vae": 6.0, "06_vade": 3.5}
# … of all else in a notebook (imports, proofs, explorers), and of rendering 1,000 training windows of 1 s
REST, OTHERS_REST, MUSIC = {"04_beta_vae": 60, "07_compare": 75}, 40, 7.0
GONE = "the Dask scheduler went away; the same command continues on another one"
INTERRUPTED = "\ninterrupted: finished runs and checkpoints are kept, the same command continues"
EVERY = 0.3  # seconds between two words of a notebook that are passed on
COLOURS = {"running": "bold", "failed": "bold red", "refused": "bold red", "left out": "yellow", "done": "green"}


@dataclass(frozen=True)
class Task:
    """A job of a batch.

    Attributes:
        job: Notebook and parameters.
        needs: Numbers of earlier tasks without which this one is left out.
        after: Numbers of earlier tasks that it waits for, whatever comes of them.
        again: Execute it in any case.
        check: Called before it starts: a reason to leave it out, or "".
        windows: Training windows of an epoch on its store, and on the desk, in thousands of 64 × 64: they tell how
            long it takes.
    """

    job: Job
    needs: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    again: bool = False
    check: Callable[[Job], str] | None = None
    windows: tuple[float, float] = (1.0, 1.0)

    @property
    def seconds(self) -> float:
        """About how long it takes on one core."""
        rest, given = REST.get(self.job.notebook, OTHERS_REST), self.job.parameters
        if self.job.notebook not in EPOCH:
            return rest + MUSIC * self.windows[0] * given.get("clip_seconds", 0)
        values = defaults(self.job.notebook) | given
        trained = self.windows[0] * values["epochs"] * len(values.get("priors", "one").split(","))
        if given.get("desk"):
            trained += self.windows[1] * values["desk_epochs"] * 2 * len(values["desk_starts"].split(","))
        return rest + EPOCH[self.job.notebook] * trained


class Summary:
    """One line for each run: state, epoch, loss, time left; live in a terminal and in a notebook.

    Where nobody watches (a log file), a line for each run that is over.

    Args:
        tasks: All runs of the batch.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.console, self.lock = Console(stderr=True), threading.Lock()
        self.lines: dict[int, str] = {}
        self.over: dict[int, Outcome] = {}
        self.jobs, self.costs = [t.job for t in tasks], [t.seconds for t in tasks]
        self.worked, self.started = 0.0, time.monotonic()
        self.live = Live(get_renderable=self.table, console=self.console, refresh_per_second=4)
        self.shown = self.console.is_terminal or self.console.is_jupyter

    def __enter__(self) -> Summary:
        if self.shown:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.live.stop()

    def tell(self, number: int, line: str) -> None:
        """The notebook of the job with this number says something new."""
        with self.lock:
            if number not in self.over:
                self.lines[number] = line

    def finish(self, number: int, outcome: Outcome) -> None:
        """A notebook is over."""
        with self.lock:
            self.lines.pop(number, None)
            self.over[number] = outcome
            self.worked += self.costs[number] * (outcome.state in ("done", "failed"))
            if not self.shown:
                line = f"{self.progress()}: {outcome.job.title}: {outcome.state}"
                took = f" in {clock(outcome.seconds)}" if outcome.state == "done" else ""
                print(line + took + (f": {outcome.reason}" if outcome.reason else ""), file=sys.stderr, flush=True)

    def progress(self) -> str:
        """`12/42 notebooks, about 31:00 min left`; the time once a tenth of the work is done."""
        left = sum(cost for i, cost in enumerate(self.costs) if i not in self.over)
        known = left and self.worked >= 0.1 * (self.worked + left)
        time_left = (time.monotonic() - self.started) * left / self.worked if known else 0
        return f"{len(self.over)}/{len(self.jobs)} notebooks" + (f", about {clock(time_left)} left" if known else "")

    def table(self) -> Table:
        """Runs that are on, then those that are over; those that wait are only counted."""
        with self.lock:
            rows = [(self.jobs[i].title, "running", line) for i, line in self.lines.items()]
            over = list(self.over.values())
        rows += [(o.job.title, o.state, o.reason or (clock(o.seconds) if o.seconds else "")) for o in reversed(over)]
        grid = Table(box=None, pad_edge=False, title=self.progress(), title_justify="left")
        for name in ("run", "state", "epoch", "loss", "left"):
            grid.add_column(name, no_wrap=True, overflow="ellipsis")
        for title, state, line in rows[: max(5, self.console.height - 6)]:
            words = map(Text, (title, *_columns(line)))  # as they are: a label may look like markup
            grid.add_row(next(words), Text(state, COLOURS.get(state, "default")), *words)
        return grid


def _columns(line: str) -> tuple[str, str, str]:
    """Epoch, loss and time left of a training's line; another line as it is."""
    parts = [p.strip() for p in line.partition(": ")[2].split("·")]
    if len(parts) < 3 or not parts[0].startswith("epoch "):
        return line, "", ""
    loss = next((p.removeprefix("loss ") for p in parts if p.startswith("loss ")), "")
    return parts[0].removeprefix("epoch "), loss, parts[-1].removesuffix(" left")


def run(tasks: Sequence[Task], workers: Workers | None = None) -> list[Outcome]:
    """Execute notebooks on Dask's workers.

    A worker that dies (killed, out of memory) is started again and its notebook continues from its checkpoint; when it
    has died twice, the notebook counts as failed. A killed batch is continued by the same call.

    Args:
        workers: Which workers; default: this machine's.

    Returns:
        What came of each, in the order of `tasks`, failures too.

    Raises:
        InputError: some job's parameters are wrong (before anything runs), or there are no such workers.
    """
    for task in tasks:
        checked(task.job.notebook, task.job.parameters)
    with connected(workers or Workers(), len(tasks)) as client, Summary(tasks) as summary:
        topic = f"vaelib-{uuid4().hex}"  # other batches may have the same scheduler
        client.subscribe_topic(topic, lambda event: summary.tell(event[1]["number"], event[1]["line"]))
        try:
            with client.as_current():  # `wait` looks for it
                outcomes = _run(client, tasks, summary, topic)
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr, flush=True)
            raise
    return [outcomes[i] for i in range(len(tasks))]


def duration(tasks: Sequence[Task], workers: int) -> float:
    """About how many seconds the tasks take that are not done yet, handed out like `_run` does."""
    seconds = [t.seconds if t.again or not t.job.is_done() else 0.0 for t in tasks]
    waiting, ends, now = list(range(len(tasks))), {}, 0.0
    while waiting:
        over = {i for i, end in ends.items() if end <= now}
        ready = [i for i in waiting if over >= {*tasks[i].needs, *tasks[i].after}]
        for i in ready[: workers - len(ends) + len(over)]:
            waiting.remove(i)
            ends[i] = now + seconds[i]
        now = min((end for end in ends.values() if end > now), default=now)
    return max(ends.values(), default=0.0)


def _run(client: Client, tasks: Sequence[Task], summary: Summary, topic: str) -> dict[int, Outcome]:
    """Hand out one notebook for each free worker: when a worker dies, Dask holds all that it was given responsible."""
    waiting, running, outcomes = dict(enumerate(tasks)), {}, {}
    folders = {name: value for name, value in os.environ.items() if name.startswith("VAELIB_")}
    while waiting or running:
        ready = [i for i, task in waiting.items() if outcomes.keys() >= {*task.needs, *task.after}]
        for i in ready[: max(0, _places(client) - len(running))]:
            task = waiting.pop(i)
            needed = [outcomes[k] for k in task.needs]
            given = (topic, i, task, needed, folders)
            running[i] = client.submit(_execute, *given, key=f"{topic}-{i}", resources={NOTEBOOK: 1}, pure=False)
        with suppress(TimeoutError, CancelledError):
            wait(list(running.values()), timeout=EVERY, return_when="FIRST_COMPLETED")
        if client.status != "running":
            for i in [*running, *waiting]:
                outcomes[i] = Outcome(tasks[i].job, "failed", reason=GONE)
                summary.finish(i, outcomes[i])
            break
        for i in [i for i, future in running.items() if future.done()]:
            outcomes[i] = _outcome(tasks[i].job, running.pop(i))
            summary.finish(i, outcomes[i])
    return outcomes


def _places(client: Client) -> int:
    """How many notebooks the workers take; a queue may bring more of them at any time."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return max(1, round(sum(w["resources"].get(NOTEBOOK, 0) for w in workers)))


def _execute(topic: str, number: int, task: Task, needed: list[Outcome], folders: dict[str, str]) -> Outcome:
    """On a worker: execute one notebook, unless what it needs is not there.

    Args:
        folders: Environment of the driver that says where data, runs and notebooks lie.
    """
    os.environ.update(folders)
    missing = [o.job.label or o.job.title for o in needed if o.state in (*FAILURES, "left out")]
    why = f"{' and '.join(missing)} could not be made" if missing else task.check(task.job) if task.check else ""
    if why:
        return Outcome(task.job, "left out", reason=why)
    worker, last = get_worker(), [0.0]

    def tell(line: str) -> None:
        if time.monotonic() - last[0] > EVERY:
            last[0] = time.monotonic()
            worker.log_event(topic, {"number": number, "line": line})

    worker.log_event(topic, {"number": number, "line": "starting"})
    return engine.attempt(task.job, tell, task.again)


def _outcome(job: Job, future: Future) -> Outcome:
    try:
        return future.result()
    except Exception as e:  # its worker died, or what it sent back cannot be read
        return Outcome(job, "failed", reason=f"{job.title}: {type(e).__name__}: {e}")


def in_turn(jobs: Sequence[Job], first: int = 0, **more: Any) -> list[Task]:
    """Tasks of trainings, each after those whose runs its notebook puts beside its own.

    Args:
        first: Number of the first one in the batch.
        more: Further settings of every task.
    """
    places: dict[tuple, list[int]] = {}
    for number, job in enumerate(jobs, first):
        places.setdefault((job.notebook, job.parameters.get("store"), job.parameters.get("seed")), []).append(number)
    before = [
        places.get((BESIDE.get(j.notebook), j.parameters.get("store"), j.parameters.get("seed")), []) for j in jobs
    ]
    return [Task(job, after=tuple(after), **more) for job, after in zip(jobs, before, strict=True)]


def run_all(jobs: Sequence[Job], workers: Workers | None = None) -> list[Path]:
    """`run` of trainings, for callers that need every one of them.

    Returns:
        Executed notebooks, in the order of `jobs`.

    Raises:
        InputError: some job's parameters are wrong (before anything runs), or notebooks refused their input.
        NotebookFailedError: some failed; the others were finished first.
    """
    done = run(in_turn(jobs), workers)
    raise_failures(done)
    return [outcome.path for outcome in done if outcome.path]


def run_alone(job: Job, again: bool = False) -> Path:
    """One notebook in this process, without workers; its lines are shown.

    Raises:
        InputError: unknown notebook or parameters, or input that the notebook refused.
        NotebookFailedError: a cell raised.
    """
    with Summary([Task(job)]) as summary:
        summary.tell(0, "starting")
        try:
            outcome = engine.attempt(job, lambda line: summary.tell(0, line), again)
        except KeyboardInterrupt:
            print(INTERRUPTED, file=sys.stderr, flush=True)
            raise
        summary.finish(0, outcome)
    raise_failures([outcome])
    return outcome.path


def write_summary(outcomes: Sequence[Outcome]) -> Path:
    """Write `summary.csv` beside the executed notebooks: one row per job."""
    rows = [(o.job.title, o.state, round(o.seconds, 1), o.path.name if o.path else "", o.reason) for o in outcomes]
    table = pd.DataFrame(rows, columns=["run", "state", "seconds", "notebook", "reason"])
    return write_atomic(papermill_dir() / "summary.csv", table.to_csv(index=False))
