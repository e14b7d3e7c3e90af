"""Whole pipelines on services that are slow, trickling, dead, flapping or malformed, over real HTTP.

Every question is answered in its budget, nothing wrong is in the answer, and a service that is there again is used
again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from faulty import BROKEN, MALFORMED_RERANK, Fault, Faulty
from servers import LocalServer, chat, jina, relevance

from orchestrator.answers.trace import Result
from orchestrator.errors import StageError
from orchestrator.models import Model
from orchestrator.plugins.rerank.api import ApiRerank
from orchestrator.plugins.rerank.llm import LLMRerank
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.stack.policy import OnError
from orchestrator.types import Call, Document, Query, Vectors

QUERY = Query("q", "what damages the optic nerve?")
TEXTS = ["the great wall", "glaucoma damages the optic nerve", "an eye", "青光眼会损害视神经"]
AS_THEY_CAME = ("d0", "d1", "d2", "d3")
BUDGET_MS = 400.0
LATE_MS = 2500.0
"""Generous, for a machine with other work: a question that is not stopped takes five seconds, or for ever."""
CARD = Model(role="reranker", name="m")
ORDERED = {"system": "Judge.", "user": "Question: {query}\n\n{documents}\n\nOrder them."}


class Held:
    in_corpus = True

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        return [Document(doc_id, TEXTS[int(doc_id[1:])]) for doc_id in doc_ids]

    def vectors(self, embedder: object, doc_ids: Sequence[str], call: Call | None = None) -> Vectors:
        raise AssertionError("no stage here needs vectors")


class Finds:
    score_kind = "bm25"

    def retrieve(self, query: Query, top_k: int, call: Call) -> list[tuple[str, float]]:
        return [(doc_id, 4.0 - place) for place, doc_id in enumerate(AS_THEY_CAME)]


class Shortest:
    score_kind = "graded"

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> Any:
        return np.array([-float(len(document.text)) for _, document in pairs])


@pytest.fixture
def proxy(server: LocalServer) -> Iterator[Faulty]:
    server.answer = jina
    with Faulty(server.url) as running:
        yield running


@pytest.fixture
def stage(proxy: Faulty) -> Iterator[ApiRerank]:
    made = ApiRerank(CARD, proxy.url, {"path": "/v1/rerank"}, retries=1)
    made.load()
    yield made
    made.close()


def pipeline(stage: object, on_error: OnError | None = None, budget_ms: float | None = BUDGET_MS) -> Runner:
    specs = [StageSpec("bm25", Finds(), 4), StageSpec("precise", stage, 4, on_error=on_error or OnError())]  # type: ignore[arg-type]
    return Runner(StageGraph.of(specs), Held(), budget_ms)


def ask(runner: Runner) -> tuple[Result, float]:
    started = time.perf_counter()
    (result,) = runner.run([QUERY])
    return result, (time.perf_counter() - started) * 1000


def right_scores(result: Result) -> None:
    """Every score in the answer is the one that the service truly gives that document."""
    for candidate in result.ranked:
        if candidate.score_kind == "probability":
            expected = relevance(QUERY.text, TEXTS[int(candidate.doc_id[1:])])
            assert candidate.scores["precise"] == pytest.approx(expected)


def used_again(runner: Runner, within_s: float = 30.0) -> bool:
    """Whether the service answers again before long: breakers and paces try it again now and then."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        result, _ = ask(runner)
        right_scores(result)
        if not result.degraded:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("fault", [*BROKEN, *MALFORMED_RERANK])
def test_every_question_is_answered_and_a_service_that_is_there_again_is_used_again(
    fault: str, stage: ApiRerank, proxy: Faulty
) -> None:
    runner = pipeline(stage)
    assert used_again(runner)
    proxy.fault = {**BROKEN, **MALFORMED_RERANK}[fault]
    for _ in range(5):
        result, ms = ask(runner)
        assert ms < LATE_MS
        assert result.doc_ids == AS_THEY_CAME
        assert [(lack.stage, lack.scored, lack.of) for lack in result.degraded] == [("precise", 0, 4)]
        right_scores(result)
    proxy.fault = None
    assert used_again(runner)


def test_a_dead_service_soon_costs_no_question_its_time(stage: ApiRerank, proxy: Faulty) -> None:
    runner = pipeline(stage)
    assert used_again(runner)
    proxy.fault = BROKEN["dead"]
    for _ in range(6):
        ask(runner)
    before = proxy.asked
    times = [ask(runner)[1] for _ in range(5)]
    assert proxy.asked - before <= 2
    assert min(times) < BUDGET_MS / 4


def test_a_flapping_service_is_used_when_it_is_there(stage: ApiRerank, proxy: Faulty) -> None:
    runner = pipeline(stage, budget_ms=3000.0)
    proxy.flap(BROKEN["hangs_up"], 1)  # within the retries
    result, _ = ask(runner)
    assert result.degraded == ()
    assert result.doc_ids[0] == "d1"
    proxy.flap(BROKEN["hangs_up"], 2)  # and one more than those
    result, _ = ask(runner)
    assert [lack.reason for lack in result.degraded] == ["error"]
    assert used_again(runner)


def test_a_wrong_key_fails_the_question_whatever_the_policy(stage: ApiRerank, proxy: Faulty) -> None:
    proxy.fault = Fault(status=401)
    for policy in (OnError(), OnError("skip"), OnError("fallback", (Shortest(),))):
        with pytest.raises(StageError, match=r"stage 'precise', query 'q': m at http.*answered 401"):
            pipeline(stage, policy).run([QUERY])


def test_a_stand_in_answers_for_a_dead_service(stage: ApiRerank, proxy: Faulty) -> None:
    proxy.fault = BROKEN["dead"]
    result, ms = ask(pipeline(stage, OnError("fallback", (Shortest(),))))
    assert ms < LATE_MS
    assert list(result.doc_ids) == sorted(AS_THEY_CAME, key=lambda doc_id: len(TEXTS[int(doc_id[1:])]))
    assert next(iter(result.ranked)).score_kind == "graded"


@pytest.mark.parametrize("fault", BROKEN)
def test_a_language_model_that_is_not_there_leaves_the_order_that_came(
    fault: str, server: LocalServer, proxy: Faulty
) -> None:
    server.answer = chat
    stage = LLMRerank(CARD, {"en": ORDERED}, base_url=f"{proxy.url}/v1", retries=0)
    stage.load()
    runner = pipeline(stage)
    proxy.fault = BROKEN[fault]
    result, ms = ask(runner)
    assert ms < LATE_MS
    assert result.doc_ids == AS_THEY_CAME
    assert [lack.stage for lack in result.degraded] == ["precise"]
    proxy.fault = None
    assert used_again(runner)
    stage.close()
