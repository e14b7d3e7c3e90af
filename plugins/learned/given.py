"""Documents that no index holds, cut to tokens on the spot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.analysis import Analyzer
from orchestrator.types import Document

from .tokens import DocumentFrequencies, Ints, Statistics, Tokens


class GivenTexts:
    """Token ids of documents that a caller brought, from a vocabulary of their own.

    Args:
        documents: with text.
        analyzer: what cuts them.
    """

    def __init__(self, documents: Sequence[Document], analyzer: Analyzer) -> None:
        self._vocabulary: dict[str, int] = {}
        self.title = self._tokens([analyzer(document.title) for document in documents])
        self.body = self._tokens([analyzer(document.text) for document in documents])

    def ids(self, terms: Sequence[str]) -> npt.NDArray[np.uint32]:
        """uint32 [n_terms]: the id of each term; new ones for terms that no document has."""
        return np.array([self._id(term) for term in terms], dtype=np.uint32)

    def statistics(self, terms: Sequence[str]) -> Statistics:
        """These documents as a collection of their own, for want of a better one."""
        ids = self.ids(terms)
        title, body = (_holds(tokens, ids) for tokens in (self.title, self.body))
        found = DocumentFrequencies(*(rows.sum(axis=0) for rows in (title, body, title | body)))
        n = max(len(self.body), 1)
        return Statistics(len(self.body), len(self.title.ids) / n, len(self.body.ids) / n, found)

    def _id(self, term: str) -> int:
        return self._vocabulary.setdefault(term, len(self._vocabulary))

    def _tokens(self, documents: Sequence[Sequence[str]]) -> Tokens:
        ids = [self._id(term) for terms in documents for term in terms]
        offsets: Ints = np.cumsum([0, *map(len, documents)], dtype=np.int64)
        return Tokens(np.array(ids, dtype=np.uint32), offsets)


def _holds(tokens: Tokens, ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Bool [n_documents, n_terms]."""
    held = np.zeros((len(tokens), len(ids)), dtype=bool)
    documents = np.repeat(np.arange(len(tokens)), tokens.lengths)
    for place, term in enumerate(ids):
        held[documents[tokens.ids == term], place] = True
    return held
