"""Scores that are kept between questions: when they are used, when not, and that they change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.errors import PipelineError
from orchestrator.running.runner import Runner
from orchestrator.running.score_cache import ScoreCache
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.stack.passages import Passages
from orchestrator.types import Call, Document, Query, Vectors

Q = Query("q1", "which eye?")
TEXTS = {"a": "one eye", "b": "two eyes and more words", "c": "no such thing", "d": "eye eye eye eye"}


class Docs:
    in_corpus = True

    def __init__(self, texts: dict[str, str] = TEXTS) -> None:
        self.texts = texts

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        return [Document(doc_id, self.texts[doc_id]) for doc_id in doc_ids]

    def vectors(self, embedder: object, doc_ids: Sequence[str], call: Call | None = None) -> Vectors:
        raise AssertionError("no stage here needs vectors")


class Finds:
    score_kind = "bm25"

    def retrieve(self, query: Query, top_k: int, call: Call) -> list[tuple[str, float]]:
        return [("a", 4.0), ("b", 3.0), ("c", 2.0), ("d", 1.0)]


class Counts:
    """Scores a document by how often the word eye stands in it; remembers what it was asked."""

    score_kind = "logit"
    cacheable_scores = True

    def __init__(self, model_id: str = "counts") -> None:
        self.model_id = model_id
        self.asked: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> npt.NDArray[np.float64]:
        self.asked += [(query.text, document.text) for query, document in pairs]
        return np.array([document.text.count("eye") + len(query.text) / 7 for query, document in pairs])

    def token_spans(self, text: str) -> npt.NDArray[np.int64]:
        ends = np.cumsum([len(word) + 1 for word in text.split(" ")])
        return np.array([[end - 1 - len(word), end - 1] for end, word in zip(ends, text.split(" "), strict=True)])

    def room(self, query: str) -> int | None:
        return None


class Turns:
    score_kind = "rank"
    needs = frozenset({"text"})
    cacheable_scores = True
    model_id = "turns"
    window, stride = 3, 2

    def __init__(self, mends: bool = False) -> None:
        self.mends, self.asked = mends, 0

    def order(self, query: Query, documents: Sequence[Document], call: Call) -> list[int]:
        self.asked += 1
        call.repair("missing", int(self.mends))
        return list(reversed(range(len(documents))))


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[ScoreCache]:
    cache = ScoreCache(tmp_path)
    yield cache
    cache.close()


@pytest.fixture
def ask(kept: ScoreCache) -> Callable[..., Any]:
    def asked(
        stage: object, *queries: Query, use_kept: bool = True, texts: dict[str, str] = TEXTS, **keys: Any
    ) -> list[Any]:
        specs = [StageSpec("bm25", Finds(), 4), replace(StageSpec("precise", stage, 4), **keys)]  # type: ignore[arg-type]
        runner = Runner(StageGraph.of(specs), Docs(texts), kept=kept)
        results = runner.run(queries or (Q,), use_kept=use_kept)
        kept.flush()
        return results

    return asked


def rows(result: Any) -> list[tuple[str, float]]:
    return [(candidate.doc_id, candidate.score) for candidate in result.ranked]


def test_a_pair_is_scored_once_and_the_answer_is_the_same(ask: Callable[..., Any]) -> None:
    first, second = Counts(), Counts()
    (before,), (after,) = ask(first), ask(second)
    assert len(first.asked) == 4
    assert second.asked == []
    assert rows(before) == rows(after)
    assert (before.trace.stages[-1].cache_hits, after.trace.stages[-1].cache_hits) == (0, 4)


def test_only_what_is_new_is_scored(ask: Callable[..., Any]) -> None:
    ask(Counts())
    changed = Counts()
    (result,) = ask(changed, texts=TEXTS | {"c": "an eye after all"})
    assert changed.asked == [(Q.text, "an eye after all")]
    assert result.trace.stages[-1].cache_hits == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": Counts("another model")},
        {"queries": (Query("q1", "which ear?"),)},
        {"passages": Passages(how="windows", size=2, max_windows=None)},
    ],
)
def test_another_model_question_or_way_to_read_is_scored_anew(ask: Callable[..., Any], changes: dict[str, Any]) -> None:
    ask(Counts())
    keys = dict(changes)
    stage = keys.pop("stage", Counts())
    ask(stage, *keys.pop("queries", ()), **keys)
    assert len(stage.asked) >= 4


def test_the_best_window_is_kept_too(ask: Callable[..., Any]) -> None:
    windows = Passages(how="windows", size=2, max_windows=None)
    (before,), (after,) = ask(Counts(), passages=windows), ask(Counts(), passages=windows)
    assert before.passages
    assert before.passages == after.passages


def test_many_questions_share_what_is_kept(ask: Callable[..., Any]) -> None:
    ask(Counts())
    stage = Counts()
    other = Query("q2", "which ear?")
    one, two = ask(stage, Q, other)
    assert {text for text, _ in stage.asked} == {other.text}
    assert rows(two) == rows(ask(Counts(), other, use_kept=False)[0])
    assert rows(one) == rows(ask(Counts(), use_kept=False)[0])


def test_what_is_kept_is_not_used_where_time_is_measured(ask: Callable[..., Any]) -> None:
    ask(Counts())
    stage = Counts()
    (result,) = ask(stage, use_kept=False)
    assert len(stage.asked) == 4
    assert result.trace.stages[-1].cache_hits == 0


@pytest.mark.parametrize("cache", ["auto", "on", "off"])
def test_a_stage_that_does_not_say_that_its_scores_may_be_kept_is_asked_each_time(
    ask: Callable[..., Any], cache: str
) -> None:
    class Silent(Counts):
        cacheable_scores = False

    ask(Silent(), cache=cache)
    stage = Silent()
    ask(stage, cache=cache)
    assert len(stage.asked) == (0 if cache == "on" else 4)


def test_nothing_is_kept_of_a_stage_that_is_told_not_to(ask: Callable[..., Any]) -> None:
    ask(Counts(), cache="off")
    stage = Counts()
    ask(stage)
    assert len(stage.asked) == 4


def test_keeping_scores_of_a_stage_without_a_model_is_refused() -> None:
    class Nameless:
        score_kind = "logit"

        def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> npt.NDArray[np.float64]:
            return np.zeros(len(pairs))

    spec = replace(StageSpec("precise", Nameless(), 4), cache="on")  # type: ignore[arg-type]
    message = r"pipeline\.stages\.precise\.cache: Nameless names no model \(`model_id`\), so its scores cannot be kept"
    with pytest.raises(PipelineError, match=message):
        StageGraph.of([StageSpec("bm25", Finds(), 4), spec])  # type: ignore[arg-type]


def test_the_order_of_a_window_is_asked_for_once(ask: Callable[..., Any]) -> None:
    first, second = Turns(), Turns()
    (before,), (after,) = ask(first), ask(second)
    assert first.asked == 2  # windows of 3 over 4 documents, 2 further each
    assert second.asked == 0
    assert before.doc_ids == after.doc_ids
    assert after.trace.stages[-1].cache_hits == 2


def test_an_order_that_had_to_be_mended_is_not_kept(ask: Callable[..., Any]) -> None:
    ask(Turns(mends=True))
    stage = Turns()
    ask(stage)
    assert stage.asked == 2
