"""One process at a time: the same run and the same notebook are made once, a killed process leaves no lock."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from conftest import write_notebook

from vaelib import engine, locks
from vaelib.checkpoints import read_tensors
from vaelib.config import InputError
from vaelib.devices import launch
from vaelib.jobs import Job
from vaelib.runs import fit, load_run, plan
from vaelib.training import write_config

SETTINGS = {"model_settings": {"latent": 8}, "batch_size": 8, "eval_windows": 2, "precision": "32-true"}
EPOCHS = 6
# Trains a run; every epoch leaves the process's name in a file, and the first process waits in its third for a word.
TRAINS = """
import time
from pathlib import Path
import torch
torch.set_num_threads(1)  # as in this process: sums in another order are other numbers
from vaelib import training
from vaelib.runs import fit, plan
from vaelib.store import open_store
real = training.Trainer._epoch
def epoch(self, number):
    with open(log, "a") as f:
        print(name, number, file=f)
    while name == "first" and number == 2 and not Path(go).exists():
        time.sleep(0.02)
    return real(self, number)
training.Trainer._epoch, training.SAVE_EVERY_S = epoch, -1.0
store = open_store(path)
print(fit(plan(store, "conv_vae", epochs=epochs, **settings), store).summary["epochs"])
"""


PATIENCE = 300  # seconds, on a busy machine


def until(condition, seconds=PATIENCE):
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def training(store, tmp_path, outputs):
    """Starts a process that trains the run, and waits until it is in its third epoch or says that it waits."""
    log, started = tmp_path / "epochs", []

    def start(name: str) -> subprocess.Popen:
        given = {"name": name, "log": str(log), "go": str(tmp_path / "go"), "path": str(store.path)}
        given |= {"epochs": EPOCHS, "settings": SETTINGS}
        script = "\n".join(f"{k} = {v!r}" for k, v in given.items()) + TRAINS
        with open(tmp_path / f"{name}.err", "w") as said:
            process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=said, text=True)
        started.append(process)
        until(lambda: [name, "2"] in epochs_in(log) or "waiting for it" in words(name) or process.poll() is not None)
        return process

    def words(name: str) -> str:
        return (tmp_path / f"{name}.err").read_text()

    yield start, words, log
    for process in started:
        process.kill()
        process.communicate()


def epochs_in(log: Path) -> list[list[str]]:
    """(process, epoch) of every epoch that was begun."""
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def test_two_processes_train_a_run_once(training, outputs, tmp_path):
    start, words, log = training
    first, second = start("first"), start("second")
    (tmp_path / "go").touch()
    assert [p.communicate(timeout=PATIENCE)[0].strip() for p in (first, second)] == [str(EPOCHS)] * 2
    assert epochs_in(log) == [["first", str(i)] for i in range(EPOCHS)]
    line = f"process {first.pid} on {os.uname().nodename} is training this run; waiting for it"
    assert words("second").count(line) == 1 and "waiting" not in words("first")
    assert len(list(outputs.rglob("done.json"))) == 1 and not list(outputs.rglob(".lock"))


def test_who_waits_takes_over_from_a_killed_process_and_ends_with_the_same_numbers(
    training, store, outputs, tmp_path, monkeypatch
):
    start, words, log = training
    first, second = start("first"), start("second")
    assert "waiting for it" in words("second")
    first.send_signal(signal.SIGKILL)
    assert second.communicate(timeout=PATIENCE)[0].strip() == str(EPOCHS)
    began = [["first", "0"], ["first", "1"], ["first", "2"]]
    assert epochs_in(log) == began + [["second", str(i)] for i in range(2, EPOCHS)]
    (parts,) = (p.parent for p in outputs.rglob("done.json"))
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "whole"))
    whole = fit(plan(store, "conv_vae", epochs=EPOCHS, **SETTINGS), store, show=False).folder
    a, b = (read_tensors(folder / "best.safetensors")[0] for folder in (parts, whole))
    assert parts.name == whole.name and a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)
    columns = ["epoch", "train_loss", "validation_loss"]
    assert pd.read_csv(parts / "history.csv")[columns].equals(pd.read_csv(whole / "history.csv")[columns])


def test_processes_that_train_together_wait_together(training, store, tmp_path):
    """And what the first one wrote about the run is still there."""
    start, _, log = training
    first, config, lines = start("first"), plan(store, "conv_vae", epochs=EPOCHS, **SETTINGS), []
    given = [str(write_config(config, store)), "--lines"]
    two = threading.Thread(
        target=lambda: launch("vaelib.training", given, 2, lines.append, (InputError,), tmp_path / "failed.log")
    )
    two.start()
    until(lambda: lines or not two.is_alive())
    (tmp_path / "go").touch()
    assert first.communicate(timeout=PATIENCE)[0].strip() == str(EPOCHS)
    two.join()
    line = f"process {first.pid} on {os.uname().nodename} is training this run; waiting for it"
    assert lines == [line] and not (tmp_path / "failed.log").exists()
    assert load_run(config.folder).summary["devices"] == 1
    assert epochs_in(log) == [["first", str(i)] for i in range(EPOCHS)]


WAITS = "print('executed')\nimport os, time\nwhile not os.path.exists('go'): time.sleep(0.05)"


def test_a_notebook_is_executed_once(shelf):
    write_notebook(shelf / "notebooks" / "slow.ipynb", "n: int = 1  # a number", WAITS)
    job, lines, done = Job("slow"), [], []
    script = "from vaelib import engine\nfrom vaelib.jobs import Job\nprint(engine.execute(Job('slow')))"
    other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: list(job.final.parent.glob("*.partial.ipynb")))
        waits = threading.Thread(target=lambda: done.append(engine.attempt(job, lines.append)))
        waits.start()
        until(lambda: lines)
        (shelf / "notebooks" / "go").touch()
        assert other.communicate(timeout=PATIENCE)[0].strip() == str(job.final)
        waits.join()
    finally:
        other.kill()
    assert lines == [f"process {other.pid} on {os.uname().nodename} is executing this notebook; waiting for it"]
    assert done[0].path == job.final and done[0].state == "already done"
    assert nbformat.read(job.final, 4).cells[1].outputs[0].text == "executed\n"
    assert not list(job.final.parent.glob(".*.lock"))


# --- the lock itself ---


def test_one_after_the_other_and_nothing_left(tmp_path):
    """Each one reads a number, waits, and writes the next: without turns some would be lost."""
    path, number = tmp_path / "a" / ".lock", tmp_path / "number"
    number.write_text("0")

    def add():
        for _ in range(10):
            with locks.held(path, lambda _: None):
                now = int(number.read_text())
                time.sleep(0.001)
                number.write_text(str(now + 1))

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number.read_text() == "60" and not path.exists()


def test_a_file_that_a_killed_process_left_is_no_lock(tmp_path):
    path = tmp_path / ".lock"
    path.write_text("process 1 on the moon, a long name that is longer than the next one's")
    with locks.held(path, lambda who: pytest.fail(f"waits for {who}")):
        assert locks.holder(path) == locks.this_process()
    assert locks.holder(path) == ""


def test_a_file_system_without_locks_goes_on(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    path = tmp_path / ".lock"
    with locks.held(path, pytest.fail), locks.held(path, pytest.fail):
        pass
    assert not path.exists()


def test_an_error_gives_the_lock_back(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), locks.held(tmp_path / ".lock", pytest.fail):
            raise KeyError
