"""Figures of agreement between two ways to score, from scores made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from orchestrator.models.agreement import compare


def test_equal_scores_agree_wholly() -> None:
    scores = np.random.default_rng(3).normal(size=(4, 12))
    figures = compare(scores, scores.copy())
    assert figures["order"] == figures["spearman"] == figures["top_5"] == pytest.approx(1)
    assert figures["max_difference"] == 0
    assert figures["pairs"] == 48


def test_only_clear_differences_count_within_a_question() -> None:
    exact = np.array([[0.0, 0.01, 10.0, 20.0], [1000.0, 1000.01, 1010.0, 1020.0]])
    other = exact.copy()
    other[:, [0, 1]] = other[:, [1, 0]]  # nearly tied: no fault
    figures = compare(exact, other)
    assert figures["order"] == 1
    assert figures["compared"] == 2 * (6 - 1)  # of six pairs of four documents, all but the tied one
    other[0, [2, 3]] = other[0, [3, 2]]
    assert compare(exact, other)["order"] == 9 / 10


def test_figures_are_the_formulas() -> None:
    rng = np.random.default_rng(5)
    exact = rng.normal(size=(3, 12)) + np.array([[0.0], [5.0], [-5.0]])
    other = exact + 0.5 * rng.normal(size=exact.shape)
    figures = compare(exact, other)
    each = [spearmanr(one, two).statistic for one, two in zip(exact, other, strict=True)]
    assert figures["spearman"] == pytest.approx(np.mean(each))
    spread = np.sqrt(exact.var(axis=1).mean())
    assert figures["max_difference"] == pytest.approx(np.abs(exact - other).max() / spread)
    best = [len(set(np.argsort(-a)[:5]) & set(np.argsort(-b)[:5])) / 5 for a, b in zip(exact, other, strict=True)]
    assert figures["top_5"] == pytest.approx(np.mean(best))
    alike = counted = 0
    for one, two in zip(exact, other, strict=True):
        for i in range(12):
            for j in range(i):
                if abs(one[i] - one[j]) > 0.1 * spread:
                    counted += 1
                    alike += (one[i] > one[j]) == (two[i] > two[j])
    assert figures["order"] == pytest.approx(alike / counted)
    assert 0.5 < figures["order"] < 1


def test_constant_scores_prove_nothing() -> None:
    constant = np.full((2, 12), 3.0)
    figures = compare(constant, constant)
    assert figures["order"] == figures["spearman"] == figures["compared"] == 0
