"""A small server that answers Qdrant's REST calls from qdrant-client's local mode, with faults on demand."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from orchestrator.corpora.corpus import DiskCorpus, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.learned.indexes import open_index
from orchestrator.types import Call, TextKind, Vectors


class HashEmbed:
    """Counts of hashed character trigrams; of length 1 for cosine. `flavour` makes another model of it."""

    def __init__(self, similarity: str = "cosine", dim: int = 32, flavour: str = "") -> None:
        self.dim, self.similarity, self.flavour = dim, similarity, flavour
        self.model_id = f"hash-{similarity}-{dim}{flavour}"

    def load(self) -> None:
        """Nothing to load."""

    def embed(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> Vectors:
        """float32 [n_texts, dim]."""
        counts = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for start in range(len(text) - 2):
                counts[row, zlib.crc32((self.flavour + text[start : start + 3]).encode()) % self.dim] += 1
        if self.similarity == "cosine":
            counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)
        return counts


@dataclass
class Fault:
    """What goes wrong with requests of `method` whose path ends so: the first `skip` pass, the next `times` fail."""

    method: str
    ending: str
    how: str
    skip: int = 0
    times: int = 10**9

    def strikes(self, method: str, path: str) -> bool:
        if method != self.method or not path.endswith(self.ending):
            return False
        self.skip -= 1
        self.times -= self.skip < 0
        return self.skip < 0 <= self.times


@dataclass
class QdrantServer:
    """Collections in memory behind real HTTP on 127.0.0.1.

    Attributes:
        api_key: wanted in every request, where there is one.
        faults: what goes wrong.
        requests: method, path and body of all that came.
    """

    api_key: str | None = None
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    keeps_metadata: bool = True

    def __post_init__(self) -> None:
        self.client = QdrantClient(":memory:")
        self.indexes: dict[str, dict[str, str]] = {}
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self.http.daemon_threads = False  # so that closing waits for slow answers
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
        self.client.close()

    def sent(self, method: str, ending: str) -> list[Any]:
        """Bodies of the requests of `method` whose path ends so."""
        return [body for how, path, body in self.requests if how == method and path.endswith(ending)]

    def only_collection(self) -> str:
        (found,) = self.client.get_collections().collections
        return found.name

    def points(self, name: str) -> list[models.Record]:
        return self.client.scroll(name, limit=10_000)[0]

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The `result` of one request; KeyError where no such thing is known."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts == ["collections"]:
            return self.client.get_collections()
        name, rest = parts[1], "/".join(parts[2:])
        if rest == "exists":
            return {"exists": self.client.collection_exists(name)}
        if not self.client.collection_exists(name) and (method, rest) != ("PUT", ""):
            raise KeyError(f"Not found: Collection `{name}` doesn't exist!")
        return getattr(self, f"{method.lower()}_{rest.replace('/', '_') or 'collection'}")(name, body)

    def get_collection(self, name: str, _: Any) -> Any:
        info = self.client.get_collection(name).model_dump(mode="json", exclude_none=True)
        info["payload_schema"] = {
            key: {"data_type": kind, "points": 0} for key, kind in self.indexes.get(name, {}).items()
        }
        return info

    def put_collection(self, name: str, body: Any) -> Any:
        if self.client.collection_exists(name):
            raise ValueError(f"Collection `{name}` already exists!")
        asked = models.CreateCollection.model_validate(body)
        metadata = asked.metadata if self.keeps_metadata else None
        return self.client.create_collection(
            name, vectors_config=asked.vectors, sparse_vectors_config=asked.sparse_vectors, metadata=metadata
        )

    def patch_collection(self, name: str, body: Any) -> Any:
        asked = models.UpdateCollection.model_validate(body)
        return self.client.update_collection(name, metadata=asked.metadata) if self.keeps_metadata else True

    def put_index(self, name: str, body: Any) -> Any:
        self.indexes.setdefault(name, {})[body["field_name"]] = body["field_schema"]
        return {"operation_id": 0, "status": "completed"}

    def put_points(self, name: str, body: Any) -> Any:
        asked = models.PointsList.model_validate(body)
        return self.client.upsert(name, asked.points)

    def post_points_payload(self, name: str, body: Any) -> Any:
        return self.client.set_payload(name, body["payload"], points=body["points"])

    def post_points_delete(self, name: str, body: Any) -> Any:
        return self.client.delete(name, models.PointIdsList(points=body["points"]))

    def post_points_count(self, name: str, body: Any) -> Any:
        asked = models.CountRequest.model_validate(body)
        return self.client.count(name, count_filter=asked.filter, exact=True)

    def post_points_scroll(self, name: str, body: Any) -> Any:
        asked = models.ScrollRequest.model_validate(body)
        points, offset = self.client.scroll(
            name, limit=asked.limit or 10, offset=asked.offset, with_payload=asked.with_payload or False
        )
        return {"points": [point.model_dump(mode="json") for point in points], "next_page_offset": offset}

    def post_points_query(self, name: str, body: Any) -> Any:
        asked = models.QueryRequest.model_validate(body)
        idf = None if asked.params is None else asked.params.idf  # local mode warns of all others
        answer = self.client.query_points(
            name,
            query=asked.query,
            using=asked.using,
            query_filter=asked.filter,
            search_params=None if idf is None else models.SearchParams(idf=idf),
            limit=asked.limit or 10,
            with_payload=asked.with_payload or False,
        )
        for point in answer.points:  # a server's scores do not change from call to call; local mode's do, a little
            point.score = round(point.score, 6)
        return answer


def handler_of(server: QdrantServer) -> type[BaseHTTPRequestHandler]:
    """A handler that answers for `server`."""

    class Handler(BaseHTTPRequestHandler):
        def do_any(self) -> None:
            path = urlsplit(self.path).path
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(content) if content else None
            with server.lock:
                server.requests.append((self.command, path, body))
                how = next((fault.how for fault in server.faults if fault.strikes(self.command, path)), "")
            if how == "drop":
                self.connection.close()
                return
            if how == "slow":
                time.sleep(1.2)
            if how.isdigit():
                self.reply(int(how), {"status": {"error": f"made to fail for key {self.headers.get('api-key')}"}})
            elif how == "lost":  # done, but nobody hears of it
                with server.lock:
                    server.answer(self.command, path, body)
                self.connection.close()
            elif how == "no json":
                self.reply(200, None)
            elif server.api_key and self.headers.get("api-key") != server.api_key:
                self.reply(401, {"status": {"error": "Must provide an API key"}})
            else:
                self.reply_with(path, body)

        def reply_with(self, path: str, body: Any) -> None:
            try:
                with server.lock:
                    result = server.answer(self.command, path, body)
            except KeyError as error:
                self.reply(404, {"status": {"error": str(error.args[0])}})
            except ValueError as error:
                self.reply(400, {"status": {"error": str(error)}})
            else:
                plain = result.model_dump(mode="json") if hasattr(result, "model_dump") else result
                self.reply(200, {"result": plain, "status": "ok", "time": 0.0})

        def reply(self, status: int, answer: Any) -> None:
            content = b"<html>a proxy</html>" if answer is None else json.dumps(answer).encode()
            with contextlib.suppress(ConnectionError):  # who asked may have gone
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_any  # noqa: N815 - names that http.server calls

    return Handler


class DocumentSite:
    """A folder with documents that may change, one storage root a name, and the stages opened over it.

    Args:
        folder: for all of it.
        server: where stages are opened that name no other engine.
        make: a stage of a corpus, an encoder or None, and options.
        documents: id -> text, where a test brings none of its own.
    """

    def __init__(
        self, folder: Path, server: QdrantServer, make: Callable[..., Any], documents: Mapping[str, str]
    ) -> None:
        self.folder, self.server, self.root = folder, server, folder / "storage"
        self._make, self._documents = make, documents
        self.stages: list[Any] = []
        self.corpora: list[DiskCorpus] = []
        self.reasons: list[str] = []
        self.directory = folder

    def corpus(self, documents: Mapping[str, str] | None = None) -> DiskCorpus:
        """The documents on disk; `even` tells whether a document's number is."""
        beir = self.folder / "beir"
        beir.mkdir(exist_ok=True)
        rows = [
            json.dumps({"_id": key, "text": text, "even": int(key[1:]) % 2 == 0})
            for key, text in (documents or self._documents).items()
        ]
        (beir / "corpus.jsonl").write_text("\n".join(rows))
        self.corpora.append(open_corpus(CorpusSpec("eyes", str(beir)), self.root))
        return self.corpora[-1]

    def open(self, corpus: DiskCorpus, encoder: Any = None, verify: bool = False, **options: Any) -> Any:
        """A stage of `options` ready to retrieve, on the server where they name no other place."""
        place = {} if "engine" in options or "url" in options else {"url": self.server.url}
        return self.opened(self._make(corpus, encoder, **place, **options), corpus, verify)

    def opened(self, stage: Any, corpus: DiskCorpus, verify: bool = False) -> Any:
        """The stage ready; `reasons` then says what was built, `directory` where the index is."""
        self.stages.append(stage)
        stage.load()
        self.reasons.clear()
        index = open_index(stage, corpus, self.root, "stage", on_build=self.reasons.append, verify=verify)
        self.directory = index.directory
        return stage

    def close(self) -> None:
        """Let go of everything."""
        for stage in self.stages:
            stage.close()
        for corpus in self.corpora:
            corpus.close()


_HOLDER = """
import sys
from pathlib import Path
from orchestrator.plugins.qdrant.edge_shard import open_shard
print(open_shard(None, Path(sys.argv[1]), int(sys.argv[2])) is not None, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def held_elsewhere() -> Callable[[Path, int], contextlib.AbstractContextManager[None]]:
    """`with held_elsewhere(directory, n_points)`: another process has the shard open."""

    @contextlib.contextmanager
    def hold(directory: Path, n_points: int) -> Iterator[None]:
        command = [sys.executable, "-c", _HOLDER, str(directory), str(n_points)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == b"True"
            yield
            process.communicate()

    return hold


@pytest.fixture
def make_site(tmp_path: Path, server: QdrantServer) -> Iterator[Callable[..., DocumentSite]]:
    """Makes a DocumentSite of `make` and `documents`, closed with the test."""
    made: list[DocumentSite] = []

    def make(stage: Callable[..., Any], documents: Mapping[str, str]) -> DocumentSite:
        made.append(DocumentSite(tmp_path, server, stage, documents))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def make_server() -> Iterator[Callable[..., QdrantServer]]:
    """Starts servers that end with the test."""
    running: list[QdrantServer] = []

    def make(**options: Any) -> QdrantServer:
        running.append(QdrantServer(**options))
        return running[-1]

    yield make
    for server in running:
        server.close()


@pytest.fixture
def server(make_server: Callable[..., QdrantServer]) -> QdrantServer:
    return make_server()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[QdrantServer]:
    """One server for tests that only read the collection that the first of them filled."""
    running = QdrantServer()
    yield running
    running.close()


@pytest.fixture(scope="session")
def hash_embed() -> type[HashEmbed]:
    return HashEmbed
