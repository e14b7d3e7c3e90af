"""Qdrant Edge shards: built from memory-mapped vectors, opened once a process, searched exactly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Generic

import numpy as np

from orchestrator.errors import IndexStateError
from orchestrator.stage import Corpus, Progress
from orchestrator.types import Call

from .edge_filter import edge_filter
from .engine import best, widened
from .filter import Filter, ids_as_payload
from .one_process import Lease, open_once
from .options import Options
from .payload import payload_of, warn_of_hidden
from .space import Hits, Rows, Space, V

if TYPE_CHECKING:
    import qdrant_edge as edge
    from qdrant_edge import EdgeShard

EDGE_CONFIG = "shard/edge_config.json"
"""Edge writes it anew at each load."""


class ShardBuilder(Generic[V]):
    """Makes `directory/shard`; a point's id is its row.

    Without a write-ahead log, which takes many times the room of the vectors: the folder becomes visible only when
    it is complete.

    Args:
        space: whose vectors.
        corpus: whose documents they are.
        options: the vector's name, whether there is payload, and its indexes.
    """

    def __init__(self, space: Space[V], corpus: Corpus, options: Options) -> None:
        self._space, self._corpus, self._options = space, corpus, options
        self._hidden: set[str] = set()

    def build(self, directory: Path, progress: Progress) -> None:
        """Write all points, index their payload, and leave the files as every later load leaves them."""
        import qdrant_edge as edge

        vectors = self._space.vectors(self._corpus, progress)
        shard = edge.EdgeShard.create(str(directory / "shard"), self._space.edge_config(self._options.vector_name))
        try:
            for field, kind in self._options.payload_indexes.items():
                schema = getattr(edge.PayloadSchemaType, str(kind).capitalize())
                shard.update(edge.UpdateOperation.create_field_index(field, schema))
            for start, block in vectors.blocks(self._space.batch):
                shard.update(edge.UpdateOperation.upsert_points(self._points(start, block)))
                progress("insert", start + len(block), len(vectors))
            shard.flush()
        finally:
            shard.close()
        # The first load replays a journal and removes it (0.9.0); after it the files stay as they are.
        _load_shard(directory, len(vectors)).close()

    def _points(self, start: int, block: Rows[V]) -> list[edge.Point]:
        import qdrant_edge as edge

        rows = np.arange(start, start + len(block))
        payloads: list[dict[str, object] | None] = [None] * len(block)
        if self._options.payload:
            documents = self._corpus.at(rows)
            warn_of_hidden(documents, self._hidden)
            payloads = [payload_of(document, self._options.payload_text) for document in documents]
        name = self._options.vector_name
        return [
            edge.Point(id=int(row), vector=self._space.edge_vector(vector, name), payload=payload)
            for row, vector, payload in zip(rows, block, payloads, strict=True)
        ]


def open_shard(
    space: Space[V], directory: Path, n_points: int, vector_name: str = "", only: Filter | None = None
) -> EdgeSearch[V] | None:
    """The shard in `directory`, shared by all that open it in this process; None when another process has it.

    Args:
        space: whose vectors it holds.
        directory: of the index.
        n_points: how many it should hold.
        vector_name: of the vectors, where they have one.
        only: search among the points that this filter selects.

    Raises:
        IndexStateError: it is damaged or does not hold `n_points`.
    """
    lease = open_once(directory / "shard", lambda: _load_shard(directory, n_points))
    return None if lease is None else EdgeSearch(space, lease, n_points, vector_name, only)


class EdgeSearch(Generic[V]):
    """Exact search in an open shard. Safe to use from several threads. Made by `open_shard`."""

    def __init__(
        self, space: Space[V], lease: Lease[EdgeShard], n_points: int, vector_name: str, only: Filter | None
    ) -> None:
        self._space, self._lease, self._n_points = space, lease, n_points
        self._using = vector_name or None
        self._filter = None if only is None else edge_filter(ids_as_payload(only))

    def nearest(self, vector: V, top_k: int, call: Call, query_id: str) -> Hits:
        """The `top_k` points nearest to `vector`, best first, equal scores by ordinal."""
        return best(widened(lambda limit: self._query(vector, limit), top_k, self._n_points + 1), top_k)

    def close(self) -> None:
        """Let go; the last one that does so closes the shard for this process."""
        self._lease.close()

    def _query(self, vector: V, limit: int) -> tuple[Hits, int]:
        import qdrant_edge as edge

        query = edge.Query.Nearest(self._space.edge_query(vector), using=self._using)
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
