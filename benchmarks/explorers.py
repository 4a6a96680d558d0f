"""How long a reader waits for an explorer: from a pointer's move to the changed picture, from letting go to the sound.

    make bench-ui                               # of the newest Conv VAE

Drags the sliders of a traversal in JupyterLab and in its saved page; the page itself notes when each move came and when
the picture made for it was on the screen.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
import numpy as np
from playwright.sync_api import Page, sync_playwright

from tests.browser import lab
from vaelib.config import InputError, outputs_dir
from vaelib.report import write_html
from vaelib.runs import find_runs

SLIDERS, MOVES = 5, 20  # each is dragged to its left end, then to its right one, in so many moves each
PAUSE, SOUND = 60, 2500  # ms between two moves (a hand that searches), and that a sound may take
CELLS = (
    "from pathlib import Path\nfrom vaelib import explore, runs\nrun = runs.open_run(Path({run!r}))",
    'explore.traversal(run, int(run.store.rows("test")[0]))',
)
# A move waits for the picture made for it or for a later one: of moves that come too fast some are left out.
STOPWATCH = """(() => {
  const seen = (window.stopwatch = { pictures: [], sounds: [], waiting: [] });
  let moved = 0, released = 0;
  addEventListener("pointermove", () => { moved = performance.now(); }, true);
  addEventListener("pointerup", () => { released = performance.now(); }, true);
  addEventListener("input", (e) => {
    const row = e.target.closest("label");
    seen.waiting.push({ at: moved, name: row.firstChild.textContent, text: row.lastChild.textContent });
  });
  addEventListener("loadeddata", () => {
    if (released) seen.sounds.push(performance.now() - released);
    released = 0;
  }, true);
  const put = CanvasRenderingContext2D.prototype.putImageData;
  CanvasRenderingContext2D.prototype.putImageData = function (...given) {
    put.apply(this, given);
    const { values } = this.canvas.closest(".vaelib-figure").shown; // what the picture was made for
    const made = (m) => Math.abs(values[m.name] - m.text) < 0.006;
    requestAnimationFrame(() => { // a message posted from the frame arrives when the frame has been painted
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        const past = seen.waiting.splice(0, seen.waiting.findLastIndex(made) + 1);
        seen.pictures.push(...past.map((m) => performance.now() - m.at));
      };
      port2.postMessage(0);
    });
  };
})()"""


def figures(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and largest of waits (ms), and how many there are."""
    found = {"median": np.median(values), "p95": np.percentile(values, 95), "max": max(values)}
    return {k: round(float(v), 1) for k, v in found.items()} | {"count": len(values)}


def drag(page: Page) -> dict:
    """Drag each slider of the page's explorer to both ends."""
    page.wait_for_timeout(2000)  # how long the page takes to start is not what is asked
    for slider in page.locator(".vaelib-view input[type=range]").all()[:SLIDERS]:
        lab.drag(slider, 0.0, 1.0, moves=MOVES, pause=PAUSE)
        page.wait_for_timeout(SOUND)
    seen = page.evaluate("stopwatch")
    return {"picture": figures(seen["pictures"]), "sound": figures(seen["sounds"]), "missed": len(seen["waiting"])}


def measure() -> dict[str, dict]:
    """Waits in JupyterLab (`live`) and in the page saved from it (`saved`); InputError: no trained Conv VAE."""
    found = find_runs(model="conv_vae")
    if not found:
        raise InputError(f"no trained Conv VAE in {outputs_dir()}: run `make demo` first")
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        path = Path(scratch) / "traversal.ipynb"
        cells = [nbformat.v4.new_code_cell(c.format(run=str(found[-1].resolve()))) for c in CELLS]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
        page = lab.launch(playwright, lab.find_browser()).new_page(viewport=lab.VIEWPORT)
        page.add_init_script(STOPWATCH)
        with lab.jupyter_lab(path.parent) as address:
            notebook = lab.Notebook(page, address, path)
            notebook.run_all()
            notebook.explorer(1)
            result = {"live": drag(page)}
            notebook.save()
        page.goto(write_html(path).as_uri())
        return result | {"saved": drag(page)}
