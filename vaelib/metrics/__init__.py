"""Metrics as pure functions of arrays, one file per family: no plots, no models, no files.

`spectrogram`, `clustering`, `disentanglement`, `judges` and `mixture` measure; `statistics` turns the values of
several seeds into an interval and a verdict.

A value that is undefined (one class, a constant factor) is nan; a request that cannot be met (more clusters
than clips) raises `vaelib.config.InputError`; a collapsed model never scores well by being empty.
"""
