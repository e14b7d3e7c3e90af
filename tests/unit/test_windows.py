"""Windows that slide from the tail to the head."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.running.windows import order_by_windows, spans


def test_windows_are_those_of_rankgpt() -> None:
    assert list(spans(100, 20, 10)) == [(start, start + 20) for start in range(80, -1, -10)]
    assert list(spans(25, 20, 10)) == [(5, 25), (0, 15)]
    assert list(spans(7, 20, 10)) == [(0, 7)]
    assert list(spans(0, 20, 10)) == []


@given(n=st.integers(0, 60), window=st.integers(1, 12), data=st.data())
def test_windows_cover_every_row_and_overlap(n: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    found = list(spans(n, window, stride))
    assert {row for start, end in found for row in range(start, end)} == set(range(n))
    assert all(1 <= end - start <= window for start, end in found)
    for (start, end), (before, before_end) in zip(found[1:], found, strict=False):
        assert end == before_end - stride
        assert start <= before


@given(values=st.lists(st.integers(), max_size=60), window=st.integers(2, 12), data=st.data())
def test_the_best_rise_to_the_top_and_nothing_is_lost(values: list[int], window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window - 1))
    places = order_by_windows(values, window, stride, lambda shown: sorted(range(len(shown)), key=lambda i: -shown[i]))
    assert sorted(places) == list(range(len(values)))
    climbed = window - stride  # so many fit the overlap and are carried from each window to the next
    assert [values[place] for place in places[:climbed]] == sorted(values, reverse=True)[:climbed]


@pytest.mark.parametrize("order", [[0, 0], [0], [0, 2], [1, 2]])
def test_an_order_that_is_none_is_refused(order: list[int]) -> None:
    with pytest.raises(ValueError, match=r"expected each of 0 to 1 once"):
        order_by_windows("ab", 2, 1, lambda shown: order)


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (5, 0), (5, 6)])
def test_impossible_windows_are_refused(window: int, stride: int) -> None:
    with pytest.raises(ValueError, match=r"expected 1 <= stride <= window"):
        list(spans(10, window, stride))


def by_value(shown: Sequence[int]) -> list[int]:
    return sorted(range(len(shown)), key=lambda place: -shown[place])


@given(values=st.lists(st.integers(), max_size=40), window=st.integers(2, 9), passes=st.integers(1, 8), data=st.data())
def test_every_pass_carries_more_of_the_best_to_the_top(
    values: list[int], window: int, passes: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window - 1))
    places = order_by_windows(values, window, stride, by_value, passes)
    climbed = passes * (window - stride)
    assert [values[place] for place in places[:climbed]] == sorted(values, reverse=True)[:climbed]


@pytest.mark.parametrize(
    ("values", "passes", "windows"),
    [
        ([1, 2, 3, 4, 5, 6], 1, 3),
        ([1, 2, 3, 4, 5, 6], 2, 6),
        ([6, 5, 4, 3, 2, 1], 5, 3),  # nothing moved: one pass
        ([1, 2, 3, 4, 5, 6], 50, 3 * 4),  # 6 4 5.. settle after three, and the fourth moves nothing
        ([1, 2, 3], 5, 1),  # one window has seen everything
        ([], 5, 0),
    ],
)
def test_passes_end_when_nothing_moves(values: list[int], passes: int, windows: int) -> None:
    asked = []

    def order(shown: Sequence[int]) -> list[int]:
        asked.append(shown)
        return by_value(shown)

    order_by_windows(values, 3, 2, order, passes)
    assert len(asked) == windows


def test_no_pass_is_refused() -> None:
    with pytest.raises(ValueError, match="passes=0; expected a number from 1"):
        order_by_windows([1], 2, 1, by_value, 0)
