"""Stages on remote services that are slow, trickling, dead, flapping or malformed, over real HTTP.

A call ends in time, with the true scores or with an error; a service that is there again is used again.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from faulty import BROKEN, MALFORMED, MALFORMED_RERANK, Fault, Faulty
from servers import LocalServer, chat, embeddings, grade_of, jina, relevance, vector_of

from orchestrator.errors import (
    CallCancelledError,
    CircuitOpenError,
    MalformedReplyError,
    OutOfTimeError,
    PermanentError,
    RemoteError,
    TransientError,
)
from orchestrator.models import Model
from orchestrator.plugins.embed.openai import OpenAIEmbed
from orchestrator.plugins.rerank.api import ApiRerank
from orchestrator.plugins.rerank.llm import LLMRerank
from orchestrator.plugins.rerank.llm_point import LLMPointRerank
from orchestrator.services.breaker import breaker_of
from orchestrator.types import Call, Document, Query

QUERY = Query("q", "what damages the optic nerve?")
TEXTS = ["the great wall", "glaucoma damages the optic nerve", "an eye", "青光眼会损害视神经"]
DOCUMENTS = [Document(f"d{place}", text) for place, text in enumerate(TEXTS)]
PAIRS = [(QUERY, document) for document in DOCUMENTS]
RELEVANT = [relevance(QUERY.text, text) for text in TEXTS]
CARD = Model(role="reranker", name="m")
ASKED = {"system": "Judge.", "user": 'Question: {query}\n\n{document}\n\nReply {"grade": number}.'}
ORDERED = {"system": "Judge.", "user": "Question: {query}\n\n{documents}\n\nOrder them."}
LATE_S = 3.0
"""Generous: a call that is not stopped takes five seconds, or for ever."""

Ask = Callable[[Call], Any]


def rerank(url: str, **options: Any) -> tuple[Any, Ask]:
    stage = ApiRerank(CARD, url, {"path": "/v1/rerank"}, **options)
    return stage, lambda call: stage.score(PAIRS, call)


def grades(url: str, **options: Any) -> tuple[Any, Ask]:
    instructions = {"grade": {"en": ASKED}}
    stage = LLMPointRerank(CARD, instructions, base_url=f"{url}/v1", scoring="grade", **options)
    return stage, lambda call: stage.score(PAIRS, call)


def window(url: str, **options: Any) -> tuple[Any, Ask]:
    stage = LLMRerank(CARD, {"en": ORDERED}, base_url=f"{url}/v1", **options)
    return stage, lambda call: stage.order(QUERY, DOCUMENTS, call)


def embedder(url: str, **options: Any) -> tuple[Any, Ask]:
    stage = OpenAIEmbed(Model(role="embedder", name="m"), f"{url}/v1", dim=8, **options)
    return stage, lambda call: stage.embed(TEXTS, kind="query", call=call)


KINDS: dict[str, tuple[Callable[..., tuple[Any, Ask]], Any, Any]] = {
    "rerank": (rerank, jina, RELEVANT),
    "grades": (grades, chat, [grade_of(score) for score in RELEVANT]),
    "window": (window, chat, sorted(range(4), key=lambda place: -RELEVANT[place])),
    "embedder": (embedder, embeddings, [vector_of(text) for text in TEXTS]),
}
Make = Callable[..., tuple[Ask, Any]]


@pytest.fixture
def proxy(server: LocalServer) -> Iterator[Faulty]:
    with Faulty(server.url) as running:
        yield running


@pytest.fixture
def make(server: LocalServer, proxy: Faulty) -> Iterator[Make]:
    """A stage of a kind behind the proxy: how it is asked, and what it should answer."""
    made: list[Any] = []

    def loaded(kind: str, **options: Any) -> tuple[Ask, Any]:
        build, server.answer, expected = KINDS[kind]
        stage, ask = build(proxy.url, **{"retries": 0, **options})
        stage.load()
        made.append(stage)
        return ask, expected

    yield loaded
    for stage in made:
        stage.close()


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_service_costs_no_more_than_the_time_and_serves_again_when_it_is_there(
    kind: str, fault: str, make: Make, proxy: Faulty
) -> None:
    ask, expected = make(kind, retries=2)
    proxy.fault = BROKEN[fault]
    started = time.monotonic()
    with pytest.raises(TransientError):
        ask(Call(remaining_s=0.15))
    assert time.monotonic() - started < LATE_S
    assert proxy.asked > 0
    proxy.fault = None
    np.testing.assert_allclose(ask(Call(remaining_s=30.0)), expected, rtol=1e-6)


@pytest.mark.parametrize("fault", MALFORMED_RERANK)
def test_no_score_is_taken_from_a_malformed_ranking(fault: str, make: Make, proxy: Faulty) -> None:
    ask, expected = make("rerank")
    proxy.fault = MALFORMED_RERANK[fault]
    with pytest.raises(RemoteError):
        ask(call := Call())
    assert call.reported == {}
    proxy.fault = None
    np.testing.assert_allclose(ask(call), expected)
    assert call.reported == pytest.approx(dict(enumerate(expected)))


@pytest.mark.parametrize("fault", MALFORMED)
@pytest.mark.parametrize("kind", ["grades", "window", "embedder"])
def test_nothing_is_taken_from_a_malformed_answer(kind: str, fault: str, make: Make, proxy: Faulty) -> None:
    ask, expected = make(kind)
    proxy.fault = MALFORMED[fault]
    with pytest.raises(RemoteError):
        ask(Call())
    proxy.fault = None
    np.testing.assert_allclose(ask(Call()), expected, rtol=1e-6)


@pytest.mark.parametrize(("fault", "kind"), [("cut_json", TransientError), ("no_json", MalformedReplyError)])
def test_an_answer_that_broke_off_may_come_whole_and_a_login_page_will_not(
    fault: str, kind: type[RemoteError], make: Make, proxy: Faulty
) -> None:
    ask, _ = make("rerank")
    proxy.fault = MALFORMED[fault]
    with pytest.raises(RemoteError) as caught:
        ask(Call())
    assert type(caught.value) is kind


def test_a_503_within_a_200_is_a_503(make: Make, proxy: Faulty) -> None:
    ask, expected = make("rerank", retries=1)
    proxy.flap(Fault(change=lambda body: {"error": {"code": 503, "message": "warming up"}, "results": []}), 1)
    np.testing.assert_allclose(ask(Call()), expected)
    assert proxy.asked == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_flapping_service_is_asked_again_within_the_call(kind: str, make: Make, proxy: Faulty) -> None:
    ask, expected = make(kind, retries=2, concurrency=1)
    proxy.flap(BROKEN["unavailable"], 1)
    proxy.flap(BROKEN["hangs_up"], 1)
    np.testing.assert_allclose(ask(Call(remaining_s=30.0)), expected, rtol=1e-6)


def test_a_dead_service_is_left_alone_then_tried_by_one_and_used_again(make: Make, proxy: Faulty) -> None:
    ask, expected = make("rerank")
    proxy.fault = BROKEN["hangs_up"]
    for _ in range(3):
        with pytest.raises(TransientError, match="no connection"):
            ask(Call())
    with pytest.raises(CircuitOpenError, match=r"left alone for 0\.0 s now.* The last failure: no connection"):
        ask(Call())
    assert proxy.asked == 3
    proxy.fault = None
    time.sleep(1.05)
    np.testing.assert_allclose(ask(Call()), expected)
    np.testing.assert_allclose(ask(Call()), expected)
    assert proxy.asked == 5


def test_a_probe_that_fails_makes_the_wait_longer(make: Make, proxy: Faulty) -> None:
    ask, expected = make("rerank")
    with proxy.refusing():
        for _ in range(3):
            with pytest.raises(TransientError, match="no connection"):
                ask(Call())
        time.sleep(1.05)
        with pytest.raises(TransientError, match="no connection"):
            ask(Call())
        with pytest.raises(CircuitOpenError) as caught:
            ask(Call())
        assert 1.0 < caught.value.next_in_s <= 2.0
        assert caught.value.open_for_s >= 1.05
    time.sleep(caught.value.next_in_s + 0.05)
    np.testing.assert_allclose(ask(Call()), expected)


def test_a_service_too_slow_for_the_budget_costs_the_first_three_calls_alone(make: Make, proxy: Faulty) -> None:
    ask, expected = make("rerank")
    proxy.fault = Fault(delay_s=0.3)
    for _ in range(3):
        with pytest.raises(OutOfTimeError):
            ask(Call(remaining_s=0.1))
    for _ in range(5):
        with pytest.raises(CircuitOpenError, match=r"no answer within the 0\.1 s that were left"):
            ask(Call(remaining_s=0.1))
    assert proxy.asked == 3
    np.testing.assert_allclose(ask(Call(remaining_s=30.0)), expected)
    np.testing.assert_allclose(ask(Call()), expected)


def test_a_wrong_key_is_never_hidden_by_the_breaker(make: Make, proxy: Faulty) -> None:
    ask, _ = make("rerank", key_variable="MY_RERANK_KEY")
    proxy.fault = Fault(status=401)
    for _ in range(6):
        with pytest.raises(PermanentError, match=r"answered 401.*put it into the environment variable MY_RERANK_KEY"):
            ask(Call())


@pytest.mark.parametrize("fault", ["dead", "slow", "trickling"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cancelled_call_closes_its_connections(kind: str, fault: str, make: Make, proxy: Faulty) -> None:
    ask, expected = make(kind)
    proxy.fault = BROKEN[fault]
    call = Call()
    timer = threading.Timer(0.1, call.cancel)
    timer.start()
    for _ in range(4):  # cancelled calls are nobody's failure
        with pytest.raises(CallCancelledError):
            ask(call)
    timer.join()
    assert proxy.wait_hung_up(1)
    assert proxy.wait_hung_up(proxy.asked)
    proxy.fault = None
    np.testing.assert_allclose(ask(Call()), expected, rtol=1e-6)


def test_ctrl_c_ends_the_wait_and_closes_the_connections(make: Make, proxy: Faulty) -> None:
    ask, expected = make("rerank")
    proxy.fault = BROKEN["dead"]
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        ask(Call())
    timer.join()
    assert proxy.wait_hung_up(1)
    proxy.fault = None
    np.testing.assert_allclose(ask(Call()), expected)


@pytest.mark.parametrize("kind", ["rerank", "grades"])
def test_scores_that_came_in_time_are_told_though_others_did_not(kind: str, make: Make, proxy: Faulty) -> None:
    options: dict[str, Any] = {"max_documents": 1} if kind == "rerank" else {}
    ask, expected = make(kind, concurrency=2, **options)
    proxy.flap(BROKEN["dead"], 1)
    with pytest.raises(OutOfTimeError, match=r"\(3 of 4 requests were answered\)") as caught:
        ask(call := Call(remaining_s=1.0))
    assert caught.value.answered == len(call.reported) == 3
    assert call.reported == pytest.approx({row: expected[row] for row in call.reported})


def test_windows_of_one_call_share_its_time(make: Make, proxy: Faulty) -> None:
    ask, expected = make("window")
    proxy.fault = Fault(delay_s=0.4)
    call = Call(remaining_s=0.7)
    assert ask(call) == expected
    with pytest.raises(OutOfTimeError) as caught:
        ask(call)
    assert caught.value.had_s <= 0.7 - 0.4


def test_no_time_at_all_asks_nobody(make: Make, proxy: Faulty) -> None:
    ask, _ = make("rerank")
    for _ in range(4):
        with pytest.raises(OutOfTimeError):
            ask(Call(remaining_s=0.0))
    assert proxy.asked == 0
    assert breaker_of(f"m at {proxy.url}/v1/rerank").state == "closed"


def test_many_threads_are_refused_at_once_and_served_again(make: Make, proxy: Faulty) -> None:
    ask, expected = make("rerank")

    def outcome(_: int) -> str:
        try:
            found = ask(Call(remaining_s=0.3))
        except RemoteError as error:
            return type(error).__name__
        np.testing.assert_allclose(found, expected)
        return "scores"

    with ThreadPoolExecutor(8) as pool:
        proxy.fault = BROKEN["hangs_up"]
        assert set(pool.map(outcome, range(16))) <= {"TransientError", "CircuitOpenError"}
        asked = proxy.asked
        assert set(pool.map(outcome, range(16))) == {"CircuitOpenError"}
        assert proxy.asked == asked
        proxy.fault = None
        time.sleep(1.05)
        ask(Call())
        assert set(pool.map(outcome, range(16))) == {"scores"}
