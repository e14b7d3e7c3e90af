"""Records of evaluations: what a file keeps, what cannot be read, how many there are, and what `plan` makes of them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.costs.cost import Predicted
from orchestrator.deciding.expected import Spread
from orchestrator.deciding.own_results import Asked, own_results, usable
from orchestrator.holdings.holdings import holdings, remove_holding
from orchestrator.kept.kept_evaluations import EvaluationRecord, KeptEvaluations, StageRecord, read_record

QUERIES = [f"q{number}" for number in range(12)]


def stage(name: str, mark: str, value: float, **more: Any) -> StageRecord:
    values = dict.fromkeys(QUERIES, value)
    kinds = {"bm25": "recall", "dense": "recall", "fused": "fusion"}
    costs = {"fused": "fusion", "shortlist": "late_interaction", "precise": "ltr"}
    given = {"inputs": (), "top_k": 100, "model": "", "values": values, "cost_kind": costs.get(name, name)}
    return StageRecord(name=name, kind=kinds.get(name, "rerank"), mark=mark, **{**given, **more})


BALANCED = (
    stage("bm25", "b", 0.4),
    stage("dense", "d", 0.5),
    stage("fused", "f", 0.6, inputs=("bm25", "dense"), top_k=50),
    stage("shortlist", "s", 0.65, inputs=("fused",)),
    stage("precise", "p", 0.7, inputs=("shortlist",), top_k=5),
)


def record(*stages: StageRecord, **more: Any) -> EvaluationRecord:
    given: dict[str, Any] = {"content_hash": "c1", "split": "test", "when": "2026-11-20T10:00:00+00:00"}
    given |= {"topics": "t1", "measure": "nDCG@10", "overrides": ("+scenario=balanced",), "host": "here"}
    given |= {"latency_ms": {"p50": 20.0, "p95": 41.0}, "stages_ms": {"bm25": {"p50": 0.5, "p95": 0.9}}}
    return EvaluationRecord(stages=stages or BALANCED, **{**given, **more})


MARKS = {
    ("bm25", None, None): "b",
    ("edge", "minilm", None): "d",
    ("hybrid", "minilm", None): "f",
    ("balanced", "minilm", None): "p",
    ("other", "minilm", None): "x",
}
COMMANDS = {None: "orchestrate evaluate +scenario=hybrid corpus.path=mine"}
ASKED = Asked("c1", "test", "here", MARKS, {"minilm": "f"}, "hybrid", 10, COMMANDS)
NO_SPREAD = Spread(0.0, 0.0)


def test_a_record_is_read_as_it_was_kept(tmp_path: Path) -> None:
    kept = KeptEvaluations(tmp_path, "docs-1")
    kept.keep(record())
    assert kept.read() == [record()]
    assert [path.name for path in kept.folder.iterdir()] == [f"{record().key}.json"]


def test_a_stack_evaluated_again_replaces_what_it_said_before(tmp_path: Path) -> None:
    kept = KeptEvaluations(tmp_path, "docs-1")
    kept.keep(record())
    later = record(when="2026-11-21T10:00:00+00:00")
    kept.keep(later)
    assert kept.read() == [later]
    deeper = replace(BALANCED[2], top_k=100)
    kept.keep(record(*BALANCED[:2], deeper, *BALANCED[3:]))
    kept.keep(record(split="dev"))
    assert len(kept.read()) == 3


def test_the_oldest_go_where_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.kept.kept_evaluations._MOST", 3)
    kept = KeptEvaluations(tmp_path, "docs-1")
    for number in range(5):
        one = record(content_hash=f"c{number}", when=f"2026-11-2{number}T10:00:00+00:00")
        kept.keep(one)
        os.utime(kept.folder / f"{one.key}.json", (number, number))
    assert [one.content_hash for one in kept.read()] == ["c4", "c3", "c2"]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"format": 99}', '{"format": 1}', '{"format": 1, "overrides": [], "stages": [{"name": "x"}]}'],
)
def test_what_cannot_be_read_is_left_out(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    assert read_record(path) is None


def test_a_value_that_is_no_number_makes_a_record_unreadable(tmp_path: Path) -> None:
    kept = KeptEvaluations(tmp_path, "docs-1")
    kept.keep(record())
    (path,) = kept.folder.iterdir()
    content = json.loads(path.read_text())
    content["stages"][0]["values"]["q1"] = float("nan")
    path.write_text(json.dumps(content))
    assert kept.read() == []


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "evaluations").write_text("a file in the way")
    KeptEvaluations(tmp_path, "docs-1").keep(record())
    assert KeptEvaluations(tmp_path, "docs-1").read() == []


def test_a_record_that_another_process_removes_meanwhile_is_no_mistake(tmp_path: Path) -> None:
    kept = KeptEvaluations(tmp_path, "docs-1")
    kept.keep(record())
    (kept.folder / "gone.json").symlink_to(kept.folder / "nothing")  # listed, and not there to be looked at
    assert kept.read() == [record()]


def test_evaluations_are_shown_and_go_where_they_are_named(tmp_path: Path) -> None:
    kept = KeptEvaluations(tmp_path, "docs-1")
    kept.keep(record())
    kept.keep(record(split="dev"))
    (held,) = holdings(tmp_path)
    assert (held.kind, held.about, held.entries) == ("evaluations", "docs-1", 2)
    assert remove_holding(held) == held.n_bytes
    assert not kept.folder.exists()


def test_every_stage_of_an_evaluation_is_evidence_of_the_stack_that_ends_there() -> None:
    own = own_results([record()], ASKED)
    assert set(own.found) == {key for key in MARKS if key[0] != "other"}
    for key, difference in {"bm25": -0.2, "edge": -0.1, "hybrid": 0.0, "balanced": 0.1}.items():
        (evidence,) = own.found[(key, None if key == "bm25" else "minilm", None)]
        assert evidence.beside(NO_SPREAD).mean == pytest.approx(difference)
        assert evidence.when == "2026-11-20"
    balanced = own.found[("balanced", "minilm", None)][0]
    assert (balanced.reads, balanced.top_ks) == (50, (100, 100, 50, 100))
    assert own.found[("hybrid", "minilm", None)][0].reads == 0


def test_times_count_of_the_whole_on_this_machine_alone() -> None:
    own = own_results([record()], ASKED)
    assert own.found[("balanced", "minilm", None)][0].measured == Predicted(20.0, 41.0)
    assert own.found[("hybrid", "minilm", None)][0].measured is None
    for other in (record(host="there"), record(latency_ms={})):
        assert own_results([other], ASKED).found[("balanced", "minilm", None)][0].measured is None


def test_the_reference_may_stand_in_another_evaluation_of_the_same_queries() -> None:
    alone = record(stage("bm25", "b", 0.4))
    assert own_results([alone], ASKED).found == {}
    assert own_results([alone], ASKED).notes == (
        "bm25 was evaluated without hybrid beside it: orchestrate evaluate +scenario=hybrid corpus.path=mine",
    )
    own = own_results([alone, record(*BALANCED[:3])], ASKED)
    assert [one.beside(NO_SPREAD).mean for one in own.found[("bm25", None, None)]] == pytest.approx([-0.2, -0.2])


def test_a_stack_with_an_embedder_is_compared_with_the_reference_of_that_embedder() -> None:
    marks = {("edge", "bge_m3", None): "d", ("edge", "minilm", None): "d"}
    asked = replace(ASKED, marks=marks, references={"minilm": "f", "bge_m3": "g"})
    assert set(own_results([record()], asked).found) == {("edge", "minilm", None)}


def test_a_reference_without_a_model_is_that_of_every_embedder() -> None:
    asked = replace(ASKED, marks={("edge", "minilm", None): "d"}, references={None: "b"}, reference="bm25")
    (evidence,) = own_results([record()], asked).found[("edge", "minilm", None)]
    assert evidence.beside(NO_SPREAD).mean == pytest.approx(0.1)


def test_few_queries_say_too_little() -> None:
    own = own_results([record()], replace(ASKED, least_queries=13))
    assert own.found == {}
    assert own.notes == ("evaluations on 12 judged queries are not used; 13 or more are",)


def test_queries_that_only_one_of_two_answered_do_not_count() -> None:
    flattered = replace(BALANCED[4], values={"q1": 0.9, "q2": 0.9, "unknown": 1.0})
    own = own_results([record(*BALANCED[:4], flattered)], replace(ASKED, least_queries=2))
    (evidence,) = own.found[("balanced", "minilm", None)]
    assert set(evidence.differences) == {"q1", "q2"}


def test_of_several_evaluations_the_one_at_the_nearest_depth_counts_and_of_those_the_last() -> None:
    shallow = record(*BALANCED[:2], replace(BALANCED[2], top_k=10), *BALANCED[3:], when="2026-11-22T00:00:00+00:00")
    own = own_results([shallow, record(when="2026-11-21T00:00:00+00:00"), record()], ASKED)
    key = ("balanced", "minilm", None)
    nearest = [own.nearest(key, reads) for reads in (12, 60)]
    assert [one and (one.reads, one.when) for one in nearest] == [(10, "2026-11-22"), (50, "2026-11-21")]
    assert own.nearest(("nothing", None, None), 5) is None


def test_two_stacks_are_compared_on_the_questions_that_both_answered() -> None:
    own = own_results([record()], ASKED)
    balanced, bm25 = own.found[("balanced", "minilm", None)][0], own.found[("bm25", None, None)][0]
    found = balanced.beside_other(bm25, NO_SPREAD)
    assert found is not None
    assert (found.n, found.mean) == (12, pytest.approx(0.3))
    assert balanced.beside_other(replace(bm25, differences={"q99": 0.1}), NO_SPREAD) is None


def test_evaluations_of_other_documents_judgements_or_measures_are_not_used_and_told() -> None:
    records = [record(), record(content_hash="c0"), record(split="dev"), record(split="dev"), record(measure="RR@10")]
    kept, notes = usable([*records, record(topics="t0")], "c1", "test", "t1")
    assert kept == [record()]
    assert notes == [
        "not used: 1 evaluation of this corpus before its documents changed",
        "not used: 2 evaluations of other judgements than split 'test'",
        "not used: 1 evaluation of questions or judgements that have changed since",
        "not used: 1 evaluation without nDCG@10 among the measures",
    ]
