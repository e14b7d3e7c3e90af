"""A collection on a server that somebody else made and fills. Nothing is ever written into it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Generic

import numpy as np

from orchestrator import storage
from orchestrator.errors import IndexStateError, StageError
from orchestrator.stage import Corpus, Json, Progress
from orchestrator.types import Document

from .collection import Collection, shown
from .engine import Search
from .options import ExistingOptions, Options, ServerOptions
from .server_search import ExistingSearch, doc_id_of, payload_value, unknown_ids
from .space import Space, V
from .wire import Wire

if TYPE_CHECKING:
    from qdrant_client import models

_NOTE = "collection.json"
_SAMPLE = 1000


class ExistingEngine(Generic[V]):
    """Searches a collection that is there; the index folder only notes that it was looked at.

    Args:
        server: where.
        options: vector name, filter and search parameters.
        collection: its name.
        existing: where its documents' ids and texts are.
    """

    module = "qdrant_client"
    is_remote = True
    scans_up_to: int | None = None
    rewritten_files: tuple[str, ...] = ()

    def __init__(self, server: ServerOptions, options: Options, collection: str, existing: ExistingOptions) -> None:
        self._wire, self._options, self._existing = Wire(server), options, existing
        self._name = collection

    def settings(self, space: Space[V]) -> dict[str, Json]:
        """Which collection, for which vectors, and where its documents' ids and texts are."""
        return {
            "engine": "qdrant-existing",
            "url": self._wire.server.url,
            "collection": self._name,
            **space.settings,
            "vector_name": self._options.vector_name,
            "fields": [self._existing.id_field, self._existing.text_field, self._existing.title_field],
            "on_unknown": self._existing.on_unknown,
        }

    def index(self, space: Space[V], corpus: Corpus, directory: Path, progress: Progress, anew: bool) -> None:
        """Look whether the collection fits embedder and corpus: its vectors, and its first thousand points.

        Raises:
            IndexStateError: it does not; says what was found and expected.
        """
        collection = self._collection(space)
        collection.checked()
        fault = self._fault(collection, corpus, itertools.islice(self._points(collection), _SAMPLE))
        if fault:
            raise IndexStateError(fault)
        storage.write_atomic(directory / _NOTE, json.dumps({"collection": self._name}))

    def open(self, space: Space[V], corpus: Corpus, directory: Path) -> Search[V]:
        """Make ready to search.

        Raises:
            IndexStateError: the collection is gone, or its vectors are not the embedder's.
            RemoteError: the server does not answer.
        """
        collection = self._collection(space)
        collection.checked()
        return ExistingSearch(collection, corpus, self._options, self._existing)

    def verify(self, space: Space[V], corpus: Corpus, directory: Path) -> str | None:
        """None, where every point of the collection fits the corpus.

        Raises:
            StageError: one does not. It is not ours to mend, so building again would not help.
        """
        collection = self._collection(space)
        fault = self._fault(collection, corpus, self._points(collection))
        if fault:
            raise StageError("qdrant", None, fault)
        return None

    def _collection(self, space: Space[V]) -> Collection[V]:
        return Collection(self._wire, self._name, space, self._options)

    def _points(self, collection: Collection[V]) -> Iterator[models.Record]:
        fields = (self._existing.id_field, self._existing.text_field, self._existing.title_field)
        return collection.points.all([field for field in fields if field])

    def _fault(self, collection: Collection[V], corpus: Corpus, points: Iterator[models.Record]) -> str | None:
        """Ids that the corpus does not hold, or texts that it holds otherwise."""
        unknown: list[str] = []
        differing: list[str] = []
        n_points = 0
        while batch := list(itertools.islice(points, _SAMPLE)):
            n_points += len(batch)
            ids = [doc_id_of(point, self._existing, collection.where) for point in batch]
            rows = corpus.find(ids)
            unknown += [doc_id for doc_id, row in zip(ids, rows.tolist(), strict=True) if row < 0]
            known = np.flatnonzero(rows >= 0)
            documents = corpus.at(rows[known])
            differing += [
                doc.doc_id for doc, row in zip(documents, known, strict=True) if self._differs(batch[row], doc)
            ]
        if unknown and self._existing.on_unknown == "error":
            return unknown_ids(collection, corpus, unknown, n_points)
        if differing:
            some = f"{len(differing)} of {n_points} points hold another text or title than corpus '{corpus.name}'"
            choices = "choices: the corpus that the collection was made of, text_field, title_field"
            return f"{collection.where}: {some}: {shown(differing)}; {choices}"
        return None

    def _differs(self, point: models.Record, document: Document) -> bool:
        payload = point.payload or {}
        pairs = ((self._existing.text_field, document.text), (self._existing.title_field, document.title))
        return any(field is not None and payload_value(payload, field) != expected for field, expected in pairs)
