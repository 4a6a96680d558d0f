"""The dials of a rendered corpus: which music, how alike its clips are; the names that follow from them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaelib.config import InputError, one_of
from vaelib.demo.factors import FACTORS

CLIPS = {"styles": 40, "desk": 1500}  # of a genre, where nothing else is asked for
FIXED = ("tempo",)  # a clip that is 7 % slower shifts its last onset by four frames, and reconstructions blur
VARIATION = 0.3
RECORD = "corpus.json"
RENDERING = 2  # raise it when the code renders the same tables differently
LADDER = ("desk", "loops", "loops, full range", "loops, cut anywhere", "composed")  # from easy to difficult


def corpus_name(
    demo: str = "styles",
    clips_per_genre: int = 0,
    seconds: float = 6.0,
    composition: float = 0.0,
    variation: float = VARIATION,
    fixed: Sequence[str] | str = FIXED,
    seed: int = 0,
) -> str:
    """Folder name of a rendered corpus, e.g. `demo-40x6s-c0-v0.3-tempo-s0` or `desk-1500x6s-s0`.

    Args: as `vaelib.demo.render_corpus`.

    Raises:
        InputError: `demo` or a factor is unknown.
    """
    size = f"{clips_per_genre or CLIPS[one_of('demo', demo, CLIPS)]}x{seconds:g}s"
    if demo == "desk":
        return f"desk-{size}-s{seed}"
    names = "+".join(fixed_factors(fixed))
    return f"demo-{size}-c{composition:g}-v{variation:g}-{f'{names}-' if names else ''}s{seed}"


def fixed_factors(fixed: Sequence[str] | str) -> tuple[str, ...]:
    """Names of factors, given as a sequence or as one word (`tempo+key`), in the order of `FACTORS`.

    Raises:
        InputError: one of them is no factor.
    """
    names = re.split(r"[+,\s]+", fixed.strip()) if isinstance(fixed, str) else fixed
    wanted = {one_of("factor in fixed", name, FACTORS) for name in names if name}
    return tuple(name for name in FACTORS if name in wanted)


def read_record(folder: Path) -> dict[str, Any]:
    """What `corpus.json` says of a rendered corpus; {} where there is none: a person's own music.

    Raises:
        InputError: the corpus was rendered by another version of the code, or a dial is missing.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(record, dict) or "rendering" not in record:
        return {}
    if record["rendering"] != RENDERING:
        raise InputError(
            f"{folder} was rendered by another version of the code (rendering {record['rendering']}, this is "
            f"{RENDERING}): render it again in another folder, or delete it first"
        )
    numbers = () if record.get("demo") == "desk" else ("composition", "variation")
    names = record.get("fixed", [])
    if (
        record.get("demo") not in CLIPS
        or not isinstance(names, list)
        or not all(isinstance(record.get(dial), int | float) for dial in numbers)
    ):
        raise InputError(f"{folder / RECORD} does not say which corpus was rendered: render it again, or delete it")
    return record


def rung(parameters: Mapping[str, Any], windows: str) -> str:
    """Rung of the ladder of difficulty: one of `LADDER`, or one that says which dial stands elsewhere.

    Args:
        parameters: Of a rendered corpus, as in its `corpus.json`.
        windows: Of its store: `start` or `anywhere`.
    """
    if parameters["demo"] == "desk":
        return "desk" if windows == "start" else "desk, cut anywhere"
    composition, variation, fixed = (parameters[name] for name in ("composition", "variation", "fixed"))
    usual = {"variation": 1, "fixed": (), "windows": "anywhere"}
    if composition == 1:
        name = "composed"
    elif composition:
        name, usual = f"composition {composition:g}", {"variation": VARIATION, "fixed": FIXED, "windows": "start"}
    elif windows == "anywhere":
        name = "loops, cut anywhere"
    elif not fixed:
        name, usual["windows"] = "loops, full range", "start"
    else:
        name, usual = "loops", {"variation": VARIATION, "fixed": FIXED, "windows": "start"}
    said = {
        "variation": f"variation {variation:g}",
        "fixed": f"{', '.join(fixed) or 'nothing'} fixed",
        "windows": "from the start" if windows == "start" else "cut anywhere",
    }
    stands = {"variation": variation, "fixed": tuple(fixed), "windows": windows}
    return ", ".join([name, *(said[dial] for dial in said if stands[dial] != usual[dial])])
