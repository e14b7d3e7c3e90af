"""A question inside its budget: what is done, what is left out, and that the answer says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from slow_stages import (
    DOWN,
    LONG_S,
    Deaf,
    FarAway,
    Finds,
    Merges,
    Q,
    Reads,
    Reverses,
    Whole,
    ask,
    reasons,
    runner,
    spec,
)

from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import (
    ConfigError,
    StageError,
)
from orchestrator.pipeline import Pipeline
from orchestrator.running.pace import Paces
from orchestrator.stack.cuts import Cut
from orchestrator.stack.gates import Gate
from orchestrator.stack.graph import StageGraph
from orchestrator.stack.policy import OnError
from orchestrator.types import Call, Document, Query


def test_an_answer_that_fits_its_budget_is_whole() -> None:
    result = ask(spec("bm25", Finds()), spec("precise", Reads(), 5), budget_ms=LONG_S * 1000)
    assert result.degraded == ()
    assert result.trace.enforced
    assert result.doc_ids == ("d19", "d18", "d17", "d16", "d15")
    assert all(candidate.scored for candidate in result.ranked)


def test_without_a_budget_nothing_depends_on_time() -> None:
    specs = (spec("bm25", Finds(wait_s=0.05)), spec("precise", Reads(0.01), 5))
    result = ask(*specs, budget_ms=None)
    assert result.degraded == ()
    assert not result.trace.enforced
    assert result.doc_ids == ("d19", "d18", "d17", "d16", "d15")


def test_a_budget_that_is_not_to_be_kept_is_only_told() -> None:
    (result,) = runner(spec("bm25", Finds()), spec("precise", Reads(0.005), 20), budget_ms=1.0).run(
        [Q], enforce_budget=False
    )
    assert result.degraded == ()
    assert result.trace.budget_ms == 1.0
    assert not result.trace.enforced


def test_a_budget_of_the_pipeline_can_be_lifted_for_one_answer(tmp_path: Path) -> None:
    graph = StageGraph.of([spec("bm25", Finds()), spec("precise", Reads(0.02), 20)])
    pipeline = Pipeline(graph, CorpusSpec("none", "none"), tmp_path, budget_ms=50.0)
    documents = [Document(f"d{place:02}", "x" * 100) for place in range(20)]
    assert [name for name, *_ in reasons(pipeline.rerank("what?", documents))] == ["precise"]
    whole = pipeline.rerank("what?", documents, enforce_budget=False)
    assert (whole.degraded, whole.trace.enforced, whole.trace.budget_ms) == ((), False, 50.0)
    assert whole.ranked.n_scored == 20


def test_what_was_scored_in_time_stands_above_the_rest_in_the_order_it_came() -> None:
    stage = Reads(0.02)
    result = ask(spec("bm25", Finds(60), 60), spec("precise", stage, 60))
    ((name, reason, scored, of),) = reasons(result)
    assert (name, reason, of) == ("precise", "deadline", 60)
    assert 0 < scored < 60
    ids = [f"d{place:02}" for place in range(60)]
    assert list(result.doc_ids) == ids[:scored][::-1] + ids[scored:]
    assert [candidate.scored for candidate in result.ranked] == [True] * scored + [False] * (60 - scored)
    assert {candidate.score_kind for candidate in result.ranked} == {"logit", "bm25"}
    assert [candidate.score for candidate in result.ranked][-1] == 100.0 - 59  # as it came
    assert result.trace.stages[-1].n_scored == scored


def test_the_best_incoming_documents_are_scored_first() -> None:
    stage = Reads(0.02)
    ask(spec("bm25", Finds(60), 60), spec("precise", stage, 60))
    asked = [doc_id for call in stage.calls for doc_id in call]
    assert asked == sorted(asked)


def test_the_same_document_has_the_same_score_with_and_without_a_budget() -> None:
    whole = ask(spec("bm25", Finds(60), 60), spec("precise", Reads(), 60), budget_ms=None)
    part = ask(spec("bm25", Finds(60), 60), spec("precise", Reads(0.02), 60))
    scores = {candidate.doc_id: candidate.scores["precise"] for candidate in whole.ranked}
    for candidate in part.ranked:
        assert candidate.scores.get("precise", scores[candidate.doc_id]) == scores[candidate.doc_id]


def test_a_stage_that_hears_nothing_is_left_behind() -> None:
    free = threading.Event()
    started = time.perf_counter()
    result = ask(spec("bm25", Finds()), spec("precise", Deaf(free), 5), budget_ms=50.0)
    assert time.perf_counter() - started < LONG_S / 2
    free.set()
    assert reasons(result) == [("precise", "deadline", 0, 20)]
    assert result.doc_ids == ("d00", "d01", "d02", "d03", "d04")
    assert not any(candidate.scored for candidate in result.ranked)


def test_scores_told_before_the_end_count() -> None:
    paces = Paces()
    stage = Reads(0.02, tells=True)
    first = ask(spec("bm25", Finds(60), 60), spec("precise", stage, 60), paces=paces, budget_ms=None)
    assert first.degraded == ()
    stage.each_s = 0.2  # slower than it ever was: the piece that was thought to fit is stopped in the middle
    result = ask(spec("bm25", Finds(60), 60), spec("precise", stage, 60), paces=paces, budget_ms=3000.0)
    ((_, reason, scored, _),) = reasons(result)
    assert reason == "deadline"
    assert 0 < scored < 60


def test_a_stage_that_cannot_score_one_document_in_time_is_not_begun() -> None:
    paces = Paces()
    stage = Reads(0.4)
    ask(spec("bm25", Finds(2), 2), spec("precise", stage, 2), paces=paces, budget_ms=None)
    calls = len(stage.calls)
    result = ask(spec("bm25", Finds(2), 2), spec("precise", stage, 2), paces=paces, budget_ms=50.0)
    assert reasons(result) == [("precise", "no_time", 0, 2)]
    assert len(stage.calls) == calls
    assert "usually takes" in result.degraded[0].detail


def test_a_stage_keeps_to_its_own_limit_without_a_budget() -> None:
    result = ask(spec("bm25", Finds(60), 60), spec("precise", Reads(0.02), 60, max_ms=200.0), budget_ms=None)
    ((name, reason, scored, _),) = reasons(result)
    assert (name, reason) == ("precise", "deadline")
    assert 0 < scored < 60


def test_a_list_rerank_gives_all_or_nothing() -> None:
    result = ask(spec("bm25", Finds()), spec("precise", Whole(LONG_S), 5), budget_ms=50.0)
    assert reasons(result) == [("precise", "deadline", 0, 20)]
    assert result.doc_ids == ("d00", "d01", "d02", "d03", "d04")


def test_later_stages_get_their_share() -> None:
    paces = Paces()
    specs = (spec("bm25", Finds(30), 30), spec("shortlist", Reads(0.005), 30), spec("precise", Reads(0.005), 30))
    ask(*specs, paces=paces, budget_ms=None)
    result = ask(*specs, paces=paces, budget_ms=200.0)
    scored = {stage.stage: stage.n_scored for stage in result.trace.stages}
    assert scored["precise"], scored  # the first of the two did not use up what was left


def test_a_window_rerank_that_is_stopped_keeps_whole_windows() -> None:
    stage = Reverses(lambda n: 0.0 if n < 2 else LONG_S)
    result = ask(spec("bm25", Finds(10), 10), spec("precise", stage, 10), budget_ms=200.0)
    ids = [f"d{place:02}" for place in range(10)]
    ids[6:10] = ids[6:10][::-1]
    ids[4:8] = ids[4:8][::-1]
    assert list(result.doc_ids) == ids
    assert reasons(result) == [("precise", "deadline", 4 + 2, 10)]


def test_a_window_rerank_goes_over_the_head_of_the_list_where_all_would_take_too_long() -> None:
    paces = Paces()
    specs = (spec("bm25", Finds(20), 20), spec("precise", Reverses(lambda n: 0.1), 20))
    ask(*specs, paces=paces, budget_ms=None)  # nine windows
    result = ask(*specs, paces=paces, budget_ms=450.0)
    ((_, reason, scored, of),) = reasons(result)
    assert (reason, of) == ("deadline", 20)
    assert 4 <= scored < 20
    assert result.doc_ids[scored:] == tuple(f"d{place:02}" for place in range(scored, 20))
    assert result.doc_ids[0] != "d00"  # the head was ordered


def test_a_late_recall_is_left_behind_once_another_has_found_something() -> None:
    late = Finds(5, wait_s=LONG_S, start=50)
    result = ask(
        spec("bm25", Finds()), spec("dense", late), spec("fused", Merges(), 20, "bm25", "dense"), budget_ms=80.0
    )
    assert reasons(result) == [("dense", "late", 0, 20)]
    assert result.doc_ids == tuple(f"d{place:02}" for place in range(20))
    assert late.cancelled.wait(LONG_S)


def test_the_only_recall_is_waited_for_however_late() -> None:
    result = ask(spec("bm25", Finds(wait_s=0.2)), spec("precise", Reads(), 5), budget_ms=20.0)
    assert len(result.doc_ids) == 5
    assert [lack[:2] for lack in reasons(result)] in ([], [("precise", "no_time")], [("precise", "deadline")])


def test_a_recall_that_found_nothing_is_no_reason_to_leave_another() -> None:
    result = ask(
        spec("bm25", Finds(0)),
        spec("dense", Finds(3, wait_s=0.2)),
        spec("fused", Merges(), 20, "bm25", "dense"),
        budget_ms=20.0,
    )
    assert result.doc_ids == ("d00", "d01", "d02")


def test_warming_up_asks_local_stages_for_few_documents_and_leaves_others_alone() -> None:
    local, far = Reads(), FarAway()
    warmed = runner(spec("bm25", Finds()), spec("shortlist", local), spec("precise", far, 5))
    warmed.warm_up(Q)
    assert {len(call) for call in local.calls} == {1, 8}
    assert far.calls == []


def test_a_score_from_below_one_that_is_missing_does_not_count_in_the_order() -> None:
    class LastFirst(Reads):
        """Scores from the end of what it is given, and tells each at once."""

        def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
            for row in reversed(range(len(pairs))):
                self.wait(call)
                call.report([row], [-5.0])
            return np.full(len(pairs), -5.0)

    paces = Paces()
    stage = LastFirst(0.001)
    ask(spec("bm25", Finds(60), 60), spec("precise", stage, 60), paces=paces, budget_ms=None)
    stage.each_s = 0.2
    result = ask(spec("bm25", Finds(60), 60), spec("precise", stage, 60), paces=paces, budget_ms=1500.0)
    assert result.doc_ids == tuple(f"d{place:02}" for place in range(60))
    assert [lack.reason for lack in result.degraded] == ["deadline"]


def test_recalls_that_were_late_and_found_nothing_are_asked_again_until_one_finds_something() -> None:
    dead, slow = Finds(3, wait_s=LONG_S), Finds(3, wait_s=0.3)
    specs = (spec("bm25", dead), spec("dense", slow), spec("fused", Merges(), 20, "bm25", "dense"))
    for stage in (dead, slow):
        stage.is_remote = True  # type: ignore[attr-defined]
        stage.gives_up = True
    started = time.perf_counter()
    result = ask(*specs, budget_ms=60.0)
    assert time.perf_counter() - started < LONG_S / 2
    assert result.doc_ids == ("d00", "d01", "d02")
    assert [lack[:2] for lack in reasons(result)][:1] == [("bm25", "late")]


def test_a_stage_that_never_fits_does_not_starve_those_before_it() -> None:
    paces = Paces()
    specs = (spec("bm25", Finds()), spec("precise", Reads(0.002), 20), spec("last", Whole(0.6), 20))
    ask(*specs, paces=paces, budget_ms=None)
    result = ask(*specs, paces=paces, budget_ms=400.0)
    scored = {stage.stage: stage.n_scored for stage in result.trace.stages}
    assert scored["precise"] == 20
    assert ("last", "no_time", 0, 20) in reasons(result)


def test_a_remote_stage_that_was_never_timed_gets_a_share() -> None:
    specs = (spec("bm25", Finds(60), 60), spec("shortlist", Reads(0.02), 60), spec("precise", FarAway(), 60))
    result = ask(*specs, budget_ms=600.0)
    assert {stage.stage: stage.n_scored for stage in result.trace.stages}["precise"] == 60


def test_questions_that_find_nothing_teach_nothing() -> None:
    paces = Paces()
    nothing = (spec("bm25", Finds(0)), spec("precise", Whole(), 20))
    for _ in range(3):
        ask(*nothing, paces=paces)
    result = ask(spec("bm25", Finds()), spec("precise", Whole(), 20), paces=paces, budget_ms=LONG_S * 1000)
    assert result.degraded == ()


def test_a_stopped_window_rerank_says_once_how_far_it_came() -> None:
    stage = Reverses(lambda n: 0.0 if n < 2 else LONG_S)
    result = ask(spec("bm25", Finds(10), 10), spec("precise", stage, 10), budget_ms=200.0)
    assert result.trace.stages[-1].n_scored == result.degraded[0].scored == 4 + 2


@pytest.mark.parametrize("budget_ms", [0.0, -5.0, float("inf"), float("nan"), True, "fast"])
def test_a_budget_that_is_no_time_is_refused(budget_ms: Any) -> None:
    with pytest.raises(
        ConfigError, match=rf"^budget_ms: found {budget_ms!r}; expected a number of milliseconds above 0"
    ):
        runner(spec("bm25", Finds())).run([Q], budget_ms=budget_ms)


def test_warming_up_knows_no_limits_and_names_the_stage_that_fails() -> None:
    slow = Reads(0.3)
    warmed = runner(spec("bm25", Finds()), spec("precise", slow, 5, max_ms=20.0))
    warmed.warm_up(Q)
    assert [len(call) for call in slow.calls] == [1, 1, 8]
    with pytest.raises(StageError, match="stage 'precise': ValueError: a bug"):
        runner(spec("bm25", Finds()), spec("precise", Reads(error=ValueError("a bug")), 5)).warm_up(Q)


def test_a_cut_judges_no_scores_but_those_of_its_own_stage() -> None:
    cut = Cut("threshold", value=50.0, kind="logit")
    gate = Gate(min_candidates=100)
    kept = ask(spec("bm25", Finds()), spec("short", Reads()), spec("precise", Reads(), 5, when=gate, cut=cut))
    assert kept.trace.stages[-1].skipped is not None
    assert len(kept.doc_ids) == 5
    policy = OnError("fallback", (Reads(),))
    stood_in = ask(spec("bm25", Finds()), spec("precise", FarAway(error=DOWN), 5, on_error=policy, cut=cut))
    assert len(stood_in.doc_ids) == 5


def test_a_recall_is_not_left_behind_for_reranks_that_do_not_fit() -> None:
    paces = Paces()
    specs = (
        *(spec("bm25", Finds()), spec("dense", Finds(5, wait_s=0.25, start=40))),
        *(spec("fused", Merges(), 20, "bm25", "dense"), spec("precise", Reads(0.1), 20)),
    )
    ask(*specs, paces=paces, budget_ms=None)
    result = ask(*specs, paces=paces, budget_ms=600.0)
    assert "dense" not in [lack.stage for lack in result.degraded]


def test_a_list_rerank_does_not_see_scores_that_only_some_documents_have() -> None:
    class Sees(Whole):
        def rescore(self, query: Query, candidates: Any, call: Call) -> np.ndarray:
            self.seen = set(candidates.stage_scores)
            return np.arange(len(candidates), dtype=float)

    last = Sees()
    shortlist = spec("shortlist", Reads(0.02), 60, max_ms=200.0)
    result = ask(spec("bm25", Finds(60), 60), shortlist, spec("precise", last, 60), budget_ms=None)
    assert [lack.stage for lack in result.degraded] == ["shortlist"]
    assert last.seen == {"bm25"}
    assert "shortlist" in result.ranked.stage_scores  # which the answer still tells


def test_a_second_piece_does_not_pay_for_the_question_again() -> None:
    class Encodes(Reads):
        """Takes its time for the question, once, and a little for each document."""

        def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
            if not self.calls:
                time.sleep(0.1)
            return super().score(pairs, call)

    paces, graph_of = Paces(), lambda n: (spec("bm25", Finds(n), n), spec("precise", Encodes(0.004), n))
    for n in (1, 8, 20):
        ask(*graph_of(n), paces=paces, budget_ms=None)
    result = ask(*graph_of(90), paces=paces, budget_ms=350.0)
    ((_, _, scored, _),) = reasons(result)
    assert scored > 10  # not one piece of a few, and then an end for fear of the tenth of a second


def test_many_budgets_that_were_too_small_do_not_spoil_a_large_one() -> None:
    paces = Paces()
    specs = (spec("bm25", Finds(60), 60), spec("precise", Reads(0.02), 60))
    ask(*specs, paces=paces, budget_ms=None)
    for _ in range(40):
        ask(*specs, paces=paces, budget_ms=12.0)
    result = ask(*specs, paces=paces, budget_ms=500.0)
    assert result.degraded[0].scored >= 5
