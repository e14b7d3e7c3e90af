"""Nearest vectors by comparing the query with every row."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from orchestrator.stage import DocumentVectors
from orchestrator.types import Vectors

from .space import Hits

Similarity = Literal["cosine", "dot"]

_BLOCK = 8192
MARGIN = 1e-5
"""How far a float32 product may be from the true one, relative to the vectors' lengths, on the safe side."""


class ExactScan:
    """Searches memory-mapped vectors. Safe to use from several threads.

    Args:
        vectors: of the corpus.
        similarity: `cosine` or `dot`.
    """

    def __init__(self, vectors: DocumentVectors, similarity: Similarity) -> None:
        self._vectors, self._similarity = vectors, similarity
        self._lengths = _lengths(vectors) if similarity == "cosine" else None

    def nearest(self, vector: Vectors, top_k: int) -> Hits:
        """The `top_k` rows nearest to `vector` (float32 [dim]).

        A fast float32 pass finds all rows that may belong to them; these are computed again in float64, so that
        equal vectors get equal scores wherever they stand.
        """
        rough = self._rough(vector)
        top_k = min(top_k, len(rough))
        if top_k < 1:
            return []
        least = np.partition(rough, -top_k)[-top_k]
        ordinals = np.flatnonzero(rough >= least - MARGIN * max(1.0, abs(float(least))))
        scores = precise_scores(self._vectors, self._similarity, vector, ordinals)
        best = np.lexsort((ordinals, -scores))[:top_k]
        return list(zip(ordinals[best].tolist(), scores[best].tolist(), strict=True))

    def close(self) -> None:
        """Nothing to let go of: the vectors are the corpus's."""

    def _rough(self, vector: Vectors) -> npt.NDArray[np.float32]:
        scores = np.empty(len(self._vectors), dtype=np.float32)
        query = vector if self._lengths is None else vector / max(float(np.linalg.norm(vector)), 1e-12)
        for start, block in self._vectors.blocks(_BLOCK):
            np.matmul(block, query, out=scores[start : start + len(block)])
        if self._lengths is not None:
            scores /= self._lengths
        return scores


def precise_scores(
    vectors: DocumentVectors, similarity: Similarity, query: Vectors, ordinals: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """float32 [n]: the score of each of `ordinals`, computed in float64: equal vectors get equal scores."""
    rows, wide = vectors.rows(ordinals).astype(np.float64), query.astype(np.float64)
    scores = np.einsum("ij,j->i", rows, wide)
    if similarity == "cosine":
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows)) * np.sqrt(wide @ wide)
        scores = scores / np.maximum(lengths, 1e-24)
    rounded: npt.NDArray[np.float32] = scores.astype(np.float32)
    return rounded


def _lengths(vectors: DocumentVectors) -> npt.NDArray[np.float32]:
    """float32 [n]: the length of each row, at least 1e-12."""
    lengths = np.empty(len(vectors), dtype=np.float32)
    for start, block in vectors.blocks(_BLOCK):
        lengths[start : start + len(block)] = np.sqrt(np.einsum("ij,ij->i", block, block))
    return np.maximum(lengths, np.float32(1e-12))
