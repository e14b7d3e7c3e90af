"""The way of every document, read from a result."""

from __future__ import annotations

from dataclasses import replace

import pytest
from answers import Finds, Prefers, Sums, ask, instead, skipped, stood_in, stopped, two_recalls
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.answers.flow import flow_of
from orchestrator.answers.trace import Result
from orchestrator.pipeline import Pipeline
from orchestrator.ranking import unscored
from orchestrator.report.words import nowhere_words, way_words
from orchestrator.stack.graph import StageGraph, StageSpec


def test_a_way_has_rank_score_and_movement_at_every_stage_that_saw_the_document() -> None:
    # fused: d3 1/3 + 1/1, d1 1/1, then d2 and d4 1/2 each by id
    way = flow_of(two_recalls()).way("d1")
    assert [(step.stage, step.rank, step.score, step.passed, step.moved) for step in way.steps.values()] == [
        ("bm25", 1, 3.0, True, None),
        ("fused", 2, 1.0, True, None),
        ("precise", 1, 1.0, True, 2 - 1),
    ]
    assert (way.rank, way.dropped_by, way.found_by) == (1, None, ("bm25",))


def test_a_document_that_is_cut_off_was_dropped_by_the_stage_that_ranked_it_last() -> None:
    flow = flow_of(two_recalls())
    assert flow.fates["d4"] == "fused"
    assert flow.way("d4").steps["fused"].rank == 4
    assert not flow.way("d4").steps["fused"].passed
    assert flow.way("d2").dropped_by == "precise"
    assert "precise" not in flow.way("d4").steps


def test_a_document_of_both_recalls_names_both_and_of_one_that_one() -> None:
    flow = flow_of(two_recalls())
    assert flow.way("d3").found_by == ("bm25", "dense")
    assert [doc_id for doc_id in flow.doc_ids if flow.way(doc_id).found_by == ("dense",)] == ["d4", "d5", "d6"]


def test_the_answer_stands_first_then_what_came_nearest_to_it() -> None:
    result = two_recalls()
    flow = flow_of(result)
    assert flow.doc_ids == ("d1", "d3", "d2", "d4", "d5", "d6")
    assert flow.answer == result.doc_ids
    assert flow.dropped("fused") == ("d4", "d5", "d6")
    assert flow.best(["d6", "d2", "unknown"]) == "d2"
    assert flow.best(["unknown"]) is None


def test_a_stage_that_a_gate_kept_from_running_scores_nothing_and_moves_nothing() -> None:
    result = skipped(two_recalls(), "precise", "few candidates")
    flow = flow_of(result)
    assert result.doc_ids == ("d3", "d1")
    assert [flow.way(doc_id).steps["precise"].score for doc_id in ("d3", "d1", "d2")] == [None] * 3
    assert [flow.way(doc_id).steps["precise"].moved for doc_id in ("d3", "d1", "d2")] == [0] * 3
    assert (flow["precise"].n_scored, flow["precise"].score_kind, flow["precise"].skipped) == (
        0,
        None,
        "few candidates",
    )
    assert flow.fates["d2"] == "precise", "its top_k still counts"


def test_what_a_stage_did_not_get_to_has_no_score_there() -> None:
    flow = flow_of(stopped(two_recalls(), "precise", 1))
    assert flow.way("d3").steps["precise"].score == 1.0
    assert flow.way("d1").steps["precise"].score is None
    assert (flow["precise"].n_scored, flow["precise"].n_seen) == (1, 3)
    assert flow["precise"].degraded is not None


@pytest.mark.parametrize("n_scored", [3, 1])
def test_what_stood_in_for_a_stage_has_its_scores_under_its_own_name(n_scored: int) -> None:
    flow = flow_of(stood_in(two_recalls(), "precise", n_scored))
    stage = flow["precise"]
    assert (stage.scored_by, stage.stand_in, stage.n_scored, stage.score_kind) == (
        "precise~1",
        "precise~1",
        n_scored,
        "cosine",
    )
    assert stage.degraded is not None
    assert stage.degraded.reason == "error"
    assert (stage.stand_in_degraded is not None) == (n_scored < 3)
    first = flow.way("d3").steps["precise"]
    assert (first.score, first.scored_by, first.score_kind) == (0.9, "precise~1", "cosine")
    last = flow.way("d2").steps["precise"]
    assert (last.score is None, last.scored_by is None) == (n_scored < 3,) * 2


def test_scores_of_the_stage_before_are_not_those_of_one_that_failed() -> None:
    result = two_recalls()
    flow = flow_of(instead(result, "precise", unscored(result.outputs["precise"]), 2, n_scored=0))
    assert (flow["precise"].scored_by, flow["precise"].score_kind, flow["precise"].n_scored) == (None, None, 0)
    assert [flow.way(doc_id).steps["precise"].score for doc_id in ("d1", "d3")] == [None, None]


def test_a_list_with_no_scores_of_the_stage_shows_none() -> None:
    result = two_recalls()
    flow = flow_of(instead(result, "precise", result.outputs["fused"].head(3), 2))
    assert [flow.way(doc_id).steps["precise"].score for doc_id in ("d1", "d2", "d3")] == [None] * 3


def test_what_a_fusion_that_did_not_run_left_out_was_left_out_by_it() -> None:
    result = two_recalls()
    first = result.outputs["bm25"]
    result = instead(result, "fused", first, 3, skipped="a gate")
    result = instead(result, "precise", first, 2, skipped="a gate")
    flow = flow_of(result)
    assert flow.fates["d5"] == "fused"
    assert way_words(flow, flow.way("d5")) == "found by dense at 3, left out by fused, which did not run"


def test_documents_of_the_caller_begin_at_a_given_list() -> None:
    specs = [StageSpec("bm25", Finds("x"), 5), StageSpec("precise", Prefers("1"), 1, ("bm25",))]  # type: ignore[arg-type]
    pipeline = Pipeline(StageGraph.of(specs), None, None)  # type: ignore[arg-type]
    flow = flow_of(pipeline.rerank("what?", ["first", "second"]))
    assert [(stage.name, stage.kind) for stage in flow.stages] == [("bm25", "given"), ("precise", "rerank")]
    way = flow.way("0")
    assert way.steps["bm25"].score == 1 / 1
    assert (way.found_by, way.dropped_by, way.steps["precise"].moved) == (("bm25",), "precise", -1)


def test_an_answer_without_documents_has_no_ways() -> None:
    flow = flow_of(ask(("bm25", Finds(), 5), ("precise", Prefers(), 5)))
    assert (flow.doc_ids, flow.answer, flow.dropped("bm25")) == ((), (), ())
    with pytest.raises(KeyError):
        flow.way("d1")


IDS = st.lists(st.sampled_from([f"d{place}" for place in range(12)]), unique=True, max_size=10)
TOP_K = st.integers(1, 12)


@given(IDS, IDS, IDS, TOP_K, TOP_K, TOP_K, TOP_K)
def test_every_document_is_in_the_answer_or_dropped_by_the_stage_where_its_way_ends(
    first: list[str], second: list[str], preferred: list[str], k1: int, k2: int, k3: int, k4: int
) -> None:
    result = ask(
        ("a", Finds(*first), k1),
        ("b", Finds(*second), k2),
        ("f", Sums(), k3, "a", "b"),
        ("r", Prefers(*preferred), k4),
    )
    flow = flow_of(result)
    assert set(flow.doc_ids) == {*first, *second}
    for doc_id in flow.doc_ids:
        way = flow.way(doc_id)
        *before, last = way.steps.values()
        assert all(step.passed for step in before if step.stage not in ("a", "b"))
        assert (way.dropped_by is None) == (doc_id in result.doc_ids) == last.passed
        assert way.dropped_by in (None, last.stage)
        for step in way.steps.values():
            assert result.outputs[step.stage].doc_ids[step.rank - 1] == doc_id
    n_dropped = sum(len(flow.dropped(stage.name)) for stage in flow.stages)
    assert n_dropped + len(flow.answer) == len(flow.doc_ids)


def test_passed_on_are_the_first_rows_of_what_the_next_stage_saw() -> None:
    for result in (two_recalls(), stopped(two_recalls(), "precise", 1), skipped(two_recalls(), "precise", "why")):
        flow = flow_of(result)
        for stage in flow.stages[2:]:
            given_on = {d for name in stage.inputs for d in flow[name].ranked.doc_ids[: flow[name].n_out]}
            seen = set(stage.ranked.doc_ids)
            assert seen == given_on or result.degraded


@pytest.mark.parametrize(
    ("doc_id", "words"),
    [
        ("d1", "found by bm25 at 1, fused 2, precise 1: in the answer"),
        ("d3", "found by bm25 at 3 and dense at 1, fused 1, precise 2: in the answer"),
        ("d2", "found by bm25 at 2, fused 3, dropped by precise at 3 (top_k 2)"),
        ("d6", "found by dense at 4, dropped by fused at 6 (top_k 3)"),
    ],
)
def test_a_way_in_words(doc_id: str, words: str) -> None:
    flow = flow_of(two_recalls())
    assert way_words(flow, flow.way(doc_id)) == words


def test_a_cut_below_top_k_is_told_as_such_and_what_was_not_scored_too() -> None:
    result = stopped(two_recalls(), "precise", 1)
    flow = flow_of(replace(result, ranked=result.ranked.head(1), trace=_passing(result, 1)))
    assert way_words(flow, flow.way("d1")).endswith(
        "dropped by precise at 2 (cut to 1 of top_k 2), which had not scored it"
    )


def test_a_document_that_no_recall_found_says_how_far_they_looked() -> None:
    assert nowhere_words(flow_of(two_recalls())) == "no recall found it: bm25 (3 found), dense (4 found)"


def _passing(result: Result, n_out: int) -> object:
    stages = (*result.trace.stages[:-1], replace(result.trace.stages[-1], n_out=n_out))
    return replace(result.trace, stages=stages)
