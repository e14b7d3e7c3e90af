"""What a sweeper is told of a job: one figure of an evaluation, or several that pull in different directions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.evaluation.latency import Latency
from orchestrator.evaluation.quality import Quality
from orchestrator.jobs import Value

Direction = Literal["maximize", "minimize"]

_LATENCY = re.compile(r"(p50|p95|p99)_ms")
_SERVED = "served "


@dataclass(frozen=True, slots=True)
class Objectives:
    """Names of figures.

    Attributes:
        names: measures of the uncut ranking (`nDCG@10`), of what is handed out (`served nDCG@10`), or percentiles of
            the latency (`p50_ms`, `p95_ms`, `p99_ms`).

    Raises:
        ConfigError: see `of`.
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str] | str | None, measures: Sequence[str], latency_queries: int) -> Objectives:
        """The objectives of an evaluation.

        Args:
            names: as the configuration has them; None is the first measure.
            measures: that are computed.
            latency_queries: how many queries are timed.

        Raises:
            ConfigError: it is no list of names; a name is unknown, or of a figure that this evaluation does not have.
        """
        if not isinstance(names, str | list | tuple | None):
            raise ConfigError("task.objectives", f"found {names!r}; expected a name, a list of names, or null")
        given = [measures[0]] if names is None else [names] if isinstance(names, str) else list(names)
        if not given:
            raise ConfigError("task.objectives", "found none; expected at least one, or null for the first measure")
        for place, name in enumerate(given):
            _check(f"task.objectives[{place}]", str(name), measures, latency_queries)
        return cls(tuple(map(str, given)))

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Where better lies: measures grow, latencies shrink."""
        return tuple("minimize" if _LATENCY.fullmatch(name) else "maximize" for name in self.names)

    def values(self, quality: Quality, latency: Latency | None) -> Value:
        """The figures: a number, or where there are several as many numbers in their order."""
        found = tuple(_value(name, quality, latency) for name in self.names)
        return found[0] if len(found) == 1 else found

    def check_directions(self, given: object) -> None:
        """Nothing, where a sweeper looks for better figures where they lie, or does not say where.

        Args:
            given: `hydra.sweeper.direction`: a word, or one for each objective; None where it has no such key.

        Raises:
            ConfigError: it looks elsewhere, or for another number of figures.
        """
        if given is None:
            return
        words = list(map(_word, given)) if isinstance(given, list | tuple) else [_word(given)]
        if tuple(words) != self.directions:
            shown = f"[{','.join(self.directions)}]" if len(self.names) > 1 else self.directions[0]
            found = f"found {', '.join(words)} for task.objectives {', '.join(self.names)}"
            raise ConfigError("hydra.sweeper.direction", f"{found}; expected hydra.sweeper.direction={shown}")


def _check(path: str, name: str, measures: Sequence[str], latency_queries: int) -> None:
    if _LATENCY.fullmatch(name):
        if latency_queries < 1:
            raise ConfigError(path, f"found '{name}' with latency_queries={latency_queries}, which times nothing")
        return
    if name.removeprefix(_SERVED) not in measures:
        choices = [*measures, *(f"{_SERVED}{measure}" for measure in measures), "p50_ms", "p95_ms", "p99_ms"]
        found = f"found '{name}'; choices (the measures are those of task.measures): {', '.join(choices)}"
        raise ConfigError(path, f"{found}.{did_you_mean(name, choices)}")


def _value(name: str, quality: Quality, latency: Latency | None) -> float:
    if _LATENCY.fullmatch(name):
        assert latency is not None
        return latency.total[name.removesuffix("_ms")]
    if name.startswith(_SERVED):
        return quality.served[name.removeprefix(_SERVED)]
    return quality.metrics[name]


def _word(direction: object) -> str:
    """`maximize` or `minimize`, of a word or of the sweeper's own enumeration."""
    return str(getattr(direction, "name", direction))
