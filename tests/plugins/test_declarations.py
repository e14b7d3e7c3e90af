"""What plugins declare about themselves, so that `check` can tell before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator import Pipeline
from orchestrator.costs.node_cost import NodeCosts
from orchestrator.errors import ConfigError
from orchestrator.models import Model
from orchestrator.plugins.embed.onnx import OnnxEmbed
from orchestrator.plugins.embed.openai import OpenAIEmbed
from orchestrator.plugins.embed.splade import SpladeEmbed
from orchestrator.plugins.embed.tokens import OnnxTokenEmbed
from orchestrator.plugins.embed.torch import TorchEmbed
from orchestrator.plugins.embed.torch_tokens import TorchTokenEmbed
from orchestrator.plugins.qdrant.filter import filtered_fields
from orchestrator.plugins.recall.bm25 import BM25Recall
from orchestrator.plugins.recall.qdrant import QdrantRecall
from orchestrator.plugins.recall.qdrant_multivector import QdrantMultivectorRecall
from orchestrator.plugins.rerank.api import ApiRerank
from orchestrator.plugins.rerank.boost import BoostRerank
from orchestrator.plugins.rerank.cross_encoder import CrossEncoderRerank

EMBEDDERS: list[tuple[Any, Any]] = [
    (OnnxEmbed, "embedder"),
    (TorchEmbed, "embedder"),
    (OnnxTokenEmbed, "multi_vector"),
    (TorchTokenEmbed, "multi_vector"),
    (SpladeEmbed, "sparse"),
]


@pytest.mark.parametrize(("embedder", "role"), EMBEDDERS)
def test_an_embedder_knows_whether_its_files_are_here(
    embedder: Any, role: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    assert not embedder(Model(role=role, name="org/nowhere")).at_hand()
    assert embedder(Model(role=role, path=str(tmp_path / "nowhere"))).at_hand(), "a path is never passed over"
    snapshot = tmp_path / "empty" / "models--org--here" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (snapshot / name).write_text("{}")
    assert embedder(Model(role=role, name="org/here")).at_hand()


def cross_encoder(**arguments: Any) -> CrossEncoderRerank:
    return CrossEncoderRerank(Model(role="reranker", name="org/m"), **arguments)


def api(**arguments: Any) -> ApiRerank:
    model = Model(role="reranker", name="m")
    return ApiRerank(model, "https://api.example.org", {"path": "/rerank"}, **arguments)


def openai(**arguments: Any) -> OpenAIEmbed:
    return OpenAIEmbed(Model(role="embedder", name="m"), dim=3, **arguments)


def qdrant(**arguments: Any) -> QdrantRecall:
    return QdrantRecall(openai(api_key="k"), **arguments)


def tokens(**arguments: Any) -> QdrantMultivectorRecall:
    return QdrantMultivectorRecall(OnnxTokenEmbed(Model(role="multi_vector", name="m")), "equal", **arguments)


@pytest.mark.parametrize(
    ("stage", "modules"),
    [
        (cross_encoder(), {}),
        (cross_encoder(backend="torch"), {"sentence_transformers": "torch"}),
        (cross_encoder(backend="openvino"), {"openvino": "openvino"}),
        (api(), {"httpx2": "api"}),
        (openai(), {"openai": "openai"}),
        (BM25Recall("en"), {}),
        (BM25Recall("en", backend="numba"), {"numba": "numba"}),
        (qdrant(), {}),
        (qdrant(engine="local"), {"qdrant_client": "qdrant"}),
        (qdrant(url="http://localhost:6333"), {"qdrant_client": "qdrant"}),
    ],
)
def test_a_plugin_names_the_libraries_that_its_settings_need(stage: Any, modules: dict[str, str]) -> None:
    assert dict(stage.optional_modules) == modules


@pytest.mark.parametrize(
    ("without", "others"),
    [
        (api(key_required=True), [api(), api(key_required=True, api_key="k")]),
        (openai(), [openai(api_key="k"), openai(base_url="http://localhost:1/v1")]),
    ],
)
def test_a_key_that_is_missing_is_told_as_loading_would_tell_it(without: Any, others: list[Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        without.load()
    assert (caught.value.path, caught.value.detail) == ("api_key", without.key_missing)
    assert [other.key_missing for other in others] == [None, None]


@pytest.mark.parametrize(
    ("stage", "documents"),
    [
        (qdrant(), 100_000),
        (qdrant(engine="local"), 20_000),
        (qdrant(url="http://localhost:6333"), None),
        (tokens(), 5000),
        (tokens(url="http://localhost:6333"), None),
    ],
)
def test_a_recall_says_how_large_a_corpus_it_is_meant_for(stage: Any, documents: int | None) -> None:
    assert stage.suits_documents == documents


def test_a_boost_names_its_payload_fields() -> None:
    boosts = {"fresh": {"field": "date", "recency": {"half_life_days": 3}}, "s": {"field": "a.b", "values": {"x": 1}}}
    assert BoostRerank(boosts).payload_fields == {"boosts.fresh.field": "date", "boosts.s.field": "a.b"}


def test_a_filter_names_its_payload_fields_wherever_they_stand() -> None:
    year, tag = {"key": "year", "range": {"gte": 2015}}, {"key": "tag", "match": {"value": "x"}}
    nested = {"nested": {"key": "diet[]", "filter": {"must": [{"key": "food", "match": {"value": "meat"}}]}}}
    given = {
        "must": [year, {"should": [tag]}, nested],
        "must_not": {"is_empty": {"key": "source"}},
        "min_should": {"conditions": [{"key": "place.city", "match": {"value": "Ulm"}}], "min_count": 1},
    }
    assert filtered_fields("filter", given) == {
        "filter.must[0].key": "year",
        "filter.must[1].should[0].key": "tag",
        "filter.must[2].nested.key": "diet",
        "filter.must[2].nested.filter.must[0].key": "diet.food",
        "filter.must_not.is_empty.key": "source",
        "filter.min_should.conditions[0].key": "place.city",
    }
    assert qdrant(filter={"must": [year]}).payload_fields == {"filter.must[0].key": "year"}
    theirs = qdrant(url="http://localhost:6333", collection="theirs", existing=True, filter={"must": [year]})
    assert theirs.payload_fields == {}, "a collection of somebody else's has fields of its own"


@pytest.mark.parametrize(
    ("pipeline", "unknown"),
    [("late_interaction", set()), ("gated", set()), ("hosted_api", set()), ("sparse", {"sparse"})],
)
def test_shipped_stages_are_costed_by_the_shipped_figures(pipeline: str, unknown: set[str]) -> None:
    graph = Pipeline.compose([f"pipeline={pipeline}"]).graph
    costs = NodeCosts.reference(graph)
    assert {node.name for node in graph.nodes if costs.predicted_ms(node, 100) is None} == unknown
