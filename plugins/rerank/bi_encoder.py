"""Query vector against document vectors that were computed beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.stage import Embed, is_remote
from orchestrator.types import Call, Document, Need, Query, ScoreKind


class BiEncoderRerank:
    """Scores a pair by its vectors: dot product, or cosine where the model's authors compare by cosine.

    The core supplies the vectors: `query.vector` embedded once a query, `document.vector` from the memory-mapped
    store, where a missing one is embedded and added first.

    Args:
        embedder: whose vectors they are.
    """

    needs: frozenset[Need] = frozenset({"vectors"})
    score_kinds: tuple[ScoreKind, ...] = ("cosine", "dot")
    cost_kind = "bi_encoder"

    def __init__(self, embedder: Embed) -> None:
        self.embedder = embedder
        self.score_kind: ScoreKind = "cosine"

    @property
    def is_remote(self) -> bool:
        """Whether the embedder waits for somebody else's machine."""
        return is_remote(self.embedder)

    def load(self) -> None:
        """Load the embedder; from then on `score_kind` is the one of its model."""
        self.embedder.load()
        self.score_kind = "dot" if self.embedder.similarity == "dot" else "cosine"

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> npt.NDArray[np.float32]:
        """float32 [n_pairs]; cosine in [-1, 1], dot unbounded."""
        if not pairs:
            return np.empty(0, dtype=np.float32)
        queries = np.stack([_vector(query.vector, query.query_id) for query, _ in pairs])
        documents = np.stack([_vector(document.vector, document.doc_id) for _, document in pairs])
        # einsum, not a matrix product: each row is summed in the same order whatever else is in the batch.
        scores: npt.NDArray[np.float32] = np.einsum("ij,ij->i", queries, documents)
        if self.score_kind == "cosine":
            scores = scores / _norms(queries) / _norms(documents)
        return scores


def _vector(vector: npt.NDArray[np.float32] | None, name: str) -> npt.NDArray[np.float32]:
    if vector is None:
        raise ValueError(f"'{name}' came without its vector; a stage that reads vectors has `needs = {{'vectors'}}`")
    return vector


def _norms(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths: npt.NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return np.maximum(lengths, np.float32(1e-12))
