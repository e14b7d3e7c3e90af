"""A stack that takes the best rerank this machine has the files for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Pipeline
from orchestrator.errors import ConfigError, ModelNotFoundError
from orchestrator.models import Model
from orchestrator.plugins.rerank.at_hand import first_at_hand
from orchestrator.plugins.rerank.cross_encoder import CrossEncoderRerank
from orchestrator.plugins.rerank.null import NullRerank

STACK = ["pipeline=late_interaction", "rerank@pipeline.stages.precise.use=cross_encoder_or_ltr"]


class Absent(NullRerank):
    def at_hand(self) -> bool:
        return False


def test_the_first_one_at_hand_is_taken() -> None:
    absent, present, more = Absent(), NullRerank(), NullRerank()
    assert first_at_hand({"a": absent, "b": present, "c": more}) is present
    assert first_at_hand({"a": absent, "b": Absent(), "c": more}) is more
    last = Absent()
    assert first_at_hand({"a": absent, "b": last}) is last, "so that its own error says what is missing"


def test_no_choices_are_refused() -> None:
    with pytest.raises(ConfigError, match="choices: none; expected at least one rerank"):
        first_at_hand({})


def test_a_stack_without_a_cross_encoder_ends_with_the_learned_rerank(
    storage_root: Path,
) -> None:
    stage = Pipeline.compose(STACK).graph["precise"].stage
    assert type(stage).__name__ == "LTRRerank"


def test_a_stack_with_a_local_cross_encoder_ends_with_it(checkpoints: Any, storage_root: Path) -> None:
    folder = checkpoints.transformer("bert", labels=1)
    pipeline = Pipeline.compose([*STACK, "model@models.reranker=local", f"models.reranker.path={folder}"])
    assert type(pipeline.graph["precise"].stage).__name__ == "CrossEncoderRerank"


def test_a_path_that_leads_nowhere_is_not_passed_over(storage_root: Path) -> None:
    pipeline = Pipeline.compose([*STACK, "model@models.reranker=local", "models.reranker.path=/no/such/folder"])
    assert type(pipeline.graph["precise"].stage).__name__ == "CrossEncoderRerank", "its own error tells"


@pytest.mark.parametrize(
    ("labels", "tokens", "found"),
    [(None, {"yes_token": "yes", "no_token": "no"}, False), (None, {}, False), (1, {"yes_token": "yes"}, True)],
    ids=["answers", "a chat model", "a classifier"],
)
def test_a_published_graph_alone_is_at_hand_where_it_gives_the_score(
    labels: int | None, tokens: Any, found: bool, causal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--org--tiny" / "snapshots" / "main"
    shutil.copytree(causal("qwen3", labels), snapshot, ignore=shutil.ignore_patterns("*.safetensors"))
    (snapshot / "onnx").mkdir()
    (snapshot / "onnx" / "model.onnx").write_bytes(b"graph")
    card = Model(role="reranker", name="org/tiny", template=("{query}", "{document}"), storage_root=tmp_path, **tokens)
    stage = CrossEncoderRerank(card)
    assert stage.at_hand() is found
    assert not CrossEncoderRerank(card, backend="torch").at_hand()
    if not found:
        with pytest.raises(ModelNotFoundError, match=r"incomplete, missing weights \(model.safetensors or .*\)\n"):
            stage.load()
