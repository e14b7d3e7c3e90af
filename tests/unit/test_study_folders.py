"""Folders of runs and sweeps become rows, and what is wrong with one is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluations import FAIR, GOOD, MEASURES, POOR, Evaluation, studied, sweep, write_sweep

from orchestrator.errors import ConfigError, DataError
from orchestrator.study.figures import read_figures
from orchestrator.study.folders import read_folders


def test_the_jobs_of_a_sweep_are_rows_and_a_failed_one_has_its_reason(tmp_path: Path) -> None:
    folder = sweep(tmp_path, {"k=1": Evaluation(GOOD), "k=2": "it broke\nsomewhere", "k=3": Evaluation(POOR)})
    found = read_folders({"task.folder": folder})
    assert found.keys == ("k",)
    assert [(entry.name, entry.settings, entry.failure) for entry in found.entries] == [
        ("0", {"k": "1"}, ""),
        ("1", {"k": "2"}, "it broke"),
        ("2", {"k": "3"}, ""),
    ]
    assert found.entries[0].figures is not None
    assert found.entries[0].figures.metrics["RR@10"] == 1.0
    assert found.entries[2].figures is not None
    assert found.entries[2].figures.metrics["RR@10"] == pytest.approx((10 / 2 + 10 / 5) / 20)
    assert found.entries[1].figures is None


def test_of_one_run_its_stages_are_rows_beside_the_whole(tmp_path: Path) -> None:
    run = Evaluation(GOOD, {"fused": FAIR, "shortlist": POOR})
    study = studied(run.write(tmp_path / "run"))
    assert study.is_single
    assert [(row.name, row.kind) for row in study.rows] == [
        ("fused", "stage"),
        ("shortlist", "stage"),
        ("whole", "run"),
    ]
    assert study.reference is not None
    assert study.reference.name == "fused", "the ranking before the first rerank"
    for row, places in zip(study.rows, (FAIR, POOR, GOOD), strict=True):
        assert dict(row.per_query) == run.judged(places), "read from the run files, by the kept judgements"


def test_several_folders_stand_in_one_table_told_apart_by_their_folder(tmp_path: Path) -> None:
    one = Evaluation(GOOD).write(tmp_path / "a", ["task=evaluate", "k=1"])
    two = write_sweep(tmp_path / "b", {"k=1": Evaluation(FAIR), "k=2": Evaluation(POOR)})
    found = read_folders({"task.folder": one, "task.compare[0]": two})
    assert found.keys == ("folder", "k")
    assert [tuple(entry.settings.values()) for entry in found.entries] == [("a", "1"), ("b", "1"), ("b", "2")]
    assert [entry.name for entry in found.entries] == ["0", "1", "2"]
    assert read_folders({"task.folder": tmp_path}).keys == ("folder", "k"), "the folder above holds both"


def test_jobs_without_a_plan_keep_their_numbers(tmp_path: Path) -> None:
    folder = sweep(tmp_path, {"k=1": Evaluation(GOOD), "k=2": Evaluation(POOR)})
    (folder / "sweep.json").unlink()
    assert [(entry.name, entry.settings) for entry in read_folders({"task.folder": folder}).entries] == [
        ("0", {"k": "1"}),
        ("1", {"k": "2"}),
    ]


def test_an_interrupted_sweep_says_how_many_jobs_are_missing(tmp_path: Path) -> None:
    study = studied(sweep(tmp_path, {"k=1": Evaluation(GOOD), "k=2": Evaluation(POOR)}, n_planned=5))
    assert study.n_missing == 3
    assert "3 planned jobs have not ended." in study.gaps


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("missing", "task.folder: .*x: found nothing there; expected the folder of an evaluation"),
        ("file", "task.folder: .*x: found a file; expected the folder of an evaluation"),
        ("empty", r"task.folder: .*x: found no metrics.json in it or below it \(it holds results.jsonl\); expected"),
        ("failed", "task.folder: .*x: 2 of its 2 jobs failed and none left figures; the first: no such model"),
    ],
)
def test_what_is_no_evaluation_is_refused_with_what_was_expected(tmp_path: Path, made: str, message: str) -> None:
    folder = tmp_path / "x"
    if made == "file":
        folder.write_text("")
    if made == "empty":
        folder.mkdir()
        (folder / "results.jsonl").write_text("")
    if made == "failed":
        write_sweep(folder, {"k=1": "no such model", "k=2": "no such model"})
    with pytest.raises(ConfigError, match=message):
        read_folders({"task.folder": folder})


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = sweep(tmp_path, {"k=1": Evaluation(GOOD), "k=2": Evaluation(POOR)})
    (folder / "1" / "metrics.json").write_text('{"metrics": ')
    with pytest.raises(DataError, match=r"1/metrics\.json: no JSON .*expected what `orchestrate evaluate` writes"):
        read_folders({"task.folder": folder})
    (folder / "1" / "metrics.json").write_text('{"metrics": [1, 2]}')
    with pytest.raises(DataError, match=r"metrics\.json: expected what `orchestrate evaluate` writes, found"):
        read_figures(folder / "1")


@pytest.mark.parametrize("metrics", ["null", "{}"])
def test_figures_without_a_measure_are_named(tmp_path: Path, metrics: str) -> None:
    folder = sweep(tmp_path, {"k=1": Evaluation(GOOD), "k=2": Evaluation(POOR)})
    (folder / "1" / "metrics.json").write_text(f'{{"metrics": {metrics}}}')
    with pytest.raises(DataError, match=r"1/metrics\.json: holds no measure; expected what `orchestrate evaluate`"):
        read_folders({"task.folder": folder})


def test_a_foreign_job_json_is_told_of(tmp_path: Path) -> None:
    folder = sweep(tmp_path, {"k=1": Evaluation(GOOD)})
    (folder / "0" / "job.json").write_text("[1, 2]")
    with pytest.raises(DataError, match=r"sweep: a job\.json in it is damaged, or no job's"):
        read_folders({"task.folder": folder})


def test_metrics_of_the_folder_are_read_as_they_were_written(tmp_path: Path) -> None:
    run = Evaluation(GOOD, {"fused": FAIR}, usd=0.5, tokens=12.0, words=("a",))
    figures = read_figures(run.write(tmp_path / "run"))
    content = json.loads(json.dumps(run.content()))
    assert figures is not None
    assert dict(figures.metrics) == content["metrics"]
    assert (figures.null_stage, dict(figures.null)) == ("fused", content["null"]["metrics"])
    assert (figures.usd, figures.tokens, figures.words, figures.corpus["name"]) == (0.5, 12.0, ("a",), "made")
    assert figures.intervals["RR@10"] == tuple(content["intervals"]["RR@10"])
    assert set(figures.oracle) == set(MEASURES)
