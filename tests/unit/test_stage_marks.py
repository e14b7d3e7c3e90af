"""What makes two stages of two configurations the same one."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from orchestrator.stack.stage_marks import model_label, stage_marks

CONFIG: dict[str, Any] = {
    "corpus": {"language": "en"},
    "models": {"embedder": {"name": "org/small", "path": None, "revision": None}},
    "pipeline": {
        "stages": {
            "bm25": {"use": {"_target_": "a.BM25", "language": "${corpus.language}", "k1": 0.9}, "top_k": 100},
            "dense": {"use": {"_target_": "a.Qdrant", "embedder": "${models.embedder}", "threads": 1}, "top_k": 100},
            "fused": {"use": {"_target_": "a.RRF", "k": 60}, "top_k": 10, "inputs": ["bm25", "dense"]},
        }
    },
}
INPUTS: dict[str, tuple[str, ...]] = {"bm25": (), "dense": (), "fused": ("bm25", "dense")}


def changed(path: str, value: object) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    *parents, last = path.split(".")
    node = config
    for key in parents:
        node = node[key]
    node[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "others"),
    [
        ("pipeline.stages.bm25.use.k1", 1.2, {"bm25", "fused"}),
        ("pipeline.stages.dense.use.filter", "x", {"dense", "fused"}),
        ("pipeline.stages.fused.use.k", 2, {"fused"}),
        ("pipeline.stages.fused.use._target_", "a.Weighted", {"fused"}),
        ("pipeline.stages.bm25.cut", {"kind": "gap"}, {"bm25", "fused"}),
        ("corpus.language", "de", {"bm25", "fused"}),
        ("models.embedder.name", "org/large", {"dense", "fused"}),
        ("models.embedder.revision", "v2", {"dense", "fused"}),
        ("pipeline.stages.bm25.top_k", 10, set()),
        ("pipeline.stages.dense.use.threads", 8, set()),
        ("models.embedder.licence", "mit", set()),
    ],
)
def test_what_changes_a_ranking_makes_another_stage(path: str, value: object, others: set[str]) -> None:
    before, after = stage_marks(CONFIG, INPUTS), stage_marks(changed(path, value), INPUTS)
    assert {name for name in INPUTS if before[name] != after[name]} == others


def test_names_and_the_stages_around_it_make_no_difference() -> None:
    alone = changed("pipeline.stages", {"words": CONFIG["pipeline"]["stages"]["bm25"]})
    assert stage_marks(alone, {"words": ()})["words"] == stage_marks(CONFIG, INPUTS)["bm25"]


def test_a_model_may_be_named_in_place_of_the_one_that_stands_there() -> None:
    named = stage_marks(CONFIG, INPUTS, {"embedder": "org/large"})
    assert named == stage_marks(changed("models.embedder.name", "org/large"), INPUTS)


def test_the_order_of_what_a_fusion_reads_makes_a_difference() -> None:
    turned = {**INPUTS, "fused": ("dense", "bm25")}
    assert stage_marks(CONFIG, turned)["fused"] != stage_marks(CONFIG, INPUTS)["fused"]


def test_of_a_choice_that_the_machine_makes_the_one_it_made_counts() -> None:
    cross, weights = {"_target_": "a.CrossEncoder"}, {"_target_": "a.LTR"}
    choice = {"_target_": "a.first_at_hand", "choices": {"cross": cross, "weights": weights}}
    left_open = changed("pipeline.stages.fused.use", choice)
    chosen = changed("pipeline.stages.fused.use", cross)
    assert stage_marks(left_open, INPUTS, classes={"fused": "CrossEncoder"}) == stage_marks(chosen, INPUTS)
    assert stage_marks(left_open, INPUTS) != stage_marks(chosen, INPUTS)


def test_a_model_is_told_by_its_folder_before_its_name() -> None:
    assert model_label({"name": "org/small", "path": "/models/mine"}) == "/models/mine"
    assert model_label({"name": "org/small", "path": None, "revision": "v2"}) == "org/small@v2"
    assert model_label({"_target_": "my.Embedder"}) == "my.Embedder"
