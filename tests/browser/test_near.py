"""More like this, in maps of tiny runs: live in JupyterLab, and in a page opened from disk."""

import re

import nbformat
import pytest
from conftest import TINY

from vaelib.explore import latent_map
from vaelib.runs import fit, plan
from vaelib.store import build_store, open_store

from . import explorers, lab
from .conftest import LANGUAGES, Heard
from .test_reports import FROM_DISK, opened

# A busy machine may starve a browser once; what is broken fails twice.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900), pytest.mark.flaky(reruns=1)]
SMALL = {"latent": 8, "components": 4}


@pytest.fixture(scope="module")
def runs(browser, hostile_corpus):
    """Two models of the hostile tones, whose artists are hostile too; test clips come in pairs of one artist."""
    store = open_store(build_store(hostile_corpus, TINY))
    made = [("conv_vae", {}), ("vade", {"pretrain_epochs": 1})]
    found = [fit(plan(store, m, epochs=1, seed=5, model_settings=SMALL, **k), store, show=False) for m, k in made]
    table, rows = found[0].store.table, store.rows("test")
    table["artist"] = ""
    table.loc[rows, "artist"] = [f"<img src=x onerror=alert(9)> {i // 2}" for i in range(len(rows))]
    return found


def test_in_a_page_from_disk(browser, runs, tmp_path, artefacts):
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8>{latent_map(runs, neighbours=3).offline()}")
    page, heard = opened(browser, path)
    explorer = page.locator(".vaelib-clips")
    explorers.use_near(explorer)
    assert explorer.locator(".near input[type=checkbox]").count() == 1
    near = explorer.locator(".near .cards").inner_text()
    assert any(name in near for name in LANGUAGES) and not page.locator("img[src='x'], [onerror]").count()
    page.screenshot(path=artefacts / "near.png", full_page=True)
    assert not heard.dialogs + heard.errors + heard.outside(*FROM_DISK)
    page.context.close()


def test_in_jupyterlab(browser, runs, tmp_path):
    folders = [str(r.folder) for r in runs]
    source = (
        f"from vaelib import explore, runs\n\nexplore.latent_map([runs.open_run(f) for f in {folders}], neighbours=3)"
    )
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nb, tmp_path / "near.ipynb")
    with lab.jupyter_lab(tmp_path, {"OMP_NUM_THREADS": "1"}) as server:
        page = browser.new_page(viewport=lab.VIEWPORT)
        heard = Heard().listen(page)
        notebook = lab.Notebook(page, server, tmp_path / "near.ipynb").run_all()
        notebook.wait_until_run()
        explorers.use_near(notebook.explorer(0))
        assert not heard.dialogs + heard.errors
        assert not heard.outside(server.base, re.sub("^http", "ws", server.base), "data:", "blob:")
        page.close()
