"""What the Qdrant recall asks of an engine, and the search loop that all engines share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from orchestrator.stage import Corpus, Json, Progress
from orchestrator.types import Call

from .space import Hits, Space, V

_In = TypeVar("_In", contravariant=True)


class Search(Protocol[_In]):
    """An index ready to be searched. Safe to use from several threads."""

    def nearest(self, vector: _In, top_k: int, call: Call, query_id: str) -> Hits:
        """The `top_k` documents nearest to `vector`, best first, equal scores by ordinal."""

    def close(self) -> None:
        """Let go of files and connections."""


class Engine(Protocol[V]):
    """Keeps vectors of one kind and searches them."""

    module: str
    is_remote: bool
    scans_up_to: int | None
    """Documents that it is made to compare one by one with each query; None where it has a graph, or may have."""
    rewritten_files: tuple[str, ...]

    def settings(self, space: Space[V]) -> dict[str, Json]:
        """What shapes the index."""

    def index(self, space: Space[V], corpus: Corpus, directory: Path, progress: Progress, anew: bool) -> None:
        """Build the index; `directory` is empty. `anew`: trust nothing that is there already."""

    def open(self, space: Space[V], corpus: Corpus, directory: Path) -> Search[V]:
        """Make the index in `directory` ready.

        Raises:
            IndexStateError: it is damaged.
        """

    def verify(self, space: Space[V], corpus: Corpus, directory: Path) -> str | None:
        """What is wrong outside `directory`, whose files the core checks; None when nothing is."""


def widened(ask: Callable[[int], tuple[Hits, int]], top_k: int, most: int, margin: float = 0.0) -> Hits:
    """What `ask` finds when it is asked for enough: the `top_k` best, and all that may tie with the last of them.

    Qdrant returns equal scores in an order of its own, and any of them at the end of its list. So ever more are
    asked for until the last score is below the one at `top_k`.

    Args:
        ask: for a limit, the hits that count, best first, and how many came in all.
        top_k: how many are wanted.
        most: the largest limit.
        margin: scores no further apart than this, relative to their size, may be equal.
    """
    limit = top_k + 1
    while True:
        hits, n_found = ask(limit)
        if n_found < limit or limit >= most:
            return hits
        if len(hits) > top_k and hits[-1][1] < hits[top_k - 1][1] - margin * max(1.0, abs(hits[top_k - 1][1])):
            return hits
        limit = min(limit * 2, most)


def best(hits: Hits, top_k: int) -> Hits:
    """The `top_k` best, equal scores by ordinal."""
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:top_k]
