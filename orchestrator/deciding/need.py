"""What a decision starts from: what the user wants and has, and the models there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from orchestrator.costs.cost import ModelInfo
from orchestrator.costs.lengths import Lengths
from orchestrator.deciding.rules import Allowance, Slot
from orchestrator.errors import ConfigError, did_you_mean

USUAL_CANDIDATES = 100
"""How many candidates there are where nobody says."""


@dataclass(frozen=True, slots=True)
class Need:
    """What the user wants and has.

    Attributes:
        latency_ms: budget of one query at p95; None for no limit.
        candidates: how many the recalls bring; None for what each stack's own configuration says.
        language: of documents and questions: ISO 639-1, `zh-en` for Chinese mixed with English, `und` for several.
        priority: `precision`, `balanced` or `speed`.
        device: `cpu` or `gpu`.
        lengths: of questions and documents.
        allow: what may be used: `hub` models to download once, `api` hosted rerankers, `llm`, `trained` models of
            one's own.
        documents: in the corpus.
    """

    latency_ms: float | None = None
    candidates: int | None = None
    language: str = "en"
    priority: str = "balanced"
    device: str = "cpu"
    lengths: Lengths = field(default_factory=Lengths.even)
    allow: frozenset[str] = frozenset({"hub"})
    documents: int = 10_000

    def __post_init__(self) -> None:
        for key, value in (("latency_ms", self.latency_ms), ("candidates", self.candidates)):
            if value is not None and not value > 0:
                raise ConfigError(f"need.{key}", f"found {value}; expected a number above 0")
        for word in sorted(self.allow - set(get_args(Allowance))):
            choices = get_args(Allowance)
            hint = did_you_mean(word, choices)
            raise ConfigError("need.allow", f"found '{word}'; choices: {', '.join(choices)}.{hint}")

    @property
    def reach(self) -> int:
        """How many candidates there are to order; without a number, a hundred."""
        return USUAL_CANDIDATES if self.candidates is None else self.candidates

    @property
    def searched(self) -> int:
        """Documents that the recalls are reckoned to search: no fewer than the candidates that were asked for."""
        return max(self.documents, self.candidates or 0)

    @property
    def budget_ms(self) -> float:
        """The budget as a number: infinite without a limit."""
        return math.inf if self.latency_ms is None else self.latency_ms


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The models there are.

    Attributes:
        models: by the name of their card.
        fixed: models that the user has set, by slot: nothing else is considered there.
        labels: name of a model -> what tells it from others in a configuration, see `stage_marks`.
        encoder: of late interaction, as it is configured; None where nobody says.
    """

    models: Mapping[str, ModelInfo]
    fixed: Mapping[Slot, ModelInfo] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    encoder: ModelInfo | None = None
