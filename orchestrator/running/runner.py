"""Runs a StageGraph for one query or for many. A stage only scores; everything around it happens here."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from orchestrator import ranking
from orchestrator.answers.trace import Degraded, Result, StageTrace, Trace
from orchestrator.errors import TransientError, check_ms, naming
from orchestrator.log import get_logger
from orchestrator.running.by_query import ByQuery
from orchestrator.running.cutting import Span
from orchestrator.running.deadline import Clock
from orchestrator.running.limited import LimitedSteps, Outcome
from orchestrator.running.limits import Limits
from orchestrator.running.pace import Pace, Paces, pace_key
from orchestrator.running.recalls import Recalls, nothing_found
from orchestrator.running.scoring import KeptScores
from orchestrator.running.stage_results import SharedResults
from orchestrator.running.steps import Answer, Asked, Documents, QueryVectors, Steps
from orchestrator.stack.gate_languages import language_of
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stack.routes import left_aside, routes_of
from orchestrator.types import Call, Document, Query, RankedList

log = get_logger()

Given: TypeAlias = Mapping[str, Sequence[RankedList]]
_ENOUGH_TO_LEARN = 8
"""Documents from which, beside one, it can be seen what a stage takes for each."""


@dataclass
class _Run:
    """One query on its way through the graph: what each stage ranked, what it passed on, what it told.

    Attributes:
        language: what the query is in, where a gate asks for it.
        absent: stages that do not run for it, whatever is found, with the reason.
        aside: of those, the routes that it does not take.
    """

    query: Query
    language: str | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    aside: frozenset[str] = frozenset()
    full: dict[str, RankedList] = field(default_factory=dict)
    passed: dict[str, RankedList] = field(default_factory=dict)
    stages: list[StageTrace] = field(default_factory=list)
    degraded: list[Degraded] = field(default_factory=list)
    passages: dict[str, Span] = field(default_factory=dict)

    def inputs(self, node: Node) -> dict[str, RankedList]:
        """What a stage is given."""
        return {name: self.passed[name] for name in node.inputs}

    def refusal(self, node: Node, clock: Clock) -> str | None:
        """Why the stage does not run for this query, where its gate says so."""
        if node.name in self.absent:
            return self.absent[node.name]
        left_ms = None if clock.left_s is None else clock.left_s * 1000
        incoming = self.passed[node.inputs[0]] if node.kind == "rerank" else None
        return node.when.refusal(self.query, incoming, left_ms, self.language)

    def take(
        self, node: Node, outcome: Outcome, n_queries: int = 1, skipped: str | None = None, place: int = 0
    ) -> None:
        """Keep what came of a stage, which was asked this query as the one at `place` of `n_queries`."""
        ranked = outcome.answer.ranked
        self.full[node.name] = ranked
        # Scores of another stage, before it or in its place, are not what the cut judges.
        judged = skipped is None and node.name in ranked.stage_scores
        kept = node.cut.keep(ranked, node.top_k, node.stage.score_kind) if judged else node.top_k
        self.passed[node.name] = ranked if node.name in self.aside and skipped is not None else ranked.head(kept)
        self.passages.update(outcome.answer.spans)
        self.degraded += outcome.degraded
        told = self._told(node, outcome, n_queries, skipped, place)
        self.stages.append(told)
        log.debug(
            "stage.done", query_id=self.query.query_id, stage=told.stage, n_in=told.n_in, n_out=told.n_out, ms=told.ms
        )

    def _told(self, node: Node, outcome: Outcome, n_queries: int, skipped: str | None, place: int) -> StageTrace:
        call, answer = outcome.call, outcome.answer
        return StageTrace(
            node.name,
            node.kind,
            outcome.seconds * 1000 / n_queries,
            sum(len(self.passed[name]) for name in node.inputs),
            len(self.passed[node.name]),
            cache_hits=answer.hits,
            tokens=_share(call.tokens, n_queries, place),
            cost_usd=call.cost_usd / n_queries,
            repairs=dict(call.repairs),
            passages=_share(call.passages, n_queries, place),
            notes=tuple(call.notes),
            n_scored=0
            if skipped is not None
            else answer.ranked.n_scored
            if answer.n_scored is None
            else answer.n_scored,
            skipped=skipped,
            allowed_ms=None if outcome.allowed_s is None else outcome.allowed_s * 1000,
            started_ms=outcome.started_s * 1000,
            reused=outcome.reused,
        )


class Runner:
    """Runs one graph. Keeps no state between calls but what it learns of the machine, so several threads may share it.

    Args:
        graph: the stages, loaded.
        documents: where text and vectors of candidates come from.
        budget_ms: of one query, from its coming to its answer; None is none.
        kept: where scores are kept between questions; None keeps none.
        paces: what stages take on this machine; None learns anew.
        corpus: names the corpus, for what recalls take.
    """

    def __init__(
        self,
        graph: StageGraph,
        documents: Documents,
        budget_ms: float | None = None,
        kept: KeptScores | None = None,
        paces: Paces | None = None,
        corpus: str = "",
    ) -> None:
        self._graph = graph
        self._budget_ms = budget_ms
        self._paces = paces or Paces()
        by_name = {node.name: self._paces.of(pace_key(node, corpus)) for node in graph.all_nodes}
        self._documents, self._kept = documents, kept
        self._warming = threading.Lock()
        self._is_warm = False
        self._limits = Limits(graph, by_name, self._paces.of("reading"))
        self._routes = routes_of(graph)
        self._languages = tuple(code for node in graph.nodes for code in node.when.asked)

    @property
    def is_warm(self) -> bool:
        """Whether `warm_up` was called."""
        return self._is_warm

    @property
    def has_limits(self) -> bool:
        """Whether time decides how much is done: there is a budget, or a stage has a limit of its own."""
        return self._budget_ms is not None or any(node.max_ms is not None for node in self._graph.nodes)

    def run(
        self,
        queries: Sequence[Query],
        given: Given | None = None,
        *,
        read_documents: bool = True,
        budget_ms: float | None = None,
        enforce_budget: bool = True,
        use_kept: bool = True,
        by_query: bool = False,
        shared: SharedResults | None = None,
    ) -> list[Result]:
        """One result a query, in the order of `queries`.

        Where no time is limited, several queries at once go through the graph stage by stage, so that a model sees
        large batches; scores are the same as one at a time, times are the batch's divided by the queries. Where it is,
        each query is answered by itself, inside its budget.

        Args:
            queries: what to answer.
            given: outputs of stages that are not in the graph: stage name -> one list a query.
            read_documents: whether the results hold the text of their documents.
            budget_ms: of each query, in place of the runner's own.
            enforce_budget: whether the budget, and `max_ms` of stages, are kept by leaving things out.
            use_kept: whether scores that are kept from earlier questions may be used.
            by_query: whether each stage is asked for each query by itself, so that nothing of an answer depends on the
                other queries: for figures. Only where no time is limited.
            shared: with `by_query`, where whole results of stages are kept between jobs; None keeps none. Never where
                time is measured.

        Raises:
            StageError: a stage failed, or broke its contract.
        """
        check_ms("budget_ms", budget_ms)
        budget = self._budget_ms if budget_ms is None else budget_ms
        limited = enforce_budget and (budget_ms is not None or self.has_limits)
        kept = self._kept if use_kept else None
        each = ByQuery(self._documents, queries, kept, shared) if by_query and queries and not limited else None
        steps = Steps(self._documents, kept) if each is None else each.steps
        if each is not None or (len(queries) > 1 and not limited):
            results = self._together(_runs(queries, given), steps, read_documents, each)
            if results is not None:
                return results
        return [self._one(run, steps, read_documents, budget, limited) for run in _runs(queries, given)]

    def warm_up(self, query: Query, given: Given | None = None) -> None:
        """Answer `query` on a few documents: what only the first question of a process pays is paid here.

        What is not known yet is learned from it: what stages take for one document, and for several. Stages on somebody
        else's machine are left alone. Does nothing the second time.

        Raises:
            StageError: a stage failed.
        """
        with self._warming:
            if not self._is_warm:
                self._warm_up(query, given)
                self._is_warm = True

    def _warm_up(self, query: Query, given: Given | None) -> None:
        self._warm(query, given or {}, 1, _unknown(self._graph))
        is_known = all(self._limits.pace(node).is_known for node in self._graph.all_nodes if not node.is_remote)
        for n_documents in () if is_known else (1, _ENOUGH_TO_LEARN):
            self._warm(query, given or {}, n_documents, self._limits.lifted())

    def _warm(self, query: Query, given: Given, n_documents: int, limits: Limits) -> None:
        steps, vectors, clock = Steps(self._documents), QueryVectors([query]), Clock()
        if self._languages:  # what tells languages apart is read from disk by the first question
            language_of(Query(query.query_id, query.text), self._languages)
        run = _Run(query, passed={name: lists[0] for name, lists in given.items()})
        local = [node for node in self._graph.nodes if not node.is_remote]
        recalls = [node for node in local if node.kind == "recall"]
        found = Recalls(steps, limits).ask(recalls, vectors, query.query_id, clock) if recalls else {}
        asker = LimitedSteps(steps, limits)
        for node in self._graph.nodes:
            inputs = run.inputs(node)
            if node.kind == "rerank":
                inputs = {name: ranked.head(n_documents) for name, ranked in inputs.items()}
            for other in node.fallbacks:
                if not other.is_remote:
                    with naming(node.name, None):
                        asker.ask(other, inputs, vectors, clock)
            if node.is_remote:
                run.take(node, _passed_on(node, inputs))
            elif node.kind == "recall":
                run.take(node, found[node.name])
            else:
                with naming(node.name, None):
                    run.take(node, asker.ask(node, inputs, vectors, clock))

    def _ask_gates(self, run: _Run) -> None:
        """Find out what the question alone decides: its language, and which stages do not run for it."""
        run.language = language_of(run.query, self._languages) if self._languages else None
        refusals = {node.name: node.when.question_refusal(run.query, run.language) for node in self._graph.nodes}
        run.absent = {name: why for name, why in refusals.items() if why is not None}
        run.aside = left_aside(self._routes, run.language) if run.language else frozenset()

    def _one(self, run: _Run, steps: Steps, read_documents: bool, budget_ms: float | None, limited: bool) -> Result:
        """The answer to one query by itself."""
        clock = Clock(budget_ms / 1000 if limited and budget_ms is not None else None)
        self._ask_gates(run)
        limits = self._limits.without(run.absent, run.aside) if limited else self._limits.lifted()
        vectors, asker = QueryVectors([run.query]), LimitedSteps(steps, limits)
        recalls = [node for node in self._graph.nodes if node.kind == "recall"]
        refused = {node.name: why for node in recalls if (why := run.refusal(node, clock)) is not None}
        asked = [node for node in recalls if node.name not in refused]
        found = Recalls(steps, limits).ask(asked, vectors, run.query.query_id, clock) if asked else {}
        for node in self._graph.nodes:
            if node.kind != "recall" and (why := run.refusal(node, clock)) is not None:
                refused[node.name] = why
            if node.name in refused:
                run.take(node, _passed_on(node, run.inputs(node)), skipped=refused[node.name])
            elif node.kind == "recall":
                run.take(node, found[node.name])
            else:
                with naming(node.name, run.query.query_id):
                    run.take(node, asker.ask(node, run.inputs(node), vectors, clock))
        before = clock.elapsed_s
        documents = self._texts([run], steps) if read_documents else {}
        if documents:
            n = len(documents)
            limits.reading.observe(n, clock.elapsed_s - before)
            limits.reading.observe_stage(n, n, 0.0)
        self._paces.learned()
        trace = _trace(run, clock.elapsed_s * 1000, budget_ms, limited)
        return self._result(run, trace, documents)

    def _together(
        self, runs: list[_Run], steps: Steps, read_documents: bool, each: ByQuery | None
    ) -> list[Result] | None:
        """The answers to several queries, whose time nothing limits, stage by stage; by `each`, query by query there.

        None where they have to be asked one by one: a stage failed in a way that may pass, and a question goes on
        without it.
        """
        started, vectors = time.perf_counter(), QueryVectors([run.query for run in runs])
        for run in runs:
            self._ask_gates(run)
        for node in self._graph.nodes:
            with naming(node.name, None):
                try:
                    if each is not None:
                        self._step_by_query(node, runs, each, started)
                    else:
                        self._step(node, runs, steps, vectors, started)
                except TransientError:
                    if not node.on_error.carries_on(is_remote=node.is_remote):
                        raise
                    return None
        documents = self._texts(runs, steps) if read_documents else {}
        total_ms = (time.perf_counter() - started) * 1000 / len(runs)
        return [self._result(run, _trace(run, total_ms, self._budget_ms, False), documents) for run in runs]

    def _step_by_query(self, node: Node, runs: list[_Run], each: ByQuery, started: float) -> None:
        refused = [run.refusal(node, Clock()) for run in runs]
        begun = time.perf_counter()
        inputs = {place: run.inputs(node) for place, run in enumerate(runs) if refused[place] is None}
        outcomes = each.ask(node, inputs)
        for place, run in enumerate(runs):
            if place in outcomes:
                outcomes[place].started_s = (begun - started) / len(runs)
                run.take(node, outcomes[place])
            else:
                run.take(node, _passed_on(node, run.inputs(node)), skipped=refused[place])

    def _step(self, node: Node, runs: list[_Run], steps: Steps, vectors: QueryVectors, started: float) -> None:
        refused = [run.refusal(node, Clock()) for run in runs]
        asked = [place for place, why in enumerate(refused) if why is None]
        call, begun = Call(), time.perf_counter()
        queries = vectors.of(node, call) if asked else []
        answers = steps.ask(node, [Asked(queries[place], runs[place].inputs(node)) for place in asked], call)
        seconds = time.perf_counter() - begun
        for nth, (place, answer) in enumerate(zip(asked, answers, strict=True)):
            outcome = Outcome(answer, call, started_s=(begun - started) / len(runs), seconds=seconds)
            runs[place].take(node, outcome, len(asked), place=nth)
        for run, why in zip(runs, refused, strict=True):
            if why is not None:
                run.take(node, _passed_on(node, run.inputs(node)), skipped=why)

    def _texts(self, runs: Sequence[_Run], steps: Steps) -> dict[str, Document]:
        last = self._graph.result.name
        return steps.texts(list(dict.fromkeys(doc_id for run in runs for doc_id in run.passed[last].doc_ids)))

    def _result(self, run: _Run, trace: Trace, documents: Mapping[str, Document]) -> Result:
        ranked = run.passed[self._graph.result.name]
        held = {doc_id: documents[doc_id] for doc_id in ranked.doc_ids if doc_id in documents}
        spans = {doc_id: run.passages[doc_id] for doc_id in ranked.doc_ids if doc_id in run.passages}
        return Result(run.query, ranked, trace, run.full, self._graph, held, spans)


def _share(total: int, n_queries: int, place: int) -> int:
    """What the query at `place` has of `total`: as even as whole numbers are, and `total` together."""
    return total * (place + 1) // n_queries - total * place // n_queries


def _trace(run: _Run, total_ms: float, budget_ms: float | None, enforced: bool) -> Trace:
    return Trace(total_ms, budget_ms, tuple(run.stages), tuple(run.degraded), enforced, run.language)


def _runs(queries: Sequence[Query], given: Given | None) -> list[_Run]:
    runs = [_Run(query) for query in queries]
    for name, lists in (given or {}).items():
        for run, ranked in zip(runs, lists, strict=True):
            run.full[name] = run.passed[name] = ranked
    return runs


def _passed_on(node: Node, inputs: Mapping[str, RankedList]) -> Outcome:
    """The outcome of a stage that did not run: what it was given, as it came; of a recall nothing."""
    answer = nothing_found(node) if node.kind == "recall" else Answer(ranking.unscored(next(iter(inputs.values()))))
    return Outcome(answer, Call())


def _unknown(graph: StageGraph) -> Limits:
    """No limits, and paces that nobody keeps."""
    return Limits(graph, {node.name: Pace() for node in graph.all_nodes}, Pace(), are_kept=False)
