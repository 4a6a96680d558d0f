"""What `make setup` sets up: pinned packages, Git drivers for notebooks, Jupyter's configuration and its safety."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_output
from packaging.requirements import Requirement
from traitlets.config import PyFileConfigLoader

from vaelib.config import ROOT
from vaelib.report import write_html

NOTEBOOK = "notebooks/02_basic_vae.ipynb"
NEEDED = ["Makefile", ".gitattributes", ".gitignore", "pyproject.toml", "constraints.txt", NOTEBOOK]
NEEDED += [p.name for p in ROOT.glob("jupyter_*_config.*")]

pytestmark = pytest.mark.skipif(not (shutil.which("git") and shutil.which("make")), reason="git and make are needed")


def call(folder: Path, *command: str, **more) -> subprocess.CompletedProcess:
    """A command in a folder, with no settings but the repository's own."""
    person = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_PAGER": "cat", **person}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "MAKE", "JUPYTER"))}
    return subprocess.run(command, cwd=folder, env=kept | settings | more, capture_output=True, text=True, check=False)


def git(folder: Path, *words: str) -> str:
    done = call(folder, "git", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def set_up(folder: Path) -> str:
    """`make setup` on top of an environment that is there (this one, by a path inside the folder)."""
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    done = call(folder, "make", "-o", ".venv/.ready", "setup")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """A repository of this one's files, as they are now."""
    folder = tmp_path_factory.mktemp("origin")
    for name in NEEDED:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "all")
    return folder


@pytest.fixture
def clone(origin, tmp_path) -> Path:
    """A clone after `make setup`, which had nothing to say."""
    git(tmp_path, "clone", "-q", str(origin), "clone of it")
    folder = tmp_path / "clone of it"
    assert set_up(folder) == ""
    return folder


def run_in_place(folder: Path, change: str = "", cell: int = 2) -> Path:
    """Leave the notebook as JupyterLab and papermill leave it after a run; `change` is added to a cell's source."""
    path = folder / NOTEBOOK
    nb = nbformat.read(path, 4)
    for c in nb.cells:
        c.metadata |= {"papermill": {"duration": 1.0}, "execution": {"iopub.status.busy": "now"}}
        if c.cell_type == "code":
            c.execution_count, c.outputs = 7, [new_output("stream", name="stdout", text="a printed line\n")]
    nb.cells[cell].source += change
    nb.metadata.language_info |= {"version": "3.12.1", "mimetype": "text/x-python", "codemirror_mode": {"name": "x"}}
    nb.metadata |= {"papermill": {"parameters": {}}, "widgets": {"state": {}}}
    path.write_text(json.dumps(nb, indent=1))
    return path


def test_an_executed_notebook_is_committed_as_it_was(clone):
    run_in_place(clone)
    assert git(clone, "diff") == ""
    git(clone, "add", NOTEBOOK)
    assert git(clone, "status", "--porcelain") == ""  # not even a metadata key, and the cells' ids are kept
    run_in_place(clone, "\nprint('new')")
    diff = git(clone / "notebooks", "diff")
    assert "/cells/2/source" in diff and "print('new')" in diff and len(diff.splitlines()) < 30
    assert "a printed line" not in diff and "execution_count" not in diff and "papermill" not in diff
    git(clone, "commit", "-q", "-am", "changed")
    committed, wanted = nbformat.reads(git(clone, "show", f"HEAD:{NOTEBOOK}"), 4), nbformat.read(ROOT / NOTEBOOK, 4)
    wanted.cells[2].source += "\nprint('new')"
    assert committed == wanted


def test_changes_of_different_cells_are_merged(clone):
    git(clone, "checkout", "-q", "-b", "other")
    for branch, change, cell in (("other", "\none = 1", 2), ("main", "\ntwo = 2", 4)):
        git(clone, "checkout", "-q", branch)
        run_in_place(clone, change, cell)
        git(clone, "commit", "-q", "-am", branch)
    git(clone, "merge", "-q", "-m", "both", "other")
    merged = nbformat.read(clone / NOTEBOOK, 4)
    nbformat.validate(merged)
    assert merged.cells[2].source.endswith("one = 1") and merged.cells[4].source.endswith("two = 2")


@pytest.fixture
def lab(clone, monkeypatch):
    """The settings that a server started by `make lab` has read."""
    from jupyter_server.serverapp import ServerApp

    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(clone / ".venv" / "etc" / "jupyter"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(clone))
    app = ServerApp()
    app.load_config_file(suppress_errors=False)
    return app.config


def test_nbconvert_and_jupyterlab_write_the_report(lab, clone):
    from jupyter_server.nbconvert.handlers import get_exporter

    nb, executed = nbformat.read(run_in_place(clone), 4), clone / "run.ipynb"  # a view is both widget and player
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/html": "<b>player</b>"}
    nb.cells[2].outputs = [new_output("display_data", data)]
    nb.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"m": {}}}}
    nbformat.write(nb, executed)
    config = {"JUPYTER_CONFIG_PATH": str(clone / ".venv" / "etc" / "jupyter"), "JUPYTER_CONFIG_DIR": str(clone)}
    done = call(clone, sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", executed.name, **config)
    assert done.returncode == 0, done.stderr
    page = executed.with_suffix(".html").read_bytes()
    assert page == write_html(executed).read_bytes() and b"<b>player</b>" in page and b"widget-state" not in page
    about = {"metadata": {"name": executed.stem, "path": str(executed.parent)}}
    exported, _ = get_exporter("html", config=lab).from_notebook_node(nb, about)
    assert exported.encode() == page


def test_a_notebook_that_was_only_run_in_jupyterlab_is_not_changed(lab, clone):
    after_saving = lab.FileContentsManager.post_save_hook
    for change, status in (("", ""), ("\nprint('new')", f" M {NOTEBOOK}\n")):  # a change is not staged
        path = run_in_place(clone, change)
        assert git(clone, "status", "--porcelain") == f" M {NOTEBOOK}\n"  # Git has not asked the filter
        after_saving({"type": "notebook"}, os_path=str(path), contents_manager=None).wait()
        assert git(clone, "status", "--porcelain") == status
    assert after_saving({"type": "file"}, os_path=str(path), contents_manager=None) is None


def test_jupyterlab_keeps_its_token_and_stays_on_this_machine():
    from jupyter_server.serverapp import ServerApp

    settings = PyFileConfigLoader("jupyter_server_config.py", str(ROOT)).load_config()
    app = ServerApp(config=settings)
    app.init_configurables()
    assert app.identity_provider.token and app.identity_provider.auth_enabled
    assert app.ip in ("localhost", "127.0.0.1") and not app.allow_remote_access
    assert not app.allow_origin and not app.allow_origin_pat and not app.disable_check_xsrf
    (recipe,) = re.findall(r"jupyter lab[^\n]*", (ROOT / "Makefile").read_text())
    assert "--ServerApp.ip=127.0.0.1" in recipe
    assert not re.search(r"token|password|allow_origin|xsrf|allow_remote|0\.0\.0\.0", recipe)


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line]


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", Requirement(requirement).name).lower()


def test_every_dependency_and_what_it_asks_for_is_pinned_to_what_is_installed():
    pins = {name_of(name): version for name, version in PINS}
    extras = [r for group in PROJECT["optional-dependencies"].values() for r in group]
    waiting, seen = [r for r in PROJECT["dependencies"] + extras if name_of(r) != "vaelib"], set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = name_of(requirement.name)
        if name in seen or name == "pyaudio" or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue  # conda brings pyaudio
        seen.add(name)
        assert name in pins, f"{name} is installed without a pin"
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # of an extra that is not installed here
        assert found.version.split("+")[0] == pins[name], name
        if name not in ("mirdata", "pythae"):  # installed with --no-deps
            waiting += found.requires or []
    assert len(seen) > 100


def test_conda_users_get_the_same_list():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in conda["dependencies"] if isinstance(d, dict))
    assert pip[0] == "-c constraints.txt" and pip[1].startswith("-e .[")
    assert set(re.findall(r"\w+", pip[1].partition("[")[2])) <= set(PROJECT["optional-dependencies"])
