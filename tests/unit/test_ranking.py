"""Order, ties, and lists that a stage scored in part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import ranking
from orchestrator.types import RankedList

INCOMING = ranking.ranked_from_pairs("bm25", [("a", 4.0), ("b", 3.0), ("c", 2.0), ("d", 1.0)], "bm25")


def partly(*scored: tuple[int, float]) -> RankedList:
    rows = np.array([row for row, _ in scored], dtype=np.intp)
    return ranking.partly_rescored("precise", INCOMING, rows, np.array([score for _, score in scored]), "logit")


def test_scored_rows_stand_first_and_the_rest_follows_as_it_came() -> None:
    ranked = partly((1, 0.5), (3, 0.9))
    assert ranked.doc_ids == ("d", "b", "a", "c")
    assert ranked.scores.tolist() == [0.9, 0.5, 4.0, 2.0]
    assert (ranked.n_scored, ranked.score_kind, ranked.tail) == (2, "logit", ((4, "bm25"),))
    assert [candidate.score_kind for candidate in ranked] == ["logit", "logit", "bm25", "bm25"]
    assert [candidate.scored for candidate in ranked] == [True, True, False, False]
    assert [sorted(candidate.scores) for candidate in ranked] == [["bm25", "precise"]] * 2 + [["bm25"]] * 2


def test_equal_scores_keep_the_order_that_came() -> None:
    assert partly((0, 1.0), (2, 1.0), (3, 1.0)).doc_ids == ("a", "c", "d", "b")


def test_all_rows_scored_is_a_whole_rerank() -> None:
    whole = partly((0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0))
    assert (whole.doc_ids, whole.n_scored, whole.tail) == (("d", "c", "b", "a"), 4, ())


def test_a_stage_that_scored_nothing_leaves_the_list_as_it_was() -> None:
    ranked = ranking.unscored(INCOMING)
    assert ranked.doc_ids == INCOMING.doc_ids
    assert (ranked.n_scored, ranked.score_kind, ranked.tail) == (0, "bm25", ((4, "bm25"),))
    assert set(ranked.stage_scores) == {"bm25"}
    assert len(ranking.unscored(RankedList((), np.empty(0), "bm25"))) == 0


def test_a_tail_may_have_parts_of_several_kinds() -> None:
    once = partly((1, 0.5), (3, 0.9))  # d b | a c
    twice = ranking.partly_rescored("last", once, np.array([1]), np.array([7.0]), "probability")
    assert twice.doc_ids == ("b", "d", "a", "c")
    assert twice.parts == ((1, "probability"), (2, "logit"), (4, "bm25"))
    assert [candidate.score_kind for candidate in twice] == ["probability", "logit", "bm25", "bm25"]


@pytest.mark.parametrize("top_k", range(5))
def test_a_head_keeps_the_parts_that_it_reaches(top_k: int) -> None:
    whole = ranking.partly_rescored("last", partly((1, 0.5), (3, 0.9)), np.array([1]), np.array([7.0]), "probability")
    head = whole.head(top_k)
    assert [candidate.score_kind for candidate in head] == [candidate.score_kind for candidate in whole][:top_k]
    assert [candidate.scored for candidate in head] == [candidate.scored for candidate in whole][:top_k]
    assert len(head) == top_k


@given(st.sets(st.integers(0, 3)), st.sets(st.integers(0, 3)), st.integers(0, 4))
def test_no_document_is_lost_or_doubled_and_every_row_has_its_own_score(
    first: set[int], second: set[int], top_k: int
) -> None:
    ranked = INCOMING
    for stage, kind, rows in (("one", "logit", first), ("two", "probability", second)):
        chosen = np.array(sorted(rows), dtype=np.intp)
        ranked = ranking.partly_rescored(stage, ranked, chosen, chosen * 1.5, kind)  # type: ignore[arg-type]
    assert sorted(ranked.doc_ids) == ["a", "b", "c", "d"]
    by_kind = {"probability": "two", "logit": "one", "bm25": "bm25"}
    for candidate in ranked.head(top_k):
        assert candidate.score == candidate.scores[by_kind[str(candidate.score_kind)]]


def test_a_missing_score_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scores of shape \(1,\) for 2 documents"):
        ranking.partly_rescored("s", INCOMING, np.array([0, 1]), np.array([1.0]), "logit")
    with pytest.raises(ValueError, match="returned NaN for document 'c'"):
        ranking.partly_rescored("s", INCOMING, np.array([0, 2]), np.array([1.0, np.nan]), "logit")
