"""Qdrant Edge inside this process: exact, no server."""

from __future__ import annotations

from pathlib import Path

from orchestrator.stage import Corpus, Json, Progress

from .edge_shard import EDGE_CONFIG, ShardBuilder, open_shard
from .engine import Search, Space
from .fallback import scan_instead
from .options import Options

_FORMAT = 1


class EdgeEngine:
    """A shard under the index folder. `hnsw`, `quantization` and `search` do nothing here: the search is exact.

    Args:
        options: how vectors are kept and searched.
    """

    module = "qdrant_edge"
    rewritten_files: tuple[str, ...] = (EDGE_CONFIG,)

    def __init__(self, options: Options) -> None:
        self._options = options

    def settings(self, space: Space) -> dict[str, Json]:
        """Model, dimension and distance, the format of the shard, and its payload where it has one."""
        return {"engine": "qdrant-edge", "format": _FORMAT, **space.settings, **self._options.payload_settings}

    def index(self, space: Space, corpus: Corpus, directory: Path, progress: Progress, anew: bool) -> None:
        """Fill a shard with the corpus's vectors; missing vectors are embedded first."""
        vectors = corpus.vectors(space.embedder, progress)
        ShardBuilder(corpus, self._options).build(directory, vectors, space.similarity, progress)

    def open(self, space: Space, corpus: Corpus, directory: Path) -> Search:
        """Open the shard; where another process has it, prepare to scan the vectors instead."""
        search = open_shard(directory, len(corpus), self._options.vector_name, self._options.filter)
        return search or scan_instead(space, corpus, directory, self._options.filter)

    def verify(self, space: Space, corpus: Corpus, directory: Path) -> str | None:
        """Nothing lies outside the folder."""
        return None
