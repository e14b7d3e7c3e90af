"""Lifts documents by what their payload says: how new they are, where they come from, how often they are read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np

from orchestrator.checks import check_choice
from orchestrator.errors import ConfigError
from orchestrator.types import Call, Document, Need, Query, RankedList, ScoreKind, Scores

from ..normalisation import NORMALISE, normalised
from .boosts import Boost, checked_boost, read_date


class BoostRerank:
    """A `ListRerank`: the normalised incoming score plus what each boost adds.

    With `min_max` the best candidate stands at 1 and the worst at 0, so that a weight of 0.2 is worth a fifth of the
    distance between them. Incoming scores are those of the last stage that ran; where that did not get to all
    documents, the others follow below those that it scored, in their order.

    Args:
        boosts: name -> `field`, `weight`, and one of `recency`, `values` and `number`; see `boosts.py`.
        normalise: how incoming scores are brought to one scale: `min_max`, `rank`, `z_score`, `distribution`, `none`.
        now: what ages are counted from, as a date; None is the beginning of the day of each call, UTC, so that
            a question asked twice has one answer.

    Raises:
        ConfigError: a boost is wrong, or there is none.
    """

    score_kind: ScoreKind = "weighted"
    needs: frozenset[Need] = frozenset({"text"})  # payload is read with the text

    def __init__(
        self, boosts: Mapping[str, Mapping[str, object]], normalise: str = "min_max", now: str | None = None
    ) -> None:
        check_choice("normalise", normalise, NORMALISE)
        if not isinstance(boosts, Mapping) or not boosts:
            raise ConfigError("boosts", f"found {boosts!r}; expected name -> field, weight, recency | values")
        self.now = None if now is None else read_date(now)
        if now is not None and self.now is None:
            raise ConfigError("now", f"found {now!r}; expected a date such as 2026-11-01")
        self.boosts = dict(boosts)
        self.normalise = normalise
        self._checked(_today())

    @property
    def payload_fields(self) -> Mapping[str, str]:
        """Key of this stage -> the payload field that it names."""
        return {f"boosts.{name}.field": str(boost["field"]) for name, boost in self.boosts.items()}

    @property
    def depends_on(self) -> str:
        """The day that ages are counted from."""
        return (self.now or _today()).isoformat()

    def rescore(self, query: Query, candidates: RankedList, call: Call) -> Scores:
        """float64 [n_candidates]."""
        totals = normalised(candidates, self.normalise)
        documents = [call.documents[doc_id] for doc_id in candidates.doc_ids]
        for boost in self._checked(self.now or _today()):
            totals = totals + _added(boost, documents, call)
        return totals

    def _checked(self, now: datetime) -> list[Boost]:
        return [checked_boost(name, given, now) for name, given in self.boosts.items()]


def _added(boost: Boost, documents: list[Document], call: Call) -> Scores:
    found = [boost.of(document.metadata) for document in documents]
    if documents and not any(read for _, read in found):
        call.note(f"boost '{boost.name}': no candidate has a value in '{boost.field}' that it can use")
    return np.array([value for value, _ in found], np.float64)


def _today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
