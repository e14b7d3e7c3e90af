"""Ctrl-C that is not lost.

Python raises KeyboardInterrupt wherever the program happens to be; inside a finalizer or a weak reference's callback it
is printed and forgotten. Long loops ask here whether there was one.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

_asked = threading.Event()


def watch() -> None:
    """From now on interrupts are remembered; those before are forgotten. Does nothing outside the main thread."""
    _asked.clear()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _note)


def raise_if_asked() -> None:
    """Raise KeyboardInterrupt where there was an interrupt since `watch`."""
    if _asked.is_set():
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> None:
    _asked.set()
    signal.default_int_handler(number, frame)
