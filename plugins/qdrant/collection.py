"""A collection of ours on a server: made, checked, and its state, which stands in the collection's own metadata."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

from orchestrator.errors import IndexStateError
from orchestrator.stage import Corpus

from .dense import dense_vectors
from .filter import DOC_ID
from .options import Options
from .payload import SINCE, UNTIL
from .points import Points
from .space import Space, V, called
from .wire import Wire

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient, models

_METADATA = "rerank_orchestrator"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class State:
    """What a collection of ours is.

    Attributes:
        made: drawn at random when it was made: another one of the same name is another collection.
        model_id: of the embedder whose vectors it holds.
        corpus: name of the corpus whose documents they are.
        generation: the last one that is complete; 0 before the first.
        format: of the payload.
    """

    made: str
    model_id: str
    corpus: str
    generation: int = 0
    format: int = _FORMAT


class Collection(Generic[V]):
    """One collection by name, ours or somebody else's.

    Args:
        wire: the server.
        name: of the collection.
        space: whose vectors it holds.
        options: the vector's name, payload indexes, graph and quantization.
    """

    def __init__(self, wire: Wire, name: str, space: Space[V], options: Options) -> None:
        self.wire, self.name, self.space, self._options = wire, name, space, options
        self.points = Points(wire, name)
        self.where = f"{wire.server.url}: collection '{name}'"

    def checked(self) -> models.CollectionInfo:
        """What the server says about the collection.

        Raises:
            IndexStateError: there is none, or its vectors are not the embedder's; says what was found and expected.
        """
        if not self.exists():
            raise IndexStateError(f"{self.where} does not exist; collections: {self._others()}")
        info = self.wire.ask("get collection", lambda client: client.get_collection(self.name))
        self._refuse_other_vectors(info)
        return info

    def exists(self) -> bool:
        """Whether the server has a collection, or an alias, of this name."""
        return self.wire.ask("look for the collection", lambda client: client.collection_exists(self.name))

    def state(self) -> State | None:
        """The state; None when there is no collection, or none that we made.

        Raises:
            IndexStateError: its vectors are not the embedder's.
        """
        return _state(self.checked()) if self.exists() else None

    def make(self, corpus: Corpus) -> State:
        """The state of the collection, which is made where there is none, and given what it lacks.

        Raises:
            IndexStateError: there is one that is not ours, or of another model, size, distance or vector name.
        """
        was_there = self.exists()
        if not was_there:
            self._create(corpus)
        info = self.checked()
        state = _state(info)
        if state is None:
            found = f"{self.where} ({info.points_count} points) has no state of ours: somebody else made it, or another"
            found += " version of this program, or its server is older than 1.16 and keeps no metadata"
            raise IndexStateError(f"{found}. Choices: `existing: true` to search it as it is, or another `collection`")
        if was_there:
            self._tune()
        self._index_payload(info)
        return state

    def record(self, state: State) -> None:
        """Write the state down, and read it back: a server before 1.16 keeps no metadata."""
        told: dict[str, Any] = {_METADATA: asdict(state)}
        self.wire.ask("record state", lambda client: client.update_collection(self.name, metadata=told))
        info = self.wire.ask("read state", lambda client: client.get_collection(self.name))
        if _state(info) != state:
            raise IndexStateError(f"{self.where} did not keep its state; expected a Qdrant server of 1.16 or later")

    def _create(self, corpus: Corpus) -> None:
        state = State(secrets.token_hex(8), self.space.model_id, corpus.name)
        # Once: had a lost answer made it, the second attempt would fail. The next build finds it.
        self.wire.ask_once(
            "create collection",
            lambda client: client.create_collection(
                self.name,
                **self.space.client_config(self._options.vector_name),
                metadata={_METADATA: asdict(state)},
                **self._tuning(),
            ),
        )

    def _tune(self) -> None:
        """Give a collection that is there the graph and quantization asked for; equal ones change nothing."""
        tuning = self._tuning()
        if tuning:
            self.wire.ask("update collection", lambda client: client.update_collection(self.name, **tuning))

    def _tuning(self) -> dict[str, Any]:
        from pydantic import TypeAdapter
        from qdrant_client import models

        tuning: dict[str, Any] = {}
        if self._options.hnsw is not None:
            tuning["hnsw_config"] = models.HnswConfigDiff.model_validate(self._options.hnsw)
        if self._options.quantization is not None:
            kind: TypeAdapter[Any] = TypeAdapter(models.QuantizationConfig)
            tuning["quantization_config"] = kind.validate_python(self._options.quantization)
        return tuning

    def _index_payload(self, info: models.CollectionInfo) -> None:
        """Payload indexes before the points: only then does the graph get links for filtered search."""
        from qdrant_client import models

        wanted = {DOC_ID: "keyword", SINCE: "integer", UNTIL: "integer", **self._options.payload_indexes}
        for field in sorted(wanted.keys() - info.payload_schema.keys()):
            kind = models.PayloadSchemaType(wanted[field])
            send = partial(_index_field, collection=self.name, field=field, kind=kind)
            self.wire.ask(f"index payload field '{field}'", send)

    def _refuse_other_vectors(self, info: models.CollectionInfo) -> None:
        params = info.config.params
        expected = self.space.unfit(params, self._options.vector_name)
        if expected is not None:
            raise IndexStateError(
                f"{self.where} has {_held(params)}; {expected}. Choices: vector_name, collection, the embedder"
            )

    def _others(self) -> str:
        held = self.wire.ask("list collections", lambda client: client.get_collections()).collections
        return ", ".join(sorted(description.name for description in held)[:20]) or "none"


async def _index_field(
    client: AsyncQdrantClient, collection: str, field: str, kind: models.PayloadSchemaType
) -> object:
    return await client.create_payload_index(collection, field, kind, wait=True)


def _state(info: models.CollectionInfo) -> State | None:
    told: Any = (info.config.metadata or {}).get(_METADATA)
    try:
        state = State(**told)
    except TypeError:
        return None
    return state if state.format == _FORMAT else None


def _held(params: models.CollectionParams) -> str:
    """What a collection has, for messages."""
    dense = [f"{called(name)} {_described(one)}" for name, one in dense_vectors(params).items()]
    sparse = [
        f"sparse vector '{name}' with modifier {one.modifier.value if one.modifier else 'none'}"
        for name, one in (params.sparse_vectors or {}).items()
    ]
    return ", ".join(dense + sparse) or "no vectors"


def _described(params: models.VectorParams) -> str:
    return f"of {params.size}, {params.distance.value}" + (", several a point" if params.multivector_config else "")


def shown(names: list[str], most: int = 3) -> str:
    """`'a', 'b', 'c', ...`: the first of many names."""
    return ", ".join(f"'{name}'" for name in names[:most]) + (", ..." if len(names) > most else "")
