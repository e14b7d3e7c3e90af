"""Which stages say that they wait for somebody else's machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.models import Model
from orchestrator.plugins.embed.onnx import OnnxEmbed
from orchestrator.plugins.embed.openai import OpenAIEmbed
from orchestrator.plugins.embed.tokens import OnnxTokenEmbed
from orchestrator.plugins.recall.qdrant import QdrantRecall
from orchestrator.plugins.recall.qdrant_multivector import QdrantMultivectorRecall
from orchestrator.plugins.rerank.api import ApiRerank
from orchestrator.plugins.rerank.bi_encoder import BiEncoderRerank
from orchestrator.plugins.rerank.cross_encoder import CrossEncoderRerank
from orchestrator.plugins.rerank.late_interaction import LateInteractionRerank
from orchestrator.plugins.rerank.llm import LLMRerank
from orchestrator.plugins.rerank.mmr import MMRRerank
from orchestrator.stage import is_remote

URL = "http://localhost:1"
ORDER = {"en": {"system": "Judge.", "user": "{query} {documents}"}}


def far() -> OpenAIEmbed:
    return OpenAIEmbed(Model(role="embedder", name="m"), f"{URL}/v1", dim=8)


def near() -> OnnxEmbed:
    return OnnxEmbed(Model(role="embedder", name="m"))


def tokens() -> OnnxTokenEmbed:
    return OnnxTokenEmbed(Model(role="multi_vector", name="m"))


RERANKER = Model(role="reranker", name="m")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ApiRerank(RERANKER, URL, {"path": "/rerank"}), True),
        (lambda: LLMRerank(RERANKER, ORDER, base_url=URL), True),
        (far, True),
        (near, False),
        (lambda: BiEncoderRerank(far()), True),
        (lambda: BiEncoderRerank(near()), False),
        (lambda: MMRRerank(far()), True),
        (lambda: MMRRerank(near()), False),
        (lambda: QdrantRecall(near(), url=URL), True),
        (lambda: QdrantRecall(near(), url=URL, collection="docs", existing=True), True),
        (lambda: QdrantRecall(near(), engine="edge"), False),
        (lambda: QdrantRecall(near(), engine="local"), False),
        (lambda: QdrantRecall(far(), engine="edge"), True),
        (lambda: QdrantMultivectorRecall(tokens(), url=URL), True),
        (lambda: QdrantMultivectorRecall(tokens()), False),
        (lambda: LateInteractionRerank(tokens()), False),
        (lambda: CrossEncoderRerank(RERANKER), False),
    ],
)
def test_a_stage_is_remote_where_it_or_its_embedder_waits_for_another_machine(
    make: Callable[[], object], expected: bool
) -> None:
    assert is_remote(make()) is expected
