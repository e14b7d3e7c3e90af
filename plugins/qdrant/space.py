"""What kind of vectors an index holds: dense, sparse, or several a document. All that engines need to know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from orchestrator.stage import Corpus, Json, Progress, no_progress

if TYPE_CHECKING:
    import qdrant_edge as edge
    from qdrant_client import models

Hits: TypeAlias = list[tuple[int, float]]
"""(ordinal, score), best first, equal scores by ordinal."""

V = TypeVar("V")
_Out = TypeVar("_Out", covariant=True)
_In = TypeVar("_In", contravariant=True)


class Rows(Protocol[_Out]):
    """A few vectors, one a document."""

    def __len__(self) -> int:
        """How many."""

    def __iter__(self) -> Iterator[_Out]:
        """One after another."""


class Held(Protocol[_Out]):
    """The vectors of one corpus, memory-mapped, in corpus order."""

    def __len__(self) -> int:
        """How many documents."""

    def blocks(self, size: int) -> Iterator[tuple[int, Rows[_Out]]]:
        """(ordinal of the first, at most `size` vectors) over the whole corpus."""

    def rows(self, ordinals: npt.NDArray[np.int64]) -> Rows[_Out]:
        """The vectors in the order of `ordinals`."""


class Scan(Protocol[_In]):
    """Searches a corpus's vectors without an index."""

    def nearest(self, vector: _In, top_k: int) -> Hits:
        """The `top_k` documents nearest to `vector`."""


class Space(Protocol[V]):
    """What vectors an index holds, and how each engine writes them and is asked for them.

    Known once the model is loaded. `V` is one document's or query's vector. A `name` is that of the vectors in a
    collection; "" is the unnamed one.

    Attributes:
        batch: so many points go into one request at most.
    """

    batch: int

    @property
    def model_id(self) -> str:
        """Of the model that makes the vectors."""

    @property
    def settings(self) -> dict[str, Json]:
        """What shapes every engine's index: the model, and how its vectors are compared."""

    def vectors(self, corpus: Corpus, progress: Progress = no_progress) -> Held[V]:
        """The vectors of `corpus`; missing ones are computed and kept first."""

    def identity(self, corpus: Corpus) -> str:
        """Changes when the vectors of equal texts would: the model, and what the corpus as a whole adds to it."""

    def scan(self, corpus: Corpus) -> Scan[V]:
        """An exact search over the vectors of `corpus`."""

    def rescorer(self, corpus: Corpus) -> Callable[[V, Hits], Hits]:
        """Gives hits scores that do not change from call to call, for an engine whose scores do."""

    def edge_config(self, name: str) -> edge.EdgeConfig:
        """A shard for these vectors, without a write-ahead log."""

    def edge_vector(self, vector: V, name: str) -> Any:
        """The vector of a point."""

    def edge_query(self, vector: V) -> Any:
        """What a shard is asked for."""

    def client_config(self, name: str) -> dict[str, Any]:
        """Arguments of qdrant-client's `create_collection`."""

    def client_vector(self, vector: V, name: str) -> Any:
        """The vector of a point."""

    def client_query(self, vector: V) -> Any:
        """What a collection is asked for."""

    def generation_params(self, generation: int) -> dict[str, Any]:
        """Search parameters by which other generations of a collection of ours do not change a score."""

    def unfit(self, params: models.CollectionParams, name: str) -> str | None:
        """What was expected of a collection that does not hold such vectors; None when it does."""


def named(vector: Any, name: str) -> Any:
    """A point's only vector, as Qdrant takes it."""
    return {name: vector} if name else vector


def called(name: str) -> str:
    """How messages call it."""
    return f"vector '{name}'" if name else "an unnamed vector"
