"""Qdrant Edge inside this process: exact, no server."""

from __future__ import annotations

from pathlib import Path
from typing import Generic

from orchestrator.stage import Corpus, Json, Progress

from .edge_shard import EDGE_CONFIG, ShardBuilder, open_shard
from .engine import Search
from .fallback import scan_instead
from .options import Options
from .space import Space, V

_FORMAT = 1


class EdgeEngine(Generic[V]):
    """A shard under the index folder. `hnsw`, `quantization` and `search` do nothing here: the search is exact.

    Args:
        options: how vectors are kept and searched.
    """

    module = "qdrant_edge"
    is_remote = False
    scans_up_to: int | None = 100_000
    rewritten_files: tuple[str, ...] = (EDGE_CONFIG,)

    def __init__(self, options: Options) -> None:
        self._options = options

    def settings(self, space: Space[V]) -> dict[str, Json]:
        """Model and kind of vectors, the format of the shard, and its payload where it has one."""
        return {"engine": "qdrant-edge", "format": _FORMAT, **space.settings, **self._options.payload_settings}

    def index(self, space: Space[V], corpus: Corpus, directory: Path, progress: Progress, anew: bool) -> None:
        """Fill a shard with the corpus's vectors; missing vectors are computed first."""
        ShardBuilder(space, corpus, self._options).build(directory, progress)

    def open(self, space: Space[V], corpus: Corpus, directory: Path) -> Search[V]:
        """Open the shard; where another process has it, prepare to scan the vectors instead."""
        search = open_shard(space, directory, len(corpus), self._options.vector_name, self._options.filter)
        return search or scan_instead(space, corpus, directory, self._options.filter)

    def verify(self, space: Space[V], corpus: Corpus, directory: Path) -> str | None:
        """Nothing lies outside the folder."""
        return None
