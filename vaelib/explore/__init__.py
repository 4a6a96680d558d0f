"""Explorers of a latent space: live in JupyterLab, and the same picture and sound offline in a saved page."""

from .clips import clip_browser, latent_map
from .page import clip_name, player, wave_player
from .view import class_sampler, component_view, interpolation, traversal

__all__ = [
    "class_sampler", "clip_browser", "clip_name", "component_view", "interpolation",
    "latent_map", "player", "traversal", "wave_player",
]  # fmt: skip
