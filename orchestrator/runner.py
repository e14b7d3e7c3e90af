"""Runs a StageGraph for one query or for many. A stage only scores; everything around it happens here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, cast

import numpy as np

from orchestrator import ranking
from orchestrator.cutting import Span
from orchestrator.errors import OrchestratorError, PipelineError, RemoteError, StageError, named
from orchestrator.graph import Behaviour, Node, StageGraph
from orchestrator.log import get_logger
from orchestrator.passage_scores import read_once, score_cut
from orchestrator.stage import Embed, Fusion, ListRerank, PointwiseRerank, Recall, WindowRerank
from orchestrator.trace import Result, StageTrace, Trace
from orchestrator.types import Call, Document, Query, RankedList, Vectors
from orchestrator.windows import PASSES, STRIDE, WINDOW, order_by_windows

log = get_logger()

_QUERIES_AT_ONCE = 8


class Documents(Protocol):
    """Where the runner gets what a stage needs of its candidates: a corpus, or what the caller brought."""

    @property
    def in_corpus(self) -> bool:
        """Whether these are documents of the corpus, so that an index of it knows them."""

    def read(self, doc_ids: Sequence[str]) -> list[Document]:
        """Documents with text, in the order of `doc_ids`."""

    def vectors(self, embedder: Embed, doc_ids: Sequence[str]) -> Vectors:
        """float32 [n, dim], in the order of `doc_ids`."""


@dataclass
class _Run:
    """One query on its way through the graph: what each stage ranked, what it passed on, what it told."""

    query: Query
    full: dict[str, RankedList] = field(default_factory=dict)
    passed: dict[str, RankedList] = field(default_factory=dict)
    stages: list[StageTrace] = field(default_factory=list)
    passages: dict[str, Span] = field(default_factory=dict)


_Step: TypeAlias = Callable[[Node, list[_Run], list[Query], Call], list[RankedList]]


class Runner:
    """Runs one graph. Keeps no state between calls, so several threads may share it.

    Args:
        graph: the stages, loaded.
        documents: where text and vectors of candidates come from.
        budget_ms: written into the trace.
    """

    def __init__(self, graph: StageGraph, documents: Documents, budget_ms: float | None = None) -> None:
        self._graph = graph
        self._documents = documents
        self._budget_ms = budget_ms
        self._steps: Mapping[Behaviour, _Step] = {
            "recall": self._recall,
            "fusion": self._fuse,
            "pointwise": self._score,
            "list": self._rescore,
            "window": self._order,
        }

    def run(
        self,
        queries: Sequence[Query],
        given: Mapping[str, Sequence[RankedList]] | None = None,
        *,
        read_documents: bool = True,
    ) -> list[Result]:
        """One result a query, in the order of `queries`.

        Several queries at once go through the graph stage by stage, so that a model sees large batches; scores are
        the same as one at a time, times are the batch's divided by the queries.

        Args:
            queries: what to answer.
            given: outputs of stages that are not in the graph: stage name -> one list a query.
            read_documents: whether the results hold the text of their documents.

        Raises:
            StageError: a stage failed, or broke its contract.
        """
        runs = [_Run(query) for query in queries]
        if not runs:
            return []
        for name, lists in (given or {}).items():
            for run, ranked in zip(runs, lists, strict=True):
                run.full[name] = run.passed[name] = ranked
        memo: dict[int, list[Query]] = {}
        started = time.perf_counter()
        for node in self._graph.nodes:
            self._step(node, runs, memo)
        documents = self._texts(runs) if read_documents else {}
        total_ms = _ms_since(started, len(runs))
        return [self._result(run, total_ms, documents) for run in runs]

    def _step(self, node: Node, runs: list[_Run], memo: dict[int, list[Query]]) -> None:
        call = Call()
        started = time.perf_counter()
        try:
            with named(node.name):
                queries = self._queries(node, runs, memo, call)
                outputs = self._steps[node.behaviour](node, runs, queries, call)
        except RemoteError as error:
            raise StageError(node.name, _only_query_id(runs), str(error)) from error
        except OrchestratorError:
            raise
        except Exception as error:
            raise StageError(node.name, _only_query_id(runs), f"{type(error).__name__}: {error}") from error
        ms = _ms_since(started, len(runs))
        for run, full in zip(runs, outputs, strict=True):
            n_in = sum(len(run.passed[name]) for name in node.inputs)
            run.full[node.name] = full
            run.passed[node.name] = full.head(node.top_k)
            told = _trace(node, ms, n_in, len(run.passed[node.name]), call, len(runs))
            run.stages.append(told)
            log.debug("stage.done", query_id=run.query.query_id, stage=node.name, n_in=n_in, n_out=told.n_out, ms=ms)

    def _queries(self, node: Node, runs: list[_Run], memo: dict[int, list[Query]], call: Call) -> list[Query]:
        """The queries as this stage needs them; each embedder embeds them once a run, for all its stages."""
        queries = [run.query for run in runs]
        if "vectors" not in node.needs or not queries:
            return queries
        embedder = _embedder(node)
        if id(embedder) not in memo:
            vectors = embedder.embed([query.text for query in queries], kind="query", call=call)
            memo[id(embedder)] = [replace(query, vector=row) for query, row in zip(queries, vectors, strict=True)]
        return memo[id(embedder)]

    def _recall(self, node: Node, _: list[_Run], queries: list[Query], call: Call) -> list[RankedList]:
        stage = cast(Recall, node.stage)
        found = [stage.retrieve(query, node.top_k, call) for query in queries]
        return [ranking.ranked_from_pairs(node.name, pairs, stage.score_kind) for pairs in found]

    def _fuse(self, node: Node, runs: list[_Run], queries: list[Query], call: Call) -> list[RankedList]:
        stage = cast(Fusion, node.stage)
        self._hand_over(node, runs, call)
        outputs = []
        for run, query in zip(runs, queries, strict=True):
            lists = {name: run.passed[name] for name in node.inputs}
            pairs = stage.fuse(query, lists, call)
            outputs.append(ranking.fused(node.name, pairs, stage.score_kind, lists))
        return outputs

    def _rescore(self, node: Node, runs: list[_Run], queries: list[Query], call: Call) -> list[RankedList]:
        stage = cast(ListRerank, node.stage)
        self._hand_over(node, runs, call)
        outputs = []
        for run, query in zip(runs, queries, strict=True):
            incoming = run.passed[node.inputs[0]]
            scores = stage.rescore(query, incoming, call) if len(incoming) else np.empty(0)
            outputs.append(ranking.rescored(node.name, incoming, scores, stage.score_kind))
        return outputs

    def _order(self, node: Node, runs: list[_Run], queries: list[Query], call: Call) -> list[RankedList]:
        stage = cast(WindowRerank, node.stage)
        lists = [run.passed[node.inputs[0]] for run in runs]
        documents = self._read(node, _distinct(lists), text="text" in node.needs)
        window, stride = getattr(stage, "window", WINDOW), getattr(stage, "stride", STRIDE)
        passes = getattr(stage, "passes", PASSES)

        def ordered(run: _Run, query: Query, incoming: RankedList) -> RankedList:
            held = [documents[doc_id] for doc_id in incoming.doc_ids]
            held, spans = read_once(stage, query, held, node.passages, call)
            _remember([run], [incoming], spans)
            places = order_by_windows(held, window, stride, lambda shown: stage.order(query, shown, call), passes)
            scores = np.empty(len(places))
            scores[places] = ranking.surrogate_scores(len(places))
            return ranking.rescored(node.name, incoming, scores, stage.score_kind)

        # A window waits for the one before it, and mostly for somebody else's machine: queries wait side by side.
        with ThreadPoolExecutor(_QUERIES_AT_ONCE) as pool:
            try:
                return list(pool.map(ordered, runs, queries, lists))
            except BaseException:
                call.cancel()  # else the failure, or Ctrl-C, would wait for what the others still wait for
                raise

    def _score(self, node: Node, runs: list[_Run], queries: list[Query], call: Call) -> list[RankedList]:
        stage = cast(PointwiseRerank, node.stage)
        lists = [run.passed[node.inputs[0]] for run in runs]
        documents = self._read(node, _distinct(lists), text="text" in node.needs)
        pairs = [
            (query, documents[doc_id])
            for query, ranked in zip(queries, lists, strict=True)
            for doc_id in ranked.doc_ids
        ]
        scores, spans = score_cut(stage, pairs, node.passages, call)
        _remember(runs, lists, spans)
        parts = np.split(scores, np.cumsum([len(ranked) for ranked in lists])[:-1])
        return [
            ranking.rescored(node.name, ranked, part, stage.score_kind)
            for ranked, part in zip(lists, parts, strict=True)
        ]

    def _hand_over(self, node: Node, runs: list[_Run], call: Call) -> None:
        """Give a stage that sees whole lists what it needs of their documents, read once for all queries."""
        if node.needs & {"text", "vectors", "statistics"}:
            call.in_corpus = self._documents.in_corpus
            text = "text" in node.needs or ("statistics" in node.needs and not call.in_corpus)
            ids = _distinct(run.passed[name] for run in runs for name in node.inputs)
            call.documents = self._read(node, ids, text=text) if text or "vectors" in node.needs else {}

    def _read(self, node: Node, ids: list[str], *, text: bool) -> dict[str, Document]:
        """As much of the documents as the stage needs."""
        documents = self._documents.read(ids) if text else [Document(doc_id, "") for doc_id in ids]
        if "vectors" in node.needs and ids:
            rows = self._documents.vectors(_embedder(node), ids)
            documents = [
                Document(document.doc_id, document.text, document.title, document.metadata, row)
                for document, row in zip(documents, rows, strict=True)
            ]
        return dict(zip(ids, documents, strict=True))

    def _texts(self, runs: list[_Run]) -> dict[str, Document]:
        last = self._graph.result.name
        ids = list(dict.fromkeys(doc_id for run in runs for doc_id in run.passed[last].doc_ids))
        return dict(zip(ids, self._documents.read(ids), strict=True))

    def _result(self, run: _Run, total_ms: float, documents: Mapping[str, Document]) -> Result:
        ranked = run.passed[self._graph.result.name]
        held = {doc_id: documents[doc_id] for doc_id in ranked.doc_ids if doc_id in documents}
        trace = Trace(total_ms, self._budget_ms, tuple(run.stages))
        spans = {doc_id: run.passages[doc_id] for doc_id in ranked.doc_ids if doc_id in run.passages}
        return Result(run.query, ranked, trace, run.full, self._graph, held, spans)


def _remember(runs: Sequence[_Run], lists: Sequence[RankedList], spans: Sequence[Span | None]) -> None:
    """Keep the best window of each document; `spans` are of the documents of all lists, one after another."""
    left = iter(spans)
    for run, ranked in zip(runs, lists, strict=True):
        run.passages.update({doc_id: span for doc_id in ranked.doc_ids if (span := next(left)) is not None})


def _only_query_id(runs: Sequence[_Run]) -> str | None:
    return runs[0].query.query_id if len(runs) == 1 else None


def _distinct(lists: Iterable[RankedList]) -> list[str]:
    """Ids of all lists, each once."""
    return list(dict.fromkeys(doc_id for ranked in lists for doc_id in ranked.doc_ids))


def _embedder(node: Node) -> Embed:
    embedder = getattr(node.stage, "embedder", None)
    if embedder is None:
        raise PipelineError(f"{node.path}.use", "needs vectors but has no `embedder`; give it `${models.embedder}`")
    return cast(Embed, embedder)


def _ms_since(started: float, n_runs: int) -> float:
    return (time.perf_counter() - started) * 1000 / max(n_runs, 1)


def _trace(node: Node, ms: float, n_in: int, n_out: int, call: Call, n_runs: int) -> StageTrace:
    return StageTrace(
        node.name,
        node.kind,
        ms,
        n_in,
        n_out,
        tokens=round(call.tokens / n_runs),
        cost_usd=call.cost_usd / n_runs,
        repairs=dict(call.repairs),
        passages=round(call.passages / n_runs),
        notes=tuple(call.notes),
    )
