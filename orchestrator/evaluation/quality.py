"""Quality of a pipeline and of each of its stages: queries in batches, on the uncut rankings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from orchestrator.answers.reused import Reused
from orchestrator.answers.trace import Result, Trace
from orchestrator.errors import ConfigError
from orchestrator.evaluation.by_language import Tell, group_of
from orchestrator.evaluation.latency import Answer
from orchestrator.evaluation.measures import Measures, PerQuery, Qrels, Rankings
from orchestrator.evaluation.spent import Spent
from orchestrator.evaluation.work import Work
from orchestrator.stack.graph import Node
from orchestrator.stage import Progress, no_progress
from orchestrator.types import Query

JudgedIds: TypeAlias = Callable[[Sequence[str]], Sequence[str]]

USUAL_CUTOFF = 10


@dataclass(frozen=True, slots=True)
class Ranked:
    """The rankings of one system, and what they are worth.

    Attributes:
        rankings: query id -> ids, best first; a query may be missing.
        per_query: query id -> measure -> value, of every judged query.
        means: measure -> mean over the judged queries.
        unjudged: k -> share of the first k documents that nobody judged.
    """

    rankings: Rankings = field(default_factory=dict, repr=False)
    per_query: PerQuery = field(default_factory=dict, repr=False)
    means: Mapping[str, float] = field(default_factory=dict)
    unjudged: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, rankings: Rankings, qrels: Qrels, measures: Measures) -> Ranked:
        """`rankings` by the judgements of all queries of `qrels`."""
        per_query = measures.per_query(qrels, rankings)
        cutoffs = dict.fromkeys([measures.first_cutoff or USUAL_CUTOFF, USUAL_CUTOFF])
        shares = {cutoff: unjudged_share(rankings, qrels, cutoff) for cutoff in cutoffs}
        return cls(rankings, per_query, measures.mean(per_query), shares)


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over all judged queries; keys in the notation of ir-measures.

    Attributes:
        metrics: of the uncut ranking.
        served: of what the pipeline hands out, cut at its last `top_k`.
        baselines: stage name -> the metrics of a pipeline that ended at that stage.
        per_query: query id -> metric -> value, of the uncut ranking.
        rankings: query id -> ids of the uncut ranking.
        n_queries: how many queries were judged.
        work: what the stages did and left out.
        systems: stage name -> its uncut rankings, as if the pipeline ended there, in the order of the graph.
        handed_out: what the pipeline hands out.
        oracle: the best possible order of all documents that the recalls found.
        nodes: the stages.
        queries: those judged, in the order asked.
        qrels: their judgements.
        spent: tokens and money.
        reused: how much of the work was kept from earlier jobs.
        languages: query id -> what it is in, of those of which that is known.
    """

    metrics: Mapping[str, float]
    served: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    per_query: PerQuery = field(repr=False)
    rankings: Mapping[str, tuple[str, ...]] = field(repr=False)
    n_queries: int = 0
    work: Work = field(default_factory=lambda: Work.of([]))
    systems: Mapping[str, Ranked] = field(default_factory=dict, repr=False)
    handed_out: Ranked = field(default_factory=Ranked, repr=False)
    oracle: Ranked = field(default_factory=Ranked, repr=False)
    nodes: tuple[Node, ...] = field(default=(), repr=False)
    queries: tuple[Query, ...] = field(default=(), repr=False)
    qrels: Qrels = field(default_factory=dict, repr=False)
    spent: Spent = field(default_factory=Spent)
    reused: Reused = field(default_factory=Reused)
    languages: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def final(self) -> str:
        """The stage whose ranking is the whole pipeline's."""
        return self.nodes[-1].name if self.nodes else ""

    @property
    def null(self) -> str | None:
        """The stage that the first rerank reads: the ranking without any; None where nothing reranks."""
        return next((node.inputs[0] for node in self.nodes if node.kind == "rerank"), None)


def measure_quality(
    answer: Answer,
    queries: Sequence[Query],
    qrels: Qrels,
    measures: Measures,
    *,
    depth: int = 100,
    batch_queries: int = 32,
    progress: Progress = no_progress,
    judged_ids: JudgedIds | None = None,
    tell: Tell | None = None,
) -> Quality:
    """Quality over the judged queries.

    Args:
        answer: answers a batch of queries, in order.
        queries: judged or not; only those in `qrels` count.
        qrels: query id -> document id -> grade; 0 is judged and not relevant.
        measures: what to compute.
        depth: of the uncut ranking.
        batch_queries: queries answered together.
        progress: told ("evaluate", queries done, queries in all).
        judged_ids: ids of a ranking as the judgements name them, each once: those of the documents that the ranked
            chunks are part of, for example. None when the judgements name what is ranked.
        tell: what a query is in, where no gate has asked for it.

    Raises:
        ConfigError: no query is judged.
    """
    judged = [query for query in queries if query.query_id in qrels]
    if not judged:
        raise ConfigError("corpus.split", "no query of this corpus is judged in that split; nothing can be measured")
    kept = {query.query_id: qrels[query.query_id] for query in judged}
    gathered = _Gathered(kept, depth, judged_ids, tell)
    for done, batch in _batches(judged, batch_queries):
        for result in answer(batch):
            gathered.take(result)
        progress("evaluate", done, len(judged))
    systems = {name: Ranked.of(rankings, kept, measures) for name, rankings in gathered.uncut.items()}
    final = systems[gathered.nodes[-1].name]
    handed_out = Ranked.of(gathered.served, kept, measures)
    return Quality(
        final.means,
        handed_out.means,
        {name: system.means for name, system in systems.items() if system is not final},
        final.per_query,
        final.rankings,
        len(judged),
        Work.of_traces(gathered.traces, gathered.nodes),
        systems,
        handed_out,
        Ranked.of(gathered.best, kept, measures),
        gathered.nodes,
        tuple(judged),
        kept,
        Spent.of(gathered.traces),
        Reused.of(gathered.traces),
        gathered.languages,
    )


@dataclass
class _Gathered:
    """What answers leave behind for the figures; the answers themselves, with thousands of scores each, are let go."""

    qrels: Qrels
    depth: int
    judged_ids: JudgedIds | None
    tell: Tell | None = None
    uncut: dict[str, Rankings] = field(default_factory=dict)
    served: Rankings = field(default_factory=dict)
    best: Rankings = field(default_factory=dict)
    traces: list[Trace] = field(default_factory=list)
    nodes: tuple[Node, ...] = ()
    languages: dict[str, str] = field(default_factory=dict)

    def take(self, result: Result) -> None:
        """Keep the rankings of one answer."""
        query_id, self.nodes = result.query.query_id, result.graph.nodes
        self.traces.append(result.trace)
        language = result.trace.language or (self.tell(result.query) if self.tell is not None else None)
        if language is not None:
            self.languages[query_id] = group_of(language)
        self.served[query_id] = tuple(self._as_judged(result.doc_ids))
        for node in self.nodes:
            self.uncut.setdefault(node.name, {})[query_id] = self._ranking(result, node.name)
        recalled = dict.fromkeys(
            doc_id for node in self.nodes if node.kind == "recall" for doc_id in result.outputs[node.name].doc_ids
        )
        self.best[query_id] = best_order(self._as_judged(tuple(recalled)), self.qrels[query_id], self.depth)

    def _ranking(self, result: Result, stage: str) -> tuple[str, ...]:
        if self.judged_ids is None:
            return result.uncut(self.depth, stage)
        n_ranked = sum(len(ranked) for ranked in result.outputs.values())
        return tuple(self.judged_ids(result.uncut(n_ranked, stage))[: self.depth])

    def _as_judged(self, doc_ids: Sequence[str]) -> Sequence[str]:
        return doc_ids if self.judged_ids is None else self.judged_ids(doc_ids)


def best_order(doc_ids: Iterable[str], judged: Mapping[str, int], depth: int) -> tuple[str, ...]:
    """The first `depth` of `doc_ids` in the best order there is: by grade, equal grades as they came.

    Args:
        doc_ids: what was found for a query.
        judged: document id -> grade; what is not there is not relevant.
        depth: how many at most.
    """
    return tuple(sorted(doc_ids, key=lambda doc_id: -max(judged.get(doc_id, 0), 0))[:depth])


def unjudged_share(rankings: Mapping[str, Sequence[str]], qrels: Qrels, cutoff: int) -> float:
    """Of all documents among the first `cutoff` of each ranking, those that nobody judged for its query; 0 of none."""
    seen = unjudged = 0
    for query_id, doc_ids in rankings.items():
        judged, first = qrels.get(query_id, {}), doc_ids[:cutoff]
        seen += len(first)
        unjudged += sum(doc_id not in judged for doc_id in first)
    return unjudged / seen if seen else 0.0


def _batches(queries: Sequence[Query], size: int) -> Iterator[tuple[int, Sequence[Query]]]:
    for start in range(0, len(queries), size):
        batch = queries[start : start + size]
        yield start + len(batch), batch
