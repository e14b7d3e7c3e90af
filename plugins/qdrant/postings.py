"""Exact search in sparse vectors: for each dimension the documents that have it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from orchestrator.types import SparseVector

from .space import Held, Hits

_BLOCK = 8192


class Postings:
    """Sparse vectors turned over in memory, 12 bytes a value. Safe to use from several threads.

    Args:
        indices: uint32 [n], ascending: the dimension of each value.
        ordinals: int64 [n]: the document of each value.
        values: float32 [n].
        n_documents: of the corpus.
        idf: whether a query's weights are multiplied by Qdrant's IDF, ln(1 + (N - n + 0.5) / (n + 0.5)) with N the
            documents that have a vector, n those of them that have the dimension: the formula of Lucene's BM25.
    """

    def __init__(
        self,
        indices: npt.NDArray[np.uint32],
        ordinals: npt.NDArray[np.int64],
        values: npt.NDArray[np.float32],
        n_documents: int,
        idf: bool,
    ) -> None:
        self._indices, self._ordinals, self._values, self._idf = indices, ordinals, values, idf
        self._n_documents, self._n_with_vector = n_documents, len(np.unique(ordinals))

    @classmethod
    def of(cls, vectors: Held[SparseVector], idf: bool) -> Postings:
        """The postings of a corpus."""
        indices, values, lengths = [np.empty(0, np.uint32)], [np.empty(0, np.float32)], [0]
        for _, block in vectors.blocks(_BLOCK):
            for vector in block:
                indices.append(vector.indices)
                values.append(vector.values)
                lengths.append(len(vector.indices))
        flat = np.concatenate(indices)
        order = np.argsort(flat, kind="stable")
        ordinals = np.repeat(np.arange(len(lengths) - 1), lengths[1:])
        return cls(flat[order], ordinals[order], np.concatenate(values)[order], len(vectors), idf)

    def nearest(self, vector: SparseVector, top_k: int) -> Hits:
        """The `top_k` documents with the greatest products, of those that share a dimension with `vector`."""
        scores, found = np.zeros(self._n_documents), np.zeros(self._n_documents, dtype=bool)
        for index, weight in zip(vector.indices, vector.values.tolist(), strict=True):
            start, end = np.searchsorted(self._indices, index), np.searchsorted(self._indices, index, side="right")
            rows = self._ordinals[start:end]
            scores[rows] += weight * self._rarity(len(rows)) * self._values[start:end]
            found[rows] = True
        matched = np.flatnonzero(found)
        rounded = scores[matched].astype(np.float32)
        best = np.lexsort((matched, -rounded))[:top_k]
        return list(zip(matched[best].tolist(), rounded[best].tolist(), strict=True))

    def _rarity(self, n_with_it: int) -> float:
        if not self._idf:
            return 1.0
        return math.log1p((self._n_with_vector - n_with_it + 0.5) / (n_with_it + 0.5))
