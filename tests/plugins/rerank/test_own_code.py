"""Checkpoints that need code of their authors: it is never run, and the message says what to use instead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import Pipeline
from orchestrator.errors import ConfigError
from orchestrator.types import Call, Document, Query

CODE = "raise SystemExit('code of the authors was run')"
# As such repositories say it in config.json.
REPOSITORIES = {
    "jina_reranker_v2": {
        "model_type": "xlm-roberta",
        "architectures": ["XLMRobertaForSequenceClassification"],
        "auto_map": {
            "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
            "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
        },
    },
    "jina_reranker_v3": {
        "model_type": "qwen3",
        "architectures": ["JinaForRanking"],
        "auto_map": {"AutoModel": "modeling.JinaForRanking"},
    },
    "gte_multilingual_reranker": {
        "model_type": "new",
        "architectures": ["NewForSequenceClassification"],
        "auto_map": {
            "AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
            "AutoModelForSequenceClassification": "Alibaba-NLP/new-impl--modeling.NewForSequenceClassification",
        },
    },
}
INSTEAD = {
    "jina_reranker_v2": "its onnx/ folder runs with backend=onnx, or rerank@pipeline.stages.precise.use=jina",
    "jina_reranker_v3": "rerank@pipeline.stages.precise.use=jina calls Jina's own service",
    "gte_multilingual_reranker": "a copy converted to the type `gte` of transformers runs",
}


def stage(name: str, path: Path, root: Path, backend: str) -> Any:
    words = [f"model@models.reranker={name}", f"models.reranker.path={path}", f"storage.root={root}"]
    words += [f"pipeline.stages.precise.use.backend={backend}", "models.reranker.max_length_tokens=null"]
    return Pipeline.compose(["pipeline=cross_encoder", *words]).graph["precise"].stage


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("name", REPOSITORIES)
def test_code_of_the_authors_is_not_run_and_the_way_round_is_named(
    name: str, backend: str, causal: Any, checkpoints: Any, tmp_path: Path
) -> None:
    body = causal("qwen3") if name == "jina_reranker_v3" else checkpoints.transformer("xlmr")
    folder = tmp_path / "repository"
    shutil.copytree(body, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **REPOSITORIES[name]}))
    for module in ("configuration_xlm_roberta", "modeling_xlm_roberta", "modeling"):
        (folder / f"{module}.py").write_text(CODE)
    with pytest.raises(ConfigError) as caught:
        stage(name, folder, tmp_path / "storage", backend).load()
    message = str(caught.value)
    assert "needs code of its authors, which is not run here" in message
    assert INSTEAD[name] in message
    assert "trust_remote_code" not in message


def test_gte_in_the_type_of_transformers_runs_as_its_card_says(checkpoints: Any, shared_root: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    def save(folder: Path) -> None:
        import transformers

        torch.manual_seed(3)
        shutil.copytree(checkpoints.transformer("xlmr"), folder)
        (folder / "model.safetensors").unlink()
        size = json.loads((folder / "config.json").read_text())["vocab_size"]
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        config = transformers.GteConfig(
            vocab_size=size, num_labels=1, pad_token_id=1, initializer_range=0.3, max_position_embeddings=128, **sizes
        )
        transformers.GteForSequenceClassification(config).save_pretrained(folder)

    path = checkpoints.once("gte", save)
    texts = [("the eye", "glaucoma damages the optic nerve"), ("the eye", "a wall"), ("a great wall", "the eye " * 9)]
    model = CrossEncoder(str(path), device="cpu", local_files_only=True)
    theirs = model.predict(texts, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    pairs = [(Query(str(place), query), Document(str(place), text)) for place, (query, text) in enumerate(texts)]
    for backend in ("onnx", "torch"):
        made = stage("gte_multilingual_reranker", path, shared_root, backend)
        made.load()
        np.testing.assert_allclose(made.score(pairs, Call()), theirs, atol=1e-4, rtol=1e-4)
    assert np.ptp(theirs) > 1e-2
