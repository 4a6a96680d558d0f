"""Plans of many runs: expanded into jobs, executed, their runs found again."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

from . import batch
from .batch import Task
from .cluster import Workers
from .config import outputs_dir
from .jobs import MODEL_NOTEBOOKS, Job, checked, raise_failures, too_few_classes
from .planfile import Corpus, Plan, read_plan

__all__ = ["Corpus", "Plan", "execute_plan", "read_plan", "runs_of", "training_jobs"]


def training_jobs(plan: Plan) -> list[Job]:
    """All trainings in the order of execution; seeds outermost, so that a first one is complete early."""
    jobs = []
    for seed, corpus, run in itertools.product(plan.seeds, plan.corpora, plan.runs):
        given = {"store": str(corpus.store), **run, "seed": seed}
        label = corpus.store.stem if len(plan.corpora) > 1 else run.get("condition", "")
        jobs.append(Job(MODEL_NOTEBOOKS[given.pop("model")], given, label))
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
                continue
            words = [w for w in job.words if w != job.parameters.get("priors")]
            words += [f"prior {wanted['prior']}"] if "prior" in wanted else []
            words += [f"on {job.label}"] if len(plan.corpora) > 1 else []
            missing.append(f"{', '.join([wanted['model'], *words])}: no finished run")
    return list(dict.fromkeys(folders)), missing


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
    current = {c.store: c.is_current() for c in plan.corpora}
    made = [c for c in plan.corpora if c.job]
    number = {str(c.store): i for i, c in enumerate(made)}
    tasks = [Task(c.job, again=not current[c.store]) for c in made]
    for task in batch.in_turn(training_jobs(plan), len(tasks), check=_too_few_classes):
        store = number.get(task.job.parameters["store"])
        tasks.append(task if store is None else replace(task, needs=(store,)))
    compare, target = _comparison(plan)
    nothing = partial(_nothing_to_compare, plan.saved(), outputs_dir().resolve())
    tasks.append(Task(compare, after=tuple(range(len(tasks))), again=True, check=nothing))  # new runs may have come
    outcomes = batch.run(tasks, workers)
    print(*outcomes, batch.write_summary(outcomes), sep="\n", flush=True)
    raise_failures(outcomes)
    return target / "model_comparison.html"


def _comparison(plan: Plan) -> tuple[Job, Path]:
    """Notebook 07 for a plan, and the folder of its report."""
    root = outputs_dir().resolve()
    corpus = plan.corpora[0].store.stem if len(plan.corpora) == 1 else ""
    target = root / ("comparison" if corpus else f"comparison-{plan.path.stem}")  # a curve must not replace the ledger
    given = {"outputs": str(root), "corpus": corpus, "epochs": 0, "plan": str(plan.saved()), "target": str(target)}
    return Job("07_compare", checked("07_compare", given)), target


def _too_few_classes(job: Job) -> str:
    """Why a conditional model cannot be trained, once its store is there."""
    label = job.parameters.get("condition")
    return too_few_classes(job.parameters["store"], label) if label else ""


def _nothing_to_compare(plan: Path, root: Path, job: Job) -> str:
    return "" if runs_of(read_plan(plan), root)[0] else "the plan has no finished run"
