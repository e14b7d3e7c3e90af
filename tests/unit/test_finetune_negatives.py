"""Which candidates serve as negatives: rules as pure functions, with expected values."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.errors import ConfigError
from orchestrator.finetune.negatives import Choice, Rules, choose, draw, threshold

IDS = ("a", "b", "c", "d", "e", "f")
SCORES = (10.0, 9.6, 9.4, 8.0, 7.0, 1.0)


def test_the_margin_leaves_alone_what_scores_near_the_relevant_document() -> None:
    found = choose("q", IDS, SCORES, {"a": 1}, Rules(skip=0, margin=0.95))
    # 0.95 * 10.0 = 9.5: b is above, c is not.
    assert found == Choice((), ("c", "d", "e", "f"), {"skip": 0, "margin": 1})


def test_the_best_unjudged_candidates_are_skipped() -> None:
    found = choose("q", IDS, SCORES, {"b": 1}, Rules(skip=2, margin=None))
    assert found == Choice((), ("d", "e", "f"), {"skip": 2, "margin": 0})


def test_skipping_comes_before_the_margin() -> None:
    found = choose("q", IDS, SCORES, {"c": 1}, Rules(skip=1, margin=0.95))
    # a is skipped; b scores above 0.95 * 9.4 = 8.93; d below.
    assert found == Choice((), ("d", "e", "f"), {"skip": 1, "margin": 1})


def test_the_best_scored_of_several_relevant_documents_sets_the_margin() -> None:
    found = choose("q", IDS, SCORES, {"a": 1, "f": 2}, Rules(skip=0, margin=0.9))
    assert found.unjudged == ("d", "e")
    assert found.dropped == {"skip": 0, "margin": 2}


def test_nothing_is_dropped_by_margin_where_no_relevant_document_was_found() -> None:
    found = choose("q", IDS, SCORES, {"z": 1}, Rules(skip=0, margin=0.95))
    assert found.unjudged == IDS


def test_documents_judged_irrelevant_are_kept_whatever_their_rank_and_score() -> None:
    found = choose("q", IDS, SCORES, {"d": 1, "a": 0, "far": 0, "b": -1}, Rules(skip=1, margin=0.5, depth=3))
    assert found.judged == ("a", "b", "far")
    assert found.unjudged == ()
    assert found.dropped == {"skip": 1, "margin": 0}


def test_a_query_is_never_its_own_negative() -> None:
    found = choose("c", IDS, SCORES, {"a": 1, "c": 0}, Rules(skip=0, margin=None))
    assert "c" not in found.judged + found.unjudged
    assert choose("c", IDS, SCORES, {"a": 1}, Rules(skip=1, margin=None)).unjudged == ("d", "e", "f")


def test_nothing_below_the_depth_is_taken() -> None:
    assert choose("q", IDS, SCORES, {"a": 1}, Rules(skip=0, margin=None, depth=3)).unjudged == ("b", "c")


def test_chunks_go_by_the_judgements_of_their_documents() -> None:
    names = ("A", "A", "B", "B", "C", "C")
    found = choose("q", IDS, SCORES, {"A": 1, "C": 0}, Rules(skip=0, margin=0.95), names)
    assert found == Choice(("e", "f"), ("c", "d"), {"skip": 0, "margin": 0})


@pytest.mark.parametrize(
    ("positives", "margin", "expected"),
    [
        ([10.0, 4.0], 0.95, 9.5),
        ([-10.0], 0.95, -10.5),  # as far below a negative score, not above it
        ([0.0], 0.95, 0.0),
        ([], 0.95, float("inf")),
        ([10.0], None, float("inf")),
    ],
)
def test_the_threshold_is_a_share_of_the_best_positive(
    positives: list[float], margin: float | None, expected: float
) -> None:
    assert threshold(positives, Rules(margin=margin)) == pytest.approx(expected)


def test_judged_documents_are_drawn_before_unjudged_ones() -> None:
    choice = Choice(("j1", "j2"), ("u1", "u2", "u3", "u4"))
    drawn = draw(choice, 4, np.random.default_rng(1))
    assert drawn[:2] == ["j1", "j2"]
    assert set(drawn[2:]) <= set(choice.unjudged)
    assert draw(choice, 4, np.random.default_rng(1)) == drawn
    assert set(draw(choice, 1, np.random.default_rng(1))) <= set(choice.judged)
    assert draw(choice, 9, np.random.default_rng(1)) == [*choice.judged, *choice.unjudged]


def test_what_is_drawn_depends_on_the_seed() -> None:
    choice = Choice((), tuple(str(place) for place in range(100)))
    draws = {tuple(draw(choice, 5, np.random.default_rng(seed))) for seed in range(5)}
    assert len(draws) == 5


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"per_query": 0}, "per_query: found 0; expected a whole number from 1"),
        ({"skip": -1}, "skip: found -1; expected a whole number from 0"),
        ({"depth": 5, "skip": 5}, "depth: found 5 with skip 5; expected more than are skipped"),
        ({"margin": 0}, "margin: found 0; expected a number above 0, or null"),
        ({"margin": "x"}, "margin: found 'x'; expected a number above 0, or null"),
    ],
)
def test_wrong_rules_are_refused(rules: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Rules(**rules)
    assert str(caught.value) == message
