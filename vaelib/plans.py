"""Plans of many runs: expanded into jobs, executed, their runs found again."""

from __future__ import annotations

import itertools
from pathlib import Path

from . import batch
from .batch import MODEL_NOTEBOOKS, Job, Outcome, checked
from .config import outputs_dir
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


def execute_plan(plan: Plan, workers: int | None = None) -> Path:
    """Do what is missing of a plan: notebook 01 for each corpus, all trainings, one comparison; print a summary.

    A failure leaves the others running, and the comparison is made from what is there.

    Args:
        workers: Trainings at a time; default: see `batch.execute_each`.

    Returns:
        The HTML report of the comparison.

    Raises:
        InputError: a store or folder of the plan is not there (before anything runs), or notebooks refused their input.
        NotebookFailedError: notebooks failed.
    """
    current = {c.store: c.is_current() for c in plan.corpora}
    root, made, jobs = outputs_dir().resolve(), [c for c in plan.corpora if c.job], training_jobs(plan)
    corpus = plan.corpora[0].store.stem if len(plan.corpora) == 1 else ""
    target = root / ("comparison" if corpus else f"comparison-{plan.path.stem}")  # a curve must not replace the ledger
    given = {"outputs": str(root), "corpus": corpus, "epochs": 0, "plan": str(plan.saved()), "target": str(target)}
    compare = Job("07_compare", checked("07_compare", given))
    terminal = batch.Terminal(len(made) + len(jobs) + 1)
    outcomes = [batch.attempt(c.job, terminal, again=not current[c.store]) for c in made]
    unmade = {str(c.store) for c, o in zip(made, outcomes, strict=True) if o.state in batch.FAILURES}
    why_not = [_why_not(job, unmade) for job in jobs]
    for job, why in zip(jobs, why_not, strict=True):
        if why:
            outcomes.append(Outcome(job, "left out", reason=why))
            terminal.finish(job.title, f"{job.title}: left out, {why}", worked=False)
    ready = [job for job, why in zip(jobs, why_not, strict=True) if not why]
    outcomes += batch.execute_each(ready, workers, terminal)
    if runs_of(plan, root)[0]:
        outcomes.append(batch.attempt(compare, terminal, again=True))  # new runs may have come
    else:
        outcomes.append(Outcome(compare, "left out", reason="the plan has no finished run"))
    print(*outcomes, batch.write_summary(outcomes), sep="\n", flush=True)
    batch.raise_failures(outcomes)
    return target / "model_comparison.html"


def _why_not(job: Job, unmade: set[str]) -> str:
    store, label = job.parameters["store"], job.parameters.get("condition")
    if store in unmade:
        return f"{Path(store).name} could not be made"
    return batch.too_few_classes(store, label) if label else ""
