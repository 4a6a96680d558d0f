"""Cells of a notebook in this process, with the experiments' functions to be called on hand-made answers."""

import ast

import matplotlib
import nbformat

from vaelib.config import notebooks_dir

matplotlib.use("agg")


def run_cells(name: str, *tags: str, **parameters: object) -> dict:
    """Execute the cells of a notebook that have one of the tags; returns their names and values.

    Args:
        name: e.g. `05_conditional_vae`.
        tags: e.g. `setup`, `test-separation`; the `parameters` come first.
        parameters: In place of the notebook's own.
    """
    space = {}
    for cell in nbformat.read(notebooks_dir() / f"{name}.ipynb", 4).cells:
        of_cell = cell.metadata.get("tags", [])
        if "parameters" in of_cell or set(tags) & set(of_cell):
            exec(compile(ast.parse(cell.source), cell.id, "exec"), space)
        if "parameters" in of_cell:
            space.update(parameters)
    return space
