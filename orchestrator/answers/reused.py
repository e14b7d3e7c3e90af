"""How much of the work behind some answers was done for them, and how much was kept from earlier jobs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.answers.trace import StageTrace, Trace


@dataclass(frozen=True, slots=True)
class Reused:
    """Stages that answers asked for, each stage and question counting once; those that a gate kept out count nothing.

    Attributes:
        asked: how often a stage was asked.
        reused: how often its whole result was there already.
        documents: documents that reranks were given.
        documents_scored: of these, scored now; kept scores of single documents are not.
    """

    asked: int = 0
    reused: int = 0
    documents: int = 0
    documents_scored: int = 0

    @classmethod
    def of(cls, traces: Iterable[Trace]) -> Reused:
        """Over the answers that `traces` tell of."""
        stages = [stage for trace in traces for stage in trace.stages if stage.skipped is None]
        reranks = [stage for stage in stages if stage.kind == "rerank"]
        return cls(
            len(stages),
            sum(stage.reused for stage in stages),
            sum(stage.n_in for stage in reranks),
            sum(_scored_now(stage) for stage in reranks),
        )


def _scored_now(stage: StageTrace) -> int:
    if stage.reused:
        return 0
    return (stage.n_in if stage.n_scored is None else stage.n_scored) - min(stage.cache_hits, stage.n_in)
