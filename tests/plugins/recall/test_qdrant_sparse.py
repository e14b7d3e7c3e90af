"""Qdrant's sparse recall: BM25 as our own BM25 has it, an encoder's weights as their formula, on every engine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from orchestrator.analysis import analyzer
from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.errors import ConfigError, IndexStateError, StageError
from orchestrator.plugins.embed.bm25 import BM25Sparse
from orchestrator.plugins.embed.qdrant_bm25 import LANGUAGES, QdrantBM25
from orchestrator.plugins.recall.bm25 import BM25Recall
from orchestrator.plugins.recall.qdrant_sparse import QdrantSparseRecall
from orchestrator.rows.sparse_vectors import open_sparse
from orchestrator.stage import EmbedSparse, Indexed, WeighsInCorpus
from orchestrator.testing import EmbedSparseContract, RecallContract
from orchestrator.types import Call, Query, ScoreKind, SparseVector, TextKind

WORDS = "glaucoma eye nerve optic pressure vitamin retina cornea lens vision drops surgery risk age family".split()  # noqa: SIM905
QUESTIONS = ["glaucoma eye pressure", "optic optic nerve 12", "vitamin", "age of the family", "nothing of that"]
N = 130


def texts(n: int = N) -> dict[str, str]:
    """Texts of 2 to 30 words; every tenth stands three times; the last one has no word."""
    generator = np.random.default_rng(11)
    lines = [" ".join(generator.choice(WORDS, generator.integers(2, 30))) + f" {i}" for i in range(n - 1)]
    for place in range(0, n - 3, 10):
        lines[place + 1] = lines[place + 2] = lines[place]
    return {f"d{i}": line for i, line in enumerate([*lines, "..."])}


class LetterWeights:
    """Every letter is a dimension, its weight the root of how often it stands; a query's weights are 1."""

    score_kind: ScoreKind = "dot"
    uses_idf = False
    model_id = "letters"
    languages = ("en",)

    def load(self) -> None:
        """Nothing to load."""

    def embed_sparse(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[SparseVector]:
        """Square roots of counts."""
        return [self.vector(text, kind) for text in texts]

    def vector(self, text: str, kind: TextKind) -> SparseVector:
        counts = Counter(ord(letter) for letter in text if letter.isalpha())
        values = [1.0 if kind == "query" else math.sqrt(counts[index]) for index in sorted(counts)]
        return SparseVector(np.array(sorted(counts), np.uint32), np.array(values, np.float32))


@pytest.fixture
def site(make_site: Callable[..., Any]) -> Any:
    def make(corpus: DiskCorpus, encoder: Any, **options: Any) -> QdrantSparseRecall:
        return QdrantSparseRecall(encoder or BM25Sparse("en"), storage_root=corpus.root, **options)

    return make_site(make, texts())


def ask(stage: Any, text: str, top_k: int = 10, call: Call | None = None) -> list[tuple[str, float]]:
    return list(stage.retrieve(Query("q", text), top_k, call or Call()))


def same(found: list[tuple[str, float]], wanted: list[tuple[str, float]], rtol: float = 2e-6) -> bool:
    """Equal scores rank by rank and document by document, but for documents that tie with the last one."""
    least, mine = (wanted[-1][1] * (1 + 2 * rtol) if wanted else 0.0), dict(found)
    by_document = [mine.get(doc_id) == pytest.approx(score, rel=rtol) for doc_id, score in wanted if score > least]
    return [s for _, s in found] == pytest.approx([s for _, s in wanted], rel=rtol) and all(by_document)


class TestBM25Encoder(EmbedSparseContract):
    """What holds for every sparse encoder."""

    def make(self) -> BM25Sparse:
        """Of an unknown language."""
        return BM25Sparse("und")


class TestServerContract(RecallContract):
    """What holds for every recall, on a server."""

    engine: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _site(self, site: Any) -> None:
        self.site, self.corpus = site, site.corpus(texts(60))

    def make(self) -> QdrantSparseRecall:
        """Open over the corpus."""
        return self.site.open(self.corpus, **self.engine)


class TestLocalContract(TestServerContract):
    """The same in local mode."""

    engine: ClassVar = {"engine": "local"}


class TestEdgeContract(TestServerContract):
    """The same in Edge."""

    engine: ClassVar = {"engine": "edge"}


def test_it_is_an_indexed_recall_with_the_kind_of_score_that_its_encoder_has() -> None:
    bm25, letters = QdrantSparseRecall(BM25Sparse("en")), QdrantSparseRecall(LetterWeights())
    assert isinstance(bm25, Indexed)
    assert isinstance(bm25.encoder, EmbedSparse)
    assert isinstance(bm25.encoder, WeighsInCorpus)
    assert not isinstance(letters.encoder, WeighsInCorpus)
    assert (bm25.score_kind, letters.score_kind) == ("bm25", "dot")
    assert (bm25.languages, letters.languages) == ((), ("en",))


PLACES: Mapping[str, Mapping[str, Any]] = {"edge": {"engine": "edge"}, "local": {"engine": "local"}, "server": {}}


@pytest.mark.parametrize("place", PLACES)
def test_bm25_is_lucenes_formula(site: Any, place: str) -> None:
    stage = site.open(site.corpus(), BM25Sparse("en", k1=1.2, b=0.75), **PLACES[place])
    for question in QUESTIONS:
        assert same(ask(stage, question, 50), by_formula(question, 50, k1=1.2, b=0.75))
    assert ask(stage, "nothing of that") == [] == ask(stage, "...")


def test_it_finds_what_our_own_bm25_finds(site: Any) -> None:
    """Where every text has a word; scores differ as far as the average length is rounded."""
    corpus = site.corpus({doc_id: text for doc_id, text in texts().items() if text != "..."})
    stage = site.open(corpus, BM25Sparse("en", k1=1.2, b=0.75), engine="edge")
    own = site.opened(BM25Recall("en", k1=1.2, b=0.75), corpus)
    for question in QUESTIONS:
        assert same(ask(stage, question, 50), ask(own, question, 50), rtol=0.005)


def by_formula(question: str, top_k: int, k1: float, b: float) -> list[tuple[str, float]]:
    """Lucene's BM25 without k1 + 1; N counts texts with a word; avgdl in steps of one per cent."""
    analyze = analyzer("en")
    counts = {doc_id: Counter(analyze(text)) for doc_id, text in texts().items()}
    n = sum(bool(terms) for terms in counts.values())
    mean = sum(map(Counter.total, counts.values())) / len(counts)
    average = 1.01 ** round(math.log(mean) / math.log(1.01))
    scores = dict.fromkeys(counts, 0.0)
    for term in analyze(question):
        df = sum(term in terms for terms in counts.values())
        for doc_id, terms in counts.items():
            norm = k1 * (1 - b + b * terms.total() / average)
            scores[doc_id] += math.log(1 + (n - df + 0.5) / (df + 0.5)) * terms[term] / (terms[term] + norm)
    places = {doc_id: place for place, doc_id in enumerate(scores)}
    found = sorted(((score, doc_id) for doc_id, score in scores.items() if score), key=lambda p: (-p[0], places[p[1]]))
    return [(doc_id, score) for score, doc_id in found[:top_k]]


def test_chinese_is_cut_into_words(site: Any) -> None:
    documents = {"d0": "青光眼是一种损害视神经的疾病。", "d1": "万里长城很长。", "d2": "视力下降"}
    stage = site.open(site.corpus(documents), BM25Sparse("zh"), engine="edge")
    assert [doc_id for doc_id, _ in ask(stage, "青光眼")] == ["d0"]


@pytest.mark.parametrize("encoder", [BM25Sparse("en"), LetterWeights()], ids=["bm25", "letters"])
def test_edge_local_and_server_find_the_same_and_ties_come_in_corpus_order(site: Any, encoder: Any) -> None:
    corpus = site.corpus()
    stages = {name: site.open(corpus, encoder, **place) for name, place in PLACES.items()}
    for question in QUESTIONS:
        for top_k in (1, 25, 1000):
            found = {name: ask(stage, question, top_k) for name, stage in stages.items()}
            assert same(found["local"], found["edge"])
            assert same(found["server"], found["edge"])
    for stage in stages.values():
        ids = [doc_id for doc_id, _ in ask(stage, texts()["d100"], N)]
        first = ids.index("d100")
        assert ids[first : first + 3] == ["d100", "d101", "d102"]
        assert [doc_id for doc_id, _ in ask(stage, texts()["d100"], first + 2)][-2:] == ["d100", "d101"]


def test_weights_of_an_encoder_are_compared_by_their_dot_product(site: Any) -> None:
    stage, letters = site.open(site.corpus(), LetterWeights(), engine="edge"), LetterWeights()
    query = letters.vector("lens", "query")
    scores = {}
    for doc_id, text in texts().items():
        vector = letters.vector(text, "document")
        both, in_query, in_document = np.intersect1d(query.indices, vector.indices, return_indices=True)
        if len(both):
            scores[doc_id] = float(query.values[in_query] @ vector.values[in_document])
    wanted = sorted(scores.items(), key=lambda pair: -pair[1])[:40]
    assert same(ask(stage, "lens", 40), wanted)


def test_a_filter_selects_and_idf_stays_that_of_the_whole_corpus(site: Any) -> None:
    corpus, even = site.corpus(), {"must": [{"key": "even", "match": {"value": True}}]}
    for place in PLACES.values():
        whole = ask(site.open(corpus, **place), "optic nerve", N)
        some = ask(site.open(corpus, filter=even, payload_indexes={"even": "bool"}, **place), "optic nerve", N)
        assert same(some, [(doc_id, score) for doc_id, score in whole if int(doc_id[1:]) % 2 == 0])


@pytest.mark.parametrize("encoder", [BM25Sparse("en"), LetterWeights()], ids=["bm25", "letters"])
def test_while_another_process_has_the_index_the_vectors_are_scanned_with_equal_results(
    site: Any, encoder: Any, held_elsewhere: Any
) -> None:
    corpus = site.corpus()
    stage = site.open(corpus, encoder, engine="edge")
    edge = {question: ask(stage, question, 50) for question in QUESTIONS}
    stage.close()
    with held_elsewhere(site.directory, N):
        second, call = site.open(corpus, encoder, engine="edge"), Call()
        for question, wanted in edge.items():
            assert same(ask(second, question, 50, call), wanted)
        assert call.notes == [f"vectors scanned exactly: another process has the index open ({site.directory})"]


def test_the_collection_leaves_idf_to_qdrant_and_texts_without_a_word_without_a_vector(site: Any) -> None:
    stage = site.open(site.corpus())
    (made,) = site.server.sent("PUT", f"/collections/{site.server.only_collection()}")
    assert made["vectors"] == {}
    assert made["sparse_vectors"] == {"sparse": {"modifier": "idf"}}
    points = {
        point["payload"]["doc_id"]: point for body in site.server.sent("PUT", "/points") for point in body["points"]
    }
    assert points[f"d{N - 1}"]["vector"] == {}
    sent = points["d7"]["vector"]["sparse"]
    models.SparseVector.model_validate(sent)
    assert sent["indices"] == sorted(set(sent["indices"]))
    ask(stage, "optic optic nerve", 7)
    asked = site.server.sent("POST", "/query")[-1]
    assert sorted(asked["query"]["nearest"]["values"]) == [1.0, 2.0], "a term that stands twice counts twice"
    assert (asked["using"], asked["limit"]) == ("sparse", 8)
    assert "params" not in asked


def test_a_changed_corpus_sends_what_changed_and_idf_is_that_of_the_generation(site: Any) -> None:
    documents = texts()
    old = site.open(site.corpus(documents), collection="docs")
    before = ask(old, "vitamin retina", N)
    changed = [doc_id for doc_id, text in list(documents.items())[1:60] if "vitamin" in text]
    for doc_id in changed:  # many documents, so that IDF moves
        documents[doc_id] = documents[doc_id].replace("vitamin", "retina")
    site.server.requests.clear()
    corpus = site.corpus(documents)
    new = site.open(corpus, collection="docs")
    sent = {point["payload"]["doc_id"] for body in site.server.sent("PUT", "/points") for point in body["points"]}
    assert sent == set(changed)
    assert same(ask(new, "vitamin retina", 50), ask(site.open(corpus, engine="edge"), "vitamin retina", 50))
    asked = site.server.sent("POST", "/query")[-1]
    assert models.SearchParams.model_validate(asked["params"]).idf == models.IdfCorpusParams(
        corpus=models.Filter.model_validate(
            {
                "must": [{"key": "_since", "range": {"lte": 2}}],
                "must_not": [{"key": "_until", "range": {"lte": 2}}],
            }
        )
    )
    assert same(ask(old, "vitamin retina", N), before), "who opened the collection before sees it as it was"
    site.open(corpus, collection="docs", verify=True)
    assert site.reasons == []


def test_another_weighting_is_another_index_of_the_same_counts(site: Any) -> None:
    corpus = site.corpus()
    first = site.open(corpus, BM25Sparse("en"), engine="edge")
    kept = len(open_sparse(corpus.root, first.encoder))
    second = site.open(corpus, BM25Sparse("en", b=0.0), engine="edge")
    assert site.reasons == ["missing"]
    assert first.encoder.model_id == second.encoder.model_id
    assert len(open_sparse(corpus.root, second.encoder)) == kept == len(set(texts().values()))
    assert first.index_settings() == {
        "engine": "qdrant-edge",
        "format": 1,
        "model_id": first.encoder.model_id,
        "sparse": True,
        "idf": True,
        "weighting": {"k1": 0.9, "b": 0.4},
        "vector_name": "sparse",
    }


def test_an_existing_collection_is_searched_by_the_encoders_weights(site: Any) -> None:
    letters, client = LetterWeights(), site.server.client
    client.create_collection("theirs", vectors_config={}, sparse_vectors_config={"splade": models.SparseVectorParams()})
    points = []
    for place, (doc_id, text) in enumerate(texts(60).items()):
        vector = letters.vector(text, "document")
        kept = models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())
        points.append(models.PointStruct(id=place, vector={"splade": kept}, payload={"ref": doc_id}))
    client.upsert("theirs", points)
    theirs = {"collection": "theirs", "existing": True, "id_field": "ref"}
    corpus = site.corpus(texts(60))
    stage = site.open(corpus, letters, vector_name="splade", **theirs)
    assert same(ask(stage, "lens", 20), ask(site.open(corpus, letters, engine="edge"), "lens", 20))
    with pytest.raises(
        IndexStateError, match="has sparse vector 'splade' with modifier none; expected a sparse vector 'sparse' with"
    ):
        site.open(corpus, letters, **theirs)
    with pytest.raises(IndexStateError, match="expected a sparse vector 'splade' with modifier idf"):
        site.open(corpus, BM25Sparse("en"), vector_name="splade", **theirs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k1": -1}, "k1: found -1; expected a number, 0 or more"),
        ({"b": 1.5}, "b: found 1.5; expected a number, 0 to 1"),
        ({"language": "english"}, "unknown language 'english'"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BM25Sparse(**{"language": "en", **arguments})


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (SparseVector(np.array([3, 3], np.uint32), np.ones(2, np.float32)), "not ascending, each once"),
        (SparseVector(np.array([3], np.uint32), np.array([np.nan], np.float32)), "NaN or infinity"),
        (SparseVector(np.array([3], np.uint32), np.ones(2, np.float32)), r"shapes \[1\] and \[2\]"),
    ],
)
def test_vectors_that_are_none_are_refused(site: Any, vector: SparseVector, message: str) -> None:
    class Broken(LetterWeights):
        model_id = f"broken {message}"

        def vector(self, text: str, kind: TextKind) -> SparseVector:
            return vector

    with pytest.raises(StageError, match=message):
        site.open(site.corpus(texts(5)), Broken(), engine="edge")


def test_a_term_has_the_same_dimension_everywhere_and_colliding_terms_count_as_one() -> None:
    encoder = BM25Sparse("und")
    (vector,) = encoder.embed_sparse(["glaucoma"], kind="query", call=Call())
    assert vector.indices.tobytes() == bytes.fromhex("325fde70")  # printf glaucoma | b2sum -l 32
    encoder._dimensions.update(eye=5, lens=5)
    (vector,) = encoder.embed_sparse(["eye lens eye"], kind="document", call=Call())
    assert (vector.indices.tolist(), vector.values.tolist()) == ([5], [3.0])


def test_a_point_without_a_vector_does_not_count_for_the_idf_of_local_mode() -> None:
    client = QdrantClient(":memory:")
    client.create_collection(
        "c", vectors_config={}, sparse_vectors_config={"s": models.SparseVectorParams(modifier=models.Modifier.IDF)}
    )
    one = models.SparseVector(indices=[1], values=[1.0])
    client.upsert("c", [models.PointStruct(id=1, vector={"s": one}), models.PointStruct(id=2, vector={})])
    (hit,) = client.query_points("c", query=one, using="s").points
    assert hit.score == pytest.approx(math.log(1 + (1 - 1 + 0.5) / (1 + 0.5)))
    client.close()


def test_a_changed_corpus_has_only_its_new_texts_encoded(site: Any) -> None:
    class Counting(LetterWeights):
        model_id = "letters, counted"

        def __init__(self) -> None:
            self.seen: list[str] = []

        def embed_sparse(self, texts: Sequence[str], *, kind: TextKind, call: Call) -> list[SparseVector]:
            self.seen += texts
            return super().embed_sparse(texts, kind=kind, call=call)

    documents, first, second = texts(30), Counting(), Counting()
    corpus = site.corpus(documents)
    site.open(corpus, first, engine="edge")
    assert sorted(first.seen) == sorted(set(documents.values()))
    documents["d3"], documents["d30"] = "a new lens", documents["d4"]
    stage = site.open(site.corpus(documents), second, engine="edge")
    assert second.seen == ["a new lens"]
    assert {"d4", "d30"} <= {doc_id for doc_id, _ in ask(stage, documents["d4"], 31)}
    assert open_sparse(corpus.root, second).verify() is None


def test_damaged_vectors_are_told_by_verify_and_the_index_built_again(site: Any) -> None:
    corpus = site.corpus(texts(20))
    stage = site.open(corpus, engine="edge")
    before = ask(stage, "glaucoma", 5)
    stage.close()
    path = open_sparse(corpus.root, stage.encoder).directory / "values.f32"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    stage = site.open(corpus, engine="edge", verify=True)
    last = len(set(texts(20).values())) - 1
    assert site.reasons == [f"damaged: rows 0 to {last} are not what was written"]
    assert ask(stage, "glaucoma", 5) == before


@pytest.mark.parametrize("engine", ["edge", "local"])
def test_opening_and_searching_change_no_file_that_the_manifest_checks(site: Any, engine: str) -> None:
    corpus = site.corpus(texts(20))
    for _ in range(3):
        stage = site.open(corpus, engine=engine, verify=site.reasons != [])
        ask(stage, "glaucoma", 5)
        stage.close()
    assert site.reasons == []


class TestQdrantsOwnBM25(EmbedSparseContract):
    """What holds for every sparse encoder."""

    def make(self) -> QdrantBM25:
        """Of English."""
        return QdrantBM25("en")


def test_qdrants_own_bm25_numbers_terms_by_murmur3_and_weighs_them_by_its_formula() -> None:
    encoder = QdrantBM25("en-US", k1=1.2, b=0.75, average_length_tokens=256)
    encoder.load()
    (query,) = encoder.embed_sparse(["the foo hello hello"], kind="query", call=Call())
    (document,) = encoder.embed_sparse(["the foo hello hello"], kind="document", call=Call())
    # abs(mmh3.hash("foo")) and abs(mmh3.hash("hello")), as fastembed numbers them; "the" is a stop word
    assert query.indices.tolist() == document.indices.tolist() == [156908512, 613153351]
    assert query.values.tolist() == [1.0, 1.0]
    norm = 1.2 * (1 - 0.75 + 0.75 * 3 / 256)
    np.testing.assert_allclose(document.values, [2.2 * 1 / (1 + norm), 2.2 * 2 / (2 + norm)], rtol=1e-6)


def test_languages_are_those_of_qdrants_bm25() -> None:
    for code in LANGUAGES:
        QdrantBM25(code).load()
    with pytest.raises(ConfigError, match="language: found 'cy'; Qdrant's BM25 knows ar, az"):
        QdrantBM25("cy")
    with pytest.raises(ConfigError, match="Qdrant's BM25: "):
        QdrantBM25("en", b=2).load()
