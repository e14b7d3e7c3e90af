"""The circuit breaker: when it opens, whom it holds back, how it probes and closes."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import (
    CallCancelledError,
    CircuitOpenError,
    OutOfTimeError,
    PermanentError,
    RemoteError,
    TransientError,
)
from orchestrator.services.breaker import CircuitBreaker, breaker_of, forget
from orchestrator.services.remote import Patience, Remote
from orchestrator.types import Call

NAME = "model at http://host"
BUSY = TransientError(NAME, "answered 503", 503)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(NAME, failures=3, shortest_s=1.0, longest_s=60.0, clock=clock)


def end(breaker: CircuitBreaker, error: BaseException | None, remaining_s: float | None = None) -> str:
    """How a call that ends with `error` goes: `ended`, or `refused` by the breaker."""
    try:
        with breaker.guarded(remaining_s):
            if error is not None:
                raise error
    except CircuitOpenError:
        return "refused"
    except BaseException as raised:
        if raised is not error:
            raise
    return "ended"


def opened(breaker: CircuitBreaker, error: RemoteError = BUSY) -> None:
    for _ in range(3):
        assert end(breaker, error) == "ended"
    assert breaker.state == "open"


def late(had_s: float, answered: int = 0) -> OutOfTimeError:
    return OutOfTimeError(NAME, had_s, answered, 9)


def test_it_opens_after_failures_in_a_row_and_says_since_when_why_and_until_when(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    for outcome in (BUSY, BUSY, None, BUSY, BUSY):
        assert end(breaker, outcome) == "ended"
    assert breaker.state == "closed"
    assert end(breaker, BUSY) == "ended"
    clock.now += 0.6
    with pytest.raises(CircuitOpenError) as caught, breaker.guarded(None):
        pytest.fail("a call went through")
    error = caught.value
    assert (error.open_for_s, error.next_in_s, error.reason) == pytest.approx((0.6, 0.4, "answered 503"), abs=1e-9)
    assert str(error) == (
        f"{NAME}: not asked: left alone for 0.6 s now, as it failed again and again; tried next in 0.4 s. "
        "The last failure: answered 503"
    )
    assert isinstance(error, TransientError)


def test_one_probe_at_a_time_and_its_success_closes(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 1.0
    assert breaker.state == "half-open"
    refused = pytest.raises(CircuitOpenError, match="tried next now, by another call")
    with breaker.guarded(None), refused, breaker.guarded(None):
        pytest.fail("a second probe")
    assert breaker.state == "closed"
    for outcome in (BUSY, BUSY):
        end(breaker, outcome)
    assert breaker.state == "closed", "the failures before count no more"


def test_each_failed_probe_doubles_the_cool_down_up_to_the_longest(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    waits = []
    for _ in range(8):
        waits.append(breaker._next_at - clock.now)
        clock.now += waits[-1] - 1e-6
        assert end(breaker, BUSY) == "refused"
        clock.now += 1e-6
        assert end(breaker, BUSY) == "ended"
    assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])
    clock.now += 60
    end(breaker, None)
    opened(breaker)
    assert breaker._next_at - clock.now == pytest.approx(1.0), "a service that worked meanwhile begins anew"


@given(st.floats(0.75, 1.0))
def test_the_jitter_takes_off_at_most_a_quarter(share: float) -> None:
    clock = Clock()
    breaker = CircuitBreaker(NAME, clock=clock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "uniform", lambda low, high: low + (high - low) * (share - 0.75) * 4)
        opened(breaker)
    assert breaker._next_at - clock.now == pytest.approx(share)


@pytest.mark.parametrize(("asked_s", "waited_s"), [(0.2, 1.0), (30.0, 30.0), (1e9, 3600.0)])
def test_what_the_service_asks_for_is_the_least(
    asked_s: float, waited_s: float, breaker: CircuitBreaker, clock: Clock
) -> None:
    opened(breaker, TransientError(NAME, "answered 429", 429, asked_s))
    assert breaker._next_at - clock.now == pytest.approx(waited_s)


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_service_that_says_what_is_wrong_is_there(status: int, breaker: CircuitBreaker, clock: Clock) -> None:
    wrong = PermanentError(NAME, "answered", status)
    for _ in range(9):
        end(breaker, wrong)
    assert breaker.state == "closed"
    opened(breaker)
    clock.now += 1.0
    assert end(breaker, wrong) == "ended"
    assert breaker.state == "closed", "a wrong key must not hide behind an open breaker"


@pytest.mark.parametrize(
    "nothing", [CallCancelledError("nobody waits"), PermanentError(NAME, "no JSON"), KeyboardInterrupt(), OSError()]
)
def test_what_says_nothing_about_the_service_gives_the_probe_back(
    nothing: BaseException, breaker: CircuitBreaker, clock: Clock
) -> None:
    for _ in range(9):
        end(breaker, nothing)
    assert breaker.state == "closed"
    opened(breaker)
    clock.now += 1.0
    assert end(breaker, nothing) == "ended"
    assert breaker.state == "half-open"
    assert end(breaker, None) == "ended", "the next call has the right to probe"
    assert breaker.state == "closed"


def test_a_service_that_never_fits_the_time_costs_only_the_first_queries(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(3):
        assert end(breaker, late(0.3), 0.3) == "ended"
    assert end(breaker, late(0.3), 0.3) == "refused"
    assert end(breaker, late(0.5), 0.5) == "refused"
    assert end(breaker, None, 0.61) == "ended", "who has more than twice the time may succeed"
    assert end(breaker, None, None) == "ended"


def test_an_answer_that_took_longer_than_others_could_wait_does_not_close_for_them(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    for _ in range(3):
        end(breaker, late(0.3), 0.3)
    with breaker.guarded(None):
        clock.now += 0.4
    assert end(breaker, None, 0.3) == "refused"
    with breaker.guarded(None):
        clock.now += 0.2
    assert breaker.state == "closed", "they would have had this one"


def test_too_little_time_for_anybody_holds_back_only_as_little(breaker: CircuitBreaker) -> None:
    for _ in range(9):
        end(breaker, late(0.005), 0.005)
    assert end(breaker, None, 0.3) == "ended"


def test_a_slow_service_that_then_dies_holds_everybody_back(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        end(breaker, late(0.3), 0.3)
    for _ in range(3):
        assert end(breaker, BUSY, None) == "ended"
    assert end(breaker, None, None) == "refused"


def test_a_probe_with_little_time_tells_nothing_to_those_with_more(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 1.0
    assert end(breaker, late(0.01), 0.01) == "ended"
    assert end(breaker, late(0.01), 0.01) == "refused"
    assert end(breaker, None, 1.0) == "ended"
    assert breaker.state == "closed"


def test_a_call_of_which_a_part_was_answered_in_time_is_no_failure(breaker: CircuitBreaker) -> None:
    for _ in range(9):
        end(breaker, late(0.3, answered=2), 0.3)
    assert breaker.state == "closed"


def test_calls_that_were_under_way_when_it_opened_change_nothing(breaker: CircuitBreaker, clock: Clock) -> None:
    with breaker.guarded(None):
        opened(breaker)
        until = breaker._next_at
    assert breaker.state == "open"
    assert end(breaker, None) == "refused"
    assert breaker._next_at == until


def test_many_threads_send_one_probe(breaker: CircuitBreaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 1.0
    all_asked, told, lock = threading.Barrier(8), [], threading.Lock()

    def call() -> None:
        try:
            with breaker.guarded(None):
                all_asked.wait(5.0)
                outcome = "probe"
        except CircuitOpenError:
            all_asked.wait(5.0)
            outcome = "refused"
        with lock:
            told.append(outcome)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["probe"] + ["refused"] * 7
    assert breaker.state == "closed"


def failing(error: RemoteError) -> Callable[[], object]:
    async def request() -> None:
        raise error

    return request


def test_stages_on_one_service_share_a_breaker_and_other_services_do_not() -> None:
    patience = Patience(retries=0)
    one, same, other = Remote("m at http://a", patience), Remote("m at http://a", patience), Remote("m at b", patience)
    for remote in (one, same, one):
        with pytest.raises(TransientError, match="answered 503"):
            remote.run([failing(BUSY)], Call())  # type: ignore[list-item]
    with pytest.raises(CircuitOpenError):
        same.run([failing(BUSY)], Call())  # type: ignore[list-item]
    with pytest.raises(TransientError, match="answered 503"):
        other.run([failing(BUSY)], Call())  # type: ignore[list-item]
    forget()
    assert breaker_of("m at http://a").state == "closed"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_begins_with_closed_breakers_and_its_own_slots() -> None:
    async def fine() -> str:
        return "fine"

    remote = Remote("m at http://fork", Patience(retries=0, concurrency=1))
    remote.run([fine] * 3, Call())  # so many that one waits for a slot, on the parent's loop
    for _ in range(3):
        with pytest.raises(TransientError):
            remote.run([failing(BUSY)], Call())  # type: ignore[list-item]
    child = os.fork()
    if child == 0:
        try:
            code = 0 if remote.run([fine] * 3, Call(remaining_s=5.0)) == ["fine"] * 3 else 1
        except BaseException:  # noqa: BLE001 - whatever it was, the child must not run the other tests
            code = 2
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(CircuitOpenError):
        remote.run([fine], Call())
