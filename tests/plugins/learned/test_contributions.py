"""What each feature added to a score: exact for trees, weight x centred value for a sum, and it sums to the score."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest

from orchestrator.plugins.learned.boosting import LambdaMart
from orchestrator.plugins.learned.linear import LinearRanker, standardised
from orchestrator.plugins.learned.parameters import Parameters
from orchestrator.stage import no_progress
from orchestrator.types import Example

NAMES = ["bm25.score", "bm25.rank", "lists.rrf", "noise.constant"]


def examples(n: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        features = rng.normal(size=(12, 4)).astype(np.float32)
        features[:, 3] = 1.0
        features[rng.random(12) < 0.2, 1] = np.nan
        grades = (features[:, 0] + np.nan_to_num(features[:, 1]) > 1).astype(np.float32)
        grades[0] = 1
        made.append(Example(f"q{number}", tuple(f"d{row}" for row in range(12)), features, grades))
    return made


@pytest.fixture(scope="module")
def trees() -> LambdaMart:
    parameters = Parameters(rounds=20, early_stopping_rounds=20, learning_rate=0.3, max_depth=3)
    return LambdaMart.fit(examples(60, 1), examples(20, 2), NAMES, parameters, no_progress)[0]


def test_they_sum_to_the_score_of_the_trees(trees: LambdaMart) -> None:
    rows = examples(1, 9)[0].features
    found = trees.contributions(rows)
    assert found.shape == (12, 5)
    np.testing.assert_allclose(found.sum(axis=1), trees.predict(rows), atol=1e-5)
    assert np.ptp(found[:, -1]) == 0, "every score starts at one place"
    np.testing.assert_array_equal(found[:, 3], 0)
    assert np.abs(found[:, 0]).mean() > 0.01
    assert trees.contributions(rows[:0]).shape == (0, 5)


def test_they_are_the_shapley_values_of_the_trees() -> None:
    """By the definition: the mean over all orders of what a feature adds to the expected score of the trees."""
    parameters = Parameters(rounds=1, early_stopping_rounds=1, max_depth=2, subsample=1.0, column_share=1.0)
    model = LambdaMart.fit(examples(60, 1), examples(20, 2), NAMES, parameters, no_progress)[0]
    (dumped,) = model._booster.get_dump(dump_format="json", with_stats=True)
    row = examples(1, 9)[0].features[0]

    def expected(node: dict[str, Any], known: frozenset[int]) -> float:
        if "leaf" in node:
            return float(node["leaf"])
        children = {child["nodeid"]: child for child in node["children"]}
        yes, no, missing = (children[node[side]] for side in ("yes", "no", "missing"))
        column = int(node["split"].removeprefix("f"))
        if column in known:
            side = missing if np.isnan(row[column]) else yes if row[column] < node["split_condition"] else no
            return expected(side, known)
        return sum(child["cover"] * expected(child, known) for child in (yes, no)) / node["cover"]

    tree = json.loads(dumped)
    shapley = np.zeros(4)
    for order in itertools.permutations(range(4)):
        for place, column in enumerate(order):
            before = frozenset(order[:place])
            shapley[column] += (expected(tree, before | {column}) - expected(tree, before)) / math.factorial(4)
    np.testing.assert_allclose(model.contributions(row[None, :])[0, :4], shapley, atol=1e-5)


def test_those_of_a_sum_are_weight_times_centred_value() -> None:
    model = LinearRanker([0, 2], np.array([2.0, -1.0]), ["bm25.score", "lists.rrf"])
    rows = examples(1, 9)[0].features
    found = model.contributions(rows)
    np.testing.assert_allclose(found[:, 0], 2 * (rows[:, 0] - rows[:, 0].mean()) / rows[:, 0].std(), rtol=1e-4)
    np.testing.assert_allclose(found[:, 2], -standardised(rows[:, [2]])[:, 0])
    np.testing.assert_array_equal(found[:, [1, 3, 4]], 0)
    np.testing.assert_allclose(found.sum(axis=1), model.predict(rows), atol=1e-12)
    assert model.contributions(rows[:0]).shape == (0, 5)
