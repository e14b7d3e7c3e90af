"""Monotone constraints: what each feature means, what a map says, and that predictions keep to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orchestrator.errors import ConfigError
from orchestrator.plugins.learned.boosting import LambdaMart
from orchestrator.plugins.learned.features import feature_names
from orchestrator.plugins.learned.monotone import directions, setting
from orchestrator.plugins.learned.parameters import Parameters
from orchestrator.plugins.learned.ranker import learner_of
from orchestrator.stage import no_progress
from orchestrator.types import Example

NAMES = ["bm25.score", "bm25.rank", "body.length"]


def humped(n_queries: int = 60, seed: int = 3) -> list[Example]:
    """Thirty candidates a query; those of a middling score and a middling rank are relevant, as no direction has it."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n_queries):
        features = rng.uniform(0, 10, size=(30, 3)).astype(np.float32)
        grades = ((np.abs(features[:, 0] - 5) < 2) & (np.abs(features[:, 1] - 5) < 3)).astype(np.float32)
        made.append(Example(f"q{number}", tuple(f"d{row}" for row in range(30)), features, grades))
    return made


def fitted(monotone: Any) -> LambdaMart:
    parameters = Parameters(rounds=40, early_stopping_rounds=40, learning_rate=0.3, max_depth=4, monotone=monotone)
    return LambdaMart.fit(humped(), humped(20, seed=4), NAMES, parameters, no_progress)[0]


def steps(model: LambdaMart, column: int) -> np.ndarray:
    """Differences of the score while one feature rises and the others stand still: float64 [n_rows, n_steps]."""
    rows, values = humped(1, seed=5)[0].features, np.linspace(0, 10, 60, dtype=np.float32)
    scores = []
    for value in values:
        moved = rows.copy()
        moved[:, column] = value
        scores.append(model.predict(moved))
    return np.diff(np.stack(scores, axis=1), axis=1)


def test_a_score_only_lifts_and_a_rank_only_lowers() -> None:
    free, bound = fitted("off"), fitted("auto")
    assert (steps(free, 0) < 0).any(), "without constraints it learns the hump"
    assert (steps(free, 1) > 0).any()
    assert (steps(bound, 0) >= 0).all()
    assert (steps(bound, 1) <= 0).all()
    assert (steps(bound, 0) > 0).any(), "and it still uses the feature"


def test_a_map_binds_what_it_names() -> None:
    model = fitted({"bm25.rank": -1})
    assert (steps(model, 1) <= 0).all()
    assert (steps(model, 0) < 0).any()


def test_directions_follow_from_what_features_mean() -> None:
    names = feature_names(["bm25", "dense"], with_cosine=True)
    found = dict(zip(names, directions(names, "auto"), strict=True))
    assert found["dense.score"] == found["bm25.reciprocal_rank"] == found["lists.rrf"] == found["lists.count"] == 1
    assert found["bm25.rank"] == found["bm25.missing"] == found["title.distance"] == found["body.first"] == -1
    assert found["body.window"] == 1, "matched terms per token of the window: more is better"
    assert found["body.length"] == found["query.idf_max"] == found["query.terms"] == 0
    assert found["text.rarest"] == found["vectors.cosine"] == found["vectors.cosine_normalised"] == 1
    assert directions(names, "off") == [0] * len(names)


def test_the_longest_beginning_counts() -> None:
    names = ["title.bm25", "title.length", "titles.bm25", "body.bm25"]
    assert directions(names, {"title": 1, "title.length": -1}) == [1, -1, 0, 0]


@pytest.mark.parametrize(("given", "found"), [(False, "off"), ("off", "off"), ("auto", "auto"), ({"a": 1}, {"a": 1})])
def test_off_is_a_boolean_in_yaml(given: object, found: object) -> None:
    assert setting(given) == found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "monotone: found True; expected auto, off, or a map of features"),
        ("up", "monotone: found 'up'; expected auto, off"),
        ({"bm25.score": 2}, r"monotone\.bm25\.score: found 2; expected 1, -1 or 0"),
        ({"bm25.score": True}, r"monotone\.bm25\.score: found True; expected 1, -1 or 0"),
        ({"bm26": 1}, r"monotone\.bm26: no feature begins so; for example: bm25\.score\. Did you mean 'bm25'"),
    ],
)
def test_mistakes_are_named_before_anything_is_collected(value: object, message: str) -> None:
    options: dict[str, Any] = {"monotone": value}
    with pytest.raises(ConfigError, match=f"^{message}"):
        learner_of(options).check(options, NAMES)
