"""The shelf: one page of all executed notebooks, whole at any time, whatever they are called and hold."""

import base64
import html
import io
import json
import os
import re
import threading
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest
from conftest import TINY
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from test_reports import EVIL, asks_the_web

from vaelib import cli, explore, plans, shelf
from vaelib.config import ROOT

PARAMETERS = (
    'store: str = "a/b.zarr"  # store\nepochs: int = 16  # passes\nlr: float = 1e-3  # rate\nfast: bool = False  # x'
)


def picture(colour: str, kind: str = "PNG", size=(40, 30)) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return base64.b64encode(buffer.getvalue()).decode()


def player(colour: str) -> str:
    poster = f'<img src="data:image/webp;base64,{picture(colour, "WEBP")}" alt="x" width="480" height="300">'
    return f'<div class="vaelib-player"><style></style>{poster}<script></script></div>'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELIB_PAPERMILL", str(tmp_path / "runs"))
    monkeypatch.setenv("VAELIB_OUTPUTS", str(tmp_path / "outputs"))
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def put(folder, name="02_basic-seed1-0123abcd", outputs=(), given=None, title="02 · Basic", **run):
    """An executed notebook, with what papermill writes into it."""
    told = {"parameters": given or {}, "start_time": "2026-11-22T21:01:53.5+00:00",
            "end_time": "2026-11-22T21:03:00+00:00", "duration": 68.2}  # fmt: skip
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(f"# {title}\n\nText."), parameters, new_code_cell("", outputs=list(outputs))]
    nb = new_notebook(cells=cells, metadata={"papermill": told | run})
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps(nb))  # as nbformat would, but for half characters too
    return path


def shown(**data) -> dict:
    return new_output("display_data", {k.replace("_", "/"): v for k, v in data.items()})


def text_of(page: Path) -> str:
    """The page as one reads it."""
    body = page.read_text().partition("</style>")[2]
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body)))


def thumbnails(page: Path) -> list[Image.Image]:
    found = re.findall(r"<img src='data:image/webp;base64,([^']+)'", page.read_text())
    return [Image.open(io.BytesIO(base64.b64decode(f))).convert("RGB") for f in found]


def test_a_card_says_what_was_run_when_and_where_it_is(folder):
    given = {"store": "/data/stores/c.zarr", "epochs": 24, "lr": 0.001, "fast": True}
    path = put(folder, given=given)
    path.with_suffix(".html").write_text("x")
    page = shelf.update()
    text = text_of(page)
    assert page == folder / "index.html" and "1 notebook, the newest of 2026-11-22 21:01 UTC" in text
    assert "02 · Basic 1 02_basic-seed1 store c.zarr epochs 24 fast 2026-11-22 21:01 UTC · 1:08 min report" in text
    assert "lr" not in text and "finished" in text and "failed" not in text  # lr is the notebook's default
    assert set(re.findall(r"href='([^']*)'", page.read_text())) == {path.name, f"{path.stem}.html"}
    assert not asks_the_web(page.read_text()) and page.read_text().startswith("<!doctype html>")


def test_grouped_by_notebook_and_the_newest_first(folder):
    for i, (title, hour) in enumerate([("02 Basic", 9), ("01 First", 12), ("02 Basic", 11), ("02 Basic", 10)]):
        put(folder, f"run{i}", title=title, start_time=f"2026-11-22T{hour:02d}:00:00+00:00")
    (folder.parent / "outputs" / "comparison").mkdir(parents=True)
    (folder.parent / "outputs" / "comparison" / "model_comparison.html").write_text("x")
    page = shelf.update()
    assert re.findall(r"<h2>(.*?) <small>(\d)", page.read_text()) == [("01 First", "1"), ("02 Basic", "3")]
    assert re.findall(r"<h3>(.*?)</h3>", page.read_text()) == ["run1", "run2", "run3", "run0"]
    assert "<a href='../outputs/comparison/model_comparison.html'>comparison</a>" in page.read_text()


def test_the_picture_is_the_explorers_poster_else_the_last_picture_else_none(folder):
    red, blue = shown(image_png=picture("red", size=(640, 900))), shown(image_png=picture("blue"))
    put(folder, "a", [red, shown(text_html=player("lime"), text_plain="View"), shown(text_html=player("red")), blue])
    put(folder, "b", [blue, shown(text_html="<img src='data:image/webp;base64,AAAA'>"), red])
    put(folder, "c", [shown(image_png="bm90IGEgcGljdHVyZQ=="), shown(text_plain="x")])
    page = shelf.update()
    first, second = thumbnails(page)
    assert first.size == second.size == shelf.THUMBNAIL
    assert first.getpixel((9, 9))[1] > 200 > 50 > first.getpixel((9, 9))[0]
    assert second.getpixel((9, 9))[0] > 200 > 50 > second.getpixel((9, 9))[2]
    assert page.read_text().count("class='thumb'") == 3 and page.stat().st_size < 20_000


def test_the_poster_of_a_real_explorer_is_found(folder, store):
    controls = [explore.Slider("a", "level", 0.0, 1.0, 0.1, 0.5, 3)]
    view = explore.SpectrogramView(
        lambda values: np.full((16, 16), values["a"], np.float32), controls, TINY, store.fit_scaler(), "toy",
        sound=lambda values, tile: (np.zeros(4000, np.float32), 22_050),
    )  # fmt: skip
    clips = explore.clip_browser(store, store.fit_scaler())
    put(folder, "a", [shown(text_html=view.offline())])
    put(folder, "b", [shown(text_html=clips.offline())])
    assert len(thumbnails(shelf.update())) == 2


def test_a_failed_run_says_why_and_where_its_log_is(folder):
    error = new_output("error", ename="ValueError", evalue="the reason\nmore of it", traceback=[])
    failed = put(folder, "02_basic-0123abcd.failed", [error])
    failed.with_suffix(".log").write_text("the whole story")
    dead = put(folder, "02_basic-99990000.failed")
    dead.with_suffix(".log").write_text("\nKernel died\nlast words")
    put(folder, "02_basic-99990001.failed")
    text = text_of(page := shelf.update())
    assert "3 notebooks, 3 failed" in text and text.count("02_basic ") == 3
    for said in ("ValueError: the reason", "Kernel died", "no word of why"):
        assert said in text
    assert "more of it" not in text and "last words" not in text
    hrefs = re.findall(r"href='([^']*)'", page.read_text())
    assert {failed.name, f"{failed.stem}.log", dead.name, f"{dead.stem}.log"} < set(hrefs)


def test_hostile_names_parameters_and_errors_stay_text(folder):
    name = f"a'\"&{EVIL.replace('/', '')} #?%41:b"
    error = new_output("error", ename=EVIL, evalue=EVIL, traceback=[])
    given = {EVIL: EVIL, "long": "x" * 5000, "surrogate": "\ud800", "many": list(range(99)), "none": None}
    path = put(folder, f"javascript:{name}.failed", [error], given, title=EVIL)
    path.with_suffix(".log").write_text(EVIL)
    os.rename(put(folder, "bytes"), os.fsencode(folder) + b"/\xff\xfe.ipynb")  # a name that is no text
    page = shelf.update()
    raw = page.read_text()
    assert "<img src=x" not in raw and raw.count("&lt;img src=x") == 6  # heading, title, name and value, error's two
    hrefs = [h for h in re.findall(r"href='([^']*)'", raw) if "ff" not in h.lower()]
    assert {unquote(h) for h in hrefs} == {path.name, path.with_suffix(".log").name}
    assert not [h for h in hrefs if re.search(r"[\"<>&:#? ]", h)] and "%FF%FE.ipynb" in raw
    assert len(raw) < 12_000 and len(re.findall("<article>", raw)) == 2
    assert "default-src 'none'" in raw  # and even if: nothing may run or be fetched


def test_what_is_no_executed_notebook_is_not_there(folder):
    put(folder, "good")
    put(folder, "running.partial")
    put(folder, ".hidden")
    for name, text in {"empty": "", "half": '{"cells": [', "other": "[]", "odd": '{"cells": 3, "nbformat": 4}'}.items():
        (folder / f"{name}.ipynb").write_text(text)
    (folder / "folder.ipynb").mkdir()
    (folder / "gone.ipynb").symlink_to(folder / "nowhere")
    assert re.findall(r"<h3>(.*?)</h3>", shelf.update().read_text()) == ["good"]
    assert shelf.update(folder / "nowhere") is None and not (folder / "nowhere").exists()


def test_a_run_of_plain_papermill_that_is_not_over_is_unfinished_and_then_is(folder):
    put(folder, "02", end_time=None, duration=None)
    assert "unfinished" in text_of(shelf.update())
    put(folder, "02")
    assert "unfinished" not in text_of(shelf.update())


def test_a_notebook_without_papermills_word_is_listed_too(folder):
    nbformat.write(new_notebook(cells=[new_markdown_cell("no heading"), new_code_cell("1")]), folder / "lab.ipynb")
    os.utime(folder / "lab.ipynb", (1e9, 1e9))
    text = text_of(shelf.update())
    assert "lab.ipynb 1 lab 2001-09-09 01:46 UTC notebook saved" in text


def test_only_new_and_changed_notebooks_are_read(folder, monkeypatch):
    read, seen = shelf._read, []
    monkeypatch.setattr(shelf, "_read", lambda path, *more: seen.append(path.name) or read(path, *more))
    put(folder, "a")
    put(folder, "b")
    first = shelf.update().read_text()
    assert sorted(seen) == ["a.ipynb", "b.ipynb"] and shelf.update().read_text() == first and len(seen) == 2
    put(folder, "b", title="another", given={"epochs": 3})
    assert "epochs 3" in shelf.update().read_text() and seen[2:] == ["b.ipynb"]
    for card in (folder / shelf.CARDS).glob("*.json"):  # cards that other code has left
        card.write_text(json.dumps({"title": "old"}) if card.stat().st_size % 2 else "half a ca")
    shelf.update()
    assert sorted(seen[3:]) == ["a.ipynb", "b.ipynb"]


def test_removed_notebooks_leave_no_card(folder):
    put(folder, "a")
    gone = put(folder, "b")
    shelf.update()
    gone.unlink()
    assert re.findall(r"<h3>(.*?)</h3>", shelf.update().read_text()) == ["a"]
    assert len(list((folder / shelf.CARDS).glob("*.json"))) == 1


def test_workers_that_finish_at_once_are_all_on_a_page_that_is_always_whole(folder):
    put(folder, "start")
    shelf.update()
    broken, over = [], threading.Event()

    def watch():
        while not over.is_set():
            page = (folder / "index.html").read_text()
            if not (page.startswith("<!doctype html>") and page.endswith("</html>")):
                broken.append(page)

    def work(name):
        for i in range(4):
            put(folder, f"{name}{i}")
            shelf.update()

    watcher = threading.Thread(target=watch)
    workers = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for t in (watcher, *workers):
        t.start()
    for t in workers:
        t.join()
    over.set()
    watcher.join()
    assert len(re.findall("<article>", (folder / "index.html").read_text())) == 13 and not broken
    assert not [p for p in folder.rglob("*") if "partial" in p.name]


def test_a_run_does_not_fail_because_the_page_cannot_be_written(folder, monkeypatch, capsys):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(shelf, "write_atomic", full)
    shelf.update_or_say()
    assert capsys.readouterr().err == f"{folder / 'index.html'} could not be written: No space left on device\n"


def test_a_report_brings_the_page_up_to_date_and_a_demo_names_it(folder, monkeypatch, capsys):
    executed = put(folder, "plain papermill", [shown(text_plain="x")])
    cli.report(executed)
    assert capsys.readouterr().out == f"{executed.with_suffix('.html')}\n"
    assert "plain%20papermill.html" in (folder / "index.html").read_text()
    monkeypatch.setattr(plans, "execute_plan", lambda plan, workers: Path("model_comparison.html"))
    cli.batch(ROOT / "plans" / "demo.yaml")
    last = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split()[-1] for line in last] == [str(folder / "index.html"), "model_comparison.html"]
