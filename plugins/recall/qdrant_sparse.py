"""Sparse recall: the documents whose weights of terms agree most with the query's, found by Qdrant.

Inside this process by Qdrant Edge or by qdrant-client's local mode, or on a server or cluster: the same YAML, the same
results. What the weights are is the encoder's: BM25, SPLADE, or any `EmbedSparse`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.rows.sparse_vectors import open_sparse
from orchestrator.stage import Corpus, EmbedSparse, Json
from orchestrator.storage import default_root
from orchestrator.types import Call, Need, Query, Scored, ScoreKind, SparseVector

from ..qdrant.options import ExistingOptions, checked_options
from ..qdrant.sparse import SparseSpace
from ..qdrant.stage import QdrantStage, chosen_engine

_VECTOR_NAME = "sparse"


class QdrantSparseRecall(QdrantStage[SparseVector]):
    """Finds the documents with the greatest sparse dot product; exactly, on every engine; ties in corpus order.

    A document that shares no dimension with the query is never returned, whatever `top_k`.

    Args:
        encoder: the model of documents and queries; it says whether Qdrant multiplies by IDF.
        vector_name: of the vectors: Qdrant has no unnamed sparse ones.
        storage_root: where vectors are kept; None is `storage.default_root()`.

    All other arguments are those of `QdrantRecall`.

    Raises:
        ConfigError: a value is wrong, or two do not go together.
    """

    needs: frozenset[Need] = frozenset()

    def __init__(
        self,
        encoder: EmbedSparse,
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
        vector_name: str = _VECTOR_NAME,
        filter: Mapping[str, Json] | None = None,  # noqa: A002 - Qdrant's own word, and the YAML's
        payload_indexes: Mapping[str, str] | None = None,
        payload_text: bool = False,
        storage_root: Path | None = None,
    ) -> None:
        name = vector_name or _VECTOR_NAME
        options = checked_options(name, filter, payload_indexes, payload_text, None, None, None)
        fields = ExistingOptions(id_field, text_field, title_field, on_unknown)
        super().__init__(
            chosen_engine(
                options, engine, url, api_key, prefer_grpc, grpc_port, timeout_s, collection, existing, fields
            ),
            path,
        )
        self.encoder = encoder
        self.filter = filter
        self.score_kind: ScoreKind = encoder.score_kind
        self._root = storage_root if storage_root is not None else default_root()

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the encoder's card; `multilingual` means any, none that it does not say."""
        return tuple(getattr(self.encoder, "languages", ()))

    def load(self) -> None:
        """Load the encoder.

        Raises:
            MissingExtraError: the engine's package is not installed.
        """
        self._refuse_missing_engine()
        self.encoder.load()

    def verify_index(self, corpus: Corpus, directory: Path) -> str | None:
        """What was wrong with the kept vectors, which are computed again, or with a collection on a server."""
        return open_sparse(self._root, self.encoder).verify() or super().verify_index(corpus, directory)

    def retrieve(self, query: Query, top_k: int, call: Call) -> Scored:
        """The at most `top_k` documents with their score, best first.

        Raises:
            IndexStateError: no index is open.
            RemoteError: the server fails.
        """
        self._refuse_closed()
        (vector,) = self.encoder.embed_sparse([query.text], kind="query", call=call)
        return self._nearest(vector, query, top_k, call) if len(vector.indices) else []

    def _space(self) -> SparseSpace:
        return SparseSpace(self.encoder, self._root)
