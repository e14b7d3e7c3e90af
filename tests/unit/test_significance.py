"""Paired tests beside scipy's own and a full enumeration; Holm's correction by hand; what comparisons count."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from orchestrator.evaluation import significance
from orchestrator.evaluation.significance import (
    Pair,
    bootstrap,
    compare,
    compare_pairs,
    holm,
    paired_randomization,
    paired_t,
    randomization,
)

RNG = np.random.default_rng(3)


def test_the_t_test_is_that_of_two_paired_samples() -> None:
    a, b = RNG.normal(0.5, 0.2, 40), RNG.normal(0.4, 0.2, 40)
    assert paired_t(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_few_queries_are_enumerated_exactly() -> None:
    differences = np.array([0.3, -0.1, 0.2, 0.5, -0.05, 0.4])
    means = [np.mean(differences * signs) for signs in itertools.product((1, -1), repeat=6)]
    above = np.mean([mean >= differences.mean() - 1e-12 for mean in means])
    below = np.mean([mean <= differences.mean() + 1e-12 for mean in means])
    assert paired_randomization(differences) == pytest.approx(min(1, 2 * min(above, below)))


def test_many_queries_are_sampled_by_seed_and_agree_with_the_t_test() -> None:
    differences = RNG.normal(0.06, 0.3, 120)
    first, second = (paired_randomization(differences, seed=4) for _ in range(2))
    assert first == second
    assert first == pytest.approx(paired_t(differences), abs=0.02)
    assert paired_randomization(differences + 10) == pytest.approx(2 / (9_999 + 1))


@pytest.mark.parametrize("differences", [np.zeros(5), np.array([0.4]), np.empty(0)])
def test_nothing_to_tell_apart_is_no_difference(differences: np.ndarray) -> None:
    assert paired_t(differences) == paired_randomization(differences) == 1.0


def test_many_columns_are_tested_at_once_as_scipy_tests_each() -> None:
    differences = RNG.normal([0.0, 0.05, 0.1, 0.2], 0.3, (60, 4))
    found = randomization(differences)
    assert found == pytest.approx([scipys(column) for column in differences.T], abs=0.03)
    assert found.tolist() == [paired_randomization(column) for column in differences.T], "whatever stands beside it"
    few = differences[:9]
    assert randomization(few) == pytest.approx([scipys(column) for column in few.T]), "all 2^9 assignments"


def scipys(differences: np.ndarray) -> float:
    found = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=9_999, rng=5)
    return float(found.pvalue)


def test_columns_without_differences_and_differences_without_doubt() -> None:
    assert randomization(np.zeros((60, 2))).tolist() == [1.0, 1.0]
    assert randomization(np.full((60, 1), 0.1)).tolist() == [2 / (9_999 + 1)]
    assert randomization(np.zeros((60, 0))).tolist() == []


def test_thousands_of_queries_are_tested_too() -> None:
    differences = np.stack([np.zeros(1_100), np.full(1_100, 0.1)], axis=1)
    assert randomization(differences, resamples=99).tolist() == [1.0, 2 / (99 + 1)]


def test_the_order_of_the_queries_changes_nothing() -> None:
    ours, theirs = ({f"q{n}": value for n, value in enumerate(RNG.normal(0.5, 0.2, 40))} for _ in range(2))
    backwards = dict(reversed(theirs.items()))
    assert compare(ours, {"other": theirs}) == compare(dict(reversed(ours.items())), {"other": backwards})


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([3 * 0.01, 2 * 0.03, 2 * 0.03, 4 * 0.005])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_comparison_counts_wins_ties_losses_and_corrects_for_the_others() -> None:
    ours = {f"q{n}": 0.5 for n in range(12)}
    worse = {f"q{n}": 0.5 - 0.01 * (n + 1) for n in range(12)}
    mixed = {f"q{n}": 0.6 if n == 0 else 0.4 if n == 1 else 0.5 for n in range(12)}
    first, second = compare(ours, {"worse": worse, "mixed": mixed})
    assert (first.wins, first.ties, first.losses) == (12, 0, 0)
    assert first.difference == pytest.approx(0.01 * sum(range(1, 13)) / 12)
    assert first.p_randomization == pytest.approx(2 / 2**12)
    assert first.p_holm == pytest.approx(2 * 2 / 2**12)
    assert first.is_better
    assert (second.wins, second.ties, second.losses) == (1, 10, 1)
    assert not second.is_better
    assert not second.is_worse


def test_systems_over_other_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="expected the same"):
        compare({"q1": 1.0}, {"other": {"q2": 1.0}})


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    values = RNG.normal(0.5, 0.2, (60, 2))
    ours = bootstrap(values, seed=1)
    for column in range(2):
        theirs = stats.bootstrap((values[:, column],), np.mean, n_resamples=9_999, method="percentile", rng=2)
        assert ours[column] == pytest.approx(theirs.confidence_interval, abs=0.004)
    assert np.array_equal(ours, bootstrap(values, seed=1))
    assert not np.array_equal(ours, bootstrap(values, seed=2))


def test_the_interval_does_not_depend_on_how_many_samples_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = RNG.normal(0.5, 0.2, (50, 1))
    at_once = bootstrap(values, resamples=500, seed=1)
    monkeypatch.setattr(significance, "_DRAWN_AT_ONCE", 50 * 7)
    np.testing.assert_allclose(at_once, bootstrap(values, resamples=500, seed=1), rtol=1e-12)


def test_values_that_are_all_equal_have_an_interval_of_no_width() -> None:
    assert bootstrap(np.full((7, 1), 0.25)).tolist() == [[0.25, 0.25]]
    assert bootstrap(np.array([[0.1, 0.9]])).tolist() == [[0.1, 0.1], [0.9, 0.9]]


def test_a_comparison_has_the_interval_of_its_difference() -> None:
    ours = {f"q{n}": 0.5 + 0.01 * n for n in range(30)}
    (found,) = compare(ours, {"other": dict.fromkeys(ours, 0.5)})
    low, high = found.interval
    assert 0 < low < found.difference < high


def test_pairs_of_different_systems_are_corrected_together() -> None:
    better, same = np.full(12, 0.6), np.full(12, 0.5)
    first, second = compare_pairs([Pair("a", better, same - np.arange(12) / 100), Pair("b", same, same)])
    assert (first.other, second.other) == ("a", "b")
    assert first.p_holm == pytest.approx(2 * first.p_randomization)
    assert second.p_holm == 1.0
    assert compare_pairs([]) == []
