"""A collection of ours on a Qdrant server or cluster, kept in step with the corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Generic

from orchestrator import storage
from orchestrator.errors import IndexStateError
from orchestrator.stage import Corpus, Json, Progress

from .collection import Collection, shown
from .engine import Search
from .filter import DOC_ID
from .options import Options, ServerOptions
from .payload import CONTENT_HASH
from .server_search import ServerSearch, is_visible
from .space import Space, V
from .sync import BOOKKEEPING, Update, point_hash
from .wire import Wire

_FORMAT = 1
_STATE = "collection.json"


class ServerEngine(Generic[V]):
    """Vectors in a collection on a server; the index folder says which collection, and which generation of it.

    Args:
        server: where.
        options: how vectors are kept and searched.
        collection: its name, or None for one made of corpus, model and vectors.
    """

    module = "qdrant_client"
    is_remote = True
    scans_up_to: int | None = None
    rewritten_files: tuple[str, ...] = ()

    def __init__(self, server: ServerOptions, options: Options, collection: str | None) -> None:
        self._wire, self._options, self._collection = Wire(server), options, collection

    def settings(self, space: Space[V]) -> dict[str, Json]:
        """Which collection, for which vectors, with which payload, graph and quantization. Never the key."""
        options = self._options
        return {
            "engine": "qdrant-server",
            "url": self._wire.server.url,
            "collection": self._collection,
            **self._shape(space),
            "payload_indexes": dict(options.payload_indexes),
            "hnsw": options.hnsw,
            "quantization": options.quantization,
        }

    def index(self, space: Space[V], corpus: Corpus, directory: Path, progress: Progress, anew: bool) -> None:
        """Bring the collection to what the corpus holds, and note its generation in `directory`."""
        collection = self._named(space, corpus)
        state = Update(collection, corpus, self._options).run(anew, progress)
        note = {"collection": collection.name, "made": state.made, "generation": state.generation}
        storage.write_atomic(directory / _STATE, json.dumps(note))

    def open(self, space: Space[V], corpus: Corpus, directory: Path) -> Search[V]:
        """Make ready to search the generation that `directory` notes.

        Raises:
            IndexStateError: the collection is gone, was made anew, or has moved on by more than one generation.
            RemoteError: the server does not answer.
        """
        collection = self._named(space, corpus)
        generation = self._generation(collection, directory)
        found = collection.points.count(generation)
        if found != len(corpus):
            raise IndexStateError(f"{collection.where} shows {found} documents; expected {len(corpus)}")
        return ServerSearch(collection, generation, corpus, self._options)

    def verify(self, space: Space[V], corpus: Corpus, directory: Path) -> str | None:
        """What differs between corpus and collection: every document's hash is compared."""
        collection = self._named(space, corpus)
        generation = self._generation(collection, directory)
        held, identity = _hashes(collection, generation), space.identity(corpus)
        wrong = [
            document.doc_id
            for document in corpus.documents()
            if held.pop(document.doc_id, None) != point_hash(document, identity, self._options)
        ]
        if not wrong and not held:
            return None
        found = f"{len(wrong)} documents are missing or changed, {len(held)} are not in the corpus"
        return f"{collection.where}: {found}: {shown([*wrong, *held])}"

    def _generation(self, collection: Collection[V], directory: Path) -> int:
        try:
            note = json.loads((directory / _STATE).read_text())
            made, generation = str(note["made"]), int(note["generation"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise IndexStateError(f"{directory / _STATE}: cannot be read ({error})") from error
        state = collection.state()
        # The generation before the last is still whole: its points are deleted by the next update.
        if state is None or state.made != made or not generation <= state.generation <= generation + 1:
            found = "is gone" if state is None else f"is at generation {state.generation}, made as {state.made}"
            raise IndexStateError(f"{collection.where} {found}; expected generation {generation}, made as {made}")
        return generation

    def _named(self, space: Space[V], corpus: Corpus) -> Collection[V]:
        # Options that can change in place are no part of the name.
        made_of = f"orchestrator-{corpus.key}-{storage.stable_hash(self._shape(space), 12)}"
        return Collection(self._wire, self._collection or made_of, space, self._options)

    def _shape(self, space: Space[V]) -> dict[str, Json]:
        options = self._options
        return {
            "format": _FORMAT,
            **space.settings,
            "vector_name": options.vector_name,
            "payload_text": options.payload_text,
        }


def _hashes(collection: Collection[V], generation: int) -> dict[str, str]:
    points = (point.payload or {} for point in collection.points.all(BOOKKEEPING))
    return {payload[DOC_ID]: payload[CONTENT_HASH] for payload in points if is_visible(payload, generation)}
