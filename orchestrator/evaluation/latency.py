"""Latency of a pipeline: a sample of queries one at a time, warm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from orchestrator.answers.trace import Result
from orchestrator.evaluation.spent import Spent
from orchestrator.evaluation.work import Work
from orchestrator.stage import Progress, no_progress
from orchestrator.types import Query

Answer: TypeAlias = Callable[[Sequence[Query]], list[Result]]

_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in milliseconds of queries answered one at a time.

    Attributes:
        total: `p50`, `p95`, `p99` of the whole pipeline.
        stages: stage name -> `p50`, `p95`, `p99`.
        n_queries: how many queries were timed.
        work: what the stages did and left out in them.
        within_budget: share of the answers that came within the budget; None without one.
        spent: tokens and money of the timed queries, which no kept score answered.
        warm_up_usd: what the queries before them cost.
    """

    total: Mapping[str, float]
    stages: Mapping[str, Mapping[str, float]]
    n_queries: int
    work: Work = field(default_factory=lambda: Work.of([]))
    within_budget: float | None = None
    spent: Spent = field(default_factory=Spent)
    warm_up_usd: float = 0.0


def measure_latency(
    answer: Answer, queries: Sequence[Query], n_queries: int, *, progress: Progress = no_progress
) -> Latency:
    """Latency of up to `n_queries` of `queries`, spread evenly over the list, one at a time, after a warm-up.

    Args:
        answer: answers a batch of queries.
        queries: what to draw from.
        n_queries: how many to time; 1 or more.
        progress: told ("time", queries done, queries in all).
    """
    places = np.unique(np.linspace(0, len(queries) - 1, num=min(n_queries, len(queries))).astype(int))
    sample = [queries[place] for place in places]
    warm_up = [result.trace for query in sample[:_WARM_UP] for result in answer([query])]
    results: list[Result] = []
    stages: dict[str, list[float]] = {}
    for done, query in enumerate(sample, start=1):
        results += answer([query])
        for stage in results[-1].trace.stages:
            if stage.skipped is None:
                stages.setdefault(stage.stage, []).append(stage.ms)
        progress("time", done, len(sample))
    traces = [result.trace for result in results]
    kept = [trace.total_ms <= trace.budget_ms for trace in traces if trace.budget_ms is not None]
    return Latency(
        _percentiles([trace.total_ms for trace in traces]),
        {name: _percentiles(ms) for name, ms in stages.items()},
        len(sample),
        Work.of(results),
        float(np.mean(kept)) if kept else None,
        Spent.of(traces),
        Spent.of(warm_up).paid_usd,
    )


def _percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values_ms, [50, 95, 99]).tolist()
    return {"p50": p50, "p95": p95, "p99": p99}
