"""What serves while another process has the index open: the same vectors, compared one by one."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import StageError
from orchestrator.stage import Corpus
from orchestrator.types import Call, Vectors

from .engine import Space
from .exact_scan import ExactScan, Hits
from .filter import Filter


def scan_instead(space: Space, corpus: Corpus, directory: Path, only: Filter | None) -> DeclaredScan:
    """An exact scan that says in the trace that it took the index's place.

    Raises:
        StageError: there is a filter, which a scan of vectors cannot apply. No IndexStateError: nothing is damaged.
    """
    if only is not None:
        found = f"another process has the index open ({directory}), and without it a filter cannot be applied"
        raise StageError("qdrant", None, f"{found}; choices: wait for it, drop `filter`, or use a server by `url`")
    scan = ExactScan(corpus.vectors(space.embedder), space.similarity)
    return DeclaredScan(scan, f"vectors scanned exactly: another process has the index open ({directory})")


class DeclaredScan:
    """An exact scan that notes its reason in every call."""

    def __init__(self, scan: ExactScan, note: str) -> None:
        self._scan, self._note = scan, note

    def nearest(self, vector: Vectors, top_k: int, call: Call, query_id: str) -> Hits:
        """The `top_k` rows nearest to `vector` (float32 [dim]), best first, equal scores by ordinal."""
        call.note(self._note)
        return self._scan.nearest(vector, top_k)

    def close(self) -> None:
        """Nothing to let go of."""
