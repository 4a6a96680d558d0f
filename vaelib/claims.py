"""Results that a notebook keeps with a run, under short stable ids such as `mig.mean`, and everybody else reads."""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .config import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .runs import Run


@dataclass(frozen=True)
class Results:
    """What the notebooks measured on a run.

    Attributes:
        numbers: Id → number, e.g. `mig.mean`, `mig.null_p95`.
        per_clip: For some of these ids the values, one per test clip (or pair of clips, or unit), whose mean the
            number is, (N,). Of a number that is no mean, such as ARI, values whose spread is that of the number.
        texts: Experiment → the sentence that its notebook made of the numbers.
        skipped: Experiment → why this corpus or run cannot have it.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    per_clip: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        sentences = [*self.texts.values(), *(f"Not tested: {reason}." for reason in self.skipped.values())]
        return "\n\n".join(textwrap.fill(text, 100) for text in sentences)


def keep(
    run: Run,
    experiment: str,
    numbers: Mapping[str, float],
    per_clip: Mapping[str, np.ndarray] | None = None,
    figure: Figure | None = None,
    text: str = "",
) -> Results:
    """Keep the results of an `experiment` of a finished run as `results/<experiment>.json`, in place of older ones.

    Args:
        numbers: Id → number; the ids of all experiments of a run differ.
        per_clip: Id → values (N,), see `Results`.
        figure: Saved beside the numbers as `<experiment>.png`.
        text: What the numbers show, in one sentence or two.
    """
    folder = run.folder / "results"
    kept = Results(
        {name: float(value) for name, value in numbers.items()},
        {name: np.asarray(values, float).round(9) for name, values in (per_clip or {}).items()},
        {experiment: text} if text else {},
    )
    if figure is not None:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        write_atomic(folder / f"{experiment}.png", buffer.getvalue())
    lists = {name: values.tolist() for name, values in kept.per_clip.items()}
    content = {"numbers": kept.numbers, "per_clip": lists, "text": text}
    write_atomic(folder / f"{experiment}.json", json.dumps(content, indent=1))
    return kept


def skip(run: Run, experiment: str, reason: str) -> Results:
    """Keep why a run cannot have an experiment; the ledger then says `not tested: <reason>`."""
    write_atomic(run.folder / "results" / f"{experiment}.json", json.dumps({"skipped": reason}))
    return Results(skipped={experiment: reason})


def read(run: Run) -> Results:
    """Everything that was kept for a run, and of its training `train.epochs`, `.parameters` and the two speeds."""
    joint = run.history[run.history["phase"] == "joint"]  # what an epoch of VaDE takes
    seconds = (joint if len(joint) else run.history)["seconds"].median()
    found = Results({f"train.{k}": float(run.summary[k]) for k in ("clips_per_s", "epochs", "parameters")})
    found.numbers["train.seconds_per_epoch"] = float(seconds)
    for path in sorted((run.folder / "results").glob("*.json")):
        kept = json.loads(path.read_text())
        if "skipped" in kept:
            found.skipped[path.stem] = kept["skipped"]
            continue
        found.numbers.update(kept["numbers"])
        found.per_clip.update({name: np.array(values) for name, values in kept["per_clip"].items()})
        if kept["text"]:
            found.texts[path.stem] = kept["text"]
    return found
