"""The nearest clips of every clip in every model's own latent space, found before anyone asks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..metrics.clustering import nearest
from ..runs import Run
from .fields import packed

NEIGHBOURS = 8
KIN = ("artist", "track")  # clips that share one sound alike for that alone; the first that a clip has counts


@dataclass(frozen=True)
class Near:
    """Neighbours of the same clips in several models.

    Attributes:
        metric: Of the distance.
        every: For each model (clip, k): places of the nearest clips, nearest first; -1: there are no more.
        kin: What some clips share: `artist`, `track`, or "" where none do.
        groups: (clip,) number of each clip's artist or track.
        others: As `every`, without clips of the same artist or track; () where `kin` is "".
    """

    metric: str
    every: tuple[np.ndarray, ...]
    kin: str = ""
    groups: np.ndarray | None = None
    others: tuple[np.ndarray, ...] = ()

    def packed(self, room: float = math.inf) -> dict:
        """What the page gets: as many neighbours of every clip as `room` characters hold, at least one."""
        both = [*self.every, *self.others]
        each = sum(len(packed(places[:, :1], "i4")) for places in both)
        k = max(1, int(min(both[0].shape[1], room / max(each, 1))))
        every, others = ([packed(p[:, :k], "i4") for p in places] for places in (self.every, self.others))
        groups = packed(self.groups, "i4") if self.kin else None
        return {"metric": self.metric, "k": k, "every": every, "kin": self.kin, "groups": groups, "others": others}


def find_near(runs: Sequence[Run], split: str, k: int = NEIGHBOURS, metric: str = "euclidean") -> Near:
    """The `k` nearest clips of a split to each of its clips, never itself, by each run's posterior means.

    Raises:
        InputError: unknown metric, or `k` below 1.
    """
    kin, groups = kin_of(runs[0].store.table.loc[runs[0].store.rows(split)])
    points, alone = [r.embed(split).means for r in runs], np.arange(len(groups))

    def lists(own: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(nearest(z, z, k, metric, (own, own))[0] for z in points)

    return Near(metric, lists(alone), kin, groups, lists(groups) if kin else ())


def kin_of(table: pd.DataFrame) -> tuple[str, np.ndarray]:
    """What some clips of a table share (`artist`, else `track`, else ""), and the number of each clip's (clip,)."""
    own = pd.Series([f"clip {i}" for i in range(len(table))])
    present = [c for c in KIN if c in table]
    for column in reversed(present):
        given = table[column].fillna("").astype(str).reset_index(drop=True)
        own = own.where(given.eq(""), column + " " + given)
    groups = pd.factorize(own)[0]
    shared = own[own.duplicated(keep=False)]
    return next((c for c in present if shared.str.startswith(c + " ").any()), ""), groups
