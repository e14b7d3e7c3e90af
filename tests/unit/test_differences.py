"""Two systems query by query: the tally, and the queries that changed most."""

from __future__ import annotations

from orchestrator.evaluation.differences import TIE, most_changed, tally


def test_what_differs_by_less_than_rounding_is_tied() -> None:
    assert tally([0.2, 0.1, -0.3, 0.0, TIE / 2, -TIE / 2]) == (2, 3, 1)
    assert tally([]) == (0, 0, 0)


def test_the_queries_that_changed_most_stand_first_and_equal_ones_by_id() -> None:
    differences = {"d": 0.2, "c": 0.5, "b": 0.2, "a": -0.1, "e": -0.4, "f": TIE / 2}
    assert most_changed(differences, 2) == (["c", "b"], ["e", "a"])
    assert most_changed(differences, 9) == (["c", "b", "d"], ["e", "a"])
    assert most_changed(differences, 0) == ([], [])
