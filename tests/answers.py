"""Answers of small pipelines, by the real runner: recalls bring what they are told, a rerank scores by a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from orchestrator import ranking
from orchestrator.answers.flow import flow_of
from orchestrator.answers.trace import Degraded, Result
from orchestrator.report.explained import Explained
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Call, Document, Query, RankedList, ScoreKind, Vectors

Pairs = Sequence[tuple[str, float]]


class Held:
    """Documents with a title each, `Title of <id>` unless told otherwise."""

    in_corpus = True

    def __init__(self, titles: Mapping[str, str] | None = None) -> None:
        self.titles = titles or {}

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        return [
            Document(doc_id, f"text of {doc_id}", self.titles.get(doc_id, f"Title of {doc_id}")) for doc_id in doc_ids
        ]

    def vectors(self, embedder: object, doc_ids: Sequence[str], call: Call | None = None) -> Vectors:
        raise AssertionError("nothing here needs vectors")


class Finds:
    """A recall that finds `pairs`, or by their ids alone, `n` documents in falling order."""

    def __init__(self, *doc_ids: str, score_kind: ScoreKind = "bm25") -> None:
        self.doc_ids, self.score_kind = doc_ids, score_kind

    def retrieve(self, query: Query, top_k: int, call: Call) -> Pairs:
        return [(doc_id, float(len(self.doc_ids) - place)) for place, doc_id in enumerate(self.doc_ids)]


class Sums:
    """A fusion by 1/rank."""

    score_kind: ScoreKind = "rrf"

    def fuse(self, query: Query, lists: Mapping[str, RankedList], call: Call) -> Pairs:
        totals: dict[str, float] = {}
        for ranked in lists.values():
            for candidate in ranked:
                totals[candidate.doc_id] = totals.get(candidate.doc_id, 0.0) + 1 / candidate.rank
        return list(totals.items())


class Prefers:
    """A rerank that puts the ids it is told first, in that order; the others keep theirs."""

    score_kind: ScoreKind = "logit"
    needs = frozenset({"text"})

    def __init__(self, *doc_ids: str) -> None:
        self.scores = {doc_id: float(len(doc_ids) - place) for place, doc_id in enumerate(doc_ids)}

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
        call.count(tokens=10 * len(pairs))
        return np.array([self.scores.get(document.doc_id, 0.0) for _, document in pairs])


def ask(*stages: tuple[object, ...], query: str = "what?", titles: Mapping[str, str] | None = None) -> Result:
    """The answer of a pipeline of (name, stage, top_k, *inputs)."""
    specs = [StageSpec(name, stage, top_k, tuple(inputs)) for name, stage, top_k, *inputs in stages]  # type: ignore[arg-type, misc]
    (result,) = Runner(StageGraph.of(specs), Held(titles), 50.0).run([Query("q1", query)], enforce_budget=False)
    return result


def two_recalls(**asked: object) -> Result:
    """d1 to d3 by bm25, d3 to d6 by dense; five are fused, and of those three reranked answers are two."""
    return ask(
        ("bm25", Finds("d1", "d2", "d3"), 3),
        ("dense", Finds("d3", "d4", "d5", "d6", score_kind="cosine"), 4),
        ("fused", Sums(), 3, "bm25", "dense"),
        ("precise", Prefers("d4", "d1"), 2),
        **asked,  # type: ignore[arg-type]
    )


def instead(result: Result, stage: str, ranked: RankedList, n_out: int, **told: object) -> Result:
    """`result` as it would be had the stage ranked `ranked`; for the last stage the answer is its head."""
    stages = tuple(
        replace(trace, n_out=n_out, **told) if trace.stage == stage else trace  # type: ignore[arg-type]
        for trace in result.trace.stages
    )
    answer = ranked.head(n_out) if stage == result.graph.result.name else result.ranked
    trace = replace(result.trace, stages=stages)
    return replace(result, ranked=answer, outputs={**result.outputs, stage: ranked}, trace=trace)


def skipped(result: Result, stage: str, reason: str) -> Result:
    """`result` had a gate kept a rerank, the last stage, from running: what it was given goes on as it came."""
    node, incoming = result.graph[stage], _incoming(result, stage)
    return instead(result, stage, incoming, min(len(incoming), node.top_k), skipped=reason, n_scored=0, tokens=0)


def stopped(result: Result, stage: str, n_scored: int) -> Result:
    """`result` had the time of a rerank, the last stage, been over after its first `n_scored` documents."""
    node, incoming = result.graph[stage], _incoming(result, stage)
    scores = np.arange(n_scored, 0.0, -1.0)
    ranked = ranking.partly_rescored(stage, incoming, np.arange(n_scored), scores, "logit")
    result = instead(result, stage, ranked, min(len(ranked), node.top_k), n_scored=n_scored, allowed_ms=12.5)
    shortfall = Degraded(stage, "deadline", "its 12.5 ms were over", n_scored, len(ranked))
    return replace(result, trace=replace(result.trace, degraded=(shortfall,), enforced=True))


def stood_in(result: Result, stage: str, n_scored: int) -> Result:
    """`result` had a rerank, the last stage, failed, and its fallback scored its first `n_scored` documents in time."""
    node, incoming, name = result.graph[stage], _incoming(result, stage), f"{stage}~1"
    scores = np.linspace(0.9, 0.1, n_scored)
    ranked = ranking.partly_rescored(name, incoming, np.arange(n_scored), scores, "cosine")
    result = instead(result, stage, ranked, min(len(ranked), node.top_k), n_scored=n_scored)
    short = [Degraded(stage, "error", "no connection", 0, len(ranked))]
    if n_scored < len(ranked):
        short.append(Degraded(name, "deadline", "its 9 ms were over", n_scored, len(ranked)))
    return replace(result, trace=replace(result.trace, degraded=tuple(short)))


def _incoming(result: Result, stage: str) -> RankedList:
    (source,) = result.graph[stage].inputs
    n_passed = next(trace.n_out for trace in result.trace.stages if trace.stage == source)
    return result.outputs[source].head(n_passed)


def explained(result: Result, relevant: Sequence[str] = (), missed: Sequence[str] = ()) -> Explained:
    """`result` as it is shown, with the documents in the order they are `relevant`."""
    flow = flow_of(result)
    documents = {document.doc_id: document for document in Held().read(flow.doc_ids)} | dict(result.documents)
    grades = dict.fromkeys(relevant, 1)
    return Explained(result, flow, documents, grades, tuple(missed), is_judged=bool(relevant or missed))
