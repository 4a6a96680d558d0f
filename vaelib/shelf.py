"""The shelf of executed notebooks: a card of each, kept beside them, and `index.html`, which shows them all offline."""

from __future__ import annotations

import ast
import base64
import fcntl
import hashlib
import html
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
from PIL import Image, ImageOps

from .config import digest, outputs_dir, papermill_dir, write_atomic
from .progress import clock

CARDS = ".cards"  # a card is remade when its notebook or this file has changed
THUMBNAIL = (320, 200)  # pixels
POSTER = re.compile(r'<div class="vaelib-\w+".*?<img\b[^>]*?\bsrc="data:image/webp;base64,([^"]+)"', re.S)
HASH = re.compile(r"-[0-9a-f]{8}$")  # of a job, at the end of its notebook's name
LONGEST = 60  # characters of a parameter's value


@dataclass(frozen=True)
class Card:
    """What the index says of one executed notebook.

    Attributes:
        stamp: State of the notebook's file (and of this module) that the card was made from.
        heading: The notebook's first heading.
        parameters: `name value` of each parameter that is not the notebook's default.
        started: When, ISO 8601 in UTC; without papermill's word when the file was written.
        seconds: How long it took, or None.
        state: `finished`, `failed`, `unfinished`, or `saved` (by hand: papermill knows nothing of it).
        reason: First line of the error.
        picture: Thumbnail as a data URI, or "".
    """

    stamp: str
    heading: str
    parameters: list[str]
    started: str
    seconds: float | None
    state: str
    reason: str
    picture: str


def update(folder: Path | None = None) -> Path | None:
    """Write `index.html` of a folder of executed notebooks; only those that are new or changed are read.

    Notebooks that are being written (`….partial.ipynb`) are left out, cards of removed ones are thrown away. Several
    threads and processes may call this at once.

    Args:
        folder: Default: `papermill_dir()`.

    Returns:
        The page, or None if there is no such folder.
    """
    folder = folder or papermill_dir()
    if not folder.is_dir():
        return None
    (folder / CARDS).mkdir(exist_ok=True)
    with open(folder / CARDS / "lock", "w") as lock:  # the one who writes last has seen all cards
        fcntl.flock(lock, fcntl.LOCK_EX)
        shown, kept = {}, set()
        for path in folder.glob("*.ipynb"):
            if path.name.startswith(".") or path.name.endswith(".partial.ipynb"):
                continue
            place = folder / CARDS / f"{hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()}.json"
            kept.add(place)
            if card := _card(path, place):
                shown[path] = card
        for stale in set((folder / CARDS).glob("*.json")) - kept:
            stale.unlink()
        page = _page(shown, folder).encode(errors="replace")  # names may hold what is no character
        return write_atomic(folder / "index.html", page)


def update_or_say() -> None:
    """`update` after a run, whose outcome must not depend on it: trouble is one sentence on stderr."""
    try:
        update()
    except OSError as e:
        print(f"{papermill_dir() / 'index.html'} could not be written: {e}", file=sys.stderr)


def _card(path: Path, place: Path) -> Card | None:
    """The card of a notebook, from its place or made anew; None for what is not (yet) a notebook."""
    try:
        found = path.stat()
        stamp = digest([found.st_mtime_ns, found.st_size, Path(__file__).read_text()])
        try:
            card = Card(**json.loads(place.read_text()))
            if card.stamp == stamp:
                return card
        except (OSError, ValueError, TypeError):  # not made yet, or by other code
            pass
        card = _read(path, stamp, datetime.fromtimestamp(found.st_mtime, UTC))
    except Exception:  # gone, half written by plain papermill, no notebook: whatever it is, nothing can be shown of it
        return None
    write_atomic(place, json.dumps(asdict(card)))
    return card


def _read(path: Path, stamp: str, written: datetime) -> Card:
    nb = nbformat.read(path, 4)
    run = nb.metadata.get("papermill", {})
    words = [c.source for c in nb.cells if c.cell_type == "markdown"]
    headings = re.findall(r"^# +(.+)$", "\n".join(words), re.M)
    outputs = [o for c in nb.cells if c.cell_type == "code" for o in c.outputs]
    started = datetime.fromisoformat(run["start_time"]).astimezone(UTC) if run.get("start_time") else written
    errors = [f"{o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"]
    log = path.with_suffix(".log")
    state, reason = "finished" if run else "saved", ""
    if errors or path.name.endswith(".failed.ipynb"):
        said = errors[0] if errors else log.read_text(errors="replace") if log.is_file() else ""
        state, reason = "failed", next((line for line in said.splitlines() if line.strip()), "no word of why")
    elif run and not run.get("end_time"):
        state = "unfinished"
    return Card(
        stamp=stamp,
        heading=headings[0] if headings else path.name,
        parameters=_parameters(nb.cells, run.get("parameters", {})),
        started=started.isoformat(timespec="seconds"),
        seconds=float(run["duration"]) if run.get("duration") else None,
        state=state,
        reason=reason[:300],
        picture=_picture(outputs),
    )


def _parameters(cells: Iterable[Any], given: Mapping[str, Any]) -> list[str]:
    """`name value` of what differs from the cell tagged `parameters`; of a path its last part."""
    source = next((c.source for c in cells if "parameters" in c.metadata.get("tags", [])), "")
    usual = {}
    try:
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                usual[ast.unparse(target)] = ast.literal_eval(node.value)
    except (SyntaxError, ValueError):  # not only plain values: then more is shown than needs to be
        pass
    changed = {k: v for k, v in given.items() if k not in usual or usual[k] != v}
    shown = {k: v.rstrip("/").rpartition("/")[2] if isinstance(v, str) else str(v) for k, v in changed.items()}
    return [k if changed[k] is True else f"{k} {v[:LONGEST]}{'…' * (len(v) > LONGEST)}" for k, v in shown.items()]


def _picture(outputs: Iterable[Any]) -> str:
    """The poster of the notebook's explorer, else its last picture, as a small data URI; "" if there is none."""
    data = [o.data for o in outputs if "data" in o]
    posters = [m.group(1) for d in data if (m := POSTER.search(d.get("text/html", "")))]
    found = posters[:1] or [d["image/png"] for d in data if "image/png" in d][-1:]
    try:
        return _thumbnail(found[0]) if found else ""
    except Exception:  # a picture that cannot be decoded is none
        return ""


def _thumbnail(encoded: str) -> str:
    """Base64 of any picture → data URI of a small one: its upper left part, or all of it if it is small itself."""
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    small = image.width < THUMBNAIL[0]
    image = image.resize(THUMBNAIL) if small else ImageOps.fit(image, THUMBNAIL, centering=(0, 0))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=75)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


STYLE = """
:root{color-scheme:light dark;--back:#f6f6f7;--card:#fff;--line:#dcdce0;--text:#1b1b1b;--soft:#5c5c66;--link:#0b57d0;
 --bad:#b3261e;--empty:#ececef}
@media(prefers-color-scheme:dark){:root{--back:#15161a;--card:#1f2026;--line:#3a3b42;--text:#e6e6e6;--soft:#a5a6ae;
 --link:#8ab4ff;--bad:#ff8a80;--empty:#2a2b32}}
body{font:15px/1.45 system-ui,sans-serif;max-width:1280px;margin:1.5rem auto;padding:0 1rem;color:var(--text);
 background:var(--back)}
h1{font-size:1.5rem;margin:0} h2{font-size:1.1rem;margin:2rem 0 .7rem} h3{font-size:.95rem;margin:0}
p{margin:0} .soft{color:var(--soft)} a{color:var(--link)} h2 small{font-weight:normal;color:var(--soft)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,270px),1fr));gap:1rem}
article{display:flex;flex-direction:column;background:var(--card);overflow:hidden;border:1px solid var(--line);
 border-radius:8px;overflow-wrap:anywhere}
article div{display:flex;flex-direction:column;flex:1;gap:.4rem;padding:.6rem .9rem .7rem;min-width:0}
.thumb{flex:none;aspect-ratio:16/10;background:var(--empty)}
.thumb img{display:block;width:100%;height:100%;object-fit:cover}
.soft{font-size:.85rem} .given{display:flex;flex-wrap:wrap;gap:.25rem;font-size:.8rem}
.given span{padding:0 .4rem;border-radius:4px;background:var(--empty)}
.links{margin-top:auto;display:flex;flex-wrap:wrap;gap:0 1rem} .links span{margin-left:auto}
.failed,.unfinished{color:var(--bad)} article:has(.failed){border-color:var(--bad)}
@media(max-width:600px){article{flex-direction:row} .thumb{width:32%;aspect-ratio:auto}}
"""


def _page(shown: Mapping[Path, Card], folder: Path) -> str:
    newest = sorted(sorted(shown.items()), key=lambda item: item[1].started, reverse=True)
    sections = []
    for heading, group in groupby(sorted(newest, key=lambda item: item[1].heading), key=lambda item: item[1].heading):
        articles = [_article(path, card) for path, card in group]
        sections.append(f"<h2>{_text(heading)} <small>{len(articles)}</small></h2>")
        sections.append(f"<div class='cards'>{''.join(articles)}</div>")
    failed = sum(c.state == "failed" for c in shown.values())
    said = f"{len(shown)} notebook{'s' * (len(shown) != 1)}" + (f", {failed} failed" if failed else "")
    said += f", the newest of {_when(newest[0][1])}" if newest else ""
    comparisons = sorted(outputs_dir().glob("comparison*/model_comparison.html"))
    links = "".join(f" · {_link(os.path.relpath(p, folder), p.parent.name)}" for p in comparisons)
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Executed notebooks</title>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none';img-src data:;"
        "style-src 'unsafe-inline'\">"
        f"<style>{STYLE}</style><h1>Executed notebooks</h1><p class='soft'>{said}{links}</p>{''.join(sections)}</html>"
    )


def _article(path: Path, card: Card) -> str:
    report = path.with_suffix(".html")
    target = report if report.is_file() else path
    name = HASH.sub("", path.name.removesuffix(".ipynb").removesuffix(".failed"))
    picture = f"<img src='{_text(card.picture)}' alt=''>" if card.picture else ""
    took = f" · {clock(card.seconds)}" if card.seconds else ""
    words = "".join(f"<span>{_text(p)}</span>" for p in card.parameters)
    given = f"<p class='given'>{words}</p>" if words else ""
    files = {"report": report, "notebook": path, "log": path.with_suffix(".log")}
    links = "".join(_link(p.name, word) for word, p in files.items() if p.is_file())
    reason = f"<p class='soft {card.state}'>{_text(card.reason)}</p>" if card.reason else ""
    return (
        f"<article><a class='thumb' href='{_href(target.name)}' tabindex='-1' aria-hidden='true'>{picture}</a>"
        f"<div><h3>{_text(name)}</h3>{given}"
        f"<p class='soft'>{_when(card)}{took}</p>{reason}"
        f"<p class='links'>{links}<span class='{card.state}'>{card.state}</span></p></div></article>"
    )


def _when(card: Card) -> str:
    return _text(card.started[:16].replace("T", " ") + " UTC")


def _link(address: str, word: str) -> str:
    return f"<a href='{_href(address)}'>{_text(word)}</a>"


def _href(address: str) -> str:
    return html.escape(quote(os.fsencode(address)), quote=True)


def _text(text: str) -> str:
    return html.escape(text, quote=True)
