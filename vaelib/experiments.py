"""Experiments by name: the tagged cells of the notebook that explains one, executed on a trained run."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbformat import NotebookNode
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from .batch import REFUSALS, NotebookFailedError, checked, kernel_settings
from .config import InputError, notebooks_dir, outputs_dir

CONVOLUTIONAL = ("conv_vae", "beta_vae", "cvae", "vade")
# name on the command line → its notebook, and the models that it is about (the first is the default)
EXPERIMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "smoothness": ("02_basic_vae", ("basic_vae", *CONVOLUTIONAL)),
    "filters": ("03_conv_vae", CONVOLUTIONAL),
    "reconstruction": ("03_conv_vae", ("conv_vae", "basic_vae", "beta_vae", "cvae", "vade")),
    "disentanglement": ("04_beta_vae", ("beta_vae", "conv_vae", "basic_vae", "cvae", "vade")),
    "traversal": ("04_beta_vae", ("beta_vae", "conv_vae", "basic_vae", "vade")),
    "separation": ("05_conditional_vae", ("cvae",)),
    "generate": ("05_conditional_vae", ("cvae",)),
    "clustering_comparison": ("06_vade", ("vade",)),
    "gmm_components": ("06_vade", ("vade",)),
    "soft_clustering": ("06_vade", ("vade",)),
    "cluster_contents": ("06_vade", ("vade",)),
    "clustering": ("03_conv_vae", ("conv_vae", "basic_vae", "beta_vae", "cvae", "vade")),
    "hierarchy": ("03_conv_vae", ("conv_vae", "basic_vae", "beta_vae", "cvae", "vade")),
}


@dataclass(frozen=True)
class Finding:
    """What an experiment found."""

    name: str
    printed: str = ""  # what its cells print
    numbers: dict[str, float] | None = None  # what they keep with the run, by id
    text: str = ""  # what the numbers show, in a sentence
    picture: Path | None = None  # the figure, if there is one
    reason: str = ""  # why this run cannot have it; "" if it can


def execute_experiments(run: Path, names: Sequence[str], **special: Any) -> list[Finding]:
    """Execute experiments of one notebook on a run: its cells tagged `parameters`, `setup` and `test-<name>`.

    Args:
        run: Folder of a finished run.
        names: Of the experiments.
        special: Further parameters of the notebook. What was asked for specially is not kept with the run, whose
            numbers are those of the ledger: its figure goes to `comparison/tests/`.

    Raises:
        InputError: the notebook does not know a parameter, or refused the run.
        NotebookFailedError: a cell raised.
    """
    if not special:
        return _execute(run, names, {})
    kept = outputs_dir() / "comparison" / "tests"
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vaelib-") as folder:
        copy = Path(shutil.copytree(run, Path(folder, run.name), ignore=shutil.ignore_patterns("results")))
        found = _execute(copy, names, special)
        return [replace(f, picture=f.picture and Path(shutil.copy(f.picture, kept))) for f in found]


def _execute(run: Path, names: Sequence[str], special: dict[str, Any]) -> list[Finding]:
    notebook = EXPERIMENTS[names[0]][0]
    nb = load_notebook_node(str(notebooks_dir() / f"{notebook}.ipynb"))
    tags = [f"test-{name}" for name in names]
    nb.cells = [c for c in nb.cells if c.cell_type == "code" and _has(c, "parameters", "setup", *tags)]
    nb = parameterize_notebook(nb, checked(notebook, {"trained": str(run)} | special))
    with tempfile.TemporaryDirectory(prefix="vaelib-") as folder:
        config, environment = kernel_settings(folder, page=False)
        how = {"kernel_name": "python3", "timeout": None, "allow_errors": True, "config": config}
        client = NotebookClient(nb, resources={"metadata": {"path": str(notebooks_dir())}}, **how)
        client.execute(env=environment, stderr=subprocess.DEVNULL)
    if error := _error([c for c in nb.cells if not _has(c, *tags)]):
        raise error
    return [_finding(name, run, [c for c in nb.cells if _has(c, f"test-{name}")]) for name in names]


def _has(cell: NotebookNode, *tags: str) -> bool:
    return not set(tags).isdisjoint(cell.metadata.get("tags", []))


def _error(cells: list[NotebookNode]) -> Exception | None:
    """The first error of some cells: of the person's input, or of the notebook."""
    for output in (o for cell in cells for o in cell.outputs if o.output_type == "error"):
        if output.ename in REFUSALS:
            return InputError(output.evalue)
        return NotebookFailedError(f"{output.ename}: {output.evalue}")
    return None


def _finding(name: str, run: Path, cells: list[NotebookNode]) -> Finding:
    error = _error(cells)
    if isinstance(error, InputError):
        return Finding(name, reason=str(error))
    if error:
        raise NotebookFailedError(f"{name} failed: {error}")
    path = run / "results" / f"{name}.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if "skipped" in kept:
        return Finding(name, reason=kept["skipped"])
    picture = path.with_suffix(".png")
    printed = "\n".join(filter(None, (_text(output) for cell in cells for output in cell.outputs)))
    return Finding(name, printed, kept.get("numbers"), kept.get("text", ""), picture if picture.is_file() else None)


def _text(output: NotebookNode) -> str:
    """What an output says where there are only words."""
    if output.output_type == "stream":
        return output.text.rstrip() if output.name == "stdout" else ""
    data = output.get("data", {})
    words = data.get("text/markdown") or data.get("text/plain", "")
    return "" if words.startswith("<") else words  # `<Figure size …>`
