"""Paired tests beside scipy's own and a full enumeration; Holm's correction by hand; what comparisons count."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from orchestrator.significance import compare, holm, paired_randomization, paired_t

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
