"""A reranker in a few lines: shorter documents first, those with a word of the question before all others."""

from collections.abc import Sequence

import numpy as np

from orchestrator import Document, Query
from orchestrator.types import Call


class ShorterFirst:
    """One point for a word in common, less a little for every character."""

    score_kind = "graded"

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
        """float64 [n_pairs], higher better."""
        return np.array([self._points(query.text, document.text) for query, document in pairs])

    def _points(self, question: str, text: str) -> float:
        in_common = set(question.lower().split()) & set(text.lower().split())
        return float(bool(in_common)) - len(text) / 1e6
