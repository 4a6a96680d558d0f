"""Moving the explorers as a reader does, live or in a saved page, and seeing that picture and sound follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import lab

if TYPE_CHECKING:
    from playwright.sync_api import Locator

SECONDS = 90  # a picture or a sound that takes longer, even on a busy machine, is not coming
SOUND = """async (audio) => {
    const bytes = audio.src ? (await (await fetch(audio.src)).arrayBuffer()).byteLength : 0;
    return {src: audio.src, bytes, seconds: audio.duration};
}"""


def picture(explorer: Locator) -> str:
    """What is on the figure's canvas, once it has come to rest (a choice may draw more than once)."""
    canvas = explorer.locator(".vaelib-figure canvas").first
    before, now = "", canvas.evaluate("c => c.toDataURL()")
    while now != before:
        explorer.page.wait_for_timeout(100)
        before, now = now, canvas.evaluate("c => c.toDataURL()")
    return now


def address(explorer: Locator) -> str:
    """Address of the sound in the figure's player, or ""."""
    return explorer.locator(".vaelib-figure audio").first.evaluate("a => a.src")


def wait_until(explorer: Locator, selector: str, differs: str, before: str, what: str) -> None:
    """Wait until a JavaScript expression of the element `e` is another than before.

    Raises:
        AssertionError: it stays what it was.
    """
    from playwright.sync_api import TimeoutError

    element = explorer.locator(selector).first.element_handle()
    try:
        explorer.page.wait_for_function(
            f"([e, before]) => {differs} !== before", arg=[element, before], timeout=1000 * SECONDS, polling=50
        )
    except TimeoutError:
        raise AssertionError(f"{what}, but nothing changed in {SECONDS} s") from None


# One key on a slider's handle, and whether the picture is another before any message can have come from the kernel.
MOVES_AT_ONCE = """([handle, key, figure]) => {
    const before = figure.shown;
    handle.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
    return figure.shown !== before;
}"""


@contextmanager
def another_picture(explorer: Locator, what: str) -> Iterator[None]:
    """What is done inside must change the picture."""
    before = picture(explorer)
    yield
    wait_until(explorer, ".vaelib-figure canvas", "e.toDataURL()", before, what)


@contextmanager
def another_sound(explorer: Locator, what: str) -> Iterator[None]:
    """What is done inside must bring another sound into the player, one that can be played."""
    before = address(explorer)
    yield
    wait_until(explorer, ".vaelib-figure audio", "(e.readyState > 0 ? e.src : before)", before, what)
    sound = explorer.locator(".vaelib-figure audio").first.evaluate(SOUND)
    assert sound["bytes"] > 1000 and 0.5 < sound["seconds"] < 60, f"{what}: the sound is {sound}"


def sliders(explorer: Locator) -> list[Locator]:
    """Rows with a slider, live or saved."""
    return explorer.locator(".widget-slider, .panel > label:has(input[type=range])").all()


def drag(explorer: Locator, row: Locator) -> None:
    """Drag a slider with the mouse towards its farther end, which must change the picture."""
    with another_picture(explorer, "a slider was dragged"):
        lab.drag(row, 0.15 if lab.share(row) > 0.5 else 0.85)


def lead(explorer: Locator, row: Locator) -> None:
    """Come near a slider, wait for the frames sent ahead, and move: the page's own picture must be the kernel's too."""
    page, key = explorer.page, "ArrowLeft" if lab.share(row) > 0.5 else "ArrowRight"
    row.hover()
    nodes = [lab.handle_of(row).element_handle(), key, explorer.locator(".vaelib-figure").first.element_handle()]
    page.wait_for_function(MOVES_AT_ONCE, arg=nodes, timeout=1000 * SECONDS, polling=500)
    own = explorer.locator(".vaelib-figure canvas").first.evaluate("c => c.toDataURL()")
    page.wait_for_timeout(1000)  # the kernel's frame has come
    assert picture(explorer) == own


def choose_each(explorer: Locator) -> None:
    """Choose another name in every drop-down, the last first, and the old one again: each must change the picture.

    The last slider is moved before each choice: at its start it may show what another drop-down stands for.
    """
    for select in reversed(explorer.locator("select").all()):
        now, names = select.evaluate("s => s.selectedIndex"), select.locator("option").count()
        for name in ((now + (2 if names > 2 else 1)) % names, now):  # two further: the next may be the other end's
            for row in sliders(explorer)[-1:]:
                drag(explorer, row)
            with another_picture(explorer, f"name {name} was chosen"):
                select.select_option(index=name)


def use_tools(explorer: Locator) -> None:
    """The buttons below a figure: difference, two pinned settings, the sounds of their own, and back to the start."""
    names = ("Reset", "Pin A", "Pin B", "A ⇄ B")
    button = {name: explorer.get_by_role("button", name=name, exact=True) for name in names}
    row = sliders(explorer)[-1]  # the first may change the layout, which leaves no difference to show
    drag(explorer, row)
    with another_picture(explorer, "Reset was pressed"):
        button["Reset"].click()
    start = picture(explorer)
    drag(explorer, row)
    moved = picture(explorer)
    button["Pin A"].click()
    if explorer.locator(".over span").count() == 0:  # a figure of tiles may have another layout than the start
        with another_picture(explorer, "the difference was asked for"):
            explorer.locator(".tools input[type=checkbox]").check()
        with another_picture(explorer, "the difference was put away"):
            explorer.locator(".tools input[type=checkbox]").uncheck()
    with another_picture(explorer, "Reset was pressed"):
        button["Reset"].click()
    assert picture(explorer) == start
    button["Pin B"].click()
    for expected in (moved, start, moved):
        with another_picture(explorer, "A ⇄ B was pressed"):
            button["A ⇄ B"].click()
        assert picture(explorer) == expected
    for extra in explorer.locator(".vaelib-figure .tools button:has-text('▶')").all():
        with another_sound(explorer, f"{extra.inner_text()} was pressed"):
            extra.click()


def is_list(explorer: Locator) -> bool:
    """Whether clips are chosen in it, in place of values being set."""
    return "vaelib-clips" in explorer.get_attribute("class").split()


def use_keys(explorer: Locator) -> None:
    """Move a slider (else a drop-down, or the choice in a list) with the keyboard: picture and sound must follow."""
    if is_list(explorer):
        handle = explorer.locator(".list").first  # the others are of the nearest clips
        chosen = handle.locator("[role=option][aria-selected=true]")
        place, of = (int(chosen.first.get_attribute(f"aria-{a}")) if chosen.count() else n
                     for a, n in (("posinset", 0), ("setsize", 9)))  # fmt: skip
        key = "ArrowDown" if place + 2 <= of else "ArrowUp"
    elif rows := sliders(explorer):
        handle, key = lab.handle_of(rows[0]), "ArrowLeft" if lab.share(rows[0]) > 0.5 else "ArrowRight"
    else:
        handle = explorer.locator("select").first
        key = "ArrowUp" if handle.evaluate("s => s.selectedIndex") else "ArrowDown"
    for _ in range(2):
        with another_sound(explorer, said := f"{key} was pressed"), another_picture(explorer, said):
            handle.press(key)


def point_at_a_clip(explorer: Locator, number: int = 0) -> tuple[float, float]:
    """Move the mouse over a map until it points at a clip, and say where that is on the screen."""
    canvas = explorer.locator("canvas.map").nth(number)
    canvas.scroll_into_view_if_needed()
    box, tip = canvas.bounding_box(), explorer.locator(".tip")
    for v in range(6, int(box["height"]), 9):
        for u in range(6, int(box["width"]), 9):
            explorer.page.mouse.move(box["x"] + u, box["y"] + v)
            if tip.is_visible():
                return box["x"] + u, box["y"] + v
    raise AssertionError(f"map {number} has no clip to point at")


def use_near(explorer: Locator) -> None:
    """Click a clip in a map: its neighbours in every model are named, seen and heard, and can be asked for theirs."""
    near, maps = explorer.locator(".near"), explorer.locator("canvas.map")
    query, move = near.locator(".now strong"), near.get_by_role("button", name="More like the chosen clip")
    explorer.page.mouse.click(*point_at_a_clip(explorer))
    asked = query.inner_text().removeprefix("More like ")
    assert asked == explorer.locator(".detail .now strong").inner_text() and move.is_disabled()
    cards = near.locator(".card").all()
    assert len(cards) == maps.count()
    for card in cards:
        names = card.locator(".clip .name").all_inner_texts()
        assert names and asked not in names and len(set(names)) == len(names)
        assert card.locator(".name b").inner_text() in explorer.locator(".panel .name").all_inner_texts()
    last = cards[-1].locator(".clip").last
    name = last.locator(".name").inner_text()
    with another_sound(explorer, "a neighbour's ♪ was pressed"), another_picture(explorer, "a neighbour was chosen"):
        last.locator(".sound").click()
    assert explorer.locator(".detail .now strong").inner_text() == name
    assert query.inner_text() == f"More like {asked}", "choosing a neighbour must keep the question"
    before = [m.evaluate("c => c.toDataURL()") for m in maps.all()]
    move.click()
    assert query.inner_text() == f"More like {name}" and move.is_disabled()
    assert all(m.evaluate("c => c.toDataURL()") != b for m, b in zip(maps.all(), before, strict=True))
    others = near.locator("input[type=checkbox]")
    if others.count():
        held = near.locator(".cards").inner_text()
        others.uncheck()
        assert "same " in near.locator(".cards").inner_text() != held
        others.check()
        assert near.locator(".cards").inner_text() == held and "same " not in held


def press_sounds(explorer: Locator) -> None:
    """Press the buttons of the sounds that are kept: each is in the player, and they are not all the same one."""
    heard, buttons = set(), explorer.locator("button:has-text('▶'):enabled").all()
    for button in buttons:
        button.click()
        explorer.page.wait_for_timeout(200)
        sound = explorer.locator(".vaelib-figure audio").first.evaluate(SOUND)
        assert sound["bytes"] > 1000 and 0.5 < sound["seconds"] < 60, f"{button.inner_text()}: the sound is {sound}"
        heard.add(sound["src"])
    assert len(heard) >= min(2, len(buttons)), "every button plays the same"


def text_of(explorer: Locator) -> str:
    """All words of an explorer, those of its drop-downs too."""
    return explorer.evaluate("e => e.textContent")
