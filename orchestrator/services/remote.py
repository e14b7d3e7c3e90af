"""Calls to remote models: one event loop for all, one deadline around the whole call, one policy of retries.

Over all calls of a service stands its circuit breaker, see `breaker.py`: one for each `service` and process.

A plugin gives coroutines that make one request each; what is the same for every service is here. Clients of plugins
make no retries of their own, so that an allowance is never spent behind the core's back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar
from urllib.parse import urlsplit

from orchestrator.errors import CallCancelledError, ConfigError, MalformedReplyError, OutOfTimeError, TransientError
from orchestrator.log import get_logger
from orchestrator.services.breaker import breaker_of
from orchestrator.services.loop import wait_for
from orchestrator.types import Call

log = get_logger()

T = TypeVar("T")
Request: TypeAlias = Callable[[], Awaitable[T]]
"""Makes one attempt at one request; raises TransientError where another attempt may help."""

_LONGEST_WAIT_S = 60.0
"""A service that asks for more is not waited for: an error that says so is worth more than a run that seems to hang."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a service is waited for, and how hard it is pressed.

    Attributes:
        timeout_s: one attempt, from connecting to the last byte of the reply.
        retries: further attempts after a transient error.
        concurrency: requests in flight at once, those of all threads together.
        backoff_s: longest wait before the first retry; twice as long before each next one.
    """

    timeout_s: float = 30.0
    retries: int = 3
    concurrency: int = 8
    backoff_s: float = 0.5

    def __post_init__(self) -> None:
        _check("timeout_s", self.timeout_s, self.timeout_s > 0, "a number above 0, in seconds")
        _check("retries", self.retries, isinstance(self.retries, int) and self.retries >= 0, "a whole number from 0")
        _check(
            "concurrency", self.concurrency, isinstance(self.concurrency, int) and self.concurrency >= 1, "1 or more"
        )
        _check("backoff_s", self.backoff_s, self.backoff_s >= 0, "a number from 0, in seconds")

    def wait_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Seconds to wait after failed attempt number `attempt`, from 1: what the service asks for, or a random part.

        Full jitter: uniform(0, backoff_s * 2^(attempt - 1)), of the variants compared in "Exponential Backoff And
        Jitter", AWS Architecture Blog 2015, the one with the fewest calls. It is added to what the service asks for,
        so that its clients do not come back all at once.
        """
        limit = min(self.backoff_s * 2 ** (attempt - 1), _LONGEST_WAIT_S)
        return (retry_after_s or 0.0) + random.uniform(0.0, limit)


def _check(name: str, value: object, is_good: bool, expected: str) -> None:
    if not is_good or isinstance(value, bool):
        raise ConfigError(name, f"found {value!r}; expected {expected}")


class Remote:
    """Runs requests to one service. Safe to use from several threads.

    Args:
        service: what messages call it: model and address, never a key. All of one name share a circuit breaker.
        patience: how long it is waited for.
    """

    def __init__(self, service: str, patience: Patience) -> None:
        self.service = service
        self.patience = patience
        self._free: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    def run(self, requests: Sequence[Request[T]], call: Call) -> list[T]:
        """What the requests give, in their order; the first ones are sent first.

        Without a budget each request has `timeout_s` and its retries. With one, `call.remaining_s` covers everything
        together. The first request that fails for good stops the others. Once the call is cancelled, nothing is
        waited for any more.

        Raises:
            OutOfTimeError: the budget ended first.
            CircuitOpenError: the service failed again and again, and is left alone for now.
            TransientError: no answer in time or none that can be used, all retries made.
            PermanentError: what a request raised; no retry is made.
            CallCancelledError: nobody waits for the call any more; its connections are closed.
        """
        if call.cancelled:
            raise CallCancelledError("the call was cancelled before it began")
        if not requests:
            return []
        remaining_s = call.remaining_s
        if remaining_s == 0:
            raise OutOfTimeError(self.service, 0.0)
        with breaker_of(self.service).guarded(remaining_s):
            return wait_for(self._all(requests, remaining_s), call)

    async def _all(self, requests: Sequence[Request[T]], remaining_s: float | None) -> list[T]:
        ends_at = None if remaining_s is None else asyncio.get_running_loop().time() + remaining_s
        tasks: list[asyncio.Task[T]] = []
        try:
            async with asyncio.timeout_at(ends_at), asyncio.TaskGroup() as group:
                tasks += [group.create_task(self._persist(request, ends_at)) for request in requests]
        except TimeoutError:
            answered = sum(not task.cancelled() and task.exception() is None for task in tasks)
            raise OutOfTimeError(self.service, remaining_s or 0.0, answered, len(tasks)) from None
        except BaseExceptionGroup as failed:
            # A wrong key beside a busy moment is a wrong key: only transient errors may be passed over.
            worst = next((error for error in failed.exceptions if not isinstance(error, TransientError)), None)
            error = worst or failed.exceptions[0]
            raise error from error.__cause__
        return [task.result() for task in tasks]

    async def _persist(self, request: Request[T], ends_at: float | None) -> T:
        attempt = 1
        while True:
            try:
                return await self._attempt(request)
            except MalformedReplyError:
                raise
            except TransientError as error:
                wait_s = self.patience.wait_s(attempt, error.retry_after_s)
                self._give_up(error, attempt, wait_s, ends_at)
                told = {"attempt": attempt, "wait_s": round(wait_s, 3), "reason": error.detail}
                log.debug("remote.retry", service=self.service, **told)
            await asyncio.sleep(wait_s)
            attempt += 1

    async def _attempt(self, request: Request[T]) -> T:
        async with self._slots():
            try:
                async with asyncio.timeout(self.patience.timeout_s):
                    return await request()
            except TimeoutError:
                message = f"no answer within {self.patience.timeout_s:g} s (timeout_s)"
                raise TransientError(self.service, message) from None

    def _slots(self) -> asyncio.Semaphore:
        """What lets `concurrency` requests through; a forked child has another loop, and so slots of its own."""
        loop = asyncio.get_running_loop()
        if self._free is None or self._free[0] is not loop:
            self._free = loop, asyncio.Semaphore(self.patience.concurrency)
        return self._free[1]

    def _give_up(self, error: TransientError, attempt: int, wait_s: float, ends_at: float | None) -> None:
        """Raise where another attempt is one too many, or would come too late."""
        reason = ""
        if attempt > self.patience.retries:
            reason = f"gave up after {attempt} attempt(s)"
        elif (error.retry_after_s or 0.0) > _LONGEST_WAIT_S:
            reason = f"it asks to be left alone for {error.retry_after_s:g} s; at most {_LONGEST_WAIT_S:g} s are waited"
        elif ends_at is not None and asyncio.get_running_loop().time() + wait_s >= ends_at:
            reason = f"no time is left for another attempt in {wait_s:.2g} s"
        if reason:
            detail = f"{error.detail}; {reason}"
            raise TransientError(self.service, detail, error.status, error.retry_after_s) from error


def split(sizes: Sequence[float], max_items: int, max_size: float | None) -> list[range]:
    """Runs of items for one request each, in order: at most `max_items`, of at most `max_size` together.

    An item that alone is larger gets a request of its own.
    """
    parts: list[range] = []
    start, total = 0, 0.0
    for place, size in enumerate(sizes):
        full = place - start >= max_items or (max_size is not None and total + size > max_size)
        if full and place > start:
            parts.append(range(start, place))
            start, total = place, 0.0
        total += size
    return [*parts, range(start, len(sizes))] if sizes else []


def checked_url(url: str) -> str:
    """`url` without a slash at the end.

    Raises:
        ConfigError: it is no http or https address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("base_url", f"found '{url}'; expected an address such as http://localhost:8080/v1")
    if parts.username or parts.password:
        raise ConfigError("base_url", f"found a name or password before {parts.hostname}; a key belongs in `api_key`")
    return url.rstrip("/")


def address(url: str) -> str:
    """`url` as messages show it: without a password, and without what follows a question mark."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
