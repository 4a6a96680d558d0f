"""Every notebook in a real JupyterLab: cells run, controls move picture and sound, and nothing else happens."""

import re

import pytest

from . import explorers
from .conftest import LANGUAGES, NOTEBOOKS

# A busy machine may starve a browser once; what is broken fails twice.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900), pytest.mark.flaky(reruns=1)]
DARK = "JupyterLab Dark"
# Luminance (sRGB, WCAG 2) of the text of an element and of what lies behind it
CONTRAST = """(e) => {
    const channels = (c) => c.match(/[\\d.]+/g).map(Number);
    const light = (c) => channels(c).slice(0, 3).map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    let behind = e;
    while (channels(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    const both = [light(getComputedStyle(e).color), light(getComputedStyle(behind).backgroundColor)].sort();
    return (both[1] + 0.05) / (both[0] + 0.05);
}"""


@pytest.fixture(scope="module", params=NOTEBOOKS)
def notebook(request, desk):
    """One notebook after the other, in the page where it has run."""
    yield desk.open(request.param)
    desk.close(request.param)


@pytest.fixture
def cells(notebook) -> list[int]:
    """Numbers of the cells that hold an explorer."""
    return notebook.explorers()


@pytest.fixture
def views(notebook, cells) -> list[int]:
    """Those of them with sliders and drop-downs."""
    return [cell for cell in cells if not explorers.is_list(notebook.explorer(cell))] or pytest.skip("only lists")


def test_all_cells_ran(notebook):
    notebook.wait_until_run()  # raises for a failed cell
    assert notebook.explorers(), "the notebook shows no explorer"


def test_hostile_names_are_shown_as_they_are(notebook, cells):
    texts = [explorers.text_of(notebook.explorer(cell)) for cell in cells]
    assert any(name in text for name in LANGUAGES for text in texts)
    assert not notebook.page.locator("img[src='x'], [onerror]").count()


def test_every_explorer_on_screen(notebook, cells, artefacts):
    """Pictures for a person to look at, in both themes; words must stand out from what is behind them."""
    for theme in ("JupyterLab Light", DARK):
        notebook.command("apputils:change-theme", theme=theme)
        notebook.page.wait_for_function(f"document.body.dataset.jpThemeName === '{theme}'")
        for number, cell in enumerate(cells):
            explorer = notebook.explorer(cell)
            name = f"{notebook.path.stem}-{number}-{'dark' if theme == DARK else 'light'}.png"
            explorer.screenshot(path=artefacts / name)
            words = explorer.locator(".title, .heading").locator("visible=true").first
            assert words.evaluate(CONTRAST) > 4.5, f"{name}: the title is hard to read"
    notebook.command("apputils:change-theme", theme="JupyterLab Light")


def test_a_mouse_moves_picture_and_sound(notebook, views):
    for explorer in map(notebook.explorer, views):
        for row in explorers.sliders(explorer)[:1]:
            with explorers.another_sound(explorer, "the slider was let go"):
                explorers.drag(explorer, row)
        for row in explorers.sliders(explorer)[1:]:
            explorers.drag(explorer, row)
        explorers.choose_each(explorer)


def test_the_page_draws_before_the_kernel_answers(notebook, views):
    for explorer in map(notebook.explorer, views):
        for row in explorers.sliders(explorer)[:2]:
            explorers.lead(explorer, row)


def test_buttons_below_the_figure(notebook, views):
    for explorer in map(notebook.explorer, views):
        if explorers.sliders(explorer):
            explorers.use_tools(explorer)


def test_keys_move_picture_and_sound(notebook, cells):
    for explorer in map(notebook.explorer, cells):
        explorers.use_keys(explorer)


def test_a_clip_in_a_map_has_neighbours(notebook, cells):
    found = [e for e in map(notebook.explorer, cells) if e.locator(".near").count()]
    assert found or notebook.path.stem != NOTEBOOKS[-1], "the maps show no neighbours"
    for explorer in found:
        explorers.use_near(explorer)


def test_a_move_while_a_cell_runs(notebook, cells):
    notebook.run_last_cell("import time\n\ntime.sleep(600)")
    for explorer in map(notebook.explorer, cells):
        explorers.use_keys(explorer)
        assert notebook.last_cell_runs(), "the cell has ended: nothing was shown"
    notebook.interrupt()


def test_nothing_else_happened(notebook, desk):
    """The last look at a notebook's page: no script of a label ran, nothing failed unseen, nothing left the machine."""
    heard = desk.heard[notebook.path.stem]
    assert not heard.dialogs
    assert not heard.errors
    assert not heard.outside(desk.server.base, re.sub("^http", "ws", desk.server.base), "data:", "blob:")
