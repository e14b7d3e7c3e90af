"""Scores of pairs from a pointwise rerank: kept ones are looked up, the others asked for, at once or in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from orchestrator.running.cutting import Span
from orchestrator.running.pace import sizes
from orchestrator.running.passage_scores import PairsRead
from orchestrator.stack.graph import Node
from orchestrator.stage import Json, PointwiseRerank
from orchestrator.storage import stable_hash
from orchestrator.types import Call, Document, Query, Scores

Pair: TypeAlias = tuple[Query, Document]
Rows: TypeAlias = npt.NDArray[np.intp]
Spans: TypeAlias = Sequence[Span | None]

_FORMAT = 1
"""Raised when documents are cut, or prompts written, in another way: kept scores are then no longer used."""


class KeptScores(Protocol):
    """Where scores and orders are kept between questions; never fails."""

    def scored(self, identity: str, pairs: Sequence[Pair]) -> tuple[Scores, list[Span | None]]:
        """float64 [n_pairs], NaN where none is kept, and the span of each document's best window."""

    def keep_scores(self, identity: str, pairs: Sequence[Pair], scores: Scores, spans: Spans, *, expires: bool) -> None:
        """Keep scores; written after the answer."""

    def order(self, identity: str, query: Query, documents: Sequence[Document]) -> list[int] | None:
        """The order of exactly these documents in exactly this sequence; None where none is kept."""

    def keep_order(
        self, identity: str, query: Query, documents: Sequence[Document], order: Sequence[int], *, expires: bool
    ) -> None:
        """Keep an order; written after the answer."""

    def load(self) -> None:
        """Open what is kept."""

    def close(self) -> None:
        """Write what waits."""


def identity(node: Node) -> str | None:
    """Names all that a stage's scores depend on beside the two texts; None where they are not to be kept."""
    model_id = getattr(node.stage, "model_id", None)
    wanted = node.cache == "on" or (node.cache == "auto" and getattr(node.stage, "cacheable_scores", False))
    if not wanted or not model_id:
        return None
    kind = type(node.stage)
    facts: dict[str, Json] = {"class": f"{kind.__module__}.{kind.__qualname__}", "model": model_id, "format": _FORMAT}
    return stable_hash({**facts, "passages": asdict(node.passages)})


class Scoring:
    """The scores of some pairs under one stage.

    Args:
        node: the stage, a pointwise rerank.
        pairs: what is scored.
        kept: where scores are kept; None keeps none.
        completed: pairs with what else the stage needs of their documents, for pairs that are about to be scored.

    Attributes:
        scores: float64 [n_pairs], NaN where a pair has none yet.
        spans: of each document's best window.
        was_kept: bool [n_pairs], which were kept from before.
    """

    def __init__(
        self,
        node: Node,
        pairs: Sequence[Pair],
        kept: KeptScores | None,
        completed: Callable[[Sequence[Pair], Call], Sequence[Pair]],
    ) -> None:
        self._node, self._pairs, self._completed = node, list(pairs), completed
        self._identity = identity(node) if kept is not None else None
        self._kept = kept if self._identity is not None else None
        self.scores: Scores = np.full(len(pairs), np.nan)
        self.spans: list[Span | None] = [None] * len(pairs)
        if self._kept is not None and self._identity is not None and pairs:
            self.scores, self.spans = self._kept.scored(self._identity, self._pairs)
        self.was_kept = ~np.isnan(self.scores)

    @property
    def missing(self) -> Rows:
        """Int [n], ascending: the pairs that have no score."""
        return np.flatnonzero(np.isnan(self.scores))

    @property
    def scored(self) -> Rows:
        """Int [n], ascending: the pairs that have one."""
        return np.flatnonzero(~np.isnan(self.scores))

    def sizes(self, rows: Rows) -> list[float]:
        """How much the stage reads of each pair at `rows`, see `pace.sizes`."""
        return sizes(self._node, [self._pairs[row] for row in rows.tolist()])

    def read(self, rows: Rows, call: Call) -> PairsRead:
        """The pairs at `rows` as the stage reads them, ready to be scored."""
        stage = cast(PointwiseRerank, self._node.stage)
        pairs = self._completed([self._pairs[row] for row in rows.tolist()], call)
        return PairsRead(stage, pairs, self._node.passages, call)

    def take(
        self,
        rows: Rows,
        scores: npt.NDArray[np.floating],
        spans: Spans,
        not_to_keep: frozenset[int] = frozenset(),
    ) -> None:
        """Take the scores of the pairs at `rows`, and keep them for later questions.

        Args:
            rows: int [n].
            scores: float [n].
            spans: of each document's best window.
            not_to_keep: places among `rows` whose score is no answer of the model.

        Raises:
            ValueError: a score is NaN.
        """
        if np.isnan(scores).any():
            bad = self._pairs[int(rows[int(np.argmax(np.isnan(scores)))])][1]
            raise ValueError(f"returned NaN for document '{bad.doc_id}'")
        self.scores[rows] = scores
        for row, span in zip(rows.tolist(), spans, strict=True):
            self.spans[row] = span
        if self._kept is not None and self._identity is not None and len(rows):
            places = [place for place in range(len(rows)) if place not in not_to_keep]
            pairs = [self._pairs[int(rows[place])] for place in places]
            kept, found = self.scores[rows[places]], [spans[place] for place in places]
            self._kept.keep_scores(self._identity, pairs, kept, found, expires=self._node.is_remote)
