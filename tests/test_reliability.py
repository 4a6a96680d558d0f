"""docs/RELIABILITY.md: every fault names the test that tries it, and that test exists."""

import re

from vaelib.config import ROOT


def test_every_row_names_tests_that_exist():
    text = (ROOT / "docs" / "RELIABILITY.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|") and not line.startswith(("|---", "| fault"))]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`(tests/\w+\.py)::(\w+)`", row)
        assert named, row
        for path, name in named:
            assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"
