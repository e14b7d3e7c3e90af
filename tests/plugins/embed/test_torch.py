from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import CallCancelledError, ConfigError, MissingExtraError
from orchestrator.models import Model
from orchestrator.plugins.embed.onnx import OnnxEmbed
from orchestrator.plugins.embed.torch import TorchEmbed
from orchestrator.testing import EmbedContract
from orchestrator.types import Call


class TestContract(EmbedContract):
    @pytest.fixture(autouse=True)
    def _files(self, checkpoints: Any, shared_root: Path) -> None:
        self.path, self.root = checkpoints.transformer("bert"), shared_root

    def card(self, **settings: Any) -> Model:
        return Model(role="embedder", path=str(self.path), storage_root=self.root, **settings)

    def make(self) -> TorchEmbed:
        return TorchEmbed(self.card(), device="cpu")

    def test_agrees_with_the_onnx_backend(self, checkpoints: Any) -> None:
        settings = {"prompts": {"query": "query: "}, "max_length_tokens": 20}
        ours, other = TorchEmbed(self.card(**settings), device="cpu", batch_tokens=64), OnnxEmbed(self.card(**settings))
        ours.load()
        other.load()
        calls = Call(), Call()
        for kind in ("query", "document"):
            mine = ours.embed(checkpoints.texts, kind=kind, call=calls[0])
            np.testing.assert_allclose(mine, other.embed(checkpoints.texts, kind=kind, call=calls[1]), atol=1e-5)
        assert calls[0].tokens == calls[1].tokens
        assert ours.max_length_tokens == other.max_length_tokens == 20
        assert ours.model_id != other.model_id  # they agree to 1e-5, not to the bit

    def test_cancelled_call_raises(self, checkpoints: Any) -> None:
        embed, call = self.make(), Call()
        embed.load()
        call.cancel()
        with pytest.raises(CallCancelledError):
            embed.embed(checkpoints.texts, kind="query", call=call)


def test_runs_modules_that_the_onnx_export_does_not_know(checkpoints: Any, shared_root: Path) -> None:
    def modules() -> list[Any]:
        from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

        return [Pooling(32, "mean"), LayerNorm(32)]

    path = checkpoints.sentence_transformer("layer-norm", "bert", modules)
    embed = TorchEmbed(Model(role="embedder", path=str(path), storage_root=shared_root), device="cpu")
    embed.load()
    vectors = embed.embed(["the great wall", "eye"], kind="document", call=Call())
    # A fresh LayerNorm leaves mean 0 and variance 1 in every vector.
    np.testing.assert_allclose(vectors.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(vectors.var(axis=1), 1, atol=1e-3)


def test_missing_library_names_the_extra(checkpoints: Any, shared_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    path = checkpoints.transformer("bert")
    with pytest.raises(MissingExtraError, match=r"orchestrator\[torch\]"):
        TorchEmbed(Model(role="embedder", path=str(path), storage_root=shared_root)).load()


def test_distance_models_are_refused(checkpoints: Any, shared_root: Path) -> None:
    def modules() -> list[Any]:
        from sentence_transformers.sentence_transformer.modules import Pooling

        return [Pooling(32, "mean")]

    path = checkpoints.sentence_transformer("distance", "bert", modules, similarity_fn_name="euclidean")
    card = Model(role="embedder", path=str(path), storage_root=shared_root)
    for embed in (TorchEmbed(card, device="cpu"), OnnxEmbed(card)):
        with pytest.raises(ConfigError, match="found similarity 'euclidean'; vectors are compared by cosine or dot"):
            embed.load()
