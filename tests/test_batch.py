"""papermill runs: parameters are checked before anything starts, unfinished files never look finished."""

import dataclasses

import nbformat
import pytest

from vaelib import batch
from vaelib.batch import Job, NotebookFailedError
from vaelib.config import InputError


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of notebooks of the test's own, and one for executed ones."""
    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setenv("VAELIB_PAPERMILL", str(tmp_path / "runs"))
    (tmp_path / "notebooks").mkdir()

    def add(name: str, *cells: str) -> None:
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        nb.cells[0].metadata["tags"] = ["parameters"]
        nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(nb, tmp_path / "notebooks" / f"{name}.ipynb")

    words = ["n: int = 1  # a number", "rate: float = 0.5  # a rate"]
    words += ['name: str = ""  # a word', "flag: bool = False  # a switch"]
    add("good", "\n".join(words), "print(n, rate, name, flag)")
    add("bad", "n: int = 1  # a number", "print('before')", "raise ValueError('the reason')")
    refusal = "from vaelib.config import InputError\nraise InputError('no clip is usable')"
    add("refuses", "n: int = 1  # a number", refusal)
    add("dead", "n: int = 1  # a number", "import os; os._exit(3)")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"m": 2}, "unknown parameter of notebook good 'm'"),
        ({"nane": "x"}, "did you mean 'name'"),
        ({"n": "many"}, "must be of type int"),
        ({"n": 1.5}, "must be of type int"),
        ({"flag": "perhaps"}, "must be of type bool"),
        ({"n": True}, "must be of type int"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(shelf, given, says):
    with pytest.raises(InputError, match=says):
        batch.execute(Job("good", given))
    assert not (shelf / "runs").exists()


def test_strings_take_the_type_of_the_default(shelf):
    assert batch.checked("good", {"n": "3", "rate": "1e-3", "flag": "true", "name": 5}) == {
        "n": 3, "rate": 1e-3, "flag": True, "name": "5",
    }  # fmt: skip


def test_unknown_notebook_names_the_nearest(shelf):
    with pytest.raises(InputError, match="did you mean 'good'"):
        batch.checked("goood", {})


def test_executed_once_per_parameters(shelf):
    first = batch.execute(Job("good", {"n": 2}))
    stamp = first.stat().st_mtime_ns
    assert batch.execute(Job("good", {"n": 2})) == first and first.stat().st_mtime_ns == stamp
    assert batch.execute(Job("good", {"n": 3})) != first
    assert "2 0.5" in nbformat.read(first, 4).cells[2].outputs[0].text
    assert first.with_suffix(".html").is_file()


@pytest.mark.parametrize(("name", "reason"), [("bad", "the reason"), ("dead", "died")])
def test_failure_is_kept_as_failed_and_others_run_on(shelf, name, reason):
    with pytest.raises(NotebookFailedError, match=reason):
        batch.execute_all([Job(name), Job("good", {"n": 7})], workers=2)
    names = {p.name for p in (shelf / "runs").iterdir()}
    assert any(n.startswith(name) and n.endswith(".failed.ipynb") for n in names)
    assert any(n.startswith("good") and n.endswith(".html") for n in names)
    assert not any("partial" in n or (n.startswith(name) and not n.endswith(".failed.ipynb")) for n in names)


def test_progress_lines_of_a_notebook_reach_the_terminal(shelf):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (
        "n: int = 1  # a number",
        "from vaelib.progress import Progress\np = Progress('work', 3)\np.show('busy', force=True)\np.close('over')",
    )])  # fmt: skip
    nb.cells[0].metadata["tags"] = ["parameters"]
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nb, shelf / "notebooks" / "live.ipynb")

    class Seen(batch.Terminal):
        seen: list[str] = []  # noqa: RUF012

        def update(self, name, line):
            self.seen.append(line)

    done = batch.execute(Job("live"), Seen())
    assert any("work: busy" in line for line in Seen.seen)
    outputs = nbformat.read(done, 4).cells[-1].outputs
    assert [o.data["text/plain"] for o in outputs] == ["work: over"]  # one clean line is left in the notebook


def test_input_that_a_notebook_refuses_leaves_nothing(shelf):
    with pytest.raises(InputError, match=r"^no clip is usable$"):
        batch.execute(Job("refuses"))
    assert not list((shelf / "runs").iterdir())


def test_a_training_notebook_is_repeated_when_its_run_is_gone(store, tmp_path, monkeypatch):
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path))
    job = Job("03_conv_vae", {"store": str(store.path), "epochs": 1, "seed": 0})
    assert not job.left_its_run() and Job("01_preprocess").left_its_run()


def test_a_label_with_one_class_gets_no_conditional_model(store, monkeypatch, capsys):
    assert [j.label for j in batch.training_jobs(store.path, 1)] == ["", "language", "", "genre", "", ""]
    alike = dataclasses.replace(store, table=store.table.assign(language="english"))
    monkeypatch.setattr(batch, "open_store", lambda path: alike)
    assert [j.label for j in batch.training_jobs(store.path, 1)] == ["", "genre", "", "", ""]
    assert "by language left out" in capsys.readouterr().err
