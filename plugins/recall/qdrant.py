"""Dense recall: the document vectors nearest to the query's, found exactly by Qdrant Edge inside this process.

The memory-mapped vectors of the corpus are the truth, and the shard is an index over them. One process at a time
has the shard open; another one scans the vectors themselves and says so.
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

from .edge_shard import EDGE_CONFIG, EdgeSearch, build_shard, open_shard
from .exact_scan import ExactScan, Similarity

_FORMAT = 1


class QdrantRecall:
    """Finds the documents whose vectors are nearest to the query's. Exact, ties in corpus order.

    Exact search of 100,000 vectors of 384 numbers took 7 to 15 ms on two cores. The graph index of Qdrant Edge
    0.9 would be faster above that, but with its default parameters it missed a fifth of the true neighbours.

    Args:
        embedder: the model of documents and queries; its `similarity` decides between cosine and dot.
        path: a folder for the index; None keeps it under the storage root.
    """

    needs: frozenset[Need] = frozenset({"vectors"})
    rewritten_files = (EDGE_CONFIG,)

    def __init__(self, embedder: Embed, path: str | None = None) -> None:
        self.embedder = embedder
        self.path = path
        self.score_kind: ScoreKind = "cosine"
        self._corpus: Corpus | None = None
        self._search: EdgeSearch | ExactScan | None = None
        self._note = ""

    def load(self) -> None:
        """Load the embedder; from then on `score_kind` is what its vectors are compared by.

        Raises:
            MissingExtraError: qdrant-edge-py is not installed.
            ConfigError: the embedder's similarity is neither cosine nor dot.
        """
        if find_spec("qdrant_edge") is None:
            raise MissingExtraError("qdrant", "qdrant_edge")
        self.embedder.load()
        self.score_kind = self._similarity()

    def index_settings(self) -> Mapping[str, Json]:
        """Model, dimension and distance, and the format of the shard."""
        return {
            "engine": "qdrant-edge",
            "format": _FORMAT,
            "model_id": self.embedder.model_id,
            "dim": self.embedder.dim,
            "distance": self._similarity(),
        }

    def index(self, corpus: Corpus, directory: Path, progress: Progress) -> None:
        """Fill a shard inside `directory` with the corpus's vectors; missing vectors are embedded first."""
        build_shard(directory, corpus.vectors(self.embedder, progress), self._similarity(), progress)

    def open(self, corpus: Corpus, directory: Path) -> None:
        """Open the shard in `directory`; where another process has it, prepare to scan the vectors instead.

        Raises:
            IndexStateError: the shard is damaged.
        """
        self.close()
        self._search = open_shard(directory, len(corpus))
        if self._search is None:
            self._search = ExactScan(corpus.vectors(self.embedder), self._similarity())
            self._note = f"vectors scanned exactly: another process has the index open ({directory})"
        self._corpus = corpus

    def retrieve(self, query: Query, top_k: int, call: Call) -> Scored:
        """The `top_k` nearest documents with their cosine or dot product, best first.

        Raises:
            IndexStateError: no index is open.
            StageError: the query has no vector, or one of another length.
        """
        if self._search is None or self._corpus is None:
            raise IndexStateError("Qdrant: no index is open; expected open() before retrieve()")
        if query.vector is None or query.vector.shape != (self.embedder.dim,):
            found = None if query.vector is None else list(query.vector.shape)
            raise StageError("qdrant", query.query_id, f"query.vector is {found}; expected [{self.embedder.dim}]")
        if self._note:
            call.note(self._note)
        hits = self._search.nearest(query.vector, top_k)
        doc_ids = self._corpus.doc_ids(np.array([ordinal for ordinal, _ in hits], dtype=np.int64))
        return [(doc_id, score) for doc_id, (_, score) in zip(doc_ids, hits, strict=True)]

    def close(self) -> None:
        """Let go of the shard, so that other processes may open it."""
        if self._search is not None:
            self._search.close()
        self._search = self._corpus = None
        self._note = ""

    def _similarity(self) -> Similarity:
        found = self.embedder.similarity
        if found not in ("cosine", "dot"):
            raise ConfigError("embedder", f"compares by '{found}'; expected cosine or dot")
        return cast(Similarity, found)
