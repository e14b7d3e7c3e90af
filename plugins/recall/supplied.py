"""Candidates from elsewhere: a TREC run file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from orchestrator.checks import check_choice
from orchestrator.errors import ConfigError
from orchestrator.storage import file_digest
from orchestrator.trec import read_run
from orchestrator.types import Call, Query, Scored, ScoreKind


class SuppliedRecall:
    """The ranking that a TREC run file holds for each query, so that any system's output can be reranked.

    For documents held in memory see `Pipeline.rerank`.

    Args:
        path: lines of `query-id Q0 doc-id rank score tag`; also as `.gz`.
        score_kind: what the file's scores are, where that is known and a later stage is to use them as such. None:
            scores are `1 / rank` in the file's own order.

    Raises:
        ConfigError: there is no such file, or no such kind of score.
        DataError: a line is wrong (at `load()`).
    """

    def __init__(self, path: str, score_kind: ScoreKind | None = None) -> None:
        self._path = Path(path).expanduser()
        if not self._path.is_file():
            raise ConfigError("path", f"no file '{path}'; expected a TREC run file")
        if score_kind is not None:
            check_choice("score_kind", score_kind, get_args(ScoreKind))
        self._keeps_scores = score_kind is not None
        self.score_kind: ScoreKind = score_kind or "rank"
        self._rankings: Mapping[str, Sequence[tuple[str, float]]] | None = None
        self._digest: str | None = None

    @property
    def depends_on(self) -> str | None:
        """Digest of the file. Known after `load()`."""
        return self._digest

    def load(self) -> None:
        """Read the file, once."""
        if self._rankings is None:
            self._rankings, self._digest = read_run(self._path), file_digest(self._path)

    def retrieve(self, query: Query, top_k: int, call: Call) -> Scored:
        """The first `top_k` of the file's ranking for this query id; empty, and declared, when the file lacks it."""
        self.load()
        found = (self._rankings or {}).get(query.query_id, [])[:top_k]
        if not found:
            call.note(f"{self._path.name} has no line for query '{query.query_id}'")
        if self._keeps_scores:
            return list(found)
        return [(doc_id, 1.0 / rank) for rank, (doc_id, _) in enumerate(found, start=1)]
