"""qdrant-client's own local mode, under the index folder: exact, in Python, for small corpora and for comparing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.errors import IndexStateError
from orchestrator.stage import Corpus, Json, Progress
from orchestrator.types import Call, Document, Vectors

from .exact_scan import Hits
from .one_process import Lease, open_once
from .qdrant_engine import Search, Space, settled
from .qdrant_fallback import scan_instead
from .qdrant_filter import ids_as_payload
from .qdrant_options import Options
from .qdrant_payload import payload_of, warn_of_hidden

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models

_FORMAT = 1
_FOLDER, _COLLECTION = "local", "documents"
_BATCH = 256


class LocalEngine:
    """A collection of qdrant-client's local mode in the index folder.

    Local mode compares with every vector and reads every payload: `hnsw`, `quantization`, `search` and the payload
    indexes change nothing.

    Args:
        options: how vectors are kept and searched.
    """

    module = "qdrant_client"
    rewritten_files: tuple[str, ...] = (f"{_FOLDER}/.lock",)

    def __init__(self, options: Options) -> None:
        self._options = options

    def settings(self, space: Space) -> dict[str, Json]:
        """Model, dimension and distance, the format, and the payload where there is one."""
        return {"engine": "qdrant-local", "format": _FORMAT, **space.settings, **self._options.payload_settings}

    def index(self, space: Space, corpus: Corpus, directory: Path, progress: Progress, anew: bool) -> None:
        """Fill a collection with the corpus's vectors; missing vectors are embedded first. A point's id is its row."""
        from qdrant_client import models

        vectors = corpus.vectors(space.embedder, progress)
        parameters = models.VectorParams(size=vectors.dim, distance=models.Distance(space.distance))
        name, hidden = self._options.vector_name, set[str]()
        client = _client(directory)
        try:
            client.create_collection(_COLLECTION, vectors_config={name: parameters} if name else parameters)
            for start, block in vectors.blocks(_BATCH):
                documents = corpus.at(np.arange(start, start + len(block))) if self._options.payload else None
                warn_of_hidden(documents or (), hidden)
                client.upsert(_COLLECTION, self._points(start, block, documents))
                progress("insert", start + len(block), len(vectors))
        finally:
            client.close()

    def _points(self, start: int, block: Vectors, documents: list[Document] | None) -> list[models.PointStruct]:
        from qdrant_client import models

        name = self._options.vector_name
        payloads = [payload_of(document, self._options.payload_text) for document in documents or ()]
        return [
            models.PointStruct(
                id=start + row,
                vector={name: vector} if name else vector,
                payload=payloads[row] if payloads else None,
            )
            for row, vector in enumerate(block.tolist())
        ]

    def open(self, space: Space, corpus: Corpus, directory: Path) -> Search:
        """Open the collection; where another process has it, prepare to scan the vectors instead."""
        lease = open_once(directory / _FOLDER, lambda: _load(directory, len(corpus)))
        if lease is None:
            return scan_instead(space, corpus, directory, self._options.filter)
        return LocalSearch(lease, self._options, len(corpus))

    def verify(self, space: Space, corpus: Corpus, directory: Path) -> str | None:
        """Nothing lies outside the folder."""
        return None


class LocalSearch:
    """Exact search in a collection of local mode. Safe to use from several threads."""

    def __init__(self, lease: Lease[QdrantClient], options: Options, n_points: int) -> None:
        from qdrant_client import models

        self._lease, self._n_points = lease, n_points
        self._using = options.vector_name or None
        only = options.filter
        self._filter = None if only is None else models.Filter.model_validate(ids_as_payload(only))

    def nearest(self, vector: Vectors, top_k: int, call: Call, query_id: str) -> Hits:
        """The `top_k` points nearest to `vector` (float32 [dim]), best first, equal scores by ordinal."""
        return settled(lambda limit: self._query(vector, limit), top_k, self._n_points + 1)

    def close(self) -> None:
        """Let go; the last one that does so closes the collection for this process."""
        self._lease.close()

    def _query(self, vector: Vectors, limit: int) -> tuple[Hits, int]:
        found = self._lease.value.query_points(
            _COLLECTION,
            query=vector.tolist(),
            using=self._using,
            query_filter=self._filter,
            limit=limit,
            with_payload=False,
        )
        hits = [(int(point.id), point.score) for point in found.points]
        return hits, len(hits)


def _client(directory: Path) -> QdrantClient:
    from qdrant_client import QdrantClient

    # Queries come from whichever thread asks; sqlite is touched only while the collection is filled and loaded.
    return QdrantClient(path=str(directory / _FOLDER), force_disable_check_same_thread=True)


def _load(directory: Path, n_points: int) -> QdrantClient:
    try:
        client = _client(directory)
        found = client.count(_COLLECTION).count if client.collection_exists(_COLLECTION) else 0
    except Exception as error:
        raise IndexStateError(f"{directory}: qdrant-client cannot open the collection ({error})") from error
    if found != n_points:
        client.close()
        raise IndexStateError(f"{directory}: the collection holds {found} vectors; expected {n_points}")
    return client
