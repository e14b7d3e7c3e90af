from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import ConfigError
from orchestrator.models import Model
from orchestrator.models.files import digests, has_graph, missing_parts, needed_files
from orchestrator.models.session import physical_cores
from orchestrator.models.tokens import plan_batches

HUB_FOLDER = [
    ".gitattributes",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "2_Dense/pytorch_model.bin",
    "README.md",
    "artifact.metadata",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "onnx/model.onnx",
    "onnx/config.json",
    "openvino/openvino_model.xml",
    "pytorch_model.bin",
    "rust_model.ot",
    "sentence_bert_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "tf_model.h5",
    "tokenizer.json",
    "tokenizer_config.json",
    "train_script.py",
    "vocab.txt",
]


def test_needed_files_are_configuration_tokenizer_modules_and_one_format_of_weights() -> None:
    assert needed_files(HUB_FOLDER) == [
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "artifact.metadata",  # of Stanford's ColBERT
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "sentencepiece.bpe.model",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]


def test_needed_files_of_a_published_graph_are_the_graph_in_place_of_the_weights() -> None:
    names = [*HUB_FOLDER, "onnx/model.onnx_data", "onnx/Constant_7_attr__value", "onnx/model_O4.onnx"]
    names += ["onnx/model_qint8_avx512_vnni.onnx", "onnx/tokenizer.json"]
    weights = {"model.safetensors", "2_Dense/model.safetensors"}
    graph = {"onnx/model.onnx", "onnx/model.onnx_data", "onnx/Constant_7_attr__value"}
    assert set(needed_files(names, graph=True)) == set(needed_files(names)) - weights | graph


@pytest.mark.parametrize(
    ("without", "more", "usable"),
    [
        (None, [], True),
        (None, ["1_Pooling/config.json", "model.safetensors"], True),
        (None, ["2_Dense/model.safetensors"], False),  # the graph does not hold them
        ("tokenizer.json", ["vocab.txt"], False),
        ("config.json", ["0_Transformer/config.json"], False),
        ("onnx/model.onnx", ["onnx/model_quantized.onnx"], False),
    ],
)
def test_a_graph_is_used_beside_configuration_and_tokenizer(without: str, more: list[str], usable: bool) -> None:
    names = {"config.json", "tokenizer.json", "onnx/model.onnx"} - {without}
    assert has_graph([*names, *more]) is usable


@pytest.mark.parametrize(
    ("weights", "kept"),
    [
        (["pytorch_model.bin"], ["pytorch_model.bin"]),
        (["pytorch_model.bin", "model.safetensors"], ["model.safetensors"]),
        (
            ["model.safetensors.index.json", "model-00001-of-2.safetensors", "model-00002-of-2.safetensors", "x.bin"],
            ["model-00001-of-2.safetensors", "model-00002-of-2.safetensors", "model.safetensors.index.json"],
        ),
        (
            ["pytorch_model.bin.index.json", "pytorch_model-00001-of-1.bin", "optimizer.bin"],
            ["pytorch_model-00001-of-1.bin", "pytorch_model.bin.index.json"],
        ),
    ],
)
def test_needed_weights(weights: list[str], kept: list[str]) -> None:
    assert needed_files([*weights, "config.json"]) == sorted([*kept, "config.json"])


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["config.json", "model.safetensors", "tokenizer.json"], []),
        (["config.json", "pytorch_model.bin", "spiece.model"], []),
        (["0_Transformer/config.json", "0_Transformer/pytorch_model.bin", "0_Transformer/vocab.txt"], []),
        (["config.json", "2_Dense/model.safetensors", "tokenizer.json"], ["weights"]),
        (["1_Pooling/config.json", "README.md"], ["config.json", "weights", "tokenizer"]),
        (["config.json", "model.safetensors"], ["tokenizer"]),
    ],
)
def test_missing_parts_are_named(names: list[str], missing: list[str]) -> None:
    assert [part.partition(" ")[0] for part in missing_parts(names)] == missing


def test_digests_are_sha256_and_a_file_is_read_once(tmp_path: Path) -> None:
    folder, root = tmp_path / "model", tmp_path / "root"
    folder.mkdir()
    (folder / "a").write_bytes(b"abc")
    # The first example of FIPS 180-2.
    assert digests(folder, ["a"], root) == {"a": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    (folder / "a").chmod(0)
    remembered = next((root / "models" / "digests").iterdir()).read_text()
    first = remembered.replace("ba7816bf", "00000000")
    next((root / "models" / "digests").iterdir()).write_text(first)
    assert digests(folder, ["a"], root)["a"].startswith("00000000")  # from memory: the file was not read
    (folder / "a").chmod(0o600)
    (folder / "a").write_bytes(b"abcd")
    assert digests(folder, ["a"], root)["a"] == "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"


def test_damaged_memory_of_digests_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    expected = digests(tmp_path, ["a"], tmp_path)
    next((tmp_path / "models" / "digests").iterdir()).write_text('{"a": [3')
    assert digests(tmp_path, ["a"], tmp_path) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"role": "rerank"},
            r"role: found 'rerank'; choices: embedder, reranker, multi_vector, sparse. Did you mean 'reranker'\?",
        ),
        ({"name": None}, "a reranker with no `name` and no `path`; give name=ORG/MODEL .* path=DIR"),
        ({"languages": "en"}, "languages: found 'en'; expected a list"),
        ({"published": 5}, "published: found 5; expected a list"),
        ({"max_length_tokens": 0}, "max_length_tokens: found 0; expected a whole number from 1"),
        ({"max_length_tokens": True}, "max_length_tokens: found True"),
        ({"max_length_tokens": 12.5}, "max_length_tokens: found 12.5"),
        ({"prompts": {"querry": "q: "}}, r"prompts: found 'querry'; choices: query, document. Did you mean 'query'\?"),
    ],
)
def test_wrong_card_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Model(**{"role": "reranker", "name": "org/model", **arguments})


def test_cards_take_lists_and_compare_and_hash_by_content() -> None:
    settings = {"role": "embedder", "name": "org/model", "prompts": {"query": "q"}}
    first = Model(**settings, languages=["en"], published=[{"value": 1}])
    second = Model(**settings, languages=("en",), published=({"value": 1},))
    assert first == second
    assert len({first, second}) == 1
    assert first != Model(role="embedder", name="org/model", languages=["en"])


def test_batches_are_sorted_by_length_within_the_budget() -> None:
    batches = [rows.tolist() for rows in plan_batches([5, 100, 5, 30, 31, 5, 5], 62)]
    assert batches == [[1], [4, 3], [0, 2, 5, 6]]


def test_batches_hold_every_row_once_whatever_the_lengths() -> None:
    rng = np.random.default_rng(3)
    for budget in (1, 17, 1024):
        lengths = rng.integers(0, 300, size=500).tolist()
        batches = list(plan_batches(lengths, budget))
        assert sorted(np.concatenate(batches).tolist()) == list(range(500))
        assert all(len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= budget for rows in batches)
    assert list(plan_batches([], 10)) == []


def test_physical_cores_are_not_more_than_the_process_may_use() -> None:
    import os

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert 1 <= physical_cores() <= allowed
