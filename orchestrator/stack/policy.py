"""What the failure of a stage does: a policy, declared beside the stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.errors import ConfigError
from orchestrator.stage import Rerank

How = Literal["fail", "skip", "fallback"]


@dataclass(frozen=True, slots=True)
class OnError:
    """What happens when a stage fails in a way that may pass: no connection, no answer in time, 429, 5xx.

    A wrong key, a bad request and a bug always fail.

    Attributes:
        how: `fail` ends the question with the error. `skip` passes on what the stage was given, or for a recall
            nothing. `fallback` puts other reranks in its place, and skips where they fail too. None is `skip` for
            stages on somebody else's machine and `fail` for the others.
        fallbacks: those other reranks, in the order in which they are tried.

    Raises:
        ConfigError: `fallback` without one, or fallbacks without it.
    """

    how: How | None = None
    fallbacks: tuple[Rerank, ...] = ()

    def __post_init__(self) -> None:
        if (self.how == "fallback") != bool(self.fallbacks):
            raise ConfigError(
                "", f"found {self.how} with {len(self.fallbacks)} fallback(s); expected fallback: <rerank>"
            )

    def carries_on(self, *, is_remote: bool) -> bool:
        """Whether the question goes on without the stage."""
        return is_remote if self.how is None else self.how != "fail"


BY_PLACE = OnError()
"""`skip` for stages on somebody else's machine, `fail` for the others."""
