"""Metrics as pure functions of arrays, one file per family: no plots, no models, no files.

A value that is undefined (one class, a constant factor) is nan; a collapsed model never scores well by being empty.
"""

import warnings

# scikit-learn's guess that a classification with many classes (each clip its own) may be a regression
warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
