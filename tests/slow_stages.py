"""Stages that take a while, fail, or do not hear that they are to stop, and questions asked of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from orchestrator.answers.trace import Result
from orchestrator.errors import (
    CallCancelledError,
    OutOfTimeError,
    TransientError,
)
from orchestrator.running.pace import Paces
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Call, Document, Query, Vectors

Q = Query("q1", "what?")
LONG_S = 60.0
"""Longer than any test may take: where it shows, something was waited for that should have been left."""


class Docs:
    """A document of hundred letters for every id."""

    in_corpus = True

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        return [Document(doc_id, "x" * 100) for doc_id in doc_ids]

    def vectors(self, embedder: object, doc_ids: Sequence[str], call: Call | None = None) -> Vectors:
        return np.ones((len(doc_ids), 2), dtype=np.float32)


class Finds:
    """Finds d00, d01, ... in that order, after a while, or fails."""

    score_kind = "bm25"

    def __init__(self, n: int = 20, wait_s: float = 0.0, error: Exception | None = None, start: int = 0) -> None:
        self.ids = [f"d{place:02}" for place in range(start, start + n)]
        self.wait_s, self.error = wait_s, error
        self.cancelled = threading.Event()
        self.gives_up = False

    def retrieve(self, query: Query, top_k: int, call: Call) -> list[tuple[str, float]]:
        ends = time.perf_counter() + self.wait_s
        while time.perf_counter() < ends:
            if call.cancelled:
                self.cancelled.set()
                raise CallCancelledError("nobody waits")
            if self.gives_up and call.remaining_s == 0:
                raise OutOfTimeError("a server", 0.0)
            time.sleep(0.002)
        if self.error is not None:
            raise self.error
        return [(doc_id, 100.0 - int(doc_id[1:])) for doc_id in self.ids]


class Reads:
    """Scores a document by its number, the last one best, so many seconds each; hears when it is told to stop."""

    score_kind = "logit"

    def __init__(self, each_s: float = 0.0, error: Exception | None = None, tells: bool = False) -> None:
        self.each_s, self.error, self.tells = each_s, error, tells
        self.calls: list[list[str]] = []

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
        self.calls.append([document.doc_id for _, document in pairs])
        scores = [float(document.doc_id[1:]) for _, document in pairs]
        for row, score in enumerate(scores):
            self.wait(call)
            if self.error is not None and row == len(pairs) // 2:
                raise self.error
            if self.tells:
                call.report([row], [score])
        return np.array(scores)

    def wait(self, call: Call) -> None:
        ends = time.perf_counter() + self.each_s
        while time.perf_counter() < ends:
            if call.cancelled:
                raise CallCancelledError("nobody waits")
            time.sleep(0.001)


class FarAway(Reads):
    is_remote = True


class Deaf(Reads):
    """Hears nothing."""

    def __init__(self, free: threading.Event) -> None:
        super().__init__()
        self.free = free

    def wait(self, call: Call) -> None:
        self.free.wait(LONG_S)


class Reverses:
    """A window rerank that turns each window round, so many seconds each."""

    score_kind = "rank"
    needs = frozenset({"text"})
    window, stride, passes = 4, 2, 1

    def __init__(self, waits: Callable[[int], float] = lambda n: 0.0) -> None:
        self.waits, self.n = waits, 0

    def order(self, query: Query, documents: Sequence[Document], call: Call) -> Sequence[int]:
        ends = time.perf_counter() + self.waits(self.n)
        while time.perf_counter() < ends:
            if call.cancelled:
                raise CallCancelledError("nobody waits")
            time.sleep(0.001)
        self.n += 1
        return list(reversed(range(len(documents))))


class Whole(Reads):
    """A list rerank that takes its time."""

    needs = frozenset[str]()

    def rescore(self, query: Query, candidates: Any, call: Call) -> np.ndarray:
        self.wait(call)
        return np.arange(len(candidates), dtype=float)

    score = None  # type: ignore[assignment]


class Merges:
    score_kind = "rrf"

    def fuse(self, query: Query, lists: Any, call: Call) -> list[tuple[str, float]]:
        ids = dict.fromkeys(doc_id for ranked in lists.values() for doc_id in ranked.doc_ids)
        return [(doc_id, 1.0 / rank) for rank, doc_id in enumerate(ids, start=1)]


def spec(name: str, stage: object, top_k: int = 20, *inputs: str, **keys: Any) -> StageSpec:
    return replace(StageSpec(name, stage, top_k, tuple(inputs)), **keys)  # type: ignore[arg-type]


def runner(*specs: StageSpec, budget_ms: float | None = 300.0, paces: Paces | None = None) -> Runner:
    return Runner(StageGraph.of(specs), Docs(), budget_ms, paces=paces)


def ask(*specs: StageSpec, budget_ms: float | None = 300.0, paces: Paces | None = None) -> Result:
    (result,) = runner(*specs, budget_ms=budget_ms, paces=paces).run([Q])
    return result


def reasons(result: Result) -> list[tuple[str, str, int, int]]:
    return [(lack.stage, lack.reason, lack.scored, lack.of) for lack in result.degraded]


DOWN = TransientError("reranker at http://somewhere", "no connection")
