"""Reports: HTML that asks the web for nothing, labels that stay text, files that are whole or not there."""

import base64
import dataclasses
import io
import json
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from vaelib import reports
from vaelib.config import ROOT, InputError
from vaelib.proofs import Proof, comparison_intervals, comparison_row
from vaelib.reports import Section, write_comparison, write_html, write_proofs
from vaelib.runs import fit, plan

EVIL = "<img src=x onerror=alert(1)>"
FETCHES = re.compile(r"<(script|link|img|iframe)\b[^>]*?\b(src|href)\s*=\s*[\"']?\s*(https?:)?//", re.I)
IMPORTS = re.compile(r"(@import\s+(url\()?|url\()[\"']?(https?:)?//", re.I)
PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def figure():
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([1, 3, 2])
    return fig


@pytest.fixture
def executed(tmp_path):
    """An executed notebook with text, a table, a picture, and a view that is both a widget and a player."""
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "m", "version_major": 2, "version_minor": 0}}
    outputs = [
        new_output("stream", name="stdout", text=f"label {EVIL}\n"),
        new_output("execute_result", {"text/plain": f"'{EVIL}'"}, execution_count=1),
        new_output("display_data", {"text/html": "<b id='player'>offline</b>", "text/plain": "View()", **widget}),
        new_output("display_data", {"image/png": base64.b64encode(PNG).decode(), "text/plain": "<Figure>"}),
    ]
    cells = [new_markdown_cell("# Title"), new_code_cell(f"x = '{EVIL}'", outputs=outputs, execution_count=1)]
    nb = new_notebook(cells=cells, metadata={
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "widgets": {"application/vnd.jupyter.widget-state+json": {
            "version_major": 2, "version_minor": 0, "state": {"m": {
                "model_name": "IntSliderModel", "model_module": "@jupyter-widgets/controls",
                "model_module_version": "2.0.0", "state": {},
            }}}},
    })  # fmt: skip
    path = tmp_path / "run.ipynb"
    nbformat.write(nb, path)
    return path


def pictures_of(page: Path) -> list[Image.Image]:
    """The pictures that a page embeds."""
    found = re.findall(r"src='data:image/\w+;base64,([^']+)'", page.read_text())
    return [Image.open(io.BytesIO(base64.b64decode(uri))) for uri in found]


def same_pixels(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and a.convert("RGBA").tobytes() == b.convert("RGBA").tobytes()


def asks_the_web(page: str) -> list[str]:
    return [m.group(0) for m in [*FETCHES.finditer(page), *IMPORTS.finditer(page)]]


# --- notebooks ---


def test_the_check_of_requests_sees_them():
    for bad in (
        '<script src="https://a.b/c.js">', "<link rel=stylesheet href='http://a'>", '<script defer src="//cdn/x">',
        "@import url(https://a)", "@font-face{src:url('http://a')}",
    ):  # fmt: skip
        assert asks_the_web(bad), bad
    assert not asks_the_web("<a href='https://a.b'>text</a><script>var u='http://x'</script><img src='data:x'>")


def test_an_executed_notebook_becomes_one_file_that_needs_no_network(executed):
    path = write_html(executed)
    page = path.read_text()
    assert path == executed.with_suffix(".html") and page.count("<html") == 1
    assert not asks_the_web(page)
    assert "IntSliderModel" not in page and "html-manager" not in page
    assert '<b id="player">offline</b>' in page and "View()" not in page and "widget-view+json" not in page
    assert f"data:image/png;base64,{base64.b64encode(PNG).decode()}" in page
    assert "widgets" in nbformat.read(executed, 4).metadata  # the notebook itself is left alone


def test_nothing_is_fetched_for_formulas_diagrams_or_widgets_either(executed):
    nb = nbformat.read(executed, 4)
    nb.cells.append(new_markdown_cell("$x^2$\n\n```mermaid\ngraph TD; a-->b\n```"))
    nbformat.write(nb, executed)
    page = write_html(executed).read_text()
    assert "$x^2$" in page and "graph TD; a--" in page
    assert not re.findall(r"cdnjs|unpkg|jsdelivr|mathjax|require\.js|import\(|<script src", page, re.I)


def test_the_committed_config_decides_how_html_is_made(executed, tmp_path, monkeypatch):
    assert reports.NBCONVERT == ROOT / "jupyter_nbconvert_config.py"
    own = tmp_path / "own_config.py"
    own.write_text("c = get_config()\nc.HTMLExporter.exclude_output = True\n")
    monkeypatch.setattr(reports, "NBCONVERT", own)
    page = write_html(executed).read_text()
    assert "offline</b>" not in page and "IntSliderModel" in page  # so nothing but the config leaves the widgets out


def test_a_picture_that_lies_beside_the_notebook_is_in_the_report(executed, tmp_path, monkeypatch):
    Image.new("RGB", (2, 2), "red").save(executed.parent / "beside.png")
    nb = nbformat.read(executed, 4)
    nb.cells.append(new_markdown_cell("![red](beside.png)"))
    nbformat.write(nb, executed)
    monkeypatch.chdir("/")
    assert base64.b64encode((executed.parent / "beside.png").read_bytes()).decode() in write_html(executed).read_text()


def test_labels_in_a_notebooks_output_and_title_stay_text(executed, tmp_path):
    page = write_html(executed, tmp_path / "new" / "report.html", title=f"</title>{EVIL}").read_text()
    assert EVIL not in page and page.count("&lt;img src=x onerror=alert(1)&gt;") >= 3
    assert "<title>run</title>" in write_html(executed).read_text()


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", "not json", '{"nbformat": 4, "cells": []}', '{"nbformat": 9, "cells": []}'],
)
def test_what_is_no_notebook_is_a_sentence(tmp_path, text):
    path = tmp_path / "x.ipynb"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.ipynb is not a notebook \(.+\)$") as stop:
        write_html(path)
    assert "\n" not in str(stop.value) and [p.name for p in tmp_path.iterdir()] == ["x.ipynb"]


def test_a_missing_or_unexecuted_notebook_leaves_the_old_report(executed, tmp_path):
    with pytest.raises(InputError, match=r"no notebook at .*gone\.ipynb: give an executed one"):
        write_html(tmp_path / "gone.ipynb")
    with pytest.raises(InputError, match="no notebook at"):
        write_html(tmp_path)
    nb = nbformat.read(executed, 4)
    nb.cells[1].outputs = []
    nbformat.write(nb, executed)
    target = tmp_path / "report.html"
    target.write_text("the old one")
    with pytest.raises(InputError, match=r"run\.ipynb has no outputs: execute it first"):
        write_html(executed, target)
    assert target.read_text() == "the old one"


# --- comparisons ---


def hostile_sections(figure) -> list[Section]:
    table = pd.DataFrame({"model": [EVIL, "a|b"], EVIL: [1.23456, np.nan], "n": [5, 6]})
    return [Section(EVIL, f"one {EVIL}\n\ntwo", table), Section(f"fig' {EVIL}", figure=figure, name="umap")]


def test_a_comparison_is_markdown_html_and_pictures(figure, tmp_path):
    md, page = write_comparison("All", "A note.", hostile_sections(figure), tmp_path / "new" / "out")
    folder = tmp_path / "new" / "out"
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {"MODEL_COMPARISON_RESULTS.md", "model_comparison.html", "visualizations/umap.png"}
    assert (md.name, page.name) == ("MODEL_COMPARISON_RESULTS.md", "model_comparison.html")
    assert (folder / "visualizations" / "umap.png").read_bytes().startswith(PNG)
    assert "](visualizations/umap.png)" in md.read_text() and md.read_text().startswith("# All\n\nA note.\n\n")
    (shown,) = pictures_of(page)
    assert shown.format == "WEBP" and same_pixels(shown, Image.open(folder / "visualizations" / "umap.png"))
    assert not asks_the_web(page.read_text())
    assert "<p>two</p>" in page.read_text()  # a blank line is a new paragraph


def test_every_label_of_a_comparison_stays_text(figure, tmp_path):
    md, page = write_comparison(EVIL, EVIL, hostile_sections(figure), tmp_path, [tmp_path / f"'{EVIL}.html"])
    # title, h1, note, two headings and their entries, text, column, cell, alt, link
    assert EVIL not in page.read_text() and page.read_text().count("&lt;img src=x") == 12
    assert EVIL not in md.read_text() and md.read_text().count("&lt;img src=x") == 9
    hrefs = re.findall(r"<a href='([^#'][^']*)'>", page.read_text())
    assert hrefs == [quote(f"'{EVIL}.html")]  # beside the report; nothing that could end the attribute


def test_a_markdown_table_keeps_its_columns_and_marks_what_is_missing(figure, tmp_path):
    md, page = write_comparison("t", "n", hostile_sections(figure), tmp_path)
    rows = [line for line in md.read_text().splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    assert [len(c) for c in cells] == [3, 3, 3, 3]
    assert cells[2][1:] == ["1.23", "5"] and cells[3] == [r"a\|b", "–", "6"]
    assert ">–</td>" in page.read_text() and ">1.23</td>" in page.read_text()


def test_a_page_that_would_be_too_large_packs_its_pictures_harder(figure, tmp_path, monkeypatch):
    Image.effect_noise((300, 200), 90).save(tmp_path / "noise.png")
    noise = Section("noise", picture=tmp_path / "noise.png")
    small, sizes = [Section("f", figure=figure, name="f"), noise], []
    for most in (10**9, 60_000, 10):
        monkeypatch.setattr(reports, "MOST_BYTES", most)
        page = write_comparison("t", "n", small, tmp_path / str(most))[1]
        sizes.append(page.stat().st_size)
        same = same_pixels(pictures_of(page)[1], Image.open(tmp_path / "noise.png"))
        assert same == (most == 10**9)
    assert sizes[0] > 60_000 > sizes[1] > sizes[2]  # one that cannot be small enough is as small as can be
    files = [(tmp_path / str(most) / "visualizations" / "f.png").read_bytes() for most in (10**9, 10)]
    assert files[0] == files[1]


def test_a_picture_that_is_too_long_for_webp_stays_png(tmp_path):
    Image.new("L", (2, 16_384)).save(tmp_path / "long.png")
    page = write_comparison("t", "n", [Section("long", picture=tmp_path / "long.png")], tmp_path)[1]
    assert pictures_of(page)[0].format == "PNG"


def test_links_to_notebooks_are_relative_to_the_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    md, page = write_comparison("t", "n", [], Path("out"), [Path("runs/a b.html")])
    assert "<a href='../runs/a%20b.html'>../runs/a b.html</a>" in page.read_text()
    assert "- ../runs/a b.html" in md.read_text()


def test_a_comparison_that_fails_leaves_every_old_file_whole(figure, tmp_path):
    write_comparison("old", "n", [Section("f", figure=figure, name="umap")], tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    figure.axes[0].set_title(r"$\frac{$")  # cannot be drawn
    with pytest.raises(ValueError, match="frac"):
        write_comparison("new", "n", [Section("f", figure=figure, name="umap")], tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before and len(before) == 3


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELIB_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        config = plan(store, "basic_vae", model_settings={"latent": 4}, epochs=1, batch_size=12, precision="32-true")
        return fit(config, store, show=False)


def judged(**changes) -> dict:
    """A row of the ledger."""
    row = {
        "id": "V1", "claim": "Conv is better", "metric": "MSE", "expected": "0.012 < 0.015", "rung": "loops",
        "how": "difference", "direction": "below", "threshold_low": 0.0, "threshold_high": 0.0,
        "value": -0.12345, "low": -0.2, "high": -0.1,
        "baseline": 0.3, "null": np.nan, "n": 3, "verdict": "supported", "reason": "", "how_far": "holds on loops",
        "run": "conv_vae against basic_vae", "notebook": "03",
    }  # fmt: skip
    assert set(changes) <= set(row)
    return row | changes


LEDGER = pd.DataFrame([
    judged(),
    judged(metric="R²", value=0.5, low=np.nan, high=np.nan, n=1, verdict="inconclusive", reason="1 seed: three"),
    judged(metric="edges", value=np.nan, low=np.nan, high=np.nan, n=0, verdict="not tested", reason="no run of x"),
    judged(id="B2", claim="Basic", rung="–", value=np.inf, low=np.inf, high=np.inf, null=1.0, verdict="refuted",
           reason="on this machine, 5 turns"),
])  # fmt: skip


def parts(run, **changes) -> dict:
    """What `compare` is given: little of everything."""
    table = pd.DataFrame([comparison_row(run)])
    return {
        "table": table, "intervals": comparison_intervals(table, ["mse"]), "ledger": LEDGER, "figures": {},
        "guide": pd.DataFrame({"need": ["a baseline"], "choose": ["basic_vae"]}), "lesson": "One sentence.",
    } | changes  # fmt: skip


def test_runs_are_compared_in_tables_a_ledger_a_report_and_pictures(run, figure, tmp_path, monkeypatch):
    monkeypatch.setenv("VAELIB_PAPERMILL", str(tmp_path / "papermill"))
    (tmp_path / "papermill").mkdir()
    for name in ("index.html", "02_basic_vae-of-older-code.html"):
        (tmp_path / "papermill" / name).write_text("x")
    figures = dict.fromkeys(("claims", "model_comparison", "own", "ladder"), figure)
    given = parts(run, figures=figures)
    shown = dataclasses.replace(run, folder=shutil.copytree(run.folder, tmp_path / "run"))
    shutil.rmtree(shown.folder / "figures")
    Proof("smoothness", run.name, {"a": 1.0}, f"A sentence with {EVIL}.", figure).save(shown.folder / "figures")
    folder = tmp_path / "out"
    path = reports.compare([shown, run], folder, **given, missing=["vade, seed 1: no finished run", "cvae"])
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {
        "comparison_table.csv", "comparison_intervals.csv", "claims.csv", "MODEL_COMPARISON_RESULTS.md",
        "model_comparison.html", "visualizations/claims.png", "visualizations/model_comparison.png",
        "visualizations/own.png", "visualizations/ladder.png",
    }  # fmt: skip
    page, md = path.read_text(), (folder / "MODEL_COMPARISON_RESULTS.md").read_text()
    headings = [
        "Missing", "The ladder: what holds on which rung", "What we learned", "The claims in short",
        "Which model for what", "The claims at a glance", "Every claim, measured", "The models at a glance",
        "Measured on test clips", "own", "Parameters", "basic_vae, seed 0: smoothness",
    ]  # fmt: skip
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", page) == headings == re.findall(r"^## (.*)$", md, re.M)
    entries = re.findall(r"<li><a href='#(s\d+)'>(.*?)</a>", page)
    assert [text for _, text in entries] == [*headings[:-1], "Proofs on basic_vae, seed 0"]
    assert all(f" id='{target}'>" in page for target, _ in entries)
    assert page.count("<details") == page.count("</details>") == 1  # the proofs of a run are folded
    assert EVIL not in page + md and "A sentence with &lt;img" in page and "A sentence with &lt;img" in md
    assert "<p>vade, seed 1: no finished run · cvae</p>" in page
    assert f"tones-tiny (fingerprint {run.config.fingerprint}), 2 runs." in page
    environment = json.loads((run.folder / "config.json").read_text())["environment"]
    assert f"torch {environment['torch']}" in page and "rendered" not in page
    assert "<a href='../papermill/index.html'>" in page and "02_basic_vae-of-older-code" not in page + md
    assert not asks_the_web(page)
    saved = pd.read_csv(folder / "comparison_table.csv")
    assert saved["run"].tolist() == [run.folder.name]
    assert saved["mse"].tolist() == pytest.approx(given["table"]["mse"].tolist())
    assert run.folder.name not in page  # the folder's name is for the CSV
    pd.testing.assert_frame_equal(
        pd.read_csv(
            folder / "claims.csv",
            dtype={"notebook": str},
            keep_default_na=False,
            na_values={c: [""] for c in ("value", "low", "high", "baseline", "null")},
        ),
        LEDGER,
    )
    assert pd.read_csv(folder / "comparison_intervals.csv")["model"].tolist() == ["basic_vae"]


def test_a_comparison_counts_its_verdicts_and_says_nothing_of_what_is_not_missing(run, tmp_path):
    page = reports.compare([run], tmp_path, **parts(run)).read_text()
    for said in ("1 supported", "1 inconclusive", "1 refuted, of 3 parts measured on all rungs; 1 were not tested."):
        assert said in page
    assert ">Missing<" not in page and ">-0.123 [-0.2, -0.1]</td>" in page and "<p>One sentence.</p>" in page


def test_every_label_of_a_comparison_of_runs_stays_text(run, tmp_path):
    ledger = pd.DataFrame([judged(claim=EVIL, metric=EVIL, expected=EVIL, run=EVIL, value=np.nan, reason=EVIL)])
    given = parts(run, ledger=ledger, guide=pd.DataFrame({EVIL: [EVIL]}))
    given["table"] = given["table"].assign(model=EVIL, classes=EVIL)
    page = reports.compare([run], tmp_path, **given, missing=[EVIL])
    texts = page.read_text(), (tmp_path / "MODEL_COMPARISON_RESULTS.md").read_text()
    # missing; claim, metric, expected, these also in short; reason, run; the guide's column and cell; model, classes
    for text in texts:
        assert EVIL not in text and text.count("&lt;img src=x") == 13


def test_a_demo_comparison_says_what_the_corpus_is(run, tmp_path):
    demo = dataclasses.replace(run, config=dataclasses.replace(run.config, corpus="demo-8x10s-compact"))
    path = reports.compare([demo], tmp_path, **parts(run))
    assert "rendered: synthetic styles, not evidence about musical traditions" in path.read_text()


# --- the ledger for reading ---


def test_the_ledger_reads_as_numbers_with_intervals_or_reasons():
    table = reports.claims_table(LEDGER)
    assert table["measured [95 %]"].tolist() == ["-0.123 [-0.2, -0.1]", "0.5", "no run of x", "inf"]
    assert table["verdict"].tolist() == ["✓ supported", "? inconclusive", "– not tested", "✗ refuted"]
    assert table["remark"].tolist() == ["", "1 seed: three", "", "on this machine, 5 turns"]
    assert table["measured as"].tolist() == ["MSE", "R²", "edges", "MSE"] and len(table) == len(LEDGER)
    assert table.loc[3, "null"] == 1 and table.loc[0, "run"] == "conv_vae against basic_vae"
    assert table.loc[0, ["baseline", "rung", "how far"]].tolist() == [0.3, "loops", "holds on loops"]


def test_a_claim_in_short_has_its_first_parts_verdict_on_every_rung_and_the_signs_of_all():
    harder = LEDGER.iloc[[0, 1]].assign(rung="composed", verdict=["refuted in this run", "refuted"], value=0.1)
    ledger = pd.concat([LEDGER.iloc[[3, 0, 1, 2]], harder], ignore_index=True)
    short = reports.claims_in_short(ledger)
    assert list(short) == [
        "id", "claim", "measured as", "expected", "any corpus", "loops", "composed", "how far",
    ]  # fmt: skip
    assert short["id"].tolist() == ["B2", "V1"]  # in the order of the ledger
    assert short.iloc[0][["any corpus", "loops", "composed"]].tolist() == ["✗ inf on this machine, 5 turns", "", ""]
    assert short.loc[1, "loops"] == "✓ -0.123 [-0.2, -0.1] · all parts: ✓1 ?1 –1"
    assert short.loc[1, "composed"] == "✗ 0.1 [-0.2, -0.1] in this run · all parts: ✗2"
    assert short.loc[1, "claim"] == "Conv is better" and short.loc[1, "measured as"] == "MSE"


def test_a_table_is_shown_whole():
    long = "a metric whose name is longer than the fifty characters that pandas shows"
    page = reports.whole(pd.DataFrame({"x": [long] * 70, "verdict": ["✓ supported", "✗ refuted"] * 35})).to_html()
    assert page.count(long) == 70 and page.count("✗ refuted") == 35
    assert all(shade in page for shade in (reports.SHADES["✓"], reports.SHADES["✗"]))


# --- what we learned ---


def heights(**changes) -> pd.DataFrame:
    """A picture of the ladder in numbers: rung loops, one seed."""
    rows = {
        "conv_vae": (False, 0.9, 0.03, 0.7, np.nan), "basic_vae": (False, 0.3, 0.01, 0.2, np.nan),
        "beta_vae": (False, 0.5, 0.02, 0.6, np.nan), "cvae-genre-fixed": (False, 0.4, 0.0, 0.6, 0.9),
        "PCA of the log-mel": (True, 0.5, 0.01, np.nan, np.nan), "chance, genre": (True, *[np.nan] * 3, 0.02),
    } | changes  # fmt: skip
    table = pd.DataFrame(
        [(m, *v) for m, v in rows.items()], columns=["model", "baseline", "ari", "mig", "r2", "samples"]
    )
    return table.assign(rung="loops", seed=0)


def test_what_was_learned_is_said_by_the_numbers():
    ledger = pd.DataFrame([
        judged(), judged(metric="b", how_far="holds on loops; breaks on composed"),
        judged(id="D1", how_far="holds nowhere (in this run)"), judged(id="G1", how_far="undecided"),
        judged(id="G1", metric="b", how_far="breaks on loops; undecided on composed"),
        judged(id="G2", how_far="not tested"),
    ])  # fmt: skip
    said = reports.learned(ledger, heights(), "loops")
    assert "1 hold wherever they were measured, 1 hold on some rungs only, 1 nowhere, 1 break on some rungs" in said
    assert "undecided on the others, 1 are undecided, and 1 were not tested." in said
    assert "No part of D1 holds anywhere." in said and "Of 6 parts of 4 claims" in said
    assert "conv_vae reconstructs best: R² 0.70 against the mean spectrogram (basic_vae: 0.20)" in said
    assert "conv_vae's, ARI 0.90: more than those of PCA of the log-mel, which learned nothing (0.50)" in said
    assert "gap of 0.02, not more than all of the others: conv_vae 0.03" in said
    assert "genre are heard as the one asked for in 90% (chance 2%)" in said and "one seed" in said
    other = reports.learned(ledger, heights(**{"PCA of the log-mel": (True, 0.95, 0.0, np.nan, np.nan)}), "loops")
    assert "ARI 0.90: no more than those of PCA" in other
    told = reports.learned(ledger, heights(**{"cvae-genre-fixed": (False, 0.99, 0.0, 0.6, 0.9)}), "loops")
    assert "are conv_vae's, ARI 0.90" in told
    assert "cvae-genre-fixed, which was told the genres in training, has 0.99." in told
    assert reports.learned(ledger, heights().iloc[:0], "loops").startswith("Of 6 parts")


# --- parameters ---


def test_parameters_are_counted_beside_the_expectation(monkeypatch):
    sizes = []
    build = reports.build

    def on_meta(config):
        model = build(config)
        sizes.append({p.device.type for p in model.parameters()})
        return model

    monkeypatch.setattr(reports, "build", on_meta)
    table = reports.parameter_table().set_index("model")
    assert sizes == [{"meta"}] * 10  # nothing is allocated for the 170 M numbers
    assert list(table.index) == ["basic_vae", "conv_vae", "beta_vae", "cvae", "vade"]
    assert table["expected (M)"].tolist() == [5.0, 3.0, 3.0, 3.5, 5.5]
    assert table["compact 64×64 (M)"].tolist() == [4.58, 2.96, 2.96, 3.30, 2.97]
    assert table["full 128×1293 (M)"].tolist() == [170.02, 64.46, 64.46, 75.03, 64.47]
    assert table["compact within 20 %"].tolist() == ["yes", "yes", "yes", "yes", "no"]
    assert set(table["full within 20 %"]) == {"no"}


def test_counts_for_the_ledger_are_those_of_the_table():
    counts = reports.parameter_counts()
    assert len(counts) == 10
    assert (counts["basic_vae: compact"], counts["vade: full"], counts["cvae: compact"]) == (4.58, 64.47, 3.30)


def test_the_conv_count_by_hand():
    """4×4 kernels and biases of 1-32-64-128-256 and back, 4096 features, two heads and one way back, σ."""
    pairs = [(1, 32), (32, 64), (64, 128), (128, 256)]
    encoder = sum(16 * a * b + b for a, b in pairs)
    decoder = sum(16 * a * b + a for a, b in pairs) + 128 * 4096 + 4096
    total = encoder + decoder + 2 * (4096 * 128 + 128) + 1
    table = reports.parameter_table().set_index("model")
    assert table.loc["conv_vae", "compact 64×64 (M)"] == round(total / 1e6, 2) == 2.96


# --- proofs ---


def test_proofs_are_one_page_with_sentence_numbers_and_picture(figure, tmp_path):
    proofs = [
        Proof("smoothness", "conv_vae", {"step": 1.23456, "nan": np.nan}, "It is even.", figure),
        Proof("filters", EVIL, {EVIL: 2.0}, f"A sentence with {EVIL}.", figure),
    ]
    path = write_proofs(proofs, tmp_path / "new" / "proofs.html")
    page = path.read_text()
    assert [p.name for p in path.parent.iterdir()] == ["proofs.html"]
    assert "<h2>smoothness: conv_vae</h2><p>It is even.</p>" in page and "<td>1.235</td>" in page
    assert EVIL not in page and page.count("&lt;img src=x") == 4  # heading, sentence, number, table's name
    assert len(pictures_of(path)) == 2 and not asks_the_web(page)
    assert page.startswith("<!doctype html>") and page.endswith("</html>")
