"""Routes: of reranks whose gates exclude each other by language, the one of the question reads all that was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slow_stages import Docs, Finds, Merges, Reads, Whole, spec

from orchestrator.answers.trace import Result
from orchestrator.running.deadline import GRACE_S, Clock
from orchestrator.running.limits import Limits
from orchestrator.running.pace import Pace, Paces
from orchestrator.running.runner import Runner
from orchestrator.stack.gates import Gate
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.stack.policy import OnError
from orchestrator.stack.routes import left_aside, reach, routes_of
from orchestrator.types import Query

EN, ZH, REST = Gate(language=("en",)), Gate(language=("zh",)), Gate(not_language=("en", "zh"))
QUESTIONS = {
    "en": "what are the symptoms of glaucoma?",
    "zh": "青光眼的症状是什么",
    "de": "Was sind die Symptome eines Glaukoms?",
}
FOUND = [f"d{place:02}" for place in range(20)]


def stack(*gates: Gate, top_ks: Sequence[int] = (3, 4, 5), **keys: Any) -> list[StageSpec]:
    """A recall of twenty, and a rerank a gate that turns round all that it is given."""
    return [
        spec("bm25", Finds(), 20),
        *(spec(f"route{n}", Reads(), top_ks[n], when=gate, **keys) for n, gate in enumerate(gates)),
    ]


def ask(specs: Sequence[StageSpec], *questions: Query, budget_ms: float | None = None) -> list[Result]:
    return Runner(StageGraph.of(specs), Docs(), budget_ms).run(list(questions))


def question(code: str) -> Query:
    return Query(code, QUESTIONS[code])


def ran(result: Result) -> list[str]:
    return [stage.stage for stage in result.trace.stages if stage.kind == "rerank" and stage.skipped is None]


@pytest.mark.parametrize("budget_ms", [None, 60_000.0])
@pytest.mark.parametrize(("code", "route", "top_k"), [("en", "route0", 3), ("zh", "route1", 4), ("de", "route2", 5)])
def test_the_route_of_a_question_reads_all_that_was_found_and_its_top_k_is_the_answers(
    code: str, route: str, top_k: int, budget_ms: float | None
) -> None:
    (result,) = ask(stack(EN, ZH, REST), question(code), budget_ms=budget_ms)
    assert ran(result) == [route]
    assert list(result.doc_ids) == FOUND[::-1][:top_k]
    assert [(stage.n_in, stage.n_out) for stage in result.trace.stages if stage.stage == route] == [(20, top_k)]
    assert result.trace.language == code
    assert result.degraded == ()


def test_questions_of_several_languages_go_their_ways_in_one_batch() -> None:
    results = ask(stack(EN, ZH, REST), *map(question, QUESTIONS))
    assert [ran(result) for result in results] == [["route0"], ["route1"], ["route2"]]
    assert [len(result.ranked) for result in results] == [3, 4, 5]
    skipped = [stage.skipped for stage in results[1].trace.stages[1:]]
    assert skipped == ["question in zh, not in language [en]", None, "question in zh, in not_language [en, zh]"]


def test_a_question_that_no_route_is_meant_for_has_what_was_found_cut_to_the_last_top_k() -> None:
    (result,) = ask(stack(EN, ZH), question("de"))
    assert (ran(result), list(result.doc_ids)) == ([], FOUND[:4])


def test_a_question_that_says_its_language_takes_its_route() -> None:
    (result,) = ask(stack(EN, ZH, REST), Query("q", QUESTIONS["en"], "zh-Hant"))
    assert (ran(result), result.trace.language) == (["route1"], "zh-hant")


def test_a_route_that_another_condition_leaves_out_keeps_its_top_k() -> None:
    sure = Gate(language=("en",), min_candidates=99)
    (result,) = ask(stack(sure, ZH, REST), question("en"))
    assert (ran(result), list(result.doc_ids)) == ([], FOUND[:3])


def test_a_stage_after_the_routes_reads_what_the_route_passed_on() -> None:
    after = spec("last", Reads(), 2)
    results = ask([*stack(EN, ZH, REST), after], *map(question, QUESTIONS))
    assert [result.trace.stages[-1].n_in for result in results] == [3, 4, 5]


def test_a_stage_left_out_by_language_that_is_no_route_keeps_its_top_k() -> None:
    specs = [*stack(EN), spec("last", Reads(), 2)]
    (result,) = ask(specs, question("zh"))
    assert [(stage.n_in, stage.n_out) for stage in result.trace.stages[1:]] == [(20, 3), (3, 2)]


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        ((EN, ZH, REST), {"route0", "route1", "route2"}),
        ((EN, ZH, Gate(not_language=("en",))), {"route0", "route1"}),
        ((EN, EN), set()),
        ((EN,), set()),
        ((EN, Gate(), ZH), set()),
        ((Gate(language=("zh-en",)), ZH), set()),
        ((Gate(language=("zh-en",)), EN), {"route0", "route1"}),
        ((Gate(min_query_words=3), Gate(language=("zh",))), set()),
    ],
    ids=["three", "overlap", "cascade", "one", "apart", "mixed is chinese", "mixed is not english", "words"],
)
def test_routes_are_reranks_in_a_row_that_exclude_each_other(gates: Sequence[Gate], expected: set[str]) -> None:
    assert set(routes_of(StageGraph.of(stack(*gates)))) == expected


def test_a_stage_that_others_read_too_begins_no_route() -> None:
    specs = [*stack(EN, ZH), spec("fused", Merges(), 5, "route0", "route1")]
    assert set(routes_of(StageGraph.of(specs))) == set()


def test_how_many_documents_a_route_can_be_given() -> None:
    graph = StageGraph.of([*stack(EN, ZH, REST), spec("last", Reads(), 2)])
    assert [reach(node, graph) for node in graph.nodes[1:]] == [20, 20, 20, max(3, 4, 5)]


@given(st.sampled_from(["en", "zh", "zh-en", "zh-hant", "de", "und", "pt-br"]))
def test_one_route_at_most_is_meant_for_a_question(language: str) -> None:
    routes = routes_of(StageGraph.of(stack(EN, ZH, REST)))
    (left,) = set(routes) - left_aside(routes, language)
    assert next(node for node in routes[left] if node.name == left).when.lets_through(language)


def test_no_time_is_kept_for_the_routes_of_other_questions() -> None:
    """Each of the others would take as long as the whole budget, and what they take is known."""
    paces, each_s = Paces(), 0.02
    specs = [
        spec("bm25", Finds(), 20),
        spec("mine", Reads(each_s / 10), 5, when=EN),
        spec("other", Reads(each_s), 5, when=ZH),
        spec("rest", Reads(each_s), 5, when=REST),
    ]
    runner = Runner(StageGraph.of(specs), Docs(), 400.0, paces=paces)
    runner.run([question("zh"), question("de")], enforce_budget=False)
    runner.warm_up(question("en"))
    (result,) = runner.run([question("en")])
    allowed = {stage.stage: stage.allowed_ms for stage in result.trace.stages}
    assert allowed["mine"] is not None
    assert allowed["mine"] > 300, "nearly all of what is left"
    assert result.degraded == ()


@pytest.mark.parametrize(
    ("code", "gates", "reads"),
    [("en", (EN, ZH, REST), 3), ("zh", (EN, ZH, REST), 4), ("de", (EN, ZH, REST), 5), ("de", (EN, ZH), 4)],
    ids=["first", "second", "last", "none is meant"],
)
def test_time_is_kept_for_what_the_route_of_a_question_passes_on(code: str, gates: Sequence[Gate], reads: int) -> None:
    graph, each_s, budget_s = StageGraph.of([*stack(*gates), spec("last", Whole(), 2)]), 0.1, 10.0
    paces = {node.name: Pace() for node in graph.nodes}
    for n in (10, 20):
        paces["last"].observe(n, n * each_s)
    absent = [node.name for node in graph.nodes if node.when.question_refusal(question(code), code) is not None]
    limits = Limits(graph, paces, Pace()).without(absent, left_aside(routes_of(graph), code))
    allowed = limits.allowed_s(graph["bm25"], Clock(budget_s), 20)
    assert allowed == pytest.approx(budget_s - GRACE_S - reads * each_s, abs=each_s / 2)


def test_recalls_for_other_languages_bring_nothing_and_the_fusion_takes_what_is_there() -> None:
    specs = [
        spec("bm25_en", Finds(5), 9, when=EN),
        spec("bm25_zh", Finds(5, start=10), 9, when=ZH),
        spec("dense", Finds(3, start=4), 9),
        spec("fused", Merges(), 9, "bm25_en", "bm25_zh", "dense"),
    ]
    english, chinese = ask(specs, question("en"), question("zh"))
    assert sorted(english.doc_ids) == ["d00", "d01", "d02", "d03", "d04", "d05", "d06"]
    assert sorted(chinese.doc_ids) == ["d04", "d05", "d06", "d10", "d11", "d12", "d13", "d14"]
    columns = chinese.ranked.stage_scores
    assert "bm25_en" not in columns or np.isnan(columns["bm25_en"]).all()


def test_a_route_that_fails_falls_back_inside_its_route() -> None:
    fallback = OnError("fallback", (Reads(),))
    (result,) = ask(stack(EN, ZH, REST, on_error=fallback), question("zh"))
    assert ran(result) == ["route1"]
