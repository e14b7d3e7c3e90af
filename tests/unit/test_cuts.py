"""Cuts: how many documents a stage passes on, by their scores."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigError, PipelineError
from orchestrator.ranking import partly_rescored, unscored
from orchestrator.stack.cuts import NEVER_NEGATIVE, TOP_K, Cut
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import RankedList


def ranked(*scores: float, kind: Any = "probability") -> RankedList:
    return RankedList(tuple(f"d{place}" for place in range(len(scores))), np.array(scores, np.float64), kind)


falling = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=40).map(lambda found: sorted(found, reverse=True))
CUTS = [Cut(), Cut("ratio", ratio=0.5, min=2), Cut("gap", min=3), Cut("threshold", value=0.4, kind="probability")]


@given(falling, st.integers(1, 50))
def test_a_cut_passes_on_between_min_and_top_k(scores: list[float], top_k: int) -> None:
    for cut in CUTS:
        most = min(len(scores), top_k)
        assert min(cut.min, most) <= cut.keep(ranked(*scores), top_k) <= most


@given(falling, st.integers(1, 50))
def test_a_ratio_keeps_what_reaches_a_share_of_the_best(scores: list[float], top_k: int) -> None:
    expected = sum(score >= 0.5 * scores[0] for score in scores[:top_k])
    assert Cut("ratio", ratio=0.5).keep(ranked(*scores), top_k) == expected


@given(falling, st.integers(1, 50))
def test_a_threshold_keeps_what_reaches_it(scores: list[float], top_k: int) -> None:
    expected = sum(score >= 0.4 for score in scores[:top_k])
    assert Cut("threshold", value=0.4, kind="probability").keep(ranked(*scores), top_k) == max(1, expected)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.integers(1, 50), st.integers(1, 6))
def test_a_gap_cuts_at_the_largest_drop(values: list[int], top_k: int, least: int) -> None:
    scores = sorted(map(float, values), reverse=True)
    most = min(len(scores), top_k)
    drops = {n: scores[n - 1] - scores[n] for n in range(least, most + 1) if n < len(scores)}
    largest = max(drops.values(), default=0.0)
    expected = max((n for n, drop in drops.items() if drop == largest), default=most) if largest > 0 else most
    assert Cut("gap", min=least).keep(ranked(*scores), top_k) == max(expected, min(least, most))


@pytest.mark.parametrize(
    ("scores", "top_k", "kept"),
    [
        ((9, 8.9, 8.8, 2, 1.9), 5, 3),
        ((9, 2, 1.9, 1.8), 4, 1),
        ((9, 8.9, 8.8, 2, 1.9), 2, 2),  # the gap lies further down
        ((9, 8.9, 2, 1.9), 2, 2),  # and here just behind top_k
        ((0.9, 0.8, 0.7, 0.6), 4, 3),  # evenly spaced: the last of equal drops, whatever floats make of them
        ((5, 5, 5), 3, 3),
    ],
)
def test_gaps_as_a_person_sees_them(scores: tuple[float, ...], top_k: int, kept: int) -> None:
    assert Cut("gap").keep(ranked(*scores, kind="logit"), top_k) == kept


def test_fixed_is_top_k() -> None:
    assert TOP_K.keep(ranked(0.9, 0.1, 0.0), 2) == 2
    assert TOP_K.settings == {}


@pytest.mark.parametrize("cut", CUTS[1:])
def test_a_stage_that_did_not_run_has_nothing_to_judge(cut: Cut) -> None:
    assert cut.keep(unscored(ranked(0.9, 0.1, 0.05, 0.01)), 3) == 3


@pytest.mark.parametrize("cut", CUTS[1:])
def test_scores_of_another_kind_are_not_judged(cut: Cut) -> None:
    fallback = ranked(0.9, 0.1, 0.05, 0.01, kind="cosine")
    assert cut.keep(fallback, 3, own_kind="probability") == 3
    assert Cut("threshold", value=0.5, kind="probability").keep(fallback, 3) == 3
    assert Cut("ratio", ratio=0.5).keep(fallback, 3) == 3


def test_of_a_partly_scored_list_the_rest_only_fills_up() -> None:
    part = partly_rescored(
        "precise", ranked(9, 8, 7, 6, 5, kind="bm25"), np.arange(3), np.array([0.9, 0.8, 0.1]), "probability"
    )
    assert Cut("threshold", value=0.5, kind="probability").keep(part, 5) == 2
    assert Cut("threshold", value=0.0, kind="probability").keep(part, 5) == 3, "the tail was not scored"
    assert Cut("threshold", value=0.5, kind="probability", min=4).keep(part, 5) == 4
    assert Cut("gap").keep(part, 5) == 2
    assert TOP_K.keep(part, 5) == 5


def test_a_ratio_of_a_negative_best_means_nothing() -> None:
    assert Cut("ratio", ratio=0.5).keep(ranked(-1, -2, -9, kind="graded"), 3) == 3


def test_an_empty_list_stays_empty() -> None:
    assert [cut.keep(ranked(), 3) for cut in CUTS] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("cut", "path", "said"),
    [
        ({"how": "gaps"}, "how", "found 'gaps'; choices: fixed, ratio, gap, threshold. Did you mean 'gap'?"),
        (
            {"how": "ratio"},
            "ratio",
            "missing; how=ratio passes on what scores at least so much of the best. Set it, for example 0.5",
        ),
        ({"how": "ratio", "ratio": 1.5}, "ratio", "found 1.5; expected a number above 0, 1 at most"),
        ({"how": "gap", "ratio": 0.5}, "ratio", "found with how=gap; expected how=ratio, or leave it out"),
        ({"value": 0.5}, "value", "found with how=fixed; expected how=threshold, or leave it out"),
        (
            {"how": "threshold", "kind": "logit"},
            "value",
            "missing; how=threshold passes on what scores at least so much. Set it",
        ),
        (
            {"how": "threshold", "value": 0.5},
            "kind",
            "missing; 0.5 means another thing for each kind of score. Choices: bm25, cosine, dot, maxsim, logit, "
            "probability, rrf, weighted, ltr, graded",
        ),
        (
            {"how": "threshold", "value": 0.5, "kind": "logits"},
            "kind",
            "found 'logits'; choices: bm25, cosine, dot, maxsim, logit, probability, rrf, weighted, rank, ltr, graded. "
            "Did you mean 'logit'?",
        ),
        ({"how": "threshold", "value": float("inf"), "kind": "logit"}, "value", "found inf; expected a number"),
        ({"how": "gap", "min": 0}, "min", "found 0; expected a whole number from 1"),
        ({"min": 2}, "min", "found 2 with how=fixed, which passes on top_k; choices: ratio, gap, threshold"),
    ],
)
def test_a_wrong_cut_is_refused(cut: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}: {said}')}$"):
        Cut(**cut)


class Source:
    def __init__(self, score_kind: str, *score_kinds: str) -> None:
        self.score_kind = score_kind
        if score_kinds:
            self.score_kinds = score_kinds

    def retrieve(self, query: Any, top_k: int, call: Any) -> list[Any]:
        return []


def built(cut: Cut, *kinds: str) -> StageGraph:
    return StageGraph.of([StageSpec("dense", Source(*kinds), 9, cut=cut)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cut", "kind", "said"),
    [
        (
            Cut("gap"),
            "rank",
            "how: found 'gap', but the stage gives ranks, whose distances mean nothing; expected fixed",
        ),
        (
            Cut("ratio", ratio=0.5),
            "logit",
            "how: found 'ratio', but the stage's scores are of kind logit, which may be below 0. Kinds that a ratio "
            "means something on: bm25, graded, probability, rrf; choices: gap, threshold",
        ),
        (
            Cut("threshold", value=0.5, kind="probability"),
            "logit",
            "kind: found probability, but the stage's scores are of kind logit, where 0.5 means something else; "
            "expected kind=logit and a value of that kind",
        ),
    ],
)
def test_a_cut_on_scores_that_it_means_nothing_on_is_refused(cut: Cut, kind: str, said: str) -> None:
    with pytest.raises(PipelineError, match=f"^{re.escape(f'pipeline.stages.dense.cut.{said}')}$"):
        built(cut, kind)


@pytest.mark.parametrize("kind", sorted(NEVER_NEGATIVE))
def test_a_ratio_is_taken_where_scores_are_never_negative(kind: str) -> None:
    assert built(Cut("ratio", ratio=0.5), kind).result.cut.ratio == 0.5


def test_a_threshold_may_be_of_any_kind_that_the_model_can_turn_out_to_have() -> None:
    assert built(Cut("threshold", value=30, kind="dot"), "cosine", "cosine", "dot").result.cut.kind == "dot"
    with pytest.raises(
        PipelineError, match="of kind cosine or dot, where 30 means something else; expected kind=cosine"
    ):
        built(Cut("threshold", value=30, kind="logit"), "cosine", "cosine", "dot")
