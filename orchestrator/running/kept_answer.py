"""What a stage made of one question, as bytes: what it said of its documents and what that cost, not how they stand.

A rerank is kept as one score for each document that it was given, a recall and a fusion as documents with scores.
Order, ties and the scores of other stages follow from those and from the inputs, as the first time (`ranking.py`).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from orchestrator import ranking
from orchestrator.running.steps import Answer
from orchestrator.stack.graph import Node
from orchestrator.types import Call, RankedList, Scores

_HEAD = struct.Struct("<I")
_NO_SPAN = -1
_FASTEST = 1


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent and told for one question.

    Attributes:
        tokens: of models.
        cost_usd: money.
        passages: parts of documents that were read.
        repairs: what had to be mended, by kind.
        notes: declared peculiarities.
    """

    tokens: int = 0
    cost_usd: float = 0.0
    passages: int = 0
    repairs: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, call: Call) -> Self:
        """What `call` has spent so far."""
        return cls(call.tokens, call.cost_usd, call.passages, dict(call.repairs), tuple(call.notes))

    def shares(self, n: int) -> list[Spent]:
        """The same divided among `n` questions: tokens as evenly as whole numbers go, notes for each of them."""
        whole, more = divmod(self.tokens, n)
        return [Spent(whole + (place < more), self.cost_usd / n, 0, {}, self.notes) for place in range(n)]

    def add_to(self, call: Call) -> None:
        """Count it to `call` too."""
        call.count(tokens=self.tokens, cost_usd=self.cost_usd, passages=self.passages)
        for kind, times in self.repairs.items():
            call.repair(kind, times)
        for text in self.notes:
            call.note(text)


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a stage made of one question.

    Attributes:
        answer: what it ranked.
        own: what that cost.
        embedding: what the question's vector cost, which the first stage pays that needs it; None where none is needed.
    """

    answer: Answer
    own: Spent
    embedding: Spent | None = None


def is_whole(node: Node, inputs: Mapping[str, RankedList], answer: Answer, call: Call) -> bool:
    """Whether all was done, and by the stage itself, so that the answer may be kept."""
    ranked = answer.ranked
    if call.not_to_keep or (node.behaviour == "window" and call.repairs):
        return False  # a score that is no answer of the model, an order that had to be mended
    if node.kind != "rerank":
        return True
    n = len(next(iter(inputs.values())))
    return len(ranked) == ranked.n_scored == n and answer.n_scored in (None, n)


def pack(node: Node, inputs: Mapping[str, RankedList], kept: KeptAnswer) -> bytes:
    """`kept` as bytes. It is whole, see `is_whole`."""
    ranked = kept.answer.ranked
    head: dict[str, Any] = {"hits": kept.answer.hits, "own": _told(kept.own)}
    if kept.embedding is not None:
        head["embedding"] = _told(kept.embedding)
    parts = []
    if node.kind == "rerank":
        row = {doc_id: place for place, doc_id in enumerate(ranked.doc_ids)}
        incoming = next(iter(inputs.values()))
        rows = np.fromiter((row[doc_id] for doc_id in incoming.doc_ids), np.intp, count=len(incoming))
        parts.append(ranked.stage_scores[node.name][rows].astype("<f8").tobytes())
        if kept.answer.spans:
            parts.append(_spans(incoming, kept.answer.spans).tobytes())
    else:
        parts.append(ranked.scores.astype("<f8").tobytes())
        if node.kind == "fusion":
            places = {doc_id: place for place, doc_id in enumerate(_distinct(inputs))}
            parts.append(np.array([places[doc_id] for doc_id in ranked.doc_ids], "<i4").tobytes())
        else:
            head["ids"] = ranked.doc_ids
    text = zlib.compress(json.dumps(head, separators=(",", ":")).encode(), _FASTEST)
    return b"".join([_HEAD.pack(len(text)), text, *parts])


def unpack(node: Node, inputs: Mapping[str, RankedList], data: bytes) -> KeptAnswer | None:
    """What `pack` was given; None where the bytes do not fit the stage and its inputs."""
    try:
        (size,) = _HEAD.unpack_from(data)
        head = json.loads(zlib.decompress(data[_HEAD.size : _HEAD.size + size]))
        answer = _answer(node, inputs, head, memoryview(data)[_HEAD.size + size :])
        embedding = _spent(head["embedding"]) if "embedding" in head else None
        return KeptAnswer(answer, _spent(head["own"]), embedding)
    except (ValueError, LookupError, TypeError, struct.error, zlib.error):
        return None


def _answer(node: Node, inputs: Mapping[str, RankedList], head: Mapping[str, Any], rest: memoryview) -> Answer:
    kind, hits = node.stage.score_kind, int(head["hits"])
    if node.kind == "recall":
        pairs = zip(head["ids"], _floats(rest, len(head["ids"])).tolist(), strict=True)
        return Answer(ranking.ranked_from_pairs(node.name, list(pairs), kind), hits=hits)
    if node.kind == "fusion":
        ids = _distinct(inputs)
        scores = _floats(rest[: 8 * len(ids)], len(ids))
        places = np.frombuffer(rest[8 * len(ids) :], "<i4")
        fused = [(ids[place], score) for place, score in zip(places.tolist(), scores.tolist(), strict=True)]
        return Answer(ranking.fused(node.name, fused, kind, inputs), hits=hits)
    incoming = next(iter(inputs.values()))
    n = len(incoming)
    ranked = ranking.rescored(node.name, incoming, _floats(rest[: 8 * n], n), kind)
    spans = np.frombuffer(rest[8 * n :], "<i8").reshape(-1, 2).tolist()
    if spans and len(spans) != n:
        raise ValueError(f"{len(spans)} spans for {n} documents")
    shown = zip(incoming.doc_ids, spans, strict=False)
    return Answer(ranked, {doc_id: (start, end) for doc_id, (start, end) in shown if start != _NO_SPAN}, hits)


def _spans(incoming: RankedList, spans: Mapping[str, tuple[int, int]]) -> npt.NDArray[np.int64]:
    """int64 [n_documents, 2], in the order of `incoming`."""
    none = (_NO_SPAN, _NO_SPAN)
    return np.array([spans.get(doc_id, none) for doc_id in incoming.doc_ids], "<i8")


def _distinct(inputs: Mapping[str, RankedList]) -> list[str]:
    """Ids of all lists, each once, in the order in which they are met."""
    return list(dict.fromkeys(chain.from_iterable(ranked.doc_ids for ranked in inputs.values())))


def _floats(data: memoryview, n: int) -> Scores:
    found = np.frombuffer(data, "<f8").astype(np.float64)
    if found.shape != (n,):
        raise ValueError(f"{len(found)} scores for {n} documents")
    return found


def _told(spent: Spent) -> list[Any]:
    return [spent.tokens, spent.cost_usd, spent.passages, dict(spent.repairs), list(spent.notes)]


def _spent(told: list[Any]) -> Spent:
    tokens, cost_usd, passages, repairs, notes = told
    return Spent(tokens, cost_usd, passages, repairs, tuple(notes))
