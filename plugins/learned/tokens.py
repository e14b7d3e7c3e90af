"""Token ids of documents, flat: what an index keeps and what features are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of one field of some documents, one after the other.

    Attributes:
        ids: unsigned [n_tokens].
        offsets: int64 [n_documents + 1]; document i has `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: npt.NDArray[np.uint32]
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """int64 [n_documents]: tokens of each document."""
        return np.diff(self.offsets)

    def take(self, rows: Ints) -> Tokens:
        """The documents at `rows`, copied, in that order."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Tokens(self.ids[places], offsets)


class DocumentFrequencies(NamedTuple):
    """In how many documents terms stand, int64 [n_terms] each: in the title, in the body, in either."""

    title: Ints
    body: Ints
    text: Ints


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a collection tells about a query's terms.

    Attributes:
        n_documents: how many documents the collection holds.
        title_length: average tokens of a title.
        body_length: average tokens of a body.
        frequencies: of the query's distinct terms, in their order.
    """

    n_documents: int
    title_length: float
    body_length: float
    frequencies: DocumentFrequencies

    def idf(self, frequencies: Ints) -> Floats:
        """float64 [n_terms]: ln(1 + (N - df + 0.5) / (df + 0.5)), as Lucene has it; never negative."""
        # Documents brought by a caller may hold a term more often than the collection the figures come from.
        found = np.minimum(frequencies, self.n_documents)
        return np.log1p((self.n_documents - found + 0.5) / (found + 0.5))
