"""Which queries do what: by seed, by share, by split, by folds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import structlog
from slow_stages import Finds, Q, Reads, runner, spec

from orchestrator.corpora.corpus import open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import ConfigError
from orchestrator.learning.training import Collector, Split, apart, collect, split_queries
from orchestrator.learning.training_queries import training_queries
from orchestrator.testing import ranked
from orchestrator.types import Call, Query, RankedList

IDS = [f"q{n}" for n in range(50)]


def test_a_split_uses_each_query_once_and_depends_on_the_seed_only() -> None:
    (split,) = split_queries(IDS, 0.2, 0.25, seed=1)
    assert [len(part) for part in (split.held_out, split.validation, split.train)] == [10, 10, 30]
    assert sorted((*split.train, *split.validation, *split.held_out)) == sorted(IDS)
    assert split_queries(IDS, 0.2, 0.25, seed=1) == [split]
    assert split_queries(IDS, 0.2, 0.25, seed=2) != [split]


def test_folds_hold_out_each_query_once_and_the_last_split_keeps_all() -> None:
    *folds, last = split_queries(IDS, 0.2, 0.25, seed=1, folds=4)
    assert sorted(query for fold in folds for query in fold.held_out) == sorted(IDS)
    for fold in folds:
        assert not set(fold.held_out) & {*fold.train, *fold.validation}
        assert len(fold.train) + len(fold.validation) + len(fold.held_out) == 50
    assert last.held_out == ()
    assert len(last.train) + len(last.validation) == 50


def test_the_split_train_is_learned_from_where_there_is_one(write_judged: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_judged(n_queries=30)
    with_test = (folder / "qrels" / "test.tsv").read_text() + "q0\td\t1\n"
    (folder / "qrels" / "test.tsv").write_text(with_test)
    corpus = open_corpus(CorpusSpec("c", str(folder)), tmp_path / "root")
    with structlog.testing.capture_logs():
        found = training_queries(corpus, "test", None, seed=7)
    assert found.learn == tuple(f"q{n}" for n in range(1, 20))
    assert set(found.test) == {"q0", *(f"q{n}" for n in range(20, 30))}
    assert "(1 stand in both and were left out of the learning)" in found.told
    drawn = training_queries(corpus, 0.2, 5, seed=7)
    assert len(drawn.learn) == 5
    assert drawn == training_queries(corpus, 0.2, 5, seed=7)
    assert drawn != training_queries(corpus, 0.2, 5, seed=8)
    assert drawn.told == "5 of 20 judged queries of split 'train'"
    corpus.close()


def test_a_corpus_without_judgements_cannot_train(write_judged: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_judged(n_queries=3)
    for path in (folder / "qrels").iterdir():
        path.unlink()
    corpus = open_corpus(CorpusSpec("c", str(folder)), tmp_path / "root")
    with pytest.raises(ConfigError, match=r"corpus\.split: corpus 'c' has no judgements"):
        training_queries(corpus, 0.2, None, seed=7)
    corpus.close()


def test_a_question_held_out_is_not_learned_from_under_another_id() -> None:
    split = Split(("q1", "q2"), ("q3", "q4"), ("q5",))
    texts = {"q1": "same", "q2": "other", "q3": "third", "q4": "same", "q5": "same"}
    assert apart(split, texts) == Split(("q2",), ("q3",), ("q5",))


def test_a_question_of_the_other_split_is_left_out_whatever_its_id(
    write_judged: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_judged()
    lines = (folder / "queries.jsonl").read_text().splitlines()
    lines[0] = lines[0].replace("zeta0x", "zeta59x")  # asked by a query of the split test too
    (folder / "queries.jsonl").write_text("\n".join(lines))
    corpus = open_corpus(CorpusSpec("judged", str(folder)), tmp_path / "root")
    topics = training_queries(corpus, "test", None, 7)
    assert "q0" not in topics.learn
    assert "(1 stand in both and were left out of the learning)" in topics.told


class Rows:
    """A stage that learns: one feature, the place of a candidate."""

    def features(self, query: Query, candidates: RankedList, call: Call) -> tuple[tuple[str, ...], np.ndarray]:
        return candidates.doc_ids, np.arange(len(candidates), dtype=np.float32)[:, None]


def test_grades_are_kept_and_what_was_judged_below_zero_counts_as_zero() -> None:
    collector = Collector(Rows(), {"q": {"a": 3, "b": 1, "c": 0, "d": -2}})  # type: ignore[arg-type]
    collector.rescore(Query("q", "?"), ranked(["d", "c", "b", "a", "unjudged"], [5, 4, 3, 2, 1]), Call())
    assert collector.examples["q"].grades.tolist() == [0, 0, 1, 3, 0]


class Reranked(Collector):
    """Stands in for a rerank alone."""

    fuse = None  # type: ignore[assignment]


def test_a_limit_of_time_takes_no_candidates_from_the_training() -> None:
    collector = Reranked(Rows(), {"q1": {"d19": 1}})  # type: ignore[arg-type]
    stages = (spec("bm25", Finds()), spec("precise", Reads(0.005), max_ms=20.0), spec("learned", collector))
    pool = collect(runner(*stages), collector, [Q], depth=20, batch_queries=1)
    assert pool.rankings["precise"]["q1"] == tuple(f"d{place:02}" for place in reversed(range(20)))
