"""Queries that a stage before learned from: refused, left out, or allowed."""

from __future__ import annotations

import pytest

from orchestrator.errors import ConfigError
from orchestrator.learning.seen import LEAST, without_seen
from orchestrator.learning.training_queries import TrainingQueries
from orchestrator.types import Query

LEARN = tuple(f"q{n}" for n in range(50))
TEST = ("t1", "t2")


def topics(*, test: tuple[str, ...] = ()) -> TrainingQueries:
    queries = tuple(Query(key, f"what is {key}?") for key in (*LEARN, *test))
    return TrainingQueries(queries, {query.query_id: {"d": 1} for query in queries}, LEARN, test, "50 of 50 queries")


SEEN = {"fused": frozenset(LEARN[:30]), "dense": frozenset(LEARN[20:30]), "sparse": frozenset[str]()}


def test_they_are_refused_with_what_can_be_done() -> None:
    with pytest.raises(ConfigError) as error:
        without_seen(topics(), SEEN, "refuse")
    text = str(error.value)
    assert text.startswith("task.seen: found refuse, and stages that this one learns from learned from these queries")
    assert "themselves: 'fused' from 30, 'dense' from 10 of 50." in text
    assert "seen=drop (leaves 20 to learn from)" in text
    assert "seen=allow (the verdict is then too kind)" in text
    assert "sparse" not in text


def test_nothing_seen_changes_nothing() -> None:
    for how in ("refuse", "drop", "allow"):
        assert without_seen(topics(), {"fused": frozenset()}, how) == topics()
    assert without_seen(topics(), SEEN, "allow") == topics()


def test_they_are_left_out_where_enough_remain() -> None:
    kept = without_seen(topics(test=TEST), {"fused": frozenset({*LEARN[:30], "t1"})}, "drop")
    assert kept.learn == LEARN[30:]
    assert kept.test == ("t2",)
    assert [query.query_id for query in kept.queries] == [*LEARN[30:], "t2"]
    assert kept.told.endswith(
        "(31 that stage 'fused' learned from were left out: 20 to learn from and 1 for the verdict)"
    )


@pytest.mark.parametrize(
    ("seen", "left"),
    [
        (LEARN[: 50 - LEAST + 1], f"would leave {LEAST - 1} to learn from and 2 for the verdict, too few: {LEAST} are"),
        (TEST, "would leave 50 to learn from and 0 for the verdict, too few"),
    ],
)
def test_too_few_that_remain_are_refused(seen: tuple[str, ...], left: str) -> None:
    with pytest.raises(ConfigError) as error:
        without_seen(topics(test=TEST), {"fused": frozenset(seen)}, "drop")
    assert left in str(error.value)
