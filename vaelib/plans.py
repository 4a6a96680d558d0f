"""A plan: corpora × notebooks × seeds in a short YAML file, checked whole before anything runs."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field

from vaelib_demo import CLIPS, Dials
from vaelib_demo.tables import load_tables

from . import batch, config
from .batch import MODEL_NOTEBOOKS, STRICT, Job, checked, defaults, raise_failures, validated
from .collection import READING, read_corpus, read_record
from .config import ROOT, InputError, front_end, one_of, outputs_dir, papermill_dir, write_atomic
from .store import CUT, attributes, is_current, open_store, store_path
from .workers import Workers

# The longest first (the desk's trainings are in its notebook), then whoever others wait for, the shortest last.
ORDER = ("beta_vae", "basic_vae", "conv_vae", "vade", "cvae")
BESIDE = {"03_conv_vae": "02_basic_vae", "06_vade": "03_conv_vae"}  # whose runs a notebook puts beside its own
# Keys of a corpus: how files are cut, how a folder is read, what is rendered
CUTTING = ("windows", "split_seed", *CUT)
DIALS = ("clips_per_genre", "clip_seconds", "composition", "variation", "fixed", "seed")
RANGES = {"clips_per_genre": (3, 100_000), "clip_seconds": (1, 600), "composition": (0, 1), "variation": (0, 1)}
# Seconds on one core of 2026: an epoch of 1,000 windows of 64 × 64, the rest of a notebook, rendering 1,000 s of music
EPOCH = {"02_basic_vae": 1.5, "03_conv_vae": 6.0, "04_beta_vae": 6.0, "05_conditional_vae": 6.0, "06_vade": 3.5}
REST, RENDER = 45, 7.0


class _File(BaseModel):
    """The keys of a plan file."""

    model_config = STRICT
    corpora: dict[str, dict[str, Any]] = Field({"loops": {}}, min_length=1)
    profile: str = "compact"
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1)
    pages: bool = True
    defaults: dict[str, Any] = {}
    runs: list[dict[str, Any]] = Field(min_length=1)


@dataclass(frozen=True)
class Corpus:
    """A corpus of a plan."""

    name: str  # its name there; a corpus with a list of values is several of one name
    store: Path  # its mel store
    job: Job | None  # what makes it; None: it was made before
    is_desk: bool  # whether notebook 04 trains on it beside another corpus

    def is_current(self) -> bool:
        """Whether the store is made, from the files as they are now; InputError: there is no such store or folder."""
        if self.job is None:
            return open_store(self.store).path.is_dir()
        given = self.job.parameters
        folder = Path(given.get("corpus") or config.data_dir() / "corpora" / self.job.label)
        if "corpus" not in given and not (folder / "manifest.csv").is_file():
            return self.store.is_dir() and not folder.is_dir()  # a rendered corpus may be deleted, not half-made
        found = read_corpus(folder, **{name: given[name] for name in READING if name in given})
        how = {name: given[name] for name in CUTTING if name in given}
        return is_current(found, front_end(given["profile"]), **how)

    def windows(self) -> float:
        """Training windows of an epoch, in thousands of 64 × 64; 0: not known before somebody's own music is read."""
        if self.store.is_dir():
            opened = open_store(self.store)
            return len(opened.rows("train")) * prod(opened.front_end.shape) / 64**2 / 1000
        clips = self.job.parameters.get("clips_per_genre", 0) * (1 if self.is_desk else len(load_tables().genres))
        return 0.7 * clips * prod(front_end(self.job.parameters["profile"]).shape) / 64**2 / 1000


@dataclass(frozen=True)
class Plan:
    """What a plan file says."""

    path: Path
    corpora: tuple[Corpus, ...]  # where the clips come from
    seeds: tuple[int, ...]  # of every run
    runs: tuple[dict[str, Any], ...]  # `model`, its `corpora`, parameters of its notebook; in order
    pages: bool  # whether executed notebooks become HTML pages with explorers
    text: str  # as YAML, with what was changed on the command line

    @property
    def desk(self) -> Corpus | None:
        """The mixing desk, which notebook 04 trains on."""
        return next((c for c in self.corpora if c.is_desk), None)

    @property
    def music(self) -> tuple[Corpus, ...]:
        """All corpora but the desk; the first one is the plan's main one."""
        return tuple(c for c in self.corpora if not c.is_desk)

    def saved(self) -> Path:
        """The copy in `papermill_runs/` that says exactly this."""
        return write_atomic(papermill_dir() / f"{self.path.stem}-{config.digest(self.text)}.yaml", self.text).resolve()


# --- reading ---


def read_plan(path: Path | str, changes: Sequence[str] = ()) -> Plan:
    """Read a plan and check it whole. A relative `folder` or `store` is one of the repository.

    Args:
        changes: `name=value`, several values with commas: `seeds=0,1`, `profile=full`, `loops.variation=0,1` of the
            corpus `loops`, or any parameter of notebooks, which then holds in the defaults and in every run that
            gives it.

    Raises:
        InputError: no such file, not YAML, or something in it is wrong.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise InputError(f"no plan can be read at {path}: {' '.join(str(e).split())}") from None
    return make_plan(values, changes, path)


def make_plan(values: dict[str, Any], changes: Sequence[str] = (), path: Path = Path("plan.yaml")) -> Plan:
    """A plan from what its file says; arguments and errors as of `read_plan`."""
    file = validated(_File, values, path.name)
    for change in changes:
        file = _changed(file, change)
    found: dict[Path, Corpus] = {}
    for name, entry in file.corpora.items():
        for one in _grid(entry, whole=("fixed",)):
            corpus = make_corpus(name, one, file.profile)
            if found.setdefault(corpus.store, corpus) != corpus:
                raise InputError(f"{path.name}: two corpora share the store {corpus.store.name}: make two plans")
    corpora = tuple(found.values())
    desks = sum(c.is_desk for c in corpora)
    if desks > 1 or desks == len(corpora):
        raise InputError(f"{path.name}: a plan has one desk at most, and a corpus that is no desk beside it")
    text = yaml.safe_dump(file.model_dump(), sort_keys=False)
    return Plan(path, corpora, tuple(dict.fromkeys(file.seeds)), _runs(file, corpora), file.pages, text)


def _changed(file: _File, change: str) -> _File:
    """A plan file with `name=value` in it."""
    name, _, word = change.partition("=")
    place, dot, key = name.partition(".")
    try:
        value = yaml.safe_load(f"[{word}]" if "," in word else word)
    except yaml.YAMLError:
        value = None
    if value is None or name in ("corpora", "defaults", "runs", "model"):
        raise InputError(f"{change!r} cannot be set: give name=value, e.g. epochs=2, seeds=0,1 or loops.variation=1")
    values = file.model_dump()
    if dot:
        entry = values["corpora"][one_of("corpus of this plan", place, values["corpora"])]
        if key in ("folder", "store"):
            entry.clear()  # other music in place of what was there
        entry[key] = value
    elif name in values:
        values[name] = _list(value) if name == "seeds" else value
    else:
        for entry in (values["defaults"], *(run for run in values["runs"] if name in run)):
            entry[name] = value
    return validated(_File, values, change)


def _grid(entry: dict[str, Any], whole: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One mapping for each combination of the values that are lists; a list of a key in `whole` is one value."""
    lists = [[v] if k in whole else _list(v) for k, v in entry.items()]
    return [dict(zip(entry, one, strict=True)) for one in itertools.product(*lists)]


def make_corpus(name: str, entry: dict[str, Any], profile: str) -> Corpus:
    """A corpus from its entry: a `store`, a `folder` of music, or what is rendered; InputError as of `read_plan`."""
    is_desk = entry.get("demo") == "desk"
    dials = [d for d in DIALS if not (is_desk and d in ("composition", "variation", "fixed"))]
    if "store" in entry:
        valid = ["store"]
    elif "folder" in entry:
        valid = ["folder", *READING, *CUTTING]
    else:
        valid = ["demo", *dials, *CUTTING]
    for key in entry:
        one_of(f"name in corpora.{name}", key, valid)
    if "store" in entry:
        store = ROOT / Path(entry["store"]).expanduser()
        return Corpus(name, store, None, attributes(store).get("rung") == "desk")
    fe, given = front_end(profile), {k: v for k, v in entry.items() if k != "folder"} | {"profile": profile}
    if "folder" in entry:
        folder = (ROOT / Path(entry["folder"]).expanduser()).resolve()
        given = checked("01_preprocess", given | {"corpus": str(folder)})
        label, rendered = folder.name, bool(read_record(folder))
    else:
        demo = one_of("demo", entry.get("demo", "styles"), CLIPS)
        usual = defaults("01_preprocess") | {"demo": demo, "clips_per_genre": CLIPS[demo]}
        given |= {"fixed": "+".join(Dials(fixed=entry["fixed"]).fixed)} if "fixed" in entry else {}
        given = checked("01_preprocess", {k: usual[k] for k in ("demo", *dials)} | given)
        for key, (low, high) in RANGES.items():
            if not low <= given.get(key, low) <= high:
                raise InputError(f"corpora.{name}.{key} is {given[key]:g}, it must be from {low:g} to {high:g}")
        if given["clip_seconds"] * fe.sample_rate < 0.99 * fe.min_samples:
            raise InputError(f"corpora.{name}: clips of {given['clip_seconds']:g} s are shorter than a window")
        how = {k: given[k] for k in dials if k != "clip_seconds"}
        label, rendered = Dials(demo, seconds=given["clip_seconds"], **how).name, True
    store = store_path(label, profile, given.get("windows", ""), rendered)
    return Corpus(name, store, Job("01_preprocess", given, label), is_desk)


def _runs(file: _File, corpora: Sequence[Corpus]) -> tuple[dict[str, Any], ...]:
    """Every run, grids expanded, none twice, in the order of execution."""
    found, known = [], set()
    for number, entry in enumerate(file.runs):
        where = f"runs.{number}"
        for model in _list(entry.get("model", "")):
            notebook = MODEL_NOTEBOOKS[one_of(f"model in {where}", model, MODEL_NOTEBOOKS)]
            usual = {k: v for k, v in defaults(notebook).items() if k not in ("store", "desk", "seed")}
            known |= usual.keys()
            given = {k: v for k, v in file.defaults.items() if k in usual} | entry
            # all corpora but a desk, unless the run names its own; Beta's with the desk
            names = dict.fromkeys(c.name for c in corpora if model == "beta_vae" or not c.is_desk)
            chosen = [one_of(f"corpus in {where}", n, names) for n in _list(given.pop("corpora", list(names)))]
            del given["model"]
            for name in given:
                one_of(f"parameter of {notebook} in {where}", name, usual)
            given = {"condition": usual["condition"]} | given if "condition" in usual else given
            for one in _grid(given):
                values = checked(notebook, one)
                _check_ranges(values)
                found.append({"model": model, "corpora": tuple(dict.fromkeys(chosen))} | values)
    for name in file.defaults:
        one_of("name in defaults", name, sorted(known))
    unique = {json.dumps(run, sort_keys=True): run for run in found}
    return tuple(sorted(unique.values(), key=lambda run: ORDER.index(run["model"])))


def _list(value: Any) -> list:
    return value if isinstance(value, list) else [value]


def _check_ranges(values: dict[str, Any]) -> None:
    """Refuse what the settings of a run would refuse."""
    for prefix in ("", "desk_"):
        own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
        config.TrainConfig(**{f.name: own[f.name] for f in fields(config.TrainConfig) if f.name in own})
    sizes = {f.name: values[f.name] for f in fields(config.ModelConfig) if f.name in values and f.name != "condition"}
    config.ModelConfig("", (1, 1), **sizes)
    of_model, of_training = config.read_settings(values.get("settings", ""))
    config.TrainConfig.from_dict(of_training)
    config.ModelConfig.from_dict({"name": "", "input_shape": (1, 1)} | of_model)
    one_of("condition", values.get("condition", "genre"), ("language", "genre"))
    for prior in values.get("priors", "fixed").split(","):
        one_of("prior", prior, config.PRIORS)


# --- jobs ---


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
    """The finished runs that the executed notebooks of a plan trained.

    Args:
        outputs: Folder of the runs; default: `outputs_dir()`.

    Returns:
        Their folders, in the order of execution, and a sentence for each notebook whose run is missing.
    """
    folders, missing = [], []
    for job in training_jobs(plan):
        found = [folder for folder in job.runs(outputs) if (folder / "done.json").is_file()]
        folders += found
        missing += [] if found else [f"{job.title}: no finished run"]
    return list(dict.fromkeys(folders)), missing


def execute_plan(plan: Plan, workers: Workers | None = None, compare: bool = True) -> Path:
    """Do what is missing of a plan: notebook 01 for each corpus, all trainings, one comparison; print a summary.

    A failure leaves the others running, and the comparison (unless `compare` is off) is made from what is there.

    Returns:
        The HTML report of the comparison.

    Raises:
        InputError: a store or folder of the plan is not there (before anything runs), or notebooks refused their input.
        NotebookFailedError: notebooks failed.
    """
    workers = workers or Workers()
    jobs, outputs = _jobs(plan), outputs_dir().resolve()
    # the comparison of one corpus must not be replaced by that of several
    target = outputs / (f"comparison-{plan.path.stem}" if len(plan.music) > 1 else "comparison")
    if compare:
        given = {"outputs": str(outputs), "plan": str(plan.saved()), "target": str(target)}
        given["corpus"] = plan.music[0].store.stem
        last = tuple(range(len(jobs)))
        jobs.append(Job("07_compare", given, again=True, after=last, check=partial(_nothing_to_compare, plan)))
    cores = workers.count or min(len(os.sched_getaffinity(0)), 4)
    minutes = _seconds(plan, jobs) / min(cores, len(jobs)) / 60
    print(f"{len(jobs)} notebooks: about {minutes:.0f} minutes on {cores} cores", file=sys.stderr, flush=True)
    outcomes = batch.run(jobs, workers)
    print(batch.write_summary(outcomes), flush=True)
    raise_failures(outcomes)
    return target / "model_comparison.html"


def _jobs(plan: Plan) -> list[Job]:
    """Corpora and trainings, each with what it needs and what it waits for."""
    jobs, made = [], {}
    current = [c.is_current() for c in plan.corpora]  # all of them before anything is done
    for corpus, is_there in zip(plan.corpora, current, strict=True):
        if corpus.job:
            made[str(corpus.store)] = len(jobs)
            same = tuple(i for i, job in enumerate(jobs) if job.label == corpus.job.label)  # rendered by one at a time
            jobs.append(replace(corpus.job, page=plan.pages, after=same, again=not is_there))
    places: dict[tuple, list[int]] = {}
    for job in training_jobs(plan):
        given = job.parameters
        needs = tuple(made[store] for store in (given["store"], given.get("desk")) if store in made)
        after = tuple(places.get((BESIDE.get(job.notebook), given["store"], given["seed"]), ()))
        places.setdefault((job.notebook, given["store"], given["seed"]), []).append(len(jobs))
        check = partial(too_few_classes, given["store"], given["condition"]) if "condition" in given else None
        jobs.append(replace(job, needs=needs, after=after, check=check))
    return jobs


def _seconds(plan: Plan, jobs: Sequence[Job]) -> float:
    """About how long one core takes for what is not done yet."""
    windows, total = {str(corpus.store): corpus.windows() for corpus in plan.corpora}, 0.0
    for corpus in plan.corpora:
        if corpus.job and not corpus.store.is_dir():
            total += REST + RENDER * windows[str(corpus.store)] * corpus.job.parameters.get("clip_seconds", 0)
    for job in jobs:
        if job.notebook == "01_preprocess" or job.is_done():
            continue
        values = defaults(job.notebook) | job.parameters
        epochs = values.get("epochs", 0) * len(values.get("priors", "one").split(","))
        work = windows.get(values.get("store"), 0) * epochs
        if desk := values.get("desk"):
            work += windows[desk] * values["desk_epochs"] * 2 * len(values["desk_starts"].split(","))
        total += REST + EPOCH.get(job.notebook, 0) * work
    return total


def too_few_classes(store: Path | str, label: str) -> str:
    """Why there can be no conditional model of a label in a store; "" if there can."""
    found = open_store(store)
    return "" if found.table[label].nunique() > 1 else f"{found.path.name} has fewer than two classes of {label}"


def _nothing_to_compare(plan: Plan) -> str:
    return "" if runs_of(plan)[0] else "the plan has no finished run"
