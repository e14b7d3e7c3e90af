"""Out of fold: no query is answered by a model that learned from it, neither in the end nor for the stage after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from answers import Finds, Held, Prefers

from orchestrator.errors import ConfigError
from orchestrator.learning.folds import OutOfFold, learners
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.stage import Fitted, Json, Progress
from orchestrator.types import Call, Example, Query, RankedList, ScoreKind, Scores, Vectors

QUERIES = [Query(f"q{n}", f"question {n}") for n in range(12)]
QRELS = {query.query_id: {"d2": 1} for query in QUERIES}


class Learns:
    """Trainable: puts first the document that was relevant most often, and fails for a query that it learned from."""

    score_kind: ScoreKind = "ltr"
    needs: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.inputs: tuple[str, ...] = ()
        self.learned: list[frozenset[str]] = []
        self.served: dict[str, int] = {}
        self.seen: list[str] = []

    def bind(self, inputs: Sequence[str]) -> None:
        self.inputs = tuple(inputs)

    def model_settings(self) -> Mapping[str, Json]:
        return {}

    def features(
        self, query: Query, candidates: RankedList | Mapping[str, RankedList], call: Call
    ) -> tuple[Sequence[str], Vectors]:
        assert isinstance(candidates, RankedList)
        self.seen.append(query.query_id)
        columns = [candidates.stage_scores[name] for name in self.inputs]
        return candidates.doc_ids, np.stack(columns, axis=1).astype(np.float32)

    def check_options(self, options: Mapping[str, Json]) -> None:
        if "depth" in options:
            raise ConfigError("depth", "no such option")

    def fit(
        self, train: Sequence[Example], validation: Sequence[Example], options: Mapping[str, Json], progress: Progress
    ) -> Fitted:
        assert options["seed"] == 7
        self.learned.append(frozenset(example.query_id for example in (*train, *validation)))
        return Fitted(1, 1.0, {})

    def predict(self, features: Vectors) -> Scores:
        raise AssertionError("the runner asks the stage itself")

    def write_model(self, directory: object) -> None:
        raise AssertionError("nothing is written")

    def open_model(self, directory: object) -> None:
        raise AssertionError("nothing is opened")

    def _serve(self, query: Query) -> None:
        assert self.learned, "asked before it was trained"
        assert query.query_id not in self.learned[-1], f"{query.query_id} was learned from"
        self.served[query.query_id] = self.served.get(query.query_id, 0) + 1


class LearnedRerank(Learns):
    """Prefers d2."""

    def rescore(self, query: Query, candidates: RankedList, call: Call) -> Scores:
        self._serve(query)
        return np.array([float(doc_id == "d2") for doc_id in candidates.doc_ids])


def folded(*learn: LearnedRerank, folds: int = 3, options: Mapping[str, Json] | None = None) -> OutOfFold:
    specs = [StageSpec("bm25", Finds("d1", "d2", "d3"), 3)]
    specs += [StageSpec(f"learned{place}", stage, 3) for place, stage in enumerate(learn)]  # type: ignore[arg-type]
    graph = StageGraph.of([*specs, StageSpec("last", Prefers("d3"), 2)])  # type: ignore[arg-type]
    documents = Held()
    return OutOfFold(graph, lambda other: Runner(other, documents), QUERIES, QRELS, folds, 0.25, options or {}, 7)


def answers(out_of_fold: OutOfFold, batch: int = 5) -> dict[str, tuple[str, ...]]:
    found = {}
    for start in range(0, len(QUERIES), batch):
        for result in out_of_fold.answer(out_of_fold.queries[start : start + batch]):
            found[result.query.query_id] = result.doc_ids
    return found


def test_each_query_is_answered_once_by_a_model_that_did_not_learn_from_it() -> None:
    stage = LearnedRerank()
    out_of_fold = folded(stage)
    assert {query.query_id for query in out_of_fold.queries} == set(QRELS)
    assert answers(out_of_fold) == dict.fromkeys(QRELS, ("d3", "d2"))
    assert stage.served == dict.fromkeys(QRELS, 1)
    assert len(stage.learned) == 3
    assert all(len(learned) == 8 for learned in stage.learned)
    assert frozenset.union(*stage.learned) == set(QRELS)
    assert sorted(stage.seen) == sorted(QRELS), "what it sees does not depend on a fold, and is collected once"
    assert stage.inputs == ("bm25",)


def test_a_stage_after_another_learns_from_scores_of_models_that_did_not_know_the_query() -> None:
    first, second = LearnedRerank(), LearnedRerank()
    assert answers(folded(first, second)) == dict.fromkeys(QRELS, ("d3", "d2"))
    assert len(second.learned) == 3
    assert len(first.learned) == 3 * (3 + 1), "in each fold: once for each inner fold, and once to serve"
    assert second.served == dict.fromkeys(QRELS, 1)
    assert first.served == dict.fromkeys(QRELS, 2 + 1), "for training in two of the folds, and for the answer"
    assert second.inputs == ("bm25", "learned0")


def test_a_question_asked_twice_is_not_learned_from_where_it_is_held_out() -> None:
    class Checks(LearnedRerank):
        def _serve(self, query: Query) -> None:
            same = {other.query_id for other in asked if other.text == query.text}
            assert not same & self.learned[-1]

    asked = [Query(query.query_id, f"Question {place // 2}") for place, query in enumerate(QUERIES)]
    graph = StageGraph.of([StageSpec("bm25", Finds("d1", "d2"), 2), StageSpec("learned", Checks(), 2)])  # type: ignore[arg-type]
    out_of_fold = OutOfFold(graph, lambda other: Runner(other, Held()), asked, QRELS, 4, 0.25, {}, 7)
    assert len(out_of_fold.answer(out_of_fold.queries)) == 12


def test_times_are_those_of_a_trained_stack() -> None:
    out_of_fold = folded(LearnedRerank())
    out_of_fold.answer(out_of_fold.queries)
    held_out = out_of_fold.queries[-1]
    (result,) = out_of_fold.answer_timed([held_out])
    assert [stage.stage for stage in result.trace.stages] == ["bm25", "learned0", "last"]


def test_a_pipeline_in_which_nothing_learns_is_refused() -> None:
    graph = StageGraph.of([StageSpec("bm25", Finds("d1"), 1)])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"task\.folds: no stage of this pipeline learns; expected null, or one"):
        learners(graph)


def test_too_many_folds_and_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.folds: found 7 for 12 judged queries; .* so 6 or fewer"):
        folded(LearnedRerank(), folds=7)
    with pytest.raises(ConfigError, match=r"task\.learner\.depth: no such option"):
        folded(LearnedRerank(), options={"depth": 3})
