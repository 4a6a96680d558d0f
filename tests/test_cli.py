"""Commands: bad input ends with one sentence and exit code 2; experiments run on trained runs without training."""

import json
import shutil
import subprocess
import sys
import time

import pytest
from conftest import TINY, write_notebook, write_tones

from vaelib import batch, cli, plans
from vaelib.batch import Workers
from vaelib.cli import EXPERIMENTS
from vaelib.config import ROOT
from vaelib.store import build_store

PROOF = ROOT / "plans" / "proof.yaml"
PARAMETERS = """trained: str = ""  # folder of a run
compare: str = ""  # folder of another
dimension: int = -1  # latent dimension
sample_class: str = ""  # class
n_samples: int = 10  # samples per class"""
SETUP = """import json
from pathlib import Path
run = Path(trained)
model = json.loads((run / "config.json").read_text())["config"]["model"]
print("set up")"""
EXPERIMENT = """(run / "results").mkdir(exist_ok=True)
numbers = {"id": 0.5, "dimension": dimension, "n": n_samples}
text = f"NAME of {model['name']} {model['condition']} beside {Path(compare).name}"
(run / "results" / "NAME.json").write_text(json.dumps({"numbers": numbers, "per_clip": {}, "text": text}))
(run / "results" / "NAME.png").write_bytes(b"")
print(text)"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs `vaelib ARGS` in empty folders; returns exit code and all that was printed."""
    for name in ("DATA", "OUTPUTS", "PAPERMILL"):
        monkeypatch.setenv(f"VAELIB_{name}", str(tmp_path / name.lower()))

    def run(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vaelib", *args])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return stop.value.code, printed.out + printed.err

    run.folder = tmp_path
    return run


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["preprocess", "/no/such/folder"], "no corpus at /no/such/folder"),
        (["preprocess", "/tmp", "--lables", "x"], "did you mean 'labels'"),
        (["train", "--model", "conv_va"], "did you mean 'conv_vae'"),
        (["train", "--model", "conv_vae"], "no mel store"),
        (["train", "--model", "conv_vae", "--modality", "video"], "audio"),
        (["train", "--model", "conv_vae", "--condition", "genre"], "'condition'"),
        (["train", "--model", "conv_vae", "--store", "x.zarr", "--epoch", "3"], "did you mean 'epochs'"),
        (["test", "--test", "smothness"], "did you mean 'smoothness'"),
        (["test", "--test", "smoothness"], "no finished run with model basic_vae"),
        (["test", "--test", "soft_clustering", "--model", "conv_vae"], "unknown model of test"),
        (["test", "basic_vae"], "was not expected"),
        (["demo", "--clips", "2"], "at least 3 clips"),
        (["compare"], "no finished run"),
        (["batch", "none.yaml"], "no plan can be read at none.yaml"),
        (["batch", str(PROOF), "--set", "seeds=0", "--set", "loops.folder=/no/music"], "no corpus at /no/music"),
        (["batch", str(PROOF), "--scheduler", "tcp://h:1", "--workers", "2"], "--scheduler and --workers exclude"),
        (["batch", str(PROOF), "--slurm", "gpu", "--gpus", "all"], "--gpus and --slurm exclude"),
        (["report", "nothing.ipynb"], "nothing.ipynb"),
        (["embed", "a.flac"], "no finished run"),
        (["embed", "a.flac", "--run", "nowhere", "--model", "vade"], "leave out --model"),
        (["embed", "a.flac", "--metric", "cosin"], "did you mean 'cosine'"),
        (["embed", "a.flac", "--output", "a.txt"], "a.txt"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(command, args, says):
    code, printed = command(*args)
    assert code == 2 and says in printed
    assert len(printed.strip().splitlines()) == 1
    assert not list(command.folder.rglob("*"))


def test_extra_options_become_parameters():
    given = cli._extra(["--beta", "2", "--batch-size=16", "--detilt"])
    assert given == {"beta": "2", "batch_size": "16", "detilt": "true"}


def test_one_language_and_unlabelled_songs_are_one_class(command, tmp_path):
    songs = write_tones(tmp_path / "songs", languages=("arabic", "bangla"), language=(["arabic"] * 6 + [""] * 6) * 2)
    code, printed = command("train", "--model", "cvae", "--store", str(build_store(songs, TINY)))
    assert code == 2 and "songs-tiny.zarr has fewer than two classes of language" in printed


def test_help_lists_every_command_at_once():
    started = time.monotonic()
    shown = subprocess.run([sys.executable, "-m", "vaelib.cli", "--help"], capture_output=True, text=True).stdout
    assert time.monotonic() - started < 3  # half a second on an idle machine: nothing heavy is imported
    for name in ("demo", "batch", "preprocess", "train", "train-all", "test", "compare", "embed", "report"):
        assert f" {name} " in shown
    code = "import sys, vaelib.plans\nassert not {'papermill', 'nbformat', 'distributed', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)  # what a second `vaelib preprocess` needs


def given_of(plan):
    return [job.parameters for job in plan.jobs if "store" in job.parameters]


def test_demo_is_a_plan(command, monkeypatch):
    seen = []
    monkeypatch.setattr(batch, "execute_plan", lambda found, workers=None: seen.append((found, workers)))
    command("demo")
    command("demo", "--clips", "8", "--epochs", "3", "--seed", "2", "--set", "loops.composition=0.5")
    command("demo", "--clips", "3", "--profile", "full")
    command("batch", str(PROOF), "--workers", "3", "--set", "epochs=2", "--set", "seeds=0")
    (usual, _), (taste, _), (full, _), (proof, workers) = seen
    demo = plans.read_plan(ROOT / "plans" / "demo.yaml")
    assert (usual.corpora, given_of(usual)) == (demo.corpora, given_of(demo))
    names = ["demo-8x6s-c0.5-v0.3-tempo-s2-compact", "desk-300x6s-s2-compact"]
    assert [c.store.stem for c in taste.corpora] == names and len(given_of(taste)) == 6
    assert {(g["epochs"], g["seed"]) for g in given_of(taste)} == {(3, 2)}
    assert [g["desk_epochs"] for g in given_of(taste) if g.get("desk")] == [3]
    assert [c.store.stem for c in full.corpora] == ["demo-3x30s-c0-v0.3-tempo-s0-full", "desk-112x30s-s0-full"]
    assert workers == Workers(3) and {(g["epochs"], g["seed"]) for g in given_of(proof)} == {(2, 0)}


@pytest.fixture
def tested(command, monkeypatch, tiny_runs):
    """Runs `vaelib test ARGS` on a run of each model, with small notebooks in place of the real ones."""
    monkeypatch.setenv("VAELIB_NOTEBOOKS", str(command.folder / "notebooks"))
    (command.folder / "notebooks").mkdir()
    for notebook in {notebook for notebook, _ in EXPERIMENTS.values()}:
        own = [name for name, (home, _) in EXPERIMENTS.items() if home == notebook]
        path = command.folder / "notebooks" / f"{notebook}.ipynb"
        cells = [EXPERIMENT.replace("NAME", name) for name in own]
        write_notebook(path, PARAMETERS, SETUP, *cells, "raise RuntimeError('this cell has no tag')")
        nb = json.loads(path.read_text())
        for cell, tag in zip(nb["cells"][1:], ["setup", *(f"test-{name}" for name in own)], strict=False):
            cell["metadata"]["tags"] = [tag]
        path.write_text(json.dumps(nb))
    for run in tiny_runs.values():
        target = command.folder / "outputs" / run.folder.parent.name / run.folder.name
        shutil.copytree(run.folder, target, ignore=shutil.ignore_patterns("results"))
    return lambda *args: command("test", *args)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("--test smoothness --model basic_vae", "smoothness of basic_vae"),
        ("--test reconstruction --compare basic_vae conv_vae", "reconstruction of conv_vae  beside basic_vae"),
        ("--test traversal --model beta_vae --dimension 0", "traversal of beta_vae"),
        ("--test separation --condition language", "separation of cvae language"),
        ("--test generate --model cvae --class arabic --n_samples 3 --modality audio", "generate of cvae language"),
    ],
)
def test_an_experiment_prints_what_its_cells_print_and_its_figure(tested, command, args, says):
    code, printed = tested(*args.split())
    assert code == 0 and says in printed and "set up" not in printed and "figure: " in printed
    kept = [p.parent.parent.name for p in (command.folder / "outputs").rglob("results/*.json")]
    special = "--compare" in args or "--dimension" in args or "--class" in args
    assert len(kept) == (not special)  # what is asked for specially is no number of the ledger
    assert (command.folder / "outputs" / "comparison" / "tests").is_dir() == special


def test_all_experiments_into_a_page(tested, command, monkeypatch):
    bad = {"filters": ("03_conv_vae", ("none",)), "smoothness": EXPERIMENTS["smoothness"]}
    monkeypatch.setattr(cli, "EXPERIMENTS", bad)
    code, printed = tested("--output", str(command.folder / "results.md"))
    assert code == 0 and "smoothness of basic_vae" in printed
    assert "filters: not tested: no finished run with model none" in printed
    page = (command.folder / "results.md").read_text()
    assert "smoothness of basic_vae" in page and "0.5" in page


def test_an_experiment_that_a_run_cannot_have_is_said(tested, command):
    path = command.folder / "notebooks" / "02_basic_vae.ipynb"
    nb = json.loads(path.read_text())
    nb["cells"][2]["source"] = "from vaelib.config import InputError\nraise InputError('there are no labels')"
    path.write_text(json.dumps(nb))
    code, printed = tested("--test", "smoothness")
    assert code == 2 and "there are no labels" in printed and len(printed.splitlines()) == 1
