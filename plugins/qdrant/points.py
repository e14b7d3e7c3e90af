"""The points of one collection on a server: read page by page, written in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.stage import Json

from .payload import SINCE, UNTIL
from .wire import Wire

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient, models

_PAGE = 1000


class Points:
    """Reads and writes the points of one collection.

    Args:
        wire: the server.
        name: of the collection.
    """

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire, self._name = wire, name

    def all(self, fields: Sequence[str]) -> Iterator[models.Record]:
        """Every point with these payload fields, without vectors."""
        offset: Any = None

        async def page(client: AsyncQdrantClient) -> tuple[list[models.Record], Any]:
            return await client.scroll(
                self._name, limit=_PAGE, offset=offset, with_payload=list(fields) or False, with_vectors=False
            )

        while True:
            records, offset = self._wire.ask("read points", page)
            yield from records
            if offset is None:
                return

    def count(self, generation: int) -> int:
        """How many points one generation has."""
        from qdrant_client import models

        only = models.Filter.model_validate(visible(generation))
        told = self._wire.ask("count points", lambda client: client.count(self._name, count_filter=only, exact=True))
        return told.count

    def upsert(self, points: list[models.PointStruct]) -> None:
        """Write points; those with an id that is there are replaced."""
        self._wire.ask("upsert", lambda client: client.upsert(self._name, points, wait=True))

    def mark_gone(self, ids: list[Any], generation: int) -> None:
        """Let points belong to no generation from `generation` on."""
        gone = {UNTIL: generation}

        def mark(batch: list[Any]) -> None:
            self._wire.ask(
                "mark replaced points", lambda client: client.set_payload(self._name, gone, points=batch, wait=True)
            )

        _in_batches(ids, mark)

    def delete(self, ids: list[Any]) -> None:
        """Delete points."""
        from qdrant_client import models

        def delete(batch: list[Any]) -> None:
            selector = models.PointIdsList(points=batch)
            self._wire.ask("delete spent points", lambda client: client.delete(self._name, selector, wait=True))

        _in_batches(ids, delete)


def visible(generation: int) -> dict[str, Json]:
    """The filter that selects the points of one generation."""
    return {
        "must": [{"key": SINCE, "range": {"lte": generation}}],
        "must_not": [{"key": UNTIL, "range": {"lte": generation}}],
    }


def _in_batches(ids: list[Any], send: Callable[[list[Any]], None]) -> None:
    for start in range(0, len(ids), _PAGE):
        send(ids[start : start + _PAGE])
