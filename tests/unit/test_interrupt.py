"""An interrupt that Python swallows is raised again; any other error in a finalizer is told as before."""

from __future__ import annotations

import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from orchestrator import interrupt


class Finalized:
    """Calls `at_end` when it is dropped."""

    def __init__(self, at_end: Callable[[], None]) -> None:
        self.at_end = at_end

    def __del__(self) -> None:
        self.at_end()


@pytest.fixture(autouse=True)
def as_a_command() -> Iterator[list[object]]:
    """SIGINT raises, as in a process of its own; yields what the hook that was there before was given."""
    told: list[object] = []
    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.unraisablehook = lambda unraisable: told.append(unraisable.exc_value)
    try:
        yield told
    finally:
        signal.signal(signal.SIGINT, handler)
        sys.unraisablehook = hook


def interrupt_here() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.001)  # where Python looks for signals


def wait_for_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        time.sleep(5)


def test_an_interrupt_inside_a_finalizer_is_raised_after_it(as_a_command: list[object]) -> None:
    interrupt.watch()
    Finalized(interrupt_here)
    wait_for_interrupt()
    assert as_a_command == []


def test_an_interrupt_inside_the_callback_of_a_weak_reference_is_raised_after_it() -> None:
    interrupt.watch()
    kept = Finalized(lambda: None)
    reference = weakref.ref(kept, lambda _: interrupt_here())
    del kept
    wait_for_interrupt()
    assert reference() is None


def test_an_interrupt_that_falls_into_one_finalizer_after_another_is_not_lost(as_a_command: list[object]) -> None:
    interrupt.watch()
    Finalized(interrupt_here)
    Finalized(lambda: time.sleep(0.05))
    wait_for_interrupt()
    assert as_a_command == []


def test_any_other_error_goes_to_the_hook_that_was_there(as_a_command: list[object]) -> None:
    def fail() -> None:
        raise ValueError("of a finalizer")

    interrupt.watch()
    interrupt.watch()
    Finalized(fail)
    assert [str(error) for error in as_a_command] == ["of a finalizer"]
