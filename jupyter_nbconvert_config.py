"""How every notebook of this repository becomes HTML: one file that asks the web for nothing.

Read by `vaelib report`, by every batch run, and by JupyterLab's export (through jupyter_server_config.py). `make setup`
links it to where `jupyter nbconvert` looks: in .venv/etc/jupyter, not in the folder it is started in. Without that:
`jupyter nbconvert --config jupyter_nbconvert_config.py --to html …`.
"""

from pathlib import Path

c = get_config()  # noqa: F821  Jupyter's loader defines it
html = c.HTMLExporter  # only HTML: PDF, Markdown and notebooks come out as ever

html.template_file = str(Path(__file__).resolve().with_suffix(".html.j2"))
html.embed_images = True
# A view is saved as live widget and as offline player: the player is shown.
html.NbConvertBase.display_data_priority = [
    "text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/latex", "text/plain",
]  # fmt: skip
# The saved states of the widgets are of no use without scripts from the web.
html.ClearMetadataPreprocessor.enabled = True
html.ClearMetadataPreprocessor.clear_cell_metadata = False
html.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {"kernelspec", "language_info", "title", "vaelib"}

c.SlidesExporter.template_file = "index.html.j2"  # HTML too, by a template of its own
