"""Long documents: what is cut, what is read, and how scores of windows become one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigError, PipelineError
from orchestrator.running.cutting import Cutter, window_borders
from orchestrator.running.passage_scores import PairsRead, aggregated
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.stack.passages import Passages
from orchestrator.types import Call, Document, Query

Q = Query("q", "eye pressure")
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven"]
FILLER = [f"The {number} section says nothing of interest here." for number in NUMBERS]


def spans_of(text: str) -> np.ndarray:
    """Words cut to pieces of three letters, marks alone: like the tokens of a model."""
    return np.array([found.span() for found in re.finditer(r"\w{1,3}|[^\w\s]", text)], np.int64).reshape(-1, 2)


class Overlap:
    """Words of the query in the text, by how long the text is: a long text around them weakens them."""

    score_kind = "logit"
    needs = frozenset({"text"})

    def __init__(self, room: int | None = 40) -> None:
        self._room = room
        self.read: list[str] = []

    def token_spans(self, text: str) -> np.ndarray:
        return spans_of(text)

    def room(self, query: str) -> int | None:
        return self._room

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
        self.read += [document.full_text for _, document in pairs]
        call.count(tokens=sum(len(spans_of(document.full_text)) for _, document in pairs))
        words = [(set(query.text.split()), document.full_text.split()) for query, document in pairs]
        return np.array([sum(word in wanted for word in held) / (1 + len(held)) for wanted, held in words])


class Whole:
    score_kind = "logit"

    def score(self, pairs: Any, call: Call) -> np.ndarray:
        return np.zeros(len(pairs))


class Orders:
    """A window rerank that puts longer texts first."""

    score_kind = "rank"
    needs = frozenset({"text"})
    token_spans, room = Overlap.token_spans, lambda self, query: 40

    def __init__(self) -> None:
        self.read: list[str] = []

    def order(self, query: Query, documents: Sequence[Document], call: Call) -> list[int]:
        self.read += [document.text for document in documents]
        return sorted(range(len(documents)), key=lambda place: -len(documents[place].text))


class Source:
    score_kind = "bm25"

    def __init__(self, doc_ids: Sequence[str]) -> None:
        self.doc_ids = doc_ids

    def retrieve(self, query: Query, top_k: int, call: Call) -> list[tuple[str, float]]:
        return [(doc_id, float(-place)) for place, doc_id in enumerate(self.doc_ids)][:top_k]


class Held:
    in_corpus = True

    def __init__(self, *documents: Document) -> None:
        self.documents = {document.doc_id: document for document in documents}

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        return [self.documents[doc_id] for doc_id in doc_ids]


def long_document(n_windows: int, answer_at: int, title: str = "") -> Document:
    """Of `n_windows` sentences of about one window each, one answers."""
    parts = [FILLER[place % len(FILLER)] for place in range(n_windows)]
    parts[answer_at] = "High eye pressure damages the nerve."
    return Document("long", " ".join(parts), title)


def cut(document: Document, stage: Any = None, query: Query = Q, **policy: Any) -> list[Any]:
    return Cutter(Passages(**policy), stage or Overlap(), Call()).cut(query, document)


texts = st.lists(
    st.sampled_from(["eye", "of", "pressure!", "高血压", "a-b", "\n", "internationalisation"]), max_size=80
)


@given(texts.map(" ".join), st.integers(1, 30), st.none() | st.integers(1, 30))
def test_windows_hold_every_token_in_order_and_no_more_than_size(text: str, size: int, stride: int | None) -> None:
    spans = spans_of(text)
    windows = list(window_borders(text, spans, size, stride))
    assert all(end - first <= size for first, end in windows)
    assert [first for first, _ in windows] == sorted({first for first, _ in windows})
    assert windows[0][0] == 0
    assert windows[-1][1] == len(spans)
    assert all(following[0] <= before[1] for before, following in itertools.pairwise(windows))


def test_windows_begin_and_end_at_words() -> None:
    document = long_document(20, 10)
    for passage in cut(document, how="windows", max_windows=None):
        first, end = passage.span
        assert document.text[first - 1 : first].strip() == "" or not document.text[first - 1].isalnum()
        assert document.text[end : end + 1].strip() == "" or not document.text[end].isalnum()
        assert passage.document.text == document.text[first:end]


def test_chinese_is_cut_between_characters() -> None:
    document = Document("zh", "青光眼是一种损害视神经的疾病" * 20)
    stage = Overlap()
    stage.token_spans = lambda text: np.array([(place, place + 1) for place in range(len(text))], np.int64)  # type: ignore[method-assign]
    windows = cut(document, stage, how="windows", stride=30, max_windows=None)
    assert [passage.span for passage in windows] == [(first, min(first + 40, 280)) for first in range(0, 270, 30)][:9]


def test_a_title_goes_with_every_window_and_takes_a_quarter_at_most() -> None:
    title = "A remarkably long title about the pressure of eyes, kidneys and of many other organs"
    windows = cut(long_document(20, 10, title), how="windows", max_windows=None)
    assert {passage.document.title for passage in windows} == {"A remarkably long title"}  # of forty tokens, nine
    assert all(len(spans_of(passage.document.full_text)) <= 40 for passage in windows)
    assert {passage.document.title for passage in cut(long_document(20, 10, "Eyes"), how="windows")} == {"Eyes"}


def test_a_document_that_fits_goes_whole() -> None:
    short = Document("s", "eye pressure", "A title")
    for how in ("windows", "head_tail", "title_lead"):
        assert [passage.document for passage in cut(short, how=how)] == [short]


@pytest.mark.parametrize("how", ["windows", "head_tail"])
def test_a_stage_without_a_limit_reads_512_tokens_at_once(how: str) -> None:
    fits, longer = long_document(25, 3), long_document(60, 3)
    assert [passage.document for passage in cut(fits, Overlap(room=None), how=how)] == [fits]
    passages = cut(longer, Overlap(room=None), how=how)
    assert max(len(spans_of(passage.document.text)) for passage in passages) in range(500, 513)
    assert len(passages) == (3 if how == "windows" else 1)


def test_first_reads_the_first_window_and_no_other() -> None:
    document, stage, call = long_document(20, 12), Overlap(room=20), Call()
    policy = Passages(how="windows", aggregate="first", max_windows=2)
    _, (span,) = PairsRead(stage, [(Q, document)], policy, call).scored()
    assert span == (0, len(stage.read[0]))
    assert call.passages == 1
    assert call.notes == []


def test_a_size_that_does_not_fit_is_cut_and_declared() -> None:
    call = Call()
    windows = Cutter(Passages(how="windows", size=900), Overlap(room=30), call).cut(Q, long_document(20, 3))
    assert max(len(spans_of(window.document.text)) for window in windows) <= 30
    assert call.notes[0] == "passages of 900 tokens do not fit; they were cut to what the model can read"


def test_head_tail_keeps_both_ends() -> None:
    (passage,) = cut(long_document(20, 10), how="head_tail")
    head, tail = passage.document.text.split(" … ")
    assert long_document(20, 10).text.startswith(head)
    assert long_document(20, 10).text.endswith(tail)
    assert len(spans_of(head)) == len(spans_of(tail)) == (40 - 2) // 2
    assert passage.span is None


def test_title_lead_reads_the_beginning() -> None:
    document = long_document(20, 10, "Eyes")
    (passage,) = cut(document, how="title_lead", size=20)
    assert document.text.startswith(passage.document.text)
    assert passage.document.title == "Eyes"
    assert len(spans_of(passage.document.text)) == 20 - len(spans_of("Eyes")) - 1
    (default,) = cut(document, Overlap(room=None), how="title_lead")
    assert len(spans_of(default.document.text)) == 128 - len(spans_of("Eyes")) - 1


@pytest.mark.parametrize("answer_at", [0, 9, 19])
def test_the_best_window_of_twenty_is_found(answer_at: int) -> None:
    document, stage, call = long_document(20, answer_at), Overlap(room=20), Call()
    scores, (span,) = PairsRead(stage, [(Q, document)], Passages(how="windows", max_windows=None), call).scored()
    assert span is not None
    assert "eye pressure" in document.text[span[0] : span[1]]
    assert scores[0] == max(stage.score([(Q, Document("w", text))], Call())[0] for text in list(stage.read))
    assert call.passages == len(stage.read) - call.passages >= 20


@pytest.mark.parametrize("answer_at", [0, 9, 19])
def test_of_too_many_windows_the_matching_ones_are_read(answer_at: int) -> None:
    document, call = long_document(20, answer_at), Call()
    policy = Passages(how="windows", max_windows=2)
    _, (span,) = PairsRead(Overlap(), [(Q, document)], policy, call).scored()
    assert span is not None
    assert "eye pressure" in document.text[span[0] : span[1]]
    assert call.passages == 2
    assert call.notes == [
        "documents of more than max_windows=2 windows were read in part, the ones that match the query best"
    ]
    firsts = Cutter(replace(policy, choose="first"), Overlap(), call).cut(Q, document)
    assert [passage.span for passage in firsts] == [
        passage.span for passage in cut(document, how="windows", max_windows=None)
    ][:2]


@given(st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=6), min_size=1, max_size=8))
def test_scores_of_windows_become_one(parts: list[list[float]]) -> None:
    flat, counts = np.array([score for part in parts for score in part]), [len(part) for part in parts]
    for how, formula in (("max", max), ("mean", lambda part: sum(part) / len(part)), ("first", lambda part: part[0])):
        values, best = aggregated(flat, counts, how)  # type: ignore[arg-type]
        np.testing.assert_allclose(values, [formula(part) for part in parts], atol=1e-12)  # type: ignore[operator]
        assert best.tolist() == [part.index(max(part)) for part in parts]


def test_the_runner_scores_windows_and_tells_which_was_best() -> None:
    documents = [
        Document("short", "What the eye and its pressure are is on another page of it."),
        long_document(20, 12),
    ]
    specs = [
        StageSpec("bm25", Source(["short", "long"]), 2),  # type: ignore[arg-type]
        StageSpec("precise", Overlap(20), 2, (), Passages(how="windows", max_windows=None)),  # type: ignore[arg-type]
    ]
    (result,) = Runner(StageGraph.of(specs), Held(*documents)).run([Q])  # type: ignore[arg-type]
    assert result.doc_ids == ("long", "short")
    start, end = result.passages["long"]
    assert "eye pressure" in documents[1].text[start:end]
    n_windows = len(cut(documents[1], Overlap(20), how="windows", max_windows=None))
    assert result.trace.stages[1].passages == 1 + n_windows
    assert result.trace.stages[1].tokens > 40
    whole = [replace(specs[0]), replace(specs[1], passages=Passages())]
    (uncut,) = Runner(StageGraph.of(whole), Held(*documents)).run([Q])  # type: ignore[arg-type]
    assert uncut.doc_ids == ("short", "long"), "drowned in its own length"
    assert uncut.passages == {}
    assert uncut.trace.stages[1].passages == 0


def test_several_queries_keep_their_own_windows() -> None:
    document = long_document(20, 4)
    specs = [
        StageSpec("bm25", Source(["long"]), 1),  # type: ignore[arg-type]
        StageSpec("precise", Overlap(), 1, (), Passages(how="windows")),  # type: ignore[arg-type]
    ]
    runner = Runner(StageGraph.of(specs), Held(document))  # type: ignore[arg-type]
    queries = [Q, Query("r", "six section")]
    together = runner.run(queries)
    for result, query in zip(together, queries, strict=True):
        (alone,) = runner.run([query])
        assert result.passages == alone.passages
        assert result.ranked.scores == pytest.approx(alone.ranked.scores)
    assert together[0].passages != together[1].passages


def test_a_window_rerank_reads_one_passage_of_each_document() -> None:
    stage = Orders()
    policy = Passages(how="windows", max_windows=1)
    specs = [
        StageSpec("bm25", Source(["long", "short"]), 2),  # type: ignore[arg-type]
        StageSpec("precise", stage, 2, (), policy),  # type: ignore[arg-type]
    ]
    (result,) = Runner(StageGraph.of(specs), Held(long_document(20, 15), Document("short", "eye"))).run([Q])  # type: ignore[arg-type]
    assert result.doc_ids == ("long", "short")
    assert "eye pressure" in stage.read[0]
    start, end = result.passages["long"]
    assert long_document(20, 15).text[start:end] == stage.read[0]
    assert len(spans_of(stage.read[0])) <= 40


@pytest.mark.parametrize(
    ("values", "path", "said"),
    [
        ({"how": "window"}, "how", "found 'window'; choices: truncate, head_tail, title_lead, windows. Did you mean"),
        ({"how": "windows", "size": 0}, "size", "found 0; expected a whole number from 1"),
        ({"how": "windows", "size": 10, "stride": 11}, "stride", "what lies between would be lost"),
        ({"how": "windows", "aggregate": "median"}, "aggregate", "choices: max, mean, first"),
    ],
)
def test_a_wrong_policy_is_refused(values: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        Passages(**values)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("stage", "policy", "said"),
    [
        (Whole(), Passages(how="head_tail"), "(`token_spans`, `room`); expected truncate"),
        (Orders(), Passages(how="windows"), "max_windows: is 8; Orders orders documents and scores no passage"),
    ],
)
def test_a_stage_that_cannot_is_refused(stage: Any, policy: Passages, said: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(said)):
        StageGraph.of([StageSpec("bm25", Source([]), 5), StageSpec("precise", stage, 5, (), policy)])  # type: ignore[arg-type]


def test_a_recall_has_no_passages() -> None:
    with pytest.raises(PipelineError, match=r"stages\.bm25\.passages\.how: found 'windows', but Source reads"):
        StageGraph.of([StageSpec("bm25", Source([]), 5, (), Passages(how="windows"))])  # type: ignore[arg-type]


def test_windows_of_chinese_text_are_chosen_by_pairs_of_characters() -> None:
    text = "这里没有什么值得注意的内容。" * 40
    document = Document("zh", text[:280] + "高眼压会损害视神经。" + text[280:])
    stage = Overlap()
    stage.token_spans = lambda text: np.array([(place, place + 1) for place in range(len(text))], np.int64)  # type: ignore[method-assign]
    (window,) = cut(document, stage, Query("q", "什么会损害视神经？"), how="windows", max_windows=1)
    assert "视神经" in window.document.text


def test_windows_are_chosen_by_words_whatever_their_endings() -> None:
    document = Document("d", " ".join([*FILLER * 5, "Pressures of the EYES.", *FILLER * 5]))
    (window,) = cut(document, query=Query("q", "pressure eyes"), how="windows", max_windows=1)
    assert "Pressures" in window.document.text


@pytest.mark.parametrize("how", ["windows", "head_tail", "title_lead"])
def test_a_long_title_is_kept_where_all_of_it_fits(how: str) -> None:
    document = Document("d", "short body", " ".join(["word"] * 12) + " wanted")
    call = Call()
    (passage,) = Cutter(Passages(how=how), Overlap(room=60), call).cut(Q, document)  # type: ignore[arg-type]
    assert passage.document is document
    assert call.notes == []


def test_a_title_alone_has_all_the_room() -> None:
    document, call = Document("d", "", " ".join(["word"] * 40)), Call()
    (passage,) = Cutter(Passages(how="windows"), Overlap(room=40), call).cut(Q, document)
    assert len(spans_of(passage.document.title)) in range(36, 41)
    assert call.notes == ["long titles were cut, so that passages have room for the text"]


def test_a_size_that_does_not_fit_is_not_declared_where_nothing_is_cut() -> None:
    call = Call()
    Cutter(Passages(how="windows", size=900), Overlap(room=30), call).cut(Q, Document("d", "a short text"))
    assert call.notes == []


def test_truncate_looks_at_nothing_else() -> None:
    assert not Passages(size=10, stride=20).cuts
