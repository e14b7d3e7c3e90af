"""Late interaction as recall: every document's token vectors in Qdrant, compared by MaxSim.

Inside this process by Qdrant Edge or by qdrant-client's local mode, or on a server or cluster: the same YAML, the same
results. The token vectors are those that the `late_interaction` rerank keeps: who has both computes them once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np

from orchestrator.checks import check_choice, check_counts_or_null
from orchestrator.errors import ConfigError, IndexStateError
from orchestrator.rows.token_vectors import Precision, TokenStore, open_tokens, projected
from orchestrator.stage import Corpus, EmbedTokens, Json, Progress
from orchestrator.storage import default_root, write_atomic
from orchestrator.types import Call, Need, Query, Scored, ScoreKind, Vectors

from ..late_interaction.token_weights import TokenWeights, Weights
from ..qdrant.multi import MultiSpace
from ..qdrant.options import ExistingOptions, checked_options
from ..qdrant.stage import QdrantStage, chosen_engine

_AXES = "axes"
"""Notes in the index which axes its vectors were reduced by."""
_SCANS_UP_TO = 5000
"""0.7 s a question on one core, by the 0.1 s of 700 documents (benchmarks/qdrant_recall.py)."""


class QdrantMultivectorRecall(QdrantStage[Vectors]):
    """Finds the documents whose tokens answer to the query's; ties in corpus order.

    Scores are those of the `late_interaction` rerank with the same precision, dimension and weights, to 1e-5: means
    over the query's tokens of cosines. Edge and local mode compare with every token of every document: in Edge 700
    documents of some 200 tokens of 384 numbers took 0.1 s on one core, which suits up to a few thousand. A server has
    a graph above `full_scan_threshold`.

    Args:
        encoder: whose token vectors they are.
        query_weights: as for the rerank: `idf`, `equal`, or `auto`. A collection of somebody else's: `equal`.
        precision: of the kept vectors, of which Qdrant gets float32: `int8` keeps a quarter of `float32`.
        dim: of the kept vectors, fitted to a sample of the corpus; None keeps the encoder's own.
        storage_root: where vectors are kept; None is `storage.default_root()`.

    All other arguments are those of `QdrantRecall`.

    Raises:
        ConfigError: a value is wrong, or two do not go together.
    """

    score_kind: ScoreKind = "maxsim"
    needs: frozenset[Need] = frozenset()

    def __init__(
        self,
        encoder: EmbedTokens,
        query_weights: Weights = "auto",
        precision: Precision = "int8",
        dim: int | None = None,
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
        storage_root: Path | None = None,
    ) -> None:
        options = checked_options(vector_name, filter, payload_indexes, payload_text, hnsw, quantization, search)
        fields = ExistingOptions(id_field, text_field, title_field, on_unknown)
        super().__init__(
            chosen_engine(
                options, engine, url, api_key, prefer_grpc, grpc_port, timeout_s, collection, existing, fields
            ),
            path,
        )
        self._weights = TokenWeights("equal" if existing and query_weights == "auto" else query_weights, encoder)
        check_choice("precision", precision, get_args(Precision))
        check_counts_or_null(dim=dim)
        if existing and (self._weights.kind != "equal" or dim is not None):
            name = "dim" if dim is not None else "query_weights"
            raise ConfigError(name, "is fitted to a corpus that we index; for a collection of yours expected null")
        self.encoder = encoder
        self.precision: Precision = precision
        self.dim = dim
        self.filter = filter
        self._existing = existing
        self._root = storage_root if storage_root is not None else default_root()
        self._axes: Vectors | None = None

    @property
    def suits_documents(self) -> int | None:
        """Documents up to which this engine is meant, each token of which it compares; None for a server."""
        return None if super().suits_documents is None else _SCANS_UP_TO

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes of the encoder's card; `multilingual` means any."""
        return tuple(getattr(self.encoder, "languages", ()))

    def load(self) -> None:
        """Load the encoder.

        Raises:
            MissingExtraError: the engine's package is not installed.
            ConfigError: `dim` is more than the encoder's own.
        """
        self._refuse_missing_engine()
        self.encoder.load()
        if self.dim is not None and self.dim > self.encoder.dim:
            raise ConfigError("dim", f"found {self.dim}; the encoder's vectors have {self.encoder.dim}")

    def index(self, corpus: Corpus, directory: Path, progress: Progress) -> None:
        """Fill an index with the corpus's token vectors, and note how many documents hold each token.

        A collection on a server is brought up to date instead: only changed documents are sent.
        """
        super().index(corpus, directory, progress)
        self._note_frequencies(corpus, directory)

    def index_anew(self, corpus: Corpus, directory: Path, progress: Progress) -> None:
        """The same, with every document sent again."""
        super().index_anew(corpus, directory, progress)
        self._note_frequencies(corpus, directory)

    def open(self, corpus: Corpus, directory: Path) -> None:
        """Open the index; where another process has it, prepare to scan the vectors instead.

        Raises:
            IndexStateError: the index is damaged.
            RemoteError: the server does not answer.
            StageError: a filter is asked of an index that another process has open.
        """
        if not self._existing:
            self._weights.read(directory)
            self._refuse_other_axes(self._store(corpus), directory)
            self._axes = self._store(corpus).axes
        super().open(corpus, directory)

    def verify_index(self, corpus: Corpus, directory: Path) -> str | None:
        """What was wrong with the kept vectors, which are computed again, or with a collection on a server."""
        fault = None if self._existing else self._store(corpus).verify()
        return fault or super().verify_index(corpus, directory)

    def retrieve(self, query: Query, top_k: int, call: Call) -> Scored:
        """The at most `top_k` documents with their score in [-1, 1], best first.

        Raises:
            IndexStateError: no index is open.
            RemoteError: the server fails.
        """
        self._refuse_closed()
        assert self._corpus is not None
        (tokens,) = self.encoder.embed_tokens([query.text], kind="query", call=call)
        weights = self._weights.of(tokens, call)
        vectors = projected(tokens.vectors, self._axes)
        # Weights of mean 1, so that the mean of Qdrant's sum is the weighted mean.
        weighed = vectors * (weights / weights.mean(dtype=np.float64)).astype(np.float32)[:, None]
        found = self._nearest(weighed, query, top_k, call)
        return [(doc_id, score / len(weights)) for doc_id, score in found]

    def _space(self) -> MultiSpace:
        equal = self._weights.kind == "equal"
        return MultiSpace(self.encoder, self._store, self.dim or self.encoder.dim, self.precision, equal)

    def _store(self, corpus: Corpus) -> TokenStore:
        dim = self.dim if self.dim != self.encoder.dim else None
        return open_tokens(self._root, self.encoder, self.precision, dim, corpus.key)

    def _note_frequencies(self, corpus: Corpus, directory: Path) -> None:
        if not self._existing:
            store = self._store(corpus)
            frequencies = store.ensure(corpus, self.encoder).document_frequencies()
            TokenWeights.write(directory, frequencies, len(corpus))
            write_atomic(directory / _AXES, store.axes_id)

    def _refuse_other_axes(self, store: TokenStore, directory: Path) -> None:
        """The index holds vectors as they were reduced then; a query that is reduced otherwise would not compare."""
        note = directory / _AXES
        if self.dim is not None and (note.read_text() if note.is_file() else "") != store.axes_id:
            raise IndexStateError(f"{directory}: the axes of dimension {self.dim} are no longer those of the index")
