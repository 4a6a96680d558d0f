"""Numbers can be had again, and say where they come from: bit-equal repeats; command, commit, versions everywhere."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import nbformat
import pytest
from test_training import assert_equal, results, settings

from vaelib import cli, engine, provenance, reports
from vaelib.checkpoints import environment
from vaelib.config import ROOT
from vaelib.jobs import Job
from vaelib.models import MODELS
from vaelib.training import train


def test_two_processes_train_every_model_to_the_same_bit(store, tmp_path):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    running = []
    for name in ("1", "2"):
        env = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": name, "VAELIB_OUTPUTS": str(tmp_path / name)}
        given = [sys.executable, str(ROOT / "tests" / "repeating.py"), str(store.path)]
        running.append(subprocess.Popen(given, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, said = process.communicate()
        assert process.returncode == 0, said
    one, two = (sorted(p.parent for p in (tmp_path / name).rglob("done.json")) for name in ("1", "2"))
    assert len(one) == len(MODELS) and [p.name for p in one] == [p.name for p in two]
    for a, b in zip(one, two, strict=True):
        assert (a / "best.safetensors").read_bytes() == (b / "best.safetensors").read_bytes()
        assert_equal(results(a), results(b))


# --- where they come from ---

KEYS = {"command", "git", "python", "packages", "platform"}


def git(folder, *words):
    who = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", "-C", folder, *who, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def asked_anew(monkeypatch):
    """What was found in Git is forgotten, before and after."""
    provenance.git.cache_clear()
    yield lambda root: (provenance.git.cache_clear(), monkeypatch.setattr(provenance, "ROOT", root))
    monkeypatch.undo()
    provenance.git.cache_clear()


def test_commit_and_changes_are_named(tmp_path, asked_anew):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "x")
    head = git(tmp_path, "rev-parse", "HEAD")
    asked_anew(tmp_path)
    assert provenance.git() == f"{head}, clean"
    (tmp_path / "a").write_text("2")
    (tmp_path / "b").write_text("new")
    asked_anew(tmp_path)
    assert provenance.git() == f"{head}, 2 files changed"
    (tmp_path / "below").mkdir()
    asked_anew(tmp_path / "below")  # installed in somebody else's repository
    assert provenance.git() == "no repository"


def test_without_a_repository_or_git_it_says_so(tmp_path, asked_anew, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    asked_anew(tmp_path)
    assert provenance.git() == "no repository"
    monkeypatch.setenv("PATH", "")
    asked_anew(ROOT)
    assert provenance.git() == "unknown: git is not installed"


def test_packages_are_those_that_are_installed(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    provenance.packages.cache_clear()
    assert provenance.packages() == f"torch {version('torch')}"
    provenance.packages.cache_clear()


def test_the_command_is_the_person_s(monkeypatch, capsys):
    monkeypatch.delenv(provenance.COMMAND, raising=False)
    monkeypatch.setattr(sys, "argv", ["/x/ipykernel_launcher.py", "-f", "x.json"])
    assert provenance.command() == "a notebook, run by hand"
    monkeypatch.setattr(sys, "argv", ["/x/bin/tool", "a b"])
    assert provenance.command() == "tool 'a b'"
    monkeypatch.setattr(sys, "argv", ["/x/bin/vaelib", "train", "--model", "a b"])
    monkeypatch.setenv(provenance.COMMAND, "")
    with pytest.raises(SystemExit):
        cli.main()
    assert provenance.command() == "vaelib train --model 'a b'"


def test_a_run_s_folder_says_where_it_comes_from(store, outputs):
    config = settings(store, "conv_vae", epochs=1)
    about = json.loads((train(config, store, show=False) / "config.json").read_text())
    assert about["environment"] == environment() and KEYS | {"device", "threads", "torch"} <= set(about["environment"])
    assert "numpy" in about["environment"]["packages"] and "environment" not in about["config"]


def test_an_executed_notebook_and_its_report_say_where_they_come_from(shelf, monkeypatch):
    monkeypatch.setenv(provenance.COMMAND, "vaelib train --name '<script>x</script>'")
    script = "from vaelib.provenance import command\nprint('told', command())"
    nb = nbformat.read(shelf / "notebooks" / "good.ipynb", 4)
    nb.cells.append(nbformat.v4.new_code_cell(script))
    nbformat.write(nb, shelf / "notebooks" / "good.ipynb")
    done = engine.execute(Job("good"))
    nb = nbformat.read(done, 4)
    assert nb.metadata["vaelib"] == provenance.record()
    assert "told vaelib train" in nb.cells[-1].outputs[0].text  # the kernel knows it too
    page = done.with_suffix(".html").read_text()
    footer = page[page.index('<footer class="vaelib-provenance"') :]
    assert provenance.git() in footer and provenance.packages() in footer
    assert "&lt;script&gt;x" in footer and "<script>x" not in page
    nb.metadata.pop("vaelib")  # one that JupyterLab executed
    nbformat.write(nb, done)
    assert 'vaelib-provenance"' not in reports.write_html(done).read_text()


def test_a_comparison_says_where_it_comes_from(tmp_path):
    for path in reports.write_comparison("t", "n", [], tmp_path):
        assert provenance.git() in path.read_text() and provenance.packages() in path.read_text()
