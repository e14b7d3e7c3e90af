"""Two rows query by query: how many were won, tied and lost, and the queries that changed most, with documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.evaluation.differences import Tally, most_changed, tally
from orchestrator.study.entry import Entry
from orchestrator.study.marks import column, is_paired

N_CHANGED = 5
"""Queries shown on either side."""
N_DOCUMENTS = 5
MOST_PAIRS = 10
_ALL_PAIRS = 5
"""Of so few rows every pair is shown."""

Ranking = Mapping[str, Sequence[str]]
"""Query id -> document ids, best first."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One document of a ranking.

    Attributes:
        doc_id: its id.
        rank: from 1.
        other_rank: in the other ranking; None where that lacks it.
        grade: that it was judged by; None where nobody judged it.
    """

    doc_id: str
    rank: int
    other_rank: int | None
    grade: int | None


@dataclass(frozen=True, slots=True)
class Changed:
    """One query that two rows answer differently.

    Attributes:
        query_id: which one.
        before: the measure of the second row of the pair; `after` of the first.
        documents_before: the first documents of the second row's ranking; `documents_after` of the first row's. Empty
            where a ranking is not known.
    """

    query_id: str
    before: float
    after: float
    documents_before: tuple[Shown, ...] = ()
    documents_after: tuple[Shown, ...] = ()

    @property
    def difference(self) -> float:
        """Above 0 where the first row is better."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Pair:
    """The row `after` beside the row `before`.

    Attributes:
        after: the one that is looked at.
        before: the one it is compared with.
        differences: one a query, the greatest gain first.
        changed: the queries that gained and lost most, the greatest gain first.
    """

    after: Entry
    before: Entry
    differences: tuple[float, ...]
    changed: tuple[Changed, ...]

    @property
    def tally(self) -> Tally:
        """How many queries `after` won, tied and lost."""
        return tally(self.differences)


def chosen_pairs(best: Entry, reference: Entry, rows: Sequence[Entry], measure: str) -> list[tuple[Entry, Entry]]:
    """(after, before) of the pairs that a report shows; of few rows all.

    The best stands first in each: beside the reference, the ranking before reranking, the worst row, and the others.

    Args:
        best: the best row.
        reference: the row of reference; may be the best itself.
        rows: all rows, those without figures by query too.
        measure: that rows are ordered by.
    """
    others = [row for row in rows if row.name != best.name and is_paired(best, row) and column(row, measure)]
    worst = min(others, key=lambda row: _mean(row, measure), default=best)
    others.sort(
        key=lambda row: (row.name != reference.name, row.kind != "null", row is not worst, -_mean(row, measure))
    )
    pairs = [(best, other) for other in others]
    if len(others) < _ALL_PAIRS:
        ranked = sorted(others, key=lambda row: -_mean(row, measure))
        pairs += [(one, other) for place, one in enumerate(ranked) for other in ranked[place + 1 :]]
    return pairs[:MOST_PAIRS]


def _mean(row: Entry, measure: str) -> float:
    return row.mean(measure) or 0.0


def pair_of(
    after: Entry,
    before: Entry,
    measure: str,
    ranking_of: Callable[[Entry], Ranking],
    qrels: Mapping[str, Mapping[str, int]],
) -> Pair:
    """Both rows query by query.

    Args:
        after: the row that is looked at.
        before: the row that it is compared with, judged on the same queries.
        measure: that they are compared by.
        ranking_of: the ranking of a row; empty where it is not known.
        qrels: query id -> document id -> grade, empty where that is not known.
    """
    ours, theirs = column(after, measure), column(before, measure)
    differences = {query_id: ours[query_id] - theirs[query_id] for query_id in ours}
    gained, lost = most_changed(differences, N_CHANGED)
    rankings = ranking_of(after), ranking_of(before)
    changed = [
        Changed(
            query_id,
            theirs[query_id],
            ours[query_id],
            _first(rankings[1].get(query_id, ()), rankings[0].get(query_id, ()), qrels.get(query_id, {})),
            _first(rankings[0].get(query_id, ()), rankings[1].get(query_id, ()), qrels.get(query_id, {})),
        )
        for query_id in (*gained, *reversed(lost))
    ]
    return Pair(after, before, tuple(sorted(differences.values(), reverse=True)), tuple(changed))


def _first(ranking: Sequence[str], other: Sequence[str], judged: Mapping[str, int]) -> tuple[Shown, ...]:
    places = {doc_id: rank for rank, doc_id in enumerate(other, start=1)}
    return tuple(
        Shown(doc_id, rank, places.get(doc_id), judged.get(doc_id))
        for rank, doc_id in enumerate(ranking[:N_DOCUMENTS], start=1)
    )
