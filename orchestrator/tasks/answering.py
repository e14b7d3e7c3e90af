"""How `evaluate` asks a pipeline: as it stands, or out of fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.corpora.corpus import DiskCorpus
from orchestrator.learning.folds import OutOfFold
from orchestrator.log import get_logger
from orchestrator.pipeline import Pipeline
from orchestrator.stage import Json, Progress
from orchestrator.types import Query

if TYPE_CHECKING:
    from orchestrator.answers.trace import Result

log = get_logger()


@dataclass(frozen=True, slots=True)
class Folds:
    """How stages that learn are trained for an evaluation out of fold.

    Attributes:
        n: how many parts; each is answered by models that learned from the others.
        validation: share of the queries to learn from that decides when to stop.
        learner: options of the learners.
        seed: of the parts.
        batch_queries: queries that go through the stages together.
    """

    n: int
    validation: float
    learner: Mapping[str, Json]
    seed: int
    batch_queries: int


class Answers:
    """The answers of a pipeline, loaded, to the queries of its corpus.

    Args:
        pipeline: what is asked.
        corpus: whose queries.
        enforced: whether the budget is kept by leaving things out.
        folds: how stages that learn are trained for it; None asks them as they are.
        progress: told about long work.

    Attributes:
        queries: in the order in which they are to be asked.
    """

    def __init__(
        self, pipeline: Pipeline, corpus: DiskCorpus, enforced: bool, folds: Folds | None, progress: Progress
    ) -> None:
        self._pipeline, self._enforced = pipeline, enforced
        self.queries = corpus.queries()
        self._folded = _out_of_fold(pipeline, corpus, folds, progress) if folds is not None else None
        if self._folded is not None:
            self.queries = self._folded.queries
        self._warn_of_learned()

    def together(self, queries: Sequence[Query]) -> list[Result]:
        """Answers for the figures: in batches, with kept scores, without the budget unless it is enforced."""
        if self._folded is not None:
            return self._folded.answer(queries)
        return self._pipeline.search_many(
            queries,
            read_documents=False,
            enforce_budget=self._enforced,
            use_kept=not self._enforced,
            reuse=not self._enforced,
        )

    def timed(self, queries: Sequence[Query]) -> list[Result]:
        """Answers for the times: no score is kept from before."""
        if self._folded is not None:
            return self._folded.answer_timed(queries)
        return self._pipeline.search_many(queries, enforce_budget=self._enforced, use_kept=False)

    def _warn_of_learned(self) -> None:
        """Tell of stages that learned from these queries: with folds, those that are not trained anew for each."""
        hint = "flatter it; folds=5" if self._folded is None else "flatter it"
        for stage, n in self._pipeline.learned_from(self.queries).items():
            if n:
                log.warning("evaluate.learned_from", stage=stage, queries=n, of=len(self.queries), figures=hint)


def _out_of_fold(pipeline: Pipeline, corpus: DiskCorpus, folds: Folds, progress: Progress) -> OutOfFold:
    qrels = corpus.qrels()
    return OutOfFold(
        pipeline.graph,
        pipeline.running,
        [query for query in corpus.queries() if query.query_id in qrels],
        qrels,
        folds.n,
        folds.validation,
        folds.learner,
        folds.seed,
        batch_queries=folds.batch_queries,
        parents=corpus.parents if corpus.topics.by_parent else None,
        progress=progress,
    )
