"""A collection on a server over real HTTP: the same results as inside the process, whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from qdrant_client import models

from orchestrator.corpus import DiskCorpus, open_corpus
from orchestrator.corpus_spec import CorpusSpec
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
from orchestrator.indexes import open_index
from orchestrator.plugins.qdrant import wire
from orchestrator.plugins.recall.qdrant import QdrantRecall
from orchestrator.testing import RecallContract
from orchestrator.types import Call, Query

WORDS = "glaucoma eye nerve optic pressure vitamin retina cornea lens vision".split()  # noqa: SIM905
N = 600


def texts(n: int = N) -> dict[str, str]:
    """Distinct texts, except that every tenth stands three times."""
    generator = np.random.default_rng(3)
    lines = [" ".join(generator.choice(WORDS, 5)) + f" {i}" for i in range(n)]
    for place in range(0, n - 2, 10):
        lines[place + 1] = lines[place + 2] = lines[place]
    return {f"d{i}": line for i, line in enumerate(lines)}


class Site:
    """A folder with documents that may change, one storage root a name, and the stages opened over it."""

    def __init__(self, folder: Path, server: Any, hash_embed: Any) -> None:
        self.folder, self.server, self.hash_embed = folder, server, hash_embed
        self.stages: list[QdrantRecall] = []
        self.corpora: list[DiskCorpus] = []
        self.reasons: list[str] = []

    def corpus(
        self, documents: Mapping[str, str] | None = None, root: str = "storage", name: str = "eyes"
    ) -> DiskCorpus:
        beir = self.folder / "beir"
        beir.mkdir(exist_ok=True)
        rows = [json.dumps({"_id": key, "text": text}) for key, text in (documents or texts()).items()]
        (beir / "corpus.jsonl").write_text("\n".join(rows))
        self.corpora.append(open_corpus(CorpusSpec(name, str(beir)), self.folder / root))
        return self.corpora[-1]

    def open(self, corpus: DiskCorpus, force: bool = False, verify: bool = False, **options: Any) -> QdrantRecall:
        """A stage ready to retrieve; `reasons` then says what was built."""
        embedder = options.pop("embedder", None) or self.hash_embed()
        place = {} if "engine" in options or "url" in options else {"url": self.server.url}
        self.stages.append(QdrantRecall(embedder, **place, **options))
        self.stages[-1].load()
        self.reasons.clear()
        told = self.reasons.append
        index = open_index(self.stages[-1], corpus, corpus.root, "dense", on_build=told, force=force, verify=verify)
        self.directory = index.directory
        return self.stages[-1]

    def close(self) -> None:
        for stage in self.stages:
            stage.close()
        for corpus in self.corpora:
            corpus.close()


@pytest.fixture
def site(tmp_path: Path, server: Any, hash_embed: Any) -> Iterator[Site]:
    opened = Site(tmp_path, server, hash_embed)
    yield opened
    opened.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow one another at once."""
    monkeypatch.setattr(wire, "_WAIT_S", 0.0)


def ask(stage: QdrantRecall, text: str, top_k: int = 10, call: Call | None = None) -> list[tuple[str, float]]:
    vector = stage.embedder.embed([text], kind="query", call=Call())[0]
    return list(stage.retrieve(Query("q", text, vector=vector), top_k, call or Call()))


def same(found: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> bool:
    """Equal scores to 1e-5, rank by rank, and equal documents but for those that tie with the last one."""
    scores = [[score for _, score in pairs] for pairs in (found, wanted)]
    kept = [{doc_id for doc_id, score in pairs if score > wanted[-1][1] + 2e-5} for pairs in (found, wanted)]
    return scores[0] == pytest.approx(scores[1], abs=1e-5) and kept[0] == kept[1]


def ids(stage: QdrantRecall, text: str, top_k: int = 10) -> list[str]:
    return [doc_id for doc_id, _ in ask(stage, text, top_k)]


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


def test_another_machine_takes_a_complete_collection_as_it_is(site: Site) -> None:
    wanted = ask(site.open(site.corpus()), "glaucoma")
    n_batches = len(site.server.sent("PUT", "/points"))
    other = site.open(site.corpus(root="another machine's storage"))
    assert site.reasons == ["missing"]
    assert len(site.server.sent("PUT", "/points")) == n_batches
    assert ask(other, "glaucoma") == wanted


def test_a_changed_corpus_sends_what_changed_and_each_reader_sees_its_own_state(site: Site) -> None:
    documents = texts()
    old = site.open(site.corpus(documents), collection="docs")
    before = {text: ask(old, text, 50) for text in ("glaucoma eye", documents["d50"], "quite new")}
    del documents["d50"]
    documents |= {"d7": "quite new in the eye", "added": "quite new in the lens"}
    site.server.requests.clear()
    new = site.open(site.corpus(documents), collection="docs")
    assert site.reasons == ["the corpus changed"]
    (batch,) = site.server.sent("PUT", "/points")
    assert sorted(point["payload"]["doc_id"] for point in batch["points"]) == ["added", "d7"]
    (marked,) = site.server.sent("POST", "/points/payload")
    assert marked["payload"] == {"_until": 2}
    assert len(marked["points"]) == 2  # what d7 was, and d50
    assert ids(new, "quite new in the eye", 1) == ["d7"]
    assert ids(new, "quite new in the lens", 1) == ["added"]
    assert "d50" not in ids(new, documents["d51"], N)
    assert len(ids(new, "eye", 5000)) == len(documents)
    for text, wanted in before.items():
        assert ask(old, text, 50) == wanted, "who opened the collection before sees it as it was"
    fresh = {"engine": "edge"}
    assert same(ask(new, "quite new", 50), ask(site.open(site.corpora[-1], **fresh), "quite new", 50))


def test_points_that_nobody_sees_any_more_go_with_the_next_update(site: Site) -> None:
    documents = texts(30)
    for change in range(3):
        documents["d0"] = f"changed {change}"
        site.open(site.corpus(documents), collection="docs")
    assert len(site.server.points("docs")) == 31  # thirty, and the d0 of the generation before
    del documents["d1"]
    site.open(site.corpus(documents), collection="docs")
    assert len(site.server.points("docs")) == 30
    assert len(ids(site.stages[-1], "eye", 100)) == 29


@pytest.mark.parametrize("how", ["drop", "lost", "500", pytest.param("slow", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("impatient")
def test_an_upload_goes_on_where_it_stopped(site: Site, how: str) -> None:
    corpus = site.corpus()
    place = {"url": site.server.url, "timeout_s": 0.5, "collection": "docs"}
    site.server.faults = [fault(site, "PUT", "/points", how, skip=1)]
    with pytest.raises(TransientError, match=rf"^{site.server.url}: (upsert: |no answer within 0.5 s)"):
        site.open(corpus, **place)
    assert not list((corpus.root / "indexes").rglob("collection.json")), "nothing serves a half-filled collection"
    arrived = {point.payload["doc_id"] for point in site.server.points("docs")}
    assert len(arrived) >= 256
    site.server.faults = []
    site.server.requests.clear()
    stage = site.open(corpus, **place)
    assert site.reasons == ["missing"]
    sent = [point["payload"]["doc_id"] for body in site.server.sent("PUT", "/points") for point in body["points"]]
    assert sorted(sent) == sorted(set(texts()) - arrived)
    assert same(ask(stage, "glaucoma", 50), ask(site.open(corpus, engine="edge"), "glaucoma", 50))


def fault(site: Site, method: str, ending: str, how: str, **options: int) -> Any:
    kind = sys.modules[type(site.server).__module__].Fault
    return kind(method, ending, how, **options)


@pytest.mark.parametrize("how", ["drop", "lost", "500", "429"])
@pytest.mark.usefixtures("impatient")
def test_a_passing_failure_of_an_upload_is_tried_again(site: Site, how: str) -> None:
    corpus = site.corpus()
    site.server.faults = [fault(site, "PUT", "/points", how, skip=1, times=2)]
    stage = site.open(corpus, collection="docs")
    assert len(site.server.sent("PUT", "/points")) == 3 + 2
    assert len(ids(stage, "eye", N)) == N


@pytest.mark.usefixtures("impatient")
def test_a_refused_upload_is_not_tried_again(site: Site) -> None:
    site.server.faults = [fault(site, "PUT", "/points", "400")]
    with pytest.raises(PermanentError, match="upsert: answered 400: made to fail"):
        site.open(site.corpus(), collection="docs")
    assert len(site.server.sent("PUT", "/points")) == 1


_INDEX = """
import sys
from pathlib import Path
from conftest import HashEmbed
from orchestrator.corpus import open_corpus
from orchestrator.corpus_spec import CorpusSpec
from orchestrator.indexes import open_index
from orchestrator.plugins.recall.qdrant import QdrantRecall
folder, url = Path(sys.argv[1]), sys.argv[2]
corpus = open_corpus(CorpusSpec("eyes", str(folder / "beir")), folder / "storage")
stage = QdrantRecall(HashEmbed(), url=url, collection="docs")
stage.load()
open_index(stage, corpus, corpus.root, "dense")
"""


def test_a_killed_upload_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    corpus = site.corpus()
    site.server.faults = [fault(site, "PUT", "/points", "slow", skip=1)]
    command = [sys.executable, "-c", _INDEX, str(tmp_path), site.server.url]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while len(site.server.sent("PUT", "/points")) < 2:
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    site.server.faults = []
    time.sleep(1.3)  # the request that was under way ends
    arrived = len(site.server.points("docs"))
    assert 256 <= arrived < N
    site.server.requests.clear()
    stage = site.open(corpus, collection="docs")
    assert sum(len(body["points"]) for body in site.server.sent("PUT", "/points")) == N - arrived
    assert len(ids(stage, "eye", N)) == N


@pytest.mark.usefixtures("impatient")
def test_a_broken_update_leaves_everybody_the_old_state(site: Site) -> None:
    documents = texts()
    old = site.open(site.corpus(documents), collection="docs")
    wanted = ask(old, "glaucoma eye", 100)
    changed = {key: f"{text} glaucoma eye" for key, text in documents.items()}
    site.server.faults = [fault(site, "POST", "/points/payload", "500")]  # all written, nothing marked
    with pytest.raises(TransientError, match="mark replaced points: answered 500"):
        site.open(site.corpus(changed), collection="docs")
    assert ask(old, "glaucoma eye", 100) == wanted
    site.server.faults = []
    site.server.requests.clear()
    new = site.open(site.corpus(changed), collection="docs")
    assert site.server.sent("PUT", "/points") == [], "all had arrived before"
    fresh = ask(site.open(site.corpora[-1], engine="edge"), "glaucoma eye", 100)
    assert same(ask(new, "glaucoma eye", 100), fresh)


def test_verify_compares_every_document_and_index_mends(site: Site) -> None:
    corpus = site.corpus(texts(40))
    site.open(corpus, collection="docs")
    points = site.server.points("docs")
    site.server.client.set_payload("docs", {"text_hash": "another"}, points=[points[0].id])
    site.server.client.delete("docs", models.PointIdsList(points=[points[1].id]))
    stage = site.open(corpus, collection="docs", verify=True)
    assert len(site.reasons) == 1
    assert "collection 'docs': 2 documents are missing or changed, 0 are not in the corpus: 'd" in site.reasons[0]
    assert len(ids(stage, "eye", 100)) == 40
    site.open(corpus, collection="docs", verify=True)
    assert site.reasons == []


def test_a_collection_that_lost_points_is_mended_when_it_is_opened(site: Site) -> None:
    corpus = site.corpus(texts(40))
    site.open(corpus, collection="docs")
    site.server.client.delete("docs", models.PointIdsList(points=[site.server.points("docs")[0].id]))
    site.open(corpus, collection="docs")
    assert "collection 'docs' shows 39 documents; expected 40" in site.reasons[0]
    site.server.client.delete_collection("docs")
    assert len(ids(site.open(corpus, collection="docs"), "eye", 100)) == 40
    assert "collection 'docs' is gone; expected generation" in site.reasons[0]


def test_verify_mends_a_collection_that_is_gone(site: Site) -> None:
    corpus = site.corpus(texts(40))
    site.open(corpus, collection="docs")
    site.server.client.delete_collection("docs")
    assert len(ids(site.open(corpus, collection="docs", verify=True), "eye", 100)) == 40
    assert "collection 'docs' is gone" in site.reasons[0]


def test_a_payload_that_is_to_hold_the_text_is_written_again(site: Site) -> None:
    corpus = site.corpus(texts(40))
    site.open(corpus, collection="docs")
    only = {"must": [{"key": "text", "match": {"value": texts()["d7"]}}]}
    assert ids(site.open(corpus, collection="docs", payload_text=True, filter=only), "eye") == ["d7"]


def test_force_sends_every_document_again_and_switches_whole(site: Site) -> None:
    corpus = site.corpus(texts(300))
    old = site.open(corpus, collection="docs")
    before = ask(old, "glaucoma", 20)
    site.server.requests.clear()
    new = site.open(corpus, collection="docs", force=True)
    assert site.reasons == ["forced"]
    assert sum(len(body["points"]) for body in site.server.sent("PUT", "/points")) == 300
    assert ask(old, "glaucoma", 20) == before == ask(new, "glaucoma", 20)
    assert len(ids(new, "eye", 1000)) == 300


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
    site.server.faults = [fault(site, "POST", "/query", "400")]  # its answer holds the key
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
    site.server.faults = [fault(site, "POST", "/query", how)]
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
    site.server.faults = [fault(site, "PUT", "/points", "500", skip=1)]
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


def fill_theirs(site: Site, documents: Mapping[str, str], **options: Any) -> None:
    """A collection as somebody else might fill it: vectors of our embedder, ids and texts in fields of their own."""
    client = site.server.client
    parameters = models.VectorParams(size=32, distance=models.Distance.COSINE)
    client.create_collection("theirs", vectors_config=parameters)
    vectors = site.hash_embed().embed(list(documents.values()), kind="document", call=Call()).tolist()
    points = [
        models.PointStruct(id=place, vector=vector, payload={"meta": {"ref": key}, "body": text, "n": place})
        for place, ((key, text), vector) in enumerate(zip(documents.items(), vectors, strict=True))
    ]
    client.upsert("theirs", points)
    site.server.requests.clear()


THEIRS = {"collection": "theirs", "existing": True, "id_field": "meta.ref"}
WRITES = {"PUT", "PATCH", "DELETE"}


def test_a_collection_of_the_users_is_searched_and_never_written(site: Site) -> None:
    corpus = site.corpus()
    fill_theirs(site, texts())
    stage = site.open(corpus, **THEIRS, text_field="body")
    assert same(ask(stage, "glaucoma eye", 40), ask(site.open(corpus, engine="edge"), "glaucoma eye", 40))
    only = {"must": [{"key": "n", "range": {"lt": 3}}, {"has_id": [0, 1, 2, 3]}]}
    filtered = site.open(corpus, **THEIRS, filter=only, verify=True)
    assert sorted(ids(filtered, "eye")) == ["d0", "d1", "d2"]
    site.open(corpus, **THEIRS, force=True)
    assert {method for method, _, _ in site.server.requests} & WRITES == set()
    assert {path.rsplit("/", 1)[1] for method, path, _ in site.server.requests if method == "POST"} == {
        "scroll",
        "query",
    }


def test_the_points_ids_are_the_documents_where_no_field_is_named(site: Site) -> None:
    documents = {str(place): text for place, text in enumerate(texts(30).values())}
    fill_theirs(site, documents)
    stage = site.open(site.corpus(documents), collection="theirs", existing=True)
    assert ids(stage, documents["17"], 1) == ["17"]


def test_a_document_of_several_points_counts_once_with_its_best(site: Site) -> None:
    fill_theirs(site, {"d0": "glaucoma eye", "d1": "optic nerve", "d2": "vitamin"})
    vector = site.hash_embed().embed(["glaucoma eyes"], kind="document", call=Call())[0].tolist()
    site.server.client.upsert("theirs", [models.PointStruct(id=9, vector=vector, payload={"meta": {"ref": "d1"}})])
    stage = site.open(site.corpus({"d0": "glaucoma eye", "d1": "optic nerve", "d2": "vitamin"}), **THEIRS)
    found = ask(stage, "glaucoma eyes", 2)
    assert [doc_id for doc_id, _ in found] == ["d1", "d0"]
    assert found[0][1] == pytest.approx(1)


def test_a_hit_that_the_corpus_does_not_hold_is_an_error_or_left_out(site: Site) -> None:
    documents = texts(30)
    fill_theirs(site, documents)
    known = {key: text for key, text in documents.items() if key not in ("d3", "d5")}
    corpus = site.corpus(known)
    message = r"collection 'theirs': 2 of 30 ids are not in corpus 'eyes': 'd3', 'd5'; .*on_unknown: skip"
    with pytest.raises(IndexStateError, match=message):
        site.open(corpus, **THEIRS)
    stage = site.open(corpus, **THEIRS, on_unknown="skip")
    call = Call()
    assert [doc_id for doc_id, _ in ask(stage, documents["d3"], 28, call)].count("d3") == 0
    assert len(ask(stage, documents["d3"], 28)) == 28
    assert "left out 2 of 30 hits that the corpus does not hold" in call.notes
    site.server.client.delete("theirs", models.PointIdsList(points=[3, 5]))
    stage = site.open(corpus, **THEIRS)
    fill = models.PointStruct(id=3, vector=[1.0] * 32, payload={"meta": {"ref": "later"}})
    site.server.client.upsert("theirs", [fill])
    with pytest.raises(StageError, match=r"query 'q': .* 1 of 29 ids are not in corpus 'eyes': 'later'"):
        ask(stage, "eye", 40)
    site.server.client.upsert("theirs", [models.PointStruct(id=3, vector=[1.0] * 32, payload={})])
    with pytest.raises(StageError, match=r"point 3 has no id in payload field 'meta.ref'"):
        ask(stage, "eye", 40)


def test_verify_of_a_collection_of_the_users_is_an_error_that_nothing_mends(site: Site) -> None:
    corpus = site.corpus(texts(30))
    fill_theirs(site, texts(30))
    site.open(corpus, **THEIRS, verify=True)
    later = models.PointStruct(id=99, vector=[1.0] * 32, payload={"meta": {"ref": "later"}})
    site.server.client.upsert("theirs", [later])
    with pytest.raises(StageError, match="1 of 31 ids are not in corpus 'eyes': 'later'"):
        site.open(corpus, **THEIRS, verify=True)
    assert site.reasons == []


def test_a_text_that_the_collection_holds_otherwise_is_told(site: Site) -> None:
    documents = texts(30)
    fill_theirs(site, {**documents, "d4": "an older text"})
    message = "collection 'theirs': 1 of 30 points hold another text than corpus 'eyes': 'd4'; choices:"
    with pytest.raises(IndexStateError, match=message):
        site.open(site.corpus(documents), **THEIRS, text_field="body")


def test_a_missing_collection_names_those_that_are_there(site: Site) -> None:
    fill_theirs(site, texts(5))
    with pytest.raises(IndexStateError, match="collection 'their' does not exist; collections: theirs"):
        site.open(site.corpus(texts(5)), collection="their", existing=True)


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
