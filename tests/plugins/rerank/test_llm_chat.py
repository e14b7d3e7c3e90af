"""What every rerank by a language model shares: keys and addresses, the ladder of structures, tokens and money."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from servers import LocalServer, Reply, Seen, chat, completion

from orchestrator import Pipeline
from orchestrator.errors import ConfigError, MalformedReplyError, PermanentError
from orchestrator.models import Model
from orchestrator.plugins.estimate import estimated_tokens
from orchestrator.plugins.llm.chat import Answer
from orchestrator.plugins.rerank.llm import LLMRerank
from orchestrator.types import Call, Document, Query

QUERY = Query("q", "what damages the optic nerve?")
DOCUMENTS = [Document("a", "the great wall"), Document("b", "glaucoma damages the optic nerve")]
INSTRUCTIONS = {"en": {"system": "Judge.", "user": "Question: {query}\n\n{documents}"}}
TABLE = {
    "m": {"input": 1.0, "cached_input": 0.1, "output": 10.0, "source": "a page"},
    "free": {"input": 0, "output": 0},
}
USE = "pipeline.stages.precise.use"
Make = Callable[..., LLMRerank]


@pytest.fixture
def make(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Loaded stages on the local server, closed at the end. Retries wait a millisecond."""
    monkeypatch.setattr(random, "uniform", lambda low, high: min(high, 0.001))
    server.answer = chat
    made: list[LLMRerank] = []

    def loaded(name: str = "m", **arguments: Any) -> LLMRerank:
        given = {"base_url": f"{server.url}/v1", "instructions": INSTRUCTIONS, **arguments}
        made.append(LLMRerank(Model(role="reranker", name=name), **given))
        made[-1].load()
        return made[-1]

    yield loaded
    for stage in made:
        stage.close()


def with_usage(usage: Any) -> Callable[[Seen], Reply]:
    return lambda seen: Reply(200, {**chat(seen).body, "usage": usage})


def test_a_key_can_stand_in_any_header_and_the_address_have_a_query(make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: completion('{"ranking": [1, 2]}')
    azure = {"key_header": "api-key", "key_prefix": "", "extra_query": {"api-version": "2024-10-21"}}
    base = f"{server.url}/openai/deployments/mine"
    make(api_key="secret", base_url=base, **azure).order(QUERY, DOCUMENTS, Call())
    (seen,) = server.seen
    assert seen.path == "/openai/deployments/mine/chat/completions?api-version=2024-10-21"
    assert seen.headers["api-key"] == "secret"
    assert "authorization" not in seen.headers


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({"api_key": "secret"}, "Bearer secret"),
        ({"api_key": "secret", "key_prefix": "Token "}, "Token secret"),
        ({"api_key": None}, None),
        ({"api_key": ""}, None),
    ],
)
def test_the_key_is_sent_as_said_and_never_guessed(
    arguments: Any, sent: str | None, make: Make, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of openai")
    make(**arguments).order(QUERY, DOCUMENTS, Call())
    assert server.seen[0].headers.get("authorization") == sent


def test_a_key_is_in_no_representation_and_no_message(make: Make, server: LocalServer) -> None:
    stage = make(api_key="very secret", key_header="api-key", key_prefix="")
    assert "very secret" not in repr(stage)
    server.answer = lambda seen: Reply(401, {"error": {"message": f"wrong key {seen.headers['api-key']}"}})
    with pytest.raises(PermanentError, match=r"wrong key \*\*\*"):
        stage.order(QUERY, DOCUMENTS, Call())


def test_azure_is_one_word_away(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = lambda seen: completion('{"ranking": [2, 1]}')
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "key of azure")
    words = [f"rerank@{USE}=llm_azure", f"{USE}.name=mine", f"{USE}.base_url={server.url}/openai/v1"]
    with Pipeline.compose(["pipeline=llm", *words]) as pipeline:
        assert pipeline.rerank(QUERY, ["x", "y"]).doc_ids == ("1", "0")
    (seen,) = server.seen
    assert (seen.path, seen.headers["api-key"]) == ("/openai/v1/chat/completions", "key of azure")
    assert "authorization" not in seen.headers


def test_deepseek_is_asked_for_an_object_and_paid_by_the_table(server: LocalServer) -> None:
    server.answer = lambda seen: completion('{"ranking": [2, 1]}')
    words = [f"rerank@{USE}=llm_deepseek", f"{USE}.base_url={server.url}"]
    with Pipeline.compose(["pipeline=llm", *words]) as pipeline:
        (trace,) = pipeline.rerank(QUERY, ["x", "y"]).trace.stages
    (body,) = server.bodies
    assert body["response_format"] == {"type": "json_object"}
    assert (body["thinking"], body["model"]) == ({"type": "disabled"}, "deepseek-flash")
    assert trace.cost_usd == pytest.approx((900 * 0.3 + 40 * 1.2) / 1e6)


def test_requests_side_by_side_climb_down_the_ladder_once(make: Make, server: LocalServer) -> None:
    """A late refusal of a strict structure never brings back one that was refused already."""
    arrived = threading.Barrier(4)

    def plain(seen: Seen) -> Reply:
        wanted = seen.body.get("response_format")
        if not wanted:
            return chat(seen)
        if wanted["type"] == "json_schema":
            arrived.wait(5)
        return Reply(422, {"error": {"message": f"guided decoding is off: {wanted['type']}"}})

    server.answer = plain
    stage = make()
    threads = [threading.Thread(target=stage.order, args=(QUERY, DOCUMENTS, Call())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stage.chat.structure == "text"
    before = len(server.seen)
    stage.order(QUERY, DOCUMENTS, Call())
    assert len(server.seen) == before + 1


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": 900}])
def test_untold_usage_is_estimated_and_marked_so(usage: Any, make: Make, server: LocalServer) -> None:
    server.answer = with_usage(usage)
    call = Call()
    make(prices=TABLE).order(QUERY, DOCUMENTS, call)
    sent = estimated_tokens("".join(message["content"] for message in server.bodies[0]["messages"]))
    written = estimated_tokens('{"ranking": [2, 1]}')
    assert call.tokens == sent + written
    assert call.cost_usd == pytest.approx((sent * 1.0 + written * 10.0) / 1e6)
    assert call.notes == ["m tells no usage: tokens and money are an estimate"]


def test_untold_usage_leaves_all_that_was_set_aside_in_the_purse(make: Make, server: LocalServer) -> None:
    server.answer = with_usage(None)
    stage = make(prices=TABLE, max_output_tokens=1000, max_usd=0.012)
    stage.order(QUERY, DOCUMENTS, Call())
    stage.close()
    stage.load()
    with pytest.raises(PermanentError, match="not asked"):
        stage.order(QUERY, DOCUMENTS, Call())


@pytest.mark.parametrize("structure", ["json_schema", "text"])
def test_no_request_can_cost_more_than_was_set_aside(structure: str, make: Make, server: LocalServer) -> None:
    """Not even one of text without words, each byte of which is a token, with the schema and the marks of a chat."""
    base64 = [Document(doc_id, "aGVsbG8" * 570) for doc_id in "ab"]
    arguments = {"prices": TABLE, "max_document_tokens": 2000, "max_output_tokens": 100, "structure": structure}
    server.answer = with_usage({"prompt_tokens": 1, "completion_tokens": 1})
    make(**arguments).order(QUERY, base64, Call())
    body = server.bodies[0]
    sent = sum(len(message["content"]) for message in body["messages"]) + len(str(body.get("response_format", "")))
    dearest = ((sent + 2 * 20) * 1.0 + 100 * 10.0) / 1e6
    with pytest.raises(PermanentError, match="not asked"):
        make(**arguments, max_usd=dearest).order(QUERY, base64, Call())
    make(**arguments, max_usd=dearest + 0.0005).order(QUERY, base64, Call())
    assert len(server.seen) == 2


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens", "max_output_tokens", "my_limit"])
@pytest.mark.parametrize("value", [9000, None])
def test_an_output_limit_is_said_in_one_place(key: str, value: Any, make: Make) -> None:
    with pytest.raises(ConfigError, match=rf"^extra\.{key}: limits the output; expected `max_output_tokens`"):
        make(extra={key: value}, max_tokens_key="my_limit")
    with pytest.raises(ConfigError, match=r"^extra\.n: asks for several answers, and one is read"):
        make(extra={"n": 3})


def test_an_error_within_a_200_is_told(make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(200, {"error": {"message": "model 'm' not found, very secret"}})
    with pytest.raises(
        MalformedReplyError, match=r"the reply has no `choices`, and says: model 'm' not found, \*\*\*$"
    ):
        make(api_key="very secret").order(QUERY, DOCUMENTS, Call())
    assert len(server.seen) == 1


def test_a_status_within_a_200_counts_as_the_answers_own(make: Make, server: LocalServer) -> None:
    server.faults += [Reply(200, {"error": {"message": "busy", "code": 503}})]
    assert list(make().order(QUERY, DOCUMENTS, Call())) == [1, 0]
    server.answer = lambda seen: Reply(200, {"error": {"message": "no such model", "code": 404}})
    with pytest.raises(PermanentError, match="answered 404: no such model"):
        make().order(QUERY, DOCUMENTS, Call())


@pytest.mark.parametrize(
    "held",
    [{"prompt_tokens_details": {"cached_tokens": 600}}, {"prompt_cache_hit_tokens": 600}],
    ids=["as OpenAI tells it", "as DeepSeek tells it"],
)
def test_input_that_the_server_still_held_has_a_price_of_its_own(held: Any, make: Make, server: LocalServer) -> None:
    server.answer = with_usage({"prompt_tokens": 900, "completion_tokens": 40, **held})
    call = Call()
    make(prices=TABLE).order(QUERY, DOCUMENTS, call)
    assert call.cost_usd == pytest.approx((300 * 1.0 + 600 * 0.1 + 40 * 10.0) / 1e6)
    make(prices=TABLE, usd_per_million_cached_input_tokens=0.5).order(QUERY, DOCUMENTS, own := Call())
    assert own.cost_usd == pytest.approx((300 * 1.0 + 600 * 0.5 + 40 * 10.0) / 1e6)
    make(usd_per_million_input_tokens=1.0).order(QUERY, DOCUMENTS, bare := Call())
    assert bare.cost_usd == pytest.approx(900 * 1.0 / 1e6), "without a price of its own it costs what input costs"


def test_what_a_model_thinks_to_itself_is_paid_for_where_the_total_alone_tells_it(
    make: Make, server: LocalServer
) -> None:
    server.answer = with_usage({"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 3050})
    call = Call()
    make(prices=TABLE).order(QUERY, DOCUMENTS, call)
    assert call.tokens == 3050
    assert call.cost_usd == pytest.approx((1000 * 1.0 + 2050 * 10.0) / 1e6)
    assert call.notes == []


def test_a_price_of_the_stage_wins_over_the_table(make: Make, server: LocalServer) -> None:
    call = Call()
    make(prices=TABLE, usd_per_million_output_tokens=20.0).order(QUERY, DOCUMENTS, call)
    assert call.cost_usd == pytest.approx((900 * 1.0 + 40 * 20.0) / 1e6)


def test_a_model_without_a_price_is_declared(make: Make, server: LocalServer) -> None:
    for name, table, notes in (
        ("other", TABLE, ["no money is counted: `prices` knows no model 'other'"]),
        ("free", TABLE, []),
        ("other", None, []),
    ):
        call = Call()
        make(name, prices=table).order(QUERY, DOCUMENTS, call)
        assert (call.cost_usd, call.notes) == (0.0, notes)


def test_another_name_takes_its_price_from_the_table(server: LocalServer) -> None:
    server.answer = lambda seen: completion('{"ranking": [2, 1]}')
    words = ["+scenario=prototype_llm", f"{USE}.base_url={server.url}/v1", f"{USE}.name=gpt-5.6-terra"]
    with Pipeline.compose(words) as pipeline:
        (trace,) = pipeline.rerank(QUERY, ["x", "y"]).trace.stages
    assert trace.cost_usd == pytest.approx((900 * 2.0 + 40 * 12.0) / 1e6)
    with pytest.raises(ConfigError, match=rf"^{USE}\.max_usd: needs both prices of 'mine', and .* or max_usd=null"):
        Pipeline.compose([*words, f"{USE}.name=mine"])
    assert Pipeline.compose([*words, f"{USE}.name=mine", f"{USE}.max_usd=null"]).graph["precise"].stage


@pytest.mark.parametrize(("window", "fits"), [(20, False), (10, True)])
def test_a_request_has_to_fit_the_context(window: int, fits: bool, make: Make) -> None:
    arguments = {"window": window, "stride": 5, "max_document_tokens": 600, "max_output_tokens": 1500}
    card = Model(role="reranker", name="m", max_length_tokens=8192)
    if fits:
        assert LLMRerank(card, INSTRUCTIONS, **arguments).window == window
        return
    needed = 20 * (600 + 25) + 1500 + estimated_tokens("Judge.") + estimated_tokens(INSTRUCTIONS["en"]["user"])
    message = f"max_length_tokens: found 8192; 20 document.s. of 600 tokens .* need some {needed}: lower"
    with pytest.raises(ConfigError, match=message):
        LLMRerank(card, INSTRUCTIONS, **arguments)


def test_a_prompt_that_the_server_cut_is_noticed(make: Make, server: LocalServer) -> None:
    long = [Document("a", "word " * 3000), *DOCUMENTS]
    make(max_document_tokens=9000).order(QUERY, long, call := Call())
    assert call.notes == ["m read 900 tokens of a longer prompt: is the server's context too short?"]
    server.answer = with_usage({"prompt_tokens": 3300, "completion_tokens": 10})
    make(max_document_tokens=9000).order(QUERY, long, whole := Call())
    assert whole.notes == []


def test_a_cut_document_is_declared(make: Make, server: LocalServer) -> None:
    make(max_document_tokens=5).order(QUERY, DOCUMENTS, call := Call())
    assert call.notes == ["documents cut to an estimated 5 tokens"]


@pytest.mark.parametrize(
    ("choice", "answer"),
    [
        ({"message": {"content": "x"}, "finish_reason": "stop"}, Answer("x")),
        ({"message": {"content": [{"type": "text", "text": "x"}, {"text": "y"}, {}]}}, Answer("xy")),
        ({"message": {"content": None, "refusal": "no"}}, Answer("", refused=True)),
        ({"message": {"content": "x"}, "finish_reason": "content_filter"}, Answer("x", "content_filter")),
        ({"message": {"content": None}, "finish_reason": "content_filter"}, Answer("", "content_filter", True)),
        ({"message": None}, Answer("")),
        (None, Answer("")),
    ],
)
def test_answers_are_read_from_every_shape_of_a_choice(choice: Any, answer: Answer) -> None:
    assert Answer.of(choice) == answer
