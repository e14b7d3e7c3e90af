"""Maximal marginal relevance against a direct reading of its formula."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.plugins.rerank.mmr import MMRRerank, marginal_relevance
from orchestrator.ranking import rescored, unscored
from orchestrator.testing import ListRerankContract, ranked
from orchestrator.types import Call, Document, Query, RankedList


class LengthEmbed:
    """Vectors by the length of a text."""

    dim = 2
    similarity = "cosine"
    model_id = "length"

    def load(self) -> None: ...

    def embed(self, texts: Any, *, kind: str, call: Call) -> np.ndarray:
        return np.array([[len(text) % 5, 1] for text in texts], np.float32)


def call_with(vectors: dict[str, tuple[float, float]]) -> Call:
    return Call(
        documents={
            doc_id: Document(doc_id, "", vector=np.array(vector, np.float32)) for doc_id, vector in vectors.items()
        }
    )


def by_formula(relevance: list[float], vectors: np.ndarray, diversity: float) -> list[int]:
    """Carbonell and Goldstein's loop, written down as the paper has it."""
    picked: list[int] = []
    while len(picked) < len(relevance):
        left = [place for place in range(len(relevance)) if place not in picked]
        value = {
            d: (1 - diversity) * relevance[d]
            - diversity * max((max(0.0, float(vectors[d] @ vectors[p])) for p in picked), default=0.0)
            for d in left
        }
        picked.append(max(left, key=lambda d: (value[d], -d)))
    return picked


class TestContract(ListRerankContract):
    def make(self) -> MMRRerank:
        return MMRRerank(LengthEmbed())


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=9),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_order_is_the_papers(corners: list[tuple[int, int]], diversity: float) -> None:
    vectors = np.array(corners, np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    relevance = np.linspace(1, 0, len(corners))
    values = marginal_relevance(relevance, vectors, diversity)
    expected = by_formula(relevance.tolist(), vectors, diversity)
    # What is picked later never has a higher value: so the core, which sorts by score, keeps the order of the picks.
    assert all(values[a] >= values[b] - 1e-6 for a, b in itertools.pairwise(expected))
    if len({round(value, 5) for value in values.tolist()}) == len(values):
        assert np.argsort(-values, kind="stable").tolist() == expected


def reordered(stage: MMRRerank, listed: RankedList, call: Call, query: Query | None = None) -> tuple[str, ...]:
    scores = stage.rescore(query or Query("q", "x"), listed, call)
    return rescored("mmr", listed, scores, stage.score_kind).doc_ids


def test_a_near_copy_makes_room_for_something_else() -> None:
    listed = ranked(["first", "copy", "other"], [3.0, 2.9, 2.0])
    call = call_with({"first": (1, 0), "copy": (1, 0.01), "other": (0, 1)})
    assert reordered(MMRRerank(LengthEmbed(), diversity=0.5), listed, call) == ("first", "other", "copy")
    assert reordered(MMRRerank(LengthEmbed(), diversity=0.0), listed, call) == ("first", "copy", "other")


def test_after_a_stage_that_did_not_run_relevance_is_that_of_the_one_before() -> None:
    listed = ranked(["first", "copy", "other"], [3.0, 2.5, 2.0])
    call = call_with({"first": (1, 0), "copy": (1, 0.01), "other": (0, 1)})
    stage = MMRRerank(LengthEmbed(), diversity=0.3)
    assert reordered(stage, unscored(listed), call) == reordered(stage, listed, call) == ("first", "copy", "other")


def test_scores_are_the_values_of_the_formula() -> None:
    listed = ranked(["first", "copy", "other"], [3.0, 2.5, 2.0])
    call = call_with({"first": (1, 0), "copy": (1, 1), "other": (0, 1)})
    scores = MMRRerank(LengthEmbed(), diversity=0.4).rescore(Query("q", "x"), listed, call)
    half = 0.5**0.5  # cosine of 45 degrees
    np.testing.assert_allclose(scores, [0.6 * 1.0, 0.6 * 0.5 - 0.4 * half, 0.6 * 0.0 - 0.4 * half], atol=1e-6)


def test_relevance_may_be_the_cosine_to_the_query() -> None:
    listed = ranked(["a", "b"], [2.0, 1.0])
    query = Query("q", "x", vector=np.array([0, 1], np.float32))
    call = call_with({"a": (1, 0), "b": (0, 1)})
    assert reordered(MMRRerank(LengthEmbed(), relevance="cosine"), listed, call, query) == ("b", "a")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"diversity": 1.5}, "found 1.5; expected a number from 0 to 1"),
        ({"diversity": True}, "found True"),
        ({"relevance": "minmax"}, "found 'minmax'; choices: min_max, z_score, rank"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        MMRRerank(LengthEmbed(), **arguments)
