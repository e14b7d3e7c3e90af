"""The scenarios that need a cross-encoder, with a local one: a tiny XLM-R with random weights, the bge code path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import Pipeline
from orchestrator.types import Call, Document


def compose(scenario: str, folder: Path, root: Path, *more: str) -> Pipeline:
    local = ["model@models.reranker=local", f"models.reranker.path={folder}"]
    return Pipeline.compose(
        [f"+scenario={scenario}", *local, f"storage.root={root}", "budget_ms=null", "cache.scores=false", *more]
    )


@pytest.mark.parametrize(
    ("scenario", "stages", "top_k"),
    [
        ("high_precision", ["bm25", "dense", "fused", "shortlist", "precise"], 5),
        ("large_candidates", ["bm25", "dense", "fused", "shortlist", "precise"], 3),
    ],
)
def test_the_scenario_answers_in_the_order_of_the_models_own_scores(
    scenario: str, stages: list[str], top_k: int, checkpoints: Any, shared_root: Path, small_sample: Path
) -> None:
    small = [
        f"corpus.path={small_sample}",
        "pipeline.stages.bm25.top_k=8",
        "pipeline.stages.dense.top_k=8",
        "pipeline.stages.fused.top_k=12",
    ]
    small += ["pipeline.stages.shortlist.top_k=6"]
    with compose(scenario, checkpoints.transformer("xlmr", labels=1), shared_root, *small) as pipeline:
        result = pipeline.search("who is at risk for low vision?")
        assert [stage.stage for stage in result.trace.stages] == stages
        assert result.trace.stages[-1].tokens > 0
        assert len(result.ranked) == top_k
        assert result.ranked.score_kind == "logit"
        pairs = [(result.query, result.documents[doc_id]) for doc_id in result.doc_ids]
        scores = pipeline.graph["precise"].stage.score(pairs, Call())  # type: ignore[union-attr]
        np.testing.assert_allclose(result.ranked.scores, scores, atol=1e-5)
        assert list(result.ranked.scores) == sorted(result.ranked.scores, reverse=True)


def test_rerank_alone_needs_no_corpus_and_no_embedder(checkpoints: Any, shared_root: Path) -> None:
    folder = checkpoints.transformer("xlmr", labels=1)
    with compose("high_precision", folder, shared_root, "corpus.path=nowhere") as pipeline:
        result = pipeline.rerank("the eye", ["a great wall", "glaucoma damages the eye", "a great wall"])
        assert sorted(result.doc_ids) == ["0", "1", "2"]
        tied = [doc_id for doc_id in result.doc_ids if doc_id != "1"]
        assert tied == ["0", "2"], "equal texts keep the order in which they came"


def test_long_documents_are_read_in_windows_from_yaml_alone(
    checkpoints: Any, shared_root: Path, small_sample: Path
) -> None:
    words = [
        "pipeline=long_documents",
        f"corpus.path={small_sample}",
        "model@models.reranker=local",
        f"storage.root={shared_root}",
    ]
    words += [f"models.reranker.path={checkpoints.transformer('xlmr', labels=1)}"]
    words += ["pipeline.stages.fused.top_k=4", "pipeline.stages.precise.passages={size: 30, max_windows: null}"]
    with Pipeline.compose(words) as pipeline:
        result = pipeline.search("who is at risk for low vision?")
        told = result.trace.stages[-1]
        assert told.passages > told.n_in == 4
        for doc_id, (start, end) in result.passages.items():
            document = result.documents[doc_id]
            window = Document(doc_id, document.text[start:end], document.title)
            score = pipeline.graph["precise"].stage.score([(result.query, window)], Call())  # type: ignore[union-attr]
            row = result.doc_ids.index(doc_id)
            np.testing.assert_allclose(result.ranked.scores[row], score[0], atol=1e-5)
