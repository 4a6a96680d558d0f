"""The dials of a rendered corpus: which music, how alike its clips are; the names that follow from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vaelib.config import InputError, one_of
from vaelib_demo.factors import FACTORS

CLIPS = {"styles": 40, "desk": 1500}  # of a genre, where nothing else is asked for
FIXED = ("tempo",)  # a clip that is 7 % slower shifts its last onset by four frames, and reconstructions blur
VARIATION = 0.3
COUNTS = {"clips_per_genre": 1, "seed": 0}  # the least of each
RANGES = {"seconds": (1, 600), "composition": (0, 1), "variation": (0, 1)}


@dataclass(frozen=True)
class Dials:
    """What is rendered; InputError: a dial that is out of range, or not one of the desk."""

    demo: str = "styles"  # 45 genres; or `desk`: the five stems of one loop mixed at independent levels
    clips_per_genre: int = 0  # 0: as many as `CLIPS` says
    seconds: float = 6.0  # length of a clip
    composition: float = 0.0  # styles: share of phrases composed anew, from 0 (every clip plays its genre's loop) to 1
    variation: float = VARIATION  # styles: how far the factors reach, from 0 (not at all) to 1
    fixed: Sequence[str] | str = FIXED  # styles: factors that do not vary: names, or one word (`tempo+key`)
    seed: int = 0  # of factors and compositions

    def __post_init__(self) -> None:
        clips = self.clips_per_genre or CLIPS[one_of("demo", self.demo, CLIPS)]
        words = re.split(r"[+,\s]+", self.fixed) if isinstance(self.fixed, str) else self.fixed
        wanted = {one_of("factor in fixed", name, FACTORS) for name in words if name}
        object.__setattr__(self, "clips_per_genre", clips)
        object.__setattr__(self, "fixed", tuple(name for name in FACTORS if name in wanted))
        for name, low in COUNTS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise InputError(f"{name} must be a whole number of at least {low}, not {value!r}")
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} must be a number from {low} to {high}, not {getattr(self, name)!r}")
        if self.demo == "desk" and (self.composition, self.variation, self.fixed) != (0, VARIATION, FIXED):
            raise InputError("the desk is one loop: composition, variation and fixed are not its dials")

    @property
    def name(self) -> str:
        """Folder name of the corpus, e.g. `demo-40x6s-c0-v0.3-tempo-s0` or `desk-1500x6s-s0`."""
        size = f"{self.clips_per_genre}x{self.seconds:g}s"
        if self.demo == "desk":
            return f"desk-{size}-s{self.seed}"
        fixed = "".join(f"{name}+" for name in self.fixed)[:-1]
        return f"demo-{size}-c{self.composition:g}-v{self.variation:g}-{f'{fixed}-' if fixed else ''}s{self.seed}"

    def record(self) -> dict[str, Any]:
        """What `corpus.json` says of them."""
        names = ("demo", "clips_per_genre", "seconds", "seed")
        names += ("composition", "variation", "fixed") if self.demo == "styles" else ()
        return {name: list(self.fixed) if name == "fixed" else getattr(self, name) for name in names}

    def rung(self, windows: str) -> str:
        """Rung of the ladder of difficulty: one of `vaelib.collection.LADDER`, or a name that says which dial differs.

        Args:
            windows: Of the corpus's store: `start` or `anywhere`.
        """
        if self.demo == "desk":
            return "desk" if windows == "start" else "desk, cut anywhere"
        usual = {"variation": 1, "fixed": (), "windows": "anywhere"}
        if self.composition == 1:
            name = "composed"
        elif self.composition:
            name = f"composition {self.composition:g}"
            usual = {"variation": VARIATION, "fixed": FIXED, "windows": "start"}
        elif windows == "anywhere":
            name = "loops, cut anywhere"
        elif not self.fixed:
            name, usual["windows"] = "loops, full range", "start"
        else:
            name, usual = "loops", {"variation": VARIATION, "fixed": FIXED, "windows": "start"}
        words = {
            "variation": f"variation {self.variation:g}",
            "fixed": f"{', '.join(self.fixed) or 'nothing'} fixed",
            "windows": "from the start" if windows == "start" else "cut anywhere",
        }
        stands = {"variation": self.variation, "fixed": self.fixed, "windows": windows}
        return ", ".join([name, *(words[dial] for dial in words if stands[dial] != usual[dial])])
