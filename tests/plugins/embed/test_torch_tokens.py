from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import CallCancelledError, ConfigError, MissingExtraError
from orchestrator.models import Model
from orchestrator.plugins.embed.tokens import OnnxTokenEmbed
from orchestrator.plugins.embed.torch_tokens import TorchTokenEmbed
from orchestrator.testing import EmbedTokensContract
from orchestrator.types import Call


def colbert(checkpoints: Any) -> Path:
    """Projection, markers, queries filled up with [MASK], special tokens and punctuation of documents skipped."""

    def modules() -> list[Any]:
        import torch
        from sentence_transformers.base.modules import Dense, Normalize
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

        level = {"module_input_name": "token_embeddings"}
        skipped = ["[CLS]", "[SEP]", ",", ".", "!", ";"]
        projection = Dense(32, 8, bias=False, activation_function=torch.nn.Identity(), **level)
        return [projection, MultiVectorMask(skipped), Normalize(**level)]

    first = {"query_expansion": {"strategy": "min", "length": 9}, "document_length": 30}
    path: Path = checkpoints.multi_vector("torch-colbert", "bert", modules, first, prompts={"query": "query: "})
    return path


def pooled(checkpoints: Any) -> Path:
    def modules() -> list[Any]:
        from sentence_transformers.base.modules import Dense
        from sentence_transformers.sentence_transformer.modules import Pooling

        return [Pooling(32, "mean"), Dense(32, 8)]

    path: Path = checkpoints.sentence_transformer("torch-pooled", "bert", modules)
    return path


class TestContract(EmbedTokensContract):
    @pytest.fixture(autouse=True)
    def _files(self, checkpoints: Any, shared_root: Path) -> None:
        self.path, self.root = colbert(checkpoints), shared_root

    def make(self) -> TorchTokenEmbed:
        return TorchTokenEmbed(Model(role="multi_vector", path=str(self.path), storage_root=self.root), device="cpu")

    def test_cancelled_call_raises(self, checkpoints: Any) -> None:
        model, call = self._ready(), Call()
        call.cancel()
        with pytest.raises(CallCancelledError):
            model.embed_tokens(checkpoints.texts, kind="query", call=call)


@pytest.mark.parametrize("settings", [{}, {"prompts": {"document": "passage: "}, "max_length_tokens": 20}])
@pytest.mark.parametrize("kind", ["colbert", "pooled", "plain"])
def test_agrees_with_the_onnx_backend(kind: str, settings: dict[str, Any], checkpoints: Any, shared_root: Path) -> None:
    makers = {"colbert": colbert, "pooled": pooled, "plain": lambda found: found.transformer("bert")}
    card = Model(role="multi_vector", path=str(makers[kind](checkpoints)), storage_root=shared_root, **settings)
    ours, other = TorchTokenEmbed(card, device="cpu", batch_tokens=64), OnnxTokenEmbed(card, threads=1)
    ours.load()
    other.load()
    calls = Call(), Call()
    for side in ("query", "document"):
        mine = ours.embed_tokens(checkpoints.texts, kind=side, call=calls[0])
        for first, second in zip(mine, other.embed_tokens(checkpoints.texts, kind=side, call=calls[1]), strict=True):
            np.testing.assert_array_equal(first.token_ids, second.token_ids)
            np.testing.assert_allclose(first.vectors, second.vectors, atol=1e-5)
    assert calls[0].tokens == calls[1].tokens
    assert (ours.dim, ours.max_length_tokens) == (other.dim, other.max_length_tokens)
    assert ours.model_id != other.model_id  # they agree to 1e-5, not to the bit


def test_runs_what_the_onnx_export_does_not_know(checkpoints: Any, shared_root: Path) -> None:
    def modules() -> list[Any]:
        import torch
        from sentence_transformers.base.modules import Dense

        return [Dense(32, 8, activation_function=torch.nn.Softplus(), module_input_name="token_embeddings")]

    card = Model(
        role="multi_vector",
        path=str(checkpoints.multi_vector("softplus", "bert", modules, {})),
        storage_root=shared_root,
    )
    with pytest.raises(ConfigError, match=r"activation '.*Softplus' .*; ONNX export knows .*TorchTokenEmbed"):
        OnnxTokenEmbed(card).load()
    model = TorchTokenEmbed(card, device="cpu")
    model.load()
    (found,) = model.embed_tokens(["the great wall"], kind="document", call=Call())
    assert found.vectors.shape == (5, 8)
    assert found.vectors.min() > 0  # as softplus is
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)  # the model itself does not


def test_model_that_merges_tokens_is_refused(checkpoints: Any, shared_root: Path) -> None:
    def modules() -> list[Any]:
        from sentence_transformers.base.modules import Normalize
        from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

        return [Normalize(module_input_name="token_embeddings"), HierarchicalTokenPooling(pool_factor=2)]

    path = checkpoints.multi_vector("torch-merged", "bert", modules, {})
    card = Model(role="multi_vector", path=str(path), storage_root=shared_root)
    for model in (TorchTokenEmbed(card, device="cpu"), OnnxTokenEmbed(card)):
        with pytest.raises(ConfigError, match="HierarchicalTokenPooling, which merges tokens"):
            model.load()


def test_missing_library_names_the_extra(checkpoints: Any, shared_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    card = Model(role="multi_vector", path=str(checkpoints.transformer("bert")), storage_root=shared_root)
    with pytest.raises(MissingExtraError, match=r"orchestrator\[torch\]"):
        TorchTokenEmbed(card).load()


def test_cards_of_other_roles_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"role: .* is a card of role reranker; expected multi_vector"):
        TorchTokenEmbed(Model(role="reranker", name="org/model"))
