"""The library's own door: compose, search, rerank, on the shipped sample with the real embedder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator import Document, Pipeline, PipelineError, Query
from orchestrator.evaluation.measures import Measures
from orchestrator.evaluation.quality import measure_quality

LOW_LATENCY = "+scenario=low_latency"


def compose(shared_root: Path, *overrides: str) -> Pipeline:
    return Pipeline.compose([*overrides, f"storage.root={shared_root}", "budget_ms=null"])


@pytest.fixture(scope="module")
def low_latency(shared_root: Path) -> Iterator[Pipeline]:
    with compose(shared_root, LOW_LATENCY) as pipeline:
        yield pipeline.load()


def test_search_finds_what_the_question_means(low_latency: Pipeline) -> None:
    result = low_latency.search("who is likely to lose their eyesight?")
    assert len(result.ranked) == 10
    assert "vision" in result.documents[result.doc_ids[0]].text
    assert [stage.stage for stage in result.trace.stages] == ["bm25", "dense", "fused", "shortlist"]
    assert result.trace.budget_ms is None  # asked without one: results then do not depend on time
    assert result.ranked.score_kind == "cosine"


def test_a_budget_can_be_set_and_lifted_for_one_search(low_latency: Pipeline) -> None:
    assert low_latency.search("what harms the eye?", budget_ms=1e-3).degraded
    whole = low_latency.search("what harms the eye?", budget_ms=1e-3, enforce_budget=False)
    assert (whole.degraded, whole.trace.enforced) == ((), False)
    assert whole.doc_ids == low_latency.search("what harms the eye?").doc_ids


def test_many_queries_at_once_give_the_same_as_one_at_a_time(low_latency: Pipeline) -> None:
    queries = low_latency.corpus.queries()[:8]
    for query, together in zip(queries, low_latency.search_many(queries), strict=True):
        alone = low_latency.search(query)
        assert alone.doc_ids == together.doc_ids
        np.testing.assert_allclose(alone.ranked.scores, together.ranked.scores, atol=1e-5)


def test_stages_differ_on_the_sample_and_hybrid_beats_words_alone(low_latency: Pipeline) -> None:
    quality = measure_quality(
        low_latency.search_many, low_latency.corpus.queries(), low_latency.corpus.qrels(), Measures(["nDCG@10"])
    )
    by_stage = {name: values["nDCG@10"] for name, values in quality.baselines.items()}
    assert quality.n_queries == 60
    assert by_stage["bm25"] + 0.05 < by_stage["fused"] < by_stage["dense"]
    assert quality.metrics["nDCG@10"] > by_stage["bm25"] + 0.1


def test_rerank_orders_the_callers_texts_without_a_corpus(shared_root: Path) -> None:
    with compose(shared_root, LOW_LATENCY, "corpus.path=nowhere") as pipeline:
        texts = ["The Great Wall is long.", "Glaucoma harms the optic nerve.", "Vision loss begins at the edge."]
        result = pipeline.rerank("what does glaucoma do to the eye?", texts)
        assert result.doc_ids == ("1", "2", "0")
        assert result.documents["1"].text == texts[1]
        assert [stage.stage for stage in result.trace.stages] == ["shortlist"]
        again = pipeline.rerank(Query("q", "what does glaucoma do to the eye?"), [Document("x", texts[1])])
        assert again.ranked.scores[0] == pytest.approx(result.ranked.scores[0], abs=1e-5)


def test_rerank_takes_mappings_and_refuses_what_it_cannot_name(shared_root: Path) -> None:
    with compose(shared_root, LOW_LATENCY) as pipeline:
        documents = [{"doc_id": "a", "text": "A wall."}, {"_id": "b", "title": "Glaucoma", "text": "The eye."}]
        assert pipeline.rerank("glaucoma", documents).doc_ids == ("b", "a")
        with pytest.raises(ValueError, match=r"documents: id '0' stands twice"):
            pipeline.rerank("x", [Document("0", "x"), Document("0", "y")])
        with pytest.raises(ValueError, match=r"documents\[0\]: no 'text'; found: body"):
            pipeline.rerank("x", [{"body": "x"}])


def test_rerank_of_nothing_is_nothing(shared_root: Path) -> None:
    with compose(shared_root, LOW_LATENCY) as pipeline:
        assert pipeline.rerank("glaucoma", []).doc_ids == ()


def test_rerank_needs_a_rerank_stage(shared_root: Path) -> None:
    with compose(shared_root, "+scenario=hybrid") as pipeline, pytest.raises(PipelineError, match="no rerank stage"):
        pipeline.rerank("x", ["y"])


def test_a_run_of_another_system_can_be_reranked(shared_root: Path, tmp_path: Path, low_latency: Pipeline) -> None:
    query = low_latency.corpus.queries()[0]
    found = low_latency.search(query).outputs["bm25"].doc_ids[:20]
    lines = [f"{query.query_id} Q0 {doc_id} {rank} {-rank} theirs\n" for rank, doc_id in enumerate(found, start=1)]
    (tmp_path / "theirs.trec").write_text("".join(lines))
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "rerank_only.yaml").write_text(
        "defaults:\n  - /recall@stages.bm25.use: supplied\n  - /rerank@stages.shortlist.use: bi_encoder\n  - _self_\n"
        "stages:\n  bm25: {top_k: 20}\n  shortlist: {top_k: 5}\n"
    )
    overrides = ["pipeline=rerank_only", f"pipeline.stages.bm25.use.path={tmp_path}/theirs.trec"]
    with Pipeline.compose([*overrides, f"storage.root={shared_root}"], config_dir=tmp_path) as pipeline:
        result = pipeline.search(query)
    assert set(result.doc_ids) <= set(found)
    assert result.outputs["bm25"].doc_ids == found
    assert list(result.ranked.scores) == sorted(result.ranked.scores, reverse=True)


def test_one_text_is_no_list_of_documents(low_latency: Pipeline) -> None:
    with pytest.raises(TypeError, match="found one text; expected a list"):
        low_latency.rerank("q", "a single text")


def test_a_folder_of_configs_may_have_any_name(shared_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "配置 (old)"
    (folder / "pipeline").mkdir(parents=True)
    (folder / "pipeline" / "mine.yaml").write_text(
        "defaults:\n  - /recall@stages.bm25.use: bm25\n  - _self_\nstages:\n  bm25: {top_k: 1}\n"
    )
    words = ["pipeline=mine", f"storage.root={shared_root}"]
    assert Pipeline.compose(words, config_dir=folder).graph.result.top_k == 1


def test_payload_of_given_documents_reaches_a_boost(storage_root: Path) -> None:
    boosts = "{fresh: {field: published, weight: 2, recency: {half_life_days: 30}}}"
    words = ["pipeline=bi_encoder", "rerank@pipeline.stages.shortlist.use=boost"]
    words += [f"pipeline.stages.shortlist.use.boosts={boosts}", "pipeline.stages.shortlist.use.now='2026-11-01'"]
    with Pipeline.compose(words) as pipeline:
        documents = [
            {"doc_id": "old", "text": "a", "published": "2016-01-01"},
            {"doc_id": "new", "text": "b", "metadata": {"published": "2026-10-31"}},
        ]
        assert pipeline.rerank("q", documents).doc_ids == ("new", "old")
