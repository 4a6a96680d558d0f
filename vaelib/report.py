"""Files to share: reports as HTML without any network request or as Markdown, and the index of executed notebooks."""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
from filelock import FileLock
from markupsafe import Markup
from PIL import Image, ImageOps

from .config import ROOT, InputError, outputs_dir, papermill_dir, write_atomic

# how notebooks become HTML; `make setup` shows it to `jupyter nbconvert` and JupyterLab, which then write the same file
NBCONVERT = ROOT / "jupyter_nbconvert_config.py"
MOST_BYTES = 9_000_000  # a page can be sent by mail
PACKINGS = ({"lossless": True, "method": 1}, {"quality": 80}, {"quality": 50})  # of its pictures, the best first
SHADES = {"✓": "#0064a333", "✗": "#b84a0033", "?": "#80808026"}  # of a verdict, by its sign
# Markdown has no autoescape: `md` makes text that cannot become a tag or a cell
PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), trim_blocks=True, lstrip_blocks=True,
    autoescape=lambda name: name.endswith(".html.j2"),
)  # fmt: skip
PAGES.filters["md"] = lambda text: Markup(str(text).replace("<", "&lt;").replace("|", r"\|"))


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: Its heading.
        text: Paragraphs, separated by an empty line.
        numbers: A table, or the numbers of an experiment by id.
        picture: A file; HTML holds a copy, Markdown a link.
        group: Sections of one group, after each other, are one entry of the contents list, and folded.
        markup: HTML of an explorer, trusted as it is; not in Markdown.
    """

    title: str
    text: str = ""
    numbers: pd.DataFrame | Mapping[str, float] | None = None
    picture: Path | None = None
    group: str = ""
    markup: str = ""

    @property
    def rows(self) -> list[list[str]]:
        """The table as text, its head first."""
        if self.numbers is None:
            return []
        table = self.numbers
        if not isinstance(table, pd.DataFrame):
            table = pd.DataFrame(list(table.items()), columns=["id", "value"])
        return [list(map(str, table.columns)), *[[cell(v) for v in row] for row in table.itertuples(index=False)]]


def cell(value: object) -> str:
    """A number with three digits, anything else as it is, nothing as a dash."""
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and np.isnan(value)):
        return "–"
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)


def table(frame: pd.DataFrame) -> pd.io.formats.style.Styler:
    """A table for a notebook: no row, column or word is cut off, labels stay text, verdicts are coloured."""
    style = frame.reset_index(drop=True).style.hide(axis="index").format(cell, escape="html")
    style = style.format_index(str, axis=1, escape="html")
    return style.map(lambda v: f"background:{SHADES[v[0]]}" if isinstance(v, str) and v[:1] in SHADES else "")


def write(
    path: Path, title: str, sections: Sequence[Section], note: str = "", links: Mapping[str, Path] | None = None
) -> Path:
    """Write a report as one HTML file, or as Markdown beside its pictures, by the ending of its name.

    Args:
        path: A `.html` or `.md` file; InputError for another ending.
        note: Said below the title: corpus, machine.
        links: Words → files that belong to it, linked relative to its folder.
    """
    if path.suffix not in (".html", ".md"):
        raise InputError(f"{path} ends in {path.suffix or 'nothing'}: end the report's name in .html or .md")
    groups = [(g, list(own)) for g, own in groupby(enumerate(sections), lambda numbered: numbered[1].group)]
    contents: dict[str, int] = {}  # entry → number of the first section under it
    for number, section in enumerate(sections):
        contents.setdefault(section.group or section.title, number)
    content = {"title": title, "note": note, "groups": groups, "contents": contents}
    content["links"] = {word: relative(p, path.parent) for word, p in (links or {}).items()}
    template = PAGES.get_template(f"report{path.suffix}.j2")
    for packing in PACKINGS:
        page = template.render(
            content,
            address=lambda p: relative(p, path.parent),  # of a picture, in Markdown
            packed=lambda p, packing=packing: _packed(p.read_bytes(), packing),  # in HTML
        )
        if len(page) < MOST_BYTES:
            break
    return write_atomic(path, page)


def _packed(picture: bytes, packing: Mapping[str, object], size: tuple[int, int] | None = None) -> str:
    """A picture as the data URI of a WebP, half as large as PNG; with a size its upper left part, scaled to that."""
    image = Image.open(io.BytesIO(picture)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if size:
        image = ImageOps.fit(image, size, centering=(0, 0))
    image.thumbnail((16_383, 16_383))  # WebP's limit
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **packing)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def relative(path: Path, folder: Path) -> str:
    """Address of a file as seen from a folder, for a link: the two can be moved together."""
    return quote(os.fsencode(os.path.relpath(path, folder)))


def write_html(notebook: Path, target: Path | None = None, title: str = "") -> Path:
    """Export an executed notebook as one HTML file that needs no network, as `jupyter_nbconvert_config.py` says.

    Raises:
        InputError: no such notebook, not a notebook, or not executed.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import PyFileConfigLoader

    try:
        nb = nbformat.read(notebook, 4)
    except Exception as e:
        raise InputError(f"{notebook} is no notebook ({str(e).splitlines()[0]}): give an executed one") from e
    if not any(c.get("outputs") for c in nb.cells):
        raise InputError(f"{notebook} has no outputs: execute it first (`vaelib train`, papermill, or JupyterLab)")
    exporter = HTMLExporter(config=PyFileConfigLoader(NBCONVERT.name, str(NBCONVERT.parent)).load_config())
    about = {"name": title or notebook.stem, "path": str(notebook.parent)}
    body, _ = exporter.from_notebook_node(nb, {"metadata": about})
    return write_atomic(target or notebook.with_suffix(".html"), body)


# --- the index of executed notebooks ---

CARDS = ".index.json"  # what the index says of each notebook, made anew when its file has changed
THUMBNAIL = (320, 200)  # pixels
POSTER = re.compile(r'<div class="vaelib-\w+".*?<img\b[^>]*?\bsrc="data:image/webp;base64,([^"]+)"', re.S)
HASH = re.compile(r"-[0-9a-f]{8}$")  # at the end of an executed notebook's name


def update_index() -> Path | None:
    """Write `index.html` of the executed notebooks, failed ones with the reason; only new ones are read.

    Notebooks that are being written (`….partial.ipynb`) are left out. Several processes may call this at once.

    Returns:
        The page, or None if there is no folder of executed notebooks.
    """
    folder, cards = papermill_dir(), {}
    if not folder.is_dir():
        return None
    with FileLock(folder / ".index.lock"):
        known = json.loads((folder / CARDS).read_text()) if (folder / CARDS).is_file() else {}
        for path in sorted(p for p in folder.glob("[!.]*.ipynb") if not p.name.endswith(".partial.ipynb")):
            try:
                stamp = [path.stat().st_mtime_ns, path.stat().st_size]
                card = known.get(path.name)
                cards[path.name] = card if card and card["stamp"] == stamp else _card(path) | {"stamp": stamp}
            except Exception:  # gone, half written, no notebook: nothing can be shown of it
                continue
        write_atomic(folder / CARDS, json.dumps(cards))
        groups: dict[str, list[dict]] = {}
        newest = sorted(cards.items(), key=lambda item: item[1]["started"], reverse=True)
        for name, card in sorted(newest, key=lambda item: item[1]["heading"]):
            path = folder / name
            files = {"report": path.with_suffix(".html"), "notebook": path, "log": path.with_suffix(".log")}
            files = {word: relative(p, folder) for word, p in files.items() if p.is_file()}
            short = HASH.sub("", name.removesuffix(".ipynb").removesuffix(".failed"))
            groups.setdefault(card["heading"], []).append(card | {"name": short, "files": files})
        failed = sum(card["state"] == "failed" for card in cards.values())
        compared = {p.parent.name: relative(p, folder) for p in outputs_dir().glob("comparison*/model_comparison.html")}
        page = PAGES.get_template("index.html.j2")
        page = page.render(groups=groups, count=len(cards), failed=failed, compared=compared)
        return write_atomic(folder / "index.html", page.encode(errors="replace"))  # names may hold what is no character


def _card(path: Path) -> dict[str, object]:
    """What the index says of a notebook: heading, changed parameters, start, duration, state, reason, thumbnail."""
    import nbformat

    nb = nbformat.read(path, 4)
    run, outputs = nb.metadata.get("papermill", {}), [o for c in nb.cells for o in c.get("outputs", [])]
    headings = re.findall(r"^# +(.+)$", "\n".join(c.source for c in nb.cells if c.cell_type == "markdown"), re.M)
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    started = datetime.fromisoformat(run["start_time"]).astimezone(UTC) if run.get("start_time") else written
    errors = [f"{o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"]
    log, reason = path.with_suffix(".log"), ""
    state = "unfinished" if run and not run.get("end_time") else "finished"
    if errors or path.name.endswith(".failed.ipynb"):
        text = errors[0] if errors else log.read_text(errors="replace") if log.is_file() else ""
        state, reason = "failed", next((line for line in text.splitlines() if line.strip()), "no reason was kept")
    return {
        "heading": headings[0] if headings else path.name, "parameters": _changed(nb.cells, run.get("parameters", {})),
        "started": started.strftime("%Y-%m-%d %H:%M UTC"), "state": state, "reason": reason[:300],
        "took": str(timedelta(seconds=round(run["duration"]))) if run.get("duration") else "",
        "picture": _thumbnail([o.data for o in outputs if "data" in o]),
    }  # fmt: skip


def _changed(cells: Sequence, given: Mapping[str, object]) -> list[str]:
    """`name value` of the parameters that differ from the cell tagged `parameters`; of a path its last part."""
    source = next((c.source for c in cells if "parameters" in c.metadata.get("tags", [])), "")
    usual = {n.target.id: ast.literal_eval(n.value) for n in ast.parse(source).body if isinstance(n, ast.AnnAssign)}
    changed = {k: v for k, v in given.items() if k not in usual or usual[k] != v}
    return [f"{k} {str(v).rstrip('/').rpartition('/')[2][:60]}" for k, v in changed.items()]


def _thumbnail(data: Sequence[Mapping[str, str]]) -> str:
    """The poster of the notebook's explorer, else its last picture, as a small data URI; "" if there is none."""
    posters = [m.group(1) for d in data if (m := POSTER.search(d.get("text/html", "")))]
    found = posters[:1] or [d["image/png"] for d in data if "image/png" in d][-1:]
    return _packed(base64.b64decode(found[0]), {"quality": 75}, THUMBNAIL) if found else ""
