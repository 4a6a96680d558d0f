"""Thin commands over the notebooks: each checks its input, executes notebooks through papermill, says where to look."""

from __future__ import annotations

import json
import locale
import os
import shlex
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from .config import ROOT, InputError, data_dir, one_of, outputs_dir, papermill_dir, write_atomic, writing

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown",
    help="Five variational autoencoders on a music collection: preprocess, train, measure, compare.",
)  # fmt: skip
ANY = ("conv_vae", "basic_vae", "beta_vae", "cvae", "vade")
# name on the command line → its notebook, and the models that it is about (the first is the default)
EXPERIMENTS = {
    "smoothness": ("02_basic_vae", ("basic_vae", *ANY)),
    "filters": ("03_conv_vae", ("conv_vae", "beta_vae", "cvae", "vade")),
    **dict.fromkeys(("reconstruction", "clustering", "hierarchy"), ("03_conv_vae", ANY)),
    "disentanglement": ("04_beta_vae", ("beta_vae", *ANY)),
    "traversal": ("04_beta_vae", ("beta_vae", "conv_vae", "basic_vae", "vade")),
    **dict.fromkeys(("separation", "generate"), ("05_conditional_vae", ("cvae",))),
    **dict.fromkeys(("clustering_comparison", "gmm_components"), ("06_vade", ("vade",))),
    **dict.fromkeys(("soft_clustering", "cluster_contents"), ("06_vade", ("vade",))),
}
FREE = {"allow_extra_args": True, "ignore_unknown_options": True}
Modality = Annotated[str, Option(callback=lambda m: one_of("modality", m, ("audio",)), help="Only audio.")]
Outputs = Annotated[Path | None, Option("--checkpoint-dir", "--checkpoint_dir", help="Folder of the runs.")]
Changes = Annotated[list[str] | None, Option("--set", help="name=value instead of the plan's: epochs=2, seeds=0,1")]
StoreOption = Annotated[Path | None, Option(help="Mel store; default: the newest in data/stores.")]
Condition = Annotated[str, Option(help="cvae only: language or genre.")]
Output = Annotated[Path | None, Option(help="File to write; the ending of its name says what.")]


def _store(given: Path | None) -> str:
    """A store, or the newest that is no desk (that is for those who ask for it)."""
    from .store import attributes, open_store

    found = [p for p in (data_dir() / "stores").glob("*.zarr") if not p.name.endswith(".partial.zarr")]
    if not given and not found:
        raise InputError(f"no mel store in {data_dir() / 'stores'}: run `vaelib preprocess CORPUS` or `vaelib demo`")
    newest = given or max(found, key=lambda p: (attributes(p).get("rung") != "desk", p.stat().st_mtime))
    return str(open_store(newest.resolve()).path)


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
    clips: int = 40, epochs: int | None = None, seed: int = 0, profile: str = "compact", changes: Changes = None
) -> None:
    """Everything: render loops and desk, preprocess, train all models, compare; prints the report to open.

    --clips of each of the 45 genres (the desk has 37 times as many); --epochs of every training (default: what the plan
    says of each); --seed of clips and trainings; --profile: front end, compact (64 × 64) or full (128 × 1293).
    """
    given = {"seeds": seed, "profile": profile, "loops.clips_per_genre": clips, "desk.clips_per_genre": clips * 75 // 2}
    for corpus in ("loops", "desk"):
        given |= {f"{corpus}.seed": seed, f"{corpus}.clip_seconds": 30 if profile == "full" else 6}
    given |= {"epochs": epochs, "desk_epochs": epochs} if epochs is not None else {}
    batch(ROOT / "plans" / "demo.yaml", changes=[*(f"{k}={v}" for k, v in given.items()), *(changes or [])])


@app.command()
def batch(
    plan: Path, workers: Annotated[int | None, Option(min=1)] = None, gpus: str = "", scheduler: str = "",
    slurm: str = "", pbs: str = "", changes: Changes = None,
) -> None:  # fmt: skip
    """Do what is missing of a plan (YAML, see plans/): corpora, all trainings, comparison; prints the report to open.

    --workers: notebooks at a time; default: one for each GPU, else for each core (at most 4). --gpus: all, or numbers
    with commas, a worker for each. --scheduler: address of a running Dask scheduler, e.g. tcp://host:8786. --slurm or
    --pbs: section of dask-jobqueue's configuration, workers from that queue.
    """
    from .batch import Workers, execute_plan
    from .plans import read_plan

    page = execute_plan(read_plan(plan, changes or ()), Workers(workers, gpus, scheduler, slurm, pbs))
    typer.echo(f"executed notebooks: {papermill_dir() / 'index.html'}\ncomparison:         {page}")


@app.command(context_settings=FREE)
def preprocess(context: typer.Context, corpus: Path, profile: str = "compact") -> None:
    """Turn a folder of music into a mel store (notebook 01, which is also the report on the collection).

    --profile: front end, compact (64 × 64) or full (128 × 1293). Any parameter of the notebook can be given as --name
    value: --labels '{genre}/{artist}/{track}' says what the folders mean, --manifest names a CSV or Parquet table with
    a column path; --allow-outside, --segment-seconds, --hop-seconds, --split-seed, --windows.
    """
    import pandas as pd

    from .plans import make_corpus
    from .store import attributes

    given = _extra(context.args)
    if "manifest" in given:
        given["manifest"] = str(Path(given["manifest"]).expanduser().resolve())
    found = make_corpus(corpus.name, {"folder": str(corpus.expanduser().absolute()), **given}, profile)
    current = found.is_current()  # what is refused is refused before a kernel starts
    if not (current and found.job.is_done()):
        from .batch import run_alone

        run_alone(replace(found.job, again=not current))
    for remark in attributes(found.store).get("notes", ()):
        typer.echo(f"- {remark}")
    rejected = found.store.with_suffix(".rejected.csv")
    if files := pd.read_csv(rejected, dtype=str, keep_default_na=False)["path"].nunique():
        typer.echo(f"- {files:,} files are left out, in whole or in part; the reasons are in {rejected}")
    typer.echo(found.store)


@app.command(context_settings=FREE)
def train(
    context: typer.Context, model: Annotated[str, Option()], store: StoreOption = None, modality: Modality = "audio"
) -> None:
    """Train one model (basic_vae, conv_vae, beta_vae, cvae or vade) by executing its notebook.

    Any parameter of the notebook can be given as --name value: --epochs 50, --seed 1, --condition genre (cvae; language
    by default), --beta 2 (beta_vae), --settings "sigma=0.2", --devices 2: GPUs (or CPU processes) that share a batch.
    """
    from .batch import run_alone
    from .plans import MODEL_NOTEBOOKS, Job, checked, too_few_classes

    notebook = MODEL_NOTEBOOKS[one_of("model", model, MODEL_NOTEBOOKS)]
    given = {"condition": "language"} if model == "cvae" else {}
    given = checked(notebook, given | {"seed": "0"} | _extra(context.args))
    label = one_of("condition", given.get("condition", ""), ("", "language", "genre"))
    given["store"] = _store(store)
    if label and (few := too_few_classes(given["store"], label)):
        raise InputError(few)
    run_alone(Job(notebook, given, label))


@app.command("train-all", context_settings=FREE)
def train_all(context: typer.Context, store: StoreOption = None, modality: Modality = "audio") -> None:
    """Train all five models (Conditional twice) on a store, several at a time: --epochs 16, --seed … as of `train`."""
    from .batch import execute_plan
    from .plans import MODEL_NOTEBOOKS, make_plan

    given = {"epochs": 16, "seed": 0} | _extra(context.args)
    runs = [{"model": m} | ({"condition": ["language", "genre"]} if m == "cvae" else {}) for m in MODEL_NOTEBOOKS]
    plan = {"corpora": {"store": {"store": _store(store)}}, "seeds": [given.pop("seed")], "defaults": given}
    execute_plan(make_plan(plan | {"runs": runs}), compare=False)


@app.command()
def test(
    test: str = "all", model: str = "", compare: str = "",
    more: Annotated[list[str] | None, typer.Argument(help="Further models after --compare.")] = None,
    condition: Condition = "",
    dimension: Annotated[int | None, Option(min=0, help="traversal: latent dimension")] = None,
    sample_class: Annotated[str | None, Option("--class", help="generate: class to sample")] = None,
    n_samples: Annotated[int | None, Option("--n_samples", "--n-samples", min=1, help="generate: per class")] = None,
    corpus: Annotated[str | None, Option(help="Corpus and profile of the runs; default: any.")] = None,
    checkpoint_dir: Outputs = None, output: Output = None, modality: Modality = "audio",
) -> None:  # fmt: skip
    """An experiment on a trained run, no training: executes its cells of the notebook that explains it.

    --test: its name, or all; --model: its newest run is tested; --compare: reconstruction, models side by side.
    """
    from . import batch
    from .plans import Job, checked
    from .report import Section, write
    from .runs import latest_run

    root, wanted = checkpoint_dir or outputs_dir(), {"corpus": corpus}
    given = {"dimension": dimension, "sample_class": sample_class, "n_samples": n_samples}
    special = {name: value for name, value in given.items() if value is not None}
    names = list(EXPERIMENTS) if test == "all" else [one_of("test", test, [*EXPERIMENTS, "all"])]
    if model and test != "all":
        one_of(f"model of test {test!r}", model, EXPERIMENTS[test][1])
    asked = [(name, model if model in EXPERIMENTS[name][1] else EXPERIMENTS[name][1][0]) for name in names]
    if test == "reconstruction" and compare:
        first = latest_run(root, model=one_of("model", compare, ANY), **wanted)
        wanted = {"fingerprint": first.config.fingerprint, "detilt": first.config.detilt}
        special = {"compare": str(first.folder)} if more else {}
        asked = [(test, one_of("model", m, ANY)) for m in more or [compare]]
    elif more:
        raise InputError(f"{' '.join(more)!r} was not expected: models to put side by side follow --compare")
    jobs, sections = [], []
    with tempfile.TemporaryDirectory(prefix="vaelib-") as folder:
        for name, chosen in asked:
            about = wanted | ({"condition": condition} if condition and chosen == "cvae" else {})
            try:
                trained = latest_run(root, model=chosen, **about).folder
            except InputError as e:
                sections.append(Section(name, f"not tested: {e}"))
                continue
            if special:  # the numbers are not those of the ledger: they are kept with a copy of the run
                trained = shutil.copytree(trained, Path(folder, trained.name), ignore=lambda *_: ["results"])
            notebook, cells = EXPERIMENTS[name][0], ("setup", f"test-{name}")
            values = checked(notebook, {"trained": str(trained)} | special)
            jobs.append(Job(notebook, values, name, page=False, again=True, cells=cells))
        outcomes = batch.run(jobs) if len(jobs) > 1 else [batch.execute(job) for job in jobs]
        batch.raise_failures([outcome for outcome in outcomes if outcome.state == "failed"])
        sections += [_section(outcome, bool(special)) for outcome in outcomes]
    if all(section.numbers is None for section in sections):
        raise InputError(f"nothing could be tested in {root}: {sections[0].text}")
    for section in sections:
        if section.numbers is None:
            typer.echo(f"{section.title}: {section.text}")
    if output is not None:
        typer.echo(write(output, "Experiments", sections))


def _section(outcome, copy: bool):
    """Print what the cells of an experiment printed; its section of a report, with a `copy` of its figure."""
    from .report import Section

    name, results = outcome.job.label, Path(outcome.job.parameters["trained"], "results")
    if not outcome.path:
        return Section(name, f"not tested: {outcome.reason}")
    cells, kept = json.loads(outcome.path.read_text())["cells"], json.loads((results / f"{name}.json").read_text())
    outcome.path.unlink()
    if "skipped" in kept:
        return Section(name, f"not tested: {kept['skipped']}")
    for output in (o for c in cells if f"test-{name}" in c["metadata"].get("tags", []) for o in c.get("outputs", [])):
        data = output.get("data", {})
        said = "".join(output.get("text") or data.get("text/markdown") or data.get("text/plain", "")).rstrip()
        if output.get("name") != "stderr" and said and not said.startswith("<"):  # `<Figure size …>`
            typer.echo(said)
    picture = next(results.glob(f"{name}.png"), None)
    if picture and copy:
        picture = write_atomic(outputs_dir() / "comparison" / "tests" / picture.name, picture.read_bytes())
    typer.echo(f"figure: {picture}")
    return Section(name, kept["text"], kept["numbers"], picture)


@app.command(context_settings=FREE)
def compare(context: typer.Context, checkpoint_dir: Outputs = None, output: Output = None) -> None:
    """Compare all trained runs (notebook 07); prints the HTML report to open. --output: a copy of the Markdown one.

    Any parameter of the notebook can be given as --name value: --corpus (and profile) of the runs, --epochs of them.
    """
    from .batch import run_alone
    from .plans import Job, checked
    from .runs import latest_run

    root, given = (checkpoint_dir or outputs_dir()).resolve(), checked("07_compare", _extra(context.args))
    latest_run(root, corpus=given.get("corpus"), epochs=given.get("epochs"))
    run_alone(Job("07_compare", {"outputs": str(root)} | given, again=True))
    folder = Path(given.get("target", root / "comparison"))
    if output is not None:
        text = (folder / "MODEL_COMPARISON_RESULTS.md").read_text()
        typer.echo(write_atomic(output, text.replace("](visualizations/", f"]({folder / 'visualizations'}/")))
    typer.echo(folder / "model_comparison.html")


@app.command()
def embed(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Audio files, of the collection or new.")],
    run: Path | None = None, model: str = "", condition: Condition = "", checkpoint_dir: Outputs = None,
    output: Output = None, like: Annotated[int | None, Option(min=0)] = None, metric: str = "euclidean",
    per: str = "file",
) -> None:  # fmt: skip
    """Where files lie in a trained run's latent space: codes, cluster or class probabilities, the nearest clips.

    --run: folder of a finished run; default: the newest, or that of --model. --output: a .csv, .parquet or .html file
    (map, players) instead of a printed table. --like: so many nearest clips of the collection (printed: 3), by --metric
    (euclidean, cosine). --per: a row for each file, or for each segment of a long one.
    """
    from tqdm import tqdm

    from . import embedding
    from .metrics.clustering import DISTANCES
    from .runs import latest_run, open_run

    one_of("metric", metric, DISTANCES)
    one_of("unit", per, embedding.PER)
    one_of("model", model, ("", *ANY))
    if run and (model or condition):
        raise InputError("--run names one run: leave out --model and --condition")
    if output is not None:
        one_of(f"ending of {output}", output.suffix, embedding.ENDINGS)
    opened = open_run(run) if run else latest_run(checkpoint_dir, model=model or None, condition=condition or None)
    table, failed = embedding.embed_files(opened, tqdm(files, unit="files", disable=len(files) == 1), per)
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
def report(run: Path, output: Output = None) -> None:
    """Export an executed notebook as one HTML file that works offline; papermill_runs/index.html lists them all."""
    from .report import update_index, write_html

    typer.echo(write_html(run, output))
    update_index()


def main() -> None:
    """Run a command; bad input ends with one sentence and exit code 2, a failed notebook with exit code 1."""
    if locale.getpreferredencoding(False).lower() != "utf-8":  # files are UTF-8 whatever the locale, also for kernels
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606
    # A container may ask for no bytecode: what is imported from here on is compiled once, not again by every worker
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["VAELIB_COMMAND"] = shlex.join(["vaelib", *sys.argv[1:]])  # notebooks and workers write it down
    try:
        with writing("a file"):
            app()
    except (InputError, RuntimeError) as e:
        code = 2 if isinstance(e, InputError) else 1
        if code == 1 and type(e).__name__ != "NotebookFailedError":
            raise
        print(f"vaelib: {e}", file=sys.stderr)
        raise SystemExit(code) from None


if __name__ == "__main__":
    main()
