"""Dense recall: the document vectors nearest to the query's, found by Qdrant.

Inside this process by Qdrant Edge or by qdrant-client's local mode, or on a server or cluster: the same YAML, the same
results. The memory-mapped vectors of the corpus are the truth, and every index is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from orchestrator.errors import ConfigError, StageError
from orchestrator.stage import Embed, Json
from orchestrator.types import Call, Need, Query, Scored, ScoreKind, Vectors

from ..qdrant.dense import DenseSpace
from ..qdrant.exact_scan import Similarity
from ..qdrant.options import ExistingOptions, checked_options
from ..qdrant.stage import QdrantStage, chosen_engine


class QdrantRecall(QdrantStage[Vectors]):
    """Finds the documents whose vectors are nearest to the query's; ties in corpus order.

    Edge and local search exactly, a server as it is set up. Exact search of 100,000 vectors of 384 numbers in Edge
    took 7 to 15 ms on two cores. Its graph index (0.9) would be faster above that, but with its default parameters it
    missed a fifth of the true neighbours.

    Args:
        embedder: the model of documents and queries; its `similarity` decides between cosine and dot.
        engine: `edge` or `local`, both in this process; None is edge, or the server where there is a `url`.
        path: a folder for the index; None keeps it under the storage root.
        url: of a server or cluster; without a port it is 6333.
        api_key: of the server. Kept out of messages, settings and files.
        prefer_grpc: gRPC in place of REST for points.
        grpc_port: of the server.
        timeout_s: one attempt at one request; two more are made after no answer, 429 or 5xx.
        collection: its name; None makes one of corpus, model and vectors.
        existing: the collection is somebody else's: searched, and never written into.
        id_field: payload field of an existing collection with the document's id; None is the point's id.
        text_field: the same for the text, which is compared with the corpus's; None compares nothing.
        title_field: the same for the title.
        on_unknown: `error` or `skip`: what a hit of an existing collection does that the corpus does not hold.
        vector_name: of the vectors; None is the unnamed one.
        filter: search only documents whose payload it selects, in Qdrant's own shape. `has_id` takes document ids.
        payload_indexes: payload field -> keyword, integer, float, bool, datetime, text, geo or uuid.
        payload_text: write the text too as payload, so that a filter can match it.
        hnsw: `m`, `ef_construct` and others of the graph; for a server.
        quantization: `scalar`, `product` or `binary` with their settings; for a server.
        search: `hnsw_ef`, `exact`, `indexed_only`, `rescore`, `oversampling`, `ignore`; for a server.

    Raises:
        ConfigError: a value is wrong, or two do not go together.
    """

    needs: frozenset[Need] = frozenset({"vectors"})
    score_kinds: tuple[ScoreKind, ...] = ("cosine", "dot")

    def __init__(
        self,
        embedder: Embed,
        engine: str | None = None,
        path: str | None = None,
        url: str | None = None,
        api_key: str | None = None,
        prefer_grpc: bool = False,
        grpc_port: int = 6334,
        timeout_s: float = 10,
        collection: str | None = None,
        existing: bool = False,
        id_field: str | None = None,
        text_field: str | None = None,
        title_field: str | None = None,
        on_unknown: str = "error",
        vector_name: str | None = None,
        filter: Mapping[str, Json] | None = None,  # noqa: A002 - Qdrant's own word, and the YAML's
        payload_indexes: Mapping[str, str] | None = None,
        payload_text: bool = False,
        hnsw: Mapping[str, Json] | None = None,
        quantization: Mapping[str, Json] | None = None,
        search: Mapping[str, Json] | None = None,
    ) -> None:
        options = checked_options(vector_name, filter, payload_indexes, payload_text, hnsw, quantization, search)
        fields = ExistingOptions(id_field, text_field, title_field, on_unknown)
        super().__init__(
            chosen_engine(
                options, engine, url, api_key, prefer_grpc, grpc_port, timeout_s, collection, existing, fields
            ),
            path,
        )
        self.embedder = embedder
        self.filter = filter
        self.score_kind: ScoreKind = "cosine"

    @property
    def cost_kind(self) -> str | None:
        """What its cost is reckoned as; None on a server, whose time nobody can tell from here."""
        return None if self._engine.scans_up_to is None else "dense"

    def load(self) -> None:
        """Load the embedder; from then on `score_kind` is what its vectors are compared by.

        Raises:
            MissingExtraError: the engine's package is not installed.
            ConfigError: the embedder's similarity is neither cosine nor dot.
        """
        self._refuse_missing_engine()
        self.embedder.load()
        self.score_kind = self._space().similarity

    def retrieve(self, query: Query, top_k: int, call: Call) -> Scored:
        """The `top_k` nearest documents with their cosine or dot product, best first.

        Raises:
            IndexStateError: no index is open.
            StageError: the query has no vector, or one of another length.
            RemoteError: the server gave no answer that can be used; transient failures are tried again, twice.
            CallCancelledError: nobody waits for the call any more.
        """
        self._refuse_closed()
        if query.vector is None or query.vector.shape != (self.embedder.dim,):
            found = None if query.vector is None else list(query.vector.shape)
            raise StageError("qdrant", query.query_id, f"query.vector is {found}; expected [{self.embedder.dim}]")
        return self._nearest(query.vector, query, top_k, call)

    def _space(self) -> DenseSpace:
        found = self.embedder.similarity
        if found not in ("cosine", "dot"):
            raise ConfigError("embedder", f"compares by '{found}'; expected cosine or dot")
        return DenseSpace(self.embedder, cast(Similarity, found))
