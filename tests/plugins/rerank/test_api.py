from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import RERANKERS, LocalServer, Reply, jina, relevance

from orchestrator import Pipeline
from orchestrator.errors import (
    CallCancelledError,
    ConfigError,
    MalformedReplyError,
    OutOfTimeError,
    PermanentError,
    StageError,
    TransientError,
)
from orchestrator.models import Model
from orchestrator.plugins.estimate import estimated_tokens, fitting_characters, most_tokens, room_within, token_spans
from orchestrator.plugins.rerank.api import ApiRerank
from orchestrator.running.cutting import Cutter
from orchestrator.services import breaker
from orchestrator.stack.passages import Passages
from orchestrator.testing import PointwiseRerankContract
from orchestrator.types import Call, Document, Query

QUERY = Query("q", "what damages the optic nerve?")
TEXTS = ["glaucoma damages the optic nerve", "the great wall", "an eye", "青光眼会损害视神经"]
PAIRS = [(QUERY, Document(f"d{place}", text)) for place, text in enumerate(TEXTS)]
TRUE = [relevance(QUERY.text, text) for text in TEXTS]
FORMAT = {"path": "/v1/rerank"}
Make = Callable[..., ApiRerank]


@pytest.fixture
def make(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Loaded stages on the local server in Jina's format, closed at the end. Retries wait a millisecond."""
    monkeypatch.setattr(random, "uniform", lambda low, high: min(high, 0.001))
    server.answer = jina
    made: list[ApiRerank] = []

    def loaded(card: Mapping[str, Any] | None = None, **arguments: Any) -> ApiRerank:
        model = Model(**{"role": "reranker", "name": "m", **(card or {})})
        made.append(ApiRerank(model, **{"base_url": server.url, "format": FORMAT, **arguments}))
        made[-1].load()
        return made[-1]

    yield loaded
    for stage in made:
        stage.close()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHERE_API_KEY", "key of cohere")


@pytest.fixture
def stage(make: Make) -> ApiRerank:
    return make()


class TestContract(PointwiseRerankContract):
    @pytest.fixture(autouse=True)
    def _make(self, make: Make) -> None:
        self.make = make  # type: ignore[method-assign]


def test_tokens_are_paid_for(make: Make) -> None:
    call = Call()
    make(usd_per_million_tokens=0.05).score(PAIRS, call)
    assert call.tokens == sum(len(text.split()) for text in TEXTS)
    assert call.cost_usd == pytest.approx(call.tokens * 0.05 / 1e6)


def test_tokens_that_are_not_told_are_estimated_and_marked_so(make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(200, {"results": jina(seen).body["results"]})
    call = Call()
    make(usd_per_million_tokens=0.05).score(PAIRS, call)
    estimate = sum(estimated_tokens(QUERY.text) + estimated_tokens(text) for text in TEXTS)
    assert call.tokens == estimate
    assert call.cost_usd == pytest.approx(estimate * 0.05 / 1e6)
    assert call.notes == ["the service tells no tokens: they and their price are an estimate"]


def test_money_is_checked_before_the_request(make: Make, server: LocalServer) -> None:
    at_most = sum(most_tokens(QUERY.text) + most_tokens(text) + 100 for text in TEXTS)
    told = sum(len(text.split()) for text in TEXTS)
    poor = make(usd_per_million_tokens=1e6, max_usd=at_most - 0.5)
    with pytest.raises(PermanentError, match=rf"not asked: the request can cost \${at_most}\.0000, and .* is left of"):
        poor.score(PAIRS, Call())
    assert server.seen == []
    enough = make(usd_per_million_tokens=1e6, max_usd=at_most + told + 0.5)
    for _ in range(2):  # what was set aside beyond the told tokens is free again
        enough.score(PAIRS, Call())
    with pytest.raises(PermanentError, match="not asked"):
        enough.score(PAIRS, Call())
    assert len(server.seen) == 2


def test_untold_tokens_leave_all_that_was_set_aside_in_the_purse(make: Make, server: LocalServer) -> None:
    """Of text without words, such as base64, the estimate is too low by half: a limit must not stand on it."""
    server.answer = lambda seen: Reply(200, {"results": jina(seen).body["results"]})
    pairs = [(QUERY, Document("a", "aGVsbG8" * 500))]
    at_most = most_tokens(QUERY.text) + 3500 + 100
    stage = make(usd_per_million_tokens=1e6, max_usd=2 * at_most - 0.5)
    stage.score(pairs, Call())
    with pytest.raises(PermanentError, match="not asked"):
        stage.score(pairs, Call())
    assert len(server.seen) == 1


def test_search_units_are_set_aside_for_the_shortest_tokens(make: Make, server: LocalServer) -> None:
    """A document of 50,400 bytes, its question and what is around them are at most 102 pieces: two units."""
    pairs = [(QUERY, Document("a", "aGVsbG8" * 7200))]
    with pytest.raises(PermanentError, match=r"the request can cost \$2\.0000"):
        make(usd_per_thousand_units=1000.0, max_usd=1.5).score(pairs, Call())
    assert server.seen == []


def test_an_error_within_a_200_is_told(make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(200, {"error": {"message": "the model is not loaded, sk-secret"}})
    with pytest.raises(
        MalformedReplyError, match=r"check `format`\. The service says: the model is not loaded, \*\*\*$"
    ):
        make(api_key="sk-secret").score(PAIRS, Call())


def test_long_documents_are_cut_where_it_is_said(make: Make, server: LocalServer) -> None:
    pairs = [(QUERY, Document("a", "a" * 100)), (QUERY, Document("b", "青" * 100)), (QUERY, Document("c", "short"))]
    call = Call()
    make(max_document_tokens=10).score(pairs, call)
    assert server.bodies[0]["documents"] == ["a" * 30, "青" * 6, "short"]
    assert call.notes == ["documents cut to an estimated 10 tokens"]
    make().score(pairs, quiet := Call())
    assert (len(server.bodies[1]["documents"][0]), quiet.notes) == (100, [])


def test_room_and_spans_are_by_the_estimate_that_cuts(make: Make, server: LocalServer) -> None:
    stage, text = make(max_document_tokens=14), "glaucoma 青光眼会损害视神经 damages the nerve"
    assert make().room(QUERY) is None
    room = stage.room(QUERY)
    assert room == 10
    spans = stage.token_spans(text)
    assert len(spans) == estimated_tokens(text)
    parts = [
        text[spans[first, 0] : spans[min(first + room, len(spans)) - 1, 1]] for first in range(0, len(spans), room)
    ]
    call = Call()
    stage.score([(QUERY, Document(str(place), part)) for place, part in enumerate(parts)], call)
    assert server.bodies[0]["documents"] == parts, "a window as large as the room is not cut again"
    assert call.notes == []


@given(text=st.text())
def test_spans_cover_a_text_in_order(text: str) -> None:
    spans = token_spans(text)
    assert spans.shape == (estimated_tokens(text), 2)
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (np.diff(spans, axis=0) >= 0).all()
    covered = {place for first, last in spans for place in range(first, last)}
    assert covered == set(range(len(text)))


MIXED = st.text(st.sampled_from("ab .\n中文，é🙂1"), min_size=1, max_size=80)


@given(text=MIXED, limit=st.integers(4, 40))
def test_as_many_spans_as_there_is_room_stay_within_the_limit(text: str, limit: int) -> None:
    spans, room = token_spans(text), room_within(limit)
    for first in range(len(spans)):
        part = text[spans[first, 0] : spans[min(first + room, len(spans)) - 1, 1]]
        assert estimated_tokens(part) <= limit
        assert fitting_characters(part, limit) == len(part)


@given(text=MIXED, title=MIXED, limit=st.integers(8, 40), how=st.sampled_from(["windows", "head_tail", "title_lead"]))
def test_a_passage_under_its_title_is_not_cut_again(
    text: str, title: str, limit: int, how: Literal["windows", "head_tail", "title_lead"]
) -> None:
    class Estimated:
        def token_spans(self, text: str) -> Any:
            return token_spans(text)

        def room(self, query: str) -> int:
            return room_within(limit)

    passages = Cutter(Passages(how=how), Estimated(), Call()).cut(QUERY, Document("a", text, title))
    assert all(estimated_tokens(passage.document.full_text) <= limit for passage in passages)


@given(text=st.text())
def test_a_token_is_at_least_a_byte(text: str) -> None:
    assert most_tokens(text) >= max(len(text.encode("utf-8", "surrogatepass")), estimated_tokens(text) // 2)
    assert most_tokens("½" * 3) == 3 * len("1⁄2".encode()), "some tokenizers write it out first"


def test_pairs_of_several_queries_are_grouped_and_come_back_in_their_order(make: Make, server: LocalServer) -> None:
    other = Query("r", "how long is the wall?")
    pairs = [(query, document) for _, document in PAIRS for query in (QUERY, other)]
    found = make().score(pairs, Call())
    np.testing.assert_allclose(found, [relevance(query.text, document.text) for query, document in pairs])
    assert sorted((body["query"], len(body["documents"])) for body in server.bodies) == [
        (other.text, 4),
        (QUERY.text, 4),
    ]


def test_requests_keep_to_the_limits_of_count_and_bytes(make: Make, server: LocalServer) -> None:
    np.testing.assert_allclose(make(max_documents=3).score(PAIRS, Call()), TRUE)
    assert sorted(len(body["documents"]) for body in server.bodies) == [1, 3]
    server.seen.clear()
    np.testing.assert_allclose(make(max_bytes=50).score(PAIRS, Call()), TRUE)
    assert all(sum(len(text.encode()) for text in body["documents"]) <= 50 for body in server.bodies)
    server.seen.clear()
    one = estimated_tokens(QUERY.text) + max(map(estimated_tokens, TEXTS))
    np.testing.assert_allclose(make(max_tokens=one + 1).score(PAIRS, Call()), TRUE)
    asked = estimated_tokens(QUERY.text)
    for body in server.bodies:
        assert sum(asked + estimated_tokens(text) for text in body["documents"]) <= one + 1


def test_a_document_is_read_with_its_title(make: Make, server: LocalServer) -> None:
    make().score([(QUERY, Document("d", "harms the nerve", title="Glaucoma"))], Call())
    assert server.bodies[0]["documents"] == ["Glaucoma\nharms the nerve"]


def test_documents_can_be_objects_and_keys_stand_in_any_header(make: Make, server: LocalServer) -> None:
    own = {"path": "/v1/rerank", "document_text": "text", "key_header": "Api-Key", "key_prefix": ""}
    server.answer = lambda seen: Reply(200, {"results": [{"index": 0, "relevance_score": 0.5}]})
    stage = make(format={**own, "headers": {"X-Version": "7"}, "extra": {"a": 1}}, api_key="secret")
    assert stage.score(PAIRS[:1], Call()) == [0.5]
    seen = server.seen[0]
    assert seen.body == {"query": QUERY.text, "documents": [{"text": TEXTS[0]}], "model": "m", "top_n": 1, "a": 1}
    assert (seen.headers["api-key"], seen.headers["x-version"]) == ("secret", "7")
    assert "authorization" not in seen.headers


def test_a_path_can_hold_the_models_name_and_a_question_be_an_object(make: Make, server: LocalServer) -> None:
    own = {"path": "/rerank/{name}/now", "model": None, "top": None, "query_text": "text"}
    server.answer = lambda seen: Reply(200, {"results": [{"index": 0, "relevance_score": 0.5}]})
    assert make({"name": "my model/2"}, format=own).score(PAIRS[:1], Call()) == [0.5]
    assert server.seen[0].path == "/rerank/my%20model%2F2/now"
    assert server.seen[0].body == {"query": {"text": QUERY.text}, "documents": TEXTS[:1]}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data(), n=st.integers(1, 9))
def test_score_and_document_never_part_whatever_the_reply(
    data: st.DataObject, n: int, stage: ApiRerank, server: LocalServer
) -> None:
    """Results in any order, missing, given again with the same or another score, or of documents never sent."""
    breaker.forget()  # an example that fails must not keep the next one from asking
    texts = [f"text {place}" for place in range(n)]
    true = {place: relevance(QUERY.text, text) for place, text in enumerate(texts)}
    answered = data.draw(st.lists(st.integers(-1, n), max_size=2 * n) | st.permutations(range(n)))
    spoiled = data.draw(st.sampled_from([0, 0, 0, 1]))
    results = [{"index": place, "relevance_score": true.get(place, 0.5)} for place in answered]
    if spoiled and results:
        results.append({**results[0], "relevance_score": 0.123})
    server.answer = lambda seen: Reply(200, {"results": results})
    pairs = [(QUERY, Document(text, text)) for text in texts]
    whole = set(answered) == set(range(n)) and not spoiled
    call = Call()
    if whole:
        np.testing.assert_array_equal(stage.score(pairs, call), [true[place] for place in range(n)])
        assert sum(call.repairs.values()) == len(answered) - n
        assert set(call.repairs) <= {"duplicate"}
    else:
        with pytest.raises(MalformedReplyError):
            stage.score(pairs, call)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"results": [{"index": 0, "relevance_score": 0.5}]}, "no score for 3 of 4 documents: 1, 2, 3"),
        ({"results": [{"index": 4, "relevance_score": 0.5}]}, "a result of index 4; expected 0 to 3"),
        ({"results": [{"index": "0", "relevance_score": 0.5}]}, "a result of index '0'"),
        ({"results": [{"index": True, "relevance_score": 0.5}]}, "a result of index True"),
        ({"results": [{"relevance_score": 0.5}]}, "a result of index None"),
        ({"results": [{"index": 0, "score": 0.5}]}, "document 0 with None at 'relevance_score'; expected a number"),
        ({"results": [{"index": 0, "relevance_score": float("nan")}]}, "document 0 with nan"),
        ({"results": [{"index": 1, "relevance_score": s} for s in (0.1, 0.2)]}, r"document 1 twice: 0\.1 and 0\.2"),
        ({"data": []}, "no list of results at 'results'; check `format`"),
        ([], "no list of results at 'results'"),
        ("<html>Log in</html>", "not JSON"),
        ({"results": [{"index": i, "relevance_score": 3.2} for i in range(4)]}, r"3\.2, which is no probability; set"),
    ],
)
def test_a_reply_that_does_not_fit_its_request_is_refused(
    reply: Any, message: str, make: Make, server: LocalServer
) -> None:
    server.faults.append(Reply(200, reply))
    with pytest.raises(MalformedReplyError, match=message):
        make().score(PAIRS, Call())
    assert len(server.seen) == 1


@pytest.mark.parametrize("body", ['{"results": [{"index": 0, "releva', "", " \n", "[{"])
def test_a_reply_that_breaks_off_is_asked_for_again(body: str, make: Make, server: LocalServer) -> None:
    server.faults.append(Reply(200, body))
    np.testing.assert_allclose(make().score(PAIRS, Call()), TRUE)
    server.faults.append(Reply(200, body))
    with pytest.raises(TransientError, match="the reply is empty or broken off"):
        make(retries=0).score(PAIRS, Call())


@pytest.mark.parametrize("status", [429, 500, 503, 424])
def test_a_passing_fault_is_tried_again(status: int, make: Make, server: LocalServer) -> None:
    server.faults += [Reply(status, {"message": "busy"}, {"Retry-After": "0"})] * 2
    np.testing.assert_allclose(make().score(PAIRS, Call()), TRUE)
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_permanent_fault_fails_at_once_with_the_services_words(status: int, make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(status, {"message": "no such thing, sk-secret"})
    with pytest.raises(
        PermanentError, match=rf"^m at http://127.*/v1/rerank: answered {status}: no such thing, \*\*\*"
    ):
        make(api_key="sk-secret").score(PAIRS, Call())
    assert len(server.seen) == 1


def test_one_deadline_covers_all_requests(make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(200, jina(seen).body, delay_s=0.06)
    stage = make(max_documents=1, concurrency=1)
    started = time.perf_counter()
    with pytest.raises(TransientError, match=r"no answer within the 0\.15 s that were left"):
        stage.score(PAIRS, Call(remaining_s=0.15))
    assert time.perf_counter() - started < 1.0
    np.testing.assert_allclose(stage.score(PAIRS, Call(remaining_s=30.0)), TRUE)


def test_a_trickling_server_does_not_outlive_the_timeout(make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(200, jina(seen).body, trickle_s=0.02)
    with pytest.raises(TransientError, match=r"no answer within 0\.1 s \(timeout_s\); gave up after 1 attempt"):
        make(timeout_s=0.1, retries=0).score(PAIRS, Call())
    assert server.hung_up.wait(2.0)


def test_a_cancelled_call_hangs_up(make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(200, jina(seen).body, trickle_s=0.02)
    call, stage = Call(), make()
    timer = threading.Timer(0.1, call.cancel)
    timer.start()
    with pytest.raises(CallCancelledError):
        stage.score(PAIRS, call)
    timer.join()
    assert server.hung_up.wait(2.0)


def test_nobody_listening_is_a_lost_connection(make: Make) -> None:
    with pytest.raises(TransientError, match="no connection"):
        make(base_url="http://127.0.0.1:9", retries=0).score(PAIRS, Call())


def test_model_id_tells_apart_what_changes_scores(make: Make) -> None:
    made = [
        make(),
        make({"name": "other"}),
        make(base_url="http://elsewhere"),
        make(format={"path": "/v2/rerank"}),
        make(format={**FORMAT, "extra": {"max_tokens_per_doc": 512}}),
        make(max_document_tokens=512),
        make(score_kind="logit"),
        make(format={**FORMAT, "score": "logit"}),
        make(format={**FORMAT, "document_text": "text"}),
        make(format={**FORMAT, "headers": {"X-Version": "1"}}),
    ]
    assert len({stage.model_id for stage in made}) == len(made)
    assert make(api_key="secret", timeout_s=1).model_id == make().model_id
    other_key = {"key_header": "X-Key", "key_prefix": "", "headers": {"X-Version": "2"}}
    assert make(format={**FORMAT, **other_key}).model_id == made[-1].model_id, "nothing that may be secret"


def test_that_no_money_is_counted_is_said_also_when_the_time_ends(make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(200, jina(seen).body, delay_s=1.0)
    call = Call(remaining_s=0.05)
    with pytest.raises(OutOfTimeError):
        make(prices={}).score(PAIRS, call)
    assert call.notes == ["no money is counted: `prices` knows no model 'm'"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score_kind": "probabilty"}, r"score_kind: found 'probabilty'; .*Did you mean 'probability'\?"),
        ({"format": {"path": "v1"}}, "format.path: found 'v1'; expected a path such as /v1/rerank"),
        ({"format": {}}, "format.path: found None"),
        ({"format": {**FORMAT, "docments": "x"}}, r"format.docments: no such key; .*Did you mean 'documents'\?"),
        ({"base_url": "api.cohere.com"}, "base_url: found 'api.cohere.com'"),
        ({"max_documents": 0}, "max_documents: found 0"),
        ({"usd_per_thousand_units": -2}, "usd_per_thousand_units: found -2; expected US dollars, from 0"),
        ({"usd_per_million_tokens": "2"}, "usd_per_million_tokens: found '2'"),
        ({"max_tokens": 0}, "max_tokens: found 0"),
        ({"max_document_tokens": True}, "max_document_tokens: found True"),
        ({"max_usd": 1.0}, "max_usd: needs the price of 'm', and `prices` has none: set usd_per_million_tokens or"),
        ({"max_usd": -1.0, "usd_per_million_tokens": 1}, "max_usd: found -1.0"),
        ({"prices": {"m": {"inputs": 1}}}, r"prices\.m: no column 'inputs'; columns: input, cached_input"),
        ({"prices": {"m": {"input": "cheap"}}}, r"prices\.m: found 'cheap'"),
        ({"timeout_s": 0}, "timeout_s: found 0"),
    ],
)
def test_wrong_arguments_are_named(arguments: Any, message: str, make: Make) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**arguments)


def test_an_embedder_card_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"role: .* is a card of role embedder; expected reranker"):
        make({"role": "embedder"})


def test_a_pipeline_names_the_stage_that_failed(server: LocalServer) -> None:
    server.answer = lambda seen: Reply(401, {"message": "invalid api token"})
    use = "pipeline.stages.precise.use"
    with (
        Pipeline.compose(["+scenario=hosted_api", f"{use}.base_url={server.url}"]) as pipeline,
        pytest.raises(
            StageError, match=r"^stage 'precise', query 'q1': rerank-v4.0-fast at http.*answered 401: invalid"
        ),
    ):
        pipeline.rerank("the eye", ["a wall", "an eye"])


def test_the_scenario_answers_in_the_order_of_the_service(server: LocalServer) -> None:
    server.answer = RERANKERS["cohere"]
    use = "pipeline.stages.precise.use"
    with Pipeline.compose(["+scenario=hosted_api", f"{use}.base_url={server.url}"]) as pipeline:
        result = pipeline.rerank(QUERY, TEXTS)
        again = pipeline.rerank(QUERY, TEXTS[::-1])
    assert [result.documents[doc_id].text for doc_id in result.doc_ids] == [
        text for _, text in sorted(zip(TRUE, TEXTS, strict=True), reverse=True)
    ]
    assert [again.documents[doc_id].text for doc_id in again.doc_ids] == [
        result.documents[doc_id].text for doc_id in result.doc_ids
    ]
    assert result.trace.stages[-1].cost_usd == pytest.approx(2.0 / 1000)
