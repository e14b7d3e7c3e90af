"""qdrant-client's own local mode, under the index folder: exact, in Python, for small corpora and for comparing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Generic

import numpy as np

from orchestrator.errors import IndexStateError
from orchestrator.stage import Corpus, Json, Progress
from orchestrator.types import Call, Document

from .engine import Search, best, widened
from .exact_scan import MARGIN
from .fallback import scan_instead
from .filter import ids_as_payload
from .one_process import Lease, open_once
from .options import Options
from .payload import payload_of, warn_of_hidden
from .space import Hits, Rows, Space, V

if TYPE_CHECKING:
    from qdrant_client import models
    from qdrant_client.local.qdrant_local import QdrantLocal

_FORMAT = 1
_FOLDER, _COLLECTION = "local", "documents"
_BATCH = 256


class LocalEngine(Generic[V]):
    """A collection of qdrant-client's local mode in the index folder.

    Local mode compares with every vector and reads every payload: `hnsw`, `quantization`, `search` and the payload
    indexes change nothing.

    Args:
        options: how vectors are kept and searched.
    """

    module = "qdrant_client"
    is_remote = False
    scans_up_to: int | None = 20_000  # qdrant-client itself warns above that
    rewritten_files: tuple[str, ...] = (f"{_FOLDER}/.lock",)

    def __init__(self, options: Options) -> None:
        self._options = options

    def settings(self, space: Space[V]) -> dict[str, Json]:
        """Model and kind of vectors, the format, and the payload where there is one."""
        return {"engine": "qdrant-local", "format": _FORMAT, **space.settings, **self._options.payload_settings}

    def index(self, space: Space[V], corpus: Corpus, directory: Path, progress: Progress, anew: bool) -> None:
        """Fill a collection with the corpus's vectors; missing vectors are computed first. A point's id is its row."""
        vectors = space.vectors(corpus, progress)
        hidden = set[str]()
        client = _client(directory)
        try:
            client.create_collection(_COLLECTION, **space.client_config(self._options.vector_name))
            _do_without_journal(client)
            for start, block in vectors.blocks(min(_BATCH, space.batch)):
                documents = corpus.at(np.arange(start, start + len(block))) if self._options.payload else None
                warn_of_hidden(documents or (), hidden)
                client.upsert(_COLLECTION, self._points(space, start, block, documents))
                progress("insert", start + len(block), len(vectors))
        finally:
            client.close()

    def _points(
        self, space: Space[V], start: int, block: Rows[V], documents: list[Document] | None
    ) -> list[models.PointStruct]:
        from qdrant_client import models

        name = self._options.vector_name
        payloads = [payload_of(document, self._options.payload_text) for document in documents or ()]
        return [
            models.PointStruct(
                id=start + row,
                vector=space.client_vector(vector, name),
                payload=payloads[row] if payloads else None,
            )
            for row, vector in enumerate(block)
        ]

    def open(self, space: Space[V], corpus: Corpus, directory: Path) -> Search[V]:
        """Open the collection; where another process has it, prepare to scan the vectors instead."""
        lease = open_once(directory / _FOLDER, lambda: _load(directory, len(corpus)))
        if lease is None:
            return scan_instead(space, corpus, directory, self._options.filter)
        return LocalSearch(lease, space, corpus, self._options)

    def verify(self, space: Space[V], corpus: Corpus, directory: Path) -> str | None:
        """Nothing lies outside the folder."""
        return None


class LocalSearch(Generic[V]):
    """Exact search in a collection of local mode. Safe to use from several threads.

    The same query gets scores from local mode that differ in their last digits from call to call (1.20); those of the
    hits are computed again from the corpus's vectors where that is so.
    """

    def __init__(self, lease: Lease[QdrantLocal], space: Space[V], corpus: Corpus, options: Options) -> None:
        from qdrant_client import models

        self._lease, self._space, self._n_points = lease, space, len(corpus)
        self._rescored = space.rescorer(corpus)
        self._using = options.vector_name or None
        only = options.filter
        self._filter = None if only is None else models.Filter.model_validate(ids_as_payload(only))

    def nearest(self, vector: V, top_k: int, call: Call, query_id: str) -> Hits:
        """The `top_k` points nearest to `vector`, best first, equal scores by ordinal."""
        hits = widened(lambda limit: self._query(vector, limit), top_k, self._n_points + 1, MARGIN)
        return best(self._rescored(vector, hits), top_k)

    def close(self) -> None:
        """Let go; the last one that does so closes the collection for this process."""
        self._lease.close()

    def _query(self, vector: V, limit: int) -> tuple[Hits, int]:
        from qdrant_client import models

        found = self._lease.value.query_points(
            _COLLECTION,
            query=models.NearestQuery(nearest=self._space.client_query(vector)),
            using=self._using,
            query_filter=self._filter,
            limit=limit,
            with_payload=False,
        )
        hits = [(int(point.id), point.score) for point in found.points]
        return hits, len(hits)


def _client(directory: Path) -> QdrantLocal:
    from qdrant_client.local.qdrant_local import QdrantLocal

    # Queries come from whichever thread asks; sqlite is touched only while the collection is filled and loaded.
    return QdrantLocal(location=str(directory / _FOLDER), force_disable_check_same_thread=True)


def _do_without_journal(client: QdrantLocal) -> None:
    """Let local mode, which commits each point, not wait for the disk: the folder becomes visible only when synced."""
    storage = client.collections[_COLLECTION].storage
    if storage is not None:
        storage.storage.executescript("PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF")


def _load(directory: Path, n_points: int) -> QdrantLocal:
    try:
        client = _client(directory)
        found = client.count(_COLLECTION).count if client.collection_exists(_COLLECTION) else 0
    except Exception as error:
        raise IndexStateError(f"{directory}: qdrant-client cannot open the collection ({error})") from error
    if found != n_points:
        client.close()
        raise IndexStateError(f"{directory}: the collection holds {found} vectors; expected {n_points}")
    return client
