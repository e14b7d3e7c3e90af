"""Candidates from elsewhere: a TREC run file."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import ConfigError, DataError
from orchestrator.storage import file_digest
from orchestrator.types import Call, Query, Scored, ScoreKind


class SuppliedRecall:
    """The ranking that a TREC run file holds for each query, so that any system's output can be reranked.

    Scores are `1 / rank` in the file's own order of scores: what they meant elsewhere is not known.
    For documents held in memory see `Pipeline.rerank`.

    Args:
        path: lines of `query-id Q0 doc-id rank score tag`.

    Raises:
        ConfigError: there is no such file.
        DataError: a line has too few columns or a score that is no number (at `load()`).
    """

    score_kind: ScoreKind = "rank"

    def __init__(self, path: str) -> None:
        self._path = Path(path).expanduser()
        if not self._path.is_file():
            raise ConfigError("path", f"no file '{path}'; expected a TREC run file")
        self._runs: dict[str, dict[str, float]] | None = None
        self._digest: str | None = None

    @property
    def depends_on(self) -> str | None:
        """Digest of the file. Known after `load()`."""
        return self._digest

    def load(self) -> None:
        """Read the file, once."""
        if self._runs is None:
            self._runs, self._digest = self._read(), file_digest(self._path)

    def retrieve(self, query: Query, top_k: int, call: Call) -> Scored:
        """The first `top_k` of the file's ranking for this query id; empty, and declared, when the file lacks it."""
        self.load()
        scores = (self._runs or {}).get(query.query_id, {})
        if not scores:
            call.note(f"{self._path.name} has no line for query '{query.query_id}'")
        ranked = sorted(scores, key=lambda doc_id: (-scores[doc_id], doc_id))
        return [(doc_id, 1.0 / rank) for rank, doc_id in enumerate(ranked[:top_k], start=1)]

    def _read(self) -> dict[str, dict[str, float]]:
        runs: dict[str, dict[str, float]] = {}
        with self._path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                query_id, doc_id, score = self._parse(line, number)
                run = runs.setdefault(query_id, {})
                if doc_id in run:
                    raise DataError(str(self._path), number, f"document '{doc_id}' twice for query '{query_id}'")
                run[doc_id] = score
        return runs

    def _parse(self, line: str, number: int) -> tuple[str, str, float]:
        columns = line.split()
        if len(columns) != 6:
            expected = "expected 6: query-id Q0 doc-id rank score tag"
            raise DataError(str(self._path), number, f"{len(columns)} columns; {expected}")
        try:
            return columns[0], columns[2], float(columns[4])
        except ValueError:
            raise DataError(str(self._path), number, f"score '{columns[4]}' is no number") from None
