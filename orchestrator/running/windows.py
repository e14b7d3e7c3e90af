"""A long list ordered by a stage that sees a few documents at a time: windows slide from the tail to the head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Order: TypeAlias = Callable[[Sequence[T]], Sequence[int]]
"""The places within one window, best first, each once."""

WINDOW, STRIDE, PASSES = 20, 10, 1
"""As in RankGPT (Sun et al. 2023, "Is ChatGPT Good at Search?", section 3.2): windows of 20, 10 further each time."""


def spans(n: int, window: int, stride: int) -> Iterator[tuple[int, int]]:
    """(first, one past the last) of each window over `n` rows, the tail's first; the last one begins at 0.

    Each window shares `window - stride` rows with the next, so that a good document can climb all the way.

    Raises:
        ValueError: the stride is larger than the window, or one of them is no number from 1.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"has window={window}, stride={stride}; expected 1 <= stride <= window")
    end = n
    while end > 0:
        start = max(0, end - window)
        yield start, end
        if start == 0:
            return
        end -= stride


def order_by_windows(
    items: Sequence[T],
    window: int,
    stride: int,
    order: Order[T],
    passes: int = PASSES,
    done: Callable[[Sequence[int]], object] = len,
) -> list[int]:
    """Places in `items`, best first.

    A further pass goes over the order that the one before it left, from the tail again: one pass carries only
    `window - stride` documents all the way up. The passes end early when one moved nothing, and after the first when
    the whole list fits one window, where every document has been compared with every other.

    Args:
        items: in incoming order.
        window: how many are shown at once.
        stride: how far the window moves.
        order: the places within one window, best first, each once.
        passes: how often the windows go over the list, at most.
        done: told the places after each window.

    Raises:
        ValueError: `order` gave something else than each place once, or there is no pass.
    """
    if passes < 1:
        raise ValueError(f"has passes={passes}; expected a number from 1")
    places = list(range(len(items)))
    for _ in range(passes if len(items) > window else 1):
        before = list(places)
        for start, end in spans(len(items), window, stride):
            _order_window(items, places, start, end, order)
            done(places)
        if places == before:
            break
    return places


def n_windows(n: int, window: int, stride: int, passes: int = PASSES) -> int:
    """How many windows `order_by_windows` asks for at most, for `n` items."""
    return sum(1 for _ in spans(n, window, stride)) * (passes if n > window else 1)


def reach_of(n_windows: int, window: int, stride: int, passes: int = PASSES) -> int:
    """The longest list that `n_windows` windows can go over; 0 where not even one is left."""
    if n_windows < 1:
        return 0
    return window + max(0, n_windows // passes - 1) * stride


def _order_window(items: Sequence[T], places: list[int], start: int, end: int, order: Order[T]) -> None:
    """Put `places[start:end]` into the order that the window asks for."""
    shown = places[start:end]
    chosen = [int(place) for place in order([items[place] for place in shown])]
    if sorted(chosen) != list(range(len(shown))):
        raise ValueError(f"ordered {len(shown)} documents as {chosen}; expected each of 0 to {len(shown) - 1} once")
    places[start:end] = [shown[place] for place in chosen]
