"""Contributions summed up: size, direction, which queries, several models as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from orchestrator.learning.contributions import Contributions, contributions_of, joined
from orchestrator.learning.training import Pool
from orchestrator.report.effects import effects_line, effects_table
from orchestrator.types import Example, Vectors

NAMES = ("lifts", "lowers", "idle", "either")


def contributions() -> Contributions:
    values = np.linspace(-1, 1, 21)
    features = np.stack([values, values, values, np.abs(values)], axis=1).astype(np.float32)
    features[:2, 0] = np.nan
    moved = np.stack([3 * values, -values, 0 * values, 0.1 * np.sign(values)], axis=1)
    return Contributions(NAMES, features, moved, 2)


def test_effects_are_ordered_by_their_mean_size_and_tell_the_direction() -> None:
    first, second, third, last = contributions().effects()
    mean = np.abs(np.linspace(-1, 1, 21)).mean()
    assert (first.feature, first.size, first.direction) == ("lifts", pytest.approx(3 * mean), pytest.approx(1))
    assert (second.feature, second.size, second.direction) == ("lowers", pytest.approx(mean), pytest.approx(-1))
    assert (third.feature, third.words) == ("either", "either way")
    assert (last.feature, last.size, last.direction, last.words) == ("idle", 0, 0, "")
    assert (first.words, second.words) == ("more lifts", "more lowers")


def test_models_of_several_folds_count_together() -> None:
    one = contributions()
    both = joined([one, None, one])
    assert both is not None
    assert (both.n_queries, len(both.values)) == (4, 42)
    assert [effect.size for effect in both.effects()] == pytest.approx([effect.size for effect in one.effects()])
    assert joined([None]) is None


class Doubles:
    """A stage whose one feature counts twice; keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def feature_names(self) -> Sequence[str]:
        return ["f"]

    def contributions(self, features: Vectors) -> np.ndarray:
        self.asked.append(float(features[0, 0]))
        return np.concatenate([2 * features, np.full((len(features), 1), 0.5)], axis=1)


def pool(n: int) -> Pool:
    rows = {f"q{k}": np.full((3, 1), k, dtype=np.float32) for k in range(n)}
    grades = np.zeros(3, dtype=np.float32)
    return Pool({key: Example(key, ("a", "b", "c"), features, grades) for key, features in rows.items()})


def test_queries_are_spread_evenly_and_only_those_asked_for() -> None:
    stage = Doubles()
    found = contributions_of(stage, pool(30), [f"q{k}" for k in range(10, 21)], 3)  # type: ignore[arg-type]
    assert stage.asked == [10, 15, 20]
    assert found is not None
    assert found.values[:, 0].tolist() == [20, 20, 20, 30, 30, 30, 40, 40, 40], "without the start of all scores"
    assert contributions_of(stage, pool(3), [], 3) is None  # type: ignore[arg-type]
    assert contributions_of(object(), pool(3), ["q1"], 3) is None  # type: ignore[arg-type]


def test_the_table_shows_gain_and_shap_side_by_side() -> None:
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as captured:
        console.print(effects_table(contributions(), {"lifts": 0.75, "lowers": 0.25}))
        console.print(effects_line(contributions()))
    text = " ".join(captured.get().split())
    assert "feature share of gain mean |SHAP| r" in text
    assert "lifts 0.750 1.5714 +1.00 more lifts" in text
    assert "idle" not in text, "what moved nothing is no row"
    assert "on the 21 candidates of 2 queries held out" in text
