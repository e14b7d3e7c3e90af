"""An interrupt that Python swallows is raised again where a loop asks for it."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest

from orchestrator import interrupt


def test_an_interrupt_that_was_swallowed_is_raised_at_the_next_question() -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt.watch()
        interrupt.raise_if_asked()
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupt.raise_if_asked()
        interrupt.watch()
        interrupt.raise_if_asked()
    finally:
        signal.signal(signal.SIGINT, before)
