"""Several vectors a document, one a token, compared by MaxSim: late interaction inside Qdrant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orchestrator.rows.token_vectors import KeptTokens, TokenRows, TokenStore
from orchestrator.stage import Corpus, EmbedTokens, Json, Progress, no_progress
from orchestrator.types import Vectors

from ..late_interaction.maxsim import maxsim
from .dense import dense_vectors
from .space import Hits, called, named

if TYPE_CHECKING:
    import qdrant_edge as edge
    from qdrant_client import models

_BLOCK = 256


class MultiSpace:
    """A `Space` of token vectors, float32 [n_tokens, dim], each of length 1 but for those of weighed queries.

    Qdrant holds them in float32, also where they are kept in int8. Its score is the sum over the query's tokens.

    Args:
        encoder: the model that makes them.
        store: gives the store that keeps them, for a corpus.
        dim: length of the kept vectors.
        equal: whether queries come unweighed, so that a collection may as well compare by cosine.
    """

    # A document of 256 tokens and 384 dimensions is 2 MB of JSON; a server takes 32 MB.
    batch = 8

    def __init__(
        self, encoder: EmbedTokens, store: Callable[[Corpus], TokenStore], dim: int, precision: str, equal: bool
    ) -> None:
        self._encoder, self._store, self._dim, self._precision = encoder, store, dim, precision
        self._distances = ("Dot", "Cosine") if equal else ("Dot",)

    @property
    def model_id(self) -> str:
        """Of the encoder."""
        return self._encoder.model_id

    @property
    def settings(self) -> dict[str, Json]:
        """Model, dimension and comparison."""
        kept: dict[str, Json] = {"dim": self._dim, "precision": self._precision}
        return {"model_id": self.model_id, **kept, "comparator": "max_sim"}

    def vectors(self, corpus: Corpus, progress: Progress = no_progress) -> CorpusTokens:
        """As they are kept, in float32."""
        store = self._store(corpus)
        return CorpusTokens(store.ensure(corpus, self._encoder, progress))

    def identity(self, corpus: Corpus) -> str:
        """The model, what is kept of its vectors, and for a lower dimension how it is fitted to the corpus."""
        fitted = f", fitted to {corpus.key}, {self._store(corpus).axes_id}" if self._dim != self._encoder.dim else ""
        return f"{self.model_id}, {self._precision}, {self._dim}{fitted}"

    def scan(self, corpus: Corpus) -> TokenScan:
        """Compares the query with every document."""
        return TokenScan(self.vectors(corpus))

    def rescorer(self, corpus: Corpus) -> Callable[[Vectors, Hits], Hits]:
        """Compares again with each hit alone."""
        scan = self.scan(corpus)
        return lambda vector, hits: scan.scored(vector, [ordinal for ordinal, _ in hits])

    def edge_config(self, name: str) -> edge.EdgeConfig:
        """Any number of vectors a point."""
        import qdrant_edge as edge

        comparator = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
        parameters = edge.EdgeVectorParams(size=self._dim, distance=edge.Distance.Dot, multivector_config=comparator)
        return edge.EdgeConfig(vectors=named(parameters, name), wal_enabled=False)

    def edge_vector(self, vector: Vectors, name: str) -> Any:
        """As it is."""
        return named(vector, name)

    def edge_query(self, vector: Vectors) -> Any:
        """Lists."""
        return vector.tolist()

    def client_config(self, name: str) -> dict[str, Any]:
        """Size, dot product and MaxSim."""
        from qdrant_client import models

        comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        parameters = models.VectorParams(size=self._dim, distance=models.Distance.DOT, multivector_config=comparator)
        return {"vectors_config": named(parameters, name)}

    def client_vector(self, vector: Vectors, name: str) -> Any:
        """Lists."""
        return named(vector.tolist(), name)

    def client_query(self, vector: Vectors) -> Any:
        """Lists."""
        return vector.tolist()

    def generation_params(self, generation: int) -> dict[str, Any]:
        """None."""
        return {}

    def unfit(self, params: models.CollectionParams, name: str) -> str | None:
        """One vector a point, or another size, distance or name."""
        mine = dense_vectors(params).get(name)
        alike = mine is not None and mine.size == self._dim and mine.distance.value in self._distances
        if alike and mine is not None and mine.multivector_config:
            return None
        return f"expected {called(name)} of {self._dim}, {' or '.join(self._distances)}, several a point"


class CorpusTokens:
    """The token vectors of one corpus in corpus order.

    Args:
        tokens: of each document.
    """

    def __init__(self, tokens: TokenRows) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def blocks(self, size: int) -> Iterator[tuple[int, list[Vectors]]]:
        """(ordinal of the first, at most `size` documents' float32 [n_tokens, dim]) over the whole corpus."""
        for start in range(0, len(self), size):
            yield start, self.rows(np.arange(start, min(start + size, len(self)), dtype=np.int64))

    def rows(self, ordinals: npt.NDArray[np.int64]) -> list[Vectors]:
        """float32 [n_tokens, dim] of each document, in the order of `ordinals`."""
        kept = self.kept(ordinals)
        vectors = kept.vectors.astype(np.float32)
        if kept.scales is not None:
            vectors *= kept.scales[:, None]
        return np.split(vectors, np.cumsum(kept.lengths)[:-1])

    def kept(self, ordinals: npt.NDArray[np.int64]) -> KeptTokens:
        """The same as they are kept."""
        return self._tokens.take(ordinals)


class TokenScan:
    """Exact search by comparing the query with every document. Safe to use from several threads.

    Args:
        tokens: of the corpus.
    """

    def __init__(self, tokens: CorpusTokens) -> None:
        self._tokens = tokens

    def nearest(self, vector: Vectors, top_k: int) -> Hits:
        """The `top_k` documents with the greatest sums of products."""
        hits: Hits = []
        for start in range(0, len(self._tokens), _BLOCK):
            hits += self.scored(vector, list(range(start, min(start + _BLOCK, len(self._tokens)))))
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:top_k]

    def scored(self, vector: Vectors, ordinals: list[int]) -> Hits:
        """Each of `ordinals` with its score."""
        if not ordinals:
            return []
        kept = self._tokens.kept(np.array(ordinals, dtype=np.int64))
        # The mean over the query's tokens, times their number.
        scores = maxsim(vector, np.ones(len(vector), dtype=np.float32), kept) * np.float32(len(vector))
        return list(zip(ordinals, scores.tolist(), strict=True))
