"""One notebook by papermill: unfinished files never look finished, what failed is kept with its log."""

import nbformat
import pytest
from conftest import write_notebook

from vaelib import engine
from vaelib.config import InputError
from vaelib.explore.offline import NO_PLAYERS
from vaelib.jobs import Job


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
        engine.execute(Job("good", given))
    assert not (shelf / "runs").exists()


def test_executed_once_per_parameters(shelf):
    first = engine.execute(Job("good", {"n": 2}))
    stamp = first.stat().st_mtime_ns
    assert engine.execute(Job("good", {"n": 2})) == first and first.stat().st_mtime_ns == stamp
    assert engine.execute(Job("good", {"n": 3})) != first
    assert "2 0.5" in nbformat.read(first, 4).cells[2].outputs[0].text
    assert first.with_suffix(".html").is_file()


def test_the_last_words_of_a_dead_kernel_are_in_the_log_until_it_succeeds(shelf):
    path = shelf / "notebooks" / "good.ipynb"
    nb = nbformat.read(path, 4)
    nb.cells[1].source = "import os, sys\nprint('last words', file=sys.__stderr__, flush=True)\nos._exit(3)"
    nbformat.write(nb, path)
    kept = engine.attempt(Job("good")).path.with_suffix(".log")
    assert "last words" in kept.read_text()
    nb.cells[1].source = "1"
    nbformat.write(nb, path)
    kept.rename(Job("good").final.with_suffix(".failed.log"))
    engine.execute(Job("good"))
    assert not list((shelf / "runs").glob("*.log"))


def test_without_a_page_and_with_bytecode(shelf, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    asked = f"import os, sys\nprint(os.environ.get('{NO_PLAYERS}'), sys.dont_write_bytecode)"
    write_notebook(shelf / "notebooks" / "asks.ipynb", "n: int = 1  # a number", asked)
    shown, not_shown = Job("asks"), Job("asks", page=False)
    for job, said in ((shown, "None False"), (not_shown, "1 False")):
        assert said in nbformat.read(engine.execute(job), 4).cells[-1].outputs[0].text
    assert shown.final.with_suffix(".html").is_file() and not not_shown.final.with_suffix(".html").exists()


def test_every_run_is_on_the_page_at_once(shelf):
    first = engine.execute(Job("good", {"n": 2}))
    page = shelf / "runs" / "index.html"
    assert f"href='{first.name}'" in page.read_text() and "<span>n 2</span>" in page.read_text()
    page.unlink()
    engine.execute(Job("good", {"n": 2}))  # already done: nothing to do but to say so
    assert f"href='{first.name}'" in page.read_text()


def test_trouble_outside_the_notebook_is_a_failure_too(shelf, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("vaelib.reports.write_html", full)
    outcome = engine.attempt(Job("good"))
    assert (outcome.state, outcome.reason) == ("failed", "No space left on device")
    assert not Job("good").is_done()


def test_progress_lines_of_a_notebook_reach_who_asks(shelf):
    work = "from vaelib.progress import Progress\np = Progress('work', 3)\np.show('busy', force=True)\np.close('over')"
    write_notebook(shelf / "notebooks" / "live.ipynb", "n: int = 1  # a number", work)
    seen: list[str] = []
    done = engine.execute(Job("live"), seen.append)
    assert any("work: busy" in line for line in seen)
    outputs = nbformat.read(done, 4).cells[-1].outputs
    assert [o.data["text/plain"] for o in outputs] == ["work: over"]  # one clean line is left in the notebook


def test_input_that_a_notebook_refuses_leaves_nothing(shelf):
    with pytest.raises(InputError, match=r"^no clip is usable$"):
        engine.execute(Job("refuses"))
    assert not list((shelf / "runs").iterdir())
