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
    "bars",
    "claims",
    "comparison",
    "contents",
    "dendrogram",
    "difficulty",
    "ellipses",
    "error_by_band",
    "error_map",
    "filters",
    "gallery",
    "heatmap",
    "history",
    "kl_spectrum",
    "maps",
    "paths",
    "reliability",
    "spectrogram",
    "sweep",
]
