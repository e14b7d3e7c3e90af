"""Qdrant Edge shards: built from memory-mapped vectors, opened once a process, searched exactly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.errors import IndexStateError
from orchestrator.stage import Corpus, DocumentVectors, Progress
from orchestrator.types import Call, Vectors

from .edge_filter import edge_filter
from .engine import best, widened
from .exact_scan import Hits, Similarity
from .filter import Filter, ids_as_payload
from .one_process import Lease, open_once
from .options import Options
from .payload import payload_of, warn_of_hidden

if TYPE_CHECKING:
    import qdrant_edge as edge
    from qdrant_edge import EdgeShard

EDGE_CONFIG = "shard/edge_config.json"
"""Edge writes it anew at each load."""

_BATCH = 1024


class ShardBuilder:
    """Makes `directory/shard`; a point's id is its row.

    Without a write-ahead log, which takes many times the room of the vectors: the folder becomes visible only when
    it is complete.

    Args:
        corpus: whose documents they are.
        options: the vector's name, whether there is payload, and its indexes.
    """

    def __init__(self, corpus: Corpus, options: Options) -> None:
        self._corpus, self._options = corpus, options
        self._hidden: set[str] = set()

    def build(self, directory: Path, vectors: DocumentVectors, similarity: Similarity, progress: Progress) -> None:
        """Write all points, index their payload, and leave the files as every later load leaves them."""
        import qdrant_edge as edge

        shard = edge.EdgeShard.create(str(directory / "shard"), self._config(vectors.dim, similarity))
        try:
            for field, kind in self._options.payload_indexes.items():
                schema = getattr(edge.PayloadSchemaType, str(kind).capitalize())
                shard.update(edge.UpdateOperation.create_field_index(field, schema))
            for start, block in vectors.blocks(_BATCH):
                shard.update(edge.UpdateOperation.upsert_points(self._points(start, block)))
                progress("insert", start + len(block), len(vectors))
            shard.flush()
        finally:
            shard.close()
        # The first load replays a journal and removes it (0.9.0); after it the files stay as they are.
        _load_shard(directory, len(vectors)).close()

    def _config(self, dim: int, similarity: Similarity) -> edge.EdgeConfig:
        import qdrant_edge as edge

        distance = edge.Distance.Cosine if similarity == "cosine" else edge.Distance.Dot
        parameters = edge.EdgeVectorParams(size=dim, distance=distance)
        name = self._options.vector_name
        return edge.EdgeConfig(vectors={name: parameters} if name else parameters, wal_enabled=False)

    def _points(self, start: int, block: Vectors) -> list[edge.Point]:
        import qdrant_edge as edge

        rows = np.arange(start, start + len(block))
        payloads: list[dict[str, object] | None] = [None] * len(block)
        if self._options.payload:
            documents = self._corpus.at(rows)
            warn_of_hidden(documents, self._hidden)
            payloads = [payload_of(document, self._options.payload_text) for document in documents]
        name = self._options.vector_name
        return [
            edge.Point(id=int(row), vector={name: vector} if name else vector, payload=payload)
            for row, vector, payload in zip(rows, block, payloads, strict=True)
        ]


def open_shard(directory: Path, n_points: int, vector_name: str = "", only: Filter | None = None) -> EdgeSearch | None:
    """The shard in `directory`, shared by all that open it in this process; None when another process has it.

    Args:
        directory: of the index.
        n_points: how many it should hold.
        vector_name: of the vectors, where they have one.
        only: search among the points that this filter selects.

    Raises:
        IndexStateError: it is damaged or does not hold `n_points`.
    """
    lease = open_once(directory / "shard", lambda: _load_shard(directory, n_points))
    return None if lease is None else EdgeSearch(lease, n_points, vector_name, only)


class EdgeSearch:
    """Exact search in an open shard. Safe to use from several threads. Made by `open_shard`."""

    def __init__(self, lease: Lease[EdgeShard], n_points: int, vector_name: str, only: Filter | None) -> None:
        self._lease, self._n_points = lease, n_points
        self._using = vector_name or None
        self._filter = None if only is None else edge_filter(ids_as_payload(only))

    def nearest(self, vector: Vectors, top_k: int, call: Call, query_id: str) -> Hits:
        """The `top_k` points nearest to `vector` (float32 [dim]), best first, equal scores by ordinal."""
        return best(widened(lambda limit: self._query(vector, limit), top_k, self._n_points + 1), top_k)

    def close(self) -> None:
        """Let go; the last one that does so closes the shard for this process."""
        self._lease.close()

    def _query(self, vector: Vectors, limit: int) -> tuple[Hits, int]:
        import qdrant_edge as edge

        query = edge.Query.Nearest(vector.tolist(), using=self._using)
        request = edge.QueryRequest(
            query=query, limit=limit, filter=self._filter, with_payload=False, with_vector=False
        )
        hits = [(int(point.id), point.score) for point in self._lease.value.query(request)]
        return hits, len(hits)


def _load_shard(directory: Path, n_points: int) -> EdgeShard:
    import qdrant_edge as edge

    try:
        shard = edge.EdgeShard.load(str(directory / "shard"))
        found = shard.count(edge.CountRequest(exact=True))
    except BaseException as error:
        # A panic inside Edge arrives as PanicException, which is no Exception.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise IndexStateError(f"{directory}: Qdrant Edge cannot open the shard ({error})") from error
    if found != n_points:
        shard.close()
        raise IndexStateError(f"{directory}: the shard holds {found} vectors; expected {n_points}")
    return shard
