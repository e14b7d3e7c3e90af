"""Dense recall: the document vectors nearest to the query's, found by Qdrant.

Inside this process by Qdrant Edge or by qdrant-client's local mode, or on a server or cluster: the same YAML, the same
results. The memory-mapped vectors of the corpus are the truth, and every index is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np

from orchestrator.errors import ConfigError, IndexStateError, MissingExtraError, StageError
from orchestrator.stage import Corpus, Embed, Json, Progress
from orchestrator.types import Call, Need, Query, Scored, ScoreKind

from ..qdrant.edge_engine import EdgeEngine
from ..qdrant.engine import Engine, Search, Space
from ..qdrant.exact_scan import Similarity
from ..qdrant.existing_engine import ExistingEngine
from ..qdrant.local_engine import LocalEngine
from ..qdrant.options import ExistingOptions, checked_options, checked_server, refuse_mixture
from ..qdrant.server_engine import ServerEngine


class QdrantRecall:
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
        timeout_s: for one request.
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
        refuse_mixture(engine, url, collection, existing, fields, options)
        self._engine: Engine
        if url is None:
            self._engine = LocalEngine(options) if engine == "local" else EdgeEngine(options)
        else:
            server = checked_server(url, api_key, prefer_grpc, grpc_port, timeout_s)
            self._engine = (
                ExistingEngine(server, options, cast(str, collection), fields)
                if existing
                else ServerEngine(server, options, collection)
            )
        self.embedder = embedder
        self.filter = filter
        self.path = path
        self.rewritten_files = self._engine.rewritten_files
        self.score_kind: ScoreKind = "cosine"
        self._corpus: Corpus | None = None
        self._search: Search | None = None

    def load(self) -> None:
        """Load the embedder; from then on `score_kind` is what its vectors are compared by.

        Raises:
            MissingExtraError: the engine's package is not installed.
            ConfigError: the embedder's similarity is neither cosine nor dot.
        """
        if find_spec(self._engine.module) is None:
            raise MissingExtraError("qdrant", self._engine.module)
        self.embedder.load()
        self.score_kind = self._space().similarity

    def index_settings(self) -> Mapping[str, Json]:
        """Model, dimension and distance, and what else shapes the engine's index."""
        return self._engine.settings(self._space())

    def index(self, corpus: Corpus, directory: Path, progress: Progress) -> None:
        """Fill an index with the corpus's vectors; missing vectors are embedded first.

        A collection on a server is brought up to date instead: only changed documents are sent.
        """
        self._engine.index(self._space(), corpus, directory, progress, anew=False)

    def index_anew(self, corpus: Corpus, directory: Path, progress: Progress) -> None:
        """The same, with every document sent again."""
        self._engine.index(self._space(), corpus, directory, progress, anew=True)

    def verify_index(self, corpus: Corpus, directory: Path) -> str | None:
        """What differs between the corpus and a collection on a server; None when nothing does."""
        return self._engine.verify(self._space(), corpus, directory)

    def open(self, corpus: Corpus, directory: Path) -> None:
        """Open the index; where another process has it, prepare to scan the vectors instead.

        Raises:
            IndexStateError: the index is damaged.
            StageError: the server does not answer; or a filter is asked of an index that another process has open.
        """
        self.close()
        self._search = self._engine.open(self._space(), corpus, directory)
        self._corpus = corpus

    def retrieve(self, query: Query, top_k: int, call: Call) -> Scored:
        """The `top_k` nearest documents with their cosine or dot product, best first.

        Raises:
            IndexStateError: no index is open.
            StageError: the query has no vector, or one of another length; or the server fails.
        """
        if self._search is None or self._corpus is None:
            raise IndexStateError("Qdrant: no index is open; expected open() before retrieve()")
        if query.vector is None or query.vector.shape != (self.embedder.dim,):
            found = None if query.vector is None else list(query.vector.shape)
            raise StageError("qdrant", query.query_id, f"query.vector is {found}; expected [{self.embedder.dim}]")
        hits = self._search.nearest(query.vector, top_k, call, query.query_id)
        doc_ids = self._corpus.doc_ids(np.array([ordinal for ordinal, _ in hits], dtype=np.int64))
        return [(doc_id, score) for doc_id, (_, score) in zip(doc_ids, hits, strict=True)]

    def close(self) -> None:
        """Let go of files and connections, so that other processes may open the index."""
        if self._search is not None:
            self._search.close()
        self._search = self._corpus = None

    def _space(self) -> Space:
        found = self.embedder.similarity
        if found not in ("cosine", "dot"):
            raise ConfigError("embedder", f"compares by '{found}'; expected cosine or dot")
        return Space(self.embedder, cast(Similarity, found))
