"""What `evaluate` found on the user's own documents decides what `plan` says."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

# A rerank that turns every list around, reckoned as late interaction, and rules that expect much of it.
TURNED = """
import numpy as np

class Turned:
    score_kind = "rank"
    cost_kind = "late_interaction"

    def load(self): ...
    def rescore(self, query, candidates, call):
        return np.arange(len(candidates), dtype=np.float32)
"""
TURNED_PIPELINE = """
defaults:
  - /recall@stages.bm25.use: bm25
  - _self_
stages:
  bm25: {top_k: 10}
  turned: {top_k: 5, use: {_target_: turned_around.Turned}}
"""
TURNED_RULES = """
quality: {reference: plain}
stacks:
  - {name: plain, overrides: [pipeline=bm25], stack: BM25 -> 10, because: words alone,
     stages: {bm25: {kind: bm25, top_k: 10}}}
  - {name: turned, overrides: [pipeline=turned], stack: BM25 -> turned around, because: fashion,
     expected: {difference: 0.1, sd: 0.1, sets: 3, source: a test},
     stages: {bm25: {kind: bm25, top_k: 10}, turned: {kind: late_interaction, top_k: 5}}}
languages:
  other: {because: no model}
"""


@pytest.fixture
def turned(orchestrate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words for a corpus of twelve judged questions, and rules with a rerank that makes everything worse."""
    (tmp_path / "turned_around.py").write_text(TURNED)
    monkeypatch.syspath_prepend(tmp_path)
    for group, name, text in (("pipeline", "turned", TURNED_PIPELINE), ("decision", "mine", TURNED_RULES)):
        folder = Path("my_conf") / group
        folder.mkdir(parents=True)
        (folder / f"{name}.yaml").write_text(text)
    folder = tmp_path / "twelve"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{n}", "text": f"a common thing called name{n}"} for n in range(12)]
    queries = [{"_id": f"q{n}", "text": f"common name{n}"} for n in range(12)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    rows = "".join(f"q{n}\td{n}\t1\n" for n in range(12))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    return ["--config-dir", "my_conf", f"corpus.path={folder}"]


def plan(orchestrate: Callable, *words: str) -> dict:
    done = orchestrate("plan", *words, "format=json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert isinstance(found, dict)
    return found


def test_what_evaluate_found_decides_what_plan_says(orchestrate: Callable, turned: list[str]) -> None:
    rules = [*turned, "decision=mine"]
    before = plan(orchestrate, *rules)
    assert before["choice"]["name"] == "turned"
    assert (
        "it was not measured on your documents; what this finds would weigh more: " in before["choice"]["reasons"][-1]
    )
    evaluated = orchestrate("evaluate", "pipeline=turned", "latency_queries=5", *turned)
    assert evaluated.code == 0, evaluated.err
    after = plan(orchestrate, *rules)
    assert after["choice"]["name"] == "plain"
    assert after["do_not_rerank"]
    (reason,) = [
        reason for reason in after["choice"]["reasons"] if reason.startswith("do not rerank: turned has on 12")
    ]
    assert "against plain" in reason
    by_name = {row["name"]: row for row in after["stacks"]}
    assert by_name["turned"]["expected"]["basis"] == "yours n=12"
    assert by_name["turned"]["expected"]["difference"] < 0
    assert by_name["turned"]["measured_ms"]["p95"] > 0
    (folder,) = Path(os.environ["ORCHESTRATOR_HOME"]).glob("evaluations/*")
    assert orchestrate("cache", "clear", "what=all").code == 0
    assert len(list(folder.iterdir())) == 1, "all leaves evaluations out"
    assert orchestrate("cache", "clear", "what=evaluations").code == 0
    assert not folder.exists()


def test_evaluations_of_another_kind_are_not_used_and_told(orchestrate: Callable, turned: list[str]) -> None:
    rules = [*turned, "decision=mine"]
    assert orchestrate("evaluate", "pipeline=turned", "measures=[RR@10]", "latency_queries=0", *turned).code == 0
    assert orchestrate("evaluate", "pipeline=turned", "corpus.max_queries=3", "latency_queries=0", *turned).code == 0
    (folder,) = Path(os.environ["ORCHESTRATOR_HOME"]).glob("evaluations/*")
    assert len(list(folder.iterdir())) == 2
    reasons = plan(orchestrate, *rules)["choice"]["reasons"]
    assert "not used: 1 evaluation without nDCG@10 among the measures" in reasons
    assert "evaluations on 3 judged queries are not used; 10 or more are" in reasons
    qrels = Path(turned[-1].partition("=")[2]) / "qrels" / "test.tsv"
    qrels.write_text(qrels.read_text() + "q0\td1\t1\n")
    reasons = plan(orchestrate, *rules)["choice"]["reasons"]
    assert "not used: 2 evaluations of questions or judgements that have changed since" in reasons


@pytest.mark.slow
def test_a_stage_set_otherwise_is_another_stack(orchestrate: Callable, turned: list[str]) -> None:
    changed = "pipeline.stages.bm25.use.k1=2.0"
    assert orchestrate("evaluate", "pipeline=turned", changed, "latency_queries=0", *turned).code == 0
    assert plan(orchestrate, *turned, "decision=mine")["choice"]["name"] == "turned"
    assert plan(orchestrate, *turned, "decision=mine", changed)["choice"]["name"] == "plain"


def test_the_command_to_evaluate_with_means_the_judgements_that_the_plan_goes_by(
    orchestrate: Callable, turned: list[str], tmp_path: Path
) -> None:
    qrels = tmp_path / "twelve" / "qrels"
    (qrels / "dev.tsv").write_text((qrels / "test.tsv").read_text())
    words = [*turned, "decision=mine", "corpus.split=dev"]
    reason = plan(orchestrate, *words)["choice"]["reasons"][-1]
    command = shlex.split(reason.partition("more: ")[2])
    assert command[:2] == ["orchestrate", "evaluate"]
    assert orchestrate(*command[1:], "latency_queries=0").code == 0
    (row,) = [row for row in plan(orchestrate, *words)["stacks"] if row["name"] == "turned"]
    assert row["expected"]["basis"] == "yours n=12"


@pytest.mark.slow
def test_the_command_for_the_missing_reference_means_the_same_corpus(orchestrate: Callable, turned: list[str]) -> None:
    (Path("my_conf") / "decision" / "far.yaml").write_text(
        TURNED_RULES.replace("overrides: [pipeline=bm25]", "overrides: [pipeline=bm25, pipeline.stages.bm25.use.b=0.1]")
    )
    rules = [*turned, "decision=far"]
    assert orchestrate("evaluate", "pipeline=turned", "latency_queries=0", *turned).code == 0
    reasons = plan(orchestrate, *rules)["choice"]["reasons"]
    (note,) = [reason for reason in reasons if reason.startswith("turned was evaluated without plain beside it: ")]
    command = shlex.split(note.partition("beside it: ")[2])
    assert command[:2] == ["orchestrate", "evaluate"]
    assert orchestrate(*command[1:], "latency_queries=0").code == 0
    found = plan(orchestrate, *rules)
    assert not any("without plain beside it" in reason for reason in found["choice"]["reasons"])
    (row,) = [row for row in found["stacks"] if row["name"] == "turned"]
    assert row["expected"]["basis"] == "yours n=12"
