"""The search for weights and k: what it finds, that it is deterministic, and what it hands on."""

from __future__ import annotations

import pytest

from orchestrator.evaluation.measures import Measures
from orchestrator.learning.knobs import quality_of, rankings_of, tune
from orchestrator.plugins.fusion.rrf import ReciprocalRankFusion
from orchestrator.plugins.fusion.weighted import WeightedFusion
from orchestrator.stage import Adjustable, Knob
from orchestrator.tasks.train_weights import nested
from orchestrator.testing import ranked
from orchestrator.types import Call, Query

TENTHS = tuple(tenth / 10 for tenth in range(11))
KNOBS = {"k": Knob(60.0, (1.0, 10.0, 60.0)), "weights.a": Knob(1.0, TENTHS, True), "weights.b": Knob(1.0, TENTHS, True)}


def test_it_finds_the_best_of_a_quality_with_one_top() -> None:
    """Best where b is 0.3 of a, and k is 10; only the weights' proportion counts."""

    def quality(values: dict[str, float]) -> float:
        share = values["weights.b"] / max(values["weights.a"], 1e-9)
        return -abs(share - 0.3) - abs(values["k"] - 10) / 100

    found = tune(KNOBS, quality)
    assert found.values == {"k": 10.0, "weights.a": 1.0, "weights.b": 0.3}
    assert found.quality == pytest.approx(0)
    assert found.given_quality == pytest.approx(-0.7 - 0.5)
    assert found == tune(KNOBS, quality)


def test_the_greater_weight_is_found_on_either_side() -> None:
    found = tune(KNOBS, lambda values: -abs(values["weights.a"] - 0.5) - abs(values["weights.b"] - 1))
    assert found.values == {"k": 60.0, "weights.a": 0.5, "weights.b": 1.0}


def test_what_is_not_better_is_not_taken() -> None:
    found = tune(KNOBS, lambda values: 0.5)
    assert found.values == {name: knob.value for name, knob in KNOBS.items()}
    assert (found.quality, found.given_quality) == (0.5, 0.5)


def test_never_are_all_weights_zero() -> None:
    seen = []
    tune({"weights.a": Knob(1.0, (0.0, 1.0), True)}, lambda values: seen.append(values) or 0.0)  # type: ignore[func-returns-value]
    assert seen == [{"weights.a": 1.0}]


LISTS = {
    f"q{n}": {"a": ranked(["x", "y", "good"], [3, 2, 1], stage="a"), "b": ranked(["good", "z"], [2, 1], stage="b")}
    for n in range(3)
}


@pytest.mark.parametrize("fusion", [ReciprocalRankFusion(), WeightedFusion()])
def test_shipped_fusions_are_tuned_to_the_list_that_is_right(fusion: Adjustable) -> None:
    qrels = {query_id: {"good": 1} for query_id in LISTS}
    measures = Measures(["RR@10"])
    quality = quality_of(fusion, LISTS, list(LISTS), qrels, measures, 100, None)
    found = tune(fusion.knobs(["a", "b"]), quality)
    assert found.quality == 1.0
    best = rankings_of(fusion.adjusted(found.values), LISTS, LISTS, 100, None)  # type: ignore[arg-type]
    assert {ids[0] for ids in best.values()} == {"good"}


def test_adjusted_numbers_are_those_of_the_formula_and_the_fusion_stays_as_it_is() -> None:
    fusion = ReciprocalRankFusion(weights={"a": 0.5})
    assert {name: knob.value for name, knob in fusion.knobs(["a", "b"]).items()} == {
        "k": 60.0,
        "weights.a": 0.5,
        "weights.b": 1.0,
    }
    changed = fusion.adjusted({"k": 10, "weights.b": 0.2})
    scores = dict(changed.fuse(Query("q", ""), LISTS["q0"], Call()))
    assert scores["good"] == pytest.approx(0.5 / (10 + 3) + 0.2 / (10 + 1))
    assert dict(fusion.fuse(Query("q", ""), LISTS["q0"], Call()))["good"] == pytest.approx(0.5 / 63 + 1 / 61)
    kept = WeightedFusion("rank", {"a": 2}).adjusted({"weights.b": 0})
    assert kept.normalise == "rank"
    assert dict(kept.fuse(Query("q", ""), LISTS["q0"], Call()))["x"] == pytest.approx(2 * 1)


def test_names_become_the_yaml_below_use() -> None:
    assert nested({"k": 10, "weights.a": 1, "weights.b": 0.5}) == {"k": 10, "weights": {"a": 1, "b": 0.5}}
