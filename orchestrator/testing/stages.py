"""Contracts of stages."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from orchestrator.testing.inputs import TEXTS, ranked, with_document_vector, with_vector
from orchestrator.types import Call, Document, Need, Query, RankedList, ScoreKind


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

    A stage that tells scores as they arrive, by `call.report`, tells the very scores that it returns: when the time
    ends, what it told is its answer. Rows are places in the `pairs` of that call, so a stage that asks another one for
    some of them gives it a `Call` of its own, and takes over what that one spent by `call.add`.

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

    def test_reported_is_what_is_returned(self) -> None:
        """Every score told by `call.report` is the one that is returned for its row; a stage may tell none."""
        stage, call = self.ready(), Call()
        pairs = self.pairs(stage)
        scores = np.asarray(stage.score(pairs, call))
        told = call.reported
        assert set(told) <= set(range(len(pairs))), f"rows are places in `pairs`; found {sorted(told)}"
        rows = sorted(told)
        reported = np.array([told[row] for row in rows], dtype=np.float64)
        np.testing.assert_allclose(reported, scores[rows], atol=self.tolerance, rtol=0)

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
