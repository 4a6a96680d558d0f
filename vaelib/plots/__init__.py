"""Pictures: arrays and tables in, (figure, axes) out. Nothing here measures anything."""

from __future__ import annotations

from .basics import (
    Drawn,
    bars,
    ellipses,
    filters,
    gallery,
    heatmap,
    history,
    maps,
    paths,
    reliability,
    spectrogram,
)
from .collection import balance, durations, faults, loudness
from .comparing import (
    comparison,
    contents,
    dendrogram,
    difficulty,
    error_by_band,
    error_map,
    kl_spectrum,
    sweep,
)
from .ledger import claims

__all__ = [
    "Drawn",
    "balance",
    "bars",
    "claims",
    "comparison",
    "contents",
    "dendrogram",
    "difficulty",
    "durations",
    "ellipses",
    "error_by_band",
    "error_map",
    "faults",
    "filters",
    "gallery",
    "heatmap",
    "history",
    "kl_spectrum",
    "loudness",
    "maps",
    "paths",
    "reliability",
    "spectrogram",
    "sweep",
]
