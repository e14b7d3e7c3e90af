"""Scores for queries that a stage learned from come from models that did not; all others from its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator import Pipeline
from orchestrator.cli import run
from orchestrator.errors import ConfigError
from orchestrator.learning import training
from orchestrator.learning.out_of_fold import Gathering, out_of_fold
from orchestrator.learning.training_queries import TrainingQueries, training_queries
from orchestrator.stage import no_progress
from orchestrator.types import Query

FAST = ["learner.rounds=30", "learner.early_stopping_rounds=15", "learner.learning_rate=0.3", "learner.max_depth=3"]


@pytest.fixture
def pipeline(
    write_judged: Callable[..., Path], storage_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    """A fusion that learned, before a rerank that is to learn from its scores."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["orchestrate"])
    words = [
        *("pipeline=lexical", "corpus.language=en", f"corpus.path={write_judged()}"),
        *("+rerank@pipeline.stages.shortlist.use=ltr", "+pipeline.stages.shortlist.top_k=5"),
        "+pipeline.stages.shortlist.inputs=[fused]",
    ]
    assert run(["train", "fusion", *words, *FAST, "stage=fused"]) == 0
    with Pipeline.compose(words) as opened:
        yield opened


class Collected:
    """The candidates of all queries at the rerank, by the fusion as it stands or out of fold."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.topics: TrainingQueries = training_queries(pipeline.corpus, 0.2, None, 7)
        place = pipeline.place_of_model("shortlist")
        assert place is not None
        self.column = place.stage.feature_names().index("fused.score")  # type: ignore[attr-defined]
        self.collector = training.Collector(place.stage, self.topics.qrels)
        self.runner = pipeline.upstream("shortlist", self.collector)
        self.seen = pipeline.seen(self.topics.queries, "shortlist")
        self.asked: list[list[str]] = []

    def collect(self, queries: Sequence[Query]) -> training.Pool:
        self.asked.append([query.query_id for query in queries])
        return training.collect(self.runner, self.collector, queries, depth=100, batch_queries=32)

    def out_of_fold(self) -> training.Pool:
        how = Gathering(self.collect, None, 100, 32, 0.2, 7, no_progress)
        return out_of_fold(self.pipeline, self.topics, self.seen, how)

    def scores(self, query_id: str) -> dict[str, float]:
        example = self.collector.examples[query_id]
        return dict(zip(example.doc_ids, example.features[:, self.column].tolist(), strict=True))


def test_only_queries_that_it_learned_from_get_other_scores(pipeline: Pipeline) -> None:
    collected = Collected(pipeline)
    known = collected.seen["fused"]
    assert len(known) == 32
    collected.collect(collected.topics.queries)
    ids = [query.query_id for query in collected.topics.queries]
    own = {query_id: collected.scores(query_id) for query_id in ids}
    model = pipeline.graph["fused"].stage.model_id  # type: ignore[union-attr]
    collected.asked.clear()
    pool = collected.out_of_fold()
    assert set(pool.examples) == set(ids) == set(pool.rankings["fused"])
    differ = {query_id for query_id in ids if collected.scores(query_id) != own[query_id]}
    assert differ <= known
    assert len(differ) > 0.9 * len(known), "models of other queries have other leaves"
    *folds, rest = collected.asked
    assert sorted(query_id for fold in folds for query_id in fold) == sorted(known)
    assert len(folds) == 5
    assert set(rest) == set(ids) - known
    assert pipeline.graph["fused"].stage.model_id == model, "its own model serves again"  # type: ignore[union-attr]


def test_each_fold_is_scored_by_a_model_that_never_saw_it(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    collected, learned = Collected(pipeline), list[set[str]]()
    stage = pipeline.graph["fused"].stage
    fit = stage.fit  # type: ignore[union-attr]

    def noted(train: Sequence, validation: Sequence, *rest: object) -> object:
        learned.append({example.query_id for example in (*train, *validation)})
        return fit(train, validation, *rest)

    monkeypatch.setattr(stage, "fit", noted)
    collected.out_of_fold()
    for fold, from_queries in zip(collected.asked, learned, strict=False):
        assert not from_queries & set(fold)
        assert from_queries <= collected.seen["fused"]
    assert len(learned) == 5


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (
            {"bm25": frozenset({"q1"})},
            "queries are known to bm25; only one learned fusion or rerank can be trained anew",
        ),
        ({"fused": frozenset({"q1"}), "bm25": frozenset({"q1"})}, "queries are known to fused, bm25; only one"),
    ],
)
def test_what_cannot_be_trained_anew_is_refused(
    seen: dict[str, frozenset[str]], message: str, pipeline: Pipeline
) -> None:
    collected = Collected(pipeline)
    collected.seen = seen
    with pytest.raises(ConfigError) as error:
        collected.out_of_fold()
    assert message in str(error.value)
