"""What a proof is: numbers, a figure and a sentence, kept beside the run for the claims ledger."""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..config import digest, write_atomic


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
        per_clip: For numbers of test clips (or pairs of clips, or units): values (N,) whose mean it is. Of a number
            that is no mean, such as ARI, those whose spread is that of the number (`clustering.leave_one_out_values`).
        partners: Folder names of other runs that it read.
    """

    name: str
    subject: str
    numbers: dict[str, float]
    sentence: str
    figure: Figure
    per_clip: Mapping[str, np.ndarray] = field(default_factory=dict)
    partners: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """The numbers as a table."""
        return pd.DataFrame({"value": self.numbers}).rename_axis(f"{self.name} of {self.subject}")

    def save(self, folder: Path) -> Path:
        """Write figure, sentence and numbers as `<name>.png`, `.txt` and `.json`; returns the picture's path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.png"
        write_atomic(path, png(self.figure))
        write_atomic(path.with_suffix(".txt"), self.sentence)
        kept = {
            "code": code_version(),
            "partners": self.partners,
            "numbers": {k: float(v) for k, v in self.numbers.items()},
            "per_clip": {k: np.asarray(v, float).round(9).tolist() for k, v in self.per_clip.items()},
        }
        write_atomic(path.with_suffix(".json"), json.dumps(kept))
        return path

    def __str__(self) -> str:
        return textwrap.fill(f"{self.subject}: {self.sentence}", 100)


@dataclass(frozen=True)
class NotTested:
    """In place of a proof that a corpus cannot have; printed and tabled like one.

    Attributes:
        name: Of the proof.
        subject: The run that it would speak about.
        reason: What is missing.
    """

    name: str
    subject: str
    reason: str

    def table(self) -> pd.DataFrame:
        """No numbers."""
        return pd.DataFrame({"value": []}, dtype=float).rename_axis(f"{self.name} of {self.subject}")

    def __str__(self) -> str:
        return textwrap.fill(f"{self.subject}: {self.name.replace('_', ' ')} is not tested: {self.reason}.", 100)


@lru_cache(maxsize=1)
def code_version() -> str:
    """Digest of the rooms that decide what a proof measures: changed code never reuses old numbers."""
    house = Path(__file__).parents[1]
    readers = {"__init__", "answers", "claims", "guide", "ledger", "lessons", "registry", "speed", "table"}
    rooms = [p for room in ("metrics", "proofs") for p in house.glob(f"{room}/*.py") if p.stem not in readers]
    rooms += [house / "runs.py", house / "descriptors.py"]
    return digest([p.read_text() for p in sorted(rooms) if p.is_file()])


code_version()  # now: a file that is edited later is not the code that this process measures with
