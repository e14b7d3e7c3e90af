"""A proxy with faults, before any of the small HTTP servers: slow, trickling, dead, flapping, malformed.

    with Faulty(server.url) as proxy:
        stage = ApiRerank(model, base_url=proxy.url, ...)
        proxy.fault = BROKEN["dead"]       # from the next request on, until it is None again
        proxy.flap(BROKEN["hangs_up"], 5)  # or for five requests

It forwards a request, takes the true answer, and spoils it. What a client closes is noticed and counted.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit


class HungUpError(Exception):
    """The client closed its connection."""


@dataclass(frozen=True)
class Fault:
    """How an answer is spoiled.

    Attributes:
        delay_s: before it.
        silent: it never comes; the connection stays open.
        hangs_up: the connection is closed in its place.
        trickle_s: its head comes, and then a space now and then, for ever.
        cut_off: half of the body comes, then the connection is closed.
        status: in place of the true one, with the true body.
        headers: beside the true ones.
        change: the true JSON to other JSON, or to the bytes of the body.
    """

    delay_s: float = 0.0
    silent: bool = False
    hangs_up: bool = False
    trickle_s: float = 0.0
    cut_off: bool = False
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    change: Callable[[Any], Any] | None = None


BROKEN: Mapping[str, Fault] = {
    "slow": Fault(delay_s=5.0),
    "trickling": Fault(trickle_s=0.02),
    "dead": Fault(silent=True),
    "hangs_up": Fault(hangs_up=True),
    "cut_off": Fault(cut_off=True),
    "unavailable": Fault(status=503),
    "overloaded": Fault(status=429, headers={"Retry-After": "1"}),
}
"""Faults of a service that may be there again soon. `unavailable` has the body of a success."""

MALFORMED: Mapping[str, Fault] = {
    "no_json": Fault(change=lambda body: b"<html>Log in to go on</html>"),
    "cut_json": Fault(change=lambda body: json.dumps(body).encode()[:-20]),
    "empty": Fault(change=lambda body: b""),
    "other_shape": Fault(change=lambda body: {"ok": True}),
    "error_inside": Fault(change=lambda body: {"error": {"message": "the model is not loaded", "code": "no_model"}}),
}
"""Answers 200 that cannot be read, whatever the API."""


def _each_result(change: Callable[[dict[str, Any], int], dict[str, Any]]) -> Fault:
    """Changes each result of a rerank API, given its place."""
    return Fault(
        change=lambda body: {**body, "results": [change(one, place) for place, one in enumerate(body["results"])]}
    )


MALFORMED_RERANK: Mapping[str, Fault] = {
    **MALFORMED,
    "wrong_indices": _each_result(lambda one, place: {**one, "index": one["index"] + 1000}),
    "negative_index": _each_result(lambda one, place: {**one, "index": -1 - place}),
    "same_index": _each_result(lambda one, place: {**one, "index": 0}),
    "no_index": _each_result(lambda one, place: {"relevance_score": one["relevance_score"]}),
    "nan": _each_result(lambda one, place: {**one, "relevance_score": float("nan")}),
    "words": _each_result(lambda one, place: {**one, "relevance_score": "high"}),
    "some_missing": Fault(change=lambda body: {**body, "results": body["results"][1:]}),
    "no_results": Fault(change=lambda body: {**body, "results": []}),
    "logits": _each_result(lambda one, place: {**one, "relevance_score": 7.5}),
}
"""Answers 200 of a rerank API with a list `results` from which no scores may be taken."""


class Faulty:
    """A proxy on a free local port.

    Args:
        upstream: address of the true server.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._host, self._upstream_port = str(parts.hostname), int(parts.port or 80)
        self.fault: Fault | None = None
        self.asked = 0
        self.hung_up = 0
        self._flaps: list[Fault] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._changed = threading.Condition(self._lock)
        self._listen(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._deafen()

    def flap(self, fault: Fault, times: int) -> None:
        """Let the next `times` requests fail so; those after are as `fault` says."""
        with self._lock:
            self._flaps += [fault] * times

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody listens at the address, and connections that are open are closed at the next request."""
        before, self.fault = self.fault, BROKEN["hangs_up"]
        self._deafen()
        try:
            yield
        finally:
            self.fault = before
            self._listen(self.port)

    def wait_hung_up(self, times: int, timeout_s: float = 5.0) -> bool:
        """Whether clients have closed so many connections on which they waited, or do so in time."""
        with self._lock:
            return self._changed.wait_for(lambda: self.hung_up >= times, timeout_s)

    def _listen(self, port: int) -> None:
        self._http = _Http(("127.0.0.1", port), _handler(self))
        self.port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def _deafen(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def next_fault(self) -> Fault:
        with self._lock:
            self.asked += 1
            return self._flaps.pop(0) if self._flaps else self.fault or Fault()

    def note_hung_up(self) -> None:
        with self._lock:
            self.hung_up += 1
            self._changed.notify_all()

    def true_answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._host, self._upstream_port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def wait(self, connection: socket.socket, seconds: float) -> None:
        """Sleep; HungUpError as soon as the client closes, and when the proxy does."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            readable, _, _ = select.select([connection], [], [], min(left, 0.02))
            if self._closing.is_set() or (readable and not connection.recv(1, socket.MSG_PEEK)):
                raise HungUpError


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _handler(proxy: Faulty) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.next_fault()
            try:
                self._spoil(fault, body)
            except (HungUpError, ConnectionError):
                proxy.note_hung_up()
                self.close_connection = True

        def _spoil(self, fault: Fault, body: bytes) -> None:
            if fault.hangs_up:
                self.close_connection = True
                return
            if fault.silent:
                proxy.wait(self.connection, 3600)
            status, content = proxy.true_answer(self.command, self.path, dict(self.headers), body)
            proxy.wait(self.connection, fault.delay_s)
            if fault.change is not None:
                changed = fault.change(json.loads(content))
                content = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
            self._head(fault, fault.status or status, len(content))
            while fault.trickle_s:
                self.wfile.write(b" ")
                proxy.wait(self.connection, fault.trickle_s)
            self.wfile.write(content[: len(content) // 2] if fault.cut_off else content)
            self.close_connection = self.close_connection or fault.cut_off

        def _head(self, fault: Fault, status: int, length: int) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(10**9 if fault.trickle_s else length))
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_any  # noqa: N815 - names that http.server calls

    return Handler
