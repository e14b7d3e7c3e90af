"""What serves while another process has the index open: the same vectors, compared one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Generic

from orchestrator.errors import StageError
from orchestrator.stage import Corpus
from orchestrator.types import Call

from .filter import Filter
from .space import Hits, Scan, Space, V


def scan_instead(space: Space[V], corpus: Corpus, directory: Path, only: Filter | None) -> DeclaredScan[V]:
    """An exact scan that says in the trace that it took the index's place.

    Raises:
        StageError: there is a filter, which a scan of vectors cannot apply. No IndexStateError: nothing is damaged.
    """
    if only is not None:
        found = f"another process has the index open ({directory}), and without it a filter cannot be applied"
        raise StageError("qdrant", None, f"{found}; choices: wait for it, drop `filter`, or use a server by `url`")
    return DeclaredScan(
        space.scan(corpus), f"vectors scanned exactly: another process has the index open ({directory})"
    )


class DeclaredScan(Generic[V]):
    """An exact scan that notes its reason in every call."""

    def __init__(self, scan: Scan[V], note: str) -> None:
        self._scan, self._note = scan, note

    def nearest(self, vector: V, top_k: int, call: Call, query_id: str) -> Hits:
        """The `top_k` documents nearest to `vector`, best first, equal scores by ordinal."""
        call.note(self._note)
        return self._scan.nearest(vector, top_k)

    def close(self) -> None:
        """Nothing to let go of."""
