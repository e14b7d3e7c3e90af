"""A collection on a server over real HTTP: the same results as inside the process, whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from qdrant_client import models
from qdrant_site import Site, ask, fill_theirs, ids, same, texts

from orchestrator.corpora.corpus import open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import (
    ConfigError,
    IndexStateError,
    MalformedReplyError,
    MissingExtraError,
    PermanentError,
    RemoteError,
    StageError,
    TransientError,
)
from orchestrator.plugins.qdrant import wire
from orchestrator.plugins.recall.qdrant import QdrantRecall
from orchestrator.testing import RecallContract
from orchestrator.types import Call


@pytest.fixture
def site(tmp_path: Path, server: Any, hash_embed: Any) -> Iterator[Site]:
    opened = Site(tmp_path, server, hash_embed)
    yield opened
    opened.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow one another at once."""
    monkeypatch.setattr(wire, "_WAIT_S", 0.0)


class TestServerContract(RecallContract):
    """What holds for every recall, on a server."""

    engine: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _site(self, site: Site) -> None:
        self.site, self.corpus = site, site.corpus(texts(60))

    def make(self) -> QdrantRecall:
        """Open over the corpus."""
        return self.site.open(self.corpus, **self.engine)


class TestLocalContract(TestServerContract):
    """The same in local mode."""

    engine: ClassVar = {"engine": "local"}


class TestEdgeContract(TestServerContract):
    """The same in Edge, with payload."""

    engine: ClassVar = {"engine": "edge", "payload_text": True}


class TestNamedVectorContract(TestServerContract):
    """The same with a named vector on a server."""

    engine: ClassVar = {"vector_name": "dense"}


class TestExistingContract(TestServerContract):
    """The same in somebody else's collection."""

    def make(self) -> QdrantRecall:
        """Search what somebody else filled."""
        if not self.site.server.client.collection_exists("theirs"):
            fill_theirs(self.site, texts(60))
        return self.site.open(self.corpus, collection="theirs", existing=True, id_field="meta.ref")


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("vector_name", [None, "dense"])
def test_edge_local_and_server_find_the_same(site: Site, similarity: str, vector_name: str | None) -> None:
    corpus = site.corpus()
    stages = {
        name: site.open(corpus, embedder=site.hash_embed(similarity), vector_name=vector_name, **place)
        for name, place in {"edge": {"engine": "edge"}, "local": {"engine": "local"}, "server": {}}.items()
    }
    for text, top_k in [("glaucoma eye", 1), ("optic nerve 12", 25), (texts()["d100"], 2), (texts()["d100"], 600)]:
        found = {name: ask(stage, text, top_k) for name, stage in stages.items()}
        assert same(found["local"], found["edge"])
        assert same(found["server"], found["edge"])
    for stage in stages.values():
        assert ids(stage, texts()["d100"], 3) == ["d100", "d101", "d102"], "ties in corpus order"


def test_a_collection_is_made_for_the_embedder_and_filled_once(site: Site) -> None:
    corpus = site.corpus()
    options = {"payload_indexes": {"year": "integer"}, "hnsw": {"m": 8}, "quantization": {"scalar": {"quantile": 0.99}}}
    site.open(corpus, **options)
    assert site.reasons == ["missing"]
    name = site.server.only_collection()
    assert name.startswith(f"orchestrator-{corpus.key}-")
    (made,) = site.server.sent("PUT", f"/collections/{name}")
    assert made["vectors"] == {"size": 32, "distance": "Cosine"}
    assert made["hnsw_config"] == {"m": 8}
    assert made["quantization_config"] == {"scalar": {"type": "int8", "quantile": 0.99}}
    kinds = {body["field_name"]: body["field_schema"] for body in site.server.sent("PUT", "/index")}
    assert kinds == {"doc_id": "keyword", "_since": "integer", "_until": "integer", "year": "integer"}
    first = next(point for point in site.server.points(name) if point.payload["doc_id"] == "d7")
    assert set(first.payload) == {"doc_id", "title", "text_hash", "_since"}
    n_batches = len(site.server.sent("PUT", "/points"))
    assert n_batches == 3  # 256 points each
    site.open(corpus, verify=True, **options)
    assert site.reasons == []
    site.open(corpus, hnsw={"m": 32})
    assert site.server.sent("PATCH", f"/collections/{name}")[-1] == {"hnsw_config": {"m": 32}}
    assert len(site.server.sent("PUT", "/points")) == n_batches, "what can change in place sends no document again"


def test_search_parameters_reach_the_server(site: Site) -> None:
    stage = site.open(site.corpus(), search={"hnsw_ef": 64, "exact": True, "rescore": True, "oversampling": 2})
    ask(stage, "eye", 7)
    sent = site.server.sent("POST", "/query")[-1]
    assert sent["params"] == {"hnsw_ef": 64, "exact": True, "quantization": {"rescore": True, "oversampling": 2.0}}
    assert sent["limit"] == 8  # one more, to see whether the last score is tied


def test_the_key_is_sent_and_shows_nowhere(
    site: Site, make_server: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    site.server = make_server(api_key="s3cret")
    corpus = site.corpus(texts(20))
    with pytest.warns(UserWarning, match="Api key is used with an insecure connection"):
        stage = site.open(corpus, api_key="s3cret")
    assert len(ids(stage, "eye", 5)) == 5
    assert "s3cret" not in json.dumps(dict(stage.index_settings()))
    assert "s3cret" not in repr(vars(stage)) + repr(vars(stage._engine)) + repr(stage._engine._wire.server)  # type: ignore[attr-defined]
    site.server.faults = [site.fault("POST", "/query", "400")]  # its answer holds the key
    with pytest.raises(PermanentError, match=r"^http://.*answered 400: made to fail for key \*\*\*"):
        ask(stage, "eye")
    kept = [path.read_bytes() for path in site.folder.rglob("*") if path.is_file()]
    assert not any(b"s3cret" in content for content in kept)
    told = capsys.readouterr()
    assert "s3cret" not in told.out + told.err


@pytest.mark.usefixtures("impatient")
def test_a_wrong_key_is_told_with_its_remedy(site: Site, make_server: Callable[..., Any]) -> None:
    site.server = make_server(api_key="s3cret")
    message = r"refused \(401\); expected api_key to hold a key of this server, from .* QDRANT_API_KEY"
    with pytest.raises(PermanentError, match=message):
        site.open(site.corpus(texts(20)))


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("500", TransientError, "query points: answered 500: made to fail .*; gave up after 3 attempt"),
        ("429", TransientError, "query points: answered 429: made to fail .*; gave up after 3 attempt"),
        ("drop", TransientError, "query points: connection failed .*; is a Qdrant server there?"),
        ("slow", TransientError, r"no answer within 0.2 s \(timeout_s\); gave up after 3 attempt"),
        ("404", PermanentError, "query points: answered 404: made to fail"),
        ("no json", MalformedReplyError, "query points: .*; is a Qdrant server there?"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_query_that_the_server_fails_names_it(site: Site, how: str, kind: type[RemoteError], message: str) -> None:
    stage = site.open(site.corpus(texts(20)), timeout_s=0.2)
    site.server.faults = [site.fault("POST", "/query", how)]
    with pytest.raises(kind, match=f"^{site.server.url}: {message}") as caught:
        ask(stage, "eye")
    assert caught.value.__cause__ is not None
    site.server.faults = []
    assert len(ids(stage, "eye", 3)) == 3


def test_no_server_is_told_with_the_url(site: Site) -> None:
    with pytest.raises(TransientError, match=r"http://127.0.0.1:9: look for the collection: connection failed"):
        site.open(site.corpus(texts(20)), url="http://127.0.0.1:9")


def test_a_collection_of_other_vectors_is_refused(site: Site) -> None:
    corpus = site.corpus(texts(20))
    client = site.server.client
    client.create_collection("small", vectors_config=models.VectorParams(size=3, distance=models.Distance.DOT))
    client.create_collection(
        "named", vectors_config={"a": models.VectorParams(size=32, distance=models.Distance.COSINE)}
    )
    client.create_collection("foreign", vectors_config=models.VectorParams(size=32, distance=models.Distance.COSINE))
    message = "collection 'small' has an unnamed vector of 3, Dot; expected an unnamed vector of 32, Cosine"
    with pytest.raises(IndexStateError, match=message):
        site.open(corpus, collection="small")
    message = "collection 'named' has vector 'a' of 32, Cosine; expected vector 'b' of 32, Cosine"
    with pytest.raises(IndexStateError, match=message):
        site.open(corpus, collection="named", vector_name="b")
    message = r"collection 'foreign' \(0 points\) has no state of ours: .*Choices: `existing: true`"
    with pytest.raises(IndexStateError, match=message):
        site.open(corpus, collection="foreign", hnsw={"m": 8}, payload_indexes={"year": "integer"})
    assert {method for method, _, _ in site.server.requests} == {"GET"}, "nothing is written into what is not ours"


def test_a_collection_of_another_model_or_corpus_is_replaced_only_by_force(site: Site) -> None:
    corpus = site.corpus(texts(20))
    site.open(corpus, collection="docs")
    other = site.hash_embed(flavour="x")
    message = "holds corpus 'eyes' by model 'hash-cosine-32'; expected corpus 'eyes' by model 'hash-cosine-32x'"
    with pytest.raises(IndexStateError, match=message):
        site.open(corpus, collection="docs", embedder=other)
    with pytest.raises(IndexStateError, match="expected corpus 'ears' by model"):
        site.open(site.corpus(texts(20), name="ears"), collection="docs")
    stage = site.open(corpus, collection="docs", embedder=other, force=True)
    edge = site.open(corpus, engine="edge", embedder=other)
    assert same(ask(stage, "eye", 20), ask(edge, "eye", 20))


@pytest.mark.usefixtures("impatient")
def test_vectors_of_another_model_from_a_broken_force_are_never_served(site: Site) -> None:
    corpus = site.corpus()
    wanted = ask(site.open(corpus, collection="docs"), "glaucoma eye", 50)
    site.server.faults = [site.fault("PUT", "/points", "500", skip=1)]
    with pytest.raises(TransientError, match="upsert"):
        site.open(corpus, collection="docs", embedder=site.hash_embed(flavour="x"), force=True)
    site.server.faults = []
    assert same(ask(site.open(corpus, collection="docs"), "glaucoma eye", 50), wanted)
    again = site.open(corpus, collection="docs", verify=True, force=True)
    assert same(ask(again, "glaucoma eye", 50), wanted)


def test_a_server_that_keeps_no_metadata_is_too_old(site: Site, make_server: Callable[..., Any]) -> None:
    site.server = make_server(keeps_metadata=False)
    with pytest.raises(IndexStateError, match=r"has no state of ours: .* or its server is older than 1.16"):
        site.open(site.corpus(texts(20)), collection="docs")


def test_metadata_under_a_name_of_ours_is_told(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    (site.folder / "beir").mkdir()
    rows = [{"_id": f"d{i}", "text": f"eye {i}", "doc_id": "mine", "year": i} for i in range(5)]
    (site.folder / "beir" / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    site.corpora.append(open_corpus(CorpusSpec("eyes", str(site.folder / "beir")), site.folder / "storage"))
    stage = site.open(site.corpora[-1], filter={"must": [{"key": "year", "range": {"gte": 3}}]})
    assert sorted(ids(stage, "eye")) == ["d3", "d4"]
    told = capfd.readouterr().err
    assert told.count("qdrant.metadata_hidden") == 1
    assert "field=doc_id" in told


_HOLDER = """
import sys
from pathlib import Path
from orchestrator.plugins.qdrant.one_process import open_once

class Nothing:
    def close(self): pass

print(open_once(Path(sys.argv[1]), Nothing) is not None, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("engine", ["edge", "local"])
def test_a_filter_needs_the_index_that_another_process_has(site: Site, engine: str) -> None:
    corpus = site.corpus(texts(30))
    condition = {"must": [{"has_id": ["d3"]}]}
    folder = {"edge": "shard", "local": "local"}[engine]
    for options, works in (({}, True), ({"filter": condition}, False)):
        wanted = ids(site.open(corpus, engine=engine, **options), "eye", 5)
        site.stages[-1].close()
        command = [sys.executable, "-c", _HOLDER, str(site.directory / folder)]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline().decode().strip() == "True"
        if works:
            call = Call()
            stage = site.open(corpus, engine=engine, **options)
            assert [doc_id for doc_id, _ in ask(stage, "eye", 5, call)] == wanted
            assert call.notes == [f"vectors scanned exactly: another process has the index open ({site.directory})"]
        else:
            with pytest.raises(StageError, match=r"a filter cannot be applied; choices: .*use a server by `url`"):
                site.open(corpus, engine=engine, **options)
        assert site.reasons == [], "an index in use is not damaged"
        holder.communicate()


def test_a_damaged_local_collection_is_built_again(site: Site) -> None:
    corpus = site.corpus(texts(30))
    site.open(corpus, engine="local").close()
    (site.directory / "local" / "meta.json").write_text('{"collections": {}, "aliases": {}}')
    assert len(ids(site.open(corpus, engine="local"), "eye", 100)) == 30
    assert site.reasons[0].startswith("damaged: ")


@pytest.mark.parametrize("place", [{"engine": "local"}, {"url": "http://x"}])
def test_without_the_client_the_extra_is_named(
    place: dict[str, Any], hash_embed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.plugins.qdrant.stage.find_spec", lambda name: None)
    message = r"module 'qdrant_client' is not installed: pip install 'rerank-orchestrator\[qdrant\]'"
    with pytest.raises(MissingExtraError, match=message):
        QdrantRecall(hash_embed(), **place).load()


def test_grpc_is_chosen_by_option(site: Site) -> None:
    """Only that the client is made so: a server that keeps points behind gRPC is not to be had in a test."""
    stage = QdrantRecall(site.hash_embed(), url="http://127.0.0.1:9", prefer_grpc=True, grpc_port=7)
    wire = stage._engine._wire  # type: ignore[attr-defined]
    client = wire.connect()._client
    assert (client._prefer_grpc, client._grpc_port) == (True, 7)
    wire.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "edgy"}, "engine: found 'edgy'; choices: edge, local. Did you mean 'edge'?"),
        ({"engine": "edge", "url": "http://x"}, "engine: is 'edge' and url is set; expected one of them"),
        ({"url": "localhost:6333"}, r"url: found 'localhost:6333'; expected http\[s\]://host\[:port\]"),
        ({"url": ""}, "url: found ''; expected a text"),
        ({"url": "http://x:port"}, "url: found 'http://x:port'; expected"),
        ({"url": "http://me:hidden@x"}, "url: carries credentials; expected .*api_key"),
        ({"url": "http://x", "timeout_s": 0}, "timeout_s: found 0; expected a number of 0.001 or more"),
        ({"url": "http://x", "grpc_port": "a"}, "grpc_port: found 'a'; expected a whole number of 1 or more"),
        ({"collection": "docs"}, "collection: needs a server; set url"),
        ({"existing": True, "collection": "docs"}, "existing: needs a server; set url"),
        ({"existing": True, "url": "http://x"}, "collection: missing"),
        ({"url": "http://x", "id_field": "a"}, "id_field: is for a collection of yours; expected existing: true"),
        ({"url": "http://x", "on_unknown": "drop"}, "on_unknown: found 'drop'; choices: error, skip"),
        (
            {"url": "http://x", "collection": "a", "existing": True, "hnsw": {"m": 3}},
            "hnsw: would be written into a collection of yours, which is only read",
        ),
        ({"vector_name": ""}, "vector_name: found ''; expected a text"),
        ({"payload_indexes": {"year": "number"}}, "payload_indexes.year: found 'number'; choices: keyword, integer"),
        ({"payload_indexes": ["year"]}, "payload_indexes: found .*; expected a mapping"),
        ({"payload_text": "yes"}, "payload_text: found 'yes'; expected true or false"),
        ({"hnsw": {"em": 3}}, "hnsw.em: unknown; choices: m, ef_construct.*Did you mean 'm'?"),
        ({"hnsw": {"ef_construct": 1}}, "hnsw.ef_construct: found 1; expected a whole number of 4 or more"),
        ({"quantization": {}}, "quantization: found none; expected exactly one of scalar, product, binary"),
        ({"quantization": {"product": {}}}, "quantization.product.compression: missing"),
        ({"quantization": {"scalar": {"quantile": 3}}}, "quantile: found 3; expected a number from 0.5 to 1"),
        ({"quantization": {"binary": {"encoding": "x"}}}, "encoding: found 'x'; choices: one_bit"),
        ({"search": {"hnsw_ef": 0}}, "search.hnsw_ef: found 0; expected a whole number of 1 or more"),
        ({"search": {"oversampling": 0.5}}, "search.oversampling: found 0.5; expected a number of 1 or more"),
    ],
)
def test_what_the_yaml_says_wrongly_is_named(options: dict[str, Any], message: str, hash_embed: Any) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        QdrantRecall(hash_embed(), **options)
    assert "hidden" not in str(caught.value)
