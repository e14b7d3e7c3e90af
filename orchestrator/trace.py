"""What one run tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.graph import StageGraph
from orchestrator.types import Document, Query, RankedList


@dataclass(frozen=True, slots=True)
class StageTrace:
    """What one stage did for one query.

    Attributes:
        ms: wall time, milliseconds; in a batch of queries, the batch's time divided by the queries.
        n_in: documents received; 0 for a recall.
        n_out: documents passed on.
        tokens: model tokens spent; in a batch, divided likewise.
        repairs: what had to be mended in replies of remote models, by kind, in the whole batch: `{"missing": 3}`.
        passages: parts of documents that were read, where long ones were cut; in a batch, divided likewise.
        notes: declared peculiarities, for example an exact scan in place of an index held by another process.
    """

    stage: str
    kind: str
    ms: float
    n_in: int
    n_out: int
    cache_hits: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    notes: tuple[str, ...] = ()
    repairs: Mapping[str, int] = field(default_factory=dict)
    passages: int = 0

    @property
    def n_repairs(self) -> int:
        """Repairs of all kinds together."""
        return sum(self.repairs.values())


@dataclass(frozen=True, slots=True)
class Trace:
    """What one run of a pipeline did for one query.

    Attributes:
        total_ms: wall time, milliseconds.
        budget_ms: the pipeline's latency budget, or None. Reported here, not enforced.
    """

    total_ms: float
    budget_ms: float | None
    stages: tuple[StageTrace, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one query.

    Attributes:
        ranked: what the last stage passed on, with every stage's score.
        documents: text, title and metadata of `ranked`, by id.
        passages: id -> (first, one past the last) character of the body: the best window of each document of `ranked`,
            as the last stage that read windows scored them.
        outputs: stage name -> everything that stage ranked, before its `top_k` cut.
        graph: the stages that ran.
    """

    query: Query
    ranked: RankedList
    trace: Trace
    outputs: Mapping[str, RankedList] = field(repr=False)
    graph: StageGraph = field(repr=False)
    documents: Mapping[str, Document] = field(default_factory=dict, repr=False)
    passages: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False)

    @property
    def doc_ids(self) -> tuple[str, ...]:
        """Ids of the answer, best first."""
        return self.ranked.doc_ids

    def uncut(self, depth: int = 100, stage: str | None = None) -> tuple[str, ...]:
        """The ranking with no `top_k` applied: a stage's own order, then what its inputs ranked and it never saw.

        So pipelines that end at 3 and at 10 compare fairly.

        Args:
            depth: how many ids at most.
            stage: as if the pipeline ended there; None for the result.
        """
        last = stage or self.graph.result.name
        sources = self.graph.ancestors(last) if len(self.outputs[last]) < depth else ()
        found: dict[str, None] = {}
        for name in (last, *sources):
            found.update(dict.fromkeys(self.outputs[name].doc_ids))
            if len(found) >= depth:
                break
        return tuple(found)[:depth]
