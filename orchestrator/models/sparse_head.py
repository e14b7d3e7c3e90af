"""From an exported sparse encoder's weights of the vocabulary to sparse vectors, and queries without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orchestrator.types import SparseVector, Vectors

STATIC_FILE = "queries.npy"
STATIC_TOKENIZER_FILE = "query_tokenizer.json"


class StaticQueries:
    """Weights of queries looked up by token: no network runs.

    Args:
        folder: of the export.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str((folder / STATIC_TOKENIZER_FILE).read_text(encoding="utf-8"))
        self._weights: Vectors = np.load(folder / STATIC_FILE, allow_pickle=False)

    def embed(self, texts: Sequence[str]) -> list[SparseVector]:
        """The weight of each token that a text has, however often it has it."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._vector(np.unique(np.array(encoding.ids, dtype=np.uint32))) for encoding in encodings]

    def _vector(self, ids: npt.NDArray[np.uint32]) -> SparseVector:
        weights = self._weights[ids]
        return SparseVector(ids[weights != 0], weights[weights != 0])


def strongest(vector: SparseVector, most: int | None) -> SparseVector:
    """The `most` weights farthest from 0, or all; equal ones by dimension."""
    if most is None or len(vector.indices) <= most:
        return vector
    kept = np.sort(np.argsort(-np.abs(vector.values), kind="stable")[:most])
    return SparseVector(vector.indices[kept], vector.values[kept])


def sparse_rows(weights: Vectors) -> list[SparseVector]:
    """One vector a row of float32 [n, vocabulary]: what is not 0."""
    found = []
    for row in weights:
        indices = np.flatnonzero(row)
        found.append(SparseVector(indices.astype(np.uint32), row[indices]))
    return found
