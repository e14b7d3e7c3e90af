"""The inner half of nested cross-validation: what is tried, on which queries, and which is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import ConfigError
from orchestrator.evaluation.measures import Measures
from orchestrator.learning.model_search import Exam, Search, choose
from orchestrator.learning.training import Pool, Split
from orchestrator.stage import Fitted, Json, Progress, no_progress
from orchestrator.types import Example, Vectors

GRIDS: Any = ({"depth": [1, 2, 3], "rate": [0.1, 0.2]}, {"model": ["linear"]})
GIVEN: dict[str, Json] = {"depth": 2, "rate": 0.1}


def test_the_options_given_come_first_and_each_combination_once() -> None:
    every = Search(99, 2, GRIDS).candidates(GIVEN, seed=1)
    assert every[0] == GIVEN
    assert len(every) == 2 * 3 + 1
    assert {"depth": 2, "rate": 0.1, "model": "linear"} in every
    few = Search(3, 2, GRIDS).candidates(GIVEN, seed=1)
    assert few == every[:3]
    assert few != Search(3, 2, GRIDS).candidates(GIVEN, seed=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((-1, 2, ()), "rounds: found -1; expected a whole number from 0"),
        ((3, 1, ()), "folds: found 1; expected a whole number from 2"),
        ((3, 2, ({"depth": 3},)), r"grids\[0\]\.depth: found 3; expected a list of values to try"),
    ],
)
def test_mistakes_are_named(values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        Search(*values)


class Signed:
    """Scores by one feature, the way up that its option says; keeps the ids of the queries that it saw."""

    def __init__(self) -> None:
        self.saw: set[str] = set()
        self.sign = 0

    def fit(
        self, train: Sequence[Example], validation: Sequence[Example], options: Mapping[str, Json], progress: Progress
    ) -> Fitted:
        self.saw |= {example.query_id for example in (*train, *validation)}
        self.sign = int(options["sign"])  # type: ignore[call-overload]
        return Fitted(1, 0.0, {})

    def predict(self, features: Vectors) -> np.ndarray:
        return self.sign * features[:, 0]


def test_inner_folds_choose_and_queries_held_out_have_no_part_in_it() -> None:
    ids = [f"q{n}" for n in range(30)]
    rng = np.random.default_rng(1)
    pool = Pool()
    for key in ids:
        features = rng.normal(size=(6, 1)).astype(np.float32)
        grades = (features[:, 0] == features[:, 0].max()).astype(np.float32)
        pool.examples[key] = Example(key, tuple(f"{key}-{row}" for row in range(6)), features, grades)
    qrels = {key: {example.doc_ids[int(example.grades.argmax())]: 1} for key, example in pool.examples.items()}
    split, stage = Split(tuple(ids[:16]), tuple(ids[16:20]), tuple(ids[20:])), Signed()
    exam = Exam(qrels, Measures(["RR@10"]), 100, None, 0.2, {key: key for key in ids}, seed=3)
    search = Search(3, 4, ({"sign": [1, 0]},))
    choice = choose(stage, pool, split, {"sign": -1}, search, exam, no_progress)  # type: ignore[arg-type]
    assert choice.options == {"sign": 1}
    assert choice.changed == {"sign": 1}
    assert (choice.quality, choice.tried) == (1.0, 3)
    assert choice.given_quality < 0.5
    assert choice.words.startswith("sign 1 (1.0000, those given 0.")
    assert stage.saw == set(ids[:20])
