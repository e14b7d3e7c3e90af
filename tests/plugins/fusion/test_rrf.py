"""Reciprocal rank fusion: the formula, ranx as an independent implementation, the contract."""

import pytest

from orchestrator.errors import ConfigError, PipelineError
from orchestrator.plugins.fusion.rrf import ReciprocalRankFusion
from orchestrator.ranking import fused
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.testing import FusionContract, ranked
from orchestrator.types import Call, Query, RankedList

LISTS = {"bm25": ranked(["a", "b", "c"], [9, 5, 1]), "dense": ranked(["c", "a", "d"], [0.9, 0.5, 0.1], "cosine")}


class TestContract(FusionContract):
    def make(self) -> ReciprocalRankFusion:
        return ReciprocalRankFusion()


def test_scores_are_the_formula() -> None:
    scores = dict(ReciprocalRankFusion(k=60).fuse(Query("q", "x"), LISTS, Call()))
    assert scores["a"] == pytest.approx(1 / (60 + 1) + 1 / (60 + 2), abs=1e-15)
    assert scores["b"] == pytest.approx(1 / (60 + 2), abs=1e-15)
    assert scores["c"] == pytest.approx(1 / (60 + 3) + 1 / (60 + 1), abs=1e-15)
    assert scores["d"] == pytest.approx(1 / (60 + 3), abs=1e-15)


def test_weights_scale_their_list_and_k_damps() -> None:
    scores = dict(ReciprocalRankFusion(k=1, weights={"dense": 3}).fuse(Query("q", "x"), LISTS, Call()))
    assert scores["a"] == pytest.approx(1 / (1 + 1) + 3 / (1 + 2))
    assert scores["d"] == pytest.approx(3 / (1 + 3))


@pytest.mark.parametrize("k", [1, 60])
def test_equals_ranx(k: int, lists: dict[str, RankedList], ranx: dict[str, dict[str, float]]) -> None:
    assert dict(ReciprocalRankFusion(k=k).fuse(Query("q", "x"), lists, Call())) == pytest.approx(ranx[f"rrf-{k}"])


def test_equal_scores_are_ordered_by_id() -> None:
    lists = {"a": ranked(["y", "x"], [2, 1]), "b": ranked(["x", "y"], [2, 1])}
    pairs = ReciprocalRankFusion().fuse(Query("q", "x"), lists, Call())
    assert fused("rrf", pairs, "rrf", lists).doc_ids == ("x", "y")


@pytest.mark.parametrize(("arguments", "path"), [({"k": -1}, "k"), ({"weights": {"a": "much"}}, "weights.a")])
def test_rejects_values_that_make_no_sense(arguments: dict[str, object], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ReciprocalRankFusion(**arguments)  # type: ignore[arg-type]
    assert caught.value.path == path


def test_a_weight_for_no_input_is_named_with_its_path() -> None:
    class Source:
        score_kind = "bm25"

        def retrieve(self, query: Query, top_k: int, call: Call) -> list[tuple[str, float]]:
            return []

    fusion = ReciprocalRankFusion(weights={"dens": 2})
    specs = [
        StageSpec("bm25", Source(), 5),  # type: ignore[arg-type]
        StageSpec("dense", Source(), 5),  # type: ignore[arg-type]
        StageSpec("fused", fusion, 5, ("bm25", "dense")),
    ]
    with pytest.raises(PipelineError, match=r"pipeline.stages.fused.use.weights.dens: .*Did you mean 'dense'"):
        StageGraph.of(specs)
