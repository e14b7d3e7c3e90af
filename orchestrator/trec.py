"""Rankings and judgements as TREC's files have them: what trec_eval, ir-measures and ranx read and write."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from orchestrator.errors import DataError
from orchestrator.lines import BadLineError, BadLines, read_rows
from orchestrator.ranking import surrogate_scores

_SPACE = re.compile(r"\s+")
_COLUMNS = "6 (query, Q0, document, rank, score, tag), separated by white space"

Scored = tuple[str, float]
"""A document's id and its score."""


class _Row(NamedTuple):
    query_id: str
    doc_id: str
    rank: int
    score: float


def trec_lines(query_id: str, doc_ids: Sequence[str], tag: str = "orchestrate") -> str:
    """`query-id Q0 doc-id rank score tag` a line. Scores fall strictly: trec_eval sorts by score, not by rank.

    Columns end at white space, so that in an id becomes %20 and the like, as in a URL.
    """
    scores, query_id = surrogate_scores(len(doc_ids)), one_word(query_id)
    rows = enumerate(zip(map(one_word, doc_ids), scores, strict=True), start=1)
    return "".join(f"{query_id} Q0 {doc_id} {rank} {score:g} {tag}\n" for rank, (doc_id, score) in rows)


def run_text(rankings: Mapping[str, Sequence[str]], tag: str = "orchestrate") -> str:
    """A run file: query id -> ids, best first."""
    return "".join(trec_lines(query_id, doc_ids, tag) for query_id, doc_ids in rankings.items())


def qrels_text(qrels: Mapping[str, Mapping[str, int]]) -> str:
    """A file of judgements, `query-id 0 doc-id grade` a line: query id -> document id -> grade."""
    rows = ((query_id, doc_id, grade) for query_id, judged in qrels.items() for doc_id, grade in judged.items())
    return "".join(f"{one_word(query_id)} 0 {one_word(doc_id)} {grade}\n" for query_id, doc_id, grade in rows)


def one_word(identifier: str) -> str:
    """An id as a run file has it, where columns end at white space: that becomes %20 and the like."""
    return _SPACE.sub(lambda found: quote(found[0]), identifier)


def read_run(path: Path) -> dict[str, list[Scored]]:
    """Query id -> (document id, score), best first, from a run file; `.gz` too.

    Ordered by score and then by rank, as the file has them: trec_eval goes by score alone, and programs that write
    equal scores mean their ranks.

    Raises:
        DataError: the file is missing, a line is wrong, or a document stands twice for a query.
    """
    if not path.is_file():
        raise DataError(str(path), None, "no such file; expected a TREC run: query Q0 document rank score tag")
    found: dict[str, dict[str, _Row]] = {}
    for number, row in read_rows(path, _parse, BadLines(can_skip=False)):
        if found.setdefault(row.query_id, {}).setdefault(row.doc_id, row) is not row:
            pair = f"query '{row.query_id}' and document '{row.doc_id}'"
            raise DataError(str(path), number, f"{pair} stand twice; expected a document once a query")
    return {
        query_id: [(row.doc_id, row.score) for row in sorted(rows.values(), key=lambda row: (-row.score, row.rank))]
        for query_id, rows in found.items()
    }


def _parse(line: str) -> _Row:
    columns = line.split()
    if len(columns) != 6:
        raise BadLineError(f"found {len(columns)} columns; expected {_COLUMNS}")
    query_id, _, doc_id, rank, score, _ = columns
    try:
        row = _Row(query_id, doc_id, int(rank), float(score))
    except ValueError:
        raise BadLineError(f"found rank '{rank}' and score '{score}'; expected a whole number and a number") from None
    if not math.isfinite(row.score):
        raise BadLineError(f"found score '{score}'; expected a finite number")
    return row
