"""The runner's own cost per query: five trivial stages over 200 candidates, in microseconds.

    python benchmarks/runner.py

The stages do next to nothing, so what is measured is order, ties, score columns, trace and documents.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.plugins.fusion.rrf import ReciprocalRankFusion
from orchestrator.plugins.rerank.null import NullRerank
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Call, Document, Need, Query, Scored, ScoreKind, Vectors

ROUNDS = 300


class Constant:
    """A recall that hands out the same candidates."""

    score_kind: ScoreKind = "bm25"

    def __init__(self, n: int, offset: int) -> None:
        self._pairs = [(f"doc{place + offset}", float(n - place)) for place in range(n)]

    def retrieve(self, query: Query, top_k: int, call: Call) -> Scored:
        return self._pairs


class Length:
    """A pointwise rerank with prepared scores."""

    score_kind: ScoreKind = "logit"
    needs: frozenset[Need] = frozenset({"text"})

    def __init__(self) -> None:
        self._scores = np.random.default_rng(0).random(10_000, dtype=np.float32)

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
        return self._scores[: len(pairs)]


class Memory:
    """Documents in a dictionary."""

    def __init__(self, documents: Mapping[str, Document]) -> None:
        self._documents = documents

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        return [self._documents[doc_id] for doc_id in doc_ids]

    def vectors(self, embedder: object, doc_ids: Sequence[str], call: Call | None = None) -> Vectors:
        raise NotImplementedError("no stage here needs vectors")


def time_candidates(n: int) -> tuple[float, float]:
    """Microseconds of one query: median of the whole run, and of the stages' own code within it."""
    fusion = ReciprocalRankFusion()
    stages = [
        StageSpec("bm25", Constant(n, 0), n),
        StageSpec("dense", Constant(n, n // 2), n),
        StageSpec("fused", fusion, n, ("bm25", "dense")),
        StageSpec("shortlist", Length(), n),
        StageSpec("precise", NullRerank(), 10),
    ]
    documents = {f"doc{place}": Document(f"doc{place}", "text") for place in range(2 * n)}
    runner = Runner(StageGraph.of(stages), Memory(documents))
    query = Query("q", "a question")
    totals = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        (result,) = runner.run([query])
        totals.append((time.perf_counter() - started) * 1e6)
    lists = {name: result.outputs[name] for name in ("bm25", "dense")}
    own = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        fusion.fuse(query, lists, Call())
        own.append((time.perf_counter() - started) * 1e6)
    return statistics.median(totals), statistics.median(own)


def main() -> None:
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}, median of {ROUNDS}")
    print(f"{'candidates':>10} {'one query µs':>13} {'of which RRF µs':>16} {'runner µs a candidate':>22}")
    for n in (50, 200, 1000, 5000):
        total, own = time_candidates(n)
        print(f"{n:>10} {total:>13.0f} {own:>16.0f} {(total - own) / n:>22.2f}")


if __name__ == "__main__":
    main()
