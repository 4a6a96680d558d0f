"""Factors read from spectrograms, (N, F, T) in [0, 1]: what could be measured in a decoded sound; see notebook 04."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

BINS = 64  # along frequency and time; finer spectrograms are averaged
MOST = 2000  # spectrograms that a reader learns from
PENALTIES = np.logspace(-2, 4, 13)


def coarse(x: np.ndarray) -> np.ndarray:
    """(N, F, T) → (N, ≤ 64, ≤ 64): means over neighbouring bands and frames."""
    for axis in (1, 2):
        if x.shape[axis] > BINS:
            edges = np.linspace(0, x.shape[axis], BINS + 1).astype(int)
            widths = np.diff(edges).reshape((-1, 1) if axis == 1 else (-1,))
            x = np.add.reduceat(x, edges[:-1], axis=axis) / widths
    return x


class Reader:
    """Ridge regression from a spectrogram's bins to each factor, the penalty chosen by leave-one-out.

    It knows nothing of the codes: fitted on real spectrograms (N, F, T) and their factors, name to numbers (N,), it
    then reads decoded ones.
    """

    def __init__(self, x: np.ndarray, factors: Mapping[str, np.ndarray]) -> None:
        picked = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST)).astype(int))
        values = np.stack([np.asarray(v, float)[picked] for v in factors.values()], axis=1)
        self.names, self.mean, self.spread = list(factors), values.mean(0), np.maximum(values.std(0), 1e-12)
        scaled = (values - self.mean) / self.spread
        self.fitted = RidgeCV(PENALTIES, alpha_per_target=True).fit(_flat(x[picked]), scaled)

    def read(self, x: np.ndarray) -> pd.DataFrame:
        """(n, factor) readings of spectrograms (n, F, T), in the factors' own units."""
        found = self.fitted.predict(_flat(x)).reshape(len(x), -1)
        return pd.DataFrame(found * self.spread + self.mean, columns=self.names)

    def r2(self, x: np.ndarray, factors: Mapping[str, np.ndarray]) -> dict[str, float]:
        """R² of the readings of spectrograms (n, F, T) against their factors, by name."""
        found = self.read(x)
        return {name: float(r2_score(factors[name], found[name])) for name in self.names}


def _flat(x: np.ndarray) -> np.ndarray:
    return coarse(np.asarray(x, np.float32)).reshape(len(x), -1)
