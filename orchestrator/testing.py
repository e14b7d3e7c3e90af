"""Contract tests that every plugin passes, ours and yours.

Subclass the contract of your stage's kind in a pytest module and say how one is made:

    class TestMyRerank(PointwiseRerankContract):
        def make(self) -> MyRerank:
            return MyRerank(strength=2)

A plugin that needs files overrides `make` as a method that uses fixtures set on the class. Nothing here imports pytest.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from orchestrator.types import (
    Call,
    Document,
    Need,
    Query,
    RankedList,
    ScoreKind,
    SparseVector,
    TextKind,
    TokenVectors,
    Vectors,
)

TEXTS: Sequence[str] = (
    "Glaucoma damages the optic nerve, often because of high pressure inside the eye.",
    "Regular eye examinations find glaucoma early. " * 30,
    "The Great Wall of China is more than twenty thousand kilometres long.",
    "eye",
    "",
    "青光眼是一种损害视神经的疾病。",
    "Glaucoma damages the optic nerve, often because of high pressure inside the eye.",
)
"""Ordinary, long, unrelated, one word, empty, Chinese, and the first one again."""


def ranked(doc_ids: Sequence[str], scores: Sequence[float], kind: ScoreKind = "bm25", stage: str = "a") -> RankedList:
    """A RankedList for a test, with one stage column."""
    column = np.asarray(scores, dtype=np.float64)
    return RankedList(tuple(doc_ids), column, kind, {stage: column})


class StageContract:
    """What holds for every stage."""

    def make(self) -> Any:
        """A stage as the configuration would make it; loaded by the tests themselves."""
        raise NotImplementedError("a contract test says how its stage is made: override make()")

    def ready(self) -> Any:
        """The stage, loaded."""
        stage = self.make()
        if hasattr(stage, "load"):
            stage.load()
        return stage

    def test_declares_what_it_is(self) -> None:
        """`score_kind` is one of the known kinds, and `needs` holds known needs only."""
        stage = self.ready()
        assert stage.score_kind in get_args(ScoreKind)
        assert set(getattr(stage, "needs", ())) <= set(get_args(Need))
        if "vectors" in getattr(stage, "needs", ()):
            assert hasattr(stage, "embedder"), "a stage that needs vectors says from which embedder"

    def test_load_twice_is_once(self) -> None:
        """A second `load()` changes nothing and does not fail."""
        stage = self.ready()
        if hasattr(stage, "load"):
            stage.load()
        assert stage.score_kind in get_args(ScoreKind)


class PointwiseRerankContract(StageContract):
    """Scores of pairs: one each, in order, independent of everything else in the batch.

    Attributes:
        tolerance: how far two scores of the same pair may differ, in units of the score.
    """

    tolerance: float = 1e-5

    def pairs(self, stage: Any) -> list[tuple[Query, Document]]:
        """Pairs to score: two queries against ordinary and awkward documents, with vectors where they are needed."""
        queries = [Query("q1", "what damages the optic nerve?"), Query("q2", "how long is the Great Wall?")]
        documents = [Document(f"d{place}", text) for place, text in enumerate(TEXTS)]
        if "vectors" in getattr(stage, "needs", ()):
            queries = [with_vector(stage.embedder, query) for query in queries]
            documents = [with_document_vector(stage.embedder, document) for document in documents]
        return [(query, document) for query in queries for document in documents]

    def test_no_pairs_no_scores(self) -> None:
        """An empty batch gives an empty array."""
        assert self._scores(self.ready(), []).shape == (0,)

    def test_one_score_a_pair(self) -> None:
        """Finite scores, as many as pairs."""
        stage = self.ready()
        pairs = self.pairs(stage)
        scores = self._scores(stage, pairs)
        assert scores.shape == (len(pairs),)
        assert np.isfinite(scores).all()

    def test_same_pair_same_score_alone(self) -> None:
        """A pair scores the same alone as in a batch."""
        stage = self.ready()
        pairs = self.pairs(stage)
        alone = np.array([self._scores(stage, [pair])[0] for pair in pairs])
        np.testing.assert_allclose(alone, self._scores(stage, pairs), atol=self.tolerance, rtol=0)

    def test_same_pair_same_score_in_any_order(self) -> None:
        """Order and neighbours do not matter."""
        stage = self.ready()
        pairs = self.pairs(stage)
        order = np.random.default_rng(7).permutation(len(pairs))
        shuffled = self._scores(stage, [pairs[place] for place in order])
        np.testing.assert_allclose(shuffled, self._scores(stage, pairs)[order], atol=self.tolerance, rtol=0)

    def test_equal_documents_score_equal(self) -> None:
        """The first and the last text are the same: so are their scores."""
        stage = self.ready()
        scores = self._scores(stage, self.pairs(stage)).reshape(-1, len(TEXTS))
        np.testing.assert_allclose(scores[:, 0], scores[:, -1], atol=self.tolerance, rtol=0)

    def _scores(self, stage: Any, pairs: Sequence[tuple[Query, Document]]) -> npt.NDArray[np.floating]:
        return np.asarray(stage.score(pairs, Call()))


class ListRerankContract(StageContract):
    """Scores of a whole list: one a candidate, in order, the list itself untouched."""

    def candidates(self) -> RankedList:
        """The list to rescore."""
        return ranked(["a", "b", "c", "d"], [3.0, 2.0, 2.0, 0.5])

    def documents(self) -> list[Document]:
        """The documents of the candidates; override to give them titles or payload."""
        return [Document(doc_id, text) for doc_id, text in zip("abcd", TEXTS, strict=False)]

    def asked(self, stage: Any, candidates: RankedList) -> Any:
        """The stage's scores of `candidates`, their documents handed over as its `needs` say."""
        query, documents = Query("q", "glaucoma optic nerve"), self.documents()
        if "vectors" in getattr(stage, "needs", ()):
            query = with_vector(stage.embedder, query)
            documents = [with_document_vector(stage.embedder, document) for document in documents]
        call = Call(documents={document.doc_id: document for document in documents})
        return np.asarray(stage.rescore(query, candidates, call))

    def test_no_candidates_no_scores(self) -> None:
        """An empty list gives an empty array."""
        assert self.asked(self.ready(), ranked([], [])).shape == (0,)

    def test_one_candidate(self) -> None:
        """A list of one gets one finite score."""
        scores = self.asked(self.ready(), self.candidates().head(1))
        assert scores.shape == (1,)
        assert np.isfinite(scores).all()

    def test_one_score_a_candidate_and_pure(self) -> None:
        """The same list twice gives the same scores, and stays as it was."""
        stage, candidates = self.ready(), self.candidates()
        before = pickle.dumps(candidates)
        first, second = self.asked(stage, candidates), self.asked(stage, candidates)
        assert first.shape == (len(candidates),)
        assert np.isfinite(first).all()
        np.testing.assert_array_equal(first, second)
        assert pickle.dumps(candidates) == before


class WindowRerankContract(StageContract):
    """Orders of a window: every document once, whatever they hold."""

    def documents(self) -> list[Document]:
        """The window: ordinary and awkward documents."""
        return [Document(f"d{place}", text) for place, text in enumerate(TEXTS)]

    def test_its_score_is_a_rank(self) -> None:
        """The core scores by place."""
        assert self.ready().score_kind == "rank"

    def test_every_place_once(self) -> None:
        """All documents, two of them, one, none."""
        stage, documents = self.ready(), self.documents()
        for n in (len(documents), 2, 1, 0):
            places = [int(place) for place in stage.order(Query("q", "glaucoma?"), documents[:n], Call())]
            assert sorted(places) == list(range(n))


class FusionContract(StageContract):
    """Every document of every list once, nothing else."""

    def test_union_of_the_inputs(self) -> None:
        """Overlapping lists give each document once, with a finite score."""
        lists = {"a": ranked(["x", "y", "z"], [3, 2, 1]), "b": ranked(["z", "w"], [0.9, 0.1], "cosine", "b")}
        pairs = list(self.ready().fuse(Query("q", "x"), lists, Call()))
        assert sorted(doc_id for doc_id, _ in pairs) == ["w", "x", "y", "z"]
        assert np.isfinite([score for _, score in pairs]).all()

    def test_empty_inputs(self) -> None:
        """An empty list beside a full one is no error; two empty lists give nothing."""
        stage, empty = self.ready(), ranked([], [])
        one = stage.fuse(Query("q", "x"), {"a": ranked(["x"], [1.0]), "b": empty}, Call())
        assert [doc_id for doc_id, _ in one] == ["x"]
        assert list(stage.fuse(Query("q", "x"), {"a": empty, "b": empty}, Call())) == []

    def test_first_everywhere_is_first(self) -> None:
        """A document that leads every list leads the fused one."""
        lists = {"a": ranked(["x", "y"], [3, 2]), "b": ranked(["x", "z"], [0.9, 0.1], "cosine", "b")}
        pairs = dict(self.ready().fuse(Query("q", "x"), lists, Call()))
        assert max(pairs, key=pairs.__getitem__) == "x"


class RecallContract(StageContract):
    """At most `top_k` documents, none twice, the best ones first to be kept when `top_k` shrinks."""

    query = Query("q1", "glaucoma optic nerve")

    def asked(self, stage: Any) -> Query:
        """The query as this stage gets it: with a vector where it needs one."""
        return with_vector(stage.embedder, self.query) if "vectors" in getattr(stage, "needs", ()) else self.query

    def test_no_document_twice_and_no_more_than_asked(self) -> None:
        """Limits hold for one, for a few, and for more than there are."""
        stage = self.ready()
        for top_k in (1, 3, 1000):
            found = list(stage.retrieve(self.asked(stage), top_k, Call()))
            assert len(found) <= top_k
            assert len({doc_id for doc_id, _ in found}) == len(found)
            assert np.isfinite([score for _, score in found]).all()

    def test_a_smaller_top_k_is_a_prefix(self) -> None:
        """The best three of a thousand are the best three."""
        stage = self.ready()
        order = [sorted(stage.retrieve(self.asked(stage), k, Call()), key=lambda p: (-p[1], p[0])) for k in (3, 1000)]
        np.testing.assert_allclose([s for _, s in order[0]], [s for _, s in order[1][:3]], rtol=1e-6)

    def test_same_query_same_answer(self) -> None:
        """Asking twice gives the same."""
        stage = self.ready()
        query = self.asked(stage)
        assert list(stage.retrieve(query, 5, Call())) == list(stage.retrieve(query, 5, Call()))


class EmbedContract:
    """One vector a text, in order, independent of its neighbours.

    Attributes:
        tolerance: how far two vectors of the same text may differ in any component.
    """

    tolerance: float = 1e-5

    def make(self) -> Any:
        """An embedder as the configuration would make it."""
        raise NotImplementedError("a contract test says how its embedder is made: override make()")

    def test_no_texts_no_vectors(self) -> None:
        """An empty batch gives an array of shape (0, dim)."""
        embedder = self._ready()
        assert self._vectors(embedder, []).shape == (0, embedder.dim)

    def test_says_what_it_is(self) -> None:
        """Similarity and identity are known once loaded, and a second instance has the same identity."""
        embedder, other = self._ready(), self._ready()
        assert embedder.similarity in ("cosine", "dot")
        assert embedder.model_id == other.model_id != ""

    def test_one_vector_a_text_whatever_the_batch(self) -> None:
        """Alone, in a batch and in reverse order a text has the same vector."""
        embedder = self._ready()
        together = self._vectors(embedder, TEXTS)
        assert together.shape == (len(TEXTS), embedder.dim)
        assert together.dtype == np.float32
        alone = np.concatenate([self._vectors(embedder, [text]) for text in TEXTS])
        backwards = self._vectors(embedder, TEXTS[::-1])[::-1]
        np.testing.assert_allclose(alone, together, atol=self.tolerance, rtol=0)
        np.testing.assert_allclose(backwards, together, atol=self.tolerance, rtol=0)

    def _ready(self) -> Any:
        embedder = self.make()
        embedder.load()
        return embedder

    def _vectors(self, embedder: Any, texts: Sequence[str], kind: TextKind = "document") -> Vectors:
        return np.asarray(embedder.embed(texts, kind=kind, call=Call()))


class EmbedTokensContract:
    """Unit vectors for the tokens of a text, in order, independent of its neighbours.

    Attributes:
        tolerance: how far two vectors of the same token may differ in any component.
    """

    tolerance: float = 1e-5

    def make(self) -> Any:
        """A model of token vectors as the configuration would make it."""
        raise NotImplementedError("a contract test says how its model is made: override make()")

    def test_no_texts_no_vectors(self) -> None:
        """An empty batch gives an empty list."""
        assert self._embedded(self._ready(), [], "document") == []

    def test_says_what_it_is(self) -> None:
        """Identity and length of a vector are known once loaded, and a second instance has the same."""
        model, other = self._ready(), self._ready()
        assert model.model_id == other.model_id != ""
        assert model.dim == other.dim > 0

    def test_every_text_has_unit_vectors_and_their_tokens(self) -> None:
        """Also an empty text: one vector at least, float32 of length 1, and an int32 token for each."""
        model = self._ready()
        for kind in get_args(TextKind):
            found = self._embedded(model, TEXTS, kind)
            assert len(found) == len(TEXTS)
            for part in found:
                assert part.vectors.dtype == np.float32
                assert part.token_ids.dtype == np.int32
                assert part.vectors.shape == (len(part.token_ids), model.dim)
                assert len(part.token_ids) >= 1
                np.testing.assert_allclose(np.linalg.norm(part.vectors, axis=1), 1, atol=self.tolerance)

    def test_tokens_of_a_text_whatever_the_batch(self) -> None:
        """Alone, in a batch and in reverse order a text has the same tokens and vectors."""
        model = self._ready()
        for kind in get_args(TextKind):
            together = self._embedded(model, TEXTS, kind)
            alone = [self._embedded(model, [text], kind)[0] for text in TEXTS]
            backwards = self._embedded(model, TEXTS[::-1], kind)[::-1]
            for first, second, third in zip(together, alone, backwards, strict=True):
                for other in (second, third):
                    np.testing.assert_array_equal(other.token_ids, first.token_ids)
                    np.testing.assert_allclose(other.vectors, first.vectors, atol=self.tolerance, rtol=0)

    def _ready(self) -> Any:
        model = self.make()
        model.load()
        return model

    def _embedded(self, model: Any, texts: Sequence[str], kind: TextKind) -> list[TokenVectors]:
        return list(model.embed_tokens(texts, kind=kind, call=Call()))


class EmbedSparseContract:
    """Weights of ascending dimensions, in order, independent of a text's neighbours.

    Attributes:
        tolerance: how far two weights of the same dimension may differ.
    """

    tolerance: float = 1e-5

    def make(self) -> Any:
        """A sparse encoder as the configuration would make it."""
        raise NotImplementedError("a contract test says how its encoder is made: override make()")

    def test_no_texts_no_vectors(self) -> None:
        """An empty batch gives an empty list."""
        assert self._embedded(self._ready(), [], "document") == []

    def test_says_what_it_is(self) -> None:
        """Identity and kind of score are known once loaded, and a second instance has the same."""
        model, other = self._ready(), self._ready()
        assert model.model_id == other.model_id != ""
        assert model.score_kind in get_args(ScoreKind)
        assert model.uses_idf in (True, False)

    def test_every_dimension_once_in_ascending_order(self) -> None:
        """uint32 dimensions and finite float32 weights, none of them 0; also of an empty text, which may have none."""
        model = self._ready()
        for kind in get_args(TextKind):
            found = self._embedded(model, TEXTS, kind)
            assert len(found) == len(TEXTS)
            for vector in found:
                assert vector.indices.dtype == np.uint32
                assert vector.values.dtype == np.float32
                assert vector.indices.shape == vector.values.shape == (len(vector.indices),)
                assert (np.diff(vector.indices.astype(np.int64)) > 0).all()
                assert (np.isfinite(vector.values) & (vector.values != 0)).all()

    def test_weights_of_a_text_whatever_the_batch(self) -> None:
        """Alone, in a batch and in reverse order a text has the same weights; tiny ones may come and go."""
        model = self._ready()
        for kind in get_args(TextKind):
            together = self._embedded(model, TEXTS, kind)
            alone = [self._embedded(model, [text], kind)[0] for text in TEXTS]
            backwards = self._embedded(model, TEXTS[::-1], kind)[::-1]
            for first, second, third in zip(together, alone, backwards, strict=True):
                for other in (second, third):
                    assert self._difference(first, other) <= self.tolerance

    def _difference(self, first: SparseVector, second: SparseVector) -> float:
        """The largest difference of two weights."""
        one, two = (dict(zip(v.indices.tolist(), v.values.tolist(), strict=True)) for v in (first, second))
        return max((abs(one.get(index, 0.0) - two.get(index, 0.0)) for index in one.keys() | two.keys()), default=0.0)

    def _ready(self) -> Any:
        model = self.make()
        model.load()
        return model

    def _embedded(self, model: Any, texts: Sequence[str], kind: TextKind) -> list[SparseVector]:
        return list(model.embed_sparse(texts, kind=kind, call=Call()))


def with_vector(embedder: Any, query: Query) -> Query:
    """The query as the runner hands it to a stage that needs vectors."""
    vector = embedder.embed([query.text], kind="query", call=Call())[0]
    return Query(query.query_id, query.text, query.language, vector)


def with_document_vector(embedder: Any, document: Document) -> Document:
    """The document as the runner hands it to a stage that needs vectors."""
    vector = embedder.embed([document.full_text], kind="document", call=Call())[0]
    return Document(document.doc_id, document.text, document.title, document.metadata, vector)
