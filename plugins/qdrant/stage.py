"""What all recalls through Qdrant share: an index that is built, opened and searched, whatever its vectors are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, cast

import numpy as np

from orchestrator.errors import IndexStateError, MissingExtraError
from orchestrator.stage import Corpus, Json, Progress, is_remote
from orchestrator.types import Call, Query, Scored

from .edge_engine import EdgeEngine
from .engine import Engine, Search
from .existing_engine import ExistingEngine
from .filter import filtered_fields
from .local_engine import LocalEngine
from .options import ExistingOptions, Options, checked_server, refuse_mixture
from .server_engine import ServerEngine
from .space import Space, V


class QdrantStage(ABC, Generic[V]):
    """The `Indexed` part of a recall; the rest says what its vectors are.

    Args:
        engine: keeps the vectors and searches them.
        path: a folder for the index; None keeps it under the storage root.
    """

    def __init__(self, engine: Engine[V], path: str | None) -> None:
        self._engine = engine
        self.path = path
        self.rewritten_files = engine.rewritten_files
        self._corpus: Corpus | None = None
        self._search: Search[V] | None = None

    @property
    def is_remote(self) -> bool:
        """Whether the vectors are on a server, or made on one."""
        model = getattr(self, "embedder", None) or getattr(self, "encoder", None)
        return self._engine.is_remote or is_remote(model)

    @property
    def optional_modules(self) -> Mapping[str, str]:
        """Module -> extra that installs it, of the engine."""
        return {} if self._engine.module == "qdrant_edge" else {self._engine.module: "qdrant"}

    @property
    def suits_documents(self) -> int | None:
        """Documents up to which this engine is meant; None for a server."""
        return self._engine.scans_up_to

    @property
    def payload_fields(self) -> Mapping[str, str]:
        """Key of this stage -> the payload field that it names; none of a collection that somebody else filled."""
        given = None if isinstance(self._engine, ExistingEngine) else getattr(self, "filter", None)
        return filtered_fields("filter", given)

    @property
    def depends_on(self) -> str:
        """How it searches: where another process has the index open, its vectors are scanned in its place."""
        return type(self._search).__name__

    @abstractmethod
    def _space(self) -> Space[V]:
        """What the vectors are; called after `load()`."""

    def index_settings(self) -> Mapping[str, Json]:
        """The model and how its vectors are compared, and what else shapes the engine's index."""
        return self._engine.settings(self._space())

    def index(self, corpus: Corpus, directory: Path, progress: Progress) -> None:
        """Fill an index with the corpus's vectors; missing vectors are computed first.

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
            RemoteError: the server does not answer.
            StageError: a filter is asked of an index that another process has open.
        """
        self.close()
        self._search = self._engine.open(self._space(), corpus, directory)
        self._corpus = corpus

    def close(self) -> None:
        """Let go of files and connections, so that other processes may open the index."""
        if self._search is not None:
            self._search.close()
        self._search = self._corpus = None

    def _refuse_missing_engine(self) -> None:
        if find_spec(self._engine.module) is None:
            raise MissingExtraError("qdrant", self._engine.module)

    def _refuse_closed(self) -> None:
        if self._search is None:
            raise IndexStateError("Qdrant: no index is open; expected open() before retrieve()")

    def _nearest(self, vector: V, query: Query, top_k: int, call: Call) -> Scored:
        """The `top_k` documents nearest to `vector`, best first."""
        self._refuse_closed()
        assert self._search is not None
        assert self._corpus is not None
        hits = self._search.nearest(vector, top_k, call, query.query_id)
        doc_ids = self._corpus.doc_ids(np.array([ordinal for ordinal, _ in hits], dtype=np.int64))
        return [(doc_id, score) for doc_id, (_, score) in zip(doc_ids, hits, strict=True)]


def chosen_engine(
    options: Options,
    engine: str | None,
    url: str | None,
    api_key: str | None,
    prefer_grpc: bool,
    grpc_port: int,
    timeout_s: float,
    collection: str | None,
    existing: bool,
    fields: ExistingOptions,
) -> Engine[V]:
    """Edge, local mode, a collection of ours on a server, or one that somebody else made.

    Raises:
        ConfigError: a value is wrong, or two do not go together.
    """
    refuse_mixture(engine, url, collection, existing, fields, options)
    if url is None:
        return LocalEngine(options) if engine == "local" else EdgeEngine(options)
    server = checked_server(url, api_key, prefer_grpc, grpc_port, timeout_s)
    if existing:
        return ExistingEngine(server, options, cast(str, collection), fields)
    return ServerEngine(server, options, collection)
