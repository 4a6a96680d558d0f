"""Files to share: reports as HTML without any network request or as Markdown, and the index of executed notebooks."""

import base64
import io
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
import nbformat
import pandas as pd
from filelock import FileLock
from pandas.io.formats.style import Styler
from PIL import Image

from .config import ROOT, InputError, outputs_dir, papermill_dir, write_atomic

SHADES = {"✓": "#0064a333", "✗": "#b84a0033", "?": "#80808026"}  # of a verdict, by its sign
MOST_BYTES = 9_000_000  # a page can be sent by mail


@dataclass(frozen=True)
class Section:
    """A part of a report; those of one `group`, after each other, are one entry of the contents list, and folded."""

    title: str
    text: str = ""  # paragraphs, separated by an empty line
    numbers: pd.DataFrame | dict[str, float] | None = None  # a table, or the numbers of an experiment by id
    picture: Path | io.BytesIO | None = None  # HTML holds a copy, Markdown a link to the path
    group: str = ""
    markup: str = ""  # HTML of an explorer, trusted as it is; not in Markdown


def table(numbers: pd.DataFrame | dict[str, float]) -> Styler:
    """A table as HTML: three digits, nothing is a dash, nothing is cut off, labels stay text, verdicts are coloured."""
    frame = pd.DataFrame(numbers.items(), columns=["id", "value"]) if isinstance(numbers, dict) else numbers
    words = frame.map(lambda v: f"{float(f'{v:.3g}'):g}" if isinstance(v, float) else str(v)).mask(frame.isna(), "–")
    style = words.reset_index(drop=True).style.hide(axis="index").format(escape="html")
    style = style.format_index(str, axis=1, escape="html")
    return style.map(lambda word: f"background:{SHADES[word[0]]}" if word[:1] in SHADES else "")


def packed(picture: Path | io.BytesIO, quality: int = 80, size: tuple[int, int] = (4096, 4096)) -> str:
    """A picture as the data URI of a WebP, smaller than PNG, and of a size (width, height) at most."""
    image, buffer = Image.open(picture).convert("RGB"), io.BytesIO()
    image.thumbnail(size)
    image.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


PAGES = jinja2.Environment(loader=jinja2.PackageLoader("vaelib"), trim_blocks=True, lstrip_blocks=True, autoescape=True)
PAGES.filters |= {"table": table, "packed": packed}
PAGES.filters["md"] = lambda text: str(text).replace("<", "&lt;").replace("|", r"\|")  # neither a tag nor a cell
PAGES.filters["relative"] = lambda path, folder: quote(os.fsencode(os.path.relpath(path, folder)))  # can move together


def write(path: Path, title: str, sections: list[Section], note: str = "", index: Path | None = None) -> Path:
    """Write a report as HTML, or as Markdown beside its pictures, with a note and a link to the index of notebooks."""
    if path.suffix not in (".html", ".md"):
        raise InputError(f"{path} ends in {path.suffix or 'nothing'}: end the report's name in .html or .md")
    said = {"title": title, "sections": sections, "note": note, "index": index, "folder": path.parent}
    for quality in (80, 50, 25):  # of the pictures
        page = PAGES.get_template(f"report{path.suffix}.j2").render(said, quality=quality)
        if len(page) < MOST_BYTES:
            break
    return write_atomic(path, page)


def write_html(notebook: Path, target: Path | None = None, title: str = "") -> Path:
    """Export an executed notebook (else InputError) as one HTML file, as `jupyter_nbconvert_config.py` says."""
    from nbconvert import HTMLExporter
    from traitlets.config import PyFileConfigLoader

    try:
        nb = nbformat.read(notebook, 4)
        next(output for cell in nb.cells for output in cell.get("outputs", []))
    except Exception as e:
        raise InputError(f"{notebook} is no executed notebook: execute it (`vaelib train`, JupyterLab) first") from e
    exporter = HTMLExporter(config=PyFileConfigLoader("jupyter_nbconvert_config.py", str(ROOT)).load_config())
    about = {"name": title or notebook.stem, "path": str(notebook.parent)}
    page, _ = exporter.from_notebook_node(nb, {"metadata": about})
    return write_atomic(target or notebook.with_suffix(".html"), page)


def update_index() -> Path:
    """Write `index.html` of the executed notebooks, failed ones with the reason; several processes may at once."""
    folder, cards = papermill_dir(), []
    with FileLock(folder / ".index.lock"):
        for path in (p for p in folder.glob("[!.]*.ipynb") if not p.name.endswith(".partial.ipynb")):
            with suppress(Exception):  # gone, half written, no notebook: nothing can be shown of it
                cards.append(_card(path) | {"path": path, "changed": pd.Timestamp(path.stat().st_mtime, unit="s")})
        compared = {p.parent.name: p for p in outputs_dir().glob("comparison*/model_comparison.html")}
        page = PAGES.get_template("index.html.j2").render(cards=cards, compared=compared, folder=folder)
        return write_atomic(folder / "index.html", page.encode(errors="replace"))  # names may hold what is no character


def _card(path: Path) -> dict[str, object]:
    """What the index says of a notebook, which is read once."""
    kept = path.parent / ".cards" / f"{path.stem}-{path.stat().st_mtime_ns}.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    nb, log = nbformat.read(path, 4), path.with_suffix(".log")
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    errors = [f"{o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"]
    errors += [log.read_text(errors="replace")] if log.is_file() else []  # a kernel that died left no output
    pictures = [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    small = packed(io.BytesIO(base64.b64decode(pictures[-1])), size=(320, 200)) if pictures else ""
    card = {"heading": nb.cells[0].source.split("\n")[0].lstrip("# "), "run": nb.metadata.get("papermill", {})}
    card |= {"reason": "".join(errors[:1]), "picture": small}
    write_atomic(kept, json.dumps(card))
    return card
