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
    error_by_band,
    error_map,
    kl_spectrum,
    ladder,
    sweep,
)
from .latents import prices
from .ledger import claims

__all__ = [
    "Drawn",
    "balance",
    "bars",
    "claims",
    "comparison",
    "contents",
    "dendrogram",
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
    "ladder",
    "loudness",
    "maps",
    "paths",
    "prices",
    "reliability",
    "spectrogram",
    "sweep",
]
