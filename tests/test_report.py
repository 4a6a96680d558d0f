"""Reports, saved notebooks and the index of executed ones: whole, escaped, and asking the web for nothing."""

import base64
import html
import io
import re
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from vaelib import report
from vaelib.config import InputError, write_atomic
from vaelib.report import Section

EVIL = "<script>alert(1)</script> \"'&|$x$"


def asks_the_web(page: str) -> bool:
    """Whether a page loads anything from elsewhere."""
    return bool(re.search(r"""<(?:script|img|link|iframe)[^>]*?(?:src|href)=["']?(?:http|//)""", page))


def png(colour="red", size=(400, 300)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def sections(tmp_path):
    picture = tmp_path / "visualizations" / "a b.png"
    write_atomic(picture, png())
    table = pd.DataFrame({EVIL: ["✓ supported", EVIL], "x": [2137.56, np.nan]})
    folded = Section("Part", EVIL, {"mig.mean": 0.4218}, group="Folded")
    return [
        Section("First", "one\n\ntwo", table, picture),
        folded,
        Section("Maps", markup="<b>explorer</b>", group="Folded"),
    ]


def test_a_page_holds_everything_escaped_and_its_picture(sections, tmp_path):
    page = report.write(tmp_path / "page.html", EVIL, sections, EVIL, tmp_path / "runs" / "index.html").read_text()
    assert "<script>alert" not in page and html.unescape(page).count(EVIL) == 6  # title twice, note, column, cell, text
    assert not asks_the_web(page) and 'src="data:image/webp;base64,' in page and "<b>explorer</b>" in page
    assert 'href="runs/index.html"' in page and page.count("<details") == 1
    entries = [unquote(entry) for entry in re.findall(r'href="#([^"]+)"', page)]
    assert entries == ["First", "Folded"] and all(f'id="{entry}"' in page for entry in entries)
    assert ">2140<" in page and "0.422" in page and "–" in page and report.SHADES["✓"] in page


def test_markdown_links_its_pictures_and_cannot_hold_a_tag(sections, tmp_path):
    text = report.write(tmp_path / "page.md", EVIL, sections).read_text()
    assert "<" not in text.replace("&lt;", "") and "![First](visualizations/a%20b.png)" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[1] == "|---|---|" and len({len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]}) == 1
    assert "| mig.mean | 0.422 |" in lines and lines[3].endswith("| – |")


def test_a_page_stays_small_enough_for_mail(sections, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(sections[0].picture)
    whole = len(report.write(tmp_path / "a.html", "t", sections).read_text())
    monkeypatch.setattr(report, "MOST_BYTES", whole - 1)
    assert len(report.write(tmp_path / "b.html", "t", sections).read_text()) < 0.8 * whole


def test_a_saved_notebook_has_its_contents_no_dead_link_and_asks_the_web_for_nothing(tmp_path):
    cells = [
        new_markdown_cell("# Title"), new_markdown_cell("## A part & more"), new_code_cell("1", outputs=[shown("1")]),
        new_markdown_cell("Next: [03 · Conv](03_conv_vae.ipynb) and [docs](https://example.org)"),
    ]  # fmt: skip
    nbformat.write(new_notebook(cells=cells), tmp_path / "run.ipynb")
    page = report.write_html(tmp_path / "run.ipynb").read_text()
    assert "03_conv_vae.ipynb" not in page and "03 · Conv" in page and 'href="https://example.org"' in page
    anchor = re.search(r'<a href="#([^"]+)">A part &amp; more</a>', page)[1]
    assert f'id="{anchor}"' in page and 'href="index.html"' not in page
    assert not asks_the_web(page)
    (tmp_path / "index.html").write_text("")
    assert 'href="index.html"' in report.write_html(tmp_path / "run.ipynb").read_text()


def test_what_cannot_be_written_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"end the report's name in \.html or \.md"):
        report.write(tmp_path / "page.pdf", "t", [])
    (tmp_path / "text.ipynb").write_text("text")
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), tmp_path / "new.ipynb")
    for name in ("none", "text", "new"):
        with pytest.raises(InputError, match="is no executed notebook: execute it"):
            report.write_html(tmp_path / f"{name}.ipynb")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of executed notebooks."""
    monkeypatch.setenv("VAELIB_PAPERMILL", str(tmp_path))
    return tmp_path


def shown(text="", **data):
    return new_output("display_data", data={"text/plain": text} | data)


def put(folder, name, outputs=(), title="T", given=None, **papermill):
    """An executed notebook."""
    parameters = new_code_cell('store: str = "a/b.zarr"  # x\nepochs: int = 16  # x', metadata={"tags": ["parameters"]})
    nb = new_notebook(cells=[new_markdown_cell(f"# {title}"), parameters, new_code_cell("1", outputs=list(outputs))])
    times = {"start_time": "2026-01-01T10:00:00", "end_time": "2026-01-01T10:01:05", "duration": 65.0}
    nb.metadata["papermill"] = times | {"parameters": given or {}} | papermill
    nbformat.write(nb, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def test_the_index_shows_what_was_given_how_long_it_took_and_why_it_failed_as_text(folder):
    put(folder, "02-0123abcd", given={"epochs": 3, "store": "other/place.zarr"})
    put(folder, "a\"<b>'&#?", title=EVIL, given={"store": EVIL})
    put(folder, "03.failed", [new_output("error", ename="ValueError", evalue="no clip")], title="Other")
    put(folder, "04", end_time=None, duration=None)
    (folder / "02-0123abcd.html").write_text("")
    page = report.update_index().read_text()
    text = " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)).split())
    assert "4 in all, 1 failed" in text and "Other 03.failed" in text
    assert "02-0123abcd epochs 3 · store place.zarr 2026-01-01 10:00 UTC · 1:05 min report notebook finished" in text
    assert "ValueError: no clip notebook failed" in text and "notebook unfinished" in text
    assert "default-src 'none'" in page and "<script>" not in page and "<b>" not in page
    files = [file for file in re.findall(r'href="([^"]*)"', page) if not re.search(r"[<>&:#? ]", file)]
    assert "a\"<b>'&#?.ipynb" in map(unquote, files)


def test_the_thumbnail_is_the_last_picture_whole(folder):
    pictures = [base64.b64encode(png(colour, (400, 100))).decode() for colour in ("red", "blue")]
    put(folder, "a", [shown(**{"image/png": picture}) for picture in pictures])
    (found,) = re.findall(r'src="data:image/webp;base64,([^"]+)"', report.update_index().read_text())
    image = Image.open(io.BytesIO(base64.b64decode(found))).convert("RGB")
    assert image.size == (320, 80) and image.getpixel((9, 9))[0] < 99


def test_a_changed_notebook_is_read_again_and_what_is_none_is_left_out(folder):
    put(folder, "a")
    gone = put(folder, "b")
    report.update_index()
    put(folder, "a", given={"epochs": 3})
    gone.unlink()
    put(folder, "running.partial")
    put(folder, ".hidden")
    (folder / "half.ipynb").write_text('{"cells": [')
    (folder / "gone.ipynb").symlink_to(folder / "nowhere")
    page = report.update_index().read_text()
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["a"] and "epochs 3" in page


def test_workers_that_finish_at_once_are_all_listed(folder):
    def work(name):
        for i in range(3):
            put(folder, f"{name}{i}")
            report.update_index()

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, "abc"))
    assert (folder / "index.html").read_text().count("<article>") == 9
