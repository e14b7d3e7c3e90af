"""What the failure of a stage does: a policy, declared beside the stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.stage import Rerank


@dataclass(frozen=True, slots=True)
class OnError:
    """What happens when a stage fails in a way that may pass: no connection, no answer in time, 429, 5xx.

    A wrong key, a bad request and a bug always fail.

    Attributes:
        how: `fail` ends the question with the error; `skip` passes on what the stage was given, or for a recall nothing;
            `fallback` puts another rerank in its place. None is `skip` for stages on somebody else's machine, else `fail`.
        fallback: that other rerank.
    """

    how: Literal["fail", "skip", "fallback"] | None = None
    fallback: Rerank | None = None


BY_PLACE = OnError()
"""`skip` for stages on somebody else's machine, `fail` for the others."""
