"""What a rerank service bills: tokens or search units, as it tells them or by estimate."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.services.replies import count_at
from orchestrator.services.spending import Pay, Price, Purse
from orchestrator.types import Call

from ..estimate import estimated_tokens, most_tokens
from .format import RerankFormat

_UNIT_DOCUMENTS = 100
_UNIT_TOKENS = 500
"""One search unit of Cohere, and of others that sell it: a question with up to 100 documents of up to some 500 tokens;
a longer document counts as several (Cohere, pricing page)."""
_FRAME_TOKENS = 100
"""What a service may put around a document and its question: marks, or the template of a chat model."""


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
        """Around one request: sets the dearest aside that it can become, see `Purse.reserved`.

        That is a token for each byte of its texts and a fixed number around each document; and search units by these
        tokens, the question counted with each document.
        """
        if not self.purse.limited:
            return self.purse.reserved(0.0)
        asked = most_tokens(query or " ") + _FRAME_TOKENS
        tokens = _tokens(query, texts, most_tokens) + _FRAME_TOKENS * len(texts)
        units = _units(texts, lambda text: most_tokens(text) + asked)
        return self.purse.reserved(self.price.usd(input=tokens, units=units))

    def settle(self, reply: Any, query: str, texts: Sequence[str], pay: Pay, call: Call) -> None:
        """Count tokens and money of one request.

        What has a price and is not told is estimated and marked so; the purse then keeps all that was set aside.
        """
        tokens = count_at(reply, self.format.tokens) if self.format.tokens else 0.0
        units = count_at(reply, self.format.units) if self.format.units else 0.0
        untold_tokens, untold_units = bool(self.price.input) and not tokens, bool(self.price.units) and not units
        if untold_tokens:
            tokens = _tokens(query, texts)
            call.note("the service tells no tokens: they and their price are an estimate")
        if untold_units:
            units = _units(texts)
            call.note("the service tells no search units: they and their price are an estimate")
        cost_usd = self.price.usd(input=tokens, units=units)
        call.count(tokens=int(tokens), cost_usd=cost_usd)
        if not (untold_tokens or untold_units):
            pay(cost_usd)


def _tokens(query: str, texts: Sequence[str], count: Callable[[str], int] = estimated_tokens) -> int:
    """The question once a document, as services count it."""
    return count(query) * len(texts) + sum(map(count, texts))


def _units(texts: Sequence[str], count: Callable[[str], int] = estimated_tokens) -> int:
    pieces = sum(max(1, math.ceil(count(text) / _UNIT_TOKENS)) for text in texts)
    return math.ceil(pieces / _UNIT_DOCUMENTS)
