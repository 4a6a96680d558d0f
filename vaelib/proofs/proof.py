"""What a proof is: numbers, a figure and a sentence."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ..config import write_atomic


def png(figure: Figure, dpi: int = 110) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


@dataclass(frozen=True)
class Proof:
    """The result of one proof.

    Attributes:
        name: Key in `PROOFS`.
        subject: The run or runs it speaks about.
        numbers: What was measured, with nulls and baselines, by name.
        sentence: What it shows and what it does not.
        figure: The picture.
    """

    name: str
    subject: str
    numbers: dict[str, float]
    sentence: str
    figure: Figure

    def table(self) -> pd.DataFrame:
        """The numbers as a table."""
        return pd.DataFrame({"value": self.numbers}).rename_axis(f"{self.name} of {self.subject}")

    def save(self, folder: Path) -> Path:
        """Write the figure as `<name>.png` and the sentence as `<name>.txt`; returns the picture's path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.png"
        write_atomic(path, png(self.figure))
        write_atomic(path.with_suffix(".txt"), self.sentence)
        return path

    def __str__(self) -> str:
        return textwrap.fill(f"{self.subject}: {self.sentence}", 100)
