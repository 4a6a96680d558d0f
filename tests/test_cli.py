"""Commands: bad input ends with one sentence and exit code 2, before anything is written."""

import sys

import pytest

from vaelib import cli


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs `vaelib ARGS` in empty folders; returns exit code and what was printed on stderr."""
    for name in ("DATA", "OUTPUTS", "PAPERMILL"):
        monkeypatch.setenv(f"VAELIB_{name}", str(tmp_path / name.lower()))

    def run(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vaelib", *args])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, capsys.readouterr().err

    run.folder = tmp_path
    return run


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["preprocess", "/no/such/folder"], "no corpus at /no/such/folder"),
        (["preprocess", "/tmp", "--profile", "compct"], "did you mean 'compact'"),
        (["train", "--model", "conv_va"], "did you mean 'conv_vae'"),
        (["train", "--model", "conv_vae"], "no mel store"),
        (["train", "--model", "conv_vae", "--modality", "video"], "audio"),
        (["train", "--model", "conv_vae", "--condition", "genre"], "takes no condition"),
        (["train", "--model", "cvae", "--store", "x.zarr", "--condition", "genra"], "did you mean 'genre'"),
        (["train", "--model", "conv_vae", "--store", "x.zarr", "--epoch", "3"], "did you mean 'epochs'"),
        (["train", "--model", "conv_vae", "--store", "x.zarr", "--epochs", "3"], "no mel store at"),
        (["train-all", "--store", "x.zarr"], "no mel store at"),
        (["test", "--test", "smothness"], "did you mean 'smoothness'"),
        (["test", "--test", "smoothness"], "no finished run with model basic_vae"),
        (["test", "--test", "soft_clustering", "--model", "conv_vae"], "unknown model of test"),
        (["test", "--test", "reconstruction", "--compare", "basic_va"], "did you mean 'basic_vae'"),
        (["test", "basic_vae"], "was not expected"),
        (["test", "--test", "all"], "nothing could be tested"),
        (["test", "--modality", "video"], "audio"),
        (["train-all", "--modality", "video"], "audio"),
        (["demo", "--epochs", "0"], "epochs must be positive"),
        (["demo", "--clips", "2"], "cannot be split"),
        (["demo", "--profile", "full", "--seconds", "10"], "shorter than the 30.0-s window"),
        (["compare"], "no finished run"),
        (["report", "nothing.ipynb"], "no notebook at nothing.ipynb"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(command, args, says):
    code, printed = command(*args)
    assert code == 2 and says in printed
    assert len(printed.strip().splitlines()) == 1 and "Traceback" not in printed
    assert not list(command.folder.rglob("*"))


def test_empty_folder(command, tmp_path):
    (tmp_path / "empty").mkdir()
    code, printed = command("preprocess", str(tmp_path / "empty"))
    assert code == 2 and "no audio in" in printed


def test_extra_options_become_parameters():
    assert cli._extra(["--beta", "2", "--batch-size=16", "--detilt"]) == {
        "beta": "2", "batch_size": "16", "detilt": "true",
    }  # fmt: skip


def test_help_lists_every_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vaelib", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr().out
    for name in ("demo", "preprocess", "train", "train-all", "test", "compare", "report"):
        assert name in shown
