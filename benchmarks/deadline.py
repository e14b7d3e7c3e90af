"""Answers inside a budget: how near they come to it, how much of a cross-encoder's work fits, and what that is worth.

    python benchmarks/deadline.py DATA_DIR/medquad MODEL_DIR > benchmarks/results/deadline.txt

MODEL_DIR is a cross-encoder that beats the fused list on that set, for example one from `orchestrate train
cross_encoder tuning.max_length_tokens=128`. Two stacks: BM25 100 + dense 100 -> RRF 100 -> cross-encoder over all 100,
and the offline stack, where late interaction over 100 takes the cross-encoder's place. Each answers the same test
queries one at a time with each budget, alone and beside a second process that keeps every core busy. No score is kept
between questions.

    p50 p95 p99   wall time of a query, milliseconds, seen from outside
    used          median share of the budget that was used
    scoring       share of the wall time of all queries that went into reranking
    asked         share of the queries in which the rerank scored anything
    scored        share of the documents that it scored
    nDCG@10       of the answers; `p` compares them with the fused list that came before (paired randomization)

The last row of each table has no budget.

Then a rerank service over HTTP with faults (tests/faulty.py), REMOTE_QUERIES queries of REMOTE_BUDGET_MS for each:

    whole         share of the queries in which it scored all documents
    asked         requests that reached it
    wrong         scores in all answers that are not those of the document
    used again    queries, 50 ms apart, after its fault was mended, until it scored again
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator import Pipeline
from orchestrator.answers.trace import Result
from orchestrator.evaluation.measures import Measures
from orchestrator.evaluation.significance import paired_randomization
from orchestrator.models import Model
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Call, Document, Query, ScoreKind, Vectors

BUDGETS_MS = (25, 50, 100, 200, 500, 1000, 2000)
MEASURE = "nDCG@10"
DEPTH = "100"
RERANK = "precise"
MAX_LENGTH_TOKENS = 128
"""Of a pair; as the model was trained."""
WORDS = ("glaucoma", "damages", "the", "optic", "nerve", "of", "an", "eye")
REMOTE_BUDGET_MS, REMOTE_QUERIES = 300.0, 40
BUSY = """
import numpy as np
a = np.random.default_rng(0).random((1500, 1500), dtype=np.float32)
while True:
    a @ a
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--queries", type=int, default=150)
    parser.add_argument("--words", nargs="*", default=[], help="further overrides of every run")
    arguments = parser.parse_args()
    corpus = [f"corpus.path={arguments.data_dir}", "budget_ms=2000", *arguments.words]
    stacks = {
        "cross-encoder over 100": [
            *("pipeline=cross_encoder", "model@models.reranker=local", f"models.reranker.path={arguments.model_dir}"),
            f"pipeline.stages.{RERANK}.use.max_length_tokens={MAX_LENGTH_TOKENS}",
        ],
        "late interaction over 100": [
            "pipeline=cross_encoder",
            f"rerank@pipeline.stages.{RERANK}.use=late_interaction",
        ],
    }
    print(header(arguments.data_dir.name, arguments.queries), flush=True)
    for name, stack in stacks.items():
        depths = [f"pipeline.stages.{stage}.top_k={DEPTH}" for stage in ("bm25", "dense", "fused")]
        with Pipeline.compose([*stack, *depths, f"pipeline.stages.{RERANK}.top_k=10", *corpus]) as pipeline:
            measure(name, pipeline, arguments.queries)
    measure_remotes()


def header(corpus: str, n_queries: int) -> str:
    names = ("rerank-orchestrator", "onnxruntime", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {versions}"
    return f"{machine}\n{corpus}, {n_queries} test queries, one at a time, each budget"


def measure(name: str, pipeline: Pipeline, n_queries: int) -> None:
    """Print one table alone, and one beside a busy process."""
    pipeline.load()
    asked = sample(pipeline, n_queries)
    for place in ("alone", "beside a busy process"):
        print(f"\n{name}, {place}")
        print(
            f"{'budget':>6} {'p50':>7} {'p95':>7} {'p99':>7} {'used':>6} {'scoring':>8} {'asked':>6} {'scored':>7} "
            f"{MEASURE:>8} {'before':>7} {'p':>6}",
            flush=True,
        )
        load = subprocess.Popen([sys.executable, "-c", BUSY]) if place != "alone" else None
        try:
            for budget_ms in (*BUDGETS_MS, None):
                show(budget_ms, answers(pipeline, asked, budget_ms), pipeline)
        finally:
            if load is not None:
                load.kill()
                load.wait()


def sample(pipeline: Pipeline, n_queries: int) -> list[Query]:
    """Judged queries, spread evenly over the split."""
    qrels = pipeline.corpus.qrels()
    judged = [query for query in pipeline.corpus.queries() if query.query_id in qrels]
    places = np.unique(np.linspace(0, len(judged) - 1, num=min(n_queries, len(judged))).astype(int))
    return [judged[place] for place in places]


@dataclass
class Answer:
    """One answer and its wall time in milliseconds."""

    result: Result
    ms: float


def answers(pipeline: Pipeline, asked: Sequence[Query], budget_ms: float | None) -> list[Answer]:
    found = []
    for query in asked:
        started = time.perf_counter()
        (result,) = pipeline.search_many(
            [query], budget_ms=budget_ms, enforce_budget=budget_ms is not None, use_kept=False
        )
        found.append(Answer(result, (time.perf_counter() - started) * 1000))
    return found


def show(budget_ms: float | None, found: Sequence[Answer], pipeline: Pipeline) -> None:
    ms = np.array([answer.ms for answer in found])
    p50, p95, p99 = np.percentile(ms, [50, 95, 99])
    reranks = [stage for answer in found for stage in answer.result.trace.stages if stage.stage == RERANK]
    scored = np.array([stage.n_scored or 0 for stage in reranks])
    of = sum(stage.n_in for stage in reranks)
    after, before = quality(pipeline, found, RERANK), quality(pipeline, found, "fused")
    p = paired_randomization(after - before)
    used = f"{p50 / budget_ms:6.2f}" if budget_ms else f"{'':>6}"
    share = sum(stage.ms for stage in reranks) / ms.sum()
    print(
        f"{budget_ms or 'none':>6} {p50:7.1f} {p95:7.1f} {p99:7.1f} {used} {share:8.2f} "
        f"{(scored > 0).mean():6.2f} {scored.sum() / of:7.3f} {after.mean():8.4f} {before.mean():7.4f} {p:6.2g}",
        flush=True,
    )


def measure_remotes() -> None:
    """Print one table: a rerank service behind each fault."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from faulty import BROKEN, MALFORMED_RERANK, Faulty
    from servers import LocalServer, jina

    print(f"\na rerank service with faults, 20 documents, {REMOTE_QUERIES} queries of {REMOTE_BUDGET_MS:g} ms")
    print(f"{'fault':16} {'p50':>7} {'p95':>7} {'p99':>7} {'whole':>6} {'asked':>6} {'wrong':>6} {'used again':>11}")
    faults = {"none": None, "flapping": None, **BROKEN, **MALFORMED_RERANK}
    for name, fault in faults.items():
        with LocalServer(jina) as server, Faulty(server.url) as proxy:
            runner, query = remote_pipeline(proxy.url)
            runner.run([query], budget_ms=10_000.0)
            proxy.fault = fault
            before, ms, results = proxy.asked, [], []
            for place in range(REMOTE_QUERIES):
                if name == "flapping" and place % 4 < 2:  # two requests in four are hung up on
                    proxy.flap(BROKEN["hangs_up"], 1)
                started = time.perf_counter()
                results += runner.run([query])
                ms.append((time.perf_counter() - started) * 1000)
            asked = proxy.asked - before
            proxy.fault = None
            again = next((n for n, result in enumerate(asked_again(runner, query), 1) if not result.degraded), None)
        p50, p95, p99 = np.percentile(ms, [50, 95, 99])
        whole = np.mean([not result.degraded for result in results])
        print(
            f"{name:16} {p50:7.1f} {p95:7.1f} {p99:7.1f} {whole:6.2f} {asked:6} {wrong_scores(results):6} {again:11}",
            flush=True,
        )


def remote_pipeline(url: str) -> tuple[Runner, Query]:
    """Twenty documents that a local stage finds, reranked at `url`."""
    from orchestrator.plugins.rerank.api import ApiRerank

    stage = ApiRerank(Model(role="reranker", name="m"), url, {"path": "/v1/rerank"}, retries=1)
    stage.load()
    specs = [StageSpec("bm25", Given(), 20), StageSpec(RERANK, stage, 5)]
    return Runner(StageGraph.of(specs), Given(), REMOTE_BUDGET_MS), Query("q", "what damages the optic nerve?")


class Given:
    """Finds the same twenty documents for every question, and holds them."""

    score_kind: ScoreKind = "bm25"
    in_corpus = True

    def retrieve(self, query: Query, top_k: int, call: Call) -> list[tuple[str, float]]:
        return [(f"d{place}", 20.0 - place) for place in range(20)]

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        return [Document(doc_id, text_of(doc_id)) for doc_id in doc_ids]

    def vectors(self, embedder: object, doc_ids: Sequence[str], call: Call | None = None) -> Vectors:
        raise NotImplementedError


def text_of(doc_id: str) -> str:
    return " ".join([WORDS[int(doc_id[1:]) % len(WORDS)]] * 3)


def wrong_scores(results: Sequence[Result]) -> int:
    """Scores that the service would not give their document."""
    from servers import relevance

    rows = [(result.query.text, row) for result in results for row in result.ranked if row.score_kind == "probability"]
    return sum(abs(row.score - relevance(text, text_of(row.doc_id))) > 1e-6 for text, row in rows)


def asked_again(runner: Runner, query: Query) -> Iterator[Result]:
    """Answers, until the service is tried again at the latest."""
    for _ in range(1200):
        yield runner.run([query])[0]
        time.sleep(0.05)


def quality(pipeline: Pipeline, found: Sequence[Answer], stage: str) -> np.ndarray:
    """Float [n_queries]: of the ranking as it was after `stage`."""
    qrels = pipeline.corpus.qrels()
    rankings = {answer.result.query.query_id: answer.result.uncut(100, stage) for answer in found}
    values = Measures([MEASURE]).per_query({query_id: qrels[query_id] for query_id in rankings}, rankings)
    return np.array([values[query_id][MEASURE] for query_id in rankings])


if __name__ == "__main__":
    main()
