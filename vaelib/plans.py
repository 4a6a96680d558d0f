"""What is to be done: notebooks as jobs, and plans of them in short YAML files, checked whole before anything runs.

What executes them (papermill, Dask; two seconds to import) is in `vaelib.batch`: not every command needs it.
"""

from __future__ import annotations

import ast
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from vaelib_demo import Dials

from . import config
from .collection import READING, UNLABELLED, read_corpus, read_record
from .config import ROOT, InputError, front_end, notebooks_dir, one_of, outputs_dir, papermill_dir, write_atomic
from .store import CUT, attributes, is_current, open_store, store_path

# The longest first (the desk's trainings are in its notebook), then whoever others wait for, the shortest last.
MODEL_NOTEBOOKS = {
    "beta_vae": "04_beta_vae", "basic_vae": "02_basic_vae", "conv_vae": "03_conv_vae", "vade": "06_vade",
    "cvae": "05_conditional_vae",
}  # fmt: skip
BESIDE = {"03_conv_vae": "02_basic_vae", "06_vade": "03_conv_vae"}  # whose runs a notebook puts beside its own
# Keys of a corpus: how files are cut, what is rendered
CUTTING = ("windows", "split_seed", *CUT)
DIALS = ("demo", "clips_per_genre", "clip_seconds", "composition", "variation", "fixed", "seed")
# Seconds on one core of 2026: an epoch of 1,000 windows of 64 × 64, the rest of a notebook, rendering a second
EPOCH, REST, RENDER = 5, 45, 0.007
SETTINGS = {f.name for cls in (config.ModelConfig, config.TrainConfig) for f in fields(cls)} - {"condition"}
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True, frozen=True)


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


def _cells(notebook: str, tags: Sequence[str] = ()) -> Iterator[str]:
    """Sources of a numbered notebook's code cells; with `tags`, of those that have one of them."""
    for cell in json.loads((notebooks_dir() / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code" and (not tags or {*tags} & {*cell["metadata"].get("tags", [])}):
            yield "".join(cell["source"])


def defaults(notebook: str) -> dict[str, Any]:
    """Names and default values in the cell of a notebook that is tagged `parameters`."""
    lines = ast.parse("".join(_cells(notebook, ["parameters"]))).body
    return {line.target.id: ast.literal_eval(line.value) for line in lines if isinstance(line, ast.AnnAssign)}


def checked(notebook: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the types of their defaults (a command line has strings); InputError as of `validated`."""
    known = {name: (type(value), value) for name, value in defaults(notebook).items()}
    values = validated(create_model(notebook, __config__=STRICT, **known), given, f"notebook {notebook}")
    return {name: getattr(values, name) for name in given}


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

    @property
    def final(self) -> Path:
        """The executed notebook: its name has a digest of code, parameters, stores, and of the code that trains."""
        code = list(_cells(self.notebook, self.cells and ("parameters", *self.cells)))
        stores = [attributes(self.parameters.get(name, "")).get("fingerprint", "") for name in ("store", "desk")]
        name = config.digest([code, self.parameters, stores, self.page, version("vaelib"), config.code_version()])
        return papermill_dir() / f"{self.title}-{name}.ipynb"

    def runs(self, outputs: Path | str | None = None) -> list[Path]:
        """Folders of the training runs of the newest notebook, executed or failed, that had these parameters."""
        given = checked(self.notebook, self.parameters)
        files = [p for p in papermill_dir().glob(f"{self.notebook}-*.ipynb") if not p.name.endswith(".partial.ipynb")]
        for path in sorted(files, key=lambda p: p.stat().st_mtime, reverse=True):
            metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
            if metadata.get("papermill", {}).get("parameters") == given:
                return [Path(outputs or outputs_dir()) / name for name in metadata.get("vaelib", {}).get("runs", [])]
        return []

    def is_done(self) -> bool:
        """Whether it is executed with these parameters and this code, and its training runs are still there."""
        return self.final.is_file() and all((folder / "done.json").is_file() for folder in self.runs())


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
        found = read_corpus(folder, **{k: given[k] for k in READING if k in given})
        return is_current(found, front_end(given["profile"]), **{k: given[k] for k in CUTTING if k in given})

    def size(self) -> float:
        """Thousands of 64 × 64 windows that an epoch reads; of music that was not read yet, as if of 1,000 clips."""
        if attributes(self.store):
            store = open_store(self.store)
            return len(store.rows("train")) * prod(store.front_end.shape) / 4.1e6
        given = defaults("01_preprocess") | self.job.parameters
        clips = 1000 if given["corpus"] else 0.7 * _dials(given)[1]
        return clips * prod(front_end(given["profile"]).shape) / 4.1e6


@dataclass(frozen=True)
class Plan:
    """What a plan file says."""

    name: str  # of the file
    text: str  # as YAML, with what was changed on the command line
    corpora: list[Corpus]  # where the clips come from; the first that is no desk is the main one
    jobs: list[Job]  # notebook 01 for each corpus, then the trainings in the order of execution

    @property
    def music(self) -> list[Corpus]:
        """All corpora but the desk."""
        return [corpus for corpus in self.corpora if not corpus.is_desk]

    def saved(self) -> Path:
        """The copy in `papermill_runs/` that says exactly this."""
        return write_atomic(papermill_dir() / f"{self.name}-{config.digest(self.text)}.yaml", self.text).resolve()

    def seconds(self) -> float:
        """About how long one core takes for what is not done yet, and the comparison."""
        size, total = {str(corpus.store): corpus.size() for corpus in self.corpora}, REST
        for job in (job for job in self.jobs if not job.is_done()):
            total += REST
            values = defaults(job.notebook) | job.parameters
            if values.get("corpus") == "":
                dials, clips = _dials(values)
                total += RENDER * clips * dials.seconds
            if store := values.get("store"):
                total += EPOCH * size[store] * values["epochs"] * len(values.get("priors", "one").split(","))
            if desk := values.get("desk"):
                total += EPOCH * size[desk] * values["desk_epochs"] * 2 * len(values["desk_starts"].split(","))
        return total


def read_plan(path: Path | str, changes: Sequence[str] = ()) -> Plan:
    """Read a plan and check it whole; InputError: something in it is wrong. Relative paths are of the repository.

    `changes`: `name=value`, several values with commas: `seeds=0,1`, `loops.variation=0,1` of the corpus `loops`, or
    any parameter of notebooks, which then holds in the defaults and in every run.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise InputError(f"no plan can be read at {path}: {' '.join(str(e).split())}") from None
    return make_plan(values, changes, Path(path))


def make_plan(values: dict[str, Any], changes: Sequence[str] = (), path: Path = Path("plan.yaml")) -> Plan:
    """A plan from what its file says; arguments and errors as of `read_plan`."""
    file = validated(_File, values, path.name)
    for change in changes:
        file = validated(_File, _changed(file.model_dump(), change), change)
    entries = [(name, one) for name, entry in file.corpora.items() for one in _grid(entry, whole="fixed")]
    corpora = [make_corpus(name, one, file.profile) for name, one in entries]
    desks = sum(corpus.is_desk for corpus in corpora)
    if desks > 1 or desks == len(corpora):
        raise InputError(f"{path.name}: a plan has one desk at most, and a corpus that is no desk beside it")
    if len({corpus.store for corpus in corpora}) < len(corpora):
        raise InputError(f"{path.name}: two corpora share a store: make two plans")
    text = yaml.safe_dump(file.model_dump(), sort_keys=False)
    return Plan(path.stem, text, corpora, _jobs(file, corpora, list(_runs(file, corpora))))


def _changed(values: dict[str, Any], change: str) -> dict[str, Any]:
    """What a plan file says with `name=value` in it."""
    name, _, word = change.partition("=")
    place, dot, key = name.partition(".")
    try:
        value = yaml.safe_load(f"[{word}]" if "," in word else word)
    except yaml.YAMLError:
        value = None
    if value is None or name in ("corpora", "defaults", "runs", "model"):
        raise InputError(f"{change!r} cannot be set: give name=value, e.g. epochs=2, seeds=0,1 or loops.variation=1")
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
    return values


def _list(value: Any) -> list:
    return value if isinstance(value, list) else [value]


def _grid(entry: dict[str, Any], whole: str = "") -> list[dict[str, Any]]:
    """One mapping for each combination of the values that are lists; a list under the key `whole` is one value."""
    lists = [[value] if key == whole else _list(value) for key, value in entry.items()]
    return [dict(zip(entry, one, strict=True)) for one in itertools.product(*lists)]


def make_corpus(name: str, entry: dict[str, Any], profile: str) -> Corpus:
    """A corpus from its entry: a `store`, a `folder` of music, or what is rendered; InputError as of `read_plan`."""
    kind = next((kind for kind in ("store", "folder") if kind in entry), "demo")
    valid = {"store": ("store",), "folder": ("folder", *READING, *CUTTING), "demo": (*DIALS, *CUTTING)}[kind]
    for key in entry:
        one_of(f"name in corpora.{name}", key, valid)
    place = (ROOT / Path(entry.get(kind, "")).expanduser()).resolve()
    if kind == "store":
        return Corpus(name, place, None, attributes(place).get("rung") == "desk")
    given = {k: v for k, v in entry.items() if k != "folder"} | {"profile": profile}
    given |= {"corpus": str(place)} if kind == "folder" else {}
    given |= {"fixed": "+".join(map(str, _list(entry["fixed"])))} if "fixed" in entry else {}
    given = checked("01_preprocess", given)
    label, rendered = (place.name, bool(read_record(place))) if kind == "folder" else (_rendered(name, given), True)
    store = store_path(label, profile, given.get("windows", ""), rendered)
    return Corpus(name, store, Job("01_preprocess", given, label), entry.get("demo") == "desk")


def _dials(given: Mapping[str, Any]) -> tuple[Dials, int]:
    """What a corpus is rendered with, and how many clips that are."""
    dials = Dials(**{k.replace("clip_seconds", "seconds"): v for k, v in given.items() if k in DIALS})
    return dials, dials.clips_per_genre * (1 if given.get("demo") == "desk" else 45)


def _rendered(name: str, given: dict[str, Any]) -> str:
    """Name of the folder of a rendered corpus; InputError: what cannot be rendered, or is too little to train on."""
    fe = front_end(given["profile"])
    try:
        dials = _dials(given)[0]
    except InputError as e:
        raise InputError(f"corpora.{name}: {e}") from None
    least = fe.min_samples / fe.sample_rate
    if dials.clips_per_genre < 3 or dials.seconds < 0.99 * least:
        raise InputError(f"corpora.{name}: at least 3 clips of a genre are needed, each of {least:.1f} s")
    return dials.name


def _runs(file: _File, corpora: Sequence[Corpus]) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """Model, names of corpora and parameters of every run, grids expanded."""
    known: set[str] = set()
    for number, entry in enumerate(file.runs):
        where = f"runs.{number}"
        for model in _list(entry.get("model", "")):
            notebook = MODEL_NOTEBOOKS[one_of(f"model in {where}", model, MODEL_NOTEBOOKS)]
            usual = {k: v for k, v in defaults(notebook).items() if k not in ("store", "desk", "seed")}
            known |= usual.keys()
            given = {"condition": usual["condition"]} if "condition" in usual else {}
            given |= {k: v for k, v in file.defaults.items() if k in usual}
            given |= {k: v for k, v in entry.items() if k not in ("model", "corpora")}
            for name in given:
                one_of(f"parameter of {notebook} in {where}", name, usual)
            # all corpora but a desk, unless the run names its own; Beta's with the desk
            names = list(dict.fromkeys(c.name for c in corpora if model == "beta_vae" or not c.is_desk))
            chosen = [one_of(f"corpus in {where}", name, names) for name in _list(entry.get("corpora", names))]
            for one in _grid(given):
                yield model, chosen, _in_range(checked(notebook, one))
    for name in file.defaults:
        one_of("name in defaults", name, sorted(known))


def _in_range(values: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a run; InputError: what its settings would refuse."""
    for prefix in ("", "desk_"):
        own = {k: values[prefix + k] for k in SETTINGS if prefix + k in values}
        of_model, of_training = config.read_settings(values.get("settings", ""), **own)
        config.ModelConfig(**{"name": "", "input_shape": (1, 1)} | of_model)
        config.TrainConfig(**of_training)
    one_of("condition", values.get("condition", "genre"), ("language", "genre"))
    for prior in values.get("priors", "fixed").split(","):
        one_of("prior", prior, config.PRIORS)
    return values


def _jobs(file: _File, corpora: list[Corpus], runs: list[tuple[str, list[str], dict[str, Any]]]) -> list[Job]:
    """Notebook 01 for each corpus, then all trainings, none twice; seeds outermost: a first one is complete early.

    The desk is trained on in notebook 04 of a run's first corpus: the others need not repeat it.
    """
    jobs, made, places, music = [], {}, {}, [c for c in corpora if not c.is_desk]
    desk = next((c for c in corpora if c.is_desk), None)
    for corpus in (c for c in corpora if c.job):
        made[str(corpus.store)] = len(jobs)
        same = tuple(i for i, job in enumerate(jobs) if job.label == corpus.job.label)  # rendered by one at a time
        jobs.append(replace(corpus.job, page=file.pages, after=same))
    runs = sorted(runs, key=lambda run: list(MODEL_NOTEBOOKS).index(run[0]))
    for seed, corpus, (model, chosen, given) in itertools.product(dict.fromkeys(file.seeds), music, runs):
        if corpus.name not in chosen:
            continue
        store, notebook = str(corpus.store), MODEL_NOTEBOOKS[model]
        given = {"store": store} | given | {"seed": seed}
        if model == "beta_vae":
            here = desk and desk.name in chosen and corpus == next(c for c in music if c.name in chosen)
            given = {k: v for k, v in given.items() if here or not k.startswith("desk_")}
            given["desk"] = str(desk.store) if here else ""
        if any(job.notebook == notebook and job.parameters == given for job in jobs):
            continue
        needs = tuple(made[place] for place in (store, given.get("desk")) if place in made)
        after = tuple(places.get((BESIDE.get(notebook), store, seed), ()))
        places.setdefault((notebook, store, seed), []).append(len(jobs))
        check = partial(too_few_classes, store, given["condition"]) if "condition" in given else None
        label = corpus.store.stem if len(music) > 1 else given.get("condition", "")
        jobs.append(Job(notebook, given, label, file.pages, needs=needs, after=after, check=check))
    return jobs


def runs_of(plan: Plan, outputs: Path | str | None = None) -> tuple[list[Path], list[str]]:
    """Finished runs in `outputs` that the notebooks of a plan trained, in order; a sentence for each missing."""
    folders, missing = [], []
    for job in (job for job in plan.jobs if "store" in job.parameters):
        found = [folder for folder in job.runs(outputs) if (folder / "done.json").is_file()]
        folders += found
        missing += [] if found else [f"{job.title}: no finished run"]
    return list(dict.fromkeys(folders)), missing


def too_few_classes(store: Path | str, label: str) -> str:
    """Why there can be no conditional model of a label in a store; "" if there can."""
    classes = {*open_store(store).table[label]} - {UNLABELLED}
    why = f"{Path(store).name} has fewer than two classes of {label}: a conditional model of it is left out"
    return "" if len(classes) > 1 else why
