"""The folder of an evaluation: what marks its end is written last, and each stage has a run file of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from answers import Finds, Held, Sums

from orchestrator.evaluation.folder import stage_file, write_folder
from orchestrator.evaluation.measures import Measures
from orchestrator.evaluation.quality import Quality, measure_quality
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.trec import read_run
from orchestrator.types import Query

NAMES = ["a b", "a-b", "served"]


@pytest.fixture
def quality() -> Quality:
    """Of three stages that find one document each, named after them, and of a fusion."""
    recalls = [StageSpec(name, Finds(name), 1) for name in NAMES]
    graph = StageGraph.of([*recalls, StageSpec("fused", Sums(), 3, tuple(NAMES))])  # type: ignore[list-item, arg-type]
    return measure_quality(Runner(graph, Held()).run, [Query("q", "one")], {"q": {"a b": 1}}, Measures(["AP"]))


def test_names_that_look_alike_in_a_file_name_are_kept_apart(quality: Quality, tmp_path: Path) -> None:
    write_folder(tmp_path, quality, {"metrics": {}})
    for name in NAMES:
        run = read_run(tmp_path / "runs" / f"{stage_file(name)}.trec")
        assert [doc_id for doc_id, _ in run["q"]] == [name.replace(" ", "%20")]
    names = [*NAMES, "served-stage", "x" * 61, "x" * 60]
    assert len({stage_file(name) for name in names} | {"served"}) == len(names) + 1
    assert stage_file("precise") == "precise"


def test_a_folder_that_was_left_half_way_has_no_figures(quality: Quality, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(OSError, match="runs"):
        write_folder(tmp_path, quality, {"metrics": {}})
    assert not (tmp_path / "metrics.json").exists()
    (tmp_path / "runs").unlink()
    write_folder(tmp_path, quality, {"metrics": {}})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"metrics": {}}
