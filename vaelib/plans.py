"""Plans of many runs: expanded into jobs, executed, their runs found again."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from . import batch
from .batch import Task
from .cluster import Workers, count_here
from .config import COMPACT, outputs_dir
from .jobs import MODEL_NOTEBOOKS, Job, checked, raise_failures, too_few_classes
from .planfile import Corpus, Plan, read_plan

__all__ = ["Corpus", "Plan", "execute_plan", "read_plan", "runs_of", "training_jobs"]


def training_jobs(plan: Plan) -> list[Job]:
    """All trainings in the order of execution; seeds outermost, so that a first one is complete early.

    The desk is trained on in notebook 04 of a run's first corpus: the others need not repeat it.
    """
    jobs, many = [], len(plan.music) > 1
    for seed, corpus, run in itertools.product(plan.seeds, plan.music, plan.runs):
        chosen = [c for c in plan.music if c.name in run["corpora"]]
        if corpus not in chosen:
            continue
        given = {"store": str(corpus.store)} | {k: v for k, v in run.items() if k not in ("model", "corpora")}
        if run["model"] == "beta_vae":
            here = plan.desk and plan.desk.name in run["corpora"] and corpus == chosen[0]
            given = {k: v for k, v in given.items() if here or not k.startswith("desk_")}
            given["desk"] = str(plan.desk.store) if here else ""
        label = corpus.store.stem if many else run.get("condition", "")
        jobs.append(Job(MODEL_NOTEBOOKS[run["model"]], given | {"seed": seed}, label, plan.pages))
    return jobs


def runs_of(plan: Plan, outputs: Path | str | None = None) -> tuple[list[Path], list[str]]:
    """The finished runs that belong to a plan, the newest of each.

    Args:
        outputs: Folder of the runs; default: `outputs_dir()`.

    Returns:
        Their folders, in the order of execution, and a sentence for each corpus and run that is missing.
    """
    gone = {str(c.store): c.store.name for c in plan.corpora if not c.store.is_dir()}
    folders, missing = [], [f"{name}: no such mel store, so none of its runs" for name in gone.values()]
    for job in training_jobs(plan):
        for wanted, folder in job.runs(outputs) if job.parameters["store"] not in gone else []:
            if folder:
                folders.append(folder)
            else:
                missing.append(f"{_words(job, wanted, plan)}: no finished run")
    return list(dict.fromkeys(folders)), list(dict.fromkeys(missing))


def _words(job: Job, wanted: dict[str, Any], plan: Plan) -> str:
    """A run that a job leaves, as one says it."""
    if "start_components" in wanted:
        start = "components" if wanted["start_components"] else "a random start"
        words = [f"beta {wanted['beta']:g}", f"{wanted['epochs']} epochs", f"seed {wanted['seed']}", f"from {start}"]
        return ", ".join([wanted["model"], *words, f"on {plan.desk.store.stem}"])
    words = [w for w in job.words if w != job.parameters.get("priors")]
    words += [f"prior {wanted['prior']}"] if "prior" in wanted else []
    words += [f"on {job.label}"] if len(plan.music) > 1 else []
    return ", ".join([wanted["model"], *words])


def execute_plan(plan: Plan, workers: Workers | None = None) -> Path:
    """Do what is missing of a plan: notebook 01 for each corpus, all trainings, one comparison; print a summary.

    A failure leaves the others running, and the comparison is made from what is there.

    Args:
        workers: Which workers; default: this machine's.

    Returns:
        The HTML report of the comparison.

    Raises:
        InputError: a store or folder of the plan is not there (before anything runs), or notebooks refused their input.
        NotebookFailedError: notebooks failed.
    """
    tasks = _tasks(plan)
    compare, target = _comparison(plan)
    nothing = partial(_nothing_to_compare, plan.saved(), outputs_dir().resolve())
    tasks.append(Task(compare, after=tuple(range(len(tasks))), again=True, check=nothing))  # new runs may have come
    _tell_the_time(plan, tasks, workers or Workers())
    outcomes = batch.run(tasks, workers)
    print(*outcomes, batch.write_summary(outcomes), sep="\n", flush=True)
    raise_failures(outcomes)
    return target / "model_comparison.html"


def _tasks(plan: Plan) -> list[Task]:
    """Corpora and trainings, each with what it needs and how much work it is."""
    tasks, number, size = [], {}, {}
    current = [c.is_current() for c in plan.corpora]  # all of them before anything is done
    for corpus, is_there in zip(plan.corpora, current, strict=True):
        windows = corpus.windows(is_there) / 1000
        size[str(corpus.store)] = windows * corpus.bins / prod(COMPACT.shape)
        if corpus.job:
            number[str(corpus.store)] = len(tasks)
            same = tuple(i for i, t in enumerate(tasks) if t.job.label == corpus.job.label)  # rendered by one at a time
            job = replace(corpus.job, page=plan.pages)
            tasks.append(Task(job, after=same, again=not is_there, windows=(windows, 0.0)))
    for task in batch.in_turn(training_jobs(plan), len(tasks), check=_too_few_classes):
        stores = [task.job.parameters["store"], task.job.parameters.get("desk", "")]
        needs = tuple(number[store] for store in stores if store in number)
        tasks.append(replace(task, needs=needs, windows=tuple(size.get(store, 0.0) for store in stores)))
    return tasks


def _tell_the_time(plan: Plan, tasks: list[Task], workers: Workers) -> None:
    """Say on stderr about how long it will take, where that can be known."""
    count = count_here(workers, len(tasks))
    if count and all(t.windows[0] for t in tasks):
        minutes = batch.duration(tasks, count) / 60
        took = f"{max(minutes, 1):.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
        print(f"{len(tasks)} notebooks, {count} at a time: this takes about {took}", file=sys.stderr, flush=True)


def _comparison(plan: Plan) -> tuple[Job, Path]:
    """Notebook 07 for a plan, and the folder of its report."""
    root, corpus = outputs_dir().resolve(), plan.music[0].store.stem
    # the ledger of one corpus must not be replaced by that of a ladder
    target = root / ("comparison" if len(plan.music) == 1 else f"comparison-{plan.path.stem}")
    given = {"outputs": str(root), "corpus": corpus, "epochs": 0, "plan": str(plan.saved()), "target": str(target)}
    return Job("07_compare", checked("07_compare", given)), target


def _too_few_classes(job: Job) -> str:
    """Why a conditional model cannot be trained, once its store is there."""
    label = job.parameters.get("condition")
    return too_few_classes(job.parameters["store"], label) if label else ""


def _nothing_to_compare(plan: Path, root: Path, job: Job) -> str:
    return "" if runs_of(read_plan(plan), root)[0] else "the plan has no finished run"
