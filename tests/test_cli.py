"""Commands: bad input ends with one sentence and exit code 2, before anything is written."""

import functools
import os
import sys

import pytest

from vaelib import cli, plans, proofs
from vaelib.cluster import Workers
from vaelib.config import ROOT
from vaelib.runs import fit, plan

PROOF = ROOT / "plans" / "proof.yaml"
SMALL = {"latent": 8, "components": 4}
QUICK = {"epochs": 2, "batch_size": 10, "eval_windows": 2, "precision": "32-true"}


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
        (["demo", "--composition", "-1"], "composition must be from 0 to 1"),
        (["demo", "--profile", "full", "--seconds", "10"], "shorter than the 30.0-s window"),
        (["compare"], "no finished run"),
        (["demo", "--profile", "compct"], "did you mean 'compact'"),
        (["demo", "--variation", "2"], "variation must be from 0 to 1"),
        (["batch", "none.yaml"], "no plan can be read at none.yaml"),
        (["batch", str(PROOF), "--set", "epochs=0"], "epochs=0: epochs must be positive"),
        (["batch", str(PROOF), "--set", "seeds=0", "--set", "loops.folder=/no/music"], "no corpus at /no/music"),
        (["report", "nothing.ipynb"], "no notebook at nothing.ipynb"),
        (["embed", "a.flac"], "no finished run"),
        (["embed", "a.flac", "--model", "vad"], "did you mean 'vade'"),
        (["embed", "a.flac", "--run", "nowhere"], "nowhere is no run"),
        (["embed", "a.flac", "--run", "nowhere", "--model", "vade"], "leave out --model"),
        (["embed", "a.flac", "--metric", "cosin"], "did you mean 'cosine'"),
        (["embed", "a.flac", "--per", "segments"], "did you mean 'segment'"),
        (["embed", "a.flac", "--output", "a.txt"], "end it in .csv, .parquet, .npz"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(command, args, says):
    code, printed = command(*args)
    assert code == 2 and says in printed
    assert len(printed.strip().splitlines()) == 1 and "Traceback" not in printed
    assert not list(command.folder.rglob("*"))


def test_unknown_windows(command, corpus):
    code, printed = command("preprocess", str(corpus), "--windows", "anywere")
    assert code == 2 and "did you mean 'anywhere'" in printed


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
    for name in ("demo", "batch", "preprocess", "train", "train-all", "test", "compare", "embed", "report"):
        assert name in shown


def test_demo_is_a_plan(command, monkeypatch):
    seen = []
    monkeypatch.setattr(plans, "execute_plan", lambda found, workers=None: seen.append((found, workers)))
    command("demo")
    command("demo", "--clips", "8", "--epochs", "3", "--seed", "2", "--composition", "0.5", "--seconds", "7")
    command("demo", "--clips", "3", "--profile", "full")
    command("batch", str(PROOF), "--workers", "3", "--set", "epochs=2", "--set", "seeds=0")
    (usual, _), (taste, _), (full, _), (proof, workers) = seen
    assert usual.saved() == ROOT / "plans" / "demo.yaml" and not usual.text
    names = ["demo-8x7s-c0.5-v0.3-tempo-s2-compact", "desk-300x7s-s2-compact"]
    assert [c.store.stem for c in taste.corpora] == names and taste.seeds == (2,)
    assert {run["epochs"] for run in taste.runs} == {3} and len(taste.runs) == 6
    assert [run["desk_epochs"] for run in taste.runs if run["model"] == "beta_vae"] == [3]
    assert [c.store.stem for c in full.corpora] == ["demo-3x30s-c0-v0.3-tempo-s0-full", "desk-112x30s-s0-full"]
    assert workers == Workers(3) and proof.seeds == (0,) and {run["epochs"] for run in proof.runs} == {2}


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """An outputs folder with a run of every model; the newest conditional one is told the genre."""
    root = tmp_path_factory.mktemp("outputs")
    settings = [("basic_vae", {}), ("conv_vae", {}), ("beta_vae", {}), ("vade", {"pretrain_epochs": 2})]
    settings += [("cvae", {"condition": label, "prior": "fixed"}) for label in ("language", "genre")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_OUTPUTS", str(root))
        for age, (model, changes) in enumerate(settings):
            config = plan(store, model, model_settings=SMALL, **QUICK | changes)
            os.utime(fit(config, store, show=False).folder / "done.json", (1e9 + age, 1e9 + age))
    return root


@pytest.fixture
def tested(trained, monkeypatch, capsys):
    """Runs `vaelib test ARGS` on the trained runs; returns exit code and all that was printed."""
    monkeypatch.setenv("VAELIB_OUTPUTS", str(trained))
    filters, models = proofs.PROOFS["filters"]
    monkeypatch.setitem(proofs.PROOFS, "filters", (functools.partial(filters, examined=2), models))  # of 32 per layer

    def run(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vaelib", "test", *args])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return stop.value.code, printed.out + printed.err

    return run


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("--test smoothness --model basic_vae", "basic_vae"),
        ("--test filters --model conv_vae", "conv_vae"),
        ("--test reconstruction --compare basic_vae conv_vae", "conv_vae"),
        ("--test disentanglement --model beta_vae", "beta_vae"),
        ("--test traversal --model beta_vae --dimension 0", "beta_vae"),
        ("--test separation --model cvae --condition language", "cvae-language-fixed"),
        ("--test separation", "cvae-genre-fixed"),
        ("--test generate --model cvae --class arabic --n_samples 3", "samples of arabic heard as arabic"),
        ("--test generate --model cvae --class arabic_pop --n-samples 3", "samples of arabic_pop heard"),
        ("--test generate --condition language --class spanish --n_samples 3", "samples of spanish heard"),
        ("--test clustering_comparison --model vade", "vade"),
        ("--test gmm_components --model vade", "vade"),
        ("--test soft_clustering --model vade --modality audio", "vade"),
    ],
)
def test_the_commands_of_the_source_document(tested, args, says):
    code, printed = tested(*args.split())
    assert code == 0 and says in printed and "figure: " in printed


def test_all_proofs_into_a_file_of_a_new_folder(tested, tmp_path):
    code, printed = tested("--test", "all", "--output", str(tmp_path / "results" / "model_comparison.html"))
    assert code == 0 and "not tested" not in printed and printed.count("figure: ") == len(proofs.PROOFS)
    page = (tmp_path / "results" / "model_comparison.html").read_text()
    assert page.count("<h2>") == len(proofs.PROOFS)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("--test generate --class arabik --n_samples 3", "unknown class of genre 'arabik': did you mean"),
        ("--test smoothness --corpus other-compact", "corpus other-compact"),
        ("--test smoothness --output {folder}", "is a folder: give the name of an HTML file"),
        ("--test traversal --dimension 99", "99"),
    ],
)
def test_what_cannot_be_tested_is_said(tested, tmp_path, args, says):
    code, printed = tested(*args.format(folder=tmp_path).split())
    assert code == 2 and says in printed and len(printed.strip().splitlines()) == 1


def test_what_was_asked_specially_is_no_number_of_the_ledger(tested, trained):
    kept = sorted(trained.rglob("figures/generate.json"))
    kept_text = [path.read_text() for path in kept]
    code, printed = tested("--test", "generate", "--n_samples", "2")
    assert code == 0 and f"figure: {trained / 'comparison' / 'proofs' / 'generate.png'}" in printed
    assert sorted(trained.rglob("figures/generate.json")) == kept and [p.read_text() for p in kept] == kept_text


def test_runs_of_one_corpus_are_chosen_by_its_name(tested, store):
    code, printed = tested("--test", "reconstruction", "--corpus", store.path.stem)
    assert code == 0 and "figure: " in printed
