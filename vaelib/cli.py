"""Thin commands over the notebooks: each checks its input, executes notebooks through papermill, says where to look."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .config import ROOT, InputError, data_dir, one_of, outputs_dir, papermill_dir, writing

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Five variational autoencoders on a music collection: render, preprocess, train, measure, compare.",
)  # fmt: skip


def _only_audio(modality: str) -> str:
    return one_of("modality", modality, ("audio",))


FREE = {"allow_extra_args": True, "ignore_unknown_options": True}
Modality = Annotated[str, typer.Option(callback=_only_audio, help="Only audio; as in the source document's commands.")]
CheckpointOption = Annotated[Path | None, typer.Option("--checkpoint-dir", "--checkpoint_dir")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="name=value instead of the plan's, e.g. epochs=2, seeds=0,1")
]
StoreOption = Annotated[Path | None, typer.Option(help="Mel store; default: the newest in data/stores.")]
Condition = Annotated[str, typer.Option(help="cvae only: language or genre")]
Output = Annotated[Path | None, typer.Option(help="File to write; the ending of its name says what.")]


def _newest_store(store: Path | None) -> Path:
    if store is not None:
        return store.resolve()
    from .store import attributes

    found = [p for p in (data_dir() / "stores").glob("*.zarr") if not p.name.endswith(".partial.zarr")]
    if not found:
        raise InputError(f"no mel store in {data_dir() / 'stores'}: run `vaelib preprocess CORPUS` or `vaelib demo`")
    # the desk has one genre: it is for those who ask for it
    return max(found, key=lambda p: (attributes(p).get("rung") != "desk", p.stat().st_mtime))


def _extra(args: list[str]) -> dict[str, str]:
    """`--name value` pairs that are passed on to the notebook's parameters."""
    values, words = {}, list(args)
    while words:
        name = words.pop(0)
        if not name.startswith("--"):
            raise InputError(f"{name!r} was not expected: parameters are given as --name value")
        name, _, value = name[2:].replace("-", "_").partition("=")
        if not value and (not words or words[0].startswith("--")):
            value = "true"  # a switch
        values[name] = value or words.pop(0)
    return values


@app.command()
def demo(
    clips: Annotated[int, typer.Option(help="Clips of each of the 45 genres; the desk has 37 times as many.")] = 40,
    epochs: Annotated[int | None, typer.Option(help="Of every training; default: what the plan says of each.")] = None,
    seed: int = 0,
    profile: str = "compact",
    changes: Changes = None,
) -> None:
    """Everything: render loops and desk, preprocess, train all models, compare; prints the report to open."""
    given = {"seeds": seed, "profile": profile, "loops.clips_per_genre": clips, "desk.clips_per_genre": clips * 75 // 2}
    for corpus in ("loops", "desk"):
        given |= {f"{corpus}.seed": seed, f"{corpus}.clip_seconds": 30 if profile == "full" else 6}
    given |= {"epochs": epochs, "desk_epochs": epochs} if epochs is not None else {}
    batch(ROOT / "plans" / "demo.yaml", changes=[*(f"{k}={v}" for k, v in given.items()), *(changes or [])])


@app.command()
def batch(
    plan: Annotated[Path, typer.Argument(help="YAML file: corpora, seeds, defaults and runs; see plans/.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Notebooks at a time; default: one per GPU, else per core (at most 4).")
    ] = None,
    gpus: Annotated[str, typer.Option(help="all, or numbers with commas: one worker for each.")] = "",
    scheduler: Annotated[str, typer.Option(help="Address of a running Dask scheduler, e.g. tcp://host:8786.")] = "",
    slurm: Annotated[str, typer.Option(help="Section of dask-jobqueue's configuration: workers from Slurm.")] = "",
    pbs: Annotated[str, typer.Option(help="The same: workers from PBS.")] = "",
    changes: Changes = None,
) -> None:
    """Do what is missing of a plan: corpora, all trainings, comparison; prints the report to open."""
    from .plans import execute_plan, read_plan
    from .workers import Workers

    page = execute_plan(read_plan(plan, changes or ()), Workers(workers, gpus, scheduler, slurm, pbs))
    typer.echo(f"executed notebooks: {papermill_dir() / 'index.html'}\ncomparison:         {page}")


@app.command(context_settings=FREE)
def preprocess(
    context: typer.Context,
    corpus: Annotated[Path, typer.Argument(help="Folder of music.")],
    profile: Annotated[str, typer.Option(help="Front end: compact (64 × 64) or full (128 × 1293).")] = "compact",
) -> None:
    """Turn a folder of music into a mel store (notebook 01, which is also the report on the collection).

    Any parameter of the notebook can be given as --name value: --labels '{genre}/{artist}/{track}' says what the
    folders mean, --manifest names a CSV or Parquet table with a column path; --allow-outside, --segment-seconds,
    --hop-seconds, --split-seed, --windows.
    """
    from .batch import run_alone
    from .plans import make_corpus

    given = _extra(context.args)
    if "manifest" in given:
        given["manifest"] = str(Path(given["manifest"]).expanduser().resolve())
    found = make_corpus(corpus.name, {"folder": str(corpus.expanduser().absolute()), **given}, profile)
    run_alone(replace(found.job, again=not found.is_current()))  # what is refused is refused before a kernel starts
    typer.echo(found.store)


@app.command(context_settings=FREE)
def train(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="basic_vae, conv_vae, beta_vae, cvae or vade")],
    condition: Condition = "",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training clips.")] = None,
    seed: int = 0,
    devices: Annotated[int, typer.Option(min=1, help="GPUs (or CPU processes) that share every batch.")] = 1,
    store: StoreOption = None,
    modality: Modality = "audio",
) -> None:
    """Train one model by executing its notebook; any parameter of the notebook can be given as --name value."""
    from .batch import MODEL_NOTEBOOKS, Job, checked, run_alone
    from .store import open_store

    notebook = MODEL_NOTEBOOKS[one_of("model", model, MODEL_NOTEBOOKS)]
    if condition and model != "cvae":
        raise InputError(f"model {model!r} takes no condition; use --model cvae for --condition {condition}")
    given = {"store": str(_newest_store(store)), "seed": seed, **_extra(context.args)}
    given |= {"epochs": epochs} if epochs is not None else {}
    given |= {"devices": devices} if devices > 1 else {}  # it is no other training: no other name
    if model == "cvae":
        given["condition"] = one_of("condition", condition or "language", ("language", "genre"))
    given = checked(notebook, given)
    open_store(given["store"])
    run_alone(Job(notebook, given, given.get("condition", "")))


@app.command("train-all", context_settings=FREE)
def train_all(
    context: typer.Context, epochs: int = 16, seed: int = 0, store: StoreOption = None, modality: Modality = "audio"
) -> None:
    """Train all five models (Conditional twice) on a store, several at a time."""
    from .batch import MODEL_NOTEBOOKS
    from .plans import execute_plan, make_plan

    runs = [{"model": m} | ({"condition": ["language", "genre"]} if m == "cvae" else {}) for m in MODEL_NOTEBOOKS]
    corpora = {"store": {"store": str(_newest_store(store))}}
    given = {"corpora": corpora, "seeds": [seed], "defaults": {"epochs": epochs} | _extra(context.args), "runs": runs}
    execute_plan(make_plan(given), compare=False)


@app.command()
def test(
    test: Annotated[str, typer.Option(help="Name of an experiment, or all.")] = "all",
    model: Annotated[str, typer.Option(help="Model whose newest run is tested.")] = "",
    compare: Annotated[str, typer.Option(help="reconstruction: models to put side by side.")] = "",
    more: Annotated[list[str] | None, typer.Argument(help="Further models after --compare.")] = None,
    condition: Condition = "",
    dimension: Annotated[int | None, typer.Option(min=0, help="traversal: latent dimension")] = None,
    class_name: Annotated[str | None, typer.Option("--class", help="generate: class to sample")] = None,
    n_samples: Annotated[
        int | None, typer.Option("--n_samples", "--n-samples", min=1, help="generate: samples per class; default 10")
    ] = None,
    checkpoint_dir: CheckpointOption = None,
    output: Output = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus and profile of the runs; default: any.")] = None,
    modality: Modality = "audio",
) -> None:
    """An experiment on a trained run, no training: executes its cells of the notebook that explains it."""
    from .experiments import EXPERIMENTS, Finding, execute_experiments
    from .models import MODELS
    from .report import Section, write
    from .runs import latest_run

    root, wanted = checkpoint_dir or outputs_dir(), {"corpus": corpus}
    asked: dict[tuple[str, str], list[str]] = {}
    for name in EXPERIMENTS if test == "all" else [one_of("test", test, [*EXPERIMENTS, "all"])]:
        notebook, models = EXPERIMENTS[name]
        if test != "all" and model:
            one_of(f"model of test {name!r}", model, models)
        asked.setdefault((notebook, model if model in models else models[0]), []).append(name)
    given = {"traversal": {"dimension": dimension}, "generate": {"sample_class": class_name, "n_samples": n_samples}}
    special = {name: value for name, value in given.get(test, {}).items() if value is not None}
    if test == "reconstruction" and compare:
        first = latest_run(root, model=one_of("model", compare, MODELS), **wanted)
        wanted = {"fingerprint": first.config.fingerprint, "detilt": first.config.detilt}
        wanted["target"] = first.config.training.target
        special = {"compare": str(first.folder)} if more else {}
        asked = {("03_conv_vae", one_of("model", m, MODELS)): [test] for m in more or [compare]}
    elif more:
        raise InputError(f"{' '.join(more)!r} was not expected: models to put side by side follow --compare")
    findings = []
    for (_, chosen), names in asked.items():
        about = {"condition": condition} if condition and chosen == "cvae" else {}
        try:
            findings += execute_experiments(latest_run(root, model=chosen, **wanted, **about).folder, names, **special)
        except InputError as e:
            if test != "all":
                raise
            findings += [Finding(name, reason=str(e)) for name in names]
    if all(f.reason for f in findings):
        raise InputError(f"nothing could be tested in {root}: {findings[0].reason}")
    for f in findings:
        typer.echo(f"{f.name}: not tested: {f.reason}" if f.reason else f"{f.printed}\nfigure: {f.picture}")
    if output is not None:
        sections = [Section(f.name, f.reason or f.text, f.numbers, f.picture) for f in findings]
        typer.echo(write(output, "Experiments", sections))


@app.command()
def compare(checkpoint_dir: CheckpointOption = None, output: Output = None, corpus: str = "", epochs: int = 0) -> None:
    """Compare all trained runs (notebook 07); prints the HTML report to open. --output: a copy of the Markdown one."""
    from .batch import Job, run_alone
    from .runs import latest_run

    root = (checkpoint_dir or outputs_dir()).resolve()
    latest_run(root, corpus=corpus or None, epochs=epochs or None)
    run_alone(Job("07_compare", {"outputs": str(root), "corpus": corpus, "epochs": epochs}, again=True))
    folder = root / "comparison"
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        text = (folder / "MODEL_COMPARISON_RESULTS.md").read_text()
        output.write_text(text.replace("](visualizations/", f"]({folder / 'visualizations'}/"))
        typer.echo(output)
    typer.echo(folder / "model_comparison.html")


@app.command()
def embed(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Audio files, of the collection or new.")],
    run: Annotated[Path | None, typer.Option(help="Folder of a finished run; default: the newest.")] = None,
    model: Annotated[str, typer.Option(help="The newest run of this model.")] = "",
    condition: Condition = "",
    output: Annotated[
        Path | None, typer.Option(help="Write a .csv, .parquet or .html file (map, players); else print a table.")
    ] = None,
    like: Annotated[
        int | None, typer.Option(min=0, help="Name so many nearest clips of the collection; printed: 3 by default.")
    ] = None,
    metric: Annotated[str, typer.Option(help="Of the distance: euclidean or cosine.")] = "euclidean",
    per: Annotated[str, typer.Option(help="A row for each file, or for each segment of a long one.")] = "file",
    checkpoint_dir: CheckpointOption = None,
) -> None:
    """Where files lie in a trained run's latent space: codes, cluster or class probabilities, the nearest clips."""
    from rich.progress import track

    from . import embedding
    from .metrics.clustering import DISTANCES
    from .models import MODELS
    from .runs import latest_run, open_run

    one_of("metric", metric, DISTANCES)
    one_of("unit", per, embedding.PER)
    one_of("model", model, ("", *MODELS))
    if run and (model or condition):
        raise InputError("--run names one run: leave out --model and --condition")
    if output is not None:
        one_of(f"ending of {output}", output.suffix, embedding.ENDINGS)
    newest = {"model": model or None, "condition": condition or None}
    opened = open_run(run) if run else latest_run(checkpoint_dir or outputs_dir(), **newest)
    table, failed = embedding.embed_files(opened, track(files, "files", disable=len(files) == 1), per)
    for file, reason in failed.items():
        print(f"vaelib: {embedding.named(file)} {reason}", file=sys.stderr)
    if table.empty:
        raise InputError(f"none of the {len(files)} files could be used")
    k = like if like is not None else 0 if output and output.suffix != ".html" else 3
    neighbours = embedding.more_like(opened, table, k, metric)
    if output is not None:
        typer.echo(embedding.write(opened, table, output, neighbours))
    else:
        note = "; below each file the nearest clips and how far they are" if k else ""
        typer.echo(f"{opened.name}: {opened.folder}{note}\n\n{embedding.text_of(opened, table, neighbours)}")
    if failed:
        raise typer.Exit(1)


@app.command()
def report(run: Path, output: Path | None = None) -> None:
    """Export an executed notebook as one HTML file that works offline; papermill_runs/index.html lists them all."""
    from .report import update_index, write_html

    typer.echo(write_html(run, output))
    update_index()


def main() -> None:
    """Run a command; bad input ends with one sentence and exit code 2, a failed notebook with exit code 1."""
    # A container may ask for no bytecode: what is imported from here on is compiled once, not again by every worker
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["VAELIB_COMMAND"] = shlex.join(["vaelib", *sys.argv[1:]])  # notebooks and workers write it down
    try:
        with writing("a file"):
            app()
    except InputError as e:
        code, message = 2, str(e)
    except RuntimeError as e:  # a notebook that failed, a loss that became NaN
        if type(e).__name__ not in ("NotebookFailedError", "TrainingDivergedError"):
            raise
        code, message = 1, str(e)
    print(f"vaelib: {message}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
