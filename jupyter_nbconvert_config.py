"""How every notebook of this repository becomes HTML: one file that asks the web for nothing.

Read by `vaelib report`, by every batch run, and by JupyterLab's export (through jupyter_server_config.py). `make setup`
links it to where `jupyter nbconvert` looks: in .venv/etc/jupyter, not in the folder it is started in. Without that:
`jupyter nbconvert --config jupyter_nbconvert_config.py --to html …`.
"""

import re
from html import escape
from pathlib import Path


def contents(nb, resources) -> str:
    """A contents list of the second-level headings, and a link to the index of executed notebooks beside the page."""
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    titles = re.findall(r"^## +(.+)$", text, re.M)
    items = [f'<a href="#{escape(title.replace(" ", "-"))}">{escape(title)}</a>' for title in titles]
    folder = Path(resources.get("metadata", {}).get("path") or ".")
    if "vaelib" in nb.metadata or (folder / "index.html").is_file():
        items.append('<a href="index.html">all executed notebooks</a>')
    return f'<nav class="vaelib-contents">{" · ".join(items)}</nav>' if items else ""


def without_notebooks(page: str) -> str:
    """A cell's HTML without its links to notebooks, which do not lie beside a saved page; their words stay."""
    return re.sub(r'<a href="(?:\./)?\d\d_\w+\.ipynb"[^>]*>(.*?)</a>', r"\1", page, flags=re.S)


c = get_config()  # noqa: F821  Jupyter's loader defines it
html = c.HTMLExporter  # only HTML: PDF, Markdown and notebooks come out as ever

html.template_file = str(Path(__file__).resolve().with_suffix(".html.j2"))
html.embed_images = True
html.filters = {"contents": contents, "without_notebooks": without_notebooks}
# A view is saved as live widget and as offline player: the player is shown.
html.NbConvertBase.display_data_priority = [
    "text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/latex", "text/plain",
]  # fmt: skip
# The saved states of the widgets are of no use without scripts from the web.
html.ClearMetadataPreprocessor.enabled = True
html.ClearMetadataPreprocessor.clear_cell_metadata = False
html.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {"kernelspec", "language_info", "title", "vaelib"}

c.SlidesExporter.template_file = "index.html.j2"  # HTML too, by a template of its own
