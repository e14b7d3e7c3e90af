"""An ltr stage in Python: documents of the corpus, and documents that never were in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import ModelNotFoundError, Pipeline
from orchestrator.cli import run

LTR = [
    "pipeline=bm25",
    "pipeline.stages.bm25.top_k=50",
    "+rerank@pipeline.stages.shortlist.use=ltr",
    "+pipeline.stages.shortlist.top_k=5",
]
GIVEN = [
    {"doc_id": "body", "title": "plain guide", "text": "something zeta7x note"},
    {"doc_id": "title", "title": "zeta7x guide", "text": "something plain note"},
]


@pytest.fixture
def trained(
    write_judged: Callable[..., Path], storage_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The words of a stack whose ltr stage learned that titles count."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["orchestrate"])
    words = [*LTR, f"corpus.path={write_judged()}"]
    assert run(["train", "fusion", *words, "learner.rounds=30", "learner.learning_rate=0.3"]) == 0
    return words


def test_documents_that_are_not_in_the_corpus_are_ranked_by_their_words(trained: list[str]) -> None:
    with Pipeline.compose(trained) as pipeline:
        result = pipeline.rerank("tell me about zeta7x", GIVEN)
        (stage,) = result.trace.stages
        assert result.doc_ids == ("title", "body")
        assert stage.notes == ("documents given have no scores of bm25; the model was trained with them",)
        assert pipeline.rerank("tell me about zeta7x", GIVEN[::-1]).doc_ids == ("title", "body")
        assert pipeline.rerank("tell me about zeta7x", []).doc_ids == ()


def test_ids_that_the_corpus_has_too_mean_the_documents_given(trained: list[str]) -> None:
    with Pipeline.compose(trained) as pipeline:
        corpus_ids = pipeline.load().search("tell me about zeta7x").doc_ids
        swapped = [{**document, "doc_id": doc_id} for document, doc_id in zip(GIVEN, corpus_ids, strict=False)]
        assert pipeline.rerank("tell me about zeta7x", swapped).doc_ids == (corpus_ids[1], corpus_ids[0])


def test_without_an_index_of_the_corpus_the_documents_given_are_the_collection(
    trained: list[str], storage_root: Path, tmp_path: Path
) -> None:
    (model,) = (storage_root / "trained").glob("*/*")
    words = [*LTR, "corpus.path=nowhere", "corpus.language=en", f"storage.root={tmp_path / 'other'}"]
    with Pipeline.compose([*words, f"pipeline.stages.shortlist.use.path={model}"]) as pipeline:
        result = pipeline.rerank("tell me about zeta7x", GIVEN)
    assert result.doc_ids == ("title", "body")
    assert "the corpus has no index of them" in result.trace.stages[0].notes[1]


def test_rerank_without_a_model_says_how_to_train_one(write_judged: Callable[..., Path], storage_root: Path) -> None:
    words = [*LTR, f"corpus.path={write_judged()}"]
    with Pipeline.compose(words) as pipeline, pytest.raises(ModelNotFoundError, match="orchestrate train fusion"):
        pipeline.rerank("x", ["y"])
