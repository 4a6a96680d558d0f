"""papermill runs: parameters are checked before anything starts, unfinished files never look finished."""

import dataclasses

import nbformat
import pandas as pd
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
    assert {n.partition(".")[2] for n in names if n.startswith(name)} == {"failed.ipynb", "failed.log"}
    assert any(n.startswith("good") and n.endswith(".html") for n in names)
    assert not any("partial" in n for n in names)
    (log,) = (shelf / "runs").glob("*.log")
    assert reason in log.read_text() and "\x1b" not in log.read_text()
    page = (shelf / "runs" / "index.html").read_text()
    assert reason in page and log.name in page and page.count("<article>") == 2 and "1 failed" in page


def test_the_last_words_of_a_dead_kernel_are_in_the_log_until_it_succeeds(shelf):
    path = shelf / "notebooks" / "good.ipynb"
    nb = nbformat.read(path, 4)
    nb.cells[1].source = "import os, sys\nprint('last words', file=sys.__stderr__, flush=True)\nos._exit(3)"
    nbformat.write(nb, path)
    kept = batch.attempt(Job("good")).path.with_suffix(".log")
    assert "last words" in kept.read_text()
    nb.cells[1].source = "1"
    nbformat.write(nb, path)
    kept.rename(Job("good").final.with_suffix(".failed.log"))
    batch.execute(Job("good"))
    assert not list((shelf / "runs").glob("*.log"))


def test_every_run_is_on_the_page_at_once(shelf):
    first = batch.execute(Job("good", {"n": 2}))
    page = shelf / "runs" / "index.html"
    assert f"href='{first.name}'" in page.read_text() and "<span>n 2</span>" in page.read_text()
    page.unlink()
    batch.execute(Job("good", {"n": 2}))  # already done: nothing to do but to say so
    assert f"href='{first.name}'" in page.read_text()


def test_every_job_has_an_outcome_and_a_row_in_the_summary(shelf, monkeypatch, capsys):
    good = batch.execute(Job("good"))
    outcomes = batch.execute_each([Job("bad"), Job("good"), Job("refuses"), Job("good", {"n": 5})], workers=1)
    assert [o.state for o in outcomes] == ["failed", "already done", "refused", "done"]
    assert outcomes[0].path.name.endswith(".failed.ipynb") and "the reason" in outcomes[0].reason
    assert outcomes[1].path == good and outcomes[2].path is None and outcomes[2].reason == "no clip is usable"
    assert outcomes[3].seconds > 0 and "done" in str(outcomes[3]) and outcomes[3].path.name in str(outcomes[3])
    assert "4/4 notebooks" in capsys.readouterr().err
    table = pd.read_csv(batch.write_summary(outcomes), keep_default_na=False)
    assert table["state"].tolist() == [o.state for o in outcomes] and table["run"][1] == "good"
    assert table["notebook"].tolist() == [o.path.name if o.path else "" for o in outcomes]
    with pytest.raises(NotebookFailedError, match=r"the reason.* \| no clip is usable"):
        batch.raise_failures(outcomes)
    with pytest.raises(InputError, match=r"^no clip is usable$"):
        batch.raise_failures(outcomes[1:])
    batch.raise_failures(outcomes[1:2])


def test_trouble_outside_the_notebook_is_a_failure_too(shelf, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("vaelib.reports.write_html", full)
    outcome = batch.attempt(Job("good"))
    assert (outcome.state, outcome.reason) == ("failed", "No space left on device")
    assert not Job("good").is_done()


def test_the_time_left_is_told_from_the_work_done(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(batch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(batch, "COST", {"good": 0.2})
    monkeypatch.setattr(batch, "PROOFS_COST", 1)
    jobs = [Job("good", {"epochs": 10}), *(Job(name, {"epochs": 19}) for name in ("a", "b", "c", "d"))]
    terminal = batch.Terminal(total=6)
    terminal.expect(jobs)
    assert terminal.progress() == "0/6 notebooks"
    terminal.finish("d", "done before", worked=False)  # says nothing of the pace, and is not left to do
    assert terminal.progress() == "1/6 notebooks"
    now[0] += 6
    terminal.finish("good", "done")  # 3 of 63: too early to tell
    assert terminal.progress() == "2/6 notebooks"
    now[0] += 40
    terminal.finish("a", "done")  # 23 of 63 in 46 s
    assert terminal.progress() == "3/6 notebooks, about 1:20 min left"
    terminal.finish("b", "done")
    terminal.finish("c", "done")
    assert terminal.progress() == "5/6 notebooks"


def test_the_title_says_what_is_trained():
    assert Job("03_conv_vae", {"store": "a.zarr", "seed": 2, "epochs": 60, "detilt": True}).title == (
        "03_conv_vae-60epochs-detilt-seed2"
    )
    given = {"seed": 0, "epochs": 4, "condition": "genre", "priors": "standard,fixed", "detilt": False, "lr": 0.01}
    assert Job("05_conditional_vae", given, "genre").title == (
        "05_conditional_vae-genre-standard,fixed-4epochs-lr0.01-seed0"
    )
    assert Job("04_beta_vae", {"beta": 8.0}).words == ["beta 8"]
    assert Job("07_compare", {"outputs": "/some/where"}).title == "07_compare"
    assert "/" not in Job("03_conv_vae", {"target": "a/b"}).name


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
    wanted = [w for w, _ in Job("05_conditional_vae", {"store": str(store.path), "seed": 3}).runs()]
    assert [w["prior"] for w in wanted] == ["standard", "fixed"]
    assert {k: wanted[0][k] for k in ("model", "condition", "epochs", "seed", "detilt", "fingerprint")} == {
        "model": "cvae", "condition": "language", "epochs": 16, "seed": 3, "detilt": False,
        "fingerprint": store.attrs["fingerprint"],
    }  # fmt: skip


def test_a_label_with_one_class_gets_no_conditional_model(store, monkeypatch, capsys):
    assert [j.label for j in batch.training_jobs(store.path, 1)] == ["", "language", "", "genre", "", ""]
    alike = dataclasses.replace(store, table=store.table.assign(language="english"))
    monkeypatch.setattr(batch, "open_store", lambda path: alike)
    assert [j.label for j in batch.training_jobs(store.path, 1)] == ["", "genre", "", "", ""]
    assert "by language left out" in capsys.readouterr().err
