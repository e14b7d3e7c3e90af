"""Small HTTP servers that speak the wire formats of remote models, and their faults.

A test queues what goes wrong, `server.faults.append(Reply(429, headers={"Retry-After": "0"}))`; a request takes the
first fault, or when none is left gets the true answer of the server's `answer` function.
"""

from __future__ import annotations

import base64
import json
import math
import re
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
        self._http = _Http(("127.0.0.1", 0), _handler(self))
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
            fault = self.faults.popleft() if self.faults else None
        return fault or self.answer(seen)

    def enter(self, step: int) -> None:
        with self._lock:
            self._at_once += step
            self.most_at_once = max(self.most_at_once, self._at_once)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # at the default of 5 a burst of connections is reset


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


def relevance(query: str, text: str) -> float:
    """How much the two texts' vectors agree, 0 to 1: the same pair always has the same score."""
    return float(np.dot(vector_of(query, 64), vector_of(text, 64)))


def _error(seen: Seen) -> Reply:
    return Reply(404, {"message": f"no {seen.path} here"})


def cohere(seen: Seen) -> Reply:
    """`/v2/rerank` as Cohere answers it."""
    query, documents = seen.body["query"], seen.body["documents"]
    if seen.path != "/v2/rerank" or not seen.body["model"]:
        return _error(seen)
    if "return_documents" in seen.body or any(not text for text in documents):
        return Reply(400, {"message": "invalid request"})
    meta = {
        "api_version": {"version": "2"},
        "billed_units": {"search_units": -(-len(documents) // 100)},
        "warnings": [],
    }
    return Reply(200, {"id": "uuid", "results": _results(query, documents, seen.body["top_n"]), "meta": meta})


def jina(seen: Seen) -> Reply:
    """`/v1/rerank` as Jina answers it."""
    query, documents = seen.body["query"], seen.body["documents"]
    if seen.path != "/v1/rerank" or not seen.body["model"]:
        return _error(seen)
    results = _results(query, documents, seen.body["top_n"])
    if seen.body.get("return_documents", True):
        results = [{**result, "document": {"text": documents[result["index"]]}} for result in results]
    return Reply(
        200, {"model": "m", "object": "list", "usage": {"total_tokens": _words(documents)}, "results": results}
    )


def voyage(seen: Seen) -> Reply:
    """`/v1/rerank` as Voyage answers it: `top_k`, `data`."""
    query, documents = seen.body["query"], seen.body["documents"]
    if seen.path != "/v1/rerank" or "top_n" in seen.body or len(documents) > 1000:
        return Reply(400, {"detail": "invalid request"})
    data = _results(query, documents, seen.body["top_k"])
    return Reply(200, {"object": "list", "data": data, "model": "m", "usage": {"total_tokens": _words(documents)}})


def mixedbread(seen: Seen) -> Reply:
    """`/v1/reranking` as Mixedbread answers it: `input`, `data`, `score`, and ten results unless told otherwise."""
    if seen.path != "/v1/reranking":
        return _error(seen)
    data = _results(seen.body["query"], seen.body["input"], seen.body.get("top_k", 10), score="score")
    return Reply(200, {"object": "list", "data": data, "usage": {"total_tokens": _words(seen.body["input"])}})


def tei(seen: Seen) -> Reply:
    """`/rerank` as text-embeddings-inference answers it: a bare list; more than 32 texts are refused."""
    query, texts = seen.body["query"], seen.body["texts"]
    if seen.path != "/rerank":
        return _error(seen)
    if len(texts) > 32:
        return Reply(
            422, {"error": f"batch size {len(texts)} > maximum allowed batch size 32", "error_type": "Validation"}
        )
    return Reply(200, _results(query, texts, len(texts), score="score"))


def vllm(seen: Seen) -> Reply:
    """`/v1/rerank` as vLLM answers it: documents are always returned."""
    query, documents = seen.body["query"], seen.body["documents"]
    if seen.path != "/v1/rerank":
        return _error(seen)
    results = _results(query, documents, seen.body.get("top_n") or len(documents))
    results = [{**result, "document": {"text": documents[result["index"]], "multi_modal": None}} for result in results]
    return Reply(
        200, {"id": "rerank-x", "model": "m", "usage": {"total_tokens": _words(documents)}, "results": results}
    )


def infinity(seen: Seen) -> Reply:
    """`/rerank` as Infinity answers it."""
    query, documents = seen.body["query"], seen.body["documents"]
    if seen.path != "/rerank" or seen.body["raw_scores"]:
        return _error(seen)
    usage = {"prompt_tokens": _words(documents), "total_tokens": _words(documents)}
    results = _results(query, documents, seen.body["top_n"])
    return Reply(200, {"object": "rerank", "id": "infinity-x", "model": "m", "results": results, "usage": usage})


def llama_cpp(seen: Seen) -> Reply:
    """`/v1/rerank` as llama-server answers it: logits, not sorted."""
    query, documents = seen.body["query"], seen.body["documents"]
    if seen.path != "/v1/rerank":
        return _error(seen)
    results = [{"index": i, "relevance_score": 8 * relevance(query, text) - 4} for i, text in enumerate(documents)]
    usage = {"prompt_tokens": _words(documents), "total_tokens": _words(documents)}
    return Reply(200, {"model": "m", "object": "list", "usage": usage, "results": results})


def pinecone(seen: Seen) -> Reply:
    """`/rerank` as Pinecone answers it: documents are objects, the key has a header of its own."""
    headers, documents = seen.headers, [document["text"] for document in seen.body["documents"]]
    if seen.path != "/rerank" or "api-key" not in headers or "x-pinecone-api-version" not in headers:
        return _error(seen)
    data = _results(seen.body["query"], documents, seen.body["top_n"], score="score")
    return Reply(200, {"model": "m", "data": data, "usage": {"rerank_units": 1}})


def isaacus(seen: Seen) -> Reply:
    """`/v1/rerankings` as Isaacus answers it."""
    if seen.path != "/v1/rerankings":
        return _error(seen)
    results = _results(seen.body["query"], seen.body["texts"], seen.body["top_n"], score="score")
    return Reply(200, {"results": results, "usage": {"input_tokens": _words(seen.body["texts"])}})


def elastic(seen: Seen) -> Reply:
    """`/_inference/rerank/{id}` as Elasticsearch answers it; a key it does not know is refused."""
    if not re.fullmatch(r"/_inference/rerank/[\w.-]+", seen.path) or set(seen.body) != {"input", "query"}:
        return _error(seen)
    return Reply(200, {"rerank": _results(seen.body["query"], seen.body["input"], len(seen.body["input"]))})


def localai(seen: Seen) -> Reply:
    """`/v1/rerank` as LocalAI answers it on llama.cpp: not sorted, whatever `top_n` says."""
    return llama_cpp(seen)


def openvino_model_server(seen: Seen) -> Reply:
    """`/v3/rerank` as OpenVINO Model Server answers it."""
    if seen.path != "/v3/rerank":
        return _error(seen)
    return Reply(200, {"results": _results(seen.body["query"], seen.body["documents"], seen.body["top_n"])})


RERANKERS: Mapping[str, Answer] = {
    "cohere": cohere,
    "jina": jina,
    "voyage": voyage,
    "mixedbread": mixedbread,
    "tei": tei,
    "vllm": vllm,
    "infinity": infinity,
    "llama_cpp": llama_cpp,
    "pinecone": pinecone,
    "isaacus": isaacus,
    "elastic": elastic,
    "localai": localai,
    "openvino_model_server": openvino_model_server,
    "api": jina,
}
"""The file in conf/rerank -> a server that speaks its format."""


def _results(query: str, documents: list[str], top: int, score: str = "relevance_score") -> list[dict[str, Any]]:
    found = [{"index": place, score: relevance(query, text)} for place, text in enumerate(documents)]
    return sorted(found, key=lambda result: -result[score])[:top]


def _words(texts: list[str]) -> int:
    return sum(len(text.split()) for text in texts)


FENCED = re.compile(r"<document (\d+) (\w+)>\n(.*?)\n</document \1 \2>", re.DOTALL)


def chat(seen: Seen) -> Reply:
    """`/v1/chat/completions` as OpenAI answers it, by a judge who reads what stands between the marks.

    Asked for log-probabilities it says yes or no to its one document, asked for a grade it gives 0 to 3, and else it
    orders its documents.
    """
    if seen.path != "/v1/chat/completions":
        return Reply(404, {"error": {"message": f"Invalid URL (POST {seen.path})"}})
    user = seen.body["messages"][-1]["content"]
    question = re.search(r"(?:Question: |问题：)(.*)", user)
    assert question is not None
    scored = [(-relevance(question[1], text), int(number)) for number, _, text in FENCED.findall(user)]
    if seen.body.get("logprobs"):
        return yes_or_no(-scored[0][0], seen.body["top_logprobs"])
    if '"grade"' in user:
        return completion(json.dumps({"grade": grade_of(-scored[0][0])}))
    return completion(json.dumps({"ranking": [number for _, number in sorted(scored)]}))


def grade_of(relevant: float) -> int:
    """0 to 3 for a relevance of 0 to 1."""
    return min(3, int(4 * relevant))


def yes_or_no(p_yes: float, top: int) -> Reply:
    """One token with its alternatives: yes with `p_yes` in three spellings, no in two, and others between them."""
    shares = {
        "Yes": 0.6 * p_yes,
        " yes": 0.3 * p_yes,
        "YES": 0.1 * p_yes,
        "No": 0.9 * (1 - p_yes),
        "no": 0.1 * (1 - p_yes),
    }
    found = {**{token: 0.9 * share for token, share in shares.items()}, "The": 0.06, "Not": 0.04}
    listed = sorted(found.items(), key=lambda pair: -pair[1])[:top]
    tops = [{"token": token, "logprob": math.log(max(share, 1e-300)), "bytes": None} for token, share in listed]
    return completion(tops[0]["token"], "length", logprobs={"content": [{**tops[0], "top_logprobs": tops}]})


def completion(content: str | None, finish_reason: str = "stop", logprobs: Any = None, **message: Any) -> Reply:
    """A reply of one choice, 900 tokens in and 40 out."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": logprobs}
    choice["message"] = {"role": "assistant", "content": content, "refusal": None, **message}
    usage = {"prompt_tokens": 900, "completion_tokens": 40, "total_tokens": 940}
    whole = {"id": "chatcmpl-x", "object": "chat.completion", "created": 1780000000, "model": "m"}
    return Reply(200, {**whole, "choices": [choice], "usage": usage})
