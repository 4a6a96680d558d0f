"""A plan file: corpora × notebooks × seeds in a short YAML, every word checked before anything runs."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
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
from .demo import corpus_name
from .entries import LONGEST, MOST_VALUES, Entry, parsed, plain, shown
from .jobs import MODEL_NOTEBOOKS, Job, checked, defaults
from .store import CUT, is_current, open_store, store_path

KEYS = {"corpus": dict, "profile": str, "seeds": list, "defaults": dict, "runs": list}
MUSIC = {"folder", "store"}
OWN_MUSIC = ("split_seed", *READING, *CUT)  # how a folder is read; a demo corpus takes the first and the last two
MOST_RUNS = 5_000  # of a grid
MOST = 2.0**63  # of a number
MOST_CLIPS, MOST_SECONDS = 100_000, 3_600  # of a rendered corpus: per genre, and of one clip
DEMO = ("clips_per_genre", "clip_seconds", "variation", "seed")
# Whoever others are compared with comes first; the short Betas at the end keep all workers busy to the last minute.
ORDER = ("basic_vae", "conv_vae", "cvae", "vade", "beta_vae")


@dataclass(frozen=True)
class Corpus:
    """A corpus of a plan: its mel store, and the job that makes it (None: it was made before)."""

    store: Path
    job: Job | None

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
        reading, cut = ({name: given[name] for name in names if name in given} for names in (READING, CUT))
        return is_current(
            read_corpus(folder, **reading), front_end(given["profile"]), given.get("split_seed", 0), **cut
        )


@dataclass(frozen=True)
class Plan:
    """What a plan file says, every word checked.

    Attributes:
        path: The file.
        corpora: Where the clips come from.
        seeds: Seeds of every run.
        runs: `model` and parameters of its notebook but store and seed, in the order of execution.
        text: The plan as YAML where changes were made to the file's, else "".
    """

    path: Path
    corpora: tuple[Corpus, ...]
    seeds: tuple[int, ...]
    runs: tuple[dict[str, Any], ...]
    text: str = ""

    def saved(self) -> Path:
        """The file that says exactly this: the plan's own, or, with changes, a copy in `papermill_runs/`."""
        copy = papermill_dir() / f"{self.path.stem}-{digest(self.text)}.yaml"
        return (write_atomic(copy, self.text) if self.text else self.path).resolve()


def read_plan(path: Path | str, changes: Sequence[str] = ()) -> Plan:
    """Read a plan and check every word of it.

    A relative `folder` or `store` is one of the repository.

    Args:
        changes: `name=value`, several values with commas: `seeds=0,1`, `profile=full`, `corpus.variation=0,1`, or any
            parameter of notebooks, which then holds in the defaults and in every run that gives it.

    Raises:
        InputError: no such file, not YAML, or something in it is wrong: the message names file and line.
    """
    path = Path(path)
    top = _load(path)
    before = plain(top)
    for change in changes:
        _change(top, change)
    with top.at("profile"):
        profile = front_end(top["profile"]).name
    seeds = [_parameter(top, "seeds", v, "03_conv_vae", "seed") for v in top.options("seeds")]
    plan = Plan(path, _corpora(top["corpus"], profile), tuple(dict.fromkeys(seeds)), _runs(top))
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
        raise InputError(f"{path}, line 1: a plan is a mapping with runs and, if need be, corpus, seeds and defaults")
    for name, value in top.items():
        with top.at(name):
            kind = KEYS[one_of("key of a plan", name, KEYS)]
            if not isinstance(value, kind):
                said = {dict: "mapping", str: "word"}.get(kind, "list")
                raise InputError(f"{name!r} must be a {said}, not {shown(value)}")
    with top.at("runs"):
        if not top.get("runs"):
            raise InputError("a plan without runs: give at least one, e.g. `- model: conv_vae`")
        if len(top["runs"]) > MOST_VALUES:
            raise InputError(f"{len(top['runs'])} runs are listed; a plan may list {MOST_VALUES}")
        for run in top["runs"]:
            if not isinstance(run, Entry) or "model" not in run:
                raise InputError(f"a run is a mapping with a model, e.g. `- model: conv_vae`, not {shown(run)}")
    for name, usual in {"corpus": {}, "profile": "compact", "seeds": [0], "defaults": {}}.items():
        top.setdefault(name, usual or Entry({}, {"": top.where[""]}))
    return top


def _change(top: Entry, change: str) -> None:
    """Apply `name=value`; messages about the value then name it instead of a line."""
    name, _, word = change.partition("=")
    try:
        value = parsed(f"[{word}]" if "," in word and word[0] not in "['\"" else word, change)
    except InputError:
        value = None
    if value is None or name in ("", "model", "corpus", "defaults", "runs"):
        names = "seeds, profile, a notebook's parameter such as epochs, or one such as corpus.clips_per_genre"
        raise InputError(f"{change[:200]!r} cannot be set: give name=value, where name is {names}")
    if name in KEYS:
        entries, value = [top], value if name == "profile" or isinstance(value, list) else [value]
    elif name.startswith("corpus."):
        entries, name = [top["corpus"]], name.removeprefix("corpus.")
        if name in MUSIC:  # takes the place of whatever music there was
            for other in (*MUSIC, *DEMO):
                top["corpus"].pop(other, None)
    else:
        entries = [top["defaults"], *(run for run in top["runs"] if name in run)]
    for entry in entries:
        entry[name] = value
        entry.where[name] = change[:200]


def _runs(top: Entry) -> tuple[dict[str, Any], ...]:
    """Every run, grids expanded, none twice, in the order of execution."""
    found, known, shared = [], {}, top["defaults"]
    for run in top["runs"]:
        for model in run.options("model"):
            with run.at("model"):
                notebook = MODEL_NOTEBOOKS[one_of("model", model, MODEL_NOTEBOOKS)]
            usual = {name: value for name, value in defaults(notebook).items() if name not in ("store", "seed")}
            known |= usual
            given = dict.fromkeys((n for n in shared if n in usual), shared) | dict.fromkeys(run, run)
            del given["model"]
            grid = {"condition": [usual["condition"]]} if "condition" in usual else {}
            grid |= {n: [_parameter(e, n, v, notebook) for v in e.options(n)] for n, e in given.items()}
            with run.at():
                found += [{"model": model} | values for values in _product(grid)]
    for name in shared:
        with shared.at(name):
            one_of("parameter of the notebooks of this plan", name, known)
    unique = {json.dumps(run, sort_keys=True): run for run in reversed(found)}  # the first of equals
    return tuple(sorted(reversed(unique.values()), key=lambda run: ORDER.index(run["model"])))


def _product(grid: dict[str, list]) -> list[dict[str, Any]]:
    size = math.prod(map(len, grid.values()))
    if size > MOST_RUNS:
        raise InputError(f"this grid has {size:,} combinations; a plan may have {MOST_RUNS:,}")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _parameter(entry: Entry, key: str, value: Any, notebook: str, name: str = "") -> Any:
    """A notebook's parameter with its type, and in its range."""
    name = name or key
    with entry.at(key):
        if key in ("store", "seed") and notebook != "01_preprocess":
            raise InputError(f"{key!r} is no parameter of a run: `seeds` and `corpus` stand at the top of a plan")
        if not isinstance(value, bool | int | float | str):
            raise InputError(f"{key!r} must be one value or a list of values, not {shown(value)}")
        value = checked(notebook, {name: value})[name]
        if isinstance(value, int | float) and not abs(value) < MOST:
            raise InputError(f"{key!r} is {value:g}: numbers are finite and below {MOST:g}")
        if name in {f.name for f in fields(TrainConfig)}:
            TrainConfig(**{name: value})
        elif name == "condition":
            one_of("condition", value, ("language", "genre"))
        elif name in {f.name for f in fields(ModelConfig)}:
            ModelConfig("", (1, 1), **{name: value})
        for prior in value.split(",") if name == "priors" else []:
            one_of("prior", prior, PRIORS)
    return value


def _corpora(given: Entry, profile: str) -> tuple[Corpus, ...]:
    """Every corpus of the grid, one for each store."""
    grid = {}
    for key in given:
        with given.at(key):
            one_of("key of corpus", key, [*sorted(MUSIC), *DEMO, *OWN_MUSIC])
            if key in READING and "folder" not in given:
                raise InputError(f"{key!r} says how a folder is read: give the folder too")
            if (key in DEMO and MUSIC & set(given)) or (key != "store" and "store" in given):
                raise InputError(f"{key!r} says how a corpus is made: it cannot stand beside a folder or store")
        name = "corpus" if key in MUSIC else key
        grid[key] = [_parameter(given, key, v, "01_preprocess", name) for v in given.options(key)]
    found: dict[Path, Corpus] = {}
    for values in _product(grid):
        corpus = _corpus(values, given, profile)
        with given.at():
            if found.setdefault(corpus.store, corpus) != corpus:
                raise InputError(f"two corpora would share the store {corpus.store.name}: make them two plans")
    return tuple(found.values())


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


def _corpus(values: dict[str, Any], given: Entry, profile: str) -> Corpus:
    if "store" in values:
        with given.at("store"):
            return Corpus(_path(values["store"]), None)
    if "folder" in values:
        with given.at("folder"):
            folder = _path(values["folder"]).resolve()
        name, made = folder.name, {"split_seed": 0} | values | {"corpus": str(folder)}
        del made["folder"]
    else:
        made = {k: v for k, v in defaults("01_preprocess").items() if k in DEMO} | values
        fe, (clips, seconds, variation, _) = front_end(profile), (made[k] for k in DEMO)
        name = corpus_name(*(made[k] for k in DEMO))
        with given.at("clips_per_genre"):
            if clips < 3:
                raise InputError(f"{clips} clips per genre cannot be split into training and test; use at least 3")
            if clips > MOST_CLIPS:
                raise InputError(f"{clips} clips per genre: rendering stops at {MOST_CLIPS:,}")
        with given.at("clip_seconds"):
            if seconds * fe.sample_rate < 0.99 * fe.min_samples:
                window = f"{fe.window_seconds:.1f}-s window of {profile!r}"
                raise InputError(f"clips of {seconds:g} s are shorter than the {window}")
            if seconds > MOST_SECONDS:
                raise InputError(f"clips of {seconds:g} s: rendering stops at {MOST_SECONDS:,} s")
        with given.at("variation"):
            if not 0 <= variation <= 1:
                raise InputError(f"variation must be from 0 to 1, not {variation:g}")
    return Corpus(store_path(name, profile), Job("01_preprocess", made | {"profile": profile}, name))
