"""What `evaluate` says of the work of stages: gates, cuts, and what was left out by its reason."""

from __future__ import annotations

from dataclasses import replace

from answers import Finds, Held, Prefers, stood_in, stopped, two_recalls

from orchestrator.answers.trace import Result
from orchestrator.evaluation.latency import Latency
from orchestrator.evaluation.quality import Quality
from orchestrator.evaluation.work import Work
from orchestrator.report import work_lines
from orchestrator.running.runner import Runner
from orchestrator.stack.cuts import Cut
from orchestrator.stack.gates import Gate
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Query


def quality(work: Work) -> Quality:
    return Quality({}, {}, {}, {}, {}, 1, work)


def lines(work: Work) -> list[str]:
    return list(work_lines(quality(work), None, None))


def two_questions() -> list[Result]:
    """A gate that lets in questions of at most two words, and a cut by half the best score: 4, 3, 2 of 4, 3, 2, 1."""
    specs = [
        StageSpec("bm25", Finds("d1", "d2", "d3", "d4"), 4, cut=Cut("ratio", ratio=0.5)),
        StageSpec("precise", Prefers("d2"), 2, when=Gate(max_query_words=2)),
    ]
    return Runner(StageGraph.of(specs), Held()).run([Query("q1", "two words"), Query("q2", "these are three more")])


def test_a_gate_is_told_by_its_rate_and_a_cut_by_how_many_it_passed_on() -> None:
    work = Work.of(two_questions())
    assert work.ran == {"precise": 1 / 2}
    assert work.passed == {"bm25": (3, 3.0, 3)}
    assert lines(work) == [
        "precise: its gate let it run for 50% of the queries.",
        "bm25: its cut passed on 3.0 documents on average, 3 to 3.",
    ]


def test_what_was_left_out_is_told_by_its_reason() -> None:
    whole = two_recalls()
    work = Work.of([whole, stopped(whole, "precise", 1), stood_in(whole, "precise", 2), whole])
    assert work.degraded == {"precise": {"deadline": 1 / 2, "error": 1 / 4}}
    assert work.whole == 1 / 2
    assert work.scored == {"precise": (3 + 1 + 2 + 3) / 12}
    (line,) = lines(work)
    assert line.startswith("50% of the answers fell short, and say so: precise ")
    assert "ran out of time in 50%" in line
    assert "failed in 25%" in line
    assert line.endswith("(it scored 75% of all its documents)")


def test_whole_answers_need_no_word() -> None:
    assert lines(Work.of([two_recalls()])) == []
    assert Work.of([]).whole == 1


def test_answers_inside_the_budget_are_counted() -> None:
    latency = Latency({}, {}, 4, Work.of([two_recalls()]), 0.75)
    told = list(work_lines(quality(replace(latency.work)), latency, 50))
    assert told == ["75% of the timed answers came within the budget of 50 ms."]
