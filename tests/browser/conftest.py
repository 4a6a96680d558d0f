"""A browser, a tiny corpus with hostile names, and one notebook with every explorer: in JupyterLab and saved."""

from collections.abc import Iterator

import pandas as pd
import pytest
import soundfile
from conftest import RATE, tone, write_notebook

from vaelib.config import COMPACT
from vaelib.report import write_html
from vaelib.runs import fit, plan
from vaelib.store import build_store, open_store

from . import lab

# What a page must show and never obey. The name of a file cannot hold "/", its path can.
LANGUAGES = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script> $$x$$")
FAMILIES = ("🎻 <b>bold</b>", "{{7*7}} $x$ `code` [a](javascript:alert(3))")
FILE = "{k} <img src=x onerror=alert(4)> \"q\" 'a' 🎵</script><script>alert(5)</script>/{k}<b>.flac"
VIEWPORT = {"width": 1100, "height": 900}
MODELS = {"conv_vae": {}, "cvae": {"condition": "language"}, "vade": {"pretrain_epochs": 1}}
CELLS = (  # one explorer each
    "explore.clip_browser(runs[0].store, runs[0].scaler)",
    "explore.interpolation(runs[0], rows[0], rows[-1])",
    "explore.traversal(runs[0], rows[0])",
    "explore.class_sampler(runs[1])",
    "explore.component_view(runs[2])",
    "maps = explore.latent_map(runs)\nmaps",
)
SETUP = """from pathlib import Path
from vaelib import explore
from vaelib.runs import open_run
runs = [open_run(Path(f)) for f in {folders!r}]
rows = [int(r) for r in runs[0].store.rows("test")]"""


@pytest.fixture(scope="session")
def browser():
    """An installed Chromium or Chrome; without one the tests are skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: it comes with .[dev]")
    executable = lab.find_browser()
    if executable is None:
        pytest.skip(f"no browser on this machine: install one of {', '.join(lab.BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        found = lab.launch(playwright, executable)
        yield found
        found.close()


def listened(page):
    """The page, with what it does that a reader would not see: errors in its console, dialogs, addresses asked for."""
    page.errors, page.dialogs, page.requests = [], [], []
    page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: page.errors.append(str(e)))
    page.on("request", lambda r: page.requests.append(r.url))
    page.on("dialog", lambda d: (page.dialogs.append(d.message), d.dismiss()))
    return page


@pytest.fixture(scope="session")
def folders_of_runs(folders) -> list[str]:
    """One quickly trained run of each kind that explorers open, on tones whose labels and names attack a page."""
    rows, corpus = [], folders / "tones <i>&amp;"
    for i, language in enumerate(LANGUAGES):
        for j, family in enumerate(FAMILIES):
            for k in range(9):
                path = f"{i}{j}/" + FILE.format(k=k)
                (corpus / path).parent.mkdir(parents=True)
                soundfile.write(corpus / path, tone(110 * (1 + i) * (1 + 0.5 * j), 6.5, seed=len(rows)), RATE)
                labels = {"language": language, "family": family, "genre": f"{language} · {family}"}
                rows.append({"path": path, **labels, "tempo": 90.0 + len(rows), "artist": f"{len(rows) // 2}<i>"})
    pd.DataFrame(rows).to_csv(corpus / "manifest.csv", index=False)
    store = open_store(build_store(corpus, COMPACT))
    small = {"conv_vae": {"latent": 8}, "cvae": {"latent": 8}, "vade": {"latent": 8, "components": 3}}
    plans = [plan(store, m, epochs=1, **small[m], **more) for m, more in MODELS.items()]
    return [str(fit(p, store, show=False).folder) for p in plans]


@pytest.fixture(scope="session")
def notebook(browser, folders_of_runs, tmp_path_factory) -> Iterator[lab.Notebook]:
    """The explorers in a JupyterLab of 1,100 pixels."""
    path = tmp_path_factory.mktemp("lab") / "explorers.ipynb"
    write_notebook(path, SETUP.format(folders=folders_of_runs), *CELLS, "len(maps.selected)")
    with lab.jupyter_lab(path.parent) as address:
        opened = lab.Notebook(listened(browser.new_page(viewport=VIEWPORT)), address, path)
        opened.run_all()
        yield opened


@pytest.fixture(scope="session")
def saved(browser, notebook) -> Iterator:
    """The same notebook as a page from disk, in a browser without a network."""
    path = write_html(notebook.save(), title="explorers")
    context = browser.new_context(viewport=VIEWPORT, offline=True)
    page = listened(context.new_page())
    page.size = path.stat().st_size
    page.goto(path.as_uri())
    page.locator(".vaelib-clips .map").first.wait_for()
    yield page
    context.close()
