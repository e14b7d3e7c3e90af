"""Weights and other numbers of a fusion, found on judged queries: no model, only what stands under `use`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from orchestrator import ranking
from orchestrator.evaluation.measures import Measures, Qrels, Rankings
from orchestrator.learning.training import Parents, as_judged
from orchestrator.stage import Adjustable, Fusion, Knob, Progress, no_progress
from orchestrator.types import Call, Example, Query, RankedList, Scored, ScoreKind

Values = dict[str, float]
Lists = Mapping[str, RankedList]
_CYCLES = 5
_BETTER = 1e-9


class ListKeeper:
    """Stands in the pipeline for a fusion: keeps the lists that it would merge.

    Args:
        parents: where documents are judged and chunks are ranked.
    """

    score_kind: ScoreKind = "rank"

    def __init__(self, parents: Parents | None = None) -> None:
        self.parents = parents
        self.examples: dict[str, Example] = {}
        self.lists: dict[str, Lists] = {}

    def fuse(self, query: Query, lists: Lists, call: Call) -> Scored:  # noqa: ARG002 - as a fusion has it
        """Every document of the lists, in the order of first appearance."""
        self.lists[query.query_id] = dict(lists)
        every = dict.fromkeys(chain.from_iterable(ranked.doc_ids for ranked in lists.values()))
        return [(doc_id, -float(place)) for place, doc_id in enumerate(every)]


@dataclass(frozen=True, slots=True)
class Found:
    """The best numbers that were found.

    Attributes:
        values: by the names of the knobs.
        quality: of them, on the queries that they were looked for on.
        given_quality: of the numbers as they were, on the same queries.
        tried: how many combinations were measured.
    """

    values: Values
    quality: float
    given_quality: float
    tried: int


def rankings_of(
    fusion: Fusion, lists: Mapping[str, Lists], query_ids: Iterable[str], depth: int, parents: Parents | None
) -> Rankings:
    """Query id -> what `fusion` makes of its lists, best first, as the runner would order it."""
    found: Rankings = {}
    for query_id in query_ids:
        if query_id in lists:
            pairs = fusion.fuse(Query(query_id, ""), lists[query_id], Call())
            merged = ranking.ranked_from_pairs("fused", pairs, fusion.score_kind)
            found[query_id] = as_judged(merged.doc_ids, depth, parents)
    return found


def quality_of(
    fusion: Adjustable,
    lists: Mapping[str, Lists],
    query_ids: Sequence[str],
    qrels: Qrels,
    measures: Measures,
    depth: int,
    parents: Parents | None,
) -> Callable[[Values], float]:
    """A function of the knobs' values: the mean of the first of `measures` over `query_ids`."""
    judged = {query_id: qrels[query_id] for query_id in query_ids}

    def quality(values: Values) -> float:
        adjusted = fusion.adjusted(values)
        assert isinstance(adjusted, Fusion)
        rankings = rankings_of(adjusted, lists, query_ids, depth, parents)
        return measures.mean(measures.per_query(judged, rankings))[measures.names[0]]

    return quality


def tune(knobs: Mapping[str, Knob], quality: Callable[[Values], float], progress: Progress = no_progress) -> Found:
    """The values with the greatest quality that a search along one knob after another finds.

    Starts from the values as they are and takes only what is better; the same input gives the same values. Each knob
    goes through its choices, the others held, until a whole turn changes nothing (five turns at most). Weights are
    kept so that the greatest is 1, which changes no order.

    Args:
        knobs: name -> number.
        quality: of a combination; greater is better.
        progress: told ("tune", combinations measured, at most so many).
    """
    known: dict[tuple[float, ...], float] = {}
    most = 1 + _CYCLES * sum(len(knob.choices) for knob in knobs.values())

    def measured(values: Values) -> float:
        key = tuple(values.values())
        if key not in known:
            known[key] = quality(values)
            progress("tune", len(known), most)
        return known[key]

    given = {name: knob.value for name, knob in knobs.items()}
    best = given
    for _ in range(_CYCLES):
        before = best
        for name, knob in knobs.items():
            for choice in knob.choices:
                candidate = _scaled({**best, name: choice}, knobs)
                if candidate is not None and measured(candidate) > measured(best) + _BETTER:
                    best = candidate
        if best == before:
            break
    progress("tune", most, most)
    return Found(best, measured(best), measured(given), len(known))


def _scaled(values: Values, knobs: Mapping[str, Knob]) -> Values | None:
    """`values` with the greatest weight 1; None where all weights are 0, which merges nothing."""
    most = max((value for name, value in values.items() if knobs[name].is_weight), default=1.0)
    if most <= 0:
        return None
    return {name: round(value / most, 4) if knobs[name].is_weight else value for name, value in values.items()}
