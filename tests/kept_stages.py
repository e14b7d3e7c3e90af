"""Stages that count how often they are asked, a stack of them, and jobs that share what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from orchestrator.answers.trace import Result
from orchestrator.running.runner import Runner
from orchestrator.running.stage_key import stage_key
from orchestrator.running.stage_results import SharedResults, StageResults
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Call, Document, Query, RankedList, Scores, Vectors

IDS = [f"d{place}" for place in range(12)]
QUERIES = [Query(f"q{place}", f"what about {'eye ' * place}number {place}?") for place in range(7)]


class Docs:
    in_corpus = True

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        return [Document(doc_id, f"the text of {doc_id} and " * (1 + int(doc_id[1:]))) for doc_id in doc_ids]

    def vectors(self, embedder: object, doc_ids: Sequence[str], call: Call | None = None) -> Vectors:
        return np.array([[float(doc_id[1:]), 1.0] for doc_id in doc_ids], dtype=np.float32)


class Counted:
    """Counts the questions that it was asked, over all objects of its class's tests."""

    def __init__(self, **settings: Any) -> None:
        self.asked: list[str] = []
        for name, value in settings.items():
            setattr(self, name, value)


class Embeds:
    dim, model_id, similarity = 2, "embeds", "dot"

    def load(self) -> None:
        """Nothing to load."""

    def embed(self, texts: Sequence[str], *, kind: str, call: Call) -> Vectors:
        call.count(tokens=sum(map(len, texts)), cost_usd=0.001 * len(texts))
        call.note("embedded")
        return np.array([[len(text) % 5, 1.0] for text in texts], dtype=np.float32)


EMBEDS = Embeds()


class Finds(Counted):
    """Finds documents by a rule that differs from question to question."""

    score_kind = "bm25"
    step = 3

    def retrieve(self, query: Query, top_k: int, call: Call) -> list[tuple[str, float]]:
        self.asked.append(query.query_id)
        call.count(tokens=len(query.text))
        if len(query.text) % 2:
            call.note(f"odd: {query.query_id}")
        start = len(query.text) % self.step
        return [(doc_id, 10.0 - place // 2) for place, doc_id in enumerate(IDS[start:])][:top_k]


class FindsNear(Counted):
    score_kind = "dot"
    needs = frozenset({"vectors"})
    embedder = EMBEDS

    def retrieve(self, query: Query, top_k: int, call: Call) -> list[tuple[str, float]]:
        self.asked.append(query.query_id)
        assert query.vector is not None
        return [(doc_id, float(query.vector[0]) + place) for place, doc_id in enumerate(IDS[4:])][:top_k]


class Sums(Counted):
    score_kind = "rrf"

    def fuse(self, query: Query, lists: Mapping[str, RankedList], call: Call) -> list[tuple[str, float]]:
        self.asked.append(query.query_id)
        totals: dict[str, float] = {}
        for ranked in lists.values():
            for rank, doc_id in enumerate(ranked.doc_ids, start=1):
                totals[doc_id] = totals.get(doc_id, 0.0) + 1 / (60 + rank)
        return list(totals.items())


class Near(Counted):
    score_kind = "dot"
    needs = frozenset({"vectors"})
    embedder = EMBEDS

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> Scores:
        self.asked += sorted({query.query_id for query, _ in pairs})
        call.count(tokens=7 * len(pairs), cost_usd=0.1 * len(pairs))
        return np.array([float(query.vector @ document.vector) for query, document in pairs])  # type: ignore[operator]


class Words(Counted):
    """A pointwise rerank that knows its tokens, so that it can read windows."""

    score_kind = "logit"
    model_id = "words"

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> Scores:
        self.asked += sorted({query.query_id for query, _ in pairs})
        call.count(tokens=sum(len(document.text) for _, document in pairs))
        return np.array([len(document.text) % 7 + len(query.text) / 9 for query, document in pairs])

    def token_spans(self, text: str) -> np.ndarray:
        ends = np.cumsum([len(word) + 1 for word in text.split(" ")])
        return np.array([[end - 1 - len(word), end - 1] for end, word in zip(ends, text.split(" "), strict=True)])

    def room(self, query: str) -> int | None:
        return None


class Lists(Counted):
    score_kind = "ltr"

    def rescore(self, query: Query, candidates: RankedList, call: Call) -> Scores:
        self.asked.append(query.query_id)
        return np.array([sum(candidate.scores.values()) for candidate in candidates])


class Turns(Counted):
    score_kind = "rank"
    window, stride = 3, 2

    def order(self, query: Query, documents: Sequence[Document], call: Call) -> list[int]:
        self.asked.append(query.query_id)
        call.count(tokens=11, cost_usd=0.5)
        call.repair("duplicate", getattr(self, "repairs", 0))
        return list(reversed(range(len(documents))))


@dataclass
class Stack:
    """The stages of one job, by name; each job has objects of its own."""

    specs: dict[str, StageSpec] = field(default_factory=dict)

    @classmethod
    def of(cls, **changes: Any) -> Stack:
        """A stack with a stage of every behaviour; a change is the keys of a StageSpec, or None for no such stage."""
        stages: dict[str, tuple[Any, int, tuple[str, ...]]] = {
            "bm25": (Finds(), 8, ()),
            "dense": (FindsNear(), 6, ()),
            "fused": (Sums(), 9, ("bm25", "dense")),
            "near": (Near(), 7, ("fused",)),
            "words": (Words(), 6, ("near",)),
            "learned": (Lists(), 5, ("words",)),
            "turned": (Turns(), 3, ("learned",)),
        }
        specs = {}
        for name, (stage, top_k, inputs) in stages.items():
            spec = StageSpec(name, stage, top_k, inputs, settings={"_target_": f"{type(stage).__module__}.{name}"})
            specs[name] = replace(spec, **changes.get(name, {}))
        return cls(specs)

    @property
    def graph(self) -> StageGraph:
        return StageGraph.of(list(self.specs.values()))

    @property
    def asked(self) -> dict[str, list[str]]:
        """Stage -> ids of the questions that it was asked, each once."""
        return {name: list(dict.fromkeys(spec.stage.asked)) for name, spec in self.specs.items()}  # type: ignore[union-attr]


def run(
    stack: Stack,
    store: StageResults | None,
    queries: Sequence[Query] = QUERIES,
    corpus: str = "a corpus",
    generation: str | None = None,
) -> list[Result]:
    """One job: its results, after what it keeps is on disk."""
    graph = stack.graph
    keys = {node.name: stage_key(node, graph, corpus, generation) for node in graph.nodes}
    shared = SharedResults(store, keys) if store is not None else None
    results = Runner(graph, Docs()).run(queries, by_query=True, shared=shared, read_documents=False)
    if store is not None:
        store.flush()
    return results


def told(result: Result) -> dict[str, object]:
    """Everything that a result says, but for times and whether it was reused."""
    lists = {name: as_rows(ranked) for name, ranked in result.outputs.items()}
    stages = [
        {
            each.name: getattr(stage, each.name)
            for each in fields(stage)
            if each.name not in ("ms", "started_ms", "reused")
        }
        for stage in result.trace.stages
    ]
    return {"served": as_rows(result.ranked), "lists": lists, "stages": stages, "passages": dict(result.passages)}


def as_rows(ranked: RankedList) -> tuple[object, ...]:
    columns = [(name, column.tobytes()) for name, column in ranked.stage_scores.items()]
    return ranked.doc_ids, ranked.scores.tobytes(), ranked.score_kind, ranked.n_scored, ranked.tail, columns


def same(found: Sequence[Result], expected: Sequence[Result]) -> None:
    assert [told(result) for result in found] == [told(result) for result in expected]


def none_asked(stack: Stack) -> bool:
    return not any(stack.asked.values())
