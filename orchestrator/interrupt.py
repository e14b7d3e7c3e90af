"""Ctrl-C that is not lost.

Python raises KeyboardInterrupt wherever the program happens to be; inside a finalizer, a weak reference's callback or a
callback of ctypes it is printed and forgotten (`sys.unraisablehook`). Here it is raised again a moment later.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from sys import UnraisableHookArgs

_AGAIN_SECONDS = 0.01  # by then the finalizer has ended; where another runs, it is swallowed and raised once more


def watch() -> None:
    """From now on an interrupt that Python would forget is raised again, in the main thread."""
    if not isinstance(sys.unraisablehook, _RaisedAgain):
        sys.unraisablehook = _RaisedAgain(sys.unraisablehook)


class _RaisedAgain:
    def __init__(self, before: Callable[[UnraisableHookArgs], object]) -> None:
        self._before = before

    def __call__(self, unraisable: UnraisableHookArgs, /) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._before(unraisable)
            return
        timer = threading.Timer(_AGAIN_SECONDS, _thread.interrupt_main, (signal.SIGINT,))
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
            timer.start()
