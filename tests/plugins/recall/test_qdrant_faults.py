"""Dense recall from a Qdrant server that is slow, dead, flapping or malformed; and gRPC's codes in the same words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import pytest
from faulty import BROKEN, MALFORMED, Fault, Faulty

from orchestrator.errors import (
    CallCancelledError,
    CircuitOpenError,
    OutOfTimeError,
    PermanentError,
    RemoteError,
    TransientError,
)
from orchestrator.plugins.qdrant import wire
from orchestrator.plugins.qdrant.options import checked_server
from orchestrator.plugins.recall.qdrant import QdrantRecall
from orchestrator.types import Call, Query

TEXTS = {f"d{number}": text for number, text in enumerate(["glaucoma of the eye", "the optic nerve", "a great wall"])}
Ask = Callable[[Call], list[tuple[str, float]]]


@pytest.fixture
def proxy(server: Any) -> Iterator[Faulty]:
    with Faulty(server.url) as running:
        yield running


@pytest.fixture
def ask(make_site: Callable[..., Any], hash_embed: Any, proxy: Faulty) -> Ask:
    """Searches an open index on the server behind the proxy."""
    site = make_site(lambda corpus, encoder, **options: QdrantRecall(encoder or hash_embed(), **options), TEXTS)
    stage = site.open(site.corpus(), url=proxy.url, timeout_s=30)
    assert stage.is_remote
    vector = stage.embedder.embed(["the eye"], kind="query", call=Call())[0]
    return lambda call: list(stage.retrieve(Query("q", "the eye", vector=vector), 3, call))


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_server_costs_no_more_than_the_time_and_serves_again(fault: str, ask: Ask, proxy: Faulty) -> None:
    expected = ask(Call())
    proxy.fault = BROKEN[fault]
    started = time.monotonic()
    with pytest.raises(TransientError):
        ask(Call(remaining_s=0.2))
    assert time.monotonic() - started < 3.0
    proxy.fault = None
    assert ask(Call(remaining_s=30.0)) == expected


def _each_point(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Fault:
    return Fault(
        change=lambda body: {**body, "result": {"points": [change(point) for point in body["result"]["points"]]}}
    )


@pytest.mark.parametrize(
    "fault",
    [
        *MALFORMED.values(),
        _each_point(lambda point: {**point, "score": float("nan")}),
        _each_point(lambda point: {**point, "score": "high"}),
        _each_point(lambda point: {**point, "payload": {}}),
        _each_point(lambda point: {"score": point["score"]}),
    ],
    ids=[*MALFORMED, "nan", "words", "no_payload", "no_id"],
)
def test_no_hit_is_taken_from_a_malformed_answer(fault: Fault, ask: Ask, proxy: Faulty) -> None:
    expected = ask(Call())
    proxy.fault = fault
    with pytest.raises(RemoteError, match=rf"^{proxy.url}: "):
        ask(Call())
    proxy.fault = None
    assert ask(Call()) == expected


def test_a_dead_server_is_left_alone_and_used_again(ask: Ask, proxy: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ask(Call())
    proxy.fault = BROKEN["dead"]
    for _ in range(3):
        with pytest.raises(OutOfTimeError):
            ask(Call(remaining_s=0.1))
    asked = proxy.asked
    with pytest.raises(CircuitOpenError):
        ask(Call(remaining_s=0.1))
    assert proxy.asked == asked
    proxy.fault = None
    time.sleep(1.05)
    assert ask(Call(remaining_s=30.0)) == expected


@pytest.mark.parametrize("fault", ["dead", "trickling"])
def test_a_cancelled_search_closes_its_connection(fault: str, ask: Ask, proxy: Faulty) -> None:
    expected = ask(Call())
    proxy.fault = BROKEN[fault]
    call = Call()
    timer = threading.Timer(0.1, call.cancel)
    timer.start()
    with pytest.raises(CallCancelledError):
        ask(call)
    timer.join()
    assert proxy.wait_hung_up(1)
    proxy.fault = None
    assert ask(Call()) == expected


def test_a_flapping_server_is_asked_again_within_the_call(ask: Ask, proxy: Faulty) -> None:
    expected = ask(Call())
    proxy.flap(BROKEN["unavailable"], 1)
    proxy.flap(BROKEN["cut_off"], 1)
    assert ask(Call(remaining_s=30.0)) == expected


GRPC = pytest.importorskip("grpc")


@pytest.fixture
def grpc_port() -> Iterator[tuple[int, dict[str, Any]]]:
    """A gRPC server that ends every call with the code in the dictionary, or after a minute where there is none."""
    told: dict[str, Any] = {}

    class Failing(GRPC.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            return GRPC.unary_unary_rpc_method_handler(self.fail)

        def fail(self, request: bytes, context: Any) -> bytes:
            if "code" in told:
                context.abort(told["code"], "made to fail")
            closed = threading.Event()
            context.add_callback(closed.set)
            told["closed"] = closed.wait(10.0)
            return b""

    server = GRPC.server(futures.ThreadPoolExecutor(2), handlers=[Failing()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port, told
    server.stop(None).wait()


def search(client: Any) -> Any:
    return client.query_points("docs", query=[1.0, 0.0])


@pytest.mark.parametrize(
    ("code", "kind", "status", "message"),
    [
        ("UNAVAILABLE", TransientError, None, "query points: AioRpcError: made to fail"),
        ("RESOURCE_EXHAUSTED", TransientError, 429, "query points: answered 429: made to fail"),
        ("INTERNAL", TransientError, 500, "query points: answered 500: made to fail"),
        ("UNAUTHENTICATED", PermanentError, 401, r"query points: refused \(401\); expected api_key"),
        ("PERMISSION_DENIED", PermanentError, 403, r"query points: refused \(403\); expected api_key"),
        ("NOT_FOUND", PermanentError, 404, "query points: answered 404: made to fail"),
        ("INVALID_ARGUMENT", PermanentError, 400, "query points: answered 400: made to fail"),
        ("UNIMPLEMENTED", PermanentError, 501, "query points: answered 501: made to fail"),
    ],
)
def test_codes_of_grpc_are_told_as_those_of_http(
    code: str,
    kind: type[RemoteError],
    status: int | None,
    message: str,
    grpc_port: tuple[int, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "_WAIT_S", 0.0)
    port, told = grpc_port
    told["code"] = getattr(GRPC.StatusCode, code)
    line = wire.Wire(checked_server("http://127.0.0.1:9", None, True, port, 10.0))
    with pytest.raises(kind, match=message) as caught:
        line.ask("query points", search)
    assert caught.value.status == status
    line.close()


def test_a_search_by_grpc_ends_with_its_time_and_its_call(grpc_port: tuple[int, dict[str, Any]]) -> None:
    port, told = grpc_port
    line = wire.Wire(checked_server("http://127.0.0.1:9", None, True, port, 10.0))
    with pytest.raises(OutOfTimeError):
        line.ask("query points", search, Call(remaining_s=0.3))
    call = Call()
    threading.Timer(0.2, call.cancel).start()
    with pytest.raises(CallCancelledError):
        line.ask("query points", search, call)
    until = time.monotonic() + 5.0
    while "closed" not in told and time.monotonic() < until:
        time.sleep(0.01)
    assert told["closed"], "the server is told that nobody waits"
    line.close()
