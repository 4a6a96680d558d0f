"""docs/RELIABILITY.md: every fault names the test that tries it, and that test exists."""

import ast
import re

from vaelib.config import ROOT

TEXT = (ROOT / "docs" / "RELIABILITY.md").read_text()
NAMED = r"`(tests/\w+\.py)::(\w+)`"


def test_every_test_named_there_exists():
    named = re.findall(NAMED, TEXT)
    assert len(named) > 20
    for path, name in named:
        there = {n.name for n in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(n, ast.FunctionDef)}
        assert name in there, f"{path}::{name}"


def test_every_row_names_a_test():
    rows = [line for line in TEXT.splitlines() if line.startswith("|") and not line.startswith(("|---", "| fault"))]
    assert len(rows) > 15
    for row in rows:
        fault, happens, tests = (cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("|")))
        assert fault and happens and re.search(NAMED, tests), row
