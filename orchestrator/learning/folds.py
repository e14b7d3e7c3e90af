"""Judged queries answered out of fold: each by trained stages that did not learn from it.

The queries are parted into folds. For each fold every stage that learns is trained on the others, in the order of the
graph, and the fold's queries are asked. A stage that reads another one that learns is trained on that one's scores for
queries which it did not learn from either (inner folds), as it meets them when it serves: stacked generalization,
Wolpert, Neural Networks 5, 1992. Nothing that was trained before is opened, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from orchestrator.answers.trace import Result
from orchestrator.errors import ConfigError
from orchestrator.evaluation.measures import Qrels
from orchestrator.learning import training
from orchestrator.learning.training import Collector, Parents, Pool, Split
from orchestrator.log import get_logger
from orchestrator.running.runner import Runner
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stage import Json, Progress, Trainable, no_progress
from orchestrator.types import Query

log = get_logger()

MakeRunner = Callable[[StageGraph], Runner]


class OutOfFold:
    """Answers judged queries, each with models that did not learn from it.

    Args:
        graph: the stages, loaded, their indexes open.
        make_runner: a runner of a graph of the same stages, or of stand-ins for some.
        queries: all judged queries.
        qrels: their judgements.
        folds: how many parts; each is answered by models that learned from the others.
        validation: share of the queries to learn from that decides when to stop.
        options: of the learners.
        seed: of the parts.
        batch_queries: queries that go through the stages together.
        parents: where documents are judged and chunks are ranked.
        progress: told about long work.

    Raises:
        ConfigError: no stage learns, an option is wrong, or there are fewer queries than folds need.
    """

    def __init__(
        self,
        graph: StageGraph,
        make_runner: MakeRunner,
        queries: Sequence[Query],
        qrels: Qrels,
        folds: int,
        validation: float,
        options: Mapping[str, Json],
        seed: int,
        *,
        batch_queries: int = 32,
        parents: Parents | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self._learners = learners(graph)
        for node in self._learners:
            _stage(node).bind(graph.sources(node.name))
        _check(self._learners, options, len(queries), folds)
        self._graph, self._make_runner, self._qrels = graph, make_runner, qrels
        self._queries = {query.query_id: query for query in queries}
        self._folds, self._validation, self._seed = folds, validation, seed
        self._options = {**options, "seed": seed}
        self._batch, self._parents, self._progress = batch_queries, parents, progress
        self._splits = self._parted(tuple(self._queries), folds)
        self._fold_of = {query_id: fold for fold, split in enumerate(self._splits) for query_id in split.held_out}
        self._first = _merged([self._collect(0, tuple(self._queries))])
        self._runner = make_runner(graph)
        self._trained_for: int | None = None

    @property
    def queries(self) -> list[Query]:
        """All judged queries, those of a fold together, so that each fold is trained once."""
        return sorted(self._queries.values(), key=lambda query: self._fold_of[query.query_id])

    def answer(self, queries: Sequence[Query]) -> list[Result]:
        """One result a query, in their order, each by models that did not learn from it."""
        found: list[Result] = []
        for fold, part in groupby(queries, lambda query: self._fold_of[query.query_id]):
            self._train_for(fold)
            found += self._runner.run(list(part), read_documents=False, enforce_budget=False)
        return found

    def answer_timed(self, queries: Sequence[Query]) -> list[Result]:
        """One result a query with the models of the last fold and no kept scores: for times alone."""
        return self._runner.run(queries, enforce_budget=False, use_kept=False)

    def _train_for(self, fold: int) -> None:
        if fold == self._trained_for:
            return
        split = self._splits[fold]
        self._train(len(self._learners) - 1, split)
        self._trained_for = fold
        fold_of = f"{fold + 1} of {self._folds}"
        log.info("evaluate.fold", fold=fold_of, learned_from=len(split.train), held_out=len(split.held_out))

    def _train(self, place: int, split: Split) -> None:
        """Let the learners up to the one at `place` learn from `split`, and serve with what they learned."""
        pool = self._first
        if place > 0:
            pool = self._stacked(place, (*split.train, *split.validation))
            self._train(place - 1, split)
        training.fit(_stage(self._learners[place]), pool, split, self._options, self._progress)

    def _stacked(self, place: int, query_ids: Sequence[str]) -> Pool:
        """What the learner at `place` sees for `query_ids` where the learners before it did not learn from them."""
        pools = []
        for split in self._parted(query_ids, min(self._folds, len(query_ids))):
            self._train(place - 1, split)
            pools.append(self._collect(place, split.held_out))
        return _merged(pools)

    def _collect(self, place: int, query_ids: Sequence[str]) -> Pool:
        """What the learner at `place` sees for `query_ids`, with the learners before it as they are now."""
        node = self._learners[place]
        graph = self._graph.upto(node.name)
        collector = Collector(_stage(node), self._qrels, self._parents)
        stood_in = StageGraph((*graph.nodes[:-1], replace(graph.result, stage=collector, fallbacks=())))
        queries = [self._queries[query_id] for query_id in query_ids]
        runner = self._make_runner(stood_in)
        return training.collect(runner, collector, queries, depth=1, batch_queries=self._batch, progress=self._progress)

    def _parted(self, query_ids: Sequence[str], folds: int) -> list[Split]:
        """Each query held out once; none is learned from that asks the same in the same words."""
        texts = {query_id: self._queries[query_id].text for query_id in query_ids}
        splits = training.split_queries(query_ids, 0.0, self._validation, self._seed, folds)[:-1]
        return [training.apart(split, texts) for split in splits]


def learners(graph: StageGraph) -> tuple[Node, ...]:
    """The stages that learn, in the order of the graph.

    Raises:
        ConfigError: none does.
    """
    found = tuple(node for node in graph.nodes if isinstance(node.stage, Trainable))
    if not found:
        learn = "fusion@pipeline.stages.fused.use=xgboost, rerank@pipeline.stages.precise.use=ltr"
        raise ConfigError("task.folds", f"no stage of this pipeline learns; expected null, or one that does: {learn}")
    return found


def _check(nodes: Sequence[Node], options: Mapping[str, Json], n_queries: int, folds: int) -> None:
    if n_queries < 2 * folds:
        found = f"found {folds} for {n_queries} judged queries"
        raise ConfigError("task.folds", f"{found}; expected two queries a fold at least, so {n_queries // 2} or fewer")
    for node in nodes:
        try:
            _stage(node).check_options(options)
        except ConfigError as error:
            raise ConfigError(f"task.learner.{error.path}", error.detail) from error


def _stage(node: Node) -> Trainable:
    assert isinstance(node.stage, Trainable)
    return node.stage


def _merged(pools: Sequence[Pool]) -> Pool:
    return Pool({query_id: example for pool in pools for query_id, example in pool.examples.items()})
