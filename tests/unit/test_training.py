"""Which queries do what: by seed, by share, by split, by folds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from orchestrator.corpus import open_corpus
from orchestrator.corpus_spec import CorpusSpec
from orchestrator.errors import ConfigError
from orchestrator.training import split_queries
from orchestrator.training_queries import training_queries

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
