"""Allowances, and work that is left behind."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import CallCancelledError
from orchestrator.running.deadline import Clock, TimeIsUpError, Waited, allowance_s, within
from orchestrator.types import Call

SECONDS = st.floats(0, 100, allow_nan=False)


def test_where_all_fits_a_stage_may_take_what_later_ones_leave() -> None:
    assert allowance_s(1.0, 0.2, 0.1, 0.3, can_be_cut=True) == pytest.approx(1.0 - 0.1 - 0.3)


def test_where_not_all_fits_what_can_be_cut_is_shared_in_proportion() -> None:
    assert allowance_s(1.1, 1.0, 0.1, 3.0, can_be_cut=True) == pytest.approx((1.1 - 0.1) * 1.0 / (1.0 + 3.0))


def test_a_stage_that_cannot_be_cut_leaves_later_ones_a_quarter_at_most() -> None:
    assert allowance_s(1.0, 0.9, 0.0, 5.0, can_be_cut=False) == pytest.approx(1.0 - 0.25)
    assert allowance_s(1.0, 0.9, 0.0, 0.2, can_be_cut=False) == pytest.approx(1.0 - 0.2)


@given(SECONDS, SECONDS, SECONDS, SECONDS, st.booleans())
def test_an_allowance_never_is_more_than_what_is_left(
    left: float, own: float, fixed: float, flexible: float, can_be_cut: bool
) -> None:
    allowed = allowance_s(left, own, fixed, flexible, can_be_cut=can_be_cut)
    assert 0.0 <= allowed <= left
    assert allowed <= max(0.0, left - fixed)


def test_a_clock_without_a_budget_never_runs_out() -> None:
    assert Clock().left_s is None


def test_a_clock_stops_at_nothing_left() -> None:
    clock = Clock(0.01)
    assert clock.left_s is not None
    assert 0 < clock.left_s <= 0.01
    time.sleep(0.02)
    assert clock.left_s == 0.0
    assert clock.elapsed_s >= 0.02


def test_work_without_a_limit_runs_in_the_thread_that_asks() -> None:
    assert within(None, Call(), threading.get_ident) == threading.get_ident()


def test_work_that_is_done_in_time_gives_what_it_gives_and_raises_what_it_raises() -> None:
    assert within(10.0, Call(), lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(10.0, Call(), lambda: 1 // 0)


def test_work_that_takes_too_long_is_told_to_stop() -> None:
    call, stopped = Call(), threading.Event()

    def work() -> None:
        while not call.cancelled:
            time.sleep(0.001)
        stopped.set()
        raise CallCancelledError("stopped")

    with pytest.raises(TimeIsUpError):
        within(0.02, call, work)
    assert call.cancelled
    assert stopped.wait(10)


def test_work_that_hears_nothing_is_left_behind() -> None:
    free = threading.Event()
    started = time.perf_counter()
    with pytest.raises(TimeIsUpError):
        within(0.02, Call(), lambda: free.wait(30))
    assert time.perf_counter() - started < 15
    free.set()


def test_the_first_of_several_to_end_can_be_waited_for() -> None:
    ended, free = threading.Event(), threading.Event()
    slow = Waited(Call(), lambda: free.wait(30), ended)
    quick = Waited(Call(), lambda: 3, ended)
    assert ended.wait(30)
    assert quick.wait(30)
    assert quick.result() == 3
    assert not slow.is_done
    free.set()
    assert slow.wait(30)
    assert slow.seconds > 0
