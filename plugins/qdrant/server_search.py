"""Searches of a collection on a server: one of ours, or one that somebody else made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from orchestrator.errors import MalformedReplyError, StageError
from orchestrator.stage import Corpus
from orchestrator.types import Call

from .collection import Collection, shown
from .engine import best, widened
from .filter import DOC_ID, Filter, ids_as_payload
from .options import ExistingOptions, Options
from .payload import SINCE, UNTIL
from .points import visible
from .space import Hits, V

if TYPE_CHECKING:
    from qdrant_client import models


def most(top_k: int) -> int:
    """How many points are asked for before ties at the end of a list are taken as they come."""
    return max(1000, 8 * top_k)


class PointQuery(Generic[V]):
    """The points of one collection nearest to a vector.

    Args:
        collection: on a server.
        options: the vector's name and the search parameters.
        fields: payload fields to bring along.
        params: search parameters beside those of the options.
    """

    def __init__(
        self, collection: Collection[V], options: Options, fields: list[str], params: Mapping[str, Any] | None = None
    ) -> None:
        from qdrant_client import models

        self._collection, self._fields = collection, fields
        self._using = options.vector_name or None
        asked = {**(options.search or {}), **(params or {})}
        self._parameters = models.SearchParams.model_validate(asked) if asked else None

    def __call__(self, vector: V, limit: int, only: Filter | None, call: Call) -> list[models.ScoredPoint]:
        """At most `limit` points that `only` selects, best first.

        Raises:
            RemoteError: the server does not answer, or with an error.
            CallCancelledError: nobody waits for the call any more.
        """
        from qdrant_client import models

        found = self._collection.wire.ask(
            "query points",
            lambda client: client.query_points(
                self._collection.name,
                query=self._collection.space.client_query(vector),
                using=self._using,
                query_filter=None if only is None else models.Filter.model_validate(only),
                search_params=self._parameters,
                limit=limit,
                with_payload=self._fields or False,
            ),
            call,
        )
        if not all(math.isfinite(point.score) for point in found.points):
            raise MalformedReplyError(self._collection.wire.server.url, "query points: a score is no finite number")
        return found.points


class ServerSearch(Generic[V]):
    """Searches one generation of a collection of ours. Safe to use from several threads.

    Args:
        collection: on a server.
        generation: the one to look at.
        corpus: whose documents it holds.
        options: filter and search parameters.
    """

    def __init__(self, collection: Collection[V], generation: int, corpus: Corpus, options: Options) -> None:
        self._collection, self._generation, self._corpus = collection, generation, corpus
        fields, alone = [DOC_ID, SINCE, UNTIL], collection.space.generation_params(generation)
        self._ask_alone = PointQuery(collection, options, fields, alone)
        # The first generation is alone in its collection. When an update comes while it is open, and no point of it is
        # among the hits, the new points do count for the IDF of sparse vectors until the index is opened again.
        self._ask = self._ask_alone if generation > 1 else PointQuery(collection, options, fields)
        self._filter = None if options.filter is None else ids_as_payload(options.filter)

    def nearest(self, vector: V, top_k: int, call: Call, query_id: str) -> Hits:
        """The `top_k` documents nearest to `vector`, best first, equal scores by ordinal."""
        return best(widened(lambda limit: self._query(vector, limit, call, query_id), top_k, most(top_k)), top_k)

    def close(self) -> None:
        """Let go of the connections."""
        self._collection.wire.close()

    def _query(self, vector: V, limit: int, call: Call, query_id: str) -> tuple[Hits, int]:
        points = self._ask(vector, limit, self._filter, call)
        if not all(is_visible(point.payload or {}, self._generation) for point in points):
            # An update is under way, or was. Not filtered by generation before: that costs every query a little.
            points = self._ask_alone(vector, limit, self._of_generation(), call)
        ids = [self._doc_id(point) for point in points]
        rows = self._corpus.find(ids).tolist()
        unknown = [doc_id for doc_id, row in zip(ids, rows, strict=True) if row < 0]
        if unknown:
            raise StageError("qdrant", query_id, unknown_ids(self._collection, self._corpus, unknown, len(ids)))
        return [(row, point.score) for row, point in zip(rows, points, strict=True)], len(points)

    def _doc_id(self, point: models.ScoredPoint) -> str:
        doc_id = (point.payload or {}).get(DOC_ID)
        if not isinstance(doc_id, str):
            found = f"query points: point {point.id} of collection '{self._collection.name}' has no payload '{DOC_ID}'"
            raise MalformedReplyError(self._collection.wire.server.url, f"{found}; does somebody else write into it?")
        return doc_id

    def _of_generation(self) -> Filter:
        mine = visible(self._generation)
        return mine if self._filter is None else {"must": [self._filter, mine]}


class ExistingSearch(Generic[V]):
    """Searches a collection that somebody else made. Safe to use from several threads.

    A document with several points, as chunks are, counts once, with its best.

    Args:
        collection: on a server.
        corpus: that holds its documents.
        options: filter and search parameters.
        existing: where the document's id is, and what an unknown one does.
    """

    def __init__(self, collection: Collection[V], corpus: Corpus, options: Options, existing: ExistingOptions) -> None:
        self._collection, self._corpus, self._existing = collection, corpus, existing
        self._ask = PointQuery(collection, options, [existing.id_field] if existing.id_field else [])
        self._filter = options.filter

    def nearest(self, vector: V, top_k: int, call: Call, query_id: str) -> Hits:
        """The `top_k` documents nearest to `vector`, best first, equal scores by ordinal."""
        return best(widened(lambda limit: self._query(vector, limit, call, query_id), top_k, most(top_k)), top_k)

    def close(self) -> None:
        """Let go of the connections."""
        self._collection.wire.close()

    def _query(self, vector: V, limit: int, call: Call, query_id: str) -> tuple[Hits, int]:
        points = self._ask(vector, limit, self._filter, call)
        scores: dict[str, float] = {}
        for point in points:
            scores.setdefault(doc_id_of(point, self._existing, self._collection.where), point.score)
        known = self._corpus.find(list(scores))
        unknown = [doc_id for doc_id, row in zip(scores, known.tolist(), strict=True) if row < 0]
        if unknown and self._existing.on_unknown == "error":
            raise StageError("qdrant", query_id, unknown_ids(self._collection, self._corpus, unknown, len(scores)))
        if unknown:
            call.note(f"left out {len(unknown)} of {len(scores)} hits that the corpus does not hold")
        rows = np.flatnonzero(known >= 0)
        values = list(scores.values())
        return [(int(known[row]), values[row]) for row in rows.tolist()], len(points)


def is_visible(payload: Mapping[str, Any], generation: int) -> bool:
    """Whether a point with this payload belongs to a generation: `visible` without a server."""
    since, until = payload.get(SINCE), payload.get(UNTIL)
    return since is not None and since <= generation and (until is None or until > generation)


def doc_id_of(point: models.ScoredPoint | models.Record, existing: ExistingOptions, where: str) -> str:
    """The document's id of a point in somebody else's collection.

    Raises:
        StageError: its payload has no such field.
    """
    if existing.id_field is None:
        return str(point.id)
    value = payload_value(point.payload or {}, existing.id_field)
    if not isinstance(value, str | int):
        raise StageError("qdrant", None, f"{where}: point {point.id} has no id in payload field '{existing.id_field}'")
    return str(value)


def payload_value(payload: Mapping[str, Any], field: str) -> object:
    """`payload["a"]["b"]` for the field `a.b`, as Qdrant writes paths."""
    value: Any = payload
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def unknown_ids(collection: Collection[V], corpus: Corpus, unknown: list[str], of: int) -> str:
    """Says how many ids a corpus does not hold, and what can be done."""
    found = f"{collection.where}: {len(unknown)} of {of} ids are not in corpus '{corpus.name}': {shown(unknown)}"
    expected = "expected all: the text of a result comes from the corpus"
    return f"{found}; {expected}. Choices: the corpus of the collection, id_field, filter, or on_unknown: skip"
