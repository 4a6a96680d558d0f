"""Executed notebooks and comparisons as files to share: HTML without any network request, Markdown, CSV."""

from __future__ import annotations

import html
import io
import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from PIL import Image

from . import provenance
from .config import COMPACT, FULL, ROOT, InputError, ModelConfig, papermill_dir, write_atomic
from .metrics.statistics import MIN_SEEDS
from .models import MODELS, build
from .plots.ledger import VERDICTS
from .proofs import Proof
from .proofs.ledger import MACHINE, NO_RUNG, place
from .proofs.proof import png
from .runs import Run

# the source document's expectations, millions; never measured by anyone
EXPECTED_MILLIONS = {"basic_vae": 5.0, "conv_vae": 3.0, "beta_vae": 3.0, "cvae": 3.5, "vade": 5.5}

# what it expects of scores on the picture of the ladder, by metric and model
EXPECTED_SCORES = {
    "ari": {"basic_vae": 0.35, "conv_vae": 0.48, "beta_vae": 0.42, "cvae-genre-fixed": 0.63, "vade": 0.71},
    "mig": {"beta_vae": 0.38},
}
LADDER_METRICS = {
    "ari": "ARI with the genres ↑ (K-Means; VaDE: its own components)", "mig": "mutual information gap ↑",
    "r2": "R² against the mean training spectrogram ↑", "samples": "samples heard as the class asked for ↑",
}  # fmt: skip

# how notebooks become HTML; `make setup` shows it to `jupyter nbconvert` and JupyterLab, which then write the same file
NBCONVERT = ROOT / "jupyter_nbconvert_config.py"


def write_html(notebook: Path, target: Path | None = None, title: str = "") -> Path:
    """Export an executed notebook as one HTML file that needs no network, as `jupyter_nbconvert_config.py` says.

    Raises:
        InputError: no such notebook, not a notebook, or not executed.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import PyFileConfigLoader

    notebook = Path(notebook)
    if not notebook.is_file():
        raise InputError(f"no notebook at {notebook}: give an executed one, e.g. from papermill_runs/")
    try:
        nb = nbformat.read(notebook, 4)
    except Exception as e:
        raise InputError(f"{notebook} is not a notebook ({str(e).splitlines()[0]})") from e
    code = [c for c in nb.cells if c.cell_type == "code"]
    if code and not any(c.outputs for c in code):
        raise InputError(f"{notebook} has no outputs: execute it first (`vaelib train`, papermill, or JupyterLab)")
    exporter = HTMLExporter(config=PyFileConfigLoader(NBCONVERT.name, str(NBCONVERT.parent)).load_config())
    about = {"name": title or notebook.stem, "path": str(notebook.parent)}
    body, _ = exporter.from_notebook_node(nb, {"metadata": about})
    return write_atomic(target or notebook.with_suffix(".html"), body)


# A page can be sent by mail: it stays below this. How the copies of its PNG files are packed into it, best first.
MOST_BYTES = 9_000_000
PACKINGS = ({"lossless": True, "method": 1}, {"quality": 80}, {"quality": 50})


def _img(alt: str, picture: bytes, packing: Mapping[str, Any]) -> str:
    """PNG → an embedded WebP, by default half as large with the very same pixels; too long for WebP: as it is."""
    image, kind = Image.open(io.BytesIO(picture)), "png"
    if max(image.size) < 16_384:
        buffer, kind = io.BytesIO(), "webp"
        image.save(buffer, "WEBP", **packing)
        picture = buffer.getvalue()
    return f"<img alt='{html.escape(alt, quote=True)}' src='data:image/{kind};base64,{b64encode(picture).decode()}'>"


def _md(text: str) -> str:
    """Text that cannot become a tag when the Markdown is rendered."""
    return text.replace("<", "&lt;")


def _md_table(table: pd.DataFrame) -> str:
    shown = table.map(lambda v: v.replace("|", r"\|") if isinstance(v, str) else v)
    shown = shown.astype(object).where(table.notna(), None)  # tabulate's missing value is None, not nan
    return _md(shown.to_markdown(index=False, floatfmt=".3g", missingval="–"))


Part = str | tuple[str, bytes]  # of a page: HTML, or a picture (PNG) with its words


@dataclass(frozen=True)
class Section:
    """A part of the comparison: a heading, a sentence or two, a table, a figure with its file name, a picture file.

    Sections that are `part_of` one thing, after each other, are one entry of the contents list, and folded.
    """

    heading: str
    text: str = ""
    table: pd.DataFrame | None = None
    figure: Figure | None = None
    name: str = ""
    picture: Path | None = None
    part_of: str = ""


STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:1180px;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
th,td{border-bottom:1px solid #ddd;padding:.3rem .5rem;text-align:left;vertical-align:top}
td:first-child{white-space:nowrap} nav ul{columns:3;padding-left:1.2rem;font-size:14px}
summary{cursor:pointer;font-weight:600;margin:.6rem 0}
img{max-width:100%} h1{font-size:1.6rem} h2{font-size:1.2rem;margin-top:2.2rem} .note{color:#555}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#15161a} th,td{border-color:#444}
 img{background:#fff;border-radius:4px} .note{color:#aaa} a{color:#8ab4ff}}
"""


def write_comparison(
    title: str, note: str, sections: Sequence[Section], folder: Path, links: Sequence[Path] = ()
) -> tuple[Path, Path]:
    """Write `MODEL_COMPARISON_RESULTS.md`, `model_comparison.html` and `visualizations/*.png` into a folder.

    Every text and label is escaped.

    Returns:
        Paths of the Markdown and the HTML file.
    """
    pictures = folder / "visualizations"
    pictures.mkdir(parents=True, exist_ok=True)
    paths = [os.path.relpath(p, folder) for p in links]  # relative: the folders can be moved together
    hrefs = [f"<a href='{html.escape(quote(p), quote=True)}'>{html.escape(p)}</a>" for p in paths]
    md = [f"# {_md(title)}", _md(note)]
    page: list[Part] = [f"<h1>{html.escape(title)}</h1><p class='note'>{html.escape(note)}</p>"]
    if links:
        md += ["Executed notebooks, with maps, explorers and sound:", "\n".join(f"- {_md(p)}" for p in paths)]
        page.append(f"<p>Executed notebooks, with maps, explorers and sound: {', '.join(hrefs)}</p>")
    entries: dict[str, int] = {}  # of the contents list → number of the first section under it
    for i, s in enumerate(sections):
        entries.setdefault(s.part_of or s.heading, i)
    items = "".join(f"<li><a href='#s{i}'>{html.escape(name)}</a>" for name, i in entries.items())
    page.append(f"<nav><ul>{items}</ul></nav>")
    folded = ""
    for i, s in enumerate(sections):
        md.append(f"## {_md(s.heading)}")
        if s.part_of != folded:
            page.append("</details>" * bool(folded))
            page.append(f"<details id='s{i}'><summary>{html.escape(s.part_of)}</summary>" * bool(s.part_of))
            folded = s.part_of
        page.append(f"<h2>{html.escape(s.heading)}</h2>" if folded else f"<h2 id='s{i}'>{html.escape(s.heading)}</h2>")
        if s.text:
            md.append(_md(s.text))
            page += [f"<p>{html.escape(p)}</p>" for p in s.text.split("\n\n")]
        if s.table is not None:
            md.append(_md_table(s.table))
            page.append(whole(s.table).to_html())
        if s.figure is not None:
            path = write_atomic(pictures / f"{s.name}.png", png(s.figure))
            md.append(f"![{_md(s.heading)}](visualizations/{s.name}.png)")
            page.append((s.heading, path.read_bytes()))
        if s.picture is not None and s.picture.is_file():
            page.append((s.heading, s.picture.read_bytes()))
    page.append("</details>" * bool(folded))
    md.append(_md("\n".join(f"- {name}: {said}" for name, said in provenance.record().items())))
    return (
        write_atomic(folder / "MODEL_COMPARISON_RESULTS.md", "\n\n".join(md) + "\n"),
        write_atomic(folder / "model_comparison.html", _document(title, page)),
    )


SIGNS = {verdict: sign for verdict, (sign, _) in VERDICTS.items()}
SHADES = {"✓": "#0064a333", "✗": "#b84a0033", "?": "#80808026"}


def whole(table: pd.DataFrame) -> Styler:
    """A table for notebooks and pages: no row, column or word is cut off, labels stay text, verdicts are coloured."""
    shade = lambda v: f"background:{SHADES[v[0]]}" if isinstance(v, str) and v[:1] in SHADES else ""  # noqa: E731
    number = lambda v: f"{v:.3g}" if isinstance(v, float | np.floating) else v  # noqa: E731
    shown = table.rename(columns=lambda c: html.escape(str(c))).reset_index(drop=True)
    style = Styler(shown, cell_ids=False).hide(axis="index").format(number, escape="html", na_rep="–")
    return style.map(shade)


def parameter_table() -> pd.DataFrame:
    """Parameters of the five models, counted on both front ends, beside the source document's expectation."""
    import torch

    rows = []
    for name in MODELS:
        row: dict[str, object] = {"model": name, "expected (M)": EXPECTED_MILLIONS[name]}
        for fe in (COMPACT, FULL):
            classes = ("a", "b", "c", "d", "e") if name == "cvae" else ()
            with torch.device("meta"):  # counts without allocating 170 M numbers
                count = build(ModelConfig(name, fe.shape, classes=classes)).parameter_count() / 1e6
            row[f"{fe.name} {fe.n_mels}×{fe.frames} (M)"] = round(count, 2)
            row[f"{fe.name} within 20 %"] = "yes" if abs(count / EXPECTED_MILLIONS[name] - 1) <= 0.2 else "no"
        rows.append(row)
    return pd.DataFrame(rows)


def parameter_counts() -> dict[str, float]:
    """Millions of trainable parameters by `<model>: <front end>`, for the claims ledger."""
    table = parameter_table().set_index("model")
    columns = {fe.name: f"{fe.name} {fe.n_mels}×{fe.frames} (M)" for fe in (COMPACT, FULL)}
    return {f"{model}: {name}": float(table.loc[model, c]) for model in table.index for name, c in columns.items()}


def claims_table(ledger: pd.DataFrame) -> pd.DataFrame:
    """The ledger for reading: numbers with their intervals as text, one row per part of a claim and rung."""
    rows = ledger.to_dict("records")
    return pd.DataFrame({
        "id": ledger["id"], "claim": ledger["claim"], "measured as": ledger["metric"], "rung": ledger["rung"],
        "verdict": [f"{SIGNS[v]} {v}" for v in ledger["verdict"]], "expected": ledger["expected"],
        "measured [95 %]": [r["reason"] if np.isnan(r["value"]) else _with_interval(r) for r in rows],
        "baseline": ledger["baseline"], "null": ledger["null"], "n": ledger["n"],
        "remark": ["" if np.isnan(r["value"]) else r["reason"] for r in rows],
        "how far": ledger["how_far"], "run": ledger["run"], "notebook": ledger["notebook"],
    })  # fmt: skip


def _with_interval(row: dict) -> str:
    """The value, and its interval where it has one that is more than a point."""
    wide = np.isfinite(row["low"]) and row["low"] < row["high"]
    return f"{row['value']:.3g}" + (f" [{row['low']:.3g}, {row['high']:.3g}]" if wide else "")


def claims_in_short(ledger: pd.DataFrame) -> pd.DataFrame:
    """One row per claim: its first part's verdict and figure on every rung, and the signs of all of its parts."""
    rungs = sorted(set(ledger["rung"]), key=lambda r: (r != NO_RUNG, place(r)))
    rows = []
    for name, parts in ledger.groupby("id", sort=False):
        first = parts.iloc[0]
        row = {"id": name, "claim": first["claim"], "measured as": first["metric"], "expected": first["expected"]}
        for rung in rungs:
            cell = _cell(parts[parts["rung"] == rung], first["metric"])
            row["any corpus" if rung == NO_RUNG else rung] = cell
        rows.append(row | {"how far": first["how_far"]})
    return pd.DataFrame(rows)


def _cell(parts: pd.DataFrame, metric: str) -> str:
    """Verdict and figure of the part in question on one rung, and, of several parts, how many have which verdict."""
    if parts.empty:
        return ""
    signs = parts["verdict"].map(SIGNS)
    count = " ".join(f"{sign}{n}" for sign, n in signs.value_counts(sort=False).items()) if len(parts) > 1 else ""
    own = parts[parts["metric"] == metric].to_dict("records")
    if not own:
        return count
    reason = own[0]["reason"]
    here = reason if reason.startswith(MACHINE) else "in this run" if own[0]["verdict"].endswith("in this run") else ""
    figure = "" if np.isnan(own[0]["value"]) else _with_interval(own[0])
    head = " ".join(w for w in (SIGNS[own[0]["verdict"]], figure, here) if w)
    return f"{head} · all parts: {count}" if count else head


def learned(ledger: pd.DataFrame, ladder: pd.DataFrame, main: str) -> str:
    """What the numbers say, in a few sentences.

    Args:
        ledger: `proofs.ledger`.
        ladder: `proofs.ladder_table`.
        main: The main corpus's rung.
    """
    here = ladder[ladder["rung"] == main].groupby(["baseline", "model"])[["ari", "mig", "r2", "samples"]].mean()
    models = here.loc[False] if False in here.index else here.iloc[:0]
    plain = here.loc[True] if True in here.index else here.iloc[:0]

    def best(table: pd.DataFrame, column: str) -> tuple[str, float]:
        known = table[column].dropna()
        return (known.idxmax(), known.max()) if len(known) else ("", np.nan)

    said = [_told_of_claims(ledger)]
    name, value = best(models, "r2")
    last, lowest = (models["r2"].idxmin(), models["r2"].min()) if name else ("", np.nan)
    if name and last != name:
        said.append(
            f"On {main}, {name} reconstructs best: R² {value:.2f} against the mean spectrogram ({last}: {lowest:.2f})."
        )
    told = np.array([str(m).startswith("cvae-genre") for m in models.index], dtype=bool)  # of the genres, in training
    supervised, known = best(models[told], "ari")
    name, value = best(models[~told], "ari")
    rival, reached = best(plain, "ari")
    if name and rival:
        ahead = "more than" if value > reached else "no more than"
        said.append(
            f"The clusters that agree best with the genres are {name}'s, ARI {value:.2f}: {ahead} those of {rival}, "
            f"which learned nothing ({reached:.2f})."
            + (f" {supervised}, which was told the genres in training, has {known:.2f}." if supervised else "")
        )
    said += [text for rung in dict.fromkeys(["desk", main]) if (text := _told_of_factors(ladder, rung))]
    name, value = best(models, "samples")
    if name:
        what = name.split("-")[1] if "-" in name else "class"
        chance = plain["samples"].get(f"chance, {what}", np.nan)
        said.append(f"Samples of a {what} are heard as the one asked for in {value:.0%} (chance {chance:.0%}).")
    seeds = ladder["seed"].nunique()
    said.append(
        "All of this is one seed: what holds in this run may be luck." if seeds == 1
        else f"{seeds} seeds were trained" + (": too few to decide beyond these runs." if seeds < MIN_SEEDS else ".")
    )  # fmt: skip
    return " ".join(said)


def _told_of_claims(ledger: pd.DataFrame) -> str:
    far = ledger.drop_duplicates(["id", "metric"])[["id", "how_far"]]
    tested = far[far["how_far"] != "not tested"]
    nowhere = tested["how_far"].str.match("holds nowhere|does not hold")
    holds = tested["how_far"].str.startswith("holds") & ~nowhere
    everywhere = holds & ~tested["how_far"].str.contains("breaks on|undecided")
    breaks = tested["how_far"].str.startswith("breaks on")
    undecided = tested["how_far"].str.startswith("undecided")
    told = (
        f"Of {len(far)} parts of {far['id'].nunique()} claims, {everywhere.sum()} hold wherever they were measured, "
        f"{(holds & ~everywhere).sum()} hold on some rungs only, {nowhere.sum()} nowhere, {breaks.sum()} break on some "
        f"rungs and are undecided on the others, {undecided.sum()} are undecided, and {len(far) - len(tested)} were "
        "not tested."
    )
    lost = [name for name, all_parts in nowhere.groupby(tested["id"], sort=False) if all_parts.all()]
    return told + (f" No part of {', '.join(lost)} holds anywhere." if lost else "")


def _told_of_factors(ladder: pd.DataFrame, rung: str) -> str:
    """Whether Beta's dimensions are the factors of a rung, beside β = 1 and the best linear method."""
    mig = ladder[ladder["rung"] == rung].groupby("model")["mig"].mean().dropna()
    if "beta_vae" not in mig:
        return ""
    others = {name: mig[name] for name in ("conv_vae", "FastICA", "PCA of the log-mel") if name in mig}
    beaten = all(mig["beta_vae"] > v for v in others.values())
    words = ", ".join(f"{name} {v:.2f}" for name, v in others.items())
    return (
        f"On {rung}, beta_vae has a mutual information gap of {mig['beta_vae']:.2f}, "
        f"{'more than' if beaten else 'not more than all of'} the others: {words}."
    )


def compare(
    runs: Sequence[Run],
    folder: Path,
    *,
    table: pd.DataFrame,
    intervals: pd.DataFrame,
    ledger: pd.DataFrame,
    guide: pd.DataFrame,
    lesson: str,
    figures: Mapping[str, Figure],
    missing: Sequence[str] = (),
) -> Path:
    """Write the comparison of several runs: CSV, Markdown, HTML and pictures.

    Args:
        runs: On the main corpus.
        table: One row per run (`proofs.comparison_row`); written as `comparison_table.csv`.
        intervals: Of its metrics over seeds (`proofs.comparison_intervals`).
        ledger: `proofs.ledger`; written as `claims.csv`.
        guide: `proofs.selection_guide`.
        lesson: From `learned`.
        figures: File name → picture; `ladder` is the first, `claims` the ledger's, `model_comparison` the one at a
            glance.
        missing: What a plan asked for and is not there.

    Returns:
        The HTML file.
    """
    corpus = runs[0].config.corpus
    write_atomic(folder / "comparison_table.csv", table.to_csv(index=False))
    write_atomic(folder / "comparison_intervals.csv", intervals.to_csv(index=False))
    write_atomic(folder / "claims.csv", ledger.to_csv(index=False))
    verdicts = ledger["verdict"].value_counts()
    untested = verdicts.pop("not tested") if "not tested" in verdicts else 0
    told = ", ".join(f"{n} {v}" for v, n in verdicts.items())
    told += f", of {verdicts.sum()} parts measured on all rungs; {untested} were not tested."
    pictures = {n: Section(_HEADINGS.get(n, n), figure=f, name=n) for n, f in figures.items()}
    first = [pictures.pop(n) for n in ("ladder",) if n in pictures]
    page = [pictures.pop(n) for n in ("claims",) if n in pictures]
    glance = [pictures.pop(n) for n in ("model_comparison",) if n in pictures]
    sections = [
        *first,
        Section("What we learned", lesson),
        Section("The claims in short", f"{told} {_CLAIMS_NOTE}",
                claims_in_short(ledger)),
        Section("Which model for what", "From the measured figures; the last column is what the source document "
                "advises.", guide),
        *page,
        Section("Every claim, measured", table=claims_table(ledger)),
        *glance,
        Section("Measured on test clips", _TABLE_NOTE, table.drop(columns=["run"])),
        *pictures.values(),
        Section("Parameters", "Trainable parameters beside the source document's expectation.", parameter_table()),
    ]  # fmt: skip
    if missing:
        sections.insert(0, Section("Missing", " · ".join(missing)))
    named = {}
    for run in runs:
        named.setdefault(run.name, run)
    for r in named.values():  # one seed of each: the numbers of all seeds stand in the tables
        subject = f"{r.name}, seed {r.config.training.seed}"
        for text in sorted((r.folder / "figures").glob("*.txt")):
            heading = f"{subject}: {text.stem.replace('_', ' ')}"
            picture = text.with_suffix(".png")
            sections.append(Section(heading, text.read_text(), picture=picture, part_of=f"Proofs on {subject}"))
    note = (
        f"Corpus and front end: {corpus} (fingerprint {runs[0].config.fingerprint}), {len(runs)} runs. "
        + ("The demo corpus is rendered: synthetic styles, not evidence about musical traditions. "
           if corpus.startswith("demo-") else "")
        + f"Machine: {_machine(runs)}."
    )  # fmt: skip
    index = papermill_dir() / "index.html"
    return write_comparison("Five VAEs side by side", note, sections, folder, [index] if index.is_file() else [])[1]


_HEADINGS = {
    "ladder": "The ladder: what holds on which rung", "claims": "The claims at a glance",
    "model_comparison": "The models at a glance", "reconstructions": "Reconstructions of test clips",
    "umap": "UMAP of the latent spaces", "tsne": "t-SNE of the latent spaces", "training_curves": "Training curves",
    "beta_sweep": "β against error and disentanglement", "kl": "KL of every latent dimension",
}  # fmt: skip
_CLAIMS_NOTE = (
    "Expectations are the source document's, which nobody had measured. From three seeds on an interval is over seeds "
    "(and over clips, where a number is one of test clips), and comparisons are paired by seed. With fewer seeds it is "
    "over the clips of the run, and what it decides holds in this run; training speed is timed in turns on this "
    "machine. Inconclusive: the interval covers the threshold, or nothing gives one. A refuted claim is a result."
)
_TABLE_NOTE = (
    "mse: squared error per bin, inputs in [0, 1] (of detilted inputs not comparable with the others). r2: against the "
    "mean training spectrogram. ari, ami, nmi, purity: clusters against the genres (conditional models: against the "
    "classes of their condition, labels inferred). ari_null_p95 and mig_null_p95: 95th percentile with permuted "
    "labels or factors. mig: mutual information gap on the true factors (a corpus without any: descriptors measured by "
    "librosa), of all clips, not of test alone, as nothing is fitted to them. live: dimensions whose KL exceeds 0.05 "
    "nats. clips_per_s: training windows per second. One row per seed."
)


def _machine(runs: Sequence[Run]) -> str:
    import json

    found = json.loads((runs[0].folder / "config.json").read_text())["environment"]
    return f"{found['device']}, {found['threads']} thread(s) per training, torch {found['torch']}"


def write_proofs(proofs: Sequence[Proof], target: Path) -> Path:
    """Write proofs as one HTML file: sentence, numbers and figure of each."""
    page: list[Part] = ["<h1>Proofs on trained runs</h1>"]
    for p in proofs:
        page.append(f"<h2>{html.escape(p.name)}: {html.escape(p.subject)}</h2><p>{html.escape(p.sentence)}</p>")
        page.append(p.table().to_html(border=0, float_format="{:.4g}".format))
        page.append((p.name, png(p.figure)))
    return write_atomic(target, _document("Proofs on trained runs", page))


def _document(title: str, page: Sequence[Part]) -> str:
    """The whole page, its pictures packed as well as its size allows."""
    head = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
    for packing in PACKINGS:
        body = "".join(p if isinstance(p, str) else _img(*p, packing) for p in page)
        if len(body) < MOST_BYTES:
            break
    made = "<br>".join(f"{html.escape(name)}: {html.escape(said)}" for name, said in provenance.record().items())
    return f"{head}<style>{STYLE}</style>{body}<footer class='note'><small>{made}</small></footer></html>"
