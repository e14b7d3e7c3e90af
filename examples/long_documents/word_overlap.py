"""A reranker that long texts mislead, and the two methods with which the core can cut them for it."""

import re
from collections.abc import Sequence

import numpy as np

from orchestrator import Document, Query
from orchestrator.types import Call


class WordOverlap:
    """How dense a text is in words of the question: the longer it is, the less one place in it counts."""

    score_kind = "graded"

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
        """float64 [n_pairs], from 0 to 1."""
        return np.array([self._density(query.text, document.text) for query, document in pairs])

    def token_spans(self, text: str) -> np.ndarray:
        """int64 [n_words, 2]: a token of this stage is a word."""
        return np.array([word.span() for word in re.finditer(r"\w+", text)], np.int64).reshape(-1, 2)

    def room(self, query: str) -> int | None:
        """It can read as much as you like."""
        return None

    def _density(self, question: str, text: str) -> float:
        asked, words = stems(question), stems(text)
        return len(set(asked) & set(words)) / max(1, len(words))


def stems(text: str) -> list[str]:
    """Words of more than three letters, cut after the fifth."""
    return [word[:5] for word in re.findall(r"\w{4,}", text.lower())]
