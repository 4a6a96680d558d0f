"""One proof per claimed feature: measured on a trained run, drawn, and said in a sentence with its null.

Notebooks, `vaelib test` and the claims ledger call the same functions, so that all show the same numbers.
"""

from __future__ import annotations

from .clusters import clustering, hierarchy
from .factors import LIVE_KL, Meaning, disentanglement, factors_of, label, live_dimensions, meanings, traversal
from .filters import filters
from .guide import selection_guide
from .ledger import by_rung, ledger, read_claims
from .lessons import answer, corpus_lessons, desk_lessons, starts_table
from .networks import reconstruction, smoothness
from .proof import NotTested, Proof
from .registry import PROOFS, attempt, measure
from .table import comparison_intervals, comparison_row, ladder_table, main_corpus, runs_of_rungs, sweep_table

__all__ = [
    "LIVE_KL",
    "PROOFS",
    "Meaning",
    "NotTested",
    "Proof",
    "answer",
    "attempt",
    "by_rung",
    "clustering",
    "comparison_intervals",
    "comparison_row",
    "corpus_lessons",
    "desk_lessons",
    "disentanglement",
    "factors_of",
    "filters",
    "hierarchy",
    "label",
    "ladder_table",
    "ledger",
    "live_dimensions",
    "main_corpus",
    "meanings",
    "measure",
    "read_claims",
    "reconstruction",
    "runs_of_rungs",
    "selection_guide",
    "smoothness",
    "starts_table",
    "sweep_table",
    "traversal",
]
