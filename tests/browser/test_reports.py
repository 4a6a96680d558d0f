"""Executed notebooks as HTML, opened from disk without a network: players move and sound, nothing is asked for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vaelib import shelf
from vaelib.config import outputs_dir

from . import explorers, lab
from .conftest import LANGUAGES, NOTEBOOKS, Heard

# A busy machine may starve a browser once; what is broken fails twice.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900), pytest.mark.flaky(reruns=1)]
MOST_BYTES = 10_000_000  # what a mail takes
FROM_DISK = ("file:", "data:", "blob:")
HREFS = "links => links.map((a) => decodeURIComponent(new URL(a.href).pathname))"
PAGES = [*NOTEBOOKS, "model_comparison"]


@pytest.fixture(scope="module", params=PAGES)
def report(request, desk) -> Path:
    """The report of each notebook, and the comparison that the last one writes."""
    if request.param in NOTEBOOKS:
        return desk.report(request.param)
    desk.report(NOTEBOOKS[-1])
    return outputs_dir() / "comparison" / "model_comparison.html"


def opened(browser, path: Path) -> tuple:
    """A file in a page that reaches nothing but this machine's disk, and what is heard of it."""
    context = browser.new_context(viewport=lab.VIEWPORT, offline=True)
    context.route(lambda address: not address.startswith(FROM_DISK), lambda route: route.abort())
    page = context.new_page()
    heard = Heard().listen(page)
    page.goto(path.as_uri(), wait_until="load")
    return page, heard


@pytest.fixture(scope="module")
def page_and_heard(browser, report) -> Iterator[tuple]:
    """The report in a page of its own."""
    page, heard = opened(browser, report)
    yield page, heard
    page.context.close()


@pytest.fixture
def page(page_and_heard):
    """The page alone."""
    return page_and_heard[0]


def test_a_report_can_be_mailed(report):
    assert 50_000 < report.stat().st_size <= MOST_BYTES


def test_names_are_shown_and_not_obeyed(page):
    """Its words are there as text; none of them became an element, and none ran."""
    assert any(name in page.evaluate("document.body.textContent") for name in LANGUAGES)
    assert not page.locator("img[src='x'], [onerror]").count()


def test_players_move_and_sound(page, report):
    players = page.locator(".vaelib-player").all()
    lists = page.locator(".vaelib-clips").all()
    if report.stem not in NOTEBOOKS:
        pytest.skip("nothing to move in the comparison")
    assert players + lists, "the report has no player"
    for player in players:
        for row in explorers.sliders(player):
            explorers.drag(player, row)
        explorers.choose_each(player)
        explorers.press_sounds(player)
        if explorers.sliders(player):
            explorers.use_tools(player)
    for clips in lists:
        explorers.use_keys(clips)
        if clips.locator(".near").count():
            explorers.use_near(clips)


def test_nothing_is_asked_for(page_and_heard):
    """The last look at a report: no dialog, no error, no request, whatever was pressed before."""
    page, heard = page_and_heard
    page.wait_for_timeout(300)
    assert not heard.outside(*FROM_DISK)
    assert not heard.dialogs
    assert not heard.errors


def test_the_shelf_shows_every_notebook(browser, desk, artefacts):
    """`index.html`: a card and a picture of each, links that lead to its report, and nothing asked for."""
    reports = [desk.report(name) for name in NOTEBOOKS]
    page, heard = opened(browser, shelf.update(desk.server.root))
    assert page.locator("article").count() == len(reports)
    pictures = page.locator("article img")
    assert pictures.count() == len(reports)
    assert all(p.evaluate("async (i) => { await i.decode(); return i.naturalWidth > 100; }") for p in pictures.all())
    page.screenshot(path=artefacts / "shelf.png", full_page=True)
    assert {Path(r).name for r in page.locator("article .thumb").evaluate_all(HREFS)} == {r.name for r in reports}
    page.locator("article a.thumb").first.click()
    page.locator(".vaelib-figure canvas").first.wait_for()
    assert not heard.dialogs + heard.errors + heard.outside(*FROM_DISK)
    page.context.close()
