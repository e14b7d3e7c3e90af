"""What one run tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.stack.graph import StageGraph
from orchestrator.types import Document, Query, RankedList

Shortfall = Literal["deadline", "no_time", "late", "error", "circuit_open"]
"""Why a stage gave less than it was asked for:

- `deadline`: its time allowed no more: it was stopped, or a further part would not have been done in time;
- `no_time`: it was not begun, since not even a part of it would have been done in time;
- `late`: a recall that was left behind, since another one had answered;
- `error`: a failure that may pass, all retries made; `circuit_open`: one that was known before, so that none was made.
"""


@dataclass(frozen=True, slots=True)
class Degraded:
    """One stage's shortfall: the answer stands without what it did not do.

    Attributes:
        stage: its name.
        reason: in one word.
        detail: in a sentence, for people.
        scored: documents that it scored all the same, or found.
        of: documents that it was given; of a recall, its `top_k`.
    """

    stage: str
    reason: Shortfall
    detail: str
    scored: int
    of: int

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason} ({self.detail}); {self.scored} of {self.of}"


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
        cache_hits: documents (of a window rerank: windows) whose scores were kept from an earlier question.
        n_scored: documents that it scored; of a recall or a fusion, all that it ranked. None: all of `n_in`.
        skipped: why it did not run, where its gate (`when`) said so; what it was given was passed on as it came.
        allowed_ms: how long it might take at most; None without a budget.
        started_ms: when it began, milliseconds after the question came.
        reused: whether its whole result was kept from before: then `ms` is the time of the look-up, and tokens, money,
            repairs and notes are those of the time when it was made.
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
    n_scored: int | None = None
    skipped: str | None = None
    allowed_ms: float | None = None
    started_ms: float = 0.0
    reused: bool = False

    @property
    def n_repairs(self) -> int:
        """Repairs of all kinds together."""
        return sum(self.repairs.values())


@dataclass(frozen=True, slots=True)
class Trace:
    """What one run of a pipeline did for one query.

    Attributes:
        total_ms: wall time, milliseconds.
        budget_ms: the pipeline's latency budget, or None.
        degraded: what was left out to keep it, or because something failed; empty for a whole answer.
        enforced: whether the budget was kept by leaving things out, or only stands beside the time it took.
        language: what the question is in, by itself or as told by its text, where a gate asks for that; else None.
    """

    total_ms: float
    budget_ms: float | None
    stages: tuple[StageTrace, ...]
    degraded: tuple[Degraded, ...] = ()
    enforced: bool = False
    language: str | None = None


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

    @property
    def degraded(self) -> tuple[Degraded, ...]:
        """What was left out; empty for a whole answer."""
        return self.trace.degraded

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
