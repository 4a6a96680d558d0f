"""A plan: corpora × notebooks × seeds in a short YAML file, checked whole before anything runs."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field
from vaelib_demo import CLIPS, FIXED, VARIATION, corpus_name
from vaelib_demo.dials import fixed_factors
from vaelib_demo.tables import load_tables

from . import batch
from .batch import MODEL_NOTEBOOKS, STRICT, Job, checked, parameters_of, raise_failures, validated
from .collection import READING, read_corpus, read_record
from .config import (
    COMPACT,
    PRIORS,
    ROOT,
    InputError,
    ModelConfig,
    TrainConfig,
    data_dir,
    digest,
    front_end,
    one_of,
    outputs_dir,
    papermill_dir,
    write_atomic,
)
from .store import CUT, attributes, choose_windows, is_current, open_store, store_path
from .workers import Workers

# The longest first (the desk's trainings are in its notebook), then whoever others wait for, the shortest last.
ORDER = ("beta_vae", "basic_vae", "conv_vae", "vade", "cvae")
BESIDE = {"conv_vae": "basic_vae", "vade": "conv_vae"}  # whose runs a notebook puts beside its own
# Seconds on one core of 2026: an epoch of 1,000 windows of 64 × 64 in batches of 8, what else a notebook does, and
# rendering 1,000 training windows of 1 s
EPOCH = {"basic_vae": 1.5, "conv_vae": 6.0, "beta_vae": 6.0, "cvae": 6.0, "vade": 3.5}
REST, MUSIC = 45, 7.0
TRAINED = 0.7  # share of a rendered corpus

Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0)]


class _File(BaseModel):
    """The keys of a plan file."""

    model_config = STRICT
    corpora: dict[str, dict[str, Any]] = Field({"loops": {}}, min_length=1)
    profile: str = "compact"
    seeds: list[Seed] = Field([0], min_length=1)
    pages: bool = True
    defaults: dict[str, Any] = {}
    runs: list[dict[str, Any]] = Field(min_length=1)


class _Made(BaseModel):
    """A corpus whose mel store is there."""

    model_config = STRICT
    store: str


class _Cut(BaseModel):
    model_config = STRICT
    windows: Literal["", "start", "anywhere"] = ""
    split_seed: Seed = 0
    segment_seconds: float = 30.0
    hop_seconds: float = 0.0


class _Music(_Cut):
    """A folder of music."""

    folder: str
    labels: str = ""
    manifest: str = ""
    allow_outside: bool = False


class _Styles(_Cut):
    """The rendered corpus."""

    demo: Literal["styles"] = "styles"
    clips_per_genre: int = Field(CLIPS["styles"], ge=3, le=100_000)  # one for each part of the split
    clip_seconds: float = Field(6.0, gt=0, le=600)
    composition: Share = 0.0
    variation: Share = VARIATION
    fixed: str | list[str] = "+".join(FIXED)
    seed: Seed = 0


class _Desk(_Cut):
    """The rendered mixing desk."""

    demo: Literal["desk"]
    clips_per_genre: int = Field(CLIPS["desk"], ge=60, le=100_000)  # independent components need so many
    clip_seconds: float = Field(6.0, gt=0, le=600)
    seed: Seed = 0


@dataclass(frozen=True)
class Corpus:
    """A corpus of a plan.

    Attributes:
        name: Its name there; a corpus with a list of values is several corpora of one name.
        store: Its mel store.
        job: What makes it; None: it was made before.
        is_desk: Whether it is a mixing desk, which notebook 04 trains on beside another corpus.
    """

    name: str
    store: Path
    job: Job | None
    is_desk: bool

    def is_current(self) -> bool:
        """Whether the store is made, from the files as they are now.

        Raises:
            InputError: the given store or folder of music is not there.
        """
        if self.job is None:
            return open_store(self.store).path.is_dir()
        given = self.job.parameters
        folder = Path(given.get("corpus") or data_dir() / "corpora" / self.job.label)
        if "corpus" not in given and not (folder / "manifest.csv").is_file():
            return self.store.is_dir() and not folder.is_dir()  # a rendered corpus may be deleted, not half-made
        reading = {name: given[name] for name in READING if name in given}
        how = {name: given[name] for name in ("split_seed", "windows", *CUT) if name in given}
        return is_current(read_corpus(folder, **reading), front_end(given["profile"]), **how)

    def windows(self) -> float:
        """Training windows of an epoch, in thousands of 64 × 64; 0: not known before somebody's own music is read."""
        if self.store.is_dir():
            opened = open_store(self.store)
            clips, fe = len(opened.rows("train")), opened.front_end
        else:
            genres = 1 if self.is_desk else len(load_tables().genres)
            clips = TRAINED * genres * self.job.parameters.get("clips_per_genre", 0)
            fe = front_end(self.job.parameters["profile"])
        return clips / 1000 * prod(fe.shape) / prod(COMPACT.shape)


@dataclass(frozen=True)
class Plan:
    """What a plan file says.

    Attributes:
        path: The file.
        corpora: Where the clips come from.
        seeds: Seeds of every run.
        runs: `model`, names of its `corpora`, and parameters of its notebook but store, desk and seed, in the order of
            execution.
        pages: Whether executed notebooks become HTML pages with explorers.
        text: The plan as YAML where it is not that of the file, else "".
    """

    path: Path
    corpora: tuple[Corpus, ...]
    seeds: tuple[int, ...]
    runs: tuple[dict[str, Any], ...]
    pages: bool = True
    text: str = ""

    @property
    def desk(self) -> Corpus | None:
        """The mixing desk, which notebook 04 trains on."""
        return next((c for c in self.corpora if c.is_desk), None)

    @property
    def music(self) -> tuple[Corpus, ...]:
        """All corpora but the desk; the first one is the plan's main one."""
        return tuple(c for c in self.corpora if not c.is_desk)

    def saved(self) -> Path:
        """The file that says exactly this: the plan's own, or, with changes, a copy in `papermill_runs/`."""
        copy = papermill_dir() / f"{self.path.stem}-{digest(self.text)}.yaml"
        return (write_atomic(copy, self.text) if self.text else self.path).resolve()


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
    except (OSError, ValueError) as e:
        raise InputError(f"no plan can be read at {path}: {getattr(e, 'strerror', None) or e}") from None
    except yaml.YAMLError as e:
        raise InputError(f"{path.name} is not YAML: {' '.join(str(e).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path.name}: a plan is a mapping with runs and, if need be, corpora, seeds and defaults")
    return make_plan(values, changes, path)


def make_plan(values: dict[str, Any], changes: Sequence[str] = (), path: Path = Path("plan.yaml")) -> Plan:
    """A plan from what its file says; arguments and errors as of `read_plan`."""
    before = json.dumps(values, default=str)
    file = validated(_File, values, path.name).model_copy(deep=True)
    for change in changes:
        file = _changed(file, change)
    fe = front_end(file.profile)
    corpora = {}
    for name, entry in file.corpora.items():
        for one in _grid(entry, keep=("fixed",)):
            corpus = _corpus(name, one, fe.name)
            if corpora.setdefault(corpus.store, corpus) != corpus:
                raise InputError(f"{path.name}: two corpora share the store {corpus.store.name}: make two plans")
    corpora = tuple(corpora.values())
    if sum(c.is_desk for c in corpora) > 1:
        raise InputError(f"{path.name}: a plan can have one desk, not several")
    if all(c.is_desk for c in corpora):
        raise InputError(f"{path.name}: a plan needs a corpus that is no desk (notebook 04 trains on it beside)")
    plan = Plan(path, corpora, tuple(dict.fromkeys(file.seeds)), _runs(file, corpora), file.pages)
    after = file.model_dump(exclude_unset=True)
    return replace(plan, text="" if json.dumps(after, default=str) == before else yaml.safe_dump(after, sort_keys=False))


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
    values = file.model_dump(exclude_unset=True)
    if dot:
        entries = values.setdefault("corpora", file.corpora)
        entry = entries[one_of("corpus of this plan", place, entries)]
        if key in ("folder", "store"):
            entry.clear()  # other music in place of what was there
        entry[key] = value
    elif name in _File.model_fields:
        values[name] = [value] if name == "seeds" and not isinstance(value, list) else value
    else:
        for entry in (values.setdefault("defaults", {}), *(run for run in values["runs"] if name in run)):
            entry[name] = value
    return validated(_File, values, change)


def _grid(entry: dict[str, Any], keep: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One mapping for each combination of the values that are lists."""
    lists = [v if isinstance(v, list) and k not in keep else [v] for k, v in entry.items()]
    return [dict(zip(entry, one, strict=True)) for one in itertools.product(*lists)]


def _corpus(name: str, entry: dict[str, Any], profile: str) -> Corpus:
    where = f"corpora.{name}"
    if "store" in entry:
        store = ROOT / Path(validated(_Made, entry, where).store).expanduser()
        return Corpus(name, store, None, attributes(store).get("rung") == "desk")
    kind = _Music if "folder" in entry else _Desk if entry.get("demo") == "desk" else _Styles
    given = validated(kind, entry, where)
    made, rendered = given.model_dump(exclude_unset=True), kind is not _Music
    if rendered:
        fe = front_end(profile)
        if given.clip_seconds * fe.sample_rate < 0.99 * fe.min_samples:
            raise InputError(f"{where}: clips of {given.clip_seconds:g} s are shorter than a window of {profile!r}")
        made |= given.model_dump(include={"demo", "clips_per_genre", "clip_seconds", "seed"})
        how = [made["demo"], given.clips_per_genre, given.clip_seconds]
        if kind is _Styles:
            fixed = [given.fixed] if isinstance(given.fixed, str) else given.fixed
            made |= {"composition": given.composition, "variation": given.variation}
            made["fixed"] = "+".join(fixed_factors("+".join(fixed)))
            how += [given.composition, given.variation, made["fixed"]]
        label = corpus_name(*how, seed=given.seed)
    else:
        folder = (ROOT / Path(given.folder).expanduser()).resolve()
        label, made["corpus"], rendered = folder.name, str(folder), bool(read_record(folder))
        del made["folder"]
    windows = choose_windows(rendered, given.windows)[1]
    job = Job("01_preprocess", made | {"profile": profile}, label)
    return Corpus(name, store_path(label, profile, windows), job, kind is _Desk)


def _runs(file: _File, corpora: Sequence[Corpus]) -> tuple[dict[str, Any], ...]:
    """Every run, grids expanded, none twice, in the order of execution."""
    found, known = [], set()
    for number, entry in enumerate(file.runs):
        where = f"runs.{number}"
        if "model" not in entry:
            raise InputError(f"{where}: a run is a mapping with a model, e.g. `- model: conv_vae`")
        for model in entry["model"] if isinstance(entry["model"], list) else [entry["model"]]:
            notebook = MODEL_NOTEBOOKS[one_of(f"model in {where}", model, MODEL_NOTEBOOKS)]
            usual = {k: f.default for k, f in parameters_of(notebook).model_fields.items()}
            known |= usual.keys()
            given = {k: v for k, v in file.defaults.items() if k in usual} | entry
            names = _names(given.pop("corpora", None), model, corpora, where)
            del given["model"]
            for name in ("store", "desk", "seed"):
                if name in given:
                    raise InputError(f"{where}.{name}: `corpora` and `seeds` say that, at the top of a plan")
            given = {"condition": usual["condition"]} | given if "condition" in usual else given
            for one in _grid(given):
                values = checked(notebook, one)
                _check_ranges(values)
                found.append({"model": model, "corpora": names} | values)
    for name in file.defaults:
        one_of("name in defaults", name, known - {"store", "desk", "seed"})
    unique = {json.dumps(run, sort_keys=True): run for run in found}
    return tuple(sorted(unique.values(), key=lambda run: ORDER.index(run["model"])))


def _names(given: Any, model: str, corpora: Sequence[Corpus], where: str) -> tuple[str, ...]:
    """Names of the corpora of a run: those that it names, else all but a desk; Beta's with the desk."""
    if given is None:
        return tuple(dict.fromkeys(c.name for c in corpora if model == "beta_vae" or not c.is_desk))
    names = given if isinstance(given, list) else [given]
    for name in names:
        valid = [c.name for c in corpora if model == "beta_vae" or not c.is_desk]
        one_of(f"corpus in {where}", name, dict.fromkeys(valid))
    return tuple(dict.fromkeys(names))


def _check_ranges(values: dict[str, Any]) -> None:
    for prefix in ("", "desk_"):
        own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
        TrainConfig(**{f.name: own[f.name] for f in fields(TrainConfig) if f.name in own})
    sizes = {f.name: values[f.name] for f in fields(ModelConfig) if f.name in values and f.name != "condition"}
    ModelConfig("", (1, 1), **sizes)
    if "condition" in values:
        one_of("condition", values["condition"], ("language", "genre"))
    for prior in values.get("priors", PRIORS[0]).split(","):
        one_of("prior", prior, PRIORS)


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

    A failure leaves the others running, and the comparison is made from what is there.

    Args:
        workers: Which workers; default: this machine's.
        compare: Whether the comparison is made.

    Returns:
        The HTML report of the comparison.

    Raises:
        InputError: a store or folder of the plan is not there (before anything runs), or notebooks refused their input.
        NotebookFailedError: notebooks failed.
    """
    workers = workers or Workers()
    jobs, target = _jobs(plan), outputs_dir().resolve() / "comparison"
    if len(plan.music) > 1:  # the comparison of one corpus must not be replaced by that of several
        target = target.with_name(f"comparison-{plan.path.stem}")
    if compare:
        root, nothing = str(outputs_dir().resolve()), partial(_nothing_to_compare, plan)
        given = {"outputs": root, "corpus": plan.music[0].store.stem, "plan": str(plan.saved()), "target": str(target)}
        jobs.append(Job("07_compare", given, again=True, after=tuple(range(len(jobs))), check=nothing, seconds=75))
    count = workers.here(len(jobs))
    if count:
        minutes = max(sum(job.seconds for job in jobs) / count, *(job.seconds for job in jobs)) / 60
        print(f"{len(jobs)} notebooks, {count} at a time: about {minutes:.0f} minutes", file=sys.stderr, flush=True)
    outcomes = batch.run(jobs, workers)
    print(*outcomes, batch.write_summary(outcomes), sep="\n", flush=True)
    raise_failures(outcomes)
    return target / "model_comparison.html"


def _jobs(plan: Plan) -> list[Job]:
    """Corpora and trainings, each with what it needs and about how long it takes."""
    jobs, number, size = [], {}, {}
    current = [c.is_current() for c in plan.corpora]  # all of them before anything is done
    for corpus, is_there in zip(plan.corpora, current, strict=True):
        size[str(corpus.store)] = corpus.windows()
        if corpus.job:
            number[str(corpus.store)] = len(jobs)
            same = tuple(i for i, job in enumerate(jobs) if job.label == corpus.job.label)  # rendered by one at a time
            job = replace(corpus.job, page=plan.pages, after=same, again=not is_there)
            work = MUSIC * size[str(corpus.store)] * job.parameters.get("clip_seconds", 0)
            jobs.append(replace(job, seconds=_left(job, REST + work)))
    places: dict[tuple, list[int]] = {}
    models = {notebook: model for model, notebook in MODEL_NOTEBOOKS.items()}
    for job in training_jobs(plan):
        given, model = job.parameters, models[job.notebook]
        values = {k: f.default for k, f in parameters_of(job.notebook).model_fields.items()} | given
        work = size[given["store"]] * values["epochs"] * len(values.get("priors", "one").split(","))
        if desk := given.get("desk"):
            work += size[desk] * values["desk_epochs"] * 2 * len(values["desk_starts"].split(","))
        needs = tuple(number[store] for store in (given["store"], given.get("desk")) if store in number)
        after = tuple(places.get((BESIDE.get(model), given["store"], given["seed"]), ()))
        places.setdefault((model, given["store"], given["seed"]), []).append(len(jobs))
        check = partial(too_few_classes, given["store"], given["condition"]) if "condition" in given else None
        seconds = _left(job, REST + EPOCH[model] * work)
        jobs.append(replace(job, needs=needs, after=after, check=check, seconds=seconds))
    return jobs


def _left(job: Job, seconds: float) -> float:
    return 0.0 if job.is_done() and not job.again else seconds


def too_few_classes(store: Path | str, label: str) -> str:
    """Why there can be no conditional model of a label in a store; "" if there can."""
    found = open_store(store)
    return "" if found.table[label].nunique() > 1 else f"{found.path.name} has fewer than two classes of {label}"


def _nothing_to_compare(plan: Plan) -> str:
    return "" if runs_of(plan)[0] else "the plan has no finished run"
