"""Small HTTP servers that speak the wire formats of remote models, and their faults.

A test queues what goes wrong, `server.faults.append(Reply(429, headers={"Retry-After": "0"}))`; a request takes the
first fault, or when none is left gets the true answer of the server's `answer` function.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import numpy as np


@dataclass
class Seen:
    """A request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Reply:
    """An answer: JSON, or text as it stands. `delay_s` before the head, `trickle_s` between the bytes of the body."""

    status: int = 200
    body: Any = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    trickle_s: float = 0.0

    @property
    def content(self) -> bytes:
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


Answer = Callable[[Seen], Reply]


class LocalServer:
    """A server on a free local port, with everything it was asked."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer: Answer = answer or (lambda seen: Reply(404, {"error": {"message": f"no {seen.path} here"}}))
        self.faults: deque[Reply] = deque()
        self.seen: list[Seen] = []
        self.hung_up = threading.Event()
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        # The default poll of half a second would be spent at the end of every test.
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def bodies(self) -> list[Any]:
        return [seen.body for seen in self.seen]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def reply(self, seen: Seen) -> Reply:
        with self._lock:
            self.seen.append(seen)
            return self.faults.popleft() if self.faults else self.answer(seen)

    def enter(self, step: int) -> None:
        with self._lock:
            self._at_once += step
            self.most_at_once = max(self.most_at_once, self._at_once)


def _handler(server: LocalServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            server.enter(1)
            try:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                self._write(server.reply(Seen(self.path, headers, json.loads(raw or b"null"))))
            except (BrokenPipeError, ConnectionResetError):
                server.hung_up.set()
                self.close_connection = True
            finally:
                server.enter(-1)

        def _write(self, reply: Reply) -> None:
            time.sleep(reply.delay_s)
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            if not reply.trickle_s:
                self.wfile.write(reply.content)
                return
            for byte in reply.content:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(reply.trickle_s)

        def log_message(self, *args: object) -> None:
            """Nothing: a test's output is its own."""

    return Handler


def vector_of(text: str, dim: int = 8) -> list[float]:
    """Counts of hashed characters and character pairs: the same text always has the same vector."""
    counts = np.full(dim, 0.01)
    for start in range(len(text)):
        for width in (1, 2):
            counts[zlib.crc32(text[start : start + width].encode()) % dim] += 1.0
    return [float(value) for value in (counts / np.linalg.norm(counts)).astype(np.float32)]


def embeddings(seen: Seen, dim: int = 8) -> Reply:
    """`/v1/embeddings` as OpenAI answers it."""
    body = seen.body
    if seen.path != "/v1/embeddings":
        return Reply(404, {"error": {"message": f"Invalid URL (POST {seen.path})", "type": "invalid_request_error"}})
    if any(text == "" for text in body["input"]):
        return Reply(400, {"error": {"message": "input cannot be an empty string", "type": "invalid_request_error"}})
    vectors = [vector_of(text, body.get("dimensions", dim)) for text in body["input"]]
    data = [{"object": "embedding", "index": i, "embedding": _encoded(v, body)} for i, v in enumerate(vectors)]
    tokens = sum(len(text.split()) for text in body["input"])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Reply(200, {"object": "list", "model": body["model"], "data": data, "usage": usage})


def _encoded(vector: list[float], body: Mapping[str, Any]) -> Any:
    if body.get("encoding_format") == "base64":
        return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
    return vector
