"""Explorers of a latent space: live in JupyterLab, and the same picture and sound offline in a shared report."""

from .picture import colour, data_uri, png, shrink, sound_bytes, strip
from .view import Choice, Slider, SpectrogramView
from .views import class_sampler, clip_browser, component_view, interpolation, traversal

__all__ = [
    "Choice", "Slider", "SpectrogramView", "class_sampler", "clip_browser", "colour", "component_view", "data_uri",
    "interpolation", "png", "shrink", "sound_bytes", "strip", "traversal",
]  # fmt: skip
