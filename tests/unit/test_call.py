"""What a call of a stage may use and tell: time that shrinks, cancelling, scores as they arrive."""

from __future__ import annotations

import threading
import time

import pytest

from orchestrator.types import Call


def test_the_time_that_is_left_shrinks_and_never_falls_below_zero() -> None:
    call = Call(remaining_s=0.05)
    first = call.remaining_s
    time.sleep(0.01)
    second = call.remaining_s
    assert first is not None
    assert second is not None
    assert second <= first - 0.01
    assert first <= 0.05
    time.sleep(0.05)
    assert call.remaining_s == 0.0
    assert Call().remaining_s is None


def test_cancelling_stops_what_is_in_flight_and_nothing_else() -> None:
    call, stopped = Call(), []
    with call.on_cancel(lambda: stopped.append("over")):
        pass
    with call.on_cancel(lambda: stopped.append("one")), call.on_cancel(lambda: stopped.append("two")):
        call.cancel()
        assert stopped == ["one", "two"]
    with call.on_cancel(lambda: stopped.append("late")):
        assert stopped == ["one", "two", "late"], "cancelled already: stopped at once"


def test_a_stop_that_fails_keeps_no_other_from_stopping(capsys: pytest.CaptureFixture[str]) -> None:
    call, stopped = Call(), threading.Event()
    with call.on_cancel(lambda: 1 / 0), call.on_cancel(stopped.set):
        call.cancel()
    assert stopped.is_set()
    assert "call.stop" in (told := capsys.readouterr().err)
    assert "ZeroDivisionError" in told


def test_a_stop_never_hits_what_comes_after_its_block() -> None:
    call, begun, may_end, stopped = Call(), threading.Event(), threading.Event(), []

    def slow_stop() -> None:
        begun.set()
        may_end.wait(5.0)
        stopped.append("stopped")

    with call.on_cancel(slow_stop):
        canceller = threading.Thread(target=call.cancel)
        canceller.start()
        begun.wait(5.0)
        threading.Timer(0.05, may_end.set).start()
    assert stopped == ["stopped"], "the block ended only after the stop"
    canceller.join()


def test_scores_are_told_as_they_arrive_from_any_thread() -> None:
    call = Call()
    threads = [threading.Thread(target=call.report, args=([row, row + 1], [row / 2, 1.5])) for row in range(0, 20, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert call.reported == {row: row / 2 if row % 2 == 0 else 1.5 for row in range(20)}
    call.reported.clear()
    assert len(call.reported) == 20
    with pytest.raises(ValueError, match="zip"):
        call.report([1, 2], [0.5])


def test_scores_that_are_not_to_be_kept_are_told_row_by_row() -> None:
    call = Call()
    call.unkept([3])
    call.unkept([1, 3])
    assert call.not_to_keep == {1, 3}
    whole = Call()
    whole.add(call)
    assert whole.not_to_keep == frozenset(), "rows of the part's own pairs"


def test_a_part_that_still_runs_is_counted_as_it_stands() -> None:
    part = Call()
    for kind in ("missing", "duplicate"):
        part.repair(kind)

    class Whole(Call):
        def repair(self, kind: str, times: int = 1) -> None:
            part.repair(f"later than {kind}")  # as the part's own thread may
            super().repair(kind, times)

    whole = Whole()
    whole.add(part)
    assert whole.repairs == {"missing": 1, "duplicate": 1}
