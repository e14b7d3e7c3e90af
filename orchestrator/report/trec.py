"""Rankings as TREC run files have them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from orchestrator.ranking import surrogate_scores

_SPACE = re.compile(r"\s+")


def trec_lines(query_id: str, doc_ids: Sequence[str], tag: str = "orchestrate") -> str:
    """`query-id Q0 doc-id rank score tag` a line. Scores fall strictly: trec_eval sorts by score, not by rank.

    Columns end at white space, so that in an id becomes %20 and the like, as in a URL.
    """
    scores, query_id = surrogate_scores(len(doc_ids)), _one_word(query_id)
    rows = enumerate(zip(map(_one_word, doc_ids), scores, strict=True), start=1)
    return "".join(f"{query_id} Q0 {doc_id} {rank} {score:g} {tag}\n" for rank, (doc_id, score) in rows)


def _one_word(identifier: str) -> str:
    return _SPACE.sub(lambda found: quote(found[0]), identifier)
