"""How long a reader waits: from a pointer's move to the changed picture, and from letting go to the sound.

    python -m tests.browser.bench_ui [--run FOLDER]

Drags the sliders of a traversal of a trained Conv VAE in JupyterLab and in its exported report, and notes in the page
itself when each move came and when its picture was on the screen. docs/BENCHMARKS.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import numpy as np

from vaelib.config import InputError, outputs_dir, papermill_dir, write_atomic
from vaelib.reports import write_html
from vaelib.runs import find_runs

from . import lab

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

SLIDERS, STEPS = 5, 20  # each is dragged to its left end, then in this many steps to its right one: 30 moves
WARM_UP = 10  # first moves, not counted
PAUSE = 60  # ms between two moves: a hand that searches, not one that flings
SOUND = 2500  # ms that a sound may take after the pointer has let go
QUIET = 250  # ms for the last picture to arrive before the pointer lets go
STOPWATCH = (Path(__file__).parent / "stopwatch.js").read_text()
CELLS = (
    "from pathlib import Path\n\nfrom vaelib import explore, runs\n\nrun = runs.open_run(Path({run!r}))",
    'row = int(run.store.rows("test")[0])\nexplore.traversal(run, row)',
)


def latencies(moves: Sequence[dict], draws: Sequence[dict]) -> list[dict]:
    """Match every move that changed the slider's value with the first picture that was up to date with it.

    A picture says which values it was made for. When the kernel cannot keep up, values are left out; their moves wait
    for the picture of a later one.

    Args:
        moves: `at` and `input` (ms), and the slider's `value` (name, number or words) after it, in order.
        draws: `put` and `shown` (ms), the `values` or the `text` that the picture was made for, and whether its pixels
            are `changed`, in order.

    Returns:
        For each move, in ms, how long until the picture was `shown`, the same from the browser's own time stamp of the
        event (`input`), and until it was only `drawn`; nothing for a move that never got a picture.
    """
    changing = [m for before, m in zip([{}, *moves], moves, strict=False) if m["value"] != before.get("value")]
    belongs = []  # (draw, number of its move)
    for draw in [d for d in draws if d["changed"] and "shown" in d]:
        before = [i for i, m in enumerate(changing) if m["at"] < draw["put"]]
        own = [i for i in before if _made_for(draw, *changing[i]["value"])]
        belongs += [(draw, own[-1])] if own else []
    found = []
    for i, move in enumerate(changing):
        first = next((draw for draw, n in belongs if n >= i), None)
        ends = {"shown": first["shown"] - move["at"], "input": first["shown"] - move["input"],
                "drawn": first["put"] - move["at"]} if first else {}  # fmt: skip
        found.append(ends)
    return found


def _made_for(draw: dict, name: str | None, value: float | str) -> bool:
    return draw["text"] == value if name is None else abs(draw["values"][name] - value) < 1e-6


def drag_about(page: Page, row: Locator) -> dict:
    """Drag one slider to both ends with the stopwatch running."""
    row.scroll_into_view_if_needed()
    handle = lab.handle_of(row)
    (x, y), (left, right) = lab.centre(handle), lab.track(handle)
    every = np.linspace(left, right, STEPS + 1)
    page.evaluate("stopwatchTake()")
    _drag(page, y, [x, *every[every < x - 1][::-1], *every[1:]], PAUSE)
    page.wait_for_timeout(SOUND)
    seen = page.evaluate("stopwatchTake()")
    released = seen["releases"][-1]
    sounds = [s["at"] - released for s in seen["sounds"] if s["at"] > released and s["seconds"] > 0]
    return {"moves": latencies(seen["moves"], seen["draws"]), "sounds": sounds[:1]}


def _drag(page: Page, y: float, places: Sequence[float], pause: float) -> None:
    page.mouse.move(places[0], y)
    page.mouse.down()
    for x in places[1:]:
        page.mouse.move(x, y)
        page.wait_for_timeout(pause)
    page.wait_for_timeout(QUIET)
    page.mouse.up()


def measure(page: Page, rows: Sequence[Locator]) -> dict:
    """Drag each slider, and put the figures together; the first `WARM_UP` moves are left out."""
    parts = [drag_about(page, row) for row in rows]
    moves = [m for part in parts for m in part["moves"]][WARM_UP:]
    if not any(moves):
        raise InputError("no picture followed a move: does the explorer still draw with putImageData?")
    return {
        "moved_to_shown": _figures([m["shown"] for m in moves if m]),
        "moved_to_drawn": _figures([m["drawn"] for m in moves if m]),
        "input_to_shown": _figures([m["input"] for m in moves if m]),
        "released_to_sound": _figures([s for part in parts for s in part["sounds"]]),
        "moves_without_picture": sum(not m for m in moves),
    }


def _figures(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile, largest (ms) and how many."""
    if not values:
        return {"count": 0}
    figures = {"median": np.median(values), "p95": np.percentile(values, 95), "max": max(values)}
    return {k: round(float(v), 1) for k, v in figures.items()} | {"count": len(values)}


def live(page: Page, server: lab.Server, path: Path) -> dict:
    """Latency in JupyterLab; the notebook is saved with its outputs."""
    notebook = lab.Notebook(page, server, path)
    notebook.run_all().wait_until_run()
    view = notebook.explorer(notebook.explorers()[0])
    page.wait_for_timeout(2000)  # the page settles: the latency of starting is not what is asked
    figures = measure(page, view.locator(".widget-slider").all()[:SLIDERS])
    notebook.save()
    return figures


def offline(page: Page, report: Path) -> dict:
    """Latency of the player in an exported report."""
    page.goto(report.as_uri())
    player = page.locator(".vaelib-player").first
    player.locator("canvas").first.wait_for()
    page.wait_for_timeout(1000)
    return measure(page, player.locator("label:has(input[type=range])").all()[:SLIDERS])


def newest_run(folder: str = "") -> Path:
    """The run to be dragged: a folder, or the newest trained Conv VAE on the compact front end.

    Raises:
        InputError: there is none.
    """
    found = [Path(folder)] if folder else [f for f in find_runs(model="conv_vae") if "-compact" in str(f.parent)]
    if not found or not (found[-1] / "config.json").is_file():
        where = folder or outputs_dir()
        raise InputError(f"no trained Conv VAE in {where}: run `make demo` first, or give --run FOLDER")
    return found[-1].resolve()


def largest_reports() -> dict[str, float]:
    """The largest HTML file of each folder of reports, MB."""
    folders = {"papermill_runs": papermill_dir(), "comparison": outputs_dir() / "comparison"}
    sizes = {n: max((p.stat().st_size for p in f.rglob("*.html")), default=0) / 1e6 for n, f in folders.items()}
    return {name: round(size, 2) for name, size in sizes.items()}


def run(run_folder: Path) -> dict:
    """Measure everything in a browser of its own."""
    from playwright.sync_api import sync_playwright

    executable = lab.find_browser()
    if executable is None:
        raise InputError(f"no browser: install one of {', '.join(lab.BROWSERS)}")
    with tempfile.TemporaryDirectory(prefix="vaelib-bench-") as folder:
        path = Path(folder) / "traversal.ipynb"
        cells = [nbformat.v4.new_code_cell(c.format(run=str(run_folder))) for c in CELLS]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
        with lab.jupyter_lab(path.parent) as server, sync_playwright() as p:
            browser = lab.launch(p, executable)
            page = browser.new_page(viewport=lab.VIEWPORT)
            page.add_init_script(STOPWATCH)
            figures = {"live": live(page, server, path), "offline": offline(page, write_html(path))}
            figures["browser"] = browser.version
            browser.close()
    return figures


def machine() -> dict:
    """Date, processor, cores and how busy they were."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.processor())
    today, load = date.today().isoformat(), round(os.getloadavg()[0], 1)
    return {"date": today, "processor": processor, "cores": os.cpu_count(), "load": load}


def as_table(result: dict) -> str:
    """The figures as Markdown."""
    m = result["machine"]
    named = f"{m['date']} | {m['cores']} × {m['processor']}, load {m['load']}"
    heads = ("date", "machine", "where", "moves", "median (ms)", "p95 (ms)", "max (ms)", "released → sound (ms)")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for where in ("live", "offline"):
        f, sound = result[where]["moved_to_shown"], result[where]["released_to_sound"]
        told = f"{f['count']} | {f['median']} | {f['p95']} | {f['max']} | {sound.get('median', '–')}"
        lines.append(f"| {named} | {where} | {told} |")
    sizes = ", ".join(f"{name} {size:.1f} MB" for name, size in result["largest_html_mb"].items())
    return "\n".join([*lines, "", f"Largest HTML file: {sizes}."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a Markdown table, write `outputs/bench/ui.json`."""
    parser = argparse.ArgumentParser(prog="tests.browser.bench_ui", description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="", help="folder of a trained run (default: the newest compact conv_vae)")
    given = parser.parse_args(arguments)
    try:
        folder = newest_run(given.run)
        measured = run(folder)  # before the machine is asked: its load is the mean of the last minute
        result = {"machine": machine(), "run": folder.name, **measured, "largest_html_mb": largest_reports()}
    except InputError as e:
        print(e, file=sys.stderr)
        return 2
    print(as_table(result))
    print(write_atomic(outputs_dir() / "bench" / "ui.json", json.dumps(result, indent=1)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
