"""How far a sweep is: what is done and left, how long that may take, the best so far, and how much work was shared."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.jobs import Job, Outcome
from orchestrator.study.sweep_table import SweepTable

_RECENT = 8
"""Jobs by which the next ones are judged: the first ones load models and build indexes, the later ones share work."""
_MINUTE_S, _HOUR_S = 60, 3600


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """What the jobs that have ended tell of a sweep.

    Attributes:
        outcomes: jobs that have ended.
        planned: how many there will be; None where nobody knows.
        table: of those that have ended.
    """

    outcomes: tuple[Outcome, ...]
    planned: int | None
    table: SweepTable

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], plan: Sequence[Job], planned: int | None = None) -> SweepProgress:
        """The progress after `outcomes`.

        Args:
            outcomes: jobs that have ended.
            plan: all jobs, where they are known beforehand.
            planned: how many there will be, where only that is known.
        """
        return cls(tuple(outcomes), len(plan) or planned, SweepTable.of(outcomes, plan))

    @property
    def done(self) -> str:
        """`3 of 64`, or `3`."""
        return f"{len(self.outcomes)} of {self.planned}" if self.planned else str(len(self.outcomes))

    @property
    def measure(self) -> str | None:
        """The measure that is told of each job: the first one."""
        return next(iter(self.table.measures), None)

    @property
    def best(self) -> float | None:
        """Its highest value so far."""
        values = [value for outcome in self.outcomes if (value := self.value(outcome)) is not None]
        return max(values, default=None)

    def value(self, outcome: Outcome) -> float | None:
        """The measure of one job; None where it has none."""
        return outcome.figures.get("metrics", {}).get(self.measure or "")

    @property
    def reused(self) -> tuple[int, int]:
        """Results of stages that were kept from earlier jobs, and that were asked for, over all jobs."""
        return reused(self.outcomes)

    @property
    def left_s(self) -> float | None:
        """About how long the rest takes; None where that is not known.

        Jobs that run side by side are reckoned with, and the time between jobs.
        """
        ran = sorted((outcome for outcome in self.outcomes if outcome.seconds), key=lambda outcome: outcome.ended)
        if self.planned is None or not ran:
            return None
        begun = min(outcome.ended - outcome.seconds for outcome in ran)
        at_once = sum(outcome.seconds for outcome in ran) / max(ran[-1].ended - begun, 1e-3)
        usual = statistics.median(outcome.seconds for outcome in ran[-_RECENT:])
        return usual * max(self.planned - len(self.outcomes), 0) / at_once

    @property
    def line(self) -> str:
        """The same in a few words, for a bar: `70% of the work reused, best nDCG@10 0.4312, about 2 min left`."""
        n_reused, n_asked = self.reused
        words = [f"{n_reused / n_asked:.0%} of the work reused"] if n_asked else []
        words += [f"best {self.measure} {self.best:.4f}"] if self.best is not None else []
        words += [f"{about(self.left_s)} left"] if self.left_s else []
        return ", ".join(words)


def reused(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """Results of stages that were kept from earlier jobs, and that were asked for."""
    told = [outcome.figures.get("reused", {}) for outcome in outcomes]
    return sum(int(one.get("reused", 0)) for one in told), sum(int(one.get("asked", 0)) for one in told)


def about(seconds: float) -> str:
    """`about 40 s`, `about 3 min`, `about 2 h`."""
    if seconds < _MINUTE_S:
        return f"about {max(round(seconds), 1)} s"
    if seconds < _HOUR_S:
        return f"about {round(seconds / _MINUTE_S)} min"
    return f"about {round(seconds / _HOUR_S)} h"
