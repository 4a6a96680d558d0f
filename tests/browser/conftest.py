"""A browser, a tiny corpus with hostile names, and JupyterLab with every notebook on it, run once for all tests."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import soundfile
from conftest import RATE, tone
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from vaelib.config import ROOT, notebooks_dir
from vaelib.reports import write_html
from vaelib.store import store_path

from . import lab

NOTEBOOKS = sorted(p.stem for p in notebooks_dir().glob("*.ipynb"))
# What a page must show and never obey. The name of a file cannot hold "/", its path can.
LANGUAGES = ("<img src=x onerror=alert(1)>", "\"double\" & 'single' ⇄ عربى", "</script><script>alert(2)</script>")
FAMILIES = ("🎻 <b>bold</b>", "{{7*7}} $x$ `code` [a](javascript:alert(3))")
FILE = "{k} <img src=x onerror=alert(4)> \"q\" 'a' 🎵</script><script>alert(5)</script>/{k}<b>.flac"
CLIPS = 6  # of every language and family
TINY = {"epochs": 1, "batch_size": 12}
SETTINGS = {  # what makes a notebook short
    "02_basic_vae": TINY | {"pairs": 4},
    "03_conv_vae": TINY,
    "04_beta_vae": TINY | {"n_sliders": 2, "desk": ""},
    "05_conditional_vae": TINY | {"priors": "fixed", "n_samples": 3},
    "06_vade": TINY | {"components": 4},
    "07_compare": {"speed_rounds": 1},
}


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


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots go: `$VAELIB_SCREENSHOTS`, else `outputs/screenshots` of the repository."""
    folder = Path(os.environ.get("VAELIB_SCREENSHOTS", ROOT / "outputs" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass
class Heard:
    """What a page did that a reader would not see: errors in its console, dialogs, addresses that it asked for."""

    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def listen(self, page) -> "Heard":
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("request", lambda r: self.requests.append(r.url))
        page.on("dialog", self._dismiss)
        return self

    def _dismiss(self, dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def outside(self, *allowed: str) -> list[str]:
        """Requests to anywhere else."""
        return [r for r in self.requests if not r.startswith(allowed)]


@pytest.fixture(scope="session")
def hostile_corpus(folders) -> Path:
    """36 tones of 6.5 s; every label and file name tries to get into a page."""
    rows, folder = [], folders / "tones <i>&amp;"
    for language in range(len(LANGUAGES)):
        for family in range(len(FAMILIES)):
            for k in range(CLIPS):
                path = f"{language}{family}/" + FILE.format(k=k)
                (folder / path).parent.mkdir(parents=True)
                wave = tone(110 * (1 + language) * (1 + 0.5 * family), 6.5, amplitude=0.1 + 0.05 * k, seed=len(rows))
                soundfile.write(folder / path, wave, RATE)
                labels = {"language": LANGUAGES[language], "family": FAMILIES[family]}
                labels["genre"] = " · ".join(labels.values())
                rows.append({"path": path, **labels, "tempo": 90.0 + len(rows), "energy": 0.1 + 0.05 * k})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder


class Desk:
    """JupyterLab with the workbook: a notebook is run when it is asked for, and the next one begins meanwhile.

    Args:
        browser: The browser.
        server: Serves the folder where copies of the notebooks are put, and their reports.
        corpus: Folder of sounds.
    """

    def __init__(self, browser, server: lab.Server, corpus: Path) -> None:
        self.browser, self.server, self.corpus = browser, server, corpus
        self.begun: dict[str, lab.Notebook] = {}
        self.heard: dict[str, Heard] = {}

    def copy(self, name: str) -> Path:
        """A copy of a notebook with small settings, and an empty cell at its end."""
        where = {"corpus": str(self.corpus)} if name == NOTEBOOKS[0] else {}
        if "epochs" in SETTINGS.get(name, {}):
            where = {"store": str(store_path(self.corpus.name, "compact"))}
        nb = load_notebook_node(str(notebooks_dir() / f"{name}.ipynb"))
        nb = parameterize_notebook(nb, SETTINGS.get(name, {}) | where, kernel_name="python3", language="python")
        nb.cells.append(nbformat.v4.new_code_cell(""))
        nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.server.root / f"{name}.ipynb"
        nbformat.write(nb, path)
        return path

    def begin(self, name: str) -> None:
        """Start running a notebook."""
        page = self.browser.new_page(viewport=lab.VIEWPORT)
        self.heard[name] = Heard().listen(page)
        self.begun[name] = lab.Notebook(page, self.server, self.copy(name)).run_all()

    def open(self, name: str) -> lab.Notebook:
        """A notebook that has run in JupyterLab, saved with its report; those that it needs have run before.

        Raises:
            AssertionError: a cell failed.
        """
        for needed in self.needs(name):
            self.report(needed)
        if name not in self.begun:
            self.begin(name)
        notebook = self.begun[name]
        notebook.wait_until_run()
        if not self.report_path(name).exists():
            write_html(notebook.save(), self.report_path(name), title=name)
        for following in NOTEBOOKS[NOTEBOOKS.index(name) + 1 :][:1]:
            if following not in self.begun and all(self.report_path(n).exists() for n in self.needs(following)):
                self.begin(following)
        return notebook

    def needs(self, name: str) -> list[str]:
        """The first notebook makes the store, the last one compares the runs of all others."""
        return NOTEBOOKS[:-1] if name == NOTEBOOKS[-1] else [n for n in NOTEBOOKS[:1] if n != name]

    def report_path(self, name: str) -> Path:
        return self.server.root / f"{name}.html"

    def report(self, name: str) -> Path:
        """The report of a notebook, which is run if it has not been."""
        if not self.report_path(name).exists():
            self.open(name)
        return self.report_path(name)

    def close(self, name: str) -> None:
        """Put a notebook away: its kernel holds a gigabyte."""
        notebook = self.begun[name]
        notebook.close_kernel()
        notebook.page.close()


@pytest.fixture(scope="session")
def desk(browser, hostile_corpus, folders) -> Iterator[Desk]:
    """JupyterLab in the folder of executed notebooks."""
    root = Path(os.environ["VAELIB_PAPERMILL"])
    root.mkdir(parents=True, exist_ok=True)
    with lab.jupyter_lab(root, {"OMP_NUM_THREADS": "1"}) as server:
        yield Desk(browser, server, hostile_corpus)
