"""Every service of conf/rerank over real HTTP: what it is sent to the letter, what it answers, and its faults."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from servers import RERANKERS, LocalServer, Reply, Seen, relevance

from orchestrator import Pipeline
from orchestrator.errors import ConfigError, MalformedReplyError, PermanentError, TransientError
from orchestrator.plugins.rerank.api import ApiRerank
from orchestrator.services.replies import find
from orchestrator.types import Call, Document, Query

QUERY = Query("q", "what damages the optic nerve?")
TEXTS = ["the great wall", "glaucoma damages the optic nerve", "青光眼会损害视神经"]
PAIRS = [(QUERY, Document(f"d{place}", text)) for place, text in enumerate(TEXTS)]
TRUE = np.array([relevance(QUERY.text, text) for text in TEXTS])
LOGITS = {"llama_cpp", "localai"}
KEYS = {
    "cohere": "COHERE",
    "jina": "JINA",
    "voyage": "VOYAGE",
    "mixedbread": "MXBAI",
    "pinecone": "PINECONE",
    "isaacus": "ISAACUS",
    "elastic": "ELASTIC",
}
HOSTED = set(KEYS) - {"elastic"}
BGE = "BAAI/bge-reranker-v2-m3"
ASKED = {"query": QUERY.text}
WANTED: dict[str, tuple[str, dict[str, Any]]] = {
    "cohere": (
        "/v2/rerank",
        {"model": "rerank-v4.0-fast", "documents": TEXTS, "top_n": 3, "max_tokens_per_doc": 4096},
    ),
    "jina": (
        "/v1/rerank",
        {"model": "jina-reranker-v2-base-multilingual", "documents": TEXTS, "top_n": 3, "return_documents": False},
    ),
    "voyage": ("/v1/rerank", {"model": "rerank-2.5-lite", "documents": TEXTS, "top_k": 3, "truncation": True}),
    "mixedbread": (
        "/v1/reranking",
        {"model": "mixedbread-ai/mxbai-rerank-large-v2", "input": TEXTS, "top_k": 3, "return_input": False},
    ),
    "tei": ("/rerank", {"texts": TEXTS, "truncate": True, "raw_scores": False}),
    "vllm": ("/v1/rerank", {"model": BGE, "documents": TEXTS, "top_n": 3, "truncate_prompt_tokens": -1}),
    "infinity": (
        "/rerank",
        {"model": BGE, "documents": TEXTS, "top_n": 3, "return_documents": False, "raw_scores": False},
    ),
    "llama_cpp": ("/v1/rerank", {"model": "default", "documents": TEXTS, "top_n": 3}),
    "pinecone": (
        "/rerank",
        {
            "model": "bge-reranker-v2-m3",
            "documents": [{"text": text} for text in TEXTS],
            "top_n": 3,
            "return_documents": False,
            "parameters": {"truncate": "END"},
        },
    ),
    "isaacus": ("/v1/rerankings", {"model": "kanon-2-reranker", "texts": TEXTS, "top_n": 3}),
    "elastic": ("/_inference/rerank/.rerank-v1-elasticsearch", {"input": TEXTS}),
    "localai": ("/v1/rerank", {"model": "m", "documents": TEXTS, "top_n": 3}),
    "openvino_model_server": ("/v3/rerank", {"model": "m", "documents": TEXTS, "top_n": 3}),
    "api": ("/v1/rerank", {"model": "m", "documents": TEXTS, "top_n": 3}),
}
"""As WIRE formats are published, written out by hand: path, and the body beside the question."""


@pytest.fixture(scope="module")
def host() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


@pytest.fixture(scope="module")
def shipped(host: LocalServer) -> Iterator[Mapping[str, ApiRerank]]:
    """The stages of conf/rerank with the local server's address, loaded: all in one pipeline, composed once."""
    words = ["pipeline=cross_encoder"]
    for name in RERANKERS:
        stage = f"pipeline.stages.{name}"
        words += [f"+rerank@{stage}.use={name}", f"+{stage}.top_k=3", f"{stage}.use.base_url={host.url}"]
        words += [f"{stage}.use.name=m"] if WANTED[name][1].get("model") == "m" else []
    with pytest.MonkeyPatch.context() as patch:
        for name in KEYS.values():
            patch.setenv(f"{name}_API_KEY", f"key of {name}")
        graph = Pipeline.compose(words).graph
    stages = {name: graph[name].stage for name in RERANKERS}
    made = {name: stage for name, stage in stages.items() if isinstance(stage, ApiRerank)}
    assert len(made) == len(RERANKERS)
    for one in made.values():
        one.load()
    yield made
    for one in made.values():
        one.close()


def composed(name: str, host: LocalServer, *more: str) -> ApiRerank:
    use = "pipeline.stages.precise.use"
    words = [f"rerank@{use}={name}", "pipeline=cross_encoder", f"{use}.base_url={host.url}", *more]
    stage = Pipeline.compose(words).graph["precise"].stage
    assert isinstance(stage, ApiRerank)
    return stage


@pytest.fixture(params=sorted(RERANKERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stage(name: str, shipped: Mapping[str, ApiRerank], server: LocalServer) -> ApiRerank:
    return shipped[name]


@pytest.fixture
def server(name: str, host: LocalServer, monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    """The module's server in the format of the service, with nothing asked yet. Retries wait a millisecond."""
    monkeypatch.setattr(random, "uniform", lambda low, high: min(high, 0.001))
    host.answer = RERANKERS[name]
    host.faults.clear()
    host.seen.clear()
    return host


def expected(name: str, true: Any = TRUE) -> Any:
    return 8 * true - 4 if name in LOGITS else true


def test_the_request_is_what_the_service_documents(name: str, stage: ApiRerank, server: LocalServer) -> None:
    np.testing.assert_allclose(stage.score(PAIRS, Call()), expected(name), atol=1e-12)
    (seen,) = server.seen
    path, body = WANTED[name]
    assert (seen.path, seen.body) == (path, {**ASKED, **body})
    assert seen.headers["content-type"] == "application/json"
    assert stage.key_required == (name in HOSTED)
    key = f"key of {KEYS.get(name)}"
    sent = {"pinecone": ("api-key", key), "elastic": ("authorization", f"ApiKey {key}")}
    header, value = sent.get(name, ("authorization", f"Bearer {key}"))
    assert seen.headers.get(header) == (value if name in KEYS else None)
    assert ("authorization" in seen.headers) == (name in KEYS and name != "pinecone")


def test_many_documents_are_split_and_come_back_in_their_order(
    name: str, stage: ApiRerank, server: LocalServer
) -> None:
    texts = [f"{text} {number}" for number in range(14) for text in TEXTS] + [""]
    call = Call()
    found = stage.score([(QUERY, Document(str(place), text)) for place, text in enumerate(texts)], call)
    true = np.array([relevance(QUERY.text, text or " ") for text in texts])
    np.testing.assert_allclose(found, expected(name, true), atol=1e-12)
    assert len(server.seen) == (2 if name == "tei" else 1), "43 documents: text-embeddings-inference takes 32 at once"
    assert (call.tokens > 0) == (name not in ("cohere", "tei", "pinecone", "elastic", "openvino_model_server"))
    assert call.repairs == {}


def spoil(stage: ApiRerank, reply: Reply, change: Callable[[list[dict[str, Any]]], None]) -> Reply:
    """The service's own reply with its list of results changed."""
    body = copy.deepcopy(reply.body)
    change(find(body, stage.format.results) if stage.format.results else body)
    return Reply(200, body)


def changes(stage: ApiRerank) -> dict[str, tuple[Callable[[list[dict[str, Any]]], None], str]]:
    index, score = stage.format.index, stage.format.score
    return {
        "missing": (lambda found: found.pop(), "no score for 1 of 3 documents"),
        "out of range": (lambda found: found[0].update({index: 3}), r"index 3; expected 0 to 2"),
        "negative": (lambda found: found[0].update({index: -1}), r"index -1; expected 0 to 2"),
        "index as text": (lambda found: found[0].update({index: "0"}), r"index '0'"),
        "index as fraction": (lambda found: found[0].update({index: 0.5}), r"index 0\.5"),
        "twice": (lambda found: found[0].update({index: found[1][index]}), "twice: "),
        "null": (lambda found: found[0].update({score: None}), "with None"),
        "nan": (lambda found: found[0].update({score: float("nan")}), "with nan"),
        "score as text": (lambda found: found[0].update({score: "high"}), "with 'high'"),
        "no score": (lambda found: found[0].pop(score), f"with None at '{score}'"),
    }


FAULTS = ("missing", "out of range", "negative", "index as text", "index as fraction", "twice", "null", "nan")


@pytest.mark.parametrize("fault", [*FAULTS, "score as text", "no score"])
def test_a_result_that_does_not_fit_is_refused(fault: str, name: str, stage: ApiRerank, server: LocalServer) -> None:
    change, message = changes(stage)[fault]
    server.answer = lambda seen: spoil(stage, RERANKERS[name](seen), change)
    with pytest.raises(MalformedReplyError, match=message):
        stage.score(PAIRS, Call())
    assert len(server.seen) == 1, "trying again would not help"


def test_the_order_of_the_reply_and_echoes_do_not_matter(name: str, stage: ApiRerank, server: LocalServer) -> None:
    def shuffled(found: list[dict[str, Any]]) -> None:
        found.reverse()
        found.append(dict(found[0]))
        for place, result in enumerate(found):
            result["document"] = {"text": TEXTS[place % 3]}  # of another document: an echo is not looked at

    server.answer = lambda seen: spoil(stage, RERANKERS[name](seen), shuffled)
    call = Call()
    np.testing.assert_allclose(stage.score(PAIRS, call), expected(name), atol=1e-12)
    assert call.repairs == {"duplicate": 1}


@pytest.mark.parametrize(
    ("body", "message"),
    [("<html>Log in</html>", "not JSON"), ('"busy"', "no list of results"), ({"ok": True}, "no list of results")],
)
def test_a_reply_of_another_kind_is_refused(
    body: Any, message: str, name: str, stage: ApiRerank, server: LocalServer
) -> None:
    server.faults.append(Reply(200, body))
    with pytest.raises(MalformedReplyError, match=message):
        stage.score(PAIRS, Call())


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_fault_is_tried_again(status: int, name: str, stage: ApiRerank, server: LocalServer) -> None:
    server.faults.append(Reply(status, {"message": "busy", "error": "busy"}, {"Retry-After": "0"}))
    np.testing.assert_allclose(stage.score(PAIRS, Call()), expected(name), atol=1e-12)
    assert len(server.seen) == 2
    assert server.seen[0].body == server.seen[1].body


def test_a_slow_service_is_left(name: str, stage: ApiRerank, server: LocalServer) -> None:
    server.answer = lambda seen: Reply(200, RERANKERS[name](seen).body, delay_s=0.15)
    with pytest.raises(TransientError, match=r"no answer within the 0\.03 s"):
        stage.score(PAIRS, Call(remaining_s=0.03))


@pytest.mark.parametrize("name", sorted(KEYS))
def test_a_refused_key_is_told_without_the_key(name: str, stage: ApiRerank, server: LocalServer) -> None:
    key = f"key of {KEYS[name]}"
    server.answer = lambda seen: Reply(401, {"message": f"no such key: {key}"})
    with pytest.raises(PermanentError, match=r"answered 401: no such key: \*\*\*\. The key is missing or wrong"):
        stage.score(PAIRS, Call())


@pytest.mark.parametrize("name", ["pinecone"])
def test_a_hosted_service_without_a_key_stops_at_load(
    name: str, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(f"{KEYS[name]}_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=rf"^api_key: missing; .* wants one: export {KEYS[name]}_API_KEY=\.\.\.$"):
        composed(name, server).load()
    assert server.seen == []


@pytest.mark.parametrize("name", ["cohere"])
def test_search_units_are_counted_as_the_service_bills_them(name: str, stage: ApiRerank, server: LocalServer) -> None:
    pairs = [(QUERY, Document(str(place), f"text {place}")) for place in range(101)]
    call = Call()
    stage.score(pairs, call)
    assert call.cost_usd == pytest.approx(2 * 2.0 / 1000), "101 documents are two units of two dollars a thousand"
    assert call.notes == []

    def without_units(seen: Seen) -> Reply:
        return Reply(200, {"results": RERANKERS["cohere"](seen).body["results"]})

    server.answer, untold = without_units, Call()
    stage.score(pairs, untold)
    assert untold.cost_usd == pytest.approx(2 * 2.0 / 1000), "a unit is a hundred documents"
    assert untold.notes == ["the service tells no search units: they and their price are an estimate"]
    long = [(QUERY, Document("long", "青" * 1000)), *pairs[:97]]
    stage.score(long, one := Call())
    assert one.cost_usd == pytest.approx(2.0 / 1000), "1,500 estimated tokens count as three documents, and 97 more"
    stage.score([*long, pairs[97]], two := Call())
    assert two.cost_usd == pytest.approx(2 * 2.0 / 1000)


@pytest.mark.parametrize("name", ["cohere"])
def test_another_model_has_another_price(
    name: str, stage: ApiRerank, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COHERE_API_KEY", "a key")
    use = "pipeline.stages.precise.use"
    for word, usd in (("rerank-v4.0-pro", 2.5), ("rerank-v3.5", 2.0)):
        stage = composed(name, server, f"{use}.name={word}")
        stage.load()
        call = Call()
        stage.score(PAIRS, call)
        stage.close()
        assert call.cost_usd == pytest.approx(usd / 1000)
    unknown = composed(name, server, f"{use}.name=rerank-v9")
    unknown.load()
    unknown.score(PAIRS, call := Call())
    unknown.close()
    assert (call.cost_usd, call.notes) == (0.0, ["no money is counted: `prices` knows no model 'rerank-v9'"])
