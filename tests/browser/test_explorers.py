"""Explorers moved as a reader does, live in JupyterLab and in a saved page: picture, sound, lists and maps follow."""

from contextlib import contextmanager

import pytest

from . import lab
from .conftest import CELLS, LANGUAGES

# A busy machine may starve a browser once; what is broken fails twice.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900), pytest.mark.flaky(reruns=1)]
MOST_BYTES = 10_000_000  # what a mail takes
WHERE = pytest.mark.parametrize("where", ["live", "saved"])
FIGURE, AUDIO = ".vaelib-figure", ".vaelib-figure audio"
PICTURE = "[...e.querySelectorAll('canvas')].map((c) => c.toDataURL()).join()"  # of a figure
SECONDS = 60  # a picture or a sound that takes longer, even on a busy machine, is not coming


@pytest.fixture
def explorer(notebook, request):
    """Finds explorer number `n` of `CELLS`, live or saved."""

    def find(where: str, n: int):
        if where == "live":
            return notebook.explorer(n + 1)
        found = request.getfixturevalue("saved").locator(lab.EXPLORERS).nth(n)
        found.scroll_into_view_if_needed()
        return found

    return find


@contextmanager
def another(explorer, selector: str, value: str):
    """What is done inside must change a JavaScript value of the element `e`."""
    element = explorer.locator(selector).first.element_handle()
    before = element.evaluate(f"e => {value}")
    yield
    wait = f"([e, before]) => ({value}) !== before"
    explorer.page.wait_for_function(wait, arg=[element, before], timeout=1000 * SECONDS, polling=50)


def another_picture(explorer):
    return another(explorer, FIGURE, PICTURE)


def another_sound(explorer):
    return another(explorer, AUDIO, "e.src && e.readyState ? e.src : ''")


def sliders(explorer) -> list:
    return explorer.locator("input[type=range]").all()


@WHERE
@pytest.mark.parametrize("n", [1, 2, 3], ids=["interpolation", "traversal", "classes"])
def test_a_dragged_slider_moves_picture_and_sound(explorer, where, n):
    view = explorer(where, n)
    slider = sliders(view)[0]
    with another_picture(view), another_sound(view):
        lab.drag(slider, 0.0 if slider.evaluate("e => e.value > e.max / 2") else 1.0)
    with another_picture(view):
        view.get_by_role("button", name="Reset").click()


@WHERE
def test_a_choice_changes_the_picture_and_its_difference_from_the_start_is_gone(explorer, where):
    view = explorer(where, 2)
    difference = view.locator(".tools select")
    clips = next(s for s in view.locator("select").all() if "nothing" not in s.inner_text())
    with another_picture(view):
        difference.select_option(label="the marked tile")
    with another_picture(view):
        clips.select_option(index=1)
    assert difference.input_value() == "nothing"


@WHERE
def test_a_tile_is_marked_and_heard_with_pointer_and_keys(explorer, where):
    original, decoded = (tile := explorer(where, 2).locator(".tiles button")).first, tile.last
    for tile, act in ((original, lambda: original.click()), (decoded, lambda: decoded.press("Enter"))):
        with another_sound(explorer(where, 2)):
            act()
        assert tile.get_attribute("aria-pressed") == "true"


@WHERE
def test_a_list_is_searched_filtered_seen_and_heard_with_the_keyboard(explorer, where):
    view = explorer(where, 0)
    clips, summary = view.locator(".list"), view.locator("[role=status]").first
    view.locator("input[type=search]").fill("0<b>")
    assert summary.inner_text() == "4 of 36 clips" == f"{clips.locator('option').count()} of 36 clips"
    clips.focus()
    with another_picture(view):
        clips.press("ArrowDown")
    with another_sound(view):
        clips.press("ArrowDown")
        clips.press("Enter")
    clips.press("Escape")
    assert summary.inner_text() == "36 of 36 clips"


def whole_maps(view):
    """The view with all of its maps and all of their clips."""
    for box in view.locator(".maps input").all():
        box.check()
    view.get_by_role("button", name="Clear").click()
    view.get_by_title("Reset").click()
    return view


def box_of(view, number: int) -> dict:
    place = view.locator(".map").nth(number)
    place.scroll_into_view_if_needed()
    return place.bounding_box()


def shot(view, number: int = 0) -> bytes:
    view.page.wait_for_timeout(300)
    return view.locator(".map").nth(number).screenshot()


@WHERE
def test_maps_zoom_pan_enlarge_and_are_linked(explorer, where):
    view = whole_maps(explorer(where, 5))
    mouse, chosen, box = view.page.mouse, view.locator(".side .title").first, box_of(view, 1)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    with another_picture(view):  # the clip nearest to one of two opposite corners is another one
        corners = (box["x"] + 10, box["y"] + 40), (box["x"] + box["width"] - 10, box["y"] + box["height"] - 10)
        for corner in corners:
            mouse.click(*corner)
            view.page.wait_for_timeout(600)  # else it is a double click
    assert view.get_by_text("More like ", exact=False).first.inner_text().endswith(chosen.inner_text())
    mouse.move(5, 5)
    whole, other = shot(view, 1), shot(view, 0)
    for tool in ("Wheel Zoom", "Pan"):
        view.get_by_title(tool).click()
        mouse.move(x, y)
        if tool == "Pan":
            mouse.down()
            mouse.move(x + 40, y + 40, steps=4)
            mouse.up()
        else:
            mouse.wheel(0, -300)
        mouse.move(5, 5)
        assert shot(view, 1) != whole and shot(view, 0) == other
        whole = shot(view, 1)
    view.get_by_title("Wheel Zoom").click()
    view.get_by_title("Lasso Select").click()
    mouse.dblclick(x, y)
    assert view.locator(".map:visible").count() == 1
    before, place = chosen.inner_text(), view.locator(".map:visible")
    place.focus()
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"):  # one of them leads to a neighbour
        if chosen.inner_text() == before:
            place.press(key)
    assert chosen.inner_text() != before
    assert whole_maps(view).locator(".map:visible").count() == 3


@WHERE
def test_a_legend_keeps_classes_and_neighbours_are_listed(explorer, where):
    view = whole_maps(explorer(where, 5))
    first, summary = view.locator(".legend button").first, view.locator("[role=status]").first
    first.click()
    kept = first.locator("small").inner_text()
    assert summary.inner_text().startswith(f"{kept} of ") and not summary.inner_text().endswith(f" {kept} clips")
    view.get_by_role("button", name="Clear").click()
    card, asked = view.locator(".cards .list").first, view.get_by_text("More like ", exact=False).first
    before = asked.inner_text()
    with another_picture(view):
        card.select_option(index=card.locator("option").count() - 1)
    assert asked.inner_text() == before
    view.get_by_role("button", name="More like the chosen clip").click()
    assert asked.inner_text() != before


def test_a_lasso_selects_in_all_maps_and_reaches_python(notebook, explorer):
    view = whole_maps(explorer("live", 5))
    box, mouse = box_of(view, 0), view.page.mouse
    left, right, top, low = box["x"] + 8, box["x"] + box["width"] - 8, box["y"] + 27, box["y"] + 0.8 * box["height"]
    mouse.move(left, top)
    mouse.down()
    for x, y in [(right, top), (right, low), (left, low)]:  # all but the lowest clips
        mouse.move(x, y, steps=4)
    mouse.up()
    view.page.wait_for_timeout(1000)
    summary = view.locator("[role=status]").first.inner_text().split()
    kept = int(summary[0])
    assert 0 < kept < int(summary[2]) and kept == view.locator(".side .list option").count()
    cell = len(CELLS) + 1
    notebook.page.evaluate("i => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i; }", cell)
    notebook.command("notebook:run-cell")
    notebook.wait_until_run()
    assert str(kept) in notebook.show(cell).locator(".jp-OutputArea-output").inner_text()


@WHERE
def test_hostile_names_are_shown_as_they_are(explorer, where, notebook, request):
    for n in (0, 2, 5):
        text = explorer(where, n).evaluate("e => e.textContent").replace("\xa0", " ")  # of a drop-down
        assert any(name in text for name in LANGUAGES), text[:300]
    page = notebook.page if where == "live" else request.getfixturevalue("saved")
    assert not page.locator("img[src='x'], [onerror]").count() and not page.dialogs


def test_a_saved_page_asks_for_nothing_and_fits_a_mail(saved):
    assert not saved.errors and not saved.dialogs
    assert all(r.startswith(("file:", "data:", "blob:")) for r in saved.requests)
    assert saved.size < MOST_BYTES


# A key on a slider, and whether the page has drawn before any message can have come from the kernel.
DRAWS_AT_ONCE = """async ([slider, figure]) => {
    const before = figure.shown;
    slider.value = Number(slider.value) + (slider.value > slider.max / 2 ? -1 : 1);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    for (let i = 0; i < 20; i++) await null;
    return figure.shown !== before;
}"""


def test_frames_sent_ahead_are_drawn_at_once(explorer):
    view = explorer("live", 2)
    slider = view.get_by_role("slider", name="z").first
    slider.hover()
    nodes = [slider.element_handle(), view.locator(FIGURE).element_handle()]
    view.page.wait_for_function(DRAWS_AT_ONCE, arg=nodes, timeout=1000 * SECONDS, polling=500)


@WHERE
def test_two_settings_are_switched_seen_and_heard_and_a_double_click_takes_a_slider_back(explorer, where):
    view = explorer(where, 2)
    slider, swap = sliders(view)[0], view.get_by_role("button", name="A ⇄ B")
    view.get_by_role("button", name="Reset").click()
    start, places = slider.input_value(), []
    for end in (0.0, 1.0):
        swap.click()
        view.page.wait_for_timeout(500)  # it may be of another clip
        with another_sound(view):
            lab.drag(slider, end)
        places.append(slider.input_value())
    for place in (*places, *places):
        with another_picture(view), another_sound(view):
            swap.click()
        assert slider.input_value() == place
    slider.dblclick()  # takes the slider back
    assert slider.input_value() == start != "0"


@WHERE
def test_controls_stand_beside_the_picture_at_1100_pixels(explorer, where):
    view = explorer(where, 2)
    figure, row = view.locator(".vaelib-figure").bounding_box(), sliders(view)[0].bounding_box()
    assert row["x"] > figure["x"] + figure["width"] - 5
    view = explorer(where, 5)
    maps, side = (view.locator(s).bounding_box() for s in (".maps", ".side"))
    assert side["x"] > maps["x"] + maps["width"] - 5
