"""What an evaluation says beyond means: intervals, paired comparisons of the whole and of stages, what changed most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from orchestrator.evaluation.baselines import Judged
from orchestrator.evaluation.differences import most_changed
from orchestrator.evaluation.measures import PerQuery
from orchestrator.evaluation.quality import Quality
from orchestrator.evaluation.significance import Comparison, Pair, Values, bootstrap, compare_pairs
from orchestrator.stack.graph import Node

Kind = Literal["baseline", "stage"]


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison on the first measure.

    Attributes:
        stage: whose ranking is judged: the last stage for the whole pipeline.
        kind: `baseline`: the whole beside another run. `stage`: a stage beside the one that it reads, a fusion beside
            the best of those.
        comparison: figures and tests; `other` is what it is compared with.
    """

    stage: str
    kind: Kind
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Change:
    """One query whose value changed.

    Attributes:
        query_id: the query.
        text: the question.
        before: value of what is compared with.
        after: value of the whole.
    """

    query_id: str
    text: str
    before: float
    after: float

    @property
    def difference(self) -> float:
        """Above 0 when the whole is better."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Changes:
    """The queries that changed most.

    Attributes:
        against: what the whole is compared with.
        up: those that gained most, the most first.
        down: those that lost most, the most first.
    """

    against: str
    up: tuple[Change, ...]
    down: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What comparisons say.

    Attributes:
        measure: the first one, on which all comparisons are made.
        intervals: measure -> 95 % bootstrap interval of the whole's mean over queries.
        compared: in the order of the graph, baselines first; p-values are corrected over all of them.
        baselines: what the whole is compared with, beside its own stages.
        changes: against the first baseline, or where there is none against the ranking before the first rerank; None
            where there is neither, or nobody asked.
    """

    measure: str
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    compared: tuple[Compared, ...] = ()
    baselines: tuple[Judged, ...] = ()
    changes: Changes | None = None


class _Asked(NamedTuple):
    stage: str
    kind: Kind
    other: str
    theirs: PerQuery


def find(quality: Quality, measure: str, baselines: Sequence[Judged], n_changes: int, seed: int) -> Findings:
    """What `quality` says about the pipeline, its stages and `baselines`.

    Args:
        quality: of the pipeline.
        measure: the one to compare by.
        baselines: other runs over the same queries.
        n_changes: how many queries that gained and how many that lost are named; 0 names none.
        seed: of the randomization tests and the bootstrap.
    """
    asked = [_Asked(quality.final, "baseline", other.baseline.name, other.ranked.per_query) for other in baselines]
    asked += _of_stages(quality, measure)
    pairs = [
        Pair(one.other, _column(quality.systems[one.stage].per_query, measure), _column(one.theirs, measure))
        for one in asked
    ]
    compared = [
        Compared(one.stage, one.kind, comparison)
        for one, comparison in zip(asked, compare_pairs(pairs, seed=seed), strict=True)
    ]
    changes = _changes(quality, measure, baselines, n_changes)
    return Findings(measure, _intervals(quality, seed), tuple(compared), tuple(baselines), changes)


def _of_stages(quality: Quality, measure: str) -> Iterator[_Asked]:
    """Each rerank beside what it reads, each fusion beside the best of its inputs."""
    for node in quality.nodes:
        if node.kind != "recall":
            other = best_input(node, quality, measure)
            yield _Asked(node.name, "stage", other, quality.systems[other].per_query)


def best_input(node: Node, quality: Quality, measure: str) -> str:
    """The stage among the inputs of `node` that ranks best by itself; of equal ones the first."""
    return max(node.inputs, key=lambda name: quality.systems[name].means[measure])


def _column(per_query: PerQuery, measure: str) -> Values:
    """float64 [n_queries], by query id: what is drawn at random does not depend on the order of the questions."""
    return np.array([values[measure] for _, values in sorted(per_query.items())], dtype=np.float64)


def _intervals(quality: Quality, seed: int) -> dict[str, tuple[float, float]]:
    names = list(quality.metrics)
    columns = np.stack([_column(quality.per_query, name) for name in names], axis=1)
    return {
        name: (float(low), float(high)) for name, (low, high) in zip(names, bootstrap(columns, seed=seed), strict=True)
    }


def _changes(quality: Quality, measure: str, baselines: Sequence[Judged], n_changes: int) -> Changes | None:
    if baselines:
        against, before = baselines[0].baseline.name, baselines[0].ranked.per_query
    elif quality.null is not None:
        against, before = quality.null, quality.systems[quality.null].per_query
    else:
        return None
    if not n_changes:
        return None
    changes = {
        query.query_id: Change(
            query.query_id,
            query.text,
            before[query.query_id][measure],
            quality.per_query[query.query_id][measure],
        )
        for query in quality.queries
    }
    up, down = most_changed({query_id: change.difference for query_id, change in changes.items()}, n_changes)
    return Changes(against, tuple(changes[query_id] for query_id in up), tuple(changes[query_id] for query_id in down))
