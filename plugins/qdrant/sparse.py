"""One sparse vector a document, compared by dot product; with or without Qdrant's own IDF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.rows.sparse_vectors import CorpusSparse, open_sparse
from orchestrator.stage import Corpus, EmbedSparse, Json, Progress, WeighsInCorpus, no_progress
from orchestrator.types import SparseVector

from .points import visible
from .postings import Postings
from .space import Hits

if TYPE_CHECKING:
    import qdrant_edge as edge
    from qdrant_client import models


class SparseSpace:
    """A `Space` of sparse vectors. In Qdrant they always have a name.

    An empty vector is not written: Qdrant counts documents with a vector for its IDF, and whether an empty one is one
    depends on the engine (qdrant-client 1.20: yes, Edge 0.9: no).

    Args:
        encoder: the model that makes them.
        root: where they are kept.
    """

    batch = 1024

    def __init__(self, encoder: EmbedSparse, root: Path) -> None:
        self._encoder, self._root = encoder, root

    @property
    def model_id(self) -> str:
        """Of the encoder."""
        return self._encoder.model_id

    @property
    def settings(self) -> dict[str, Json]:
        """Model, weighting and whether Qdrant multiplies by IDF."""
        settings: dict[str, Json] = {"model_id": self.model_id, "sparse": True, "idf": self._encoder.uses_idf}
        if isinstance(self._encoder, WeighsInCorpus):
            settings["weighting"] = dict(self._encoder.weighting)
        return settings

    def vectors(self, corpus: Corpus, progress: Progress = no_progress) -> CorpusSparse:
        """Weighed as the encoder weighs them in this corpus."""
        return open_sparse(self._root, self._encoder).ensure(corpus, self._encoder, progress)

    def identity(self, corpus: Corpus) -> str:
        """The model's; and the weighting and the average length, where weights depend on them."""
        if not isinstance(self._encoder, WeighsInCorpus):
            return self.model_id
        weighting = ", ".join(f"{key} {value}" for key, value in sorted(self._encoder.weighting.items()))
        return f"{self.model_id}, {weighting}, average {self.vectors(corpus).average:.6g}"

    def scan(self, corpus: Corpus) -> Postings:
        """Adds up the documents of each dimension of the query."""
        return Postings.of(self.vectors(corpus), self._encoder.uses_idf)

    def rescorer(self, corpus: Corpus) -> Callable[[SparseVector, Hits], Hits]:
        """Leaves them as they are: a sparse product is summed in one order."""
        return lambda _, hits: hits

    def edge_config(self, name: str) -> edge.EdgeConfig:
        """One sparse vector a point."""
        import qdrant_edge as edge

        modifier = edge.Modifier.Idf if self._encoder.uses_idf else None
        parameters = edge.EdgeSparseVectorParams(modifier=modifier)
        return edge.EdgeConfig(sparse_vectors={name: parameters}, wal_enabled=False)

    def edge_vector(self, vector: SparseVector, name: str) -> Any:
        """None at all for an empty one."""
        return {name: self.edge_query(vector)} if len(vector.indices) else {}

    def edge_query(self, vector: SparseVector) -> Any:
        """Edge's own type."""
        import qdrant_edge as edge

        return edge.SparseVector(vector.indices.tolist(), vector.values.tolist())

    def client_config(self, name: str) -> dict[str, Any]:
        """No dense vectors, and one sparse."""
        from qdrant_client import models

        parameters = models.SparseVectorParams(modifier=models.Modifier.IDF if self._encoder.uses_idf else None)
        return {"vectors_config": {}, "sparse_vectors_config": {name: parameters}}

    def client_vector(self, vector: SparseVector, name: str) -> Any:
        """None at all for an empty one."""
        return {name: self.client_query(vector)} if len(vector.indices) else {}

    def client_query(self, vector: SparseVector) -> Any:
        """qdrant-client's own type."""
        from qdrant_client import models

        return models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())

    def generation_params(self, generation: int) -> dict[str, Any]:
        """IDF of this generation alone.

        Else points that were replaced or deleted would count; a server forgets deleted ones when it next optimizes.
        Servers that do not know this parameter leave it aside.
        """
        return {"idf": {"corpus": visible(generation)}} if self._encoder.uses_idf else {}

    def unfit(self, params: models.CollectionParams, name: str) -> str | None:
        """No sparse vector of this name, or with another modifier."""
        held = (params.sparse_vectors or {}).get(name)
        wanted = "idf" if self._encoder.uses_idf else "none"
        found = None if held is None else held.modifier.value if held.modifier else "none"
        return None if found == wanted else f"expected a sparse vector '{name}' with modifier {wanted}"
