"""Batches on Dask: dependencies, failures that leave others running, kills that lose nothing."""

import os
import signal
import subprocess
import sys
import threading
import time

import dask
import pandas as pd
import psutil
import pytest
from conftest import write_notebook

from vaelib import batch, engine
from vaelib.batch import Summary, Task
from vaelib.checkpoints import read_tensors
from vaelib.cluster import Workers
from vaelib.config import InputError, papermill_dir
from vaelib.jobs import Job, NotebookFailedError, Outcome, raise_failures
from vaelib.runs import find_runs

WAITS = """from pathlib import Path
import time
Path(f"here{n}").touch()
end = time.monotonic() + 300
while not Path(f"here{1 - n}").exists():
    assert time.monotonic() < end, "alone"
    time.sleep(0.05)
print("together")"""
TRAINING = "training conv_vae: epoch 3/16 · loss 2.1e+03 · nll 2e+03 · 412 clips/s · 1:20 min left"


@pytest.mark.parametrize("given", [{"m": 2}, {"n": "many"}])
def test_wrong_parameters_stop_a_batch_before_it_starts(shelf, given):
    with pytest.raises(InputError, match="good"):
        batch.run([Task(Job("bad")), Task(Job("good", given))])
    assert not (shelf / "runs").exists()


def test_failures_are_kept_and_others_run_on(shelf, capsys):
    """Two workers of their own processes; every job has an outcome and a row in the summary.

    The first two notebooks wait for a file of each other: one after the other they would never end.
    """
    write_notebook(shelf / "notebooks" / "waits.ipynb", "n: int = 1  # a number", WAITS)
    good = engine.execute(Job("good"))
    together = [Job("waits", {"n": 0}), Job("waits", {"n": 1})]
    jobs = [*together, Job("bad"), Job("good"), Job("refuses"), Job("good", {"n": 5}), Job("dead")]
    done = batch.run([Task(job) for job in jobs], Workers(2))
    assert [o.job for o in done] == jobs
    assert [o.state for o in done[:2]] == ["done", "done"], done[0].reason
    outcomes = done[2:]
    assert [o.state for o in outcomes] == ["failed", "already done", "refused", "done", "failed"]
    assert outcomes[0].path.name.endswith(".failed.ipynb") and "the reason" in outcomes[0].reason
    assert outcomes[1].path == good and outcomes[2].path is None and outcomes[2].reason == "no clip is usable"
    assert outcomes[3].seconds > 0 and "done" in str(outcomes[3]) and outcomes[3].path.name in str(outcomes[3])
    assert "died" in outcomes[4].reason
    assert "7/7 notebooks" in capsys.readouterr().err
    table = pd.read_csv(batch.write_summary(outcomes), keep_default_na=False)
    assert table["state"].tolist() == [o.state for o in outcomes] and table["run"][1] == "good"
    assert table["notebook"].tolist() == [o.path.name if o.path else "" for o in outcomes]
    names = {p.name for p in (shelf / "runs").iterdir()}
    assert {n.partition(".")[2] for n in names if n.startswith("bad")} == {"failed.ipynb", "failed.log"}
    assert not any("partial" in n for n in names)
    page = (shelf / "runs" / "index.html").read_text()
    assert "the reason" in page and page.count("<article>") == 6 and "2 failed" in page
    with pytest.raises(NotebookFailedError, match=r"the reason.* \| no clip is usable"):
        raise_failures(outcomes)
    with pytest.raises(InputError, match=r"^no clip is usable$"):
        raise_failures(outcomes[1:4])
    raise_failures(outcomes[1:2])


def test_what_a_task_needs_and_what_it_only_waits_for(shelf, in_process):
    tasks = [
        Task(Job("bad")), Task(Job("good"), needs=(0,)), Task(Job("good", {"n": 2}), after=(0, 1)),
        Task(Job("good", {"n": 3}), needs=(1,)), Task(Job("good", {"n": 4}), check=no_music),
    ]  # fmt: skip
    outcomes = batch.run(tasks)
    assert [o.state for o in outcomes] == ["failed", "left out", "done", "left out", "left out"]
    assert [o.reason for o in outcomes[3:]] == ["good could not be made", "no music"]


def no_music(job: Job) -> str:
    return "no music"


# --- kills ---


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_its_notebook_too(shelf):
    """Once is forgiven; a notebook that kills every worker fails, and the others run on.

    Dask's own patience with a worker that is lost is shorter than a start: the batch must have more.
    """
    jobs = [Job("kills", {"n": 1, "name": "once"}), Job("kills", {"n": 9, "name": "always"}), Job("good")]
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "50ms"}):
        outcomes = batch.run([Task(job) for job in jobs], Workers(1))
    assert [o.state for o in outcomes] == ["done", "failed", "done"]
    assert "KilledWorker" in outcomes[1].reason


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_and_the_same_call_ends_with_the_same_numbers(shelf, store, monkeypatch):
    given = {"store": str(store.path), "epochs": 40, "save_every": 0.1}
    script = f"""
from vaelib import batch
from vaelib.cluster import Workers
from vaelib.jobs import Job
print(*batch.run([batch.Task(Job("train", {given}))], Workers(2)))
"""
    outputs = {name: shelf / name for name in ("killed", "whole")}
    environment = os.environ | {"VAELIB_OUTPUTS": str(outputs["killed"])}
    driver = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(outputs["killed"].rglob("last.safetensors")), 300)
    family = psutil.Process(driver.pid).children(recursive=True)
    assert len(family) >= 2  # worker and kernel
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(family, timeout=120)
    assert not alive
    assert not list((shelf / "runs").glob("train-????????.ipynb")) and not list(outputs["killed"].rglob("done.json"))
    monkeypatch.setenv("VAELIB_OUTPUTS", str(outputs["killed"]))
    assert [o.state for o in batch.run([Task(Job("train", given))], Workers(2))] == ["done"]  # as many threads for each
    monkeypatch.setenv("VAELIB_OUTPUTS", str(outputs["whole"]))
    engine.execute(Job("train", given))
    (killed,), (whole,) = (find_runs(folder) for folder in outputs.values())
    a, b = (read_tensors(folder / "best.safetensors")[0] for folder in (killed, whole))
    assert a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)
    columns = ["epoch", "train_loss", "validation_loss"]
    assert pd.read_csv(killed / "history.csv")[columns].equals(pd.read_csv(whole / "history.csv")[columns])


def test_an_interrupted_batch_leaves_no_process(shelf, store):
    script = f"""
import signal
from vaelib import batch
from vaelib.cluster import Workers
from vaelib.jobs import Job
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts tests in the background may have it ignored
batch.run([batch.Task(Job("train", {dict(store=str(store.path), epochs=100_000, save_every=0.1)}))], Workers(1))
"""
    environment = os.environ | {"VAELIB_OUTPUTS": str(shelf / "outputs")}
    driver = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: list((shelf / "outputs").rglob("last.safetensors")), 300)
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGINT)
        said = driver.communicate(timeout=300)[1]
    finally:
        driver.kill()
    assert driver.returncode and "the same command continues" in said
    assert not psutil.wait_procs(family, timeout=120)[1]


def test_workers_of_another_scheduler_until_it_goes_away(shelf):
    """A notebook is executed there; what is left when the scheduler is killed has failed, with a sentence."""
    write_notebook(shelf / "notebooks" / "long.ipynb", "n: int = 1  # a number", "import time; time.sleep(600)")
    script = """
import time
from distributed import LocalCluster
if __name__ == "__main__":
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None, "resources": {"notebook": 1}}
    print(LocalCluster(**options).scheduler_address, flush=True)
    time.sleep(600)
"""
    (shelf / "scheduler.py").write_text(script)
    with subprocess.Popen([sys.executable, shelf / "scheduler.py"], stdout=subprocess.PIPE, text=True) as other:
        killer = threading.Thread(target=kill_once_it_runs, args=("long", other))
        killer.start()
        workers = Workers(scheduler=other.stdout.readline().strip())
        outcomes = batch.run([Task(Job("good")), Task(Job("long")), Task(Job("good", {"n": 2}))], workers)
        killer.join()
    assert [o.state for o in outcomes] == ["done", "failed", "failed"]
    assert all("scheduler went away" in o.reason for o in outcomes[1:])


def kill_once_it_runs(name: str, process: subprocess.Popen) -> None:
    """In any case after five minutes: nobody waits for ever."""
    end = time.monotonic() + 300
    while not list(papermill_dir().glob(f"{name}-*.partial.ipynb")) and time.monotonic() < end:
        time.sleep(0.05)
    process.kill()


def wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


# --- the live summary ---


def outcome(title: str, state: str = "done", **more) -> Outcome:
    return Outcome(Job(title, {"epochs": 19}), state, **more)


def test_the_time_left_is_told_from_the_work_done(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(batch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(batch, "EPOCH", {"good": 0.2} | dict.fromkeys("abcd", 1.0))
    monkeypatch.setattr(batch, "OTHERS_REST", 1)
    monkeypatch.setattr(batch, "defaults", lambda notebook: {})
    good = Job("good", {"epochs": 10})
    summary = Summary([Task(good), *(Task(Job(name, {"epochs": 19})) for name in ("a", "b", "c", "d"))])
    assert summary.progress() == "0/5 notebooks"
    summary.finish(4, outcome("d", "already done"))  # says nothing of the pace, and is not left to do
    assert summary.progress() == "1/5 notebooks"
    now[0] += 6
    summary.finish(0, Outcome(good, "done"))  # 3 of 63: too early to tell
    assert summary.progress() == "2/5 notebooks"
    now[0] += 40
    summary.finish(1, outcome("a"))  # 23 of 63 in 46 s
    assert summary.progress() == "3/5 notebooks, about 1:20 min left"
    summary.finish(2, outcome("b"))
    summary.finish(3, outcome("c"))
    assert summary.progress() == "5/5 notebooks"


def test_how_long_a_batch_takes(shelf, monkeypatch):
    """As many at a time as there are workers, in their order, each when those are over that it waits for."""
    for name in "abcd":
        write_notebook(shelf / "notebooks" / f"{name}.ipynb", "epochs: int = 1  # passes")
    monkeypatch.setattr(batch, "EPOCH", dict.fromkeys("abcd", 10.0))
    monkeypatch.setattr(batch, "OTHERS_REST", 0)
    tasks = [
        Task(Job("a", {"epochs": 3})), Task(Job("b"), windows=(2.0, 0.0)), Task(Job("c"), needs=(1,)),
        Task(Job("d"), after=(0, 2)),
    ]  # fmt: skip
    assert [task.seconds for task in tasks] == [30, 20, 10, 10]
    assert [batch.duration(tasks, n) for n in (1, 2, 9)] == [70, 40, 40]
    tasks[0].job.final.parent.mkdir()
    tasks[0].job.final.touch()  # it is done already
    assert batch.duration(tasks, 2) == 40 and batch.duration(tasks, 1) == 40
    assert batch.duration([], 1) == 0


def test_one_line_for_each_run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    summary = Summary([Task(Job(name)) for name in ("a[bold]", "b", "c")])
    summary.tell(0, TRAINING)
    summary.tell(1, "log-mel: 40/90 clips, 12.0 clips/s, 4 s left")
    summary.finish(2, outcome("c", "failed", reason="c failed: oh"))
    with summary.console.capture() as shown:
        summary.console.print(summary.table())
    lines = [" ".join(line.split()) for line in shown.get().splitlines()]
    assert "a[bold] running 3/16 2.1e+03 1:20 min" in lines
    assert any(line.startswith("b running log-mel: 40/90 clips") for line in lines)
    assert "c failed c failed: oh" in lines and lines[0].startswith("1/3 notebooks")


def test_one_notebook_alone_says_what_came_of_it(shelf, capsys):
    assert batch.run_alone(Job("good")).is_file()
    assert "1/1 notebooks: good: done in" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"^no clip is usable$"):
        batch.run_alone(Job("refuses"))
