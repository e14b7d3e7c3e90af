"""A collection of ours brought to what the corpus holds, while everybody goes on seeing the state before.

A point belongs to the generations from its `_since` up to its `_until`. An update writes changed documents as new
points of the next generation, marks the points that they replace, and records the generation as complete: a reader
looks at one generation throughout, and a half-written one is nobody's. Points that the last complete generation did
without are deleted by the update after it: a process still open two updates later misses them. Interrupted anywhere,
the next update finds what is there already and goes on.

Collection aliases would switch as cleanly, but need every vector sent again for one changed document.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from orchestrator.errors import IndexStateError
from orchestrator.log import get_logger
from orchestrator.stage import Corpus, Progress
from orchestrator.types import Document

from .collection import Collection, State
from .filter import DOC_ID
from .options import Options
from .payload import CONTENT_HASH, SINCE, UNTIL, content_hash, payload_of, warn_of_hidden
from .space import Held, Rows, V

if TYPE_CHECKING:
    from qdrant_client import models

log = get_logger()

BOOKKEEPING = [DOC_ID, CONTENT_HASH, SINCE, UNTIL]
_BATCH = 256
_IDS = uuid.UUID("8d1f7c3e-6f0b-4b36-9d53-0a6a54f3a7c1")


@dataclass(slots=True)
class Present:
    """What a collection holds before an update.

    Attributes:
        live: document id -> point id, content hash, generation.
        spent: points that no generation still served has.
        doubled: live points of a document that has a newer one.
    """

    live: dict[str, tuple[Any, str, int]] = field(default_factory=dict)
    spent: list[Any] = field(default_factory=list)
    doubled: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Difference:
    """What an update has to do: ordinals to write, and points to mark as gone."""

    changed: list[int] = field(default_factory=list)
    gone: list[Any] = field(default_factory=list)
    newest: int = 0


class Update(Generic[V]):
    """One update of one collection.

    Args:
        collection: on the server.
        corpus: what the collection should hold.
        options: whether the text is payload.
    """

    def __init__(self, collection: Collection[V], corpus: Corpus, options: Options) -> None:
        self._collection, self._corpus, self._options = collection, corpus, options
        self._space, self._identity = collection.space, ""
        self._hidden: set[str] = set()

    def run(self, anew: bool, progress: Progress) -> State:
        """Make the corpus a complete generation, and return the collection's state.

        Args:
            anew: write every document again, whatever the collection says it holds.
            progress: told ("upload", documents written, documents to write).

        Raises:
            IndexStateError: the collection is not ours, not for these vectors, or somebody else writes into it.
            RemoteError: the server fails; the next update goes on from there.
        """
        vectors = self._space.vectors(self._corpus, progress)
        self._identity = self._space.identity(self._corpus)
        before = self._made(anew)
        state = State(before.made, self._space.model_id, self._corpus.name, before.generation + 1)
        held = self._held(before.generation)
        difference = self._difference(held, state.generation if anew else 0)
        if before.generation >= max(1, difference.newest) and not difference.changed and not difference.gone:
            return before
        points, changed = self._collection.points, difference.changed
        points.delete(held.spent)
        batch = min(_BATCH, self._space.batch)
        for start in range(0, len(changed), batch):
            self._upsert(changed[start : start + batch], vectors, state.generation)
            progress("upload", min(start + batch, len(changed)), len(changed))
        points.mark_gone(difference.gone, state.generation)
        self._refuse_other_count(state.generation)
        self._collection.record(state)
        n_written = len(changed)
        facts = {"written": n_written, "kept": len(self._corpus) - n_written, "replaced_or_gone": len(difference.gone)}
        log.info("qdrant.updated", url=self._collection.wire.server.url, collection=self._collection.name, **facts)
        return state

    def _made(self, anew: bool) -> State:
        """The state of the collection; another model's or corpus's is replaced only on demand."""
        state = self._collection.make(self._corpus)
        found, expected = (state.model_id, state.corpus), (self._space.model_id, self._corpus.name)
        if found != expected and not anew:
            held, mine = (f"corpus '{corpus}' by model '{model}'" for model, corpus in (found, expected))
            choices = "choices: another `collection`, or replace it with 'orchestrate index force=true'"
            raise IndexStateError(f"{self._collection.where} holds {held}; expected {mine}; {choices}")
        return state

    def _held(self, complete: int) -> Present:
        held = Present()
        for point in self._collection.points.all(BOOKKEEPING):
            payload = point.payload or {}
            since, until = payload.get(SINCE), payload.get(UNTIL)
            if since is None:
                continue  # not of our making: no generation shows it
            if until is not None and until <= complete:
                held.spent.append(point.id)
            elif until is None:
                self._keep_newest(held, str(payload[DOC_ID]), (point.id, str(payload[CONTENT_HASH]), since))
        return held

    def _keep_newest(self, held: Present, doc_id: str, point: tuple[Any, str, int]) -> None:
        other = held.live.get(doc_id)
        newer = point if other is None or other[2] < point[2] else other
        held.live[doc_id] = newer
        if other is not None:
            held.doubled.append((point if newer is other else other)[0])

    def _difference(self, held: Present, least: int) -> Difference:
        """What `held` lacks; points from before generation `least` count as lacking."""
        found = Difference(gone=list(held.doubled))
        for ordinal, document in enumerate(self._corpus.documents()):
            point = held.live.pop(document.doc_id, None)
            if point is not None and point[1] == self._hash(document) and point[2] >= least:
                found.newest = max(found.newest, point[2])
                continue
            found.changed.append(ordinal)
            if point is not None:
                found.gone.append(point[0])
        found.gone += [point[0] for point in held.live.values()]
        return found

    def _upsert(self, ordinals: list[int], vectors: Held[V], generation: int) -> None:
        rows = np.array(ordinals, dtype=np.int64)
        documents = self._corpus.at(rows)
        warn_of_hidden(documents, self._hidden)
        self._collection.points.upsert(list(self._points(documents, vectors.rows(rows), generation)))

    def _points(self, documents: Sequence[Document], vectors: Rows[V], generation: int) -> Iterator[models.PointStruct]:
        from qdrant_client import models

        name = self._options.vector_name
        for document, vector in zip(documents, vectors, strict=True):
            content = self._hash(document)
            yield models.PointStruct(
                id=_point_id(generation, document.doc_id, content),
                vector=self._space.client_vector(vector, name),
                payload={
                    **payload_of(document, self._options.payload_text),
                    CONTENT_HASH: content,
                    SINCE: generation,
                },
            )

    def _hash(self, document: Document) -> str:
        return point_hash(document, self._identity, self._options)

    def _refuse_other_count(self, generation: int) -> None:
        found = self._collection.points.count(generation)
        if found != len(self._corpus):
            problem = f"{self._collection.where} holds {found} documents after an update; expected {len(self._corpus)}"
            raise IndexStateError(f"{problem}. Does another process write into it? 'orchestrate index' mends it")


def point_hash(document: Document, identity: str, options: Options) -> str:
    """Changes when the point of a document does: by its content, its vector's identity, or what is payload.

    With the model in that identity: a forced update to another one, cut off, leaves points that no other model's may
    be taken for.
    """
    return content_hash(document, identity, options.payload_text)


def _point_id(generation: int, doc_id: str, content: str) -> str:
    """The same for whoever writes the same, so that repeated and concurrent writes are one."""
    return str(uuid.uuid5(_IDS, f"{generation}\n{content}\n{doc_id}"))
