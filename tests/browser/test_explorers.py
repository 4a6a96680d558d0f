"""Explorers moved as a reader does, live in JupyterLab and in a saved page: picture, sound, lists and maps follow."""

from contextlib import contextmanager

import pytest

from . import lab
from .conftest import CELLS, LANGUAGES

# A busy machine may starve a browser once; what is broken fails twice.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900), pytest.mark.flaky(reruns=1)]
MOST_BYTES = 10_000_000  # what a mail takes
WHERE = pytest.mark.parametrize("where", ["live", "saved"])
CANVAS, AUDIO = ".vaelib-figure canvas", ".vaelib-figure audio"
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
    return another(explorer, CANVAS, "e.toDataURL()")


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
def test_a_tile_is_marked_and_heard_and_the_keys_reach_it(explorer, where):
    view = explorer(where, 2)
    canvas = view.locator(CANVAS)
    with another_sound(view), another(view, ".mark", "e.style.left"):
        canvas.click(position={"x": 20, "y": 20})  # the original
    canvas.press("ArrowRight")
    with another_sound(view):
        canvas.press("Enter")


@WHERE
def test_components_show_what_they_hold(explorer, where):
    view = explorer(where, 4)
    show = next(s for s in view.locator("select").all() if "members" in s.inner_text())
    with another_picture(view):
        show.select_option(label="members")
    assert "holds" in view.locator(".caption").inner_text()


@WHERE
def test_a_list_is_searched_filtered_seen_and_heard_with_the_keyboard(explorer, where):
    view = explorer(where, 0)
    clips, summary = view.locator(".list"), view.locator(".summary")
    view.locator("input[type=search]").fill("0<b>")
    assert "4 of 36" in summary.inner_text() and clips.locator("option").count() == 4
    clips.focus()
    with another_picture(view):
        clips.press("ArrowDown")
    with another_sound(view):
        clips.press("ArrowDown")
        clips.press("Enter")
    clips.press("Escape")
    assert summary.inner_text() == "36 clips"


def point_at_a_clip(view, number: int) -> tuple[float, float]:
    """Move the mouse over a map until it points at a clip, and say where that is on the screen."""
    place = view.locator(".cell > [tabindex]").nth(number)
    place.scroll_into_view_if_needed()
    box, tip = place.bounding_box(), view.locator(".tip")
    for v in range(8, int(box["height"]), 8):
        for u in range(8, int(box["width"]), 8):
            view.page.mouse.move(box["x"] + u, box["y"] + v)
            if tip.is_visible():
                return box["x"] + u, box["y"] + v
    raise AssertionError(f"map {number} has no clip to point at")


def whole_maps(view):
    """The view with all of its maps and all of their clips."""
    for box in view.locator("[aria-label=models] input").all():
        box.check()
    view.get_by_role("button", name="Clear").click()
    view.get_by_role("button", name="Whole map").click()
    return view


def shot(view, number: int = 0) -> bytes:
    view.page.wait_for_timeout(300)
    return view.locator(".cell > [tabindex]").nth(number).screenshot()


@WHERE
def test_maps_zoom_pan_enlarge_and_are_linked(explorer, where):
    view = whole_maps(explorer(where, 5))
    mouse = view.page.mouse
    at = point_at_a_clip(view, 1)
    with another_picture(view):
        mouse.click(*at)
    assert view.locator(".similar strong").first.inner_text().endswith(view.locator(".side strong").inner_text())
    whole, other = shot(view, 1), shot(view, 0)
    mouse.move(*at)
    mouse.wheel(0, -300)
    assert shot(view, 1) != whole and shot(view, 0) == other
    view.get_by_role("button", name="Whole map").click()
    view.locator(".cell > [tabindex]").nth(1).dblclick()
    assert view.locator(".cell:visible").count() == 1 and shot(view, 1) != whole
    place = view.locator(".cell:visible > [tabindex]")
    place.focus()
    before = view.locator(".side strong").inner_text()
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"):  # one of them leads to a neighbour
        if view.locator(".side strong").inner_text() == before:
            place.press(key)
    assert view.locator(".side strong").inner_text() != before
    assert whole_maps(view).locator(".cell:visible").count() == 3


@WHERE
def test_a_legend_keeps_classes_and_neighbours_are_listed(explorer, where):
    view = whole_maps(explorer(where, 5))
    first = view.locator(".legend button").first
    first.click()
    assert f"{first.inner_text()[2:]} " in view.locator(".summary").inner_text()
    view.get_by_role("button", name="Clear").click()
    card = view.locator(".cards .list").first
    with another_picture(view):
        card.select_option(index=card.locator("option").count() - 1)
    asked = view.locator(".similar strong").inner_text()
    view.get_by_role("button", name="More like the chosen clip").click()
    assert view.locator(".similar strong").inner_text() != asked


def test_a_lasso_selects_in_all_maps_and_reaches_python(notebook, explorer):
    view = whole_maps(explorer("live", 5))
    place = view.locator(".cell > [tabindex]").first
    place.scroll_into_view_if_needed()
    box, mouse = place.bounding_box(), view.page.mouse
    mouse.move(box["x"] + 3, box["y"] + 3)
    mouse.down()
    for x, y in [(0.98, 0.02), (0.98, 0.55), (0.02, 0.55), (0.02, 0.02)]:
        mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
    mouse.up()
    view.page.wait_for_function("e => / of /.test(e.textContent)", arg=view.locator(".summary").element_handle())
    kept = int(view.locator(".summary").inner_text().split()[0])
    assert 0 < kept == view.locator(".side .list option").count()
    cell = len(CELLS) + 1
    notebook.page.evaluate("i => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i; }", cell)
    notebook.command("notebook:run-cell")
    notebook.wait_until_run()
    assert str(kept) in notebook.show(cell).locator(".jp-OutputArea-output").inner_text()


@WHERE
def test_hostile_names_are_shown_as_they_are(explorer, where, notebook, request):
    for n in (0, 2, 5):
        text = (
            explorer(where, n).evaluate("e => e.textContent").replace("\xa0", " ")
        )  # a drop-down has spaces that do not break
        assert any(name in text for name in LANGUAGES), text[:300]
    page = notebook.page if where == "live" else request.getfixturevalue("saved")
    heard = notebook.heard if where == "live" else page.heard
    assert not page.locator("img[src='x'], [onerror]").count() and not heard.dialogs


def test_a_saved_page_asks_for_nothing_and_fits_a_mail(saved):
    assert not saved.heard.errors and not saved.heard.dialogs
    assert all(r.startswith(("file:", "data:", "blob:")) for r in saved.heard.requests)
    assert saved.size < MOST_BYTES


@WHERE
def test_sliders_have_names(explorer, where):
    assert explorer(where, 2).get_by_role("slider", name="z").count() == 3


# A key on a slider, and whether the page has drawn before any message can have come from the kernel.
DRAWS_AT_ONCE = """([slider, figure]) => {
    const before = figure.shown;
    slider.value = Number(slider.value) + (slider.value > slider.max / 2 ? -1 : 1);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    return figure.shown !== before;
}"""


def test_frames_sent_ahead_are_drawn_at_once_and_are_the_kernels(explorer):
    view = explorer("live", 2)
    slider, figure = sliders(view)[1], view.locator(".vaelib-figure")
    slider.hover()
    nodes = [slider.element_handle(), figure.element_handle()]
    view.page.wait_for_function(DRAWS_AT_ONCE, arg=nodes, timeout=1000 * SECONDS, polling=500)
    own = view.locator(CANVAS).evaluate("e => e.toDataURL()")
    view.page.wait_for_timeout(1000)  # the kernel's frame has come
    assert view.locator(CANVAS).evaluate("e => e.toDataURL()") == own


@WHERE
def test_two_pinned_settings_are_switched_seen_and_heard(explorer, where):
    view = explorer(where, 2)
    slider, swap = sliders(view)[0], view.get_by_role("button", name="A ⇄ B")
    view.get_by_role("button", name="Reset").click()
    places = []
    for name, end in (("Pin A", 0.0), ("Pin B", 1.0)):
        with another_sound(view):
            lab.drag(slider, end)
        view.get_by_role("button", name=name).click()
        places.append(slider.input_value())
    for place in (*places, *places):
        with another_picture(view), another_sound(view):
            swap.click()
        assert slider.input_value() == place


@WHERE
def test_controls_stand_beside_the_picture_at_1100_pixels(explorer, where):
    view = explorer(where, 2)
    figure, row = view.locator(".vaelib-figure").bounding_box(), sliders(view)[0].bounding_box()
    assert row["x"] > figure["x"] + figure["width"] - 5
    view = explorer(where, 5)
    maps, side = (view.locator(s).bounding_box() for s in (".maps", ".side"))
    assert side["x"] > maps["x"] + maps["width"] - 5
