"""Progress on stderr: a bar on a terminal, nothing elsewhere; one line for every index that is built."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

from orchestrator.jobs import so_far
from orchestrator.log import get_logger

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

log = get_logger()


class ProgressBars:
    """A `Progress` callback that draws one bar for each kind of work, only while work is reported.

    In a job of a sweep a bar above them says how far the sweep is.

    Attributes:
        done: kind of work -> how much of it was done.
    """

    def __init__(self) -> None:
        self.done: dict[str, int] = {}
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` of `what` is finished."""
        self.done[what] = done
        if not sys.stderr.isatty():
            return
        if self._bars is None:
            self._bars = _start()
            sweep = so_far.get()
            if sweep is not None:
                words = f"sweep: {sweep.line}" if sweep.line else "sweep"
                self._bars.add_task(words, total=sweep.planned, completed=sweep.done)
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()


def say_building(stage: str, reason: str) -> None:
    """One line on stderr before an index is built."""
    log.info("index.building", stage=stage, reason=reason)


def _start() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Bars(*columns, console=Console(stderr=True), transient=True)
    bars.start()
    return bars
