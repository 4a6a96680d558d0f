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
def fresh(origin, tmp_path) -> Path:
    """A clone that nobody has set up."""
    git(tmp_path, "clone", "-q", str(origin), "clone of it")
    return tmp_path / "clone of it"


@pytest.fixture
def clone(fresh) -> Path:
    """A clone after `make setup`, which had nothing to say."""
    assert set_up(fresh) == ""
    return fresh


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
    git(clone, "commit", "-q", "-am", "changed")
    committed = nbformat.reads(git(clone, "show", f"HEAD:{NOTEBOOK}"), 4)
    before = nbformat.read(ROOT / NOTEBOOK, 4)
    assert committed.cells[2].source == before.cells[2].source + "\nprint('new')"
    assert [c.id for c in committed.cells] == [c.id for c in before.cells] and committed.metadata == before.metadata
    assert [c.metadata for c in committed.cells] == [c.metadata for c in before.cells]
    assert not any(c.get("outputs") or c.get("execution_count") for c in committed.cells)


def test_a_diff_shows_the_changed_lines_and_no_outputs(clone):
    run_in_place(clone, "\nprint('new')")
    diff = git(clone / "notebooks", "diff")
    assert "/cells/2/source" in diff and "print('new')" in diff and len(diff.splitlines()) < 30
    assert "a printed line" not in diff and "execution_count" not in diff and "papermill" not in diff


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


def test_a_clone_may_move_and_be_set_up_again(clone):
    assert str(clone) not in (clone / ".git" / "config").read_text()
    moved = clone.rename(clone.with_name("moved"))
    before = (moved / ".git" / "config").read_text()
    assert set_up(moved) == "" and (moved / ".git" / "config").read_text() == before
    run_in_place(moved)
    git(moved, "add", NOTEBOOK)
    assert git(moved, "status", "--porcelain") == ""


def test_git_works_without_any_set_up(fresh):
    run_in_place(fresh, "\nprint('new')")
    assert "a printed line" in git(fresh, "diff") and NOTEBOOK in git(fresh, "status", "--porcelain")
    git(fresh, "commit", "-q", "-am", "with outputs")
    git(fresh, "checkout", "-q", "-b", "other", "HEAD~")
    git(fresh, "merge", "-q", "main")


def test_a_set_up_that_git_refuses_is_one_sentence_and_does_not_stop_anything(fresh):
    (fresh / ".git" / "config.lock").touch()
    said = set_up(fresh)
    assert "could not lock config file" in said
    assert "Git was not told how to handle notebooks" in said and "`make setup` again" in said


def test_a_copy_that_is_no_repository_leaves_the_one_around_it_alone(clone):
    inner = clone / "copy"
    inner.mkdir()
    shutil.copy(ROOT / "Makefile", inner)
    git(clone, "config", "--remove-section", "filter.nbstripout")
    before = (clone / ".git" / "config").read_text()
    assert set_up(inner) == "" and (clone / ".git" / "config").read_text() == before


def test_what_make_starts_keeps_bytecode_where_a_container_asks_for_none(fresh):
    (fresh / "show.mk").write_text('include Makefile\nshow:\n\t@echo "[$$PYTHONDONTWRITEBYTECODE]"\n')
    assert call(fresh, "make", "-f", "show.mk", "show", PYTHONDONTWRITEBYTECODE="1").stdout == "[]\n"


# --- Jupyter ---


@pytest.fixture
def executed(clone) -> Path:
    """A notebook with a view that is both widget and player."""
    path = run_in_place(clone)
    nb = nbformat.read(path, 4)
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}, "text/html": "<b>player</b>"}
    nb.cells[2].outputs = [new_output("display_data", data)]
    nb.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {"m": {}}}}
    path = clone / "run.ipynb"
    nbformat.write(nb, path)
    return path


def test_plain_nbconvert_writes_the_report(clone, executed):
    config = {"JUPYTER_CONFIG_PATH": str(clone / ".venv" / "etc" / "jupyter"), "JUPYTER_CONFIG_DIR": str(clone)}
    done = call(clone, sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", executed.name, **config)
    assert done.returncode == 0, done.stderr
    page = executed.with_suffix(".html").read_bytes()
    assert page == write_html(executed).read_bytes() and b"<b>player</b>" in page and b"widget-state" not in page


@pytest.fixture
def lab(clone, monkeypatch):
    """The settings that a server started by `make lab` has read."""
    from jupyter_server.serverapp import ServerApp

    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(clone / ".venv" / "etc" / "jupyter"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(clone))
    app = ServerApp()
    app.load_config_file(suppress_errors=False)
    return app.config


def test_jupyterlab_exports_the_report(lab, executed):
    from jupyter_server.nbconvert.handlers import get_exporter

    about = {"metadata": {"name": executed.stem, "path": str(executed.parent)}}
    page, _ = get_exporter("html", config=lab).from_notebook_node(nbformat.read(executed, 4), about)
    assert page == write_html(executed).read_text()


def test_a_notebook_that_was_only_run_in_jupyterlab_is_not_changed(lab, clone):
    after_saving = lab.FileContentsManager.post_save_hook
    path = run_in_place(clone)
    assert git(clone, "status", "--porcelain") == f" M {NOTEBOOK}\n"  # Git has not asked the filter
    after_saving({"type": "notebook"}, os_path=str(path), contents_manager=None).wait()
    assert git(clone, "status", "--porcelain") == ""
    run_in_place(clone, "\nprint('new')")
    after_saving({"type": "notebook"}, os_path=str(path), contents_manager=None).wait()
    assert git(clone, "status", "--porcelain") == f" M {NOTEBOOK}\n"  # a change is not staged
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


# --- packages ---

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", Requirement(requirement).name).lower()


PINS = {name_of(name): version for name, version in PINS.items()}


def test_every_dependency_and_what_it_asks_for_is_pinned_to_what_is_installed():
    extras = [r for group in PROJECT["optional-dependencies"].values() for r in group]
    waiting, seen = [r for r in PROJECT["dependencies"] + extras if name_of(r) != "vaelib"], set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = name_of(requirement.name)
        if name in seen or name == "pyaudio" or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue  # conda brings pyaudio
        seen.add(name)
        assert name in PINS, f"{name} is installed without a pin"
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # of an extra that is not installed here
        assert found.version.split("+")[0] == PINS[name], name
        if name not in ("mirdata", "pythae"):  # installed with --no-deps
            waiting += found.requires or []
    assert len(seen) > 100


def test_conda_users_get_the_same_list():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in conda["dependencies"] if isinstance(d, dict))
    assert pip[0] == "-c constraints.txt" and pip[1].startswith("-e .[")
    assert set(re.findall(r"\w+", pip[1].partition("[")[2])) <= set(PROJECT["optional-dependencies"])
