"""Metrics as pure functions of arrays, one file per family; `measure` applies them to a run and keeps the numbers."""

import warnings

# scikit-learn: each clip its own class; fewer distinct points than clusters; an ICA of noise; a class that test lacks
for _message in ("The number of unique", "Number of distinct clusters", "FastICA did not", "y_pred contains classes"):
    warnings.filterwarnings("ignore", _message)
