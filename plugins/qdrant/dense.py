"""One vector a document, compared by cosine or dot product."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.stage import Corpus, DocumentVectors, Embed, Json, Progress, no_progress
from orchestrator.types import Vectors

from .exact_scan import ExactScan, Similarity, precise_scores
from .space import Hits, called, named

if TYPE_CHECKING:
    import qdrant_edge as edge
    from qdrant_client import models


class DenseSpace:
    """A `Space` of dense vectors, float32 [dim].

    Args:
        embedder: the model that makes them.
        similarity: how they are compared.
    """

    batch = 1024

    def __init__(self, embedder: Embed, similarity: Similarity) -> None:
        self._embedder, self.similarity = embedder, similarity

    @property
    def model_id(self) -> str:
        """Of the embedder."""
        return self._embedder.model_id

    @property
    def settings(self) -> dict[str, Json]:
        """Model, dimension and distance."""
        return {"model_id": self._embedder.model_id, "dim": self._embedder.dim, "distance": self.similarity}

    def vectors(self, corpus: Corpus, progress: Progress = no_progress) -> DocumentVectors:
        """The corpus's own vectors."""
        return corpus.vectors(self._embedder, progress)

    def identity(self, corpus: Corpus) -> str:
        """The model's: nothing else shapes a vector."""
        return self.model_id

    def scan(self, corpus: Corpus) -> ExactScan:
        """Compares the query with every vector."""
        return ExactScan(self.vectors(corpus), self.similarity)

    def rescorer(self, corpus: Corpus) -> Callable[[Vectors, Hits], Hits]:
        """Computes scores again in float64."""
        vectors = self.vectors(corpus)

        def rescored(vector: Vectors, hits: Hits) -> Hits:
            ordinals = np.array([ordinal for ordinal, _ in hits], dtype=np.int64)
            scores = precise_scores(vectors, self.similarity, vector, ordinals)
            return list(zip(ordinals.tolist(), scores.tolist(), strict=True))

        return rescored

    def edge_config(self, name: str) -> edge.EdgeConfig:
        """One vector a point."""
        import qdrant_edge as edge

        distance = edge.Distance.Cosine if self.similarity == "cosine" else edge.Distance.Dot
        parameters = edge.EdgeVectorParams(size=self._embedder.dim, distance=distance)
        return edge.EdgeConfig(vectors=named(parameters, name), wal_enabled=False)

    def edge_vector(self, vector: Vectors, name: str) -> Any:
        """As it is."""
        return named(vector, name)

    def edge_query(self, vector: Vectors) -> Any:
        """A list."""
        return vector.tolist()

    def client_config(self, name: str) -> dict[str, Any]:
        """Size and distance."""
        from qdrant_client import models

        parameters = models.VectorParams(size=self._embedder.dim, distance=models.Distance(self._distance))
        return {"vectors_config": named(parameters, name)}

    def client_vector(self, vector: Vectors, name: str) -> Any:
        """A list."""
        return named(vector.tolist(), name)

    def client_query(self, vector: Vectors) -> Any:
        """A list."""
        return vector.tolist()

    def generation_params(self, generation: int) -> dict[str, Any]:
        """None."""
        return {}

    def unfit(self, params: models.CollectionParams, name: str) -> str | None:
        """Another size, distance or name, or several vectors a point."""
        mine = dense_vectors(params).get(name)
        wanted = (self._embedder.dim, self._distance)
        if mine is not None and (mine.size, mine.distance.value) == wanted and not mine.multivector_config:
            return None
        return f"expected {called(name)} of {self._embedder.dim}, {self._distance}, as the embedder's"

    @property
    def _distance(self) -> str:
        return "Cosine" if self.similarity == "cosine" else "Dot"


def dense_vectors(params: models.CollectionParams) -> dict[str, models.VectorParams]:
    """Name -> what a collection says about its dense vectors, those with several a point among them."""
    held = params.vectors
    return held if isinstance(held, dict) else {} if held is None else {"": held}
