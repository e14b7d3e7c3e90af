"""What stages did and left out over many answers: gates, cuts, and what the budget or failures took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.answers.trace import Result, Shortfall, StageTrace, Trace
from orchestrator.stack.cuts import TOP_K
from orchestrator.stack.gates import ALWAYS
from orchestrator.stack.graph import Node


@dataclass(frozen=True, slots=True)
class Work:
    """What stages did, and what they left out, over some answers.

    Attributes:
        ran: stage with a gate -> share of the answers for which it ran.
        passed: stage with a cut -> fewest, mean and most documents that it passed on, where it ran.
        scored: stage that left something out -> share of the documents given to it that it scored, where it ran.
        degraded: stage -> reason -> share of the answers in which it fell short for it.
        whole: share of the answers in which none did.
    """

    ran: Mapping[str, float]
    passed: Mapping[str, tuple[int, float, int]]
    scored: Mapping[str, float]
    degraded: Mapping[str, Mapping[Shortfall, float]]
    whole: float

    @classmethod
    def of(cls, results: Sequence[Result]) -> Work:
        """The work behind `results`, all of one graph."""
        return cls.of_traces([result.trace for result in results], results[0].graph.nodes if results else ())

    @classmethod
    def of_traces(cls, traces: Sequence[Trace], nodes: Sequence[Node]) -> Work:
        """The work that `traces` tell of; `nodes` are the stages of their graph."""
        gated = {node.name for node in nodes if node.when != ALWAYS}
        cut = {node.name for node in nodes if node.cut != TOP_K}
        stages: dict[str, list[StageTrace]] = {}
        for trace in traces:
            for stage in trace.stages:
                stages.setdefault(stage.stage, []).append(stage)
        ran = {name: [one for one in found if one.skipped is None] for name, found in stages.items()}
        return cls(
            {name: len(ran[name]) / len(found) for name, found in stages.items() if name in gated},
            {name: _spread([one.n_out for one in found]) for name, found in ran.items() if name in cut and found},
            {name: share for name, found in ran.items() if (share := _share_scored(found)) < 1},
            _shortfalls(traces),
            1 - sum(bool(trace.degraded) for trace in traces) / max(len(traces), 1),
        )


def _spread(counts: Sequence[int]) -> tuple[int, float, int]:
    return min(counts), sum(counts) / len(counts), max(counts)


def _share_scored(stages: Sequence[StageTrace]) -> float:
    """Of all documents that a rerank was given; 1 for other stages, which have no document to leave out."""
    given = sum(stage.n_in for stage in stages if stage.kind == "rerank")
    done = sum(stage.n_in if stage.n_scored is None else stage.n_scored for stage in stages if stage.kind == "rerank")
    return done / given if given else 1.0


def _shortfalls(traces: Sequence[Trace]) -> dict[str, dict[Shortfall, float]]:
    counts: dict[str, Counter[Shortfall]] = {}
    for trace in traces:
        for name, reason in {(lack.stage.partition("~")[0], lack.reason) for lack in trace.degraded}:
            counts.setdefault(name, Counter())[reason] += 1
    return {name: {reason: n / len(traces) for reason, n in found.items()} for name, found in counts.items()}
