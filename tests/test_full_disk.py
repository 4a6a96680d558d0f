"""A disk that fills up (a small tmpfs): one sentence, exit code 2, nothing finished is harmed, and it goes on."""

import os
import subprocess
import sys

import nbformat
import pytest
from conftest import TINY, write_tones
from test_preprocess import content
from test_training import assert_equal, results, settings
from vaelib.jobs import Job

from vaelib import cli, engine, training
from vaelib.checkpoints import read_tensors
from vaelib.config import InputError, UnwritableError
from vaelib.store import build_store, open_store
from vaelib.training import Trainer, train

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="only root may mount a small file system, and only on Linux"
)
PAGE = 4096


class Disk:
    """A file system of its own that can be filled and emptied again."""

    def __init__(self, path):
        self.path = path

    def free(self) -> int:
        about = os.statvfs(self.path)
        return about.f_bavail * about.f_frsize

    def fill(self, leave: int = 0) -> None:
        (self.path / "ballast").write_bytes(b"")
        (self.path / "ballast").write_bytes(b"\0" * max(0, self.free() - leave))

    def empty(self) -> None:
        (self.path / "ballast").unlink()


@pytest.fixture
def disk(tmp_path):
    """96 MiB of memory as a file system."""
    (tmp_path / "disk").mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", tmp_path / "disk"], capture_output=True)
    if done.returncode:
        pytest.skip(f"tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
    yield Disk(tmp_path / "disk")
    subprocess.run(["umount", "-l", tmp_path / "disk"], check=True)


def one_sentence(said: str) -> bool:
    return (
        "No space left on device" in said
        and "make room" in said
        and "\n" not in said.strip()
        and "Traceback" not in said
    )


@pytest.mark.parametrize("room", [0.0, 0.5])
def test_a_store(disk, corpus, store, tmp_path, monkeypatch, room):
    monkeypatch.setenv("VAELIB_DATA", str(disk.path / "data"))
    finished = build_store(write_tones(tmp_path / "other", 3, ("arabic",), ("pop",)), TINY)
    before, whole = content(finished), content(store.path)
    needed = sum(-(-len(data) // PAGE) * PAGE for data in whole.values())
    disk.fill(int(room * needed))
    for _ in range(2):
        with pytest.raises(InputError) as refused:
            build_store(corpus, TINY)
        assert one_sentence(str(refused.value))
    assert not (finished.parent / store.path.name).exists() and content(finished) == before
    disk.empty()
    assert content(build_store(corpus, TINY)) == whole and content(finished) == before
    assert len(open_store(finished).table) == 3


def test_a_checkpoint(disk, store, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "whole"))
    config = settings(store, "conv_vae", latent=2)
    whole = results(train(config, store, show=False))
    monkeypatch.setenv("VAELIB_OUTPUTS", str(disk.path / "outputs"))
    monkeypatch.setattr(training, "SAVE_EVERY_S", -1.0)
    finished = train(settings(store, "conv_vae", latent=2, epochs=1), store, show=False)
    before, kept, epoch = content(finished), {}, Trainer._epoch

    def full(self, number):
        if number == 3:
            kept.update({name: data for name, data in content(self.folder).items() if name != ".lock"})
            disk.fill()
        return epoch(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_epoch", full)
        with pytest.raises(UnwritableError) as refused:
            train(config, store, show=False)
    assert one_sentence(str(refused.value))
    # the command again, while there is still no room: exit code 2
    monkeypatch.setattr(sys, "argv", ["training", str(config.folder / "config.json")])
    with pytest.raises(SystemExit) as ended:
        training.main()
    assert ended.value.code == 2 and one_sentence(capsys.readouterr().err)
    assert content(config.folder) == kept and content(finished) == before  # nothing lost, nothing half there
    assert read_tensors(config.folder / "last.safetensors")[1]["epoch"] == 3
    disk.empty()
    assert_equal(results(train(config, store, show=False)), whole)


def test_an_executed_notebook_and_its_report(disk, shelf, monkeypatch):
    monkeypatch.setenv("VAELIB_PAPERMILL", str(disk.path / "runs"))
    finished = engine.execute(Job("good", {"n": 1}))
    before = {p: p.read_bytes() for p in finished.parent.glob(f"{finished.stem}.*")}
    disk.fill()
    outcome = engine.attempt(Job("good", {"n": 2}))
    assert outcome.state == "refused" and one_sentence(outcome.reason)
    # room for the notebook, not for its report
    disk.fill(16 * PAGE)
    with pytest.raises(UnwritableError) as refused:
        engine.execute(Job("good", {"n": 2}))
    assert one_sentence(str(refused.value)) and not Job("good", {"n": 2}).is_done()
    assert {p: p.read_bytes() for p in before} == before and len(before) == 2
    disk.empty()
    done = engine.execute(Job("good", {"n": 2}))
    assert done.with_suffix(".html").is_file() and not list(done.parent.glob("*.partial*"))


def test_a_report_ends_with_exit_code_2(disk, monkeypatch, capsys):
    path = disk.path / "x.ipynb"
    cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text="1")])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    monkeypatch.setattr(sys, "argv", ["vaelib", "report", str(path)])
    disk.fill()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and one_sentence(capsys.readouterr().err)
    assert {p.name for p in disk.path.iterdir()} == {"x.ipynb", "ballast"}
    disk.empty()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code and path.with_suffix(".html").is_file()
