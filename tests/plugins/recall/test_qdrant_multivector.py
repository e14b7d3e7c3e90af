"""Recall by token vectors: the whole corpus as the late_interaction rerank scores it, alike on every engine."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from qdrant_client import models

from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.errors import ConfigError, IndexStateError
from orchestrator.plugins.late_interaction.maxsim import maxsim
from orchestrator.plugins.recall.qdrant_multivector import QdrantMultivectorRecall
from orchestrator.plugins.rerank.late_interaction import LateInteractionRerank
from orchestrator.testing import RecallContract
from orchestrator.types import Call, Query, TextKind, TokenVectors

WORDS = "glaucoma eye nerve optic pressure vitamin retina cornea lens vision".split()  # noqa: SIM905
QUESTIONS = ["glaucoma eye pressure", "optic nerve 12", "vitamin", "words that nobody wrote"]
N = 64
DIM = 12


class WordVectors:
    """A fixed direction for every word; as a text without words, one for nothing."""

    languages = ("en",)

    def __init__(self, fills_queries: bool = False) -> None:
        self.dim, self.model_id, self.fills_queries = DIM, f"words-{fills_queries}", fills_queries

    def load(self) -> None:
        """Nothing to load."""

    def embed_tokens(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[TokenVectors]:
        """Unit vectors drawn from each word's hash."""
        return [self.tokens(text) for text in texts]

    def tokens(self, text: str) -> TokenVectors:
        ids = np.array([zlib.crc32(word.encode()) % 997 for word in text.split() or [""]], dtype=np.int32)
        rows = np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in ids])
        return TokenVectors((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), ids)


def texts(n: int = N) -> dict[str, str]:
    """Texts of 1 to 12 words; every tenth stands three times; the last one is empty."""
    generator = np.random.default_rng(5)
    lines = [" ".join(generator.choice(WORDS, generator.integers(1, 12))) + f" {i}" for i in range(n - 1)]
    for place in range(0, n - 3, 10):
        lines[place + 1] = lines[place + 2] = lines[place]
    return {f"d{i}": line for i, line in enumerate([*lines, ""])}


@pytest.fixture
def site(make_site: Callable[..., Any]) -> Any:
    def make(corpus: DiskCorpus, encoder: Any, **options: Any) -> QdrantMultivectorRecall:
        return QdrantMultivectorRecall(encoder or WordVectors(), storage_root=corpus.root, **options)

    return make_site(make, texts())


def ask(stage: Any, text: str, top_k: int = 10, call: Call | None = None) -> list[tuple[str, float]]:
    return list(stage.retrieve(Query("q", text), top_k, call or Call()))


def reranked(stage: LateInteractionRerank, corpus: DiskCorpus, text: str, top_k: int) -> list[tuple[str, float]]:
    """The whole corpus scored by the rerank, best first, equal scores in corpus order."""
    documents = list(corpus.documents())
    scores = stage.score([(Query("q", text), document) for document in documents], Call()).tolist()
    ranked = sorted(zip(documents, scores, strict=True), key=lambda pair: -pair[1])
    return [(document.doc_id, score) for document, score in ranked][:top_k]


def same(found: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> bool:
    """Equal scores to 1e-5 rank by rank and document by document, but for documents that tie with the last one."""
    least, mine = wanted[-1][1] + 2e-5, dict(found)
    by_document = [mine.get(doc_id) == pytest.approx(score, abs=1e-5) for doc_id, score in wanted if score > least]
    return [s for _, s in found] == pytest.approx([s for _, s in wanted], abs=1e-5) and all(by_document)


class TestServerContract(RecallContract):
    """What holds for every recall, on a server."""

    engine: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _site(self, site: Any) -> None:
        self.site, self.corpus = site, site.corpus(texts(40))

    def make(self) -> QdrantMultivectorRecall:
        """Open over the corpus."""
        return self.site.open(self.corpus, **self.engine)


class TestLocalContract(TestServerContract):
    """The same in local mode."""

    engine: ClassVar = {"engine": "local"}


class TestEdgeContract(TestServerContract):
    """The same in Edge."""

    engine: ClassVar = {"engine": "edge"}


PLACES: Mapping[str, Mapping[str, Any]] = {"edge": {"engine": "edge"}, "local": {"engine": "local"}, "server": {}}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "options",
    [
        {"query_weights": "equal", "precision": "float32"},
        {"query_weights": "idf", "precision": "float32"},
        {"query_weights": "idf", "precision": "int8"},
        {"query_weights": "equal", "precision": "int8", "dim": 5},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_it_finds_what_the_late_interaction_rerank_makes_of_the_whole_corpus(
    site: Any, place: str, options: dict[str, Any]
) -> None:
    corpus = site.corpus()
    stage = site.open(corpus, **options, **PLACES[place])
    rerank = site.opened(LateInteractionRerank(WordVectors(), storage_root=site.root, **options), corpus)
    for question in QUESTIONS:
        for top_k in (1, 10, N):
            assert same(ask(stage, question, top_k), reranked(rerank, corpus, question, top_k))


@pytest.mark.parametrize("place", PLACES)
def test_equal_documents_come_in_corpus_order_and_the_first_of_them_are_kept(site: Any, place: str) -> None:
    stage, text = site.open(site.corpus(), **PLACES[place]), texts()["d50"]
    assert [doc_id for doc_id, _ in ask(stage, text, 3)] == ["d50", "d51", "d52"]
    assert [doc_id for doc_id, _ in ask(stage, text, 1)] == ["d50"]


def test_queries_that_are_filled_up_count_all_tokens_alike(site: Any) -> None:
    corpus = site.corpus()
    filling = site.open(corpus, encoder=WordVectors(fills_queries=True), engine="edge")
    equal = site.open(corpus, query_weights="equal", engine="edge")
    rare = site.open(corpus, engine="edge")
    assert same(ask(filling, "glaucoma 12"), ask(equal, "glaucoma 12"))
    assert not same(ask(rare, "glaucoma 12"), ask(equal, "glaucoma 12"))


def test_a_filter_selects(site: Any) -> None:
    corpus, even = site.corpus(), {"must": [{"key": "even", "match": {"value": True}}]}
    for place in PLACES.values():
        whole = ask(site.open(corpus, **place), "optic nerve", N)
        some = ask(site.open(corpus, filter=even, payload_indexes={"even": "bool"}, **place), "optic nerve", N)
        assert same(some, [(doc_id, score) for doc_id, score in whole if int(doc_id[1:]) % 2 == 0])


def test_while_another_process_has_the_index_the_vectors_are_compared_with_equal_results(
    site: Any, held_elsewhere: Any
) -> None:
    corpus = site.corpus()
    stage = site.open(corpus, engine="edge")
    edge = {question: ask(stage, question, 30) for question in QUESTIONS}
    stage.close()
    with held_elsewhere(site.directory, N):
        second, call = site.open(corpus, engine="edge"), Call()
        for question, wanted in edge.items():
            assert same(ask(second, question, 30, call), wanted)
        assert call.notes == [f"vectors scanned exactly: another process has the index open ({site.directory})"]


def test_the_collection_compares_by_maxsim_and_gets_a_few_documents_a_request(site: Any) -> None:
    stage = site.open(site.corpus(), hnsw={"m": 8}, search={"hnsw_ef": 64}, vector_name="colbert")
    (made,) = site.server.sent("PUT", f"/collections/{site.server.only_collection()}")
    assert made["vectors"] == {
        "colbert": {"size": DIM, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}}
    }
    assert made["hnsw_config"] == {"m": 8}
    batches = site.server.sent("PUT", "/points")
    assert [len(body["points"]) for body in batches] == [8] * (N // 8)
    for body in batches:
        models.PointsList.model_validate(body)
    ask(stage, "optic nerve", 7)
    asked = site.server.sent("POST", "/query")[-1]
    assert np.array(asked["query"]["nearest"]).shape == (2, DIM)
    assert (asked["using"], asked["params"]) == ("colbert", {"hnsw_ef": 64})


def test_a_changed_corpus_sends_what_changed(site: Any) -> None:
    documents = texts()
    site.open(site.corpus(documents), collection="docs")
    documents["d7"] = "quite new in the eye"
    site.server.requests.clear()
    corpus = site.corpus(documents)
    new = site.open(corpus, collection="docs")
    (batch,) = site.server.sent("PUT", "/points")
    assert [point["payload"]["doc_id"] for point in batch["points"]] == ["d7"]
    assert same(ask(new, "quite new", 30), ask(site.open(corpus, engine="edge"), "quite new", 30))
    site.open(corpus, collection="docs", verify=True)
    assert site.reasons == []


@pytest.mark.parametrize("distance", ["Cosine", "Dot"])
def test_an_existing_collection_is_searched_with_tokens_weighed_alike(site: Any, distance: str) -> None:
    client, words = site.server.client, WordVectors()
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    parameters = models.VectorParams(size=DIM, distance=models.Distance(distance), multivector_config=comparator)
    client.create_collection("theirs", vectors_config=parameters)
    points = [
        models.PointStruct(id=place, vector=words.tokens(text).vectors.tolist(), payload={"ref": doc_id})
        for place, (doc_id, text) in enumerate(texts(40).items())
    ]
    client.upsert("theirs", points)
    corpus, theirs = site.corpus(texts(40)), {"collection": "theirs", "existing": True, "id_field": "ref"}
    own = site.open(corpus, engine="edge", query_weights="equal", precision="float32")
    assert same(ask(site.open(corpus, **theirs), "optic nerve", 20), ask(own, "optic nerve", 20))
    with pytest.raises(IndexStateError, match="expected vector 'colbert' of 12, Dot or Cosine, several a point"):
        site.open(corpus, vector_name="colbert", **theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_weights": "rare"}, "query_weights: found 'rare'; choices: auto, idf, equal"),
        ({"precision": "int4"}, "precision: found 'int4'; choices: int8, float32"),
        ({"dim": 0}, "dim: found 0; expected a whole number from 1"),
        (
            {"url": "http://q", "collection": "c", "existing": True, "query_weights": "idf"},
            "query_weights: is fitted to a corpus that we index",
        ),
        (
            {"url": "http://q", "collection": "c", "existing": True, "dim": 4},
            "dim: is fitted to a corpus that we index",
        ),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        QdrantMultivectorRecall(WordVectors(), **options)


def test_more_dimensions_than_the_encoder_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="dim: found 13; the encoder's vectors have 12"):
        QdrantMultivectorRecall(WordVectors(), dim=13).load()


def test_an_index_without_its_frequencies_is_damaged(site: Any) -> None:
    corpus = site.corpus()
    site.open(corpus, engine="edge").close()
    (site.directory / "frequencies.npy").unlink()
    stage = QdrantMultivectorRecall(WordVectors(), storage_root=site.root)
    stage.load()
    with pytest.raises(IndexStateError, match="frequencies"):
        stage.open(corpus, site.directory)
    site.open(corpus, engine="edge")
    assert site.reasons[0].startswith("damaged: ")


@pytest.mark.parametrize("engine", ["edge", None])
def test_an_index_whose_axes_are_no_longer_those_of_the_store_is_built_again(site: Any, engine: str | None) -> None:
    """As when the store was removed, and another stage has made it again for a corpus that had changed."""
    documents: Mapping[str, str] = texts(30)
    options: dict[str, Any] = {"dim": 4, "query_weights": "equal"}
    options |= {"engine": engine} if engine else {}
    corpus = site.corpus(documents)
    stage = site.open(corpus, **options)
    before = ask(stage, documents["d7"], 5)
    stage.close()
    store = stage._store(corpus)
    axes = store.axes
    index = site.directory
    store._rows.discard()
    store._axes._known = None
    store._axes.fit(lambda: np.random.default_rng(3).standard_normal((50, 12)).astype(np.float32))
    assert not np.allclose(store.axes, axes)
    stage = site.open(corpus, **options)
    assert site.reasons == [f"damaged: {index}: the axes of dimension 4 are no longer those of the index"]
    rows = store.ensure(corpus, stage.encoder)
    (query,) = stage.encoder.embed_tokens([documents["d7"]], kind="query", call=Call())
    exact = maxsim(rows.project(query.vectors), np.ones(len(query.vectors), np.float32), rows.take(np.arange(30)))
    found = dict(ask(stage, documents["d7"], 5))
    assert len(found) == len(before)
    for doc_id, score in found.items():
        place_of = list(documents).index(doc_id)
        assert score == pytest.approx(float(exact[place_of]), abs=2e-2)


def test_damaged_vectors_are_told_by_verify_and_the_index_built_again(site: Any) -> None:
    corpus = site.corpus(texts(20))
    stage = site.open(corpus, engine="edge")
    before = ask(stage, "glaucoma", 5)
    stage.close()
    path = stage._store(corpus).directory / "token_ids.i32"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    stage = site.open(corpus, engine="edge", verify=True)
    last = len(set(texts(20).values())) - 1
    assert site.reasons == [f"damaged: rows 0 to {last} are not what was written"]
    assert ask(stage, "glaucoma", 5) == before
    stage.close()
    site.open(corpus, engine="edge", verify=True)
    assert site.reasons == []


@pytest.mark.parametrize("engine", ["edge", "local"])
def test_opening_and_searching_change_no_file_that_the_manifest_checks(site: Any, engine: str) -> None:
    corpus = site.corpus(texts(20))
    for _ in range(3):
        stage = site.open(corpus, engine=engine, verify=site.reasons != [])
        ask(stage, "glaucoma", 5)
        stage.close()
    assert site.reasons == []
