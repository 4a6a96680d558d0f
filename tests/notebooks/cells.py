"""Cells of a notebook in this process, with the experiments' functions to be called on hand-made answers."""

import ast

import matplotlib
import nbformat

from vaelib.config import notebooks_dir

matplotlib.use("agg")


def run_cells(name: str, *tags: str, **parameters: object) -> dict:
    """Execute the cells of a notebook that have one of the tags, its `parameters` first; returns names and values."""
    space = {}
    for cell in nbformat.read(notebooks_dir() / f"{name}.ipynb", 4).cells:
        of_cell = cell.metadata.get("tags", [])
        if "parameters" in of_cell or set(tags) & set(of_cell):
            exec(compile(ast.parse(cell.source), cell.id, "exec"), space)
        if "parameters" in of_cell:
            space.update(parameters)
    return space


def printed(notebook: nbformat.NotebookNode) -> str:
    """Everything that an executed notebook says in words."""
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    return "\n".join(o.get("text", "") or str(o.get("data", {}).get("text/plain", "")) for o in outputs)
