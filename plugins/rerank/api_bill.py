"""What a rerank service bills: tokens or search units, as it tells them or by estimate."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.replies import count_at
from orchestrator.spending import Pay, Price, Purse
from orchestrator.types import Call

from ..estimate import estimated_tokens
from .api_format import RerankFormat

_UNIT_DOCUMENTS = 100
_UNIT_TOKENS = 500
"""One search unit of Cohere, and of others that sell it: a question with up to 100 documents of up to some 500 tokens;
a longer document counts as several (Cohere, pricing page)."""


@dataclass(frozen=True, slots=True)
class Bill:
    """The costs of one stage's requests.

    Attributes:
        price: of the model.
        purse: what the stage may spend.
        format: says where a reply tells tokens and units.
    """

    price: Price
    purse: Purse
    format: RerankFormat

    def reserved(self, query: str, texts: Sequence[str]) -> contextlib.AbstractContextManager[Pay]:
        """Around one request: sets its estimated cost aside, see `Purse.reserved`."""
        if not self.purse.limited:
            return self.purse.reserved(0.0)
        tokens, units = _tokens(query, texts), _units(texts)
        return self.purse.reserved(self.price.usd(input=tokens, units=units))

    def settle(self, reply: Any, query: str, texts: Sequence[str], call: Call) -> float:
        """US dollars of one request; counts them and its tokens.

        What has a price and is not told is estimated and marked so.
        """
        tokens = count_at(reply, self.format.tokens) if self.format.tokens else 0.0
        units = count_at(reply, self.format.units) if self.format.units else 0.0
        if self.price.input and not tokens:
            tokens = _tokens(query, texts)
            call.note("the service tells no tokens: they and their price are an estimate")
        if self.price.units and not units:
            units = _units(texts)
            call.note("the service tells no search units: they and their price are an estimate")
        cost_usd = self.price.usd(input=tokens, units=units)
        call.count(tokens=int(tokens), cost_usd=cost_usd)
        return cost_usd


def _tokens(query: str, texts: Sequence[str]) -> int:
    """The question once a document, as services count it."""
    return estimated_tokens(query) * len(texts) + sum(map(estimated_tokens, texts))


def _units(texts: Sequence[str]) -> int:
    pieces = sum(max(1, math.ceil(estimated_tokens(text) / _UNIT_TOKENS)) for text in texts)
    return math.ceil(pieces / _UNIT_DOCUMENTS)
