"""Weighted fusion: the formulas, ranx and the standard library as independent implementations, the contract."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import ConfigError, PipelineError
from orchestrator.plugins.fusion.weighted import WeightedFusion
from orchestrator.plugins.normalisation import normalised
from orchestrator.ranking import partly_rescored, unscored
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.testing import FusionContract, ranked
from orchestrator.types import Call, Query, RankedList, ScoreKind

QUERY = Query("q", "x")
LISTS = {"bm25": ranked(["a", "b", "c"], [9, 5, 1]), "dense": ranked(["c", "a", "d"], [0.9, 0.5, 0.1], "cosine")}
ALL = ["min_max", "z_score", "rank", "distribution"]


def fuse(lists: Mapping[str, RankedList], normalise: str, **weights: float) -> dict[str, float]:
    return dict(WeightedFusion(normalise, weights).fuse(QUERY, lists, Call()))


class TestMinMax(FusionContract):
    def make(self) -> WeightedFusion:
        return WeightedFusion()


class TestZScore(FusionContract):
    def make(self) -> WeightedFusion:
        return WeightedFusion("z_score", {"a": 2})


class TestRank(FusionContract):
    def make(self) -> WeightedFusion:
        return WeightedFusion("rank")


class TestDistribution(FusionContract):
    def make(self) -> WeightedFusion:
        return WeightedFusion("distribution")


def test_min_max_is_the_formula() -> None:
    scores = fuse(LISTS, "min_max", dense=2)
    assert scores == pytest.approx(
        {
            "a": (9 - 1) / (9 - 1) + 2 * (0.5 - 0.1) / (0.9 - 0.1),
            "b": (5 - 1) / (9 - 1),
            "c": 0 + 2 * 1.0,
            "d": 0.0,
        }
    )


def test_distribution_is_the_formula_with_the_sample_deviation() -> None:
    values = [9.0, 5.0, 1.0]
    low = statistics.mean(values) - 3 * statistics.stdev(values)
    high = statistics.mean(values) + 3 * statistics.stdev(values)
    scores = fuse({"bm25": ranked(["a", "b", "c"], values)}, "distribution")
    assert scores == pytest.approx({x: (s - low) / (high - low) for x, s in zip("abc", values, strict=True)})


def test_z_score_is_the_formula_and_lacking_a_document_costs_three_deviations() -> None:
    scores = fuse(LISTS, "z_score")
    std = statistics.pstdev([9, 5, 1])
    assert scores["b"] == pytest.approx((5 - 5) / std - 3)
    assert scores["a"] == pytest.approx((9 - 5) / std + 0.0)


def test_equal_scores_share_their_ranks() -> None:
    scores = fuse({"bm25": ranked(["a", "b", "c", "d"], [3, 2, 2, 1])}, "rank")
    shared = 1 - ((2 - 1) + (3 - 1)) / 2 / 4
    assert scores == pytest.approx({"a": 1.0, "b": shared, "c": shared, "d": 1 - 3 / 4})


@pytest.mark.parametrize(
    ("normalise", "middle", "floor"),
    [("min_max", 0.5, 0), ("rank", 0.5, 0), ("distribution", 0.5, 0), ("z_score", 0, -3)],
)
def test_a_lone_or_constant_list_counts_as_the_middle_above_what_is_missing(
    normalise: str, middle: float, floor: float
) -> None:
    lone = {"bm25": ranked(["a"], [0.007]), "dense": ranked(["b", "c"], [1, 1], "cosine")}
    assert fuse(lone, normalise) == pytest.approx(dict.fromkeys("abc", middle + floor))
    assert fuse({"bm25": lone["bm25"]}, normalise) == {"a": middle}


@pytest.mark.parametrize("normalise", ALL)
def test_lacking_a_document_never_counts_for_more_than_having_it_last(normalise: str) -> None:
    rng = np.random.default_rng(5)
    values = np.sort(rng.standard_normal(200))[::-1].copy()
    values[-1] = -1000.0  # so far below that z-score and distribution leave their scale
    ids = [f"d{place}" for place in range(200)]
    scores = fuse({"a": ranked(ids, values), "b": ranked(["d0", "new"], [2, 1])}, normalise, b=0)
    assert scores["new"] <= scores["d199"]
    assert scores["d0"] == max(scores.values())


@pytest.mark.parametrize(("normalise", "norm"), [("min_max", "min-max"), ("rank", "rank"), ("z_score", "zmuv")])
def test_equals_ranx_where_the_definitions_agree(
    normalise: str, norm: str, lists: dict[str, RankedList], ranx: dict[str, dict[str, float]]
) -> None:
    """ranx counts a missing document as 0: for z-score, only documents of all lists compare."""
    ours = fuse(lists, normalise, a=0.3, b=0.7, c=1.5)
    everywhere = set.intersection(*(set(each.doc_ids) for each in lists.values()))
    compared = everywhere if normalise == "z_score" else set(ours)
    assert compared
    assert {doc_id: ours[doc_id] for doc_id in compared} == pytest.approx(
        {doc_id: ranx[norm][doc_id] for doc_id in compared}
    )


WHOLE = ranked(["a", "b", "c", "d", "e"], [9, 7, 5, 3, 1])


@pytest.mark.parametrize("normalise", [*ALL, "none"])
def test_a_list_whose_stage_did_not_run_counts_as_it_came(normalise: str) -> None:
    assert fuse({"precise": unscored(WHOLE)}, normalise) == fuse({"precise": WHOLE}, normalise)
    other = ranked(["f", "e"], [2.0, 1.0])
    scores = fuse({"precise": unscored(WHOLE), "b": other}, normalise, precise=10)
    assert max(scores, key=scores.__getitem__) == "a"


@pytest.mark.parametrize("n_scored", range(6))
@pytest.mark.parametrize("normalise", [*ALL, "none"])
@pytest.mark.parametrize("new", [np.array([0.3, 0.9, 0.6, 0.2, 0.8]), np.array([-5.0, -1.0, -2.0, -3.0, -4.0])])
def test_a_list_that_was_scored_in_part_keeps_its_order(new: np.ndarray, normalise: str, n_scored: int) -> None:
    part = partly_rescored("precise", WHOLE, np.arange(n_scored), new[:n_scored], "logit")
    scores = normalised(part, normalise)
    assert (np.diff(scores) < 0).all()
    fused = fuse({"precise": part, "b": ranked(["new"], [0.0])}, normalise, b=0.001)
    assert tuple(sorted(fused, key=lambda doc_id: -fused[doc_id]))[:4] == part.doc_ids[:4]
    assert fused["new"] <= fused[part.doc_ids[-1]] + 0.001


def test_each_part_takes_as_much_of_the_scale_as_it_has_rows() -> None:
    part = partly_rescored("precise", WHOLE, np.arange(3), np.array([0.1, 0.5, 0.4]), "probability")
    assert part.doc_ids == ("b", "c", "a", "d", "e")
    np.testing.assert_allclose(normalised(part, "min_max"), [1, 0.5 + 0.5 * (0.4 - 0.1) / (0.5 - 0.1), 0.5, 0.25, 0])
    np.testing.assert_allclose(normalised(part, "none"), [0.5, 0.4, 0.1, 0.25 * 0.1, 0.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalise": "minmax"}, r"^normalise: found 'minmax'; choices: .*Did you mean 'min_max'\?"),
        ({"weights": {"a": -1}}, r"^weights\.a: -1 is no number of 0 or more"),
        ({"weights": {"a": float("nan")}}, r"^weights\.a: nan is no number"),
    ],
)
def test_rejects_values_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WeightedFusion(**arguments)


class Source:
    def __init__(self, kind: ScoreKind) -> None:
        self.score_kind = kind

    def retrieve(self, query: Query, top_k: int, call: Call) -> list[tuple[str, float]]:
        return []


@pytest.mark.parametrize(
    ("fusion", "message"),
    [
        (
            WeightedFusion("none"),
            r"^pipeline\.stages\.fused\.use\.normalise: 'none' cannot mix .*: bm25 \(bm25\), dense \(cosine\); choi",
        ),
        (WeightedFusion(weights={"dens": 2}), r"^pipeline\.stages\.fused\.use\.weights\.dens: .*Did you mean 'dense'"),
        (
            WeightedFusion(weights={"bm25": 0, "dense": 0}),
            r"^pipeline\.stages\.fused\.use\.weights: all inputs weigh 0",
        ),
    ],
)
def test_what_cannot_be_fused_is_refused_before_anything_runs(fusion: WeightedFusion, message: str) -> None:
    specs = [
        StageSpec("bm25", Source("bm25"), 5),
        StageSpec("dense", Source("cosine"), 5),
        StageSpec("fused", fusion, 5, ("bm25", "dense")),
    ]
    with pytest.raises(PipelineError, match=message):
        StageGraph.of(specs)


def test_scores_of_one_kind_are_added_as_they_are() -> None:
    lists = {"a": ranked(["x", "y"], [3, 2]), "b": ranked(["y"], [4])}
    assert fuse(lists, "none", b=0.5) == {"x": 3.0, "y": 2 + 0.5 * 4}


def test_lists_that_came_in_other_kinds_than_declared_are_weighed_by_rank() -> None:
    lists, call = {"dense": ranked(["a", "b"], [0.9, 0.1], "cosine"), "precise": unscored(WHOLE)}, Call()
    scores = dict(WeightedFusion("none", {"precise": 10}).fuse(QUERY, lists, call))
    assert scores == pytest.approx(
        {"a": 1 + 10, "b": 1 / 2 + 10 * 4 / 5, "c": 10 * 3 / 5, "d": 10 * 2 / 5, "e": 10 / 5}
    )
    (note,) = call.notes
    assert note == ("lists weighed by rank, since their scores came in different kinds: dense (cosine), precise (bm25)")
