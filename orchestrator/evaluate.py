"""Quality and latency of a pipeline, in two passes that do not disturb each other.

Quality: queries in batches, on the uncut ranking. Latency: a sample of queries one at a time, warm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.cuts import TOP_K
from orchestrator.errors import ConfigError
from orchestrator.gates import ALWAYS
from orchestrator.graph import Node
from orchestrator.ranking import surrogate_scores
from orchestrator.reused import Reused
from orchestrator.stage import Progress, no_progress
from orchestrator.trace import Result, Shortfall, StageTrace, Trace
from orchestrator.types import Query

Qrels = Mapping[str, Mapping[str, int]]
Rankings = dict[str, tuple[str, ...]]
Answer = Callable[[Sequence[Query]], list[Result]]
JudgedIds = Callable[[Sequence[str]], Sequence[str]]


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


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over all judged queries; keys in the notation of ir-measures.

    Attributes:
        metrics: of the uncut ranking.
        served: of what the pipeline hands out, cut at its last `top_k`.
        baselines: stage name -> the metrics of a pipeline that ended at that stage.
        per_query: query id -> metric -> value, of the uncut ranking.
        rankings: query id -> ids of the uncut ranking.
        n_queries: how many queries were judged.
        work: what the stages did and left out.
        reused: how much of it was kept from earlier jobs.
    """

    metrics: Mapping[str, float]
    served: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    per_query: Mapping[str, Mapping[str, float]] = field(repr=False)
    rankings: Mapping[str, tuple[str, ...]] = field(repr=False)
    n_queries: int = 0
    work: Work = field(default_factory=lambda: Work.of([]))
    reused: Reused = field(default_factory=Reused)


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in milliseconds of queries answered one at a time.

    Attributes:
        total: `p50`, `p95`, `p99` of the whole pipeline.
        stages: stage name -> `p50`, `p95`, `p99`.
        n_queries: how many queries were timed.
        work: what the stages did and left out in them.
        within_budget: share of the answers that came within the budget; None without one.
    """

    total: Mapping[str, float]
    stages: Mapping[str, Mapping[str, float]]
    n_queries: int
    work: Work = field(default_factory=lambda: Work.of([]))
    within_budget: float | None = None


class Measures:
    """The measures of one evaluation, computed by ir-measures (trec_eval underneath).

    Args:
        names: for example `["nDCG@10", "RR@10", "R@100", "AP"]`; `MRR@10` and `Recall@100` are understood too.

    Raises:
        ConfigError: a name is no measure.
    """

    def __init__(self, names: Sequence[str]) -> None:
        import ir_measures

        self.names = list(names)
        self._measures = []
        for place, name in enumerate(self.names):
            parsed = name.replace("MRR", "RR", 1) if name.startswith("MRR") else name
            parsed = parsed.replace("Recall", "R", 1) if parsed.startswith("Recall") else parsed
            try:
                self._measures.append(ir_measures.parse_measure(parsed))
            except (NameError, ValueError, SyntaxError) as error:
                known = ", ".join(["nDCG@10", "RR@10", "R@100", "AP", "P@5", "Success@5", "RBP"])
                raise ConfigError(f"task.measures[{place}]", f"'{name}' is no measure; for example: {known}") from error

    def per_query(self, qrels: Qrels, rankings: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
        """Query id -> measure -> value, for every query of `qrels`; a query without a ranking scores 0."""
        import ir_measures

        run = {query_id: dict(zip(ids, surrogate_scores(len(ids)), strict=True)) for query_id, ids in rankings.items()}
        names = {str(measure): name for measure, name in zip(self._measures, self.names, strict=True)}
        values: dict[str, dict[str, float]] = {query_id: dict.fromkeys(self.names, 0.0) for query_id in qrels}
        for metric in ir_measures.iter_calc(self._measures, {q: dict(d) for q, d in qrels.items()}, run):
            values[metric.query_id][names[str(metric.measure)]] = float(metric.value)
        return values

    def mean(self, per_query: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Measure -> mean over queries, each query counting once."""
        return {name: float(np.mean([values[name] for values in per_query.values()])) for name in self.names}


def measure_quality(
    answer: Answer,
    queries: Sequence[Query],
    qrels: Qrels,
    measures: Measures,
    *,
    depth: int = 100,
    batch_queries: int = 32,
    progress: Progress = no_progress,
    judged_ids: JudgedIds | None = None,
) -> Quality:
    """Quality over the judged queries.

    Args:
        answer: answers a batch of queries, in order.
        queries: judged or not; only those in `qrels` count.
        qrels: query id -> document id -> grade; 0 is judged and not relevant.
        measures: what to compute.
        depth: of the uncut ranking.
        batch_queries: queries answered together.
        progress: told ("evaluate", queries done, queries in all).
        judged_ids: ids of a ranking as the judgements name them, each once: those of the documents that the ranked
            chunks are part of, for example. None when the judgements name what is ranked.

    Raises:
        ConfigError: no query is judged.
    """
    judged = [query for query in queries if query.query_id in qrels]
    if not judged:
        raise ConfigError("corpus.split", "no query of this corpus is judged in that split; nothing can be measured")
    kept = {query.query_id: qrels[query.query_id] for query in judged}
    uncut: dict[str, Rankings] = {}
    served: Rankings = {}
    final, traces, nodes = "", [], tuple[Node, ...]()
    for done, batch in _batches(judged, batch_queries):
        results = answer(batch)
        nodes = results[0].graph.nodes
        for result in results:
            traces.append(result.trace)
            final = result.graph.result.name
            query_id = result.query.query_id
            served[query_id] = tuple(judged_ids(result.doc_ids)) if judged_ids else result.doc_ids
            for node in result.graph.nodes:
                uncut.setdefault(node.name, {})[query_id] = _ranking(result, node.name, depth, judged_ids)
        progress("evaluate", done, len(judged))
    per_query = measures.per_query(kept, uncut[final])
    baselines = {
        name: measures.mean(measures.per_query(kept, rankings)) for name, rankings in uncut.items() if name != final
    }
    return Quality(
        measures.mean(per_query),
        measures.mean(measures.per_query(kept, served)),
        baselines,
        per_query,
        uncut[final],
        len(judged),
        Work.of_traces(traces, nodes),
        Reused.of(traces),
    )


def _ranking(result: Result, stage: str, depth: int, judged_ids: JudgedIds | None) -> tuple[str, ...]:
    if judged_ids is None:
        return result.uncut(depth, stage)
    n_ranked = sum(len(ranked) for ranked in result.outputs.values())
    return tuple(judged_ids(result.uncut(n_ranked, stage))[:depth])


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
    for query in sample[:3]:
        answer([query])
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
    )


def _percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values_ms, [50, 95, 99]).tolist()
    return {"p50": p50, "p95": p95, "p99": p99}


def _batches(queries: Sequence[Query], size: int) -> Iterator[tuple[int, Sequence[Query]]]:
    for start in range(0, len(queries), size):
        batch = queries[start : start + size]
        yield start + len(batch), batch
