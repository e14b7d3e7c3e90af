"""Several questions before one stage, each by itself: what it gives for one depends on no other question.

So a result can be kept and used again beside any others, with the same figures, tokens and money included. What no
question changes for another is still done for all at once: they are embedded together, and a document is read once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from orchestrator.running.kept_answer import KeptAnswer, Spent
from orchestrator.running.limited import Outcome
from orchestrator.running.scoring import KeptScores
from orchestrator.running.stage_key import batch_key
from orchestrator.running.stage_results import SharedResults
from orchestrator.running.steps import Asked, Documents, QueryVectors, Steps, embedder_of
from orchestrator.stack.graph import Node
from orchestrator.stage import Embed
from orchestrator.types import Call, Document, Query, RankedList, Vectors

_AT_ONCE = 8
"""Questions that wait for somebody else's machine together."""


class ByQuery:
    """Asks the stages of one graph for some questions.

    Args:
        documents: where text and vectors of candidates come from.
        queries: the questions.
        kept: where scores are kept between questions; None keeps none.
        shared: where results of stages are kept; None keeps none.

    Attributes:
        steps: how stages are asked.
    """

    def __init__(
        self,
        documents: Documents,
        queries: Sequence[Query],
        kept: KeptScores | None,
        shared: SharedResults | None,
    ) -> None:
        self.steps = Steps(_ReadOnce(documents), kept)
        self._queries, self._shared = list(queries), shared
        self._vectors, self._together = QueryVectors(queries), batch_key(queries)
        self._embedded: dict[int, list[Spent]] = {}
        self._charged: set[tuple[int, int]] = set()

    def ask(self, node: Node, inputs: Mapping[int, Mapping[str, RankedList]]) -> dict[int, Outcome]:
        """Place of a question -> what came of the stage for it.

        Args:
            node: the stage.
            inputs: place of a question -> what the stage is given.

        Raises:
            TransientError: it failed in a way that may pass. Nothing of this stage is kept then.
            Exception: whatever else the stage raised.
        """
        asked = {place: Asked(self._queries[place], given) for place, given in inputs.items()}
        keys = self._shared.keys_of(node, asked, self._together) if self._shared is not None else {}
        done = self._found(node, asked, keys)
        made = self._made(node, {place: one for place, one in asked.items() if place not in done})
        if self._shared is not None and made:
            self._shared.keep(node, asked, keys, made)
        done |= made
        for place, (outcome, kept) in done.items():
            self._charge(node, place, kept.embedding, outcome.call)
        return {place: outcome for place, (outcome, _) in done.items()}

    def _found(
        self, node: Node, asked: Mapping[int, Asked], keys: Mapping[int, bytes]
    ) -> dict[int, tuple[Outcome, KeptAnswer]]:
        """Results that are kept, with what they cost when they were made."""
        if self._shared is None:
            return {}
        begun = time.perf_counter()
        found = self._shared.find(node, asked, keys)
        seconds = (time.perf_counter() - begun) / max(len(found), 1)
        done = {}
        for place, kept in found.items():
            done[place] = Outcome(kept.answer, Call(), seconds=seconds, reused=True), kept
            kept.own.add_to(done[place][0].call)
        return done

    def _made(self, node: Node, asked: Mapping[int, Asked]) -> dict[int, tuple[Outcome, KeptAnswer]]:
        if not asked:
            return {}
        embedding = self._embed(node)
        known = self._vectors.known(node) or self._queries
        complete = [Asked(known[place], one.inputs) for place, one in asked.items()]
        outcomes = self._side_by_side(node, complete) if _waits(node) else [self._one(node, one) for one in complete]
        return {
            place: (
                outcome,
                KeptAnswer(outcome.answer, Spent.of(outcome.call), embedding[place] if embedding else None),
            )
            for place, outcome in zip(asked, outcomes, strict=True)
        }

    def _one(self, node: Node, asked: Asked, call: Call | None = None) -> Outcome:
        call, begun = call or Call(), time.perf_counter()
        (answer,) = self.steps.ask(node, [asked], call)
        return Outcome(answer, call, seconds=time.perf_counter() - begun)

    def _side_by_side(self, node: Node, asked: Sequence[Asked]) -> list[Outcome]:
        calls = [Call() for _ in asked]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            try:
                return list(pool.map(self._one, [node] * len(asked), asked, calls))
            except BaseException:
                for call in calls:  # else the failure, or Ctrl-C, would wait for what the others still wait for
                    call.cancel()
                raise

    def _embed(self, node: Node) -> list[Spent] | None:
        """What the vector of each question has cost; all are embedded by the first stage that needs any."""
        if "vectors" not in node.needs:
            return None
        whose = id(embedder_of(node))
        if whose not in self._embedded:
            call = Call()
            self._vectors.of(node, call)
            self._embedded[whose] = Spent.of(call).shares(len(self._queries))
        return self._embedded[whose]

    def _charge(self, node: Node, place: int, embedding: Spent | None, call: Call) -> None:
        """Count the vector of a question once, where it was needed first."""
        if embedding is None:
            return
        whose = id(embedder_of(node)), place
        if whose not in self._charged:
            self._charged.add(whose)
            embedding.add_to(call)


def _waits(node: Node) -> bool:
    """Whether the stage waits for somebody else's machine, or for one window after the other."""
    return node.behaviour == "window" or (node.behaviour == "pointwise" and node.is_remote)


class _ReadOnce:
    """Documents of a corpus, each read once however many questions share it.

    Args:
        documents: where they are read.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._held: dict[str, Document] = {}

    @property
    def in_corpus(self) -> bool:
        """As `Documents` has it."""
        return self._documents.in_corpus

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        """Documents with text, in the order of `doc_ids`."""
        missing = [doc_id for doc_id in doc_ids if doc_id not in self._held]
        if missing:
            self._held |= dict(zip(missing, self._documents.read(missing), strict=True))
        return [self._held[doc_id] for doc_id in doc_ids]

    def vectors(self, embedder: Embed, doc_ids: Sequence[str], call: Call | None = None) -> Vectors:
        """float32 [n, dim], in the order of `doc_ids`."""
        return self._documents.vectors(embedder, doc_ids, call)
