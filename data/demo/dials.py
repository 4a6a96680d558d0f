"""The dials of a rendered corpus: which music, how alike its clips are; the names that follow from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vaelib.config import one_of
from vaelib_demo.factors import FACTORS

CLIPS = {"styles": 40, "desk": 1500}  # of a genre, where nothing else is asked for
FIXED = ("tempo",)  # a clip that is 7 % slower shifts its last onset by four frames, and reconstructions blur
VARIATION = 0.3
RENDERING = 2  # raise it when the code renders the same tables differently


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

    Args: as `vaelib_demo.render_corpus`.

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


def rung(parameters: Mapping[str, Any], windows: str) -> str:
    """Rung of the ladder of difficulty: one of `vaelib.collection.LADDER`, or a name that says which dial differs.

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
    words = {
        "variation": f"variation {variation:g}",
        "fixed": f"{', '.join(fixed) or 'nothing'} fixed",
        "windows": "from the start" if windows == "start" else "cut anywhere",
    }
    stands = {"variation": variation, "fixed": tuple(fixed), "windows": windows}
    return ", ".join([name, *(words[dial] for dial in words if stands[dial] != usual[dial])])
