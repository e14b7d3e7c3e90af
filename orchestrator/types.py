"""What passes between stages: queries, documents, ranked lists. No heavy imports, nothing mutable but `Call`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from orchestrator.log import get_logger

log = get_logger()

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
Scores: TypeAlias = npt.NDArray[np.float64]
Vectors: TypeAlias = npt.NDArray[np.float32]

ScoreKind = Literal[
    "bm25", "cosine", "dot", "maxsim", "logit", "probability", "rrf", "weighted", "rank", "ltr", "graded"
]
Need = Literal["text", "vectors", "scores", "statistics"]
TextKind = Literal["query", "document"]


@dataclass(frozen=True, slots=True)
class Query:
    """A question.

    Attributes:
        query_id: names it in runs and judgements.
        text: the question itself.
        language: ISO 639-1 code, or None when not known.
        vector: float32 [dim], set by the runner for stages that need vectors, from that stage's own embedder.
    """

    query_id: str
    text: str
    language: str | None = None
    vector: Vectors | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Document:
    """A document, or as much of it as the stage that gets it needs.

    Attributes:
        doc_id: names it in the corpus, in runs and judgements.
        text: the body; empty for a stage whose `needs` lacks `text`.
        title: may be empty.
        metadata: whatever else the corpus file holds for it.
        vector: float32 [dim], set by the runner for stages that need vectors, from that stage's own embedder.
    """

    doc_id: str
    text: str
    title: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict, hash=False)
    vector: Vectors | None = field(default=None, compare=False, repr=False)

    @property
    def full_text(self) -> str:
        """Title and body as models and indexes read them: one string, title first."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """One text as late interaction reads it: a vector for every token that counts.

    Attributes:
        vectors: float32 [n_tokens, dim], each of length 1, so that products are cosines. At least one row.
        token_ids: int32 [n_tokens], the token of each row in the model's vocabulary.
    """

    vectors: Vectors
    token_ids: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class SparseVector:
    """One text as weights of a few dimensions: terms, or entries of a vocabulary. All other dimensions are 0.

    Attributes:
        indices: uint32 [n], ascending, each once.
        values: float32 [n].
    """

    indices: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row of a RankedList.

    Attributes:
        rank: position from 1.
        score: the score of the last stage that scored it.
        scores: every stage's native score by stage name.
        scored: False when the last stage did not get to it.
        score_kind: what `score` is; another kind than the list's where the last stage did not get to it.
    """

    doc_id: str
    rank: int
    score: float
    scores: Mapping[str, float]
    scored: bool = True
    score_kind: ScoreKind | None = None


@dataclass(frozen=True, slots=True)
class RankedList:
    """Documents in order, best first, with every stage's score. Immutable; no document stands twice.

    Columns instead of objects, so that a thousand candidates cost microseconds to pass on.

    Attributes:
        doc_ids: in rank order.
        scores: float64 [n], the score that orders the list, within the scored rows and within each part of the tail;
            NaN never occurs.
        score_kind: what that score is in the scored rows; where none is, in the first row.
        stage_scores: stage name -> float64 [n], NaN where the stage did not score the document.
        n_scored: the first so many were scored by the last stage; the rest, the tail, follow in their incoming order.
        tail: (one past the last row, kind of its scores) of each part of the tail, in order: rows that the last stage
            did not get to keep the score that they came with.
    """

    doc_ids: tuple[str, ...]
    scores: Scores
    score_kind: ScoreKind
    stage_scores: Mapping[str, Scores] = field(default_factory=dict)
    n_scored: int = -1
    tail: tuple[tuple[int, ScoreKind], ...] = ()

    def __post_init__(self) -> None:
        if self.n_scored < 0:
            object.__setattr__(self, "n_scored", len(self.doc_ids))

    def __len__(self) -> int:
        return len(self.doc_ids)

    def __iter__(self) -> Iterator[Candidate]:
        columns = [(name, column.tolist()) for name, column in self.stage_scores.items()]
        for row, (doc_id, score) in enumerate(zip(self.doc_ids, self.scores.tolist(), strict=True)):
            native = {name: column[row] for name, column in columns if column[row] == column[row]}
            yield Candidate(doc_id, row + 1, score, native, row < self.n_scored, self.kind_at(row))

    @property
    def parts(self) -> tuple[tuple[int, ScoreKind], ...]:
        """(one past the last row, kind of its scores) of the scored rows and of each part of the tail; none empty."""
        scored: tuple[tuple[int, ScoreKind], ...] = ((self.n_scored, self.score_kind),) if self.n_scored else ()
        return scored + self.tail

    def kind_at(self, row: int) -> ScoreKind:
        """What the score of row `row`, from 0, is."""
        return next((kind for end, kind in self.parts if row < end), self.score_kind)

    def head(self, top_k: int) -> RankedList:
        """The first `top_k` rows; the list itself when it is no longer than that."""
        if top_k >= len(self.doc_ids):
            return self
        columns = {name: column[:top_k] for name, column in self.stage_scores.items()}
        n_scored = min(self.n_scored, top_k)
        starts = [n_scored, *(end for end, _ in self.tail)]
        kept = zip(starts, self.tail, strict=False)
        tail = tuple((min(end, top_k), kind) for start, (end, kind) in kept if start < top_k)
        return RankedList(self.doc_ids[:top_k], self.scores[:top_k], self.score_kind, columns, n_scored, tail)


@dataclass(frozen=True, slots=True)
class Example:
    """The candidates of one query as a learner sees them.

    Attributes:
        query_id: the query.
        doc_ids: its candidates.
        features: float32 [n_candidates, n_features], NaN where a value is not known.
        grades: float32 [n_candidates], 0 for documents that nobody judged.
    """

    query_id: str
    doc_ids: tuple[str, ...]
    features: Vectors
    grades: Vectors


class Call:
    """What one call of a stage may use, and where it tells what it spent.

    Safe to use from several threads.

    Args:
        remaining_s: seconds this call may take from now on, or None without a budget.
        documents: for a fusion or a list rerank, its candidates by id: with text, vector or both, as its `needs` say.
        in_corpus: whether candidates are documents of the corpus, by their id. When the caller brought them, a stage
            that needs `statistics` finds their text in `documents`, and must not look their ids up in its index.
    """

    def __init__(
        self,
        remaining_s: float | None = None,
        documents: Mapping[str, Document] | None = None,
        in_corpus: bool = True,
    ) -> None:
        self._ends_at = None if remaining_s is None else time.monotonic() + remaining_s
        self.documents: Mapping[str, Document] = documents or {}
        self.in_corpus = in_corpus
        self.tokens = 0
        self.cost_usd = 0.0
        self.repairs: dict[str, int] = {}
        self.passages = 0
        self.notes: list[str] = []
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._stopping = threading.RLock()
        self._stops: list[Callable[[], object]] = []
        self._reported: dict[int, float] = {}
        self._not_to_keep: frozenset[int] = frozenset()

    @property
    def remaining_s(self) -> float | None:
        """Seconds that are left of what this call may take, never below 0; None without a budget."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """True once the runner no longer waits for this call."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Tell the stage that nobody waits for this call any more, and stop what is in flight."""
        with self._stopping:
            self._cancelled.set()
            for stop in tuple(self._stops):
                _without_fail(stop)

    @contextlib.contextmanager
    def on_cancel(self, stop: Callable[[], object]) -> Iterator[None]:
        """While the block runs, `cancel()` calls `stop`; at once where the call is cancelled already.

        Args:
            stop: ends what the block waits for; quick, from any thread, perhaps more than once. What it raises is
                logged. It never runs after the block, so that it cannot hit what comes next.
        """
        with self._stopping:
            self._stops.append(stop)
            if self.cancelled:
                _without_fail(stop)
        try:
            yield
        finally:
            with self._stopping:
                self._stops.remove(stop)

    @property
    def reported(self) -> dict[int, float]:
        """Row -> score of the pairs whose scores have arrived, a copy: what there is when the time ends."""
        with self._lock:
            return dict(self._reported)

    def report(self, rows: Sequence[int], scores: Sequence[float]) -> None:
        """Tell scores of single pairs as they arrive; for a pointwise stage that waits for many answers.

        Args:
            rows: places in the `pairs` of this call.
            scores: of each of them, final.
        """
        with self._lock:
            self._reported.update(zip(map(int, rows), map(float, scores), strict=True))

    @property
    def not_to_keep(self) -> frozenset[int]:
        """Places in the `pairs` of this call whose scores are no answer of the model, as `unkept` was told."""
        with self._lock:
            return self._not_to_keep

    def unkept(self, rows: Sequence[int]) -> None:
        """Tell scores that must not be kept for later questions: the model gave none, and the stage put one there.

        Args:
            rows: places in the `pairs` of this call.
        """
        with self._lock:
            self._not_to_keep |= frozenset(map(int, rows))

    def add(self, other: Call) -> None:
        """Count what a part of this call spent and told, which may be a part that still runs.

        Rows are not taken over: they are places in the part's own `pairs`.
        """
        with other._lock:
            tokens, cost_usd, passages = other.tokens, other.cost_usd, other.passages
            repairs, notes = tuple(other.repairs.items()), tuple(other.notes)
        self.count(tokens=tokens, cost_usd=cost_usd, passages=passages)
        for kind, times in repairs:
            self.repair(kind, times)
        for text in notes:
            self.note(text)

    def count(self, *, tokens: int = 0, cost_usd: float = 0.0, passages: int = 0) -> None:
        """Add to what this call has spent: model tokens, US dollars, parts of long documents."""
        with self._lock:
            self.tokens += tokens
            self.cost_usd += cost_usd
            self.passages += passages

    def repair(self, kind: str, times: int = 1) -> None:
        """Declare that something in a reply of a remote model had to be mended, or replaced by what stood before it.

        Args:
            kind: of what was wrong, one word: `missing`, `duplicate`, `out_of_range`, `truncated`, `refusal`, `empty`,
                `unparsed`, or another.
            times: how often; 0 counts nothing.
        """
        with self._lock:
            if times:
                self.repairs[kind] = self.repairs.get(kind, 0) + times

    def note(self, text: str) -> None:
        """Declare something about this call in the trace, for example an exact scan in place of an index."""
        with self._lock:
            if text not in self.notes:
                self.notes.append(text)


def _without_fail(stop: Callable[[], object]) -> None:
    try:
        stop()
    except Exception as error:  # noqa: BLE001 - whatever it was, the others are to stop too
        log.warning("call.stop", reason=f"{type(error).__name__}: {error}")


Scored: TypeAlias = Sequence[tuple[str, float]]
