from __future__ import annotations

import json
import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import LocalServer, Reply, Seen, embeddings, vector_of

from orchestrator.errors import CallCancelledError, ConfigError, MalformedReplyError, PermanentError, TransientError
from orchestrator.models import Model
from orchestrator.plugins.embed.openai import OpenAIEmbed
from orchestrator.plugins.estimate import estimated_tokens, fitting_characters
from orchestrator.testing import EmbedContract
from orchestrator.types import Call

TEXTS = ["glaucoma", "optic nerve", "the great wall", "青光眼"]
Make = Callable[..., OpenAIEmbed]


def unloaded(server: LocalServer, card: dict[str, Any] | None = None, **arguments: Any) -> OpenAIEmbed:
    model = Model(**{"role": "embedder", "name": "m", **(card or {})})
    return OpenAIEmbed(model, **{"base_url": f"{server.url}/v1", "dim": 8, **arguments})


@pytest.fixture
def make(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Loaded embedders on the local server, closed at the end. Retries wait a millisecond."""
    monkeypatch.setattr(random, "uniform", lambda low, high: min(high, 0.001))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.answer = embeddings
    made: list[OpenAIEmbed] = []

    def loaded(card: dict[str, Any] | None = None, **arguments: Any) -> OpenAIEmbed:
        made.append(unloaded(server, card, **arguments))
        made[-1].load()
        return made[-1]

    yield loaded
    for embedder in made:
        embedder.close()


@pytest.fixture
def embedder(make: Make) -> OpenAIEmbed:
    return make()


def embed(embedder: OpenAIEmbed, texts: list[str], call: Call | None = None, kind: Any = "document") -> Any:
    return embedder.embed(texts, kind=kind, call=call or Call())


class TestContract(EmbedContract):
    @pytest.fixture(autouse=True)
    def _make(self, make: Make) -> None:
        self.make_loaded = make

    def make(self) -> OpenAIEmbed:
        return self.make_loaded(dim=None)


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_vectors_are_the_servers_in_the_order_of_the_texts(encoding: str, make: Make, server: LocalServer) -> None:
    vectors = embed(make(encoding_format=encoding), TEXTS)
    np.testing.assert_array_equal(vectors, np.array([vector_of(text) for text in TEXTS], np.float32))
    assert vectors.dtype == np.float32
    assert server.bodies == [{"model": "m", "input": TEXTS, "encoding_format": encoding}]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(order=st.permutations(range(4)))
def test_vector_and_text_never_part_whatever_the_order_of_the_reply(
    order: list[int], embedder: OpenAIEmbed, server: LocalServer
) -> None:
    def shuffled(seen: Seen) -> Reply:
        reply = embeddings(seen)
        reply.body["data"] = [reply.body["data"][place] for place in order]
        return reply

    server.answer = shuffled
    np.testing.assert_array_equal(embed(embedder, TEXTS), np.array([vector_of(text) for text in TEXTS], np.float32))


def _without(data: list[Any]) -> list[Any]:
    return data[:-1]


def _twice(data: list[Any]) -> list[Any]:
    return [data[0], *data[:-1]]


def _beyond(data: list[Any]) -> list[Any]:
    return [*data[:-1], {**data[-1], "index": 4}]


def _unnumbered(data: list[Any]) -> list[Any]:
    return [{"embedding": entry["embedding"]} for entry in data]


def _shorter(data: list[Any]) -> list[Any]:
    return [{**data[0], "embedding": data[0]["embedding"][:5]}, *data[1:]]


def _not_finite(data: list[Any]) -> list[Any]:
    return [{**data[0], "embedding": [float("nan")] * 8}, *data[1:]]


def _words(data: list[Any]) -> list[Any]:
    return [{**data[0], "embedding": "not base64!"}, *data[1:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without, "has 3 vectors for 4 texts"),
        (_twice, "a vector of index 0; expected each of 0 to 3 once"),
        (_beyond, "a vector of index 4; expected each of 0 to 3 once"),
        (_unnumbered, "a vector of index None"),
        (_shorter, "the vector of text 0 has 5 numbers; expected 8"),
        (_not_finite, "the vector of text 0 is no list of finite numbers"),
        (_words, "the vector of text 0 cannot be read"),
    ],
)
def test_a_reply_that_does_not_fit_its_request_is_refused(
    change: Callable[[list[Any]], list[Any]], message: str, make: Make, server: LocalServer
) -> None:
    def changed(seen: Seen) -> Reply:
        reply = embeddings(seen)
        reply.body["data"] = change(reply.body["data"])
        return reply

    server.answer = changed
    with pytest.raises(MalformedReplyError, match=message):
        embed(make(encoding_format="float"), TEXTS)


@pytest.mark.parametrize("body", [{"object": "list"}, [], "<html>Log in</html>"])
def test_a_reply_of_another_shape_is_refused(body: Any, make: Make, server: LocalServer) -> None:
    server.faults.append(Reply(200, body))
    with pytest.raises(MalformedReplyError, match=r"[Cc]heck (that )?`base_url`"):
        embed(make(), TEXTS)


def test_a_reply_that_breaks_off_is_asked_for_again(make: Make, server: LocalServer) -> None:
    server.faults.append(Reply(200, '{"data": [{"ind'))
    assert embed(make(), TEXTS).shape == (4, 8)
    assert len(server.seen) == 2


def test_dimensions_are_asked_for_and_a_declared_length_is_not(make: Make, server: LocalServer) -> None:
    short = make(dim=8, dimensions=5)
    assert short.dim == 5
    assert embed(short, TEXTS).shape == (4, 5)
    assert server.bodies[-1]["dimensions"] == 5
    embed(make(dim=8), TEXTS)
    assert "dimensions" not in server.bodies[-1]


def test_an_undeclared_length_is_found_out_by_one_request(make: Make, server: LocalServer) -> None:
    assert make(dim=None).dim == 8
    assert [body["input"] for body in server.bodies] == [["dimension"]]
    make(dim=8)
    assert len(server.seen) == 1, "a declared length needs no request"


def test_a_length_other_than_declared_is_refused(make: Make) -> None:
    with pytest.raises(MalformedReplyError, match="has 8 numbers; expected 1536"):
        embed(make(dim=1536), TEXTS)


def test_requests_keep_to_the_limits_of_count_and_bytes(make: Make, server: LocalServer) -> None:
    texts = [str(place) * 10 for place in range(9)]
    vectors = embed(make(batch_texts=4), texts)
    np.testing.assert_array_equal(vectors, np.array([vector_of(text) for text in texts], np.float32))
    assert sorted(len(body["input"]) for body in server.bodies) == [1, 4, 4]
    server.seen.clear()
    embed(make(batch_bytes=30), ["青" * 5] * 3)
    assert sorted(len(body["input"]) for body in server.bodies) == [1, 2], "15 bytes each, not 5 characters"


def test_no_more_requests_at_once_than_allowed(make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(200, embeddings(seen).body, delay_s=0.03)
    embed(make(batch_texts=1, concurrency=2), [f"text {place}" for place in range(6)])
    assert server.most_at_once == 2


def test_prompts_go_before_the_texts_of_their_kind(make: Make, server: LocalServer) -> None:
    embedder = make({"prompts": {"query": "query: ", "document": "passage: "}})
    embed(embedder, ["x"], kind="query")
    embed(embedder, ["x"])
    assert [body["input"] for body in server.bodies] == [["query: x"], ["passage: x"]]


def test_an_empty_text_is_sent_as_a_space(make: Make, server: LocalServer) -> None:
    assert np.isfinite(embed(make(), ["", "x"])).all()
    assert server.bodies[-1]["input"] == [" ", "x"]


def test_long_texts_are_cut_by_estimate_and_that_is_declared(make: Make, server: LocalServer) -> None:
    call = Call()
    embed(make({"max_length_tokens": 10}), ["a" * 100, "青" * 100, "short"], call)
    assert server.bodies[-1]["input"] == ["a" * 30, "青" * 6, "short"]
    assert call.notes == ["texts cut to an estimated 10 tokens"]


@given(text=st.text(), limit=st.integers(1, 60))
def test_the_longest_beginning_within_the_estimate_is_kept(text: str, limit: int) -> None:
    kept = fitting_characters(text, limit)
    spent = [1 / 3 if ord(letter) < 128 else 1.5 for letter in text]
    assert sum(spent[:kept]) <= limit + 1e-5
    assert kept == len(text) or sum(spent[: kept + 1]) > limit
    assert sum(spent) - 1e-6 <= estimated_tokens(text) < sum(spent) + 1 + 1e-6


def test_tokens_and_money_are_counted_from_usage(make: Make, server: LocalServer) -> None:
    call = Call()
    embed(make(usd_per_million_tokens=0.02, batch_texts=1), ["one two", "three"], call)
    assert call.tokens == 3
    assert call.cost_usd == pytest.approx(3 * 0.02 / 1e6)

    def without_usage(seen: Seen) -> Reply:
        reply = embeddings(seen)
        del reply.body["usage"]
        return reply

    server.answer = without_usage
    quiet = Call()
    embed(make(usd_per_million_tokens=0.02), ["x"], quiet)
    assert (quiet.tokens, quiet.cost_usd) == (0, 0.0)


@pytest.mark.parametrize(
    "fault",
    [
        Reply(429, {"error": {"message": "Rate limit reached"}}, {"Retry-After": "0"}),
        Reply(500, "oops"),
        Reply(503, {"error": {"message": "overloaded"}}),
    ],
)
def test_a_passing_fault_is_tried_again(fault: Reply, make: Make, server: LocalServer) -> None:
    server.faults += [fault, fault]
    call = Call()
    assert embed(make(usd_per_million_tokens=1.0), ["one two"], call).shape == (1, 8)
    assert len(server.seen) == 3
    assert call.tokens == 2, "failed attempts cost nothing"


def test_a_fault_that_stays_ends_in_its_own_words(make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(503, {"error": {"message": "model is loading"}})
    with pytest.raises(TransientError, match=r"^m at http://127.*/v1: answered 503: model is loading; gave up after 3"):
        embed(make(retries=2), TEXTS)
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_permanent_fault_fails_at_once(status: int, make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(status, {"error": {"message": "no"}}, {"Retry-After": "0"})
    with pytest.raises(PermanentError, match=f"answered {status}: no"):
        embed(make(), TEXTS)
    assert len(server.seen) == 1


def test_nobody_listening_is_a_lost_connection(make: Make) -> None:
    with pytest.raises(TransientError, match="no connection"):
        embed(make(base_url="http://127.0.0.1:9/v1", retries=1), TEXTS)


def test_a_trickling_server_does_not_outlive_the_timeout(make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(200, embeddings(seen).body, trickle_s=0.02)
    started = time.perf_counter()
    with pytest.raises(TransientError, match=r"no answer within 0\.15 s \(timeout_s\)"):
        embed(make(timeout_s=0.15, retries=0), TEXTS)
    with pytest.raises(TransientError, match=r"no answer within the 0\.15 s that were left"):
        embed(make(), TEXTS, Call(remaining_s=0.15))
    assert time.perf_counter() - started < 3, "every byte arrived in time, the whole answer did not"
    assert server.hung_up.wait(2.0), "the connection is closed, not left to trickle"


def test_a_cancelled_call_hangs_up(make: Make, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(200, embeddings(seen).body, trickle_s=0.02)
    call, embedder = Call(), make()
    timer = threading.Timer(0.1, call.cancel)
    timer.start()
    with pytest.raises(CallCancelledError):
        embed(embedder, TEXTS, call)
    timer.join()
    assert server.hung_up.wait(2.0)


def test_the_key_is_sent_and_never_told(make: Make, server: LocalServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    embedder = make(api_key="sk-secret")
    embed(embedder, TEXTS)
    assert server.seen[-1].headers["authorization"] == "Bearer sk-secret"
    server.faults.append(Reply(401, {"error": {"message": "Incorrect API key provided: sk-secret"}}))
    with pytest.raises(PermanentError, match=r"Incorrect API key provided: \*\*\*") as found:
        embed(embedder, TEXTS)
    told = (
        "".join(traceback.format_exception(found.value))
        + f"{found.value} {embedder!r} {embedder.model_id} {caplog.text}"
    )
    assert "sk-secret" not in told


def test_no_key_is_sent_where_none_is_given_even_when_openais_is_in_the_environment(
    make: Make, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    embed(make(), TEXTS)
    assert "authorization" not in server.seen[-1].headers
    assert "sk-openai" not in json.dumps([dict(seen.headers) for seen in server.seen])


def test_openai_itself_without_a_key_says_how_to_give_one(server: LocalServer) -> None:
    with pytest.raises(ConfigError, match=r"api_key: missing; https://api\.openai\.com/v1 .* export OPENAI_API_KEY="):
        unloaded(server, base_url=None).load()


def test_model_id_tells_apart_what_changes_vectors(server: LocalServer) -> None:
    made = [
        unloaded(server),
        unloaded(server, {"name": "other"}),
        unloaded(server, base_url="http://elsewhere/v1"),
        unloaded(server, dim=None, dimensions=5),
        unloaded(server, {"prompts": {"query": "q: "}}),
        unloaded(server, {"max_length_tokens": 10}),
    ]
    assert len({embedder.model_id for embedder in made}) == len(made)
    assert unloaded(server, api_key="a", timeout_s=1).model_id == unloaded(server, api_key="b", batch_texts=2).model_id


@pytest.mark.parametrize(
    ("card", "arguments", "message"),
    [
        ({"role": "reranker"}, {}, "name: found a reranker named 'm'; expected an embedder with a name"),
        ({"name": None, "path": "x"}, {}, "name: found a embedder named None"),
        ({}, {"base_url": "localhost:80"}, "base_url: found 'localhost:80'; expected an address such as http://"),
        ({}, {"encoding_format": "base46"}, r"encoding_format: found 'base46'; .*Did you mean 'base64'\?"),
        ({}, {"similarity": "l2"}, "similarity: found 'l2'; choices: cosine, dot"),
        ({}, {"batch_texts": 0}, "batch_texts: found 0"),
        ({}, {"usd_per_million_tokens": -1}, "usd_per_million_tokens: found -1"),
        ({}, {"retries": -1}, "retries: found -1"),
    ],
)
def test_wrong_arguments_are_named(card: Any, arguments: Any, message: str, server: LocalServer) -> None:
    with pytest.raises(ConfigError, match=message):
        unloaded(server, card, **arguments)


def test_a_closed_embedder_can_be_loaded_again(make: Make) -> None:
    embedder = make()
    embedder.close()
    with pytest.raises(RuntimeError, match=r"call load\(\) first"):
        embed(embedder, TEXTS)
    embedder.load()
    assert embed(embedder, TEXTS).shape == (4, 8)
