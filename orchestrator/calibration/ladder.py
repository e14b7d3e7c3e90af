"""Questions asked of a pipeline at several depths, and what each of its stages took for what it was given."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.answers.trace import Result, StageTrace
from orchestrator.costs.cost import AROUND, PAIR_KINDS, PAIR_TOKENS, Load
from orchestrator.costs.fit import Point
from orchestrator.pipeline import Pipeline
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.types import Query

RowKey = tuple[str, str | None]
"""Kind of a row of the cost model, and the model that it is of, or None."""
CountTokens = Callable[[str], int]

MOST_WARM_UP = 3
"""Questions of each step that are asked first and not timed."""


@dataclass
class Climbed:
    """What came of some questions.

    Attributes:
        points: stage -> what it was given, and what it took.
        cost_usd: what services took for it, the questions for warmth with it.
        shortfalls: stage -> why it did less than its work, the first time that it did.
    """

    points: dict[str, list[Point]] = field(default_factory=lambda: defaultdict(list))
    cost_usd: float = 0.0
    shortfalls: dict[str, str] = field(default_factory=dict)

    def note(self, result: Result) -> None:
        """Count what an answer took, and what is missing in it."""
        self.cost_usd += sum(trace.cost_usd for trace in result.trace.stages)
        for one in result.degraded:
            self.shortfalls.setdefault(one.stage, one.detail)
        for trace in result.trace.stages:
            if trace.skipped is not None:
                self.shortfalls.setdefault(trace.stage, trace.skipped)


def climb(
    pipeline: Pipeline,
    steps: Sequence[Mapping[str, int]],
    queries: Sequence[Query],
    count: CountTokens,
    seconds: float,
) -> Climbed:
    """What each stage took, and `around`, what a question took beside all of them.

    A stage that failed or had nothing to do took no time that tells anything. `max_ms` is lifted, as the budget is:
    with it only the quick answers would count.

    Args:
        pipeline: loaded.
        steps: depths, each stage -> `top_k`; each step is asked `queries` in turn for an even share of `seconds`.
        queries: more than stages remember.
        count: tokens of a text, as models count them.
        seconds: in all; each step is asked three questions at least.
    """
    found = Climbed()
    counted = _Counted(pipeline, count)
    for depths in steps:
        nodes = (replace(node, top_k=depths.get(node.name, node.top_k), max_ms=None) for node in pipeline.graph.nodes)
        graph = StageGraph(tuple(nodes))
        for result, is_timed in _answers(pipeline, graph, queries, seconds / len(steps)):
            found.note(result)
            for name, point in _points(result, graph, counted) if is_timed else ():
                found.points[name].append(point)
    return found


def _answers(
    pipeline: Pipeline, graph: StageGraph, queries: Sequence[Query], seconds: float
) -> Iterator[tuple[Result, bool]]:
    """Answers, and whether their times count: those for warmth come first."""
    runner = pipeline.running(graph)
    for query in queries[:MOST_WARM_UP]:
        yield runner.run([query], use_kept=False)[0], False
    started = time.perf_counter()
    for place in range(len(queries)):
        if place >= MOST_WARM_UP and time.perf_counter() - started > seconds:
            return
        yield runner.run([queries[-1 - place]], use_kept=False)[0], True


class _Counted:
    """Tokens of the corpus's documents, each counted once."""

    def __init__(self, pipeline: Pipeline, count: CountTokens) -> None:
        self.n_documents = len(pipeline.corpus)
        self._corpus, self._count, self._known = pipeline.corpus, count, dict[str, int]()

    def query(self, query: Query) -> int:
        return self._count(query.text)

    def documents(self, doc_ids: Sequence[str], most: float) -> float:
        """Tokens of all of them, each cut at `most`."""
        missing = [doc_id for doc_id in doc_ids if doc_id not in self._known]
        for doc_id, document in zip(missing, self._corpus.get(missing), strict=True):
            self._known[doc_id] = self._count(document.full_text)
        return float(sum(min(self._known[doc_id], most) for doc_id in doc_ids))


def _points(result: Result, graph: StageGraph, counted: _Counted) -> Iterator[tuple[str, Point]]:
    deepest, short = 0, {one.stage for one in result.degraded}
    for trace in result.trace.stages:
        had_work = trace.skipped is None and (trace.n_in > 0 or trace.kind == "recall")
        if had_work and trace.ms > 0 and trace.stage not in short:
            yield trace.stage, Point(_load(result, graph[trace.stage], trace, counted), trace.ms)
        deepest = max(deepest, trace.n_in)
    beside = result.trace.total_ms - sum(trace.ms for trace in result.trace.stages)
    if beside > 0 and not short:
        yield AROUND, Point(Load(documents=deepest, results=len(result.trace.stages)), beside)


def _load(result: Result, node: Node, trace: StageTrace, counted: _Counted) -> Load:
    query_tokens = counted.query(result.query)
    if node.kind == "recall":
        return Load(counted.n_documents, 0, query_tokens, node.top_k)
    if "text" not in node.needs:
        return Load(trace.n_in, 0, query_tokens)
    reads_pairs = getattr(node.stage, "cost_kind", None) in PAIR_KINDS
    if reads_pairs and trace.tokens:
        return Load(trace.n_in, trace.tokens, query_tokens)  # as the model counted them
    read = result.outputs[node.inputs[0]].doc_ids[: trace.n_in]
    tokens = counted.documents(read, max_tokens(node))
    return Load(trace.n_in, tokens + reads_pairs * trace.n_in * (query_tokens + PAIR_TOKENS), query_tokens)


def max_tokens(node: Node) -> float:
    """Where a stage cuts a document, as far as it says."""
    found = getattr(node.stage, "max_length_tokens", None) or getattr(node.stage, "max_document_tokens", None)
    return float("inf") if found is None else float(found)
