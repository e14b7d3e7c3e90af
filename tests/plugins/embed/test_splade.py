"""SPLADE by our own export: what sentence-transformers' SparseEncoder makes of the same folder, to 1e-4."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import Pipeline
from orchestrator.errors import ConfigError
from orchestrator.models import Model
from orchestrator.models.files import missing_parts, needed_files
from orchestrator.models.sparse_head import strongest
from orchestrator.plugins.embed.splade import SpladeEmbed
from orchestrator.testing import EmbedSparseContract
from orchestrator.types import Call, SparseVector, TextKind

KINDS: tuple[TextKind, ...] = ("query", "document")


def modules(folder: Path, pooling: str = "max", activation: str = "relu") -> list[Any]:
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    return [Transformer(str(folder), transformer_task="fill-mask"), SpladePooling(pooling, activation)]


def routed(folder: Path) -> list[Any]:
    """Queries by static weights, some of them 0, as inference-free models are saved."""
    import torch
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    weights = torch.rand(len(tokenizer.get_vocab()))
    weights[::5] = 0
    static = SparseStaticEmbedding(tokenizer, weight=weights, frozen=True)
    documents = modules(folder, activation="log1p_relu")
    return [Router.for_query_document(query_modules=[static], document_modules=documents)]


SPARSE: dict[str, Callable[[Any], Path]] = {
    "bert max": lambda made: made.sparse("splade-bert", lambda: modules(made.masked_lm("bert"))),
    "xlmr sum": lambda made: made.sparse("splade-xlmr", lambda: modules(made.masked_lm("xlmr"), "sum")),
    "modernbert twice": lambda made: made.sparse(
        "splade-modernbert", lambda: modules(made.masked_lm("modernbert"), "max", "log1p_relu"), max_active_dims=7
    ),
    "bare bert": lambda made: made.masked_lm("bert"),
    "static queries": lambda made: made.sparse("splade-static", lambda: routed(made.masked_lm("bert"))),
}


def encoder_of(folder: Path, root: Path, **options: Any) -> SpladeEmbed:
    return SpladeEmbed(Model(role="sparse", path=str(folder), storage_root=root), threads=1, **options)


def dense(vectors: list[SparseVector], width: int) -> Any:
    rows = np.zeros((len(vectors), width), dtype=np.float32)
    for row, vector in zip(rows, vectors, strict=True):
        row[vector.indices] = vector.values
    return rows


@pytest.mark.parametrize("name", SPARSE)
def test_weights_are_those_of_sentence_transformers(checkpoints: Any, shared_root: Path, name: str) -> None:
    from sentence_transformers import SparseEncoder

    folder = SPARSE[name](checkpoints)
    theirs, ours = SparseEncoder(str(folder), device="cpu", local_files_only=True), encoder_of(folder, shared_root)
    ours.load()
    texts = list(checkpoints.texts)
    for kind in KINDS:
        encode = theirs.encode_query if kind == "query" else theirs.encode_document
        wanted = encode(texts, convert_to_sparse_tensor=False).numpy()
        found = dense(ours.embed_sparse(texts, kind=kind, call=Call()), wanted.shape[1])
        np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)
        assert (found > 0).any(axis=1).sum() >= len(texts) - 2, "a comparison of nothing proves nothing"


class TestSplade(EmbedSparseContract):
    """What holds for every sparse encoder."""

    name = "bert max"

    @pytest.fixture(autouse=True)
    def _files(self, checkpoints: Any, shared_root: Path) -> None:
        self.checkpoints, self.root = checkpoints, shared_root

    def make(self) -> SpladeEmbed:
        """A tiny one."""
        return encoder_of(SPARSE[self.name](self.checkpoints), self.root)


class TestSpladeOfStaticQueries(TestSplade):
    """The same with static weights for queries."""

    name = "static queries"


def test_static_queries_run_no_network(checkpoints: Any, shared_root: Path) -> None:
    encoder = encoder_of(SPARSE["static queries"](checkpoints), shared_root)
    encoder.load()
    call = Call()
    once, twice = encoder.embed_sparse(["eye", "eye eye"], kind="query", call=call)
    assert call.tokens == 0
    np.testing.assert_array_equal(once.values, twice.values)
    encoder.embed_sparse(["eye"], kind="document", call=call)
    assert call.tokens == 3  # with both special tokens


def test_static_weights_of_a_json_file_are_found(checkpoints: Any, shared_root: Path, tmp_path: Path) -> None:
    """As older models have them: `path` in the module's configuration, the file beside the model."""
    folder = shutil.copytree(SPARSE["static queries"](checkpoints), tmp_path / "model")
    place = folder / "query_0_SparseStaticEmbedding"
    (place / "config.json").write_text(json.dumps({"frozen": True, "path": "somewhere/idf.json"}))
    (place / "model.safetensors").unlink()
    (folder / "idf.json").write_text(json.dumps({"eye": 2.5, "nerve": 0.5}))
    encoder = encoder_of(folder, shared_root)
    encoder.load()
    (vector,) = encoder.embed_sparse(["an eye; a nerve"], kind="query", call=Call())
    assert sorted(vector.values.tolist()) == [0.5, 2.5]


def test_the_transformer_of_a_router_may_stand_in_the_folder_itself(
    checkpoints: Any, shared_root: Path, tmp_path: Path
) -> None:
    """As opensearch-neural-sparse-encoding-doc-v3-distill has it."""
    whole = SPARSE["static queries"](checkpoints)
    folder = shutil.copytree(whole, tmp_path / "model")
    for file in (folder / "document_0_Transformer").iterdir():
        shutil.move(file, folder / file.name)
    (folder / "document_0_Transformer").rmdir()
    router = json.loads((folder / "router_config.json").read_text())
    router["types"][""] = router["types"].pop("document_0_Transformer")
    router["structure"]["document"][0] = ""
    (folder / "router_config.json").write_text(json.dumps(router))
    assert missing_parts([path.relative_to(folder).as_posix() for path in folder.rglob("*")]) == []
    encoders = [encoder_of(place, shared_root) for place in (whole, folder)]
    for encoder in encoders:
        encoder.load()
    for kind in KINDS:
        one, two = (dense(e.embed_sparse(checkpoints.texts, kind=kind, call=Call()), 200) for e in encoders)
        np.testing.assert_array_equal(one, two)


def test_only_so_many_dimensions_are_kept(checkpoints: Any, shared_root: Path) -> None:
    folder = SPARSE["bert max"](checkpoints)
    every, few = encoder_of(folder, shared_root), encoder_of(folder, shared_root, max_active_dims=5)
    for encoder in (every, few):
        encoder.load()
    (whole,) = every.embed_sparse(["glaucoma damages the optic nerve"], kind="document", call=Call())
    (kept,) = few.embed_sparse(["glaucoma damages the optic nerve"], kind="document", call=Call())
    assert len(kept.indices) == 5 < len(whole.indices)
    assert sorted(kept.values.tolist()) == sorted(whole.values.tolist())[-5:]
    assert every.model_id != few.model_id


def test_of_equal_weights_the_lowest_dimensions_are_kept() -> None:
    vector = SparseVector(np.array([2, 5, 8, 9], np.uint32), np.array([1, -3, 1, 1], np.float32))
    assert strongest(vector, 3).indices.tolist() == [2, 5, 8]
    assert strongest(vector, None) is vector


def test_a_folder_behind_a_router_is_whole_and_copied_whole() -> None:
    names = [
        "modules.json",
        "router_config.json",
        "config_sentence_transformers.json",
        "document_0_Transformer/config.json",
        "document_0_Transformer/model.safetensors",
        "document_0_Transformer/tokenizer.json",
        "document_1_SpladePooling/config.json",
        "query_0_SparseStaticEmbedding/config.json",
        "query_0_SparseStaticEmbedding/model.safetensors",
        "query_0_SparseStaticEmbedding/tokenizer.json",
    ]
    assert missing_parts(names) == []
    assert needed_files([*names, "README.md", "openvino/model.bin", "onnx/config.json"]) == sorted(names)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        (lambda made: made.transformer("bert"), r"found architecture \['BertModel'\] without modules.json"),
        (
            lambda made: made.sentence_transformer("st-mean", "bert", mean_pooling),
            "found task 'feature-extraction' in .*; expected 'fill-mask'",
        ),
        (
            lambda made: with_another_module(made),
            "found modules Transformer, SpladePooling, .*Normalize; expected Transformer, SpladePooling",
        ),
    ],
    ids=["an encoder", "an embedder", "a module more"],
)
def test_another_kind_of_model_is_refused(
    checkpoints: Any, shared_root: Path, folder: Callable[[Any], Path], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        encoder_of(folder(checkpoints), shared_root).load()


def with_another_module(made: Any) -> Path:
    from sentence_transformers.base.modules import Normalize

    folder: Path = made.sparse("splade-normal", lambda: [*modules(made.masked_lm("bert")), Normalize()])
    return folder


def mean_pooling() -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Pooling

    return [Pooling(32, pooling_mode="mean")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_active_dims": 0}, "max_active_dims: found 0; expected a whole number from 1"),
        ({"batch_tokens": 0}, "batch_tokens: found 0"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SpladeEmbed(Model(role="sparse", name="a/b"), **options)


def test_a_card_of_another_role_is_refused() -> None:
    with pytest.raises(ConfigError, match="role: a/b is a card of role embedder; expected sparse"):
        SpladeEmbed(Model(role="embedder", name="a/b"))


_WITHOUT_TORCH = """
import sys
from pathlib import Path
from orchestrator.models import Model
from orchestrator.plugins.embed.splade import SpladeEmbed
from orchestrator.types import Call
encoder = SpladeEmbed(Model(role="sparse", path=sys.argv[1], storage_root=Path(sys.argv[2])), threads=1)
encoder.load()
for kind in ("query", "document"):
    print(len(encoder.embed_sparse(["an eye"], kind=kind, call=Call())[0].indices) > 0)
print({"torch", "transformers", "sentence_transformers"} & sys.modules.keys() or "none")
"""


def test_once_exported_it_runs_without_torch(checkpoints: Any, shared_root: Path) -> None:
    folder = SPARSE["static queries"](checkpoints)
    encoder_of(folder, shared_root).load()
    command = [sys.executable, "-c", _WITHOUT_TORCH, str(folder), str(shared_root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "none"]


def test_a_pipeline_recalls_by_it(checkpoints: Any, shared_root: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs.jsonl"
    texts = ["glaucoma damages the optic nerve", "the eye"]
    docs.write_text("\n".join(json.dumps({"_id": f"d{i}", "text": text}) for i, text in enumerate(texts)))
    folder = SPARSE["static queries"](checkpoints)
    words = ["pipeline=sparse", "model@models.sparse=local_sparse", f"models.sparse.path={folder}"]
    pipeline = Pipeline.compose([*words, f"corpus.path={docs}", f"storage.root={shared_root}"])
    result = pipeline.search("what damages the optic nerve?")
    assert set(result.doc_ids) == {"d0", "d1"}
    assert result.ranked.score_kind == "dot"
    pipeline.close()
