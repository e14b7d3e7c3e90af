"""The table of a sweep, from outcomes made by hand: names of columns, marks, rows of failures, CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from orchestrator.config.failure import Failure
from orchestrator.jobs import METRICS_FILE, Job, Outcome, read_outcomes, read_plan, write_outcome, write_plan
from orchestrator.study.sweep_table import SweepTable, short_names, swept_keys


def outcome(num: int, *overrides: str, ndcg: float | None = None, p50: float = 1.0) -> Outcome:
    figures = {"metrics": {"nDCG@10": ndcg}, "served": {"nDCG@10": ndcg}, "latency_ms": {"p50": p50, "p95": 9.0}}
    failure = None if ndcg is not None else Failure("it broke\nfor a reason", 1)
    return Outcome(Job(num, overrides), str(num), 0.1, failure, {} if failure else figures)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "short"),
    [
        ("pipeline.stages.precise.top_k", "precise.top_k"),
        ("pipeline.stages.fused.use.k", "fused.k"),
        ("rerank@pipeline.stages.precise.use", "precise"),
        ("model@models.reranker", "reranker"),
        ("models.reranker.path", "reranker.path"),
        ("task.depth", "depth"),
        ("scenario", "scenario"),
        ("corpus.path", "corpus.path"),
    ],
)
def test_keys_have_short_names(key: str, short: str) -> None:
    assert short_names([key]) == {key: short}


def test_short_names_that_would_be_equal_stay_long() -> None:
    keys = ["pipeline.stages.fused.top_k", "task.fused.top_k", "pipeline"]
    assert list(short_names(keys).values()) == [*keys[:2], "pipeline"]


def test_what_varies_is_swept_and_what_only_some_jobs_have_too() -> None:
    jobs = [Job(0, ("task=evaluate", "+a=1", "b='x'")), Job(1, ("task=evaluate", "+a=2", "b=x", "c=1"))]
    assert swept_keys(jobs) == ["a", "c"]
    assert swept_keys(jobs[:1]) == ["a", "b"], "of a single job, all that was typed"


def test_the_best_is_the_highest_measure_and_the_lowest_latency() -> None:
    rows = [outcome(0, "k=1", ndcg=0.5, p50=2.0), outcome(1, "k=2", ndcg=0.75, p50=3.0), outcome(2, "k=3")]
    assert SweepTable.of(rows).best() == {"nDCG@10": 0.75, "served nDCG@10": 0.75, "p50 ms": 2.0}, (
        "p95 is the same in all"
    )


def test_a_job_whose_answers_lack_something_says_so_beside_its_figures() -> None:
    short = outcome(1, "k=2", ndcg=0.75)
    short = replace(short, figures={**short.figures, "work": {"whole": 0.6}})  # type: ignore[dict-item]
    table = SweepTable.of([outcome(0, "k=1", ndcg=0.5), short])
    assert table.text().splitlines()[3].endswith("  40% of the answers fell short")
    assert [row["whole answers"] for row in csv.DictReader(io.StringIO(table.csv()))] == ["", "0.6"]


def test_a_failed_job_is_a_row_with_the_first_line_of_its_reason() -> None:
    table = SweepTable.of([outcome(0, "k=1", ndcg=0.5), outcome(1, "k=[bm25]")]).text().splitlines()
    assert table[0].split() == ["job", "k", "nDCG@10", "served", "nDCG@10", "p50", "ms", "p95", "ms"]
    assert table[-1] == "  1  [bm25]  failed: it broke"


def test_columns_stand_straight_whatever_the_script() -> None:
    rows = [outcome(0, "corpus=青光眼", ndcg=0.5), outcome(1, "corpus=glaucoma", ndcg=0.25)]
    lines = SweepTable.of(rows).text().splitlines()
    places = [cell_len(line[: line.index("0.")]) for line in lines[2:]]
    assert places[0] == places[1]


def test_an_interrupted_sweep_shows_what_was_swept_by_its_plan() -> None:
    plan = [Job(0, ("a=1", "b=1")), Job(1, ("a=2", "b=1"))]
    assert SweepTable.of([outcome(0, "a=1", "b=1", ndcg=0.5)], plan).swept == {"a": "a"}


def test_csv_has_full_precision_and_survives_awkward_values() -> None:
    rows = [outcome(0, 'k="a, b"', ndcg=1 / 3), outcome(1, "k=2")]
    first, second = csv.DictReader(io.StringIO(SweepTable.of(rows).csv()))
    assert float(first["nDCG@10"]) == 1 / 3
    assert first["k"] == "a, b"
    assert (second["status"], second["reason"], second["nDCG@10"]) == ("failed", "it broke", "")


def test_outcomes_come_back_as_they_were_kept(tmp_path: Path) -> None:
    jobs = [Job(0, ("a=1",)), Job(1, ("a=青",))]
    write_plan(tmp_path, jobs)
    write_outcome(tmp_path / "deep" / "er", jobs[1], 2.5, Failure("no", 2, "trace"))
    write_outcome(tmp_path / "0", jobs[0], 1.0, None)
    (tmp_path / "0" / METRICS_FILE).write_text('{"metrics": {"AP": 0.5}}')
    assert read_plan(tmp_path) == jobs
    done, failed = (replace(outcome, ended=0.0) for outcome in read_outcomes(tmp_path))
    assert done == Outcome(jobs[0], "0", 1.0, None, {"metrics": {"AP": 0.5}})
    assert failed == Outcome(jobs[1], "deep/er", 2.5, Failure("no", 2, "trace"))


def test_figures_that_are_null_are_empty() -> None:
    known = {"metrics": {"nDCG@10": 0.5}, "served": None, "oracle": None, "work": None, "cost_usd_per_query": None}
    rows = [replace(outcome(num, ndcg=0.5), figures=figures) for num, figures in enumerate([known, {"metrics": None}])]
    first, second = csv.DictReader(io.StringIO(SweepTable.of(rows).csv()))
    assert (first["nDCG@10"], second["nDCG@10"]) == ("0.5", "")
    assert "usd a query" not in first


def test_csv_has_bounds_and_costs_of_the_jobs_that_know_them() -> None:
    known = {"oracle": {"nDCG@10": 0.9}, "null": {"stage": "bm25", "metrics": {"nDCG@10": 0.4}}, "cost_usd": 0.5}
    known |= {"tokens_per_query": 12.5, "cost_usd_per_query": 0.01, "latency_ms": {"p50": 1.0, "p95": 2.0, "p99": 3.0}}
    new = outcome(0, "k=1", ndcg=0.5)
    new = replace(new, figures={**new.figures, **known})  # type: ignore[dict-item]
    first, second, third = csv.DictReader(
        io.StringIO(SweepTable.of([new, outcome(1, "k=2", ndcg=0.4), outcome(2, "k=3")]).csv())
    )
    columns = ("oracle nDCG@10", "null nDCG@10", "tokens a query", "usd a query", "usd", "p99 ms")
    assert [first[name] for name in columns] == ["0.9", "0.4", "12.5", "0.01", "0.5", "3.0"]
    assert {second[name] for name in columns} == {third[name] for name in columns} == {""}
