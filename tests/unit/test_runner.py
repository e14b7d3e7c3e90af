"""What the runner does for every stage: order, ties, columns, vectors, errors, batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import CallCancelledError, PermanentError, StageError
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Call, Document, Query, RankedList, Vectors

Q = Query("q1", "what?")


class Docs:
    """Documents whose text is their id; remembers what was read."""

    def __init__(self) -> None:
        self.read_ids: list[str] = []
        self.in_corpus = True

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        self.read_ids += doc_ids
        return [Document(doc_id, f"text of {doc_id}") for doc_id in doc_ids]

    def vectors(self, embedder: object, doc_ids: Sequence[str], call: Call | None = None) -> Vectors:
        return np.array([[float(doc_id[1:]), 1.0] for doc_id in doc_ids], dtype=np.float32)


class Source:
    score_kind = "bm25"

    def __init__(self, pairs: Sequence[tuple[str, float]]) -> None:
        self.pairs = pairs

    def retrieve(self, query: Query, top_k: int, call: Call) -> Sequence[tuple[str, float]]:
        return self.pairs


class Sum:
    score_kind = "rrf"

    def fuse(self, query: Query, lists: Mapping[str, RankedList], call: Call) -> list[tuple[str, float]]:
        totals: dict[str, float] = {}
        for ranked in lists.values():
            for candidate in ranked:
                totals[candidate.doc_id] = totals.get(candidate.doc_id, 0.0) + candidate.score
        return list(totals.items())


class ByText:
    score_kind = "logit"
    needs = frozenset({"text"})

    def __init__(self, function: Callable[[str, str], float] = lambda query, text: float(len(text))) -> None:
        self.function = function
        self.batches: list[int] = []

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
        self.batches.append(len(pairs))
        call.count(tokens=len(pairs) * 10)
        return np.array([self.function(query.text, document.text) for query, document in pairs], dtype=np.float32)


def runner(*stages: tuple[object, ...], docs: Docs | None = None) -> Runner:
    specs = [StageSpec(name, stage, top_k, tuple(inputs)) for name, stage, top_k, *inputs in stages]  # type: ignore[arg-type, misc]
    return Runner(StageGraph.of(specs), docs or Docs())


class Sees:
    """A fusion or a list rerank that keeps what it was handed of its documents."""

    score_kind = "ltr"

    def __init__(self, *needs: str) -> None:
        self.needs = frozenset(needs)
        self.embedder = Lengths()
        self.seen: list[tuple[dict[str, Document], bool]] = []

    def keep(self, call: Call, query: Query) -> None:
        self.seen.append((dict(call.documents), call.in_corpus))
        if "vectors" in self.needs:
            assert query.vector is not None


class Lengths:
    """The length of a text as a vector."""

    dim, model_id, similarity = 2, "lengths", "dot"

    def load(self) -> None:
        """Nothing to load."""

    def embed(self, texts: Sequence[str], *, kind: str, call: Call) -> Vectors:
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


class SeesAsFusion(Sees):
    def fuse(self, query: Query, lists: Mapping[str, RankedList], call: Call) -> list[tuple[str, float]]:
        self.keep(call, query)
        return [(doc_id, 1.0) for doc_id in dict.fromkeys(d for ranked in lists.values() for d in ranked.doc_ids)]


class SeesAsList(Sees):
    def rescore(self, query: Query, candidates: RankedList, call: Call) -> np.ndarray:
        self.keep(call, query)
        return np.ones(len(candidates))


def test_a_fusion_gets_what_it_needs_of_its_documents_read_once() -> None:
    docs, sees = Docs(), SeesAsFusion("text", "vectors")
    a, b = Source([("d1", 3.0), ("d2", 1.0)]), Source([("d2", 0.5), ("d3", 0.25)])
    stack = runner(("a", a, 5), ("b", b, 5), ("f", sees, 5, "a", "b"), docs=docs)
    stack.run([Q, Query("q2", "who?")], read_documents=False)
    (documents, _), _ = sees.seen
    assert {doc_id: document.text for doc_id, document in documents.items()} == {
        f"d{n}": f"text of d{n}" for n in (1, 2, 3)
    }
    assert documents["d3"].vector is not None
    assert documents["d3"].vector.tolist() == [3.0, 1.0]
    assert docs.read_ids == ["d1", "d2", "d3"], "once for both queries"


@pytest.mark.parametrize("in_corpus", [True, False])
def test_a_stage_with_statistics_gets_text_only_where_its_index_has_none(in_corpus: bool) -> None:
    docs, sees = Docs(), SeesAsList("statistics")
    docs.in_corpus = in_corpus
    runner(("a", Source([("d1", 3.0)]), 5), ("l", sees, 5), docs=docs).run([Q], read_documents=False)
    ((documents, told),) = sees.seen
    assert told is in_corpus
    assert docs.read_ids == ([] if in_corpus else ["d1"])
    assert set(documents) == (set() if in_corpus else {"d1"})


def test_a_list_rerank_that_needs_nothing_is_handed_nothing() -> None:
    docs, sees = Docs(), SeesAsList("scores")
    runner(("a", Source([("d1", 3.0)]), 5), ("l", sees, 5), docs=docs).run([Q], read_documents=False)
    assert (sees.seen, docs.read_ids) == ([({}, True)], [])


def test_recall_is_ordered_by_score_then_id_and_cut() -> None:
    (result,) = runner(("a", Source([("d2", 1.0), ("d1", 1.0), ("d3", 5.0), ("d0", 0.1)]), 3)).run([Q])
    assert result.doc_ids == ("d3", "d1", "d2")
    assert result.outputs["a"].doc_ids == ("d3", "d1", "d2", "d0")


def test_rerank_ties_keep_the_incoming_order() -> None:
    first = Source([("d9", 3.0), ("d5", 2.0), ("d7", 1.0)])
    (result,) = runner(("a", first, 3), ("r", ByText(lambda q, t: 1.0), 3)).run([Q])
    assert result.doc_ids == ("d9", "d5", "d7")


def test_every_stage_score_is_kept_and_missing_ones_are_missing() -> None:
    a, b = Source([("d1", 3.0), ("d2", 1.0)]), Source([("d2", 0.5), ("d3", 0.25)])
    (result,) = runner(("a", a, 5), ("b", b, 5), ("f", Sum(), 5, "a", "b"), ("r", ByText(), 2)).run([Q])
    rows = {candidate.doc_id: candidate.scores for candidate in result.outputs["r"]}
    assert rows["d1"] == {"a": 3.0, "f": 3.0, "r": 10.0}
    assert rows["d2"] == {"a": 1.0, "b": 0.5, "f": 1.5, "r": 10.0}
    assert rows["d3"] == {"b": 0.25, "f": 0.25, "r": 10.0}


def test_uncut_goes_on_with_what_earlier_stages_dropped() -> None:
    a = Source([("d1", 5.0), ("d2", 4.0), ("d3", 3.0), ("d4", 2.0)])
    (result,) = runner(("a", a, 3), ("r", ByText(lambda q, t: float(t[-1])), 1)).run([Q])
    assert result.doc_ids == ("d3",)
    assert result.uncut() == ("d3", "d2", "d1", "d4")
    assert result.uncut(2) == ("d3", "d2")
    assert result.uncut(stage="a") == ("d1", "d2", "d3", "d4")


def test_trace_tells_sizes_and_tokens() -> None:
    a = Source([("d1", 5.0), ("d2", 4.0), ("d3", 3.0)])
    (result,) = runner(("a", a, 2), ("r", ByText(), 1)).run([Q])
    told = [(stage.stage, stage.kind, stage.n_in, stage.n_out, stage.tokens) for stage in result.trace.stages]
    assert told == [("a", "recall", 0, 2, 0), ("r", "rerank", 2, 1, 20)]
    assert result.trace.total_ms >= sum(stage.ms for stage in result.trace.stages) > 0


def test_many_queries_are_scored_in_one_batch_with_the_scores_of_one_at_a_time() -> None:
    class PerQuery(Source):
        def retrieve(self, query: Query, top_k: int, call: Call) -> list[tuple[str, float]]:
            return [(f"d{place}", 1.0) for place in range(int(query.query_id))]

    rerank = ByText(lambda query, text: float(len(query)) * float(text[-1]))
    queries = [Query("3", "abc"), Query("0", "nothing is found"), Query("5", "abcde")]
    run = runner(("a", PerQuery([]), 9), ("r", rerank, 4))
    together = run.run(queries)
    assert rerank.batches == [8]
    for query, result in zip(queries, together, strict=True):
        (alone,) = run.run([query])
        assert alone.doc_ids == result.doc_ids
        np.testing.assert_array_equal(alone.ranked.scores, result.ranked.scores)


def test_text_is_read_once_for_all_queries_and_only_when_needed() -> None:
    docs = Docs()
    run = runner(("a", Source([("d1", 2.0), ("d2", 1.0)]), 2), ("r", ByText(), 1), docs=docs)
    run.run([Query("1", "x"), Query("2", "y")], read_documents=False)
    assert docs.read_ids == ["d1", "d2"]
    docs = Docs()
    runner(("a", Source([("d1", 2.0)]), 2), docs=docs).run([Q], read_documents=False)
    assert docs.read_ids == []


def test_a_query_is_embedded_once_for_all_stages_of_an_embedder() -> None:
    class Embedder:
        dim, similarity, model_id = 2, "dot", "tiny"
        calls = 0

        def load(self) -> None: ...

        def embed(self, texts: Sequence[str], *, kind: str, call: Call) -> Vectors:
            self.calls += 1
            return np.ones((len(texts), 2), dtype=np.float32)

    class Dense(Source):
        needs = frozenset({"vectors"})

        def __init__(self, embedder: Embedder) -> None:
            super().__init__([("d1", 2.0), ("d4", 1.0)])
            self.embedder = embedder

        def retrieve(self, query: Query, top_k: int, call: Call) -> Sequence[tuple[str, float]]:
            assert query.vector is not None
            return self.pairs

    class Dot:
        score_kind = "dot"
        needs = frozenset({"vectors"})

        def __init__(self, embedder: Embedder) -> None:
            self.embedder = embedder

        def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
            return np.array([query.vector @ document.vector for query, document in pairs])  # type: ignore[operator]

    embedder = Embedder()
    results = runner(("a", Dense(embedder), 2), ("r", Dot(embedder), 2)).run([Q, Query("q2", "z")])
    assert embedder.calls == 1
    assert [result.doc_ids for result in results] == [("d4", "d1")] * 2
    assert results[0].ranked.scores.tolist() == [5.0, 2.0]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([("a", Source([("d1", 1.0), ("d1", 2.0)]), 5)], "stage 'a', query 'q1': .*returned document 'd1' twice"),
        ([("a", Source([("d1", float("nan"))]), 5)], "stage 'a', query 'q1': .*NaN for document 'd1'"),
        ([("a", Source([("d1", 1.0)]), 5), ("r", ByText(lambda q, t: float("nan")), 5)], "stage 'r'.*NaN"),
        ([("a", Source([("d1", 1.0)]), 5), ("r", ByText(lambda q, t: 1 / 0), 5)], "stage 'r'.*ZeroDivisionError"),
    ],
)
def test_a_stage_that_breaks_its_contract_is_named(stages: list[tuple[object, ...]], message: str) -> None:
    with pytest.raises(StageError, match=message):
        runner(*stages).run([Q])


def test_a_rerank_with_too_few_scores_is_named() -> None:
    class Short(ByText):
        def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
            return np.zeros(len(pairs) - 1)

    with pytest.raises(StageError, match=r"shape \(1,\) for 2 pairs"):
        runner(("a", Source([("d1", 1.0), ("d2", 1.0)]), 5), ("r", Short(), 5)).run([Q])


@pytest.mark.parametrize(("made_up", "message"), [(True, "made up document 'ghost'"), (False, "lost document 'd1'")])
def test_a_fusion_that_makes_up_or_loses_documents_is_named(made_up: bool, message: str) -> None:
    class Wrong(Sum):
        def fuse(self, query: Query, lists: Mapping[str, RankedList], call: Call) -> list[tuple[str, float]]:
            pairs = super().fuse(query, lists, call)
            return [*pairs, ("ghost", 9.0)] if made_up else pairs[1:]

    stages = [("a", Source([("d1", 1.0), ("d2", 0.5)]), 5), ("f", Wrong(), 5, "a")]
    with pytest.raises(StageError, match=message):
        runner(*stages).run([Q])


@given(st.dictionaries(st.sampled_from([f"d{n}" for n in range(20)]), st.integers(-3, 3), min_size=1))
def test_scores_stay_with_their_documents(scores: dict[str, int]) -> None:
    source = Source([(doc_id, 1.0) for doc_id in scores])
    rerank = ByText(lambda query, text: float(scores[text.removeprefix("text of ")]))
    (result,) = runner(("a", source, 30), ("r", rerank, 30)).run([Q])
    assert {candidate.doc_id: candidate.score for candidate in result.ranked} == scores
    assert list(result.ranked.scores) == sorted(scores.values(), reverse=True)


class Backwards:
    """Shown three documents at a time, it turns them round; remembers from which threads it was asked."""

    score_kind, window, stride = "rank", 3, 2

    def __init__(self) -> None:
        self.shown: list[tuple[str, ...]] = []

    def order(self, query: Query, documents: Sequence[Document], call: Call) -> Sequence[int]:
        self.shown.append(tuple(document.text for document in documents))
        return range(len(documents))[::-1]


def test_a_window_rerank_is_shown_windows_with_text_and_scored_by_place() -> None:
    stage = Backwards()
    source = Source([(f"d{place}", float(-place)) for place in range(5)])
    (result,) = runner(("a", source, 9), ("b", stage, 4)).run([Q])
    assert stage.shown[0] == ("text of d2", "text of d3", "text of d4")
    assert stage.shown[1] == ("text of d0", "text of d1", "text of d4")
    assert result.outputs["b"].doc_ids == ("d4", "d1", "d0", "d3", "d2")
    assert list(result.outputs["b"].scores) == [5.0, 4.0, 3.0, 2.0, 1.0]
    assert result.ranked.score_kind == "rank"


class FailsOnce:
    """The first query fails; the others wait until they are told that nobody waits for them."""

    score_kind = "rank"

    def order(self, query: Query, documents: Sequence[Document], call: Call) -> Sequence[int]:
        if query.query_id == "q0":
            raise PermanentError("model at http://host", "answered 401")
        for _ in range(500):
            if call.cancelled:
                raise CallCancelledError("nobody waits")
            time.sleep(0.01)
        raise AssertionError("was never told")


def test_a_window_rerank_that_fails_for_one_query_stops_the_others() -> None:
    queries = [Query(f"q{place}", "what?") for place in range(4)]
    source = Source([("d0", 2.0), ("d1", 1.0)])
    with pytest.raises(StageError, match=r"^stage 'b': model at http://host: answered 401"):
        runner(("a", source, 9), ("b", FailsOnce(), 2)).run(queries)


def test_window_reranks_of_many_queries_stay_apart() -> None:
    queries = [Query(f"q{place}", "what?") for place in range(20)]
    source = Source([("d0", 2.0), ("d1", 1.0)])
    results = runner(("a", source, 9), ("b", Backwards(), 2)).run(queries)
    assert [result.query for result in results] == queries
    assert {result.doc_ids for result in results} == {("d1", "d0")}


def test_no_queries_are_no_results() -> None:
    assert runner(("bm25", Source([("a", 1.0)]), 10), ("precise", ByText(), 10)).run([]) == []
