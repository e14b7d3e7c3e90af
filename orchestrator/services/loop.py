"""The one event loop for calls to remote services, in a thread of its own, and what lives on it."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from orchestrator.errors import CallCancelledError
from orchestrator.types import Call

T = TypeVar("T")

_LOOK_S = 0.5
"""How soon Ctrl-C is noticed on Windows, where a wait without an end hears none."""


def wait_for(coroutine: Coroutine[Any, Any, T], call: Call) -> T:
    """What `coroutine` gives on the shared loop.

    Raises:
        CallCancelledError: nobody waits for the call any more; the coroutine is stopped.
    """
    future = asyncio.run_coroutine_threadsafe(coroutine, _SHARED.loop())
    try:
        with call.on_cancel(future.cancel):
            while not concurrent.futures.wait([future], timeout=_LOOK_S).done:
                pass
    except BaseException:
        future.cancel()  # closes the connections of requests in flight; for Ctrl-C in the thread that waits
        raise
    if future.cancelled():
        raise CallCancelledError("the call was cancelled; its requests are dropped")
    return future.result()


def run_on_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """What `coroutine` gives when run on the shared loop, for example the closing of a client that lives there."""
    return wait_for(coroutine, Call())


class OnLoop(Generic[T]):
    """A client that lives on the shared loop: made by `load()`, and anew in a forked child.

    The child has another loop, and must not write into connections that its parent has open. Safe to use from several
    threads.

    Args:
        service: what messages call the service.
        make: the client; sends nothing.
        close: closes it; runs on the loop.
    """

    def __init__(self, service: str, make: Callable[[], T], close: Callable[[T], Coroutine[Any, Any, None]]) -> None:
        self._service, self._make, self._close = service, make, close
        self._lock = threading.Lock()
        self._made: tuple[int, T] | None = None

    def load(self) -> None:
        """Make the client where there is none, with all that its first request would import."""
        if self._made is None:
            self._own()
            run_on_loop(_import_anyio())

    def get(self) -> T:
        """The client.

        Raises:
            RuntimeError: it was never made, or is closed.
        """
        if self._made is None:
            raise RuntimeError(f"{self._service}: call load() first")
        return self._own()

    def close(self) -> None:
        """Close its connections."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None and made[0] == os.getpid():
            run_on_loop(self._close(made[1]))

    def _own(self) -> T:
        """This process's client."""
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = os.getpid(), self._make()
            return self._made[1]


async def _import_anyio() -> None:
    """HTTP clients stand on anyio, which imports its half for asyncio late: some 30 ms that belong to no query."""
    with contextlib.suppress(ModuleNotFoundError):
        await importlib.import_module("anyio").sleep(0)


class _SharedLoop:
    """One event loop in a thread of its own, started at the first call, anew in a forked child."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        atexit.register(self.stop)

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                name = "orchestrator-remote"
                self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
                self._thread.start()
            return self._loop

    def forget(self) -> None:
        self._starting = threading.Lock()
        self._loop = self._thread = None

    def stop(self) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=1.0)


_SHARED = _SharedLoop()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SHARED.forget)  # threads do not survive a fork
