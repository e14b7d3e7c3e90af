"""Documents that hold the question's words come first."""

from collections.abc import Sequence

import numpy as np

from orchestrator.errors import ConfigError
from orchestrator.types import Call, Document, Query


class KeywordBoost:
    """Scores a document by how many of the question's longer words it holds.

    Args:
        min_chars: shorter words do not count.
    """

    score_kind = "graded"

    def __init__(self, min_chars: int = 4) -> None:
        if min_chars < 1:
            raise ConfigError("min_chars", f"{min_chars} is too small; expected 1 or more")
        self._min_chars = min_chars

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
        """float64 [n_pairs]: the share of the question's words that stand in the document, in [0, 1]."""
        return np.array([self._share(query.text, document.full_text) for query, document in pairs], dtype=np.float64)

    def _share(self, question: str, text: str) -> float:
        words = {word for word in question.lower().strip("?!. ").split() if len(word) >= self._min_chars}
        return len(words & set(text.lower().split())) / len(words) if words else 0.0
