"""What is executed: a notebook with parameters, checked before anything starts, and the name of what comes of it."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import nbformat
import papermill as pm

from .config import ROOT, InputError, digest, notebooks_dir, one_of, outputs_dir, papermill_dir
from .progress import clock
from .runs import find_runs
from .store import fingerprint_of, open_store

MODEL_NOTEBOOKS = {
    "basic_vae": "02_basic_vae",
    "conv_vae": "03_conv_vae",
    "beta_vae": "04_beta_vae",
    "cvae": "05_conditional_vae",
    "vade": "06_vade",
}
# What tells one trained run from another; `vaelib.runs.find_runs` knows these names.
TELLING = ("condition", "seed", "epochs", "detilt", "beta", "target")
FAILURES = ("failed", "refused")


class NotebookFailedError(RuntimeError):
    """A notebook stopped with an error; the message names it, the error and the kept file."""


@dataclass(frozen=True)
class Job:
    """One notebook with parameters.

    Attributes:
        notebook: Name without suffix, e.g. `03_conv_vae`.
        parameters: Values for its parameters cell.
        label: Added to the name of the executed notebook, e.g. `language`.
        page: Whether the executed notebook becomes an HTML page, with explorers in it.
    """

    notebook: str
    parameters: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    page: bool = True

    @property
    def source(self) -> Path:
        return notebooks_dir() / f"{self.notebook}.ipynb"

    @property
    def words(self) -> list[str]:
        """The settings of a training as one says them: `language`, `60 epochs`, `detilt`, `seed 2`."""
        said = []
        for name, value in sorted(self.parameters.items(), key=lambda p: (not isinstance(p[1], str), p[0] == "seed")):
            if name == "epochs":
                said.append(f"{value} epochs")
            elif name not in ("store", "desk") and value is not False:
                said.append(name if value is True else value if isinstance(value, str) else f"{name} {value:g}")
        return said

    @property
    def title(self) -> str:
        """Notebook and label; of a training also its settings, because several of one notebook run at a time."""
        words = self.words if self.notebook in MODEL_NOTEBOOKS.values() else []
        parts = [self.notebook, self.label, *(w for w in words if w != self.label)]
        return "-".join(p for p in parts if p).replace(" ", "").replace("/", "+")

    @property
    def name(self) -> str:
        """Readable and unique: title, and a hash of parameters, stores, notebook and library code."""
        code = [p.read_text() for p in sorted((ROOT / "vaelib").rglob("*.py"))]
        cells = [c.source for c in nbformat.read(self.source, 4).cells]
        stores = [fingerprint_of(self.parameters.get(name, "")) for name in ("store", "desk")]
        data = [self.parameters, stores, str(outputs_dir()), self.page]
        return f"{self.title}-{digest([data, cells, code])}"

    @property
    def final(self) -> Path:
        """The executed notebook."""
        return papermill_dir() / f"{self.name}.ipynb"

    def runs(self, root: Path | None = None) -> list[tuple[dict[str, Any], Path | None]]:
        """The training runs that this notebook leaves: one for each prior, those of the desk, else one (or none).

        Returns:
            For each what `find_runs` is asked for, and the newest finished run that also has the other parameters
            given here (learning rate, …), or None.
        """
        model = {v: k for k, v in MODEL_NOTEBOOKS.items()}.get(self.notebook)
        if model is None or "store" not in self.parameters:
            return []
        given = checked(self.notebook, self.parameters)
        values = defaults(self.notebook) | given
        wanted = {"model": model, "fingerprint": fingerprint_of(given["store"])}
        wanted |= {name: values[name] for name in TELLING if name in values}
        each = [wanted | {"prior": p} for p in values["priors"].split(",")] if "priors" in values else [wanted]

        desk = _on_the_desk(values)
        asked = {k: v for k, v in given.items() if k not in TELLING}
        on_the_desk = {k: v for k, v in asked.items() if k == "batch_size"} | {"lr": values.get("desk_lr")}

        def newest(wanted: dict[str, Any], asked: dict[str, Any]) -> Path | None:
            for folder in reversed(find_runs(root, **wanted)):
                config = json.loads((folder / "config.json").read_text())["config"]
                settings = config["model"] | config["training"]
                if all(settings.get(k, v) == v for k, v in asked.items()):
                    return folder
            return None

        return [(w, newest(w, asked)) for w in each] + [(w, newest(w, on_the_desk)) for w in desk]

    def left_its_run(self) -> bool:
        """Whether the training runs that this notebook leaves are (still) in the outputs; true for other notebooks."""
        return all(folder for _, folder in self.runs())

    def is_done(self) -> bool:
        """Whether it is executed with these parameters and this code, and its runs are there."""
        return self.final.is_file() and self.left_its_run()


def _on_the_desk(values: dict[str, Any]) -> list[dict[str, Any]]:
    """What notebook 04 trains on its desk, if that is there: Beta and Conv (β = 1) from each start.

    Args:
        values: All parameters of a notebook.
    """
    fingerprint = fingerprint_of(ROOT / values["desk"]) if values.get("desk") else ""
    if not fingerprint:
        return []
    common = {"fingerprint": fingerprint, "seed": values["seed"], "epochs": values["desk_epochs"]}
    common |= {"sigma": values["desk_sigma"]}
    starts = [values["desk_components"] if s == "components" else 0 for s in values["desk_starts"].split(",")]
    models = {"beta_vae": values["beta"], "conv_vae": 1.0}
    return [common | {"model": m, "beta": b, "start_components": n} for n in starts for m, b in models.items()]


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        job: The job.
        state: `done`, `already done`, `failed`, `refused` (by the notebook: bad input) or `left out`.
        seconds: Time it took.
        path: The executed notebook, or what is kept of a failed one.
        reason: Why it failed, was refused or left out.
    """

    job: Job
    state: str
    seconds: float = 0.0
    path: Path | None = None
    reason: str = ""

    def __str__(self) -> str:
        took = clock(self.seconds) if self.state in ("done", "failed") else ""
        return f"{self.state:<12} {took:>9}  {self.job.title}  {self.path or self.reason}"


def defaults(notebook: str) -> dict[str, Any]:
    """Names and default values in a notebook's parameters cell.

    Raises:
        InputError: no such notebook.
    """
    one_of("notebook", notebook, sorted(p.stem for p in notebooks_dir().glob("*.ipynb")))
    path = notebooks_dir() / f"{notebook}.ipynb"
    return dict(_defaults(path, path.stat().st_mtime_ns))


@lru_cache(maxsize=64)
def _defaults(path: Path, changed: int) -> dict[str, Any]:
    return {name: ast.literal_eval(p["default"]) for name, p in pm.inspect_notebook(str(path)).items()}


def checked(notebook: str, given: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the types of their defaults; strings from a command line are converted.

    Raises:
        InputError: an unknown name (with the nearest valid one) or a value of another type.
    """
    known = defaults(notebook)
    values = {}
    for name, value in given.items():
        default = known[one_of(f"parameter of notebook {notebook}", name, known)]
        values[name] = _as_type_of(default, value, f"parameter {name!r} of notebook {notebook}")
    return values


def _as_type_of(default: Any, value: Any, what: str) -> Any:
    kind = type(default)
    try:
        if kind is bool and isinstance(value, str):
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        if kind is int and isinstance(value, float) and value != int(value):
            raise ValueError
        if kind in (list, tuple) and isinstance(value, str):
            return [v for v in value.split(",") if v]
        if isinstance(value, bool) and kind is not bool:
            raise ValueError
        return kind(value) if kind in (bool, int, float, str) else value
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(
            f"{what} is {value!r}, but it must be of type {kind.__name__}, like its default {default!r}"
        ) from None


def raise_failures(outcomes: Sequence[Outcome]) -> None:
    """Raise one error that names all failures; none: do nothing.

    Raises:
        InputError: notebooks refused their input, and none failed.
        NotebookFailedError: some failed.
    """
    bad = [o for o in outcomes if o.state in FAILURES]
    if bad:
        kind = InputError if all(o.state == "refused" for o in bad) else NotebookFailedError
        raise kind(" | ".join(dict.fromkeys(o.reason for o in bad)))


def too_few_classes(store: Path | str, label: str) -> str:
    """Why there can be no conditional model of a label in a store; "" if there can."""
    found = open_store(store)
    if found.table[label].nunique() > 1:
        return ""
    return f"Conditional VAE by {label} left out: {found.path.name} has fewer than two of them"


def training_jobs(store: Path, epochs: int, seed: int = 0, **more: Any) -> list[Job]:
    """The five models of a store, Conditional twice (a label with fewer than two classes is left out), without a desk.

    In an order that keeps two workers busy to the end and lets every notebook find the runs it compares with: Basic
    before Conv, Conv before VaDE.

    Raises:
        InputError: no such store, or parameters that some notebook does not know.
    """
    common = {"store": str(store), "epochs": epochs, "seed": seed} | more

    def job(model: str, **extra: str) -> Job:
        return Job(MODEL_NOTEBOOKS[model], checked(MODEL_NOTEBOOKS[model], common | extra), "-".join(extra.values()))

    cvae = []
    for label in ("language", "genre"):
        if why := too_few_classes(store, label):
            print(why, file=sys.stderr)
        else:
            cvae.append(job("cvae", condition=label))
    return [job("beta_vae", desk=""), job("basic_vae"), job("conv_vae"), job("vade"), *cvae]
