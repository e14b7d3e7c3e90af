"""The shared loop: order, deadlines, retries, cancelling; and what an HTTP status means."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import (
    CallCancelledError,
    ConfigError,
    MalformedReplyError,
    PermanentError,
    RemoteError,
    TransientError,
)
from orchestrator.services.loop import run_on_loop
from orchestrator.services.remote import Patience, Remote, checked_url, split
from orchestrator.services.replies import json_reply, retry_after_s, status_error
from orchestrator.types import Call

FAST = Patience(timeout_s=5, retries=2, concurrency=4, backoff_s=0.001)


def remote(patience: Patience = FAST) -> Remote:
    return Remote("model at http://host", patience)


def answers(*outcomes: object) -> Callable[[], Awaitable[object]]:
    """A request whose first attempts end as told."""
    waiting = iter(outcomes)

    async def request() -> object:
        outcome = next(waiting)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return request


def busy(retry_after: float | None = None) -> TransientError:
    return TransientError("model at http://host", "answered 503", 503, retry_after)


async def hang() -> None:
    await asyncio.sleep(60)


def test_results_stand_in_the_order_of_the_requests() -> None:
    def request(place: int) -> Callable[[], Awaitable[int]]:
        async def slow_first() -> int:
            await asyncio.sleep(0.01 * (4 - place))
            return place

        return slow_first

    assert remote().run([request(place) for place in range(5)], Call()) == [0, 1, 2, 3, 4]
    assert remote().run([], Call()) == []


def test_a_transient_error_is_tried_again_and_a_permanent_one_is_not() -> None:
    assert remote().run([answers(busy(), busy(), "fine")], Call()) == ["fine"]
    with pytest.raises(TransientError, match=r"^model at http://host: answered 503; gave up after 3 attempt") as found:
        remote().run([answers(busy(), busy(), busy(), "too late")], Call())
    assert found.value.status == 503
    wrong = PermanentError("s", "answered 401", 401)
    with pytest.raises(PermanentError, match="answered 401"):
        remote().run([answers(wrong, "never reached")], Call())


def test_what_the_service_asks_for_is_waited_and_no_more_than_a_minute() -> None:
    started = time.perf_counter()
    assert remote().run([answers(busy(0.05), "fine")], Call()) == ["fine"]
    assert time.perf_counter() - started >= 0.05
    with pytest.raises(TransientError, match="asks to be left alone for 300 s; at most 60 s are waited"):
        remote().run([answers(busy(300.0), "fine")], Call())


def test_the_budget_covers_all_requests_and_their_retries() -> None:
    with pytest.raises(TransientError, match=r"no answer within the 0\.05 s that were left"):
        remote().run([answers("fine"), hang], Call(remaining_s=0.05))
    with pytest.raises(TransientError, match="no time is left for another attempt"):
        remote().run([answers(busy(2.0), "fine")], Call(remaining_s=1.0))
    assert remote().run([answers("fine")], Call(remaining_s=5.0)) == ["fine"]


def test_an_attempt_that_hangs_is_tried_again() -> None:
    attempts = itertools.count()

    async def hangs_once() -> str:
        if next(attempts) == 0:
            await hang()
        return "fine"

    patience = Patience(timeout_s=0.03, retries=1, backoff_s=0.001)
    assert remote(patience).run([hangs_once], Call()) == ["fine"]
    with pytest.raises(TransientError, match=r"no answer within 0\.03 s \(timeout_s\); gave up after 2 attempt"):
        remote(patience).run([hang], Call())


def test_the_first_failure_stops_the_other_requests() -> None:
    stopped = threading.Event()

    async def stoppable() -> None:
        try:
            await hang()
        finally:
            stopped.set()

    with pytest.raises(PermanentError):
        remote().run([stoppable, answers(PermanentError("s", "wrong key"))], Call())
    assert stopped.wait(1.0)


def test_a_cancelled_call_stops_its_requests() -> None:
    call, begun, stopped = Call(), threading.Event(), threading.Event()

    async def stoppable() -> None:
        begun.set()
        try:
            await hang()
        finally:
            stopped.set()

    def cancel_once_begun() -> None:
        begun.wait(5.0)
        call.cancel()

    canceller = threading.Thread(target=cancel_once_begun)
    canceller.start()
    with pytest.raises(CallCancelledError):
        remote().run([stoppable], call)
    canceller.join()
    assert stopped.wait(1.0)
    with pytest.raises(CallCancelledError):
        remote().run([answers("never sent")], call)


def test_no_more_requests_at_once_than_allowed_over_all_threads() -> None:
    at_once, most = 0, 0

    async def request() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.005)
        at_once -= 1

    service = remote(Patience(concurrency=3))
    threads = [threading.Thread(target=lambda: service.run([request] * 10, Call())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 3


def test_a_bug_in_a_request_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        remote().run([answers(ZeroDivisionError())], Call())


def test_a_caller_with_an_event_loop_of_its_own_can_call() -> None:
    async def caller() -> list[object]:
        return remote().run([answers("fine")], Call())

    assert asyncio.run(caller()) == ["fine"]


def test_a_coroutine_can_be_run_on_the_shared_loop() -> None:
    async def twice() -> int:
        return 2

    assert run_on_loop(twice()) == 2


@given(attempt=st.integers(1, 12), asked=st.none() | st.floats(0, 60))
def test_waits_grow_and_stay_between_what_is_asked_and_the_limit(attempt: int, asked: float | None) -> None:
    limit = min(0.5 * 2 ** (attempt - 1), 60.0)
    assert (asked or 0.0) <= Patience(backoff_s=0.5).wait_s(attempt, asked) <= (asked or 0.0) + limit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout_s": 0}, "timeout_s: found 0; expected a number above 0"),
        ({"retries": -1}, "retries: found -1"),
        ({"retries": 1.5}, r"retries: found 1\.5; expected a whole number"),
        ({"concurrency": 0}, "concurrency: found 0"),
        ({"timeout_s": float("nan")}, "timeout_s"),
    ],
)
def test_wrong_patience_is_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Patience(**arguments)  # type: ignore[arg-type]


@given(sizes=st.lists(st.integers(0, 50)), max_items=st.integers(1, 9), max_size=st.none() | st.integers(1, 90))
def test_split_keeps_order_and_limits(sizes: list[int], max_items: int, max_size: int | None) -> None:
    parts = split(sizes, max_items, max_size)
    assert [place for part in parts for place in part] == list(range(len(sizes)))
    for part in parts:
        assert 1 <= len(part) <= max_items
        assert max_size is None or len(part) == 1 or sum(sizes[place] for place in part) <= max_size


@pytest.mark.parametrize("status", [408, 424, 425, 429, 500, 502, 503, 504, 529])
def test_trying_again_may_help(status: int) -> None:
    assert isinstance(status_error("s", status, "", {}, None), TransientError)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (301, "points to http://elsewhere; check `base_url`"),
        (400, "check the model's name"),
        (401, "put it into the environment variable that `api_key` names"),
        (403, "check its permissions"),
        (404, "check `base_url`, the path and `name`"),
        (413, "send fewer or shorter texts"),
        (422, "check the number and the length of the texts"),
        (418, "trying again does not help"),
        (498, "the key is not valid"),
        (501, "trying again does not help"),
    ],
)
def test_trying_again_does_not_help_and_the_message_says_what_to_do(status: int, advice: str) -> None:
    error = status_error("s", status, "", {"location": "http://elsewhere"}, None)
    assert isinstance(error, PermanentError)
    assert advice.lower() in str(error).lower()
    assert f"answered {status}" in str(error)


def test_an_empty_account_is_not_tried_again_although_openai_says_429() -> None:
    body = '{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'
    error = status_error("s", 429, body, {"retry-after": "1"}, None)
    assert isinstance(error, PermanentError)
    assert "exceeded your current quota" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        '{"error": {"message": "too long: sk-secret"}}',
        '{"object": "error", "message": "too long: sk-secret"}',
        '{"detail": "too long: sk-secret"}',
        '{"error": "too long: sk-secret", "error_type": "Validation"}',
        "too long: sk-secret",
    ],
)
def test_the_services_own_words_are_quoted_without_the_key(body: str) -> None:
    assert "answered 422: too long: ***. The service" in str(status_error("s", 422, body, {}, "sk-secret"))


def test_a_key_at_the_cut_of_a_long_message_is_not_quoted_in_part() -> None:
    for length in range(285, 305):
        error = status_error("s", 400, f'{{"message": "{"x" * length}sk-secret"}}', {}, "sk-secret")
        assert "sk-" not in str(error)


def test_retry_after_is_read_in_every_form() -> None:
    assert retry_after_s({"retry-after": "7"}) == 7.0
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    in_a_minute = retry_after_s({"retry-after": formatdate(time.time() + 60, usegmt=True)})
    assert in_a_minute is not None
    assert 55 < in_a_minute <= 60
    assert retry_after_s({"retry-after": formatdate(0)}) == 0.0
    assert retry_after_s({}) is None
    assert retry_after_s({"retry-after": "soon"}) is None


def test_a_page_instead_of_json_is_named() -> None:
    with pytest.raises(
        MalformedReplyError, match=r"^s: the reply is not JSON .*'<html>Log in</html>'. Check `base_url`"
    ):
        json_reply("s", "<html>Log in</html>")
    assert issubclass(PermanentError, RemoteError)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="a key belongs in `api_key`") as caught:
        checked_url("https://me:s3cret@host/v1")
    assert "s3cret" not in str(caught.value)
