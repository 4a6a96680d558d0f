"""Explorers of a latent space: live in JupyterLab, and the same picture and sound offline in a shared report."""

from .clips import ClipsView, clip_browser, latent_map
from .controls import Choice, Extra, Slider
from .picture import colour, data_uri, png, shrink, sound_bytes, strip
from .view import SpectrogramView
from .views import class_sampler, clip_name, component_view, interpolation, player, traversal, wave_player

__all__ = [
    "Choice", "ClipsView", "Extra", "Slider", "SpectrogramView", "class_sampler", "clip_browser", "clip_name", "colour",
    "component_view", "data_uri", "interpolation", "latent_map", "player", "png", "shrink", "sound_bytes", "strip",
    "traversal", "wave_player",
]  # fmt: skip
