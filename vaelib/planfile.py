"""A plan file: corpora × notebooks × seeds in a short YAML, every word checked before anything runs."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from pathlib import Path
from typing import Any

import yaml

from .config import (
    PRIORS,
    ROOT,
    InputError,
    ModelConfig,
    TrainConfig,
    data_dir,
    digest,
    front_end,
    one_of,
    papermill_dir,
    write_atomic,
)
from .corpus import READING, read_corpus
from .demo import CLIPS, corpus_name
from .demo.dials import fixed_factors, read_record
from .demo.tables import load_tables
from .entries import LONGEST, MOST_VALUES, Entry, parsed, plain, shown
from .jobs import MODEL_NOTEBOOKS, Job, checked, defaults
from .store import CUT, attributes, choose_windows, is_current, open_store, store_path

KEYS = {"corpora": dict, "profile": str, "seeds": list, "pages": bool, "defaults": dict, "runs": list}
USUAL = "loops"  # the corpus of a plan that names none: the rendered one, every dial as usual
MUSIC = {"folder", "store"}
# how a folder is read; a rendered corpus takes all but `READING`
OWN_MUSIC = ("split_seed", "windows", *READING, *CUT)
MOST_RUNS = 5_000  # of a grid
MOST = 2.0**63  # of a number
MOST_CLIPS, MOST_SECONDS = 100_000, 600  # of a rendered corpus: per genre, and of one clip
FEWEST_CLIPS = {"styles": 3, "desk": 60}  # one for each part of the split; independent components need more
STARTS = ("components", "random")  # of notebook 04's trainings on the desk
DIALS = ("composition", "variation", "fixed")
DEMO = ("demo", "clips_per_genre", "clip_seconds", *DIALS, "seed")
TRAINED = 0.7  # share of a rendered corpus
# The longest first (the desk's trainings are in its notebook), then whoever others wait for, the shortest last.
ORDER = ("beta_vae", "basic_vae", "conv_vae", "vade", "cvae")


@dataclass(frozen=True)
class Corpus:
    """A corpus of a plan: its name there, its mel store, and the job that makes it (None: it was made before)."""

    name: str
    store: Path
    job: Job | None

    @property
    def desk(self) -> bool:
        """Whether it is a mixing desk, which notebook 04 trains on beside another corpus."""
        if self.job is None:
            return attributes(self.store).get("rung") == "desk"
        return self.job.parameters.get("demo") == "desk"

    @property
    def bins(self) -> int:
        """Size of a window of its front end."""
        return prod((front_end(self.job.parameters["profile"]) if self.job else open_store(self.store).front_end).shape)

    def windows(self, current: bool) -> int:
        """Training windows of an epoch; 0: not known before somebody's own music is read.

        Args:
            current: What `is_current` says.
        """
        given = self.job.parameters if self.job else {}
        if "demo" in given:
            genres = 1 if self.desk else len(load_tables().genres)
            return round(TRAINED * genres * given["clips_per_genre"])
        return len(open_store(self.store).rows("train")) if current else 0

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
        reading, more = (
            {name: given[name] for name in names if name in given}
            for names in (READING, ("split_seed", "windows", *CUT))
        )
        return is_current(read_corpus(folder, **reading), front_end(given["profile"]), **more)


@dataclass(frozen=True)
class Plan:
    """What a plan file says, every word checked.

    Attributes:
        path: The file.
        corpora: Where the clips come from; a name is that of several where its entry is a grid.
        seeds: Seeds of every run.
        runs: `model`, names of its `corpora`, and parameters of its notebook but store, desk and seed, in the order of
            execution.
        pages: Whether executed notebooks become HTML pages with explorers.
        text: The plan as YAML where changes were made to the file's, else "".
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
        return next((c for c in self.corpora if c.desk), None)

    @property
    def music(self) -> tuple[Corpus, ...]:
        """All corpora but the desk; the first one is the plan's main one."""
        return tuple(c for c in self.corpora if not c.desk)

    def saved(self) -> Path:
        """The file that says exactly this: the plan's own, or, with changes, a copy in `papermill_runs/`."""
        copy = papermill_dir() / f"{self.path.stem}-{digest(self.text)}.yaml"
        return (write_atomic(copy, self.text) if self.text else self.path).resolve()


def read_plan(path: Path | str, changes: Sequence[str] = ()) -> Plan:
    """Read a plan and check every word of it.

    A relative `folder` or `store` is one of the repository.

    Args:
        changes: `name=value`, several values with commas: `seeds=0,1`, `profile=full`, `loops.variation=0,1` of the
            corpus `loops`, `corpora.variation=0` of every rendered corpus but a desk, or any parameter of notebooks,
            which then holds in the defaults and in every run that gives it.

    Raises:
        InputError: no such file, not YAML, or something in it is wrong: the message names file and line.
    """
    path = Path(path)
    top = _load(path)
    before = plain(top)
    for change in changes:
        _change(top, change)
    _check_kinds(top)
    with top.at("profile"):
        profile = front_end(top["profile"]).name
    seeds = [_parameter(top, "seeds", v, "03_conv_vae", "seed") for v in top.options("seeds")]
    corpora = _corpora(top["corpora"], profile)
    plan = Plan(path, corpora, tuple(dict.fromkeys(seeds)), _runs(top, corpora), top["pages"])
    after = plain(top)
    return plan if before == after else replace(plan, text=yaml.safe_dump(after, sort_keys=False))


def _load(path: Path) -> Entry:
    """The file in its right shape: known keys, mappings and lists where they belong, nothing missing."""
    try:
        with open(path, "rb") as file:
            text = file.read(LONGEST + 1)
    except OSError as e:
        raise InputError(f"no plan can be read at {path}: {e.strerror}") from None
    if len(text) > LONGEST:
        raise InputError(f"{path} is longer than {LONGEST // 1024} KiB: that is no plan")
    top = parsed(text, str(path))
    if not isinstance(top, Entry):
        raise InputError(f"{path}, line 1: a plan is a mapping with runs and, if need be, corpora, seeds and defaults")
    _check_kinds(top)
    with top.at("runs"):
        if not top.get("runs"):
            raise InputError("a plan without runs: give at least one, e.g. `- model: conv_vae`")
        if len(top["runs"]) > MOST_VALUES:
            raise InputError(f"{len(top['runs'])} runs are listed; a plan may list {MOST_VALUES}")
        for run in top["runs"]:
            if not isinstance(run, Entry) or "model" not in run:
                raise InputError(f"a run is a mapping with a model, e.g. `- model: conv_vae`, not {shown(run)}")
    place = {"": top.where[""]}
    top.setdefault("corpora", Entry({USUAL: Entry({}, place)}, place))
    for name, usual in {"profile": "compact", "seeds": [0], "pages": True, "defaults": Entry({}, place)}.items():
        top.setdefault(name, usual)
    with top.at("corpora"):
        if not top["corpora"]:
            raise InputError("'corpora' is empty: give at least one corpus, or leave the key out for the usual one")
    for name, corpus in top["corpora"].items():
        with top["corpora"].at(name):
            if not isinstance(corpus, Entry):
                raise InputError(f"corpus {name!r} must be a mapping, e.g. {{clips_per_genre: 8}}, not {shown(corpus)}")
    return top


def _check_kinds(top: Entry) -> None:
    for name, value in top.items():
        with top.at(name):
            kind = KEYS[one_of("key of a plan", name, KEYS)]
            if not isinstance(value, kind):
                said = {dict: "a mapping", str: "a word", list: "a list", bool: "true or false"}[kind]
                raise InputError(f"{name!r} must be {said}, not {shown(value)}")


def _change(top: Entry, change: str) -> None:
    """Apply `name=value`; messages about the value then name it instead of a line."""
    name, _, word = change.partition("=")
    place, dot, key = name.partition(".")
    try:
        value = parsed(f"[{word}]" if "," in word and word[0] not in "['\"" else word, change)
    except InputError:
        value = None
    if value is None or name in ("", "model", "corpora", "defaults", "runs") or isinstance(value, dict):
        names = (
            "seeds, profile, a notebook's parameter such as epochs, or one of a corpus such as loops.clips_per_genre"
        )
        raise InputError(f"{change[:200]!r} cannot be set: give name=value, where name is {names}")
    if dot:
        entries, name = _entries(top["corpora"], place, change), key
    elif name in KEYS:
        entries, value = [top], [value] if KEYS[name] is list and not isinstance(value, list) else value
    else:
        entries = [top["defaults"], *(run for run in top["runs"] if name in run)]
    for entry in entries:
        if dot and name in MUSIC:  # takes the place of whatever music there was; a desk stays one
            for other in (*MUSIC, *DEMO):
                if entry.get(other) != "desk":
                    entry.pop(other, None)
        entry[name] = value
        entry.where[name] = change[:200]


def _entries(corpora: Entry, place: str, change: str) -> list[Entry]:
    """The corpora that a change reaches: the one of that name, or every rendered one but a desk."""
    if place != "corpora":
        try:
            return [corpora[one_of("corpus of this plan", place, corpora)]]
        except InputError as e:
            raise InputError(f"{change[:200]}: {e}") from None
    found = [e for e in corpora.values() if not MUSIC & set(e) and e.get("demo") != "desk"]
    if not found:
        raise InputError(f"{change[:200]}: no corpus of this plan is rendered")
    return found


def _runs(top: Entry, corpora: Sequence[Corpus]) -> tuple[dict[str, Any], ...]:
    """Every run, grids expanded, none twice, in the order of execution."""
    found, known, shared = [], {}, top["defaults"]
    for run in top["runs"]:
        for model in run.options("model"):
            with run.at("model"):
                notebook = MODEL_NOTEBOOKS[one_of("model", model, MODEL_NOTEBOOKS)]
            usual = {name: value for name, value in defaults(notebook).items() if name not in ("store", "desk", "seed")}
            known |= usual
            given = dict.fromkeys((n for n in shared if n in usual), shared) | dict.fromkeys(run, run)
            del given["model"]
            given.pop("corpora", None)
            grid = {"condition": [usual["condition"]]} if "condition" in usual else {}
            grid |= {n: [_parameter(e, n, v, notebook) for v in e.options(n)] for n, e in given.items()}
            first = {"model": model, "corpora": _chosen(run, model, corpora)}
            with run.at():
                found += [first | values for values in _product(grid)]
    for name in shared:
        with shared.at(name):
            one_of("parameter of the notebooks of this plan", name, known)
    unique = {json.dumps(run, sort_keys=True): run for run in reversed(found)}  # the first of equals
    return tuple(sorted(reversed(unique.values()), key=lambda run: ORDER.index(run["model"])))


def _chosen(run: Entry, model: str, corpora: Sequence[Corpus]) -> tuple[str, ...]:
    """Names of the corpora of a run: those that it names, else all but a desk; Beta's with the desk."""
    desks = {c.name for c in corpora if c.desk}
    names = dict.fromkeys(c.name for c in corpora if model == "beta_vae" or not c.desk)
    with run.at("corpora"):
        if "corpora" in run:
            every = list(dict.fromkeys(c.name for c in corpora))
            names = {one_of("corpus of this plan", name, every): None for name in run.options("corpora")}
        if model != "beta_vae" and desks & set(names):
            raise InputError(f"{model} is not trained on a desk: leave {', '.join(desks)} to beta_vae")
        if not set(names) - desks:
            raise InputError(f"{model} needs a corpus that is no desk (notebook 04 trains on the desk beside it)")
    return tuple(names)


def _product(grid: dict[str, list]) -> list[dict[str, Any]]:
    size = prod(map(len, grid.values()))
    if size > MOST_RUNS:
        raise InputError(f"this grid has {size:,} combinations; a plan may have {MOST_RUNS:,}")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _parameter(entry: Entry, key: str, value: Any, notebook: str, name: str = "") -> Any:
    """A notebook's parameter with its type, and in its range."""
    name = name or key
    with entry.at(key):
        if key in ("store", "desk", "seed") and notebook != "01_preprocess":
            raise InputError(f"{key!r} is no parameter of a run: `seeds` and `corpora` stand at the top of a plan")
        if not isinstance(value, bool | int | float | str):
            raise InputError(f"{key!r} must be one value or a list of values, not {shown(value)}")
        value = checked(notebook, {name: value})[name]
        if isinstance(value, int | float) and not abs(value) < MOST:
            raise InputError(f"{key!r} is {value:g}: numbers are finite and below {MOST:g}")
        setting = "start_components" if name == "desk_components" else name.removeprefix("desk_")
        if setting in {f.name for f in fields(TrainConfig)}:
            TrainConfig(**{setting: value})
        elif name == "condition":
            one_of("condition", value, ("language", "genre"))
        elif name in {f.name for f in fields(ModelConfig)}:
            ModelConfig("", (1, 1), **{name: value})
        for what, valid in {"prior": PRIORS, "desk_start": STARTS}.items():
            for word in value.split(",") if name == f"{what}s" else []:
                one_of(what, word, valid)
    return value


def _corpora(given: Entry, profile: str) -> tuple[Corpus, ...]:
    """Every corpus of the plan, grids expanded, one for each store."""
    found: dict[Path, Corpus] = {}
    for name, entry in given.items():
        for values in _product({key: _values(entry, key) for key in entry}):
            corpus = _corpus(name, values, entry, profile)
            with entry.at():
                if found.setdefault(corpus.store, corpus) != corpus:
                    raise InputError(f"two corpora would share the store {corpus.store.name}: make them two plans")
                if sum(c.desk for c in found.values()) > 1:
                    raise InputError("this would be a second desk: a plan can have one")
    return tuple(found.values())


def _values(given: Entry, key: str) -> list:
    """All values of a key of a corpus."""
    with given.at(key):
        one_of("key of a corpus", key, [*sorted(MUSIC), *DEMO, *OWN_MUSIC])
        if given.get("demo") == "desk" and MUSIC & set(given):
            raise InputError("a desk is rendered, it cannot be made of music of your own: leave out demo, or the music")
        if key in READING and "folder" not in given:
            raise InputError(f"{key!r} says how a folder is read: give the folder too")
        if (key in DEMO and MUSIC & set(given)) or (key != "store" and "store" in given):
            raise InputError(f"{key!r} says how a corpus is made: it cannot stand beside a folder or store")
        if key == "fixed":  # a list is one value
            names = given[key] if isinstance(given[key], list) else [given[key]]
            if not all(isinstance(name, str) for name in names):
                raise InputError(f"'fixed' must be names of factors, not {shown(given[key])}")
            return ["+".join(fixed_factors("+".join(names)))]
    name = "corpus" if key in MUSIC else key
    return [_parameter(given, key, v, "01_preprocess", name) for v in given.options(key)]


def _path(word: str) -> Path:
    """A path as it stands in a plan: relative to the repository."""
    try:
        path = ROOT / Path(word).expanduser()
        path.exists()  # raises where the name is too long, or holds what no name can
        os.fsencode(path)
    except (OSError, ValueError, RuntimeError) as e:
        raise InputError(f"{word[:80]!r} is no path ({getattr(e, 'strerror', None) or e})") from None
    if "\0" in word:
        raise InputError(f"{word[:80]!r} is no path (it holds a null character)")
    return path


def _corpus(name: str, values: dict[str, Any], given: Entry, profile: str) -> Corpus:
    if "store" in values:
        with given.at("store"):
            return Corpus(name, _path(values["store"]), None)
    rendered = "folder" not in values
    if rendered:
        made = _dials(values, given, profile)
        dials = (made[dial] for dial in DIALS if dial in made)
        label = corpus_name(made["demo"], made["clips_per_genre"], made["clip_seconds"], *dials, seed=made["seed"])
    else:
        with given.at("folder"):
            folder = _path(values["folder"]).resolve()
            rendered = bool(read_record(folder))
        label, made = folder.name, {"split_seed": 0} | values | {"corpus": str(folder)}
        del made["folder"]
    with given.at("windows"):
        windows = choose_windows(rendered, values.get("windows", ""))[1]
    return Corpus(name, store_path(label, profile, windows), Job("01_preprocess", made | {"profile": profile}, label))


def _dials(values: dict[str, Any], given: Entry, profile: str) -> dict[str, Any]:
    """The parameters of notebook 01 for a rendered corpus, in their ranges."""
    usual, fe = defaults("01_preprocess"), front_end(profile)
    with given.at("demo"):
        demo = one_of("demo", values.get("demo", "styles"), CLIPS)
    for dial in DIALS if demo == "desk" else ():
        with given.at(dial):
            if dial in values:
                raise InputError(f"{dial!r} is no dial of a desk: its factors are the levels of its five stems")
    made = {k: usual[k] for k in DEMO if demo != "desk" or k not in DIALS}
    made |= {"demo": demo, "clips_per_genre": CLIPS[demo]} | values
    clips, seconds = made["clips_per_genre"], made["clip_seconds"]
    with given.at("clips_per_genre"):
        if clips < FEWEST_CLIPS[demo]:
            what = (
                "clips per genre cannot be split into training and test"
                if demo == "styles"
                else "clips of a desk are too few"
            )
            raise InputError(f"{clips} {what}; use at least {FEWEST_CLIPS[demo]}")
        if clips > MOST_CLIPS:
            raise InputError(f"{clips} clips per genre: rendering stops at {MOST_CLIPS:,}")
    with given.at("clip_seconds"):
        if seconds * fe.sample_rate < 0.99 * fe.min_samples:
            window = f"{fe.window_seconds:.1f}-s window of {profile!r}"
            raise InputError(f"clips of {seconds:g} s are shorter than the {window}")
        if seconds > MOST_SECONDS:
            raise InputError(f"clips of {seconds:g} s: rendering stops at {MOST_SECONDS:,} s")
    for dial in ("composition", "variation"):
        with given.at(dial):
            if not 0 <= made.get(dial, 0) <= 1:
                raise InputError(f"{dial} must be from 0 to 1, not {made[dial]:g}")
    return made
