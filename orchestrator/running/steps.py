"""How a stage of each kind is asked: what it is handed, and what becomes of its answer. Knows nothing of time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, cast

import numpy as np

from orchestrator import ranking
from orchestrator.errors import PipelineError, TransientError
from orchestrator.running.cutting import Span
from orchestrator.running.passage_scores import read_once
from orchestrator.running.scoring import KeptScores, Pair, Scoring, identity
from orchestrator.running.windows import PASSES, STRIDE, WINDOW, order_by_windows
from orchestrator.stack.graph import Node
from orchestrator.stage import Embed, Fusion, ListRerank, PointwiseRerank, Recall, WindowRerank
from orchestrator.types import Call, Document, Query, RankedList, Vectors

_QUERIES_AT_ONCE = 8


class Documents(Protocol):
    """Where the runner gets what a stage needs of its candidates: a corpus, or what the caller brought."""

    @property
    def in_corpus(self) -> bool:
        """Whether these are documents of the corpus, so that an index of it knows them."""

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        """Documents with text, in the order of `doc_ids`."""

    def vectors(self, embedder: Embed, doc_ids: Sequence[str], call: Call | None = None) -> Vectors:
        """float32 [n, dim], in the order of `doc_ids`."""


@dataclass
class Asked:
    """One query before one stage.

    Attributes:
        query: with a vector where the stage needs one.
        inputs: stage name -> what that stage passed on.
    """

    query: Query
    inputs: Mapping[str, RankedList]

    @property
    def incoming(self) -> RankedList:
        """What a rerank is given."""
        return next(iter(self.inputs.values()))


@dataclass
class Answer:
    """What a stage made of one query.

    Attributes:
        ranked: everything it ranked.
        spans: doc_id -> best window, where documents were read in windows.
        hits: documents, or windows, whose scores were kept from before.
        n_scored: documents that it got to; None is what `ranked` says.
    """

    ranked: RankedList
    spans: Mapping[str, Span] = field(default_factory=dict)
    hits: int = 0
    n_scored: int | None = None


class QueryVectors:
    """Query vectors of one run: each embedder embeds the queries once, for all its stages. Safe between threads."""

    def __init__(self, queries: Sequence[Query]) -> None:
        self._queries = list(queries)
        self._embedded: dict[int, list[Query]] = {}
        self._locks: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()

    def known(self, node: Node) -> list[Query] | None:
        """The queries as `node` needs them; None where they have to be embedded first."""
        if "vectors" not in node.needs or not self._queries:
            return self._queries
        return self._embedded.get(id(embedder_of(node)))

    def of(self, node: Node, call: Call) -> list[Query]:
        """The queries as `node` needs them."""
        if "vectors" not in node.needs or not self._queries:
            return self._queries
        embedder = embedder_of(node)
        with self._lock:
            lock = self._locks.setdefault(id(embedder), threading.Lock())
        with lock:
            if id(embedder) not in self._embedded:
                vectors = embedder.embed([query.text for query in self._queries], kind="query", call=call)
                rows = zip(self._queries, vectors, strict=True)
                self._embedded[id(embedder)] = [replace(query, vector=row) for query, row in rows]
            return self._embedded[id(embedder)]


class Steps:
    """Asks stages.

    Args:
        documents: where text and vectors of candidates come from.
        kept: where scores are kept between questions; None keeps none.
    """

    def __init__(self, documents: Documents, kept: KeptScores | None = None) -> None:
        self._documents = documents
        self.kept = kept

    def ask(self, node: Node, asked: Sequence[Asked], call: Call) -> list[Answer]:
        """One answer a query, in their order; a pointwise rerank sees all of them in one batch.

        Raises:
            ValueError: the stage broke its contract.
        """
        if node.behaviour == "pointwise":
            return self._score(node, asked, call)
        if node.behaviour == "window":
            return self._windows_side_by_side(node, asked, call)
        if node.behaviour == "recall":
            return [self._recall(node, one, call) for one in asked]
        self._hand_over(node, asked, call)
        step = self._fuse if node.behaviour == "fusion" else self._rescore
        return [step(node, one, call) for one in asked]

    def read(self, node: Node, doc_ids: Sequence[str], call: Call) -> list[Document]:
        """As much of the documents as the stage needs, in the order of `doc_ids`."""
        return self._complete(node, self._texts(doc_ids, wanted="text" in node.needs), call)

    def scoring(self, node: Node, asked: Sequence[Asked]) -> Scoring:
        """What a pointwise rerank is to score, query by query, with the scores that are kept from before."""
        ids = _distinct(one.incoming for one in asked)
        documents = dict(zip(ids, self._texts(ids, wanted="text" in node.needs), strict=True))
        pairs = [(one.query, documents[doc_id]) for one in asked for doc_id in one.incoming.doc_ids]
        return Scoring(node, pairs, self.kept, partial(self._with_vectors, node))

    def windows(self, node: Node, one: Asked, call: Call, head: int | None = None) -> WindowsRead:
        """The documents that a window rerank is to order, the first `head` of those that came in."""
        return WindowsRead(node, one, self.read(node, one.incoming.doc_ids[:head], call), call, self.kept)

    def texts(self, doc_ids: Sequence[str]) -> dict[str, Document]:
        """Documents with their text, by id."""
        return dict(zip(doc_ids, self._documents.read(doc_ids), strict=True))

    def _recall(self, node: Node, one: Asked, call: Call) -> Answer:
        stage = cast(Recall, node.stage)
        pairs = stage.retrieve(one.query, node.top_k, call)
        return Answer(ranking.ranked_from_pairs(node.name, pairs, stage.score_kind))

    def _fuse(self, node: Node, one: Asked, call: Call) -> Answer:
        stage = cast(Fusion, node.stage)
        pairs = stage.fuse(one.query, one.inputs, call)
        return Answer(ranking.fused(node.name, pairs, stage.score_kind, one.inputs))

    def _rescore(self, node: Node, one: Asked, call: Call) -> Answer:
        stage, incoming = cast(ListRerank, node.stage), one.incoming
        seen = _without_part(incoming, node.inputs[0])
        scores = stage.rescore(one.query, seen, call) if len(incoming) else np.empty(0)
        return Answer(ranking.rescored(node.name, incoming, scores, stage.score_kind))

    def _windows_side_by_side(self, node: Node, asked: Sequence[Asked], call: Call) -> list[Answer]:
        """A window waits for the one before it, and mostly for somebody else's machine: queries need not wait too."""

        def ordered(one: Asked) -> Answer:
            windows = self.windows(node, one, call)
            windows.order()
            return windows.answer()

        with ThreadPoolExecutor(_QUERIES_AT_ONCE) as pool:
            try:
                return list(pool.map(ordered, asked))
            except BaseException:
                call.cancel()  # else the failure, or Ctrl-C, would wait for what the others still wait for
                raise

    def _score(self, node: Node, asked: Sequence[Asked], call: Call) -> list[Answer]:
        scoring = self.scoring(node, asked)
        missing = scoring.missing
        read = scoring.read(missing, call)
        try:
            scoring.take(missing, *read.scored(), read.not_to_keep)
        except TransientError:  # what had come is kept, so that it is not paid for again
            places, scores, spans = read.reported()
            scoring.take(missing[places], scores, spans)
            raise
        answers, start = [], 0
        for one in asked:
            end = start + len(one.incoming)
            answers.append(scored_answer(node, one.incoming, scoring, start, end))
            start = end
        return answers

    def _hand_over(self, node: Node, asked: Sequence[Asked], call: Call) -> None:
        """Give a stage that sees whole lists what it needs of their documents, read once for all queries."""
        if node.needs & {"text", "vectors", "statistics"}:
            call.in_corpus = self._documents.in_corpus
            text = "text" in node.needs or ("statistics" in node.needs and not call.in_corpus)
            ids = _distinct(ranked for one in asked for ranked in one.inputs.values())
            wanted = text or "vectors" in node.needs
            held = self._complete(node, self._texts(ids, wanted=text), call) if wanted else []
            call.documents = {document.doc_id: document for document in held}

    def _texts(self, doc_ids: Sequence[str], *, wanted: bool) -> list[Document]:
        return self._documents.read(doc_ids) if wanted else [Document(doc_id, "") for doc_id in doc_ids]

    def _with_vectors(self, node: Node, pairs: Sequence[Pair], call: Call) -> Sequence[Pair]:
        if "vectors" not in node.needs:
            return pairs
        distinct = {document.doc_id: document for _, document in pairs}
        complete = {document.doc_id: document for document in self._complete(node, list(distinct.values()), call)}
        return [(query, complete[document.doc_id]) for query, document in pairs]

    def _complete(self, node: Node, documents: Sequence[Document], call: Call) -> list[Document]:
        """The documents with their vectors, where the stage needs those."""
        if "vectors" not in node.needs or not documents:
            return list(documents)
        rows = self._documents.vectors(embedder_of(node), [document.doc_id for document in documents], call)
        return [
            Document(document.doc_id, document.text, document.title, document.metadata, row)
            for document, row in zip(documents, rows, strict=True)
        ]


class WindowsRead:
    """Documents that a window rerank orders. What whole windows have done stands, whenever it is stopped.

    Args:
        node: the stage.
        one: the query and what came in.
        documents: the first of those, as many as are to be ordered.
        call: of the stage.
        kept: where orders are kept; None keeps none.

    Attributes:
        hits: windows whose order was kept from before.
    """

    def __init__(
        self, node: Node, one: Asked, documents: Sequence[Document], call: Call, kept: KeptScores | None
    ) -> None:
        self._node, self._one, self._call = node, one, call
        self._stage = cast(WindowRerank, node.stage)
        self._kept, self._identity = kept, identity(node) if kept is not None else None
        self.state: tuple[list[int], int] = list(range(len(documents))), 0
        self._documents: list[Document] = list(documents)
        self._spans: list[Span | None] = [None] * len(documents)
        self.hits = 0

    @property
    def n_documents(self) -> int:
        """How many documents are to be ordered."""
        return len(self._documents)

    @property
    def n_windows(self) -> int:
        """Whole windows that are done."""
        return self.state[1]

    def is_kept(self) -> bool:
        """Whether the first window, the tail's, was ordered before, and so most likely the others too."""
        if self._kept is None or self._identity is None or not self._documents:
            return False
        documents, _ = read_once(self._stage, self._one.query, self._documents, self._node.passages, Call())
        window = getattr(self._stage, "window", WINDOW)
        return self._kept.order(self._identity, self._one.query, documents[-window:]) is not None

    def order(self) -> None:
        """Order them, window by window."""
        stage = self._stage
        window, stride = getattr(stage, "window", WINDOW), getattr(stage, "stride", STRIDE)
        passes = getattr(stage, "passes", PASSES)
        documents, self._spans = read_once(stage, self._one.query, self._documents, self._node.passages, self._call)
        order_by_windows(documents, window, stride, self._window, passes, self._done)

    def answer(self, places: Sequence[int] | None = None, n_scored: int | None = None) -> Answer:
        """What the windows that are done make of the list; documents that were not to be ordered follow.

        Args:
            places: of the state that counts; None is the present one.
            n_scored: documents that stood in a whole window; None is all that were to be ordered.
        """
        incoming, places = self._one.incoming, list(self.state[0] if places is None else places)
        scores = np.empty(len(places))
        scores[places] = ranking.surrogate_scores(len(places))
        rows = np.arange(len(places), dtype=np.intp)
        ranked = ranking.partly_rescored(self._node.name, incoming, rows, scores, self._stage.score_kind)
        shown = zip(incoming.doc_ids, self._spans, strict=False)
        spans = {doc_id: span for doc_id, span in shown if span is not None}
        return Answer(ranked, spans, self.hits, n_scored)

    def _done(self, places: Sequence[int]) -> None:
        # One assignment: whoever reads sees the state before a window, or after it.
        self.state = list(places), self.state[1] + 1

    def _window(self, shown: Sequence[Document]) -> Sequence[int]:
        query = self._one.query
        if self._kept is None or self._identity is None:
            return self._stage.order(query, shown, self._call)
        known = self._kept.order(self._identity, query, shown)
        if known is not None:
            self.hits += 1
            return known
        repairs = sum(self._call.repairs.values())
        order = self._stage.order(query, shown, self._call)
        if sum(self._call.repairs.values()) == repairs:  # an order that had to be mended is no answer to keep
            self._kept.keep_order(self._identity, query, shown, order, expires=self._node.is_remote)
        return order


def scored_answer(node: Node, incoming: RankedList, scoring: Scoring, start: int, end: int) -> Answer:
    """The answer of a pointwise rerank whose pairs `start` to `end` are the documents of `incoming`."""
    scores = scoring.scores[start:end]
    missing = np.flatnonzero(np.isnan(scores))
    # Only up to the first document that has no score: a bad one from far below would stand above better ones.
    rows = np.arange(int(missing[0]) if len(missing) else len(scores), dtype=np.intp)
    kind = cast(PointwiseRerank, node.stage).score_kind
    ranked = ranking.partly_rescored(node.name, incoming, rows, scores[rows], kind)
    shown = zip(incoming.doc_ids, scoring.spans[start:end], strict=True)
    spans = {doc_id: span for doc_id, span in shown if span is not None}
    return Answer(ranked, spans, int(scoring.was_kept[start:end].sum()))


def _without_part(incoming: RankedList, stage: str) -> RankedList:
    """`incoming` without the scores of `stage` where it scored some documents only, for want of time.

    A learned rerank would take those for better, or worse, than the rest just because they have a score.
    """
    if not 0 < incoming.n_scored < len(incoming):
        return incoming
    columns = {name: column for name, column in incoming.stage_scores.items() if name != stage}
    return replace(incoming, stage_scores=columns)


def embedder_of(node: Node) -> Embed:
    """The embedder of a stage that needs vectors.

    Raises:
        PipelineError: it has none.
    """
    embedder = getattr(node.stage, "embedder", None)
    if embedder is None:
        raise PipelineError(f"{node.path}.use", "needs vectors but has no `embedder`; give it `${models.embedder}`")
    return cast(Embed, embedder)


def _distinct(lists: Iterable[RankedList]) -> list[str]:
    """Ids of all lists, each once."""
    return list(dict.fromkeys(doc_id for ranked in lists for doc_id in ranked.doc_ids))
