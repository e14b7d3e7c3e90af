"""Lengths of questions and of the documents found for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.costs.lengths import Lengths
from orchestrator.errors import ConfigError

ROWS = st.lists(st.lists(st.integers(0, 2000), min_size=1, max_size=20), min_size=1, max_size=20)


@given(ROWS, st.integers(1, 25), st.floats(0, 1), st.one_of(st.none(), st.integers(1, 600)))
def test_documents_are_the_quantile_over_questions_of_the_mean_of_what_is_read(
    rows: list[list[int]], n: int, share: float, most: int | None
) -> None:
    means = [np.minimum(row[:n], np.inf if most is None else most).mean() for row in rows]
    found = Lengths((5,), rows).document(n, share, most)
    assert found == pytest.approx(np.quantile(means, share), abs=1e-9)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.floats(0, 1))
def test_questions_are_their_quantile(tokens: list[int], share: float) -> None:
    assert Lengths(tokens).question(share) == pytest.approx(np.quantile(tokens, share), abs=1e-9)


def test_even_lengths_are_the_same_at_every_share_and_depth() -> None:
    lengths = Lengths.even(12, 80)
    assert {lengths.question(share) for share in (0.0, 0.5, 0.95)} == {12}
    assert {lengths.document(n, share) for n in (1, 100) for share in (0.0, 0.95)} == {80}
    assert not lengths.are_known


def test_a_cut_shortens_every_document() -> None:
    assert Lengths((1, 2), ((10, 300), (500,))).cut(100).documents == [[10, 100], [100]]


def test_what_is_kept_is_what_comes_back() -> None:
    lengths = Lengths((1, 2), ((10, 300), (500,)))
    assert Lengths.of(lengths.as_json()).as_json() == lengths.as_json()


@pytest.mark.parametrize("data", [{}, {"questions": [], "documents": [[1]]}, {"questions": [1], "documents": [[]]}])
def test_lengths_of_nothing_are_refused(data: dict) -> None:
    with pytest.raises(ConfigError, match=r"^lengths: found .*expected questions and documents"):
        Lengths.of(data)
