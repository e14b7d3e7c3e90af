"""Grades 0 to n are learned as grades; what they are worth is a choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orchestrator.errors import ConfigError
from orchestrator.plugins.learned.gains import gains
from orchestrator.plugins.learned.ranker import learner_of
from orchestrator.stage import no_progress
from orchestrator.types import Example

NAMES = ["bm25.score", "text.bm25"]
FAST: dict[str, Any] = {"rounds": 30, "early_stopping_rounds": 30, "learning_rate": 0.3, "max_depth": 3, "seed": 7}


def graded(n: int, seed: int, grades: tuple[float, ...] = (0, 1, 3)) -> list[Example]:
    """Eighteen candidates a query; their score says which of the grades they have."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        places = rng.integers(0, len(grades), size=18)
        places[0] = len(grades) - 1
        features = np.stack([places + rng.uniform(-0.3, 0.3, 18), rng.normal(size=18)], axis=1).astype(np.float32)
        worth = np.array(grades, dtype=np.float32)[places]
        made.append(Example(f"q{number}", tuple(f"d{row}" for row in range(18)), features, worth))
    return made


def fit(options: dict[str, Any], grades: tuple[float, ...] = (0, 1, 3)) -> Any:
    learner = learner_of(options)
    learner.check(options, NAMES)
    return learner.fit(graded(60, 1, grades), graded(20, 2, grades), NAMES, options, no_progress)[0]


@pytest.mark.parametrize("gain", ["linear", "exponential"])
@pytest.mark.parametrize("model", ["trees", "linear"])
def test_a_higher_grade_ends_higher(model: str, gain: str) -> None:
    options = {**FAST, "model": model, "gain": gain} if model == "trees" else {"model": model, "gain": gain}
    ranker = fit(options)
    query = np.array([[2, 0], [1, 0], [0, 0]], np.float32)
    best, middle, least = ranker.predict(query)
    assert best > middle > least


def test_linear_is_the_grade_and_exponential_two_to_its_power() -> None:
    grades = np.array([0, 1, 2, 3], np.float32)
    assert gains(grades, "linear").tolist() == [0, 1, 2, 3]
    assert gains(grades, "exponential").tolist() == [0, 2**1 - 1, 2**2 - 1, 2**3 - 1]


def test_the_gain_changes_what_is_learned() -> None:
    """One document of grade 3 beside six of grade 1: what one of them is worth decides the weights."""
    linear, exponential = (fit({"model": "linear", "gain": gain}) for gain in ("linear", "exponential"))
    assert linear.digest != exponential.digest
    assert fit({**FAST, "gain": "linear"}).digest != fit({**FAST, "gain": "exponential"}).digest


@pytest.mark.parametrize("model", ["trees", "linear"])
def test_grades_of_a_hundred_are_learned_by_their_size(model: str) -> None:
    options = {**FAST, "model": "trees"} if model == "trees" else {"model": "linear"}
    best, least = fit(options, (0, 40, 100)).predict(np.array([[2, 0], [0, 0]], np.float32))
    assert best > least


@pytest.mark.parametrize("options", [{**FAST, "gain": "exponential"}, {"model": "linear", "gain": "exponential"}])
def test_two_to_the_power_of_a_hundred_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        fit(options, (0, 40, 100))
    message = "gain: found exponential, and grades up to 100; expected whole grades of 31 at most, or gain=linear"
    assert str(error.value) == message


@pytest.mark.parametrize("model", ["trees", "linear"])
def test_an_unknown_gain_is_named(model: str) -> None:
    options = {"model": model, "gain": "exponental"}
    with pytest.raises(ConfigError, match=r"^gain: found 'exponental'; choices: linear, exponential\. Did you mean"):
        learner_of(options).check(options)
