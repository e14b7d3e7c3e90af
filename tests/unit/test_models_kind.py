"""A model is not loaded as another kind than it is: told from the JSON files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError
from orchestrator.models.description import describe, read_saved
from orchestrator.models.kind import check_kind

ONE = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
CAUSAL = {"architectures": ["Qwen3ForCausalLM"]}
POOLING = [
    {"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def write(folder: Path, config: Any, modules: Any = None, whole: Any = None) -> Path:
    files = {"config.json": config, "modules.json": modules, "config_sentence_transformers.json": whole}
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "config",
    [
        ONE,
        {"architectures": ["NewForSequenceClassification"], "num_labels": 1},
        {"architectures": ["OwnForSequenceClassification"], "auto_map": {"AutoConfig": "own.Config"}},  # may be 1 there
        {},  # nothing is said: the weights will tell
    ],
)
def test_rerankers_pass(config: Any, tmp_path: Path) -> None:
    assert describe(write(tmp_path, config, None, {"model_type": "CrossEncoder"}), "reranker").modules == ()


@pytest.mark.parametrize(
    ("config", "modules", "whole", "message"),
    [
        ({"architectures": ["BertModel"]}, None, None, r"says BertModel\); .* for models\.embedder"),
        ({"architectures": ["BertModel"]}, POOLING, None, r"has a Pooling\); .*for models\.embedder"),
        (ONE, POOLING, None, r"has a Pooling\); .*for models\.embedder"),
        ({}, None, {"model_type": "MultiVectorEncoder"}, r"saved as MultiVectorEncoder\); .*models\.multi_vector"),
        ({"architectures": ["HF_ColBERT"]}, None, None, r"models\.multi_vector"),
        ({"architectures": ["BertForMaskedLM"]}, None, None, r"a language model without a score.*train cross_encoder"),
        ({"architectures": ["BertForQuestionAnswering"]}, None, None, "a model that finds answers in a text"),
        ({**ONE, "id2label": {"0": "no", "1": "yes"}}, None, None, r"gives 2 numbers a pair; expected 1.*yes and no"),
        ({"architectures": ONE["architectures"]}, None, None, "gives 2 numbers a pair"),  # transformers' default
        ({**ONE, "id2label": dict.fromkeys("012", "x")}, None, None, r"gives 3 numbers a pair.*inference \(NLI\)"),
    ],
)
def test_other_models_as_rerankers_are_refused(
    config: Any, modules: Any, whole: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"models\.reranker: .*{message}"):
        describe(write(tmp_path, config, modules, whole), "reranker")


@pytest.mark.parametrize(
    ("config", "whole", "message"),
    [
        (ONE, None, r"says BertForSequenceClassification\); .*for models\.reranker"),
        ({}, {"model_type": "CrossEncoder"}, r"saved as CrossEncoder\); .*for models\.reranker"),
        ({**ONE, "id2label": dict.fromkeys("012", "x")}, None, "a classifier of single texts or pairs"),
        (CAUSAL, None, r"Qwen3ForCausalLM, and there is no modules\.json\); .*for models\.reranker with `template`"),
    ],
)
@pytest.mark.parametrize("role", ["embedder", "multi_vector"])
def test_rerankers_as_encoders_are_refused(role: Any, config: Any, whole: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"models\.{role}: .*{message}"):
        describe(write(tmp_path, config, None, whole), role)


def test_a_cross_encoder_made_of_modules_is_taken_for_neither(tmp_path: Path) -> None:
    """Pooling and layers after a bare encoder: only `model_type` tells it from an embedder."""
    folder = write(tmp_path, {"architectures": ["ModernBertModel"]}, POOLING, {"model_type": "CrossEncoder"})
    with pytest.raises(ConfigError, match=r"saved as CrossEncoder\); .*for models\.reranker"):
        describe(folder, "embedder")
    check_kind("reranker", read_saved(folder))


@pytest.mark.parametrize(
    ("config", "modules"),
    [
        ({"architectures": ["BertModel"]}, None),
        ({"architectures": ["BertForMaskedLM"]}, None),
        (ONE, POOLING),  # a Pooling says more than the name of a class
        (CAUSAL, POOLING),  # as Qwen3-Embedding is saved
    ],
)
def test_embedders_pass(config: Any, modules: Any, tmp_path: Path) -> None:
    folder = write(tmp_path, config, modules)
    assert describe(folder, "embedder").modules[0]["type"] == "pooling"
    check_kind("multi_vector", read_saved(folder))
