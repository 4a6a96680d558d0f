"""Files to share: reports as HTML without any network request or as Markdown, and the index of executed notebooks."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

import jinja2
import joblib
import nbformat
import pandas as pd
from filelock import FileLock
from markupsafe import Markup
from PIL import Image, ImageOps

from .config import ROOT, InputError, outputs_dir, papermill_dir, write_atomic

SHADES = {"✓": "#0064a333", "✗": "#b84a0033", "?": "#80808026"}  # of a verdict, by its sign
THUMBNAIL = (320, 200)  # pixels
MOST_BYTES = 9_000_000  # a page can be sent by mail
POSTER = re.compile(r'<div class="vaelib-\w+".*?<img\b[^>]*?\bsrc="data:image/webp;base64,([^"]+)"', re.S)


@dataclass(frozen=True)
class Section:
    """A part of a report; those of one `group`, after each other, are one entry of the contents list, and folded."""

    title: str
    text: str = ""  # paragraphs, separated by an empty line
    numbers: pd.DataFrame | Mapping[str, float] | None = None  # a table, or the numbers of an experiment by id
    picture: Path | None = None  # HTML holds a copy, Markdown a link
    group: str = ""
    markup: str = ""  # HTML of an explorer, trusted as it is; not in Markdown


def cell(value: object) -> str:
    """A number with three digits, anything else as it is, nothing as a dash."""
    if pd.isna(value):
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table(numbers: pd.DataFrame | Mapping[str, float]) -> pd.io.formats.style.Styler:
    """A table as HTML: no row, column or word is cut off, labels stay text, verdicts are coloured."""
    frame = pd.DataFrame(numbers.items(), columns=["id", "value"]) if isinstance(numbers, Mapping) else numbers
    style = frame.reset_index(drop=True).style.hide(axis="index").format(cell, escape="html")
    style = style.format_index(str, axis=1, escape="html")
    return style.map(lambda v: f"background:{SHADES[v[0]]}" if isinstance(v, str) and v[:1] in SHADES else "")


def _packed(picture: bytes, quality: int = 80, size: tuple[int, int] | None = None) -> str:
    """A picture as the data URI of a WebP, smaller than PNG; with a size its upper left part, scaled to that."""
    image, buffer = Image.open(io.BytesIO(picture)).convert("RGB"), io.BytesIO()
    image = ImageOps.fit(image, size, centering=(0, 0)) if size else image
    image.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


PAGES = jinja2.Environment(loader=jinja2.PackageLoader("vaelib"), trim_blocks=True, lstrip_blocks=True, autoescape=True)
PAGES.filters |= {
    "cell": cell, "styled": table, "packed": lambda path, quality: _packed(path.read_bytes(), quality),
    # text that becomes neither a tag nor a cell in Markdown
    "md": lambda text: Markup(str(text).replace("<", "&lt;").replace("|", r"\|")),
    # address of a file as seen from a page's folder: the two can be moved together
    "relative": lambda path, folder: quote(os.fsencode(os.path.relpath(path, folder))),
}  # fmt: skip


def write(path: Path, title: str, sections: Sequence[Section], note: str = "", index: Path | None = None) -> Path:
    """Write a report as HTML, or as Markdown beside its pictures, by the ending of its name (else InputError).

    Below the title stand a `note` and a link to the `index` of executed notebooks.
    """
    if path.suffix not in (".html", ".md"):
        raise InputError(f"{path} ends in {path.suffix or 'nothing'}: end the report's name in .html or .md")
    contents = dict.fromkeys(section.group or section.title for section in sections)
    groups = [(group, list(own)) for group, own in groupby(sections, lambda section: section.group)]
    about = {"title": title, "note": note, "index": index, "folder": path.parent, "groups": groups}
    for quality in (80, 50, 25):  # of the pictures
        page = PAGES.get_template(f"report{path.suffix}.j2").render(about, contents=contents, quality=quality)
        if len(page) < MOST_BYTES:
            break
    return write_atomic(path, page)


def write_html(notebook: Path, target: Path | None = None, title: str = "") -> Path:
    """Export an executed notebook (else InputError) as one HTML file, as `jupyter_nbconvert_config.py` says."""
    from nbconvert import HTMLExporter
    from traitlets.config import PyFileConfigLoader

    try:
        nb = nbformat.read(notebook, 4)
    except Exception as e:
        raise InputError(f"{notebook} is no notebook ({str(e).splitlines()[0]}): give an executed one") from e
    if not any(c.get("outputs") for c in nb.cells):
        raise InputError(f"{notebook} has no outputs: execute it first (`vaelib train`, papermill, or JupyterLab)")
    exporter = HTMLExporter(config=PyFileConfigLoader("jupyter_nbconvert_config.py", str(ROOT)).load_config())
    about = {"name": title or notebook.stem, "path": str(notebook.parent)}
    body, _ = exporter.from_notebook_node(nb, {"metadata": about})
    return write_atomic(target or notebook.with_suffix(".html"), body)


def update_index() -> Path | None:
    """Write `index.html` of the executed notebooks, failed ones with the reason; several processes may at once."""
    folder, cards = papermill_dir(), []
    if not folder.is_dir():
        return None
    card = joblib.Memory(folder / ".cards", verbose=0).cache(_card)
    with FileLock(folder / ".index.lock"):
        for path in (p for p in folder.glob("[!.]*.ipynb") if not p.name.endswith(".partial.ipynb")):
            files = {"report": path.with_suffix(".html"), "notebook": path, "log": path.with_suffix(".log")}
            with suppress(Exception):  # gone, half written, no notebook: nothing can be shown of it
                found = card(path, path.stat().st_mtime_ns)
                cards.append(found | {"files": {word: file for word, file in files.items() if file.is_file()}})
        cards.sort(key=lambda card: card["started"], reverse=True)
        compared = {p.parent.name: p for p in outputs_dir().glob("comparison*/model_comparison.html")}
        page = PAGES.get_template("index.html.j2").render(cards=cards, compared=compared, folder=folder)
        return write_atomic(folder / "index.html", page.encode(errors="replace"))  # names may hold what is no character


def _card(path: Path, changed: int) -> dict[str, object]:
    """What the index says of a notebook that was last `changed` then (ns): read once."""
    nb, log = nbformat.read(path, 4), path.with_suffix(".log")
    run, outputs = nb.metadata.get("papermill", {}), [o for c in nb.cells for o in c.get("outputs", [])]
    headings = re.findall(r"^# +(.+)$", "\n".join(c.source for c in nb.cells if c.cell_type == "markdown"), re.M)
    errors = [f"{o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"]
    errors += [log.read_text(errors="replace")] if log.is_file() else []  # a kernel that died left no output
    state = "unfinished" if run and not run.get("end_time") else "finished"
    posters = [m.group(1) for o in outputs if (m := POSTER.search(o.get("data", {}).get("text/html", "")))]
    pictures = posters[:1] or [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})][-1:]
    return {
        "name": re.sub(r"(-[0-9a-f]{8})?(\.failed)?\.ipynb$", "", path.name),
        "heading": headings[0] if headings else path.name,
        "parameters": [f"{k} {Path(str(v)).name[:60]}" for k, v in run.get("parameters", {}).items() if v != ""],
        "started": str(run.get("start_time") or pd.Timestamp(changed))[:16].replace("T", " ") + " UTC",
        "took": str(timedelta(seconds=round(run["duration"]))) if run.get("duration") else "",
        "state": "failed" if errors else state,
        "reason": errors[0].strip()[:300] if errors else "",
        "picture": _packed(base64.b64decode(pictures[0]), size=THUMBNAIL) if pictures else "",
    }
