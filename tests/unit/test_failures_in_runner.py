"""Stages that fail while a question is answered: what goes on without them, what stands in, and what ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from slow_stages import (
    DOWN,
    LONG_S,
    Deaf,
    Docs,
    FarAway,
    Finds,
    Merges,
    Q,
    Reads,
    ask,
    reasons,
    runner,
    spec,
)

from orchestrator.errors import (
    CallCancelledError,
    CircuitOpenError,
    PermanentError,
    StageError,
)
from orchestrator.running.pace import Paces
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import StageGraph
from orchestrator.stack.policy import OnError
from orchestrator.types import Call, Document, Query


def test_a_remote_stage_that_fails_is_left_out_and_said_to_be() -> None:
    result = ask(spec("bm25", Finds()), spec("precise", FarAway(error=DOWN), 5))
    assert reasons(result) == [("precise", "error", 0, 20)]
    assert result.degraded[0].detail == "reranker at http://somewhere: no connection"
    assert result.doc_ids == ("d00", "d01", "d02", "d03", "d04")
    assert {candidate.score_kind for candidate in result.ranked} == {"bm25"}


@pytest.mark.parametrize("budget_ms", [None, 300.0])
def test_what_a_failing_remote_stage_had_told_counts(budget_ms: float | None) -> None:
    result = ask(spec("bm25", Finds()), spec("precise", FarAway(error=DOWN, tells=True), 20), budget_ms=budget_ms)
    assert reasons(result) == [("precise", "error", 10, 20)]
    assert result.doc_ids[:2] == ("d09", "d08")
    assert result.doc_ids[10:] == tuple(f"d{place}" for place in range(10, 20))


def test_an_open_circuit_is_called_so() -> None:
    result = ask(
        spec("bm25", Finds()), spec("precise", FarAway(error=CircuitOpenError("s", "no connection", 3.0, 1.0)), 5)
    )
    assert reasons(result) == [("precise", "circuit_open", 0, 20)]


def test_a_local_stage_that_fails_ends_the_question() -> None:
    with pytest.raises(StageError, match=r"stage 'precise', query 'q1': reranker at http://somewhere: no connection"):
        ask(spec("bm25", Finds()), spec("precise", Reads(error=DOWN), 5))


def test_a_remote_stage_that_is_to_fail_does() -> None:
    with pytest.raises(StageError, match="no connection"):
        ask(spec("bm25", Finds()), spec("precise", FarAway(error=DOWN), 5, on_error=OnError("fail")))


@pytest.mark.parametrize("error", [PermanentError("s", "wrong key", 401), ValueError("a bug")])
@pytest.mark.parametrize("policy", [OnError("skip"), OnError("fallback", (Reads(),))])
def test_what_is_wrong_for_good_always_fails(error: Exception, policy: OnError) -> None:
    with pytest.raises(StageError, match=r"wrong key|a bug"):
        ask(spec("bm25", Finds()), spec("precise", FarAway(error=error), 5, on_error=policy))


def test_a_stand_in_answers_under_a_name_of_its_own() -> None:
    policy = OnError("fallback", (Reads(),))
    result = ask(spec("bm25", Finds()), spec("precise", FarAway(error=DOWN), 5, on_error=policy))
    assert reasons(result) == [("precise", "error", 0, 20)]
    assert result.doc_ids == ("d19", "d18", "d17", "d16", "d15")
    assert set(next(iter(result.ranked)).scores) == {"bm25", "precise~1"}
    assert result.trace.stages[-1].notes == ("Reads stood in for it",)


def test_stand_ins_are_tried_in_order_and_the_last_resort_is_the_order_that_came() -> None:
    policy = OnError("fallback", (FarAway(error=DOWN), Reads()))
    second = ask(spec("bm25", Finds()), spec("precise", FarAway(error=DOWN), 5, on_error=policy))
    assert [lack.stage for lack in second.degraded] == ["precise", "precise~1"]
    assert second.doc_ids[0] == "d19"
    policy = OnError("fallback", (FarAway(error=DOWN),))
    none = ask(spec("bm25", Finds()), spec("precise", FarAway(error=DOWN), 5, on_error=policy))
    assert none.doc_ids[0] == "d00"


def test_a_stand_in_gets_the_time_that_a_slow_stage_left() -> None:
    paces = Paces()
    policy = OnError("fallback", (Reads(0.01),))
    quick = (spec("bm25", Finds()), spec("precise", FarAway(error=DOWN), 5, on_error=policy))
    ask(*quick, paces=paces, budget_ms=None)  # what the stand-in takes is known from now on
    slow = FarAway(LONG_S)
    result = ask(spec("bm25", Finds()), spec("precise", slow, 5, on_error=policy), paces=paces, budget_ms=1000.0)
    assert reasons(result)[0] == ("precise", "deadline", 0, 20)
    assert next(iter(result.ranked)).scores.keys() == {"bm25", "precise~1"}


def test_one_recall_of_several_may_fail() -> None:
    down = Finds(error=DOWN)
    down.is_remote = True  # type: ignore[attr-defined]
    specs = (spec("bm25", Finds()), spec("dense", down), spec("fused", Merges(), 20, "bm25", "dense"))
    result = ask(*specs, budget_ms=None)
    assert reasons(result) == [("dense", "error", 0, 20)]
    assert len(result.doc_ids) == 20


def test_no_recall_left_is_a_failure() -> None:
    one, other = Finds(error=DOWN), Finds(error=DOWN)
    one.is_remote = other.is_remote = True  # type: ignore[attr-defined]
    with pytest.raises(StageError, match="stage 'bm25', query 'q1': reranker at http://somewhere"):
        ask(spec("bm25", one), spec("dense", other), spec("fused", Merges(), 20, "bm25", "dense"))


def test_many_queries_are_asked_one_by_one_where_a_stage_fails_for_some() -> None:
    class FailsForOne(FarAway):
        def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> np.ndarray:
            if any(query.query_id == "q2" for query, _ in pairs):
                raise DOWN
            return super().score(pairs, call)

    queries = [Query(f"q{place}", "what?") for place in range(1, 4)]
    results = runner(spec("bm25", Finds()), spec("precise", FailsForOne(), 5), budget_ms=None).run(queries)
    assert [bool(result.degraded) for result in results] == [False, True, False]
    assert [result.doc_ids[0] for result in results] == ["d19", "d00", "d19"]


def test_an_error_of_a_recall_names_it() -> None:
    specs = (spec("bm25", Finds()), spec("dense", Finds(error=ValueError("no index"))))
    with pytest.raises(StageError, match="stage 'dense', query 'q1': ValueError: no index"):
        ask(*specs, spec("fused", Merges(), 20, "bm25", "dense"))


def test_a_fusion_that_takes_too_long_is_replaced_by_reciprocal_ranks() -> None:
    class Slow(Merges):
        def fuse(self, query: Query, lists: Any, call: Call) -> list[tuple[str, float]]:
            while not call.cancelled:
                time.sleep(0.001)
            raise CallCancelledError("nobody waits")

    specs = (spec("bm25", Finds(3)), spec("dense", Finds(3, start=1)), spec("fused", Slow(), 20, "bm25", "dense"))
    result = ask(*specs, budget_ms=60.0)
    assert [lack[:2] for lack in reasons(result)] == [("fused", "deadline")]
    assert result.doc_ids == ("d01", "d02", "d00", "d03")  # 1/62 + 1/61, 1/63 + 1/62, 1/61, 1/63
    best = next(iter(result.ranked))
    assert best.score == pytest.approx(1 / 62 + 1 / 61)
    assert "fused" not in best.scores


def test_a_limit_of_a_stage_is_that_of_its_stand_ins_too() -> None:
    policy = OnError("fallback", (Reads(LONG_S),))
    started = time.perf_counter()
    stage = spec("precise", FarAway(LONG_S), 5, on_error=policy, max_ms=150.0)
    result = ask(spec("bm25", Finds()), stage, budget_ms=None)
    assert time.perf_counter() - started < LONG_S / 2
    (precise,) = [stage for stage in result.trace.stages if stage.stage == "precise"]
    assert precise.allowed_ms == pytest.approx(150.0)
    assert precise.notes == ()  # nobody stood in: there was no time left for it


def test_what_a_stage_raises_because_it_was_stopped_is_no_failure_of_the_question() -> None:
    class Breaks(Reads):
        def wait(self, call: Call) -> None:
            while not call.cancelled:
                time.sleep(0.0005)
            raise RuntimeError("stream closed")

    for _ in range(5):
        result = ask(spec("bm25", Finds()), spec("precise", Breaks(), 5), budget_ms=60.0)
        assert [lack[:2] for lack in reasons(result)] == [("precise", "deadline")]


def test_a_recall_that_fails_for_good_stops_the_others() -> None:
    late = Finds(wait_s=LONG_S)
    specs = (spec("bm25", Finds(error=ValueError("a bug"), wait_s=0.3)), spec("dense", late))
    with pytest.raises(StageError, match="stage 'bm25', query 'q1': ValueError: a bug"):
        ask(*specs, spec("quick", Finds(2)), spec("fused", Merges(), 20, "bm25", "dense", "quick"), budget_ms=600.0)
    assert late.cancelled.wait(LONG_S)


def test_a_stage_whose_calls_still_run_is_not_asked_for_more() -> None:
    free = threading.Event()
    stage = Deaf(free)
    deaf = runner(spec("bm25", Finds()), spec("precise", stage, 5), budget_ms=40.0)
    told = {deaf.run([Q])[0].degraded[0].reason for _ in range(40)}
    assert len(stage.calls) == 2
    assert told == {"deadline", "no_time", "circuit_open"}
    free.set()


def test_evaluation_fails_with_a_stage_that_is_not_there() -> None:
    graph = StageGraph.of([spec("bm25", Finds()), spec("precise", FarAway(error=DOWN), 5)]).failing_with_stages()
    with pytest.raises(StageError, match="stage 'precise', query 'q1': reranker at http://somewhere"):
        Runner(graph, Docs()).run([Q])
    chosen = StageGraph.of([spec("bm25", Finds()), spec("precise", FarAway(error=DOWN), 5, on_error=OnError("skip"))])
    assert Runner(chosen.failing_with_stages(), Docs()).run([Q])[0].degraded
