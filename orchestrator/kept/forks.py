"""Locks and connections, brought through a fork of the process: held still during it, begun anew after it."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Forked(Protocol):
    """Keeps something that must not be shared with a forked process."""

    @property
    def fork_lock(self) -> threading.Lock:
        """Held while the process forks, so that no other thread is in the middle of something."""

    def before_fork(self) -> None:
        """Let go of what no other process may inherit. `fork_lock` is held."""

    def in_child(self) -> None:
        """Forget what belongs to the parent. `fork_lock` is held."""


_kept: weakref.WeakSet[Forked] = weakref.WeakSet()
_held: list[tuple[Forked, threading.Lock]] = []


def keep_through_forks(kept: Forked) -> None:
    """Look after `kept` in every fork of this process, as long as it lives."""
    _kept.add(kept)


def _before() -> None:
    for kept in list(_kept):
        lock = kept.fork_lock
        lock.acquire()
        kept.before_fork()
        _held.append((kept, lock))


def _in_parent() -> None:
    while _held:
        _held.pop()[1].release()


def _in_child() -> None:
    for kept, _ in _held:
        kept.in_child()
    _in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
