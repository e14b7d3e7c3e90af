"""One row of a report: a configuration, or what stands beside it to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from orchestrator.study.figures import Figures

Kind = Literal["run", "stage", "null", "oracle"]
"""A configuration; one that ends at an earlier stage; the ranking before the first rerank; the best possible order."""
PerQuery = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row.

    Attributes:
        name: short and the only one of that name, for example `3`.
        kind: what it is.
        folder: where its files lie.
        settings: what sets it apart, short key -> value; empty in a report of one run.
        words: what it is, where that is no setting.
        figures: None where the job failed.
        per_query: query id -> measure -> value; empty where that is not known.
        ranking: the run file of its ranking; None where there is none.
        failure: why the job failed; empty where it did not.
        seconds: how long the job took; None where that is not known.
    """

    name: str
    kind: Kind
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    words: str = ""
    figures: Figures | None = None
    per_query: PerQuery = field(default_factory=dict, repr=False)
    ranking: Path | None = None
    failure: str = ""
    seconds: float | None = None

    @property
    def label(self) -> str:
        """What sets it apart in one line: `precise.top_k=5 fused=rrf`."""
        settings = " ".join(f"{key}={value}" for key, value in self.settings.items() if value)
        return " ".join(part for part in (settings, self.words) if part)

    @property
    def title(self) -> str:
        """Name and label: `row 3 (precise.top_k=5 fused=rrf)`."""
        name = f"row {self.name}" if self.name.isdigit() else self.name
        return f"{name} ({self.label})" if self.label and self.label != self.name else name

    @property
    def brief(self) -> str:
        """Name and values without their keys, for a picture: `3 bge rrf 50`."""
        return " ".join([self.name, *filter(None, self.settings.values()), *([self.words] if self.words else [])])

    def mean(self, measure: str) -> float | None:
        """Of the uncut ranking; None where it is not known."""
        return None if self.figures is None else self.figures.metrics.get(measure)

    def latency(self, percentile: str = "p95") -> float | None:
        """In milliseconds; None where nothing was timed."""
        return None if self.figures is None else self.figures.latency_ms.get(percentile)

    @property
    def usd(self) -> float | None:
        """US dollars a question; None where it is not known."""
        return None if self.figures is None else self.figures.usd

    @property
    def tokens(self) -> float | None:
        """Tokens a question; None where it is not known."""
        return None if self.figures is None else self.figures.tokens
