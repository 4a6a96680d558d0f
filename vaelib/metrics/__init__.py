"""Metrics as pure functions of arrays, one file per family; `measure` applies them to a run and keeps the numbers."""

import warnings

# scikit-learn's guess that a classification with many classes (each clip its own) may be a regression
warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
