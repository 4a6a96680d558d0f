"""One proof per claimed feature: measured on a trained run, drawn, and said in a sentence with its null.

Notebooks and `vaelib test` call the same functions, so that both show the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from .classes import generate, separation
from .factors import disentanglement, live_dimensions, name_dimensions, traversal
from .mixture import clustering_comparison, gmm_components, soft_clustering
from .networks import filters, reconstruction, smoothness
from .proof import Proof
from .table import comparison_row

# name on the command line → function, the models it speaks about (the first is the default)
PROOFS: dict[str, tuple[Callable[..., Proof], tuple[str, ...]]] = {
    "smoothness": (smoothness, ("basic_vae", "conv_vae", "beta_vae", "vade", "cvae")),
    "filters": (filters, ("conv_vae", "beta_vae", "cvae", "vade")),
    "reconstruction": (reconstruction, ("conv_vae", "basic_vae", "beta_vae", "cvae", "vade")),
    "disentanglement": (disentanglement, ("beta_vae", "conv_vae", "basic_vae", "cvae", "vade")),
    "traversal": (traversal, ("beta_vae", "conv_vae", "basic_vae", "vade")),
    "separation": (separation, ("cvae",)),
    "generate": (generate, ("cvae",)),
    "clustering_comparison": (clustering_comparison, ("vade",)),
    "gmm_components": (gmm_components, ("vade",)),
    "soft_clustering": (soft_clustering, ("vade",)),
}

__all__ = ["PROOFS", "Proof", "comparison_row", "live_dimensions", "name_dimensions", *PROOFS]
