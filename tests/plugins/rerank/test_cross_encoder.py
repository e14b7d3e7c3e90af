from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.cutting import Cutter
from orchestrator.errors import CallCancelledError, ConfigError
from orchestrator.models import Model
from orchestrator.passage_scores import score_cut
from orchestrator.passages import Passages
from orchestrator.plugins.rerank.cross_encoder import CrossEncoderRerank
from orchestrator.testing import PointwiseRerankContract
from orchestrator.types import Call, Document, Query

LONG = "Regular eye examinations find Glaucoma early. " * 8
PAIRS = [
    (Query("q1", "what damages the optic nerve"), Document("a", "Glaucoma damages the optic nerve", title="Eye")),
    (Query("q1", "what damages the optic nerve"), Document("b", LONG)),
    (Query("q2", LONG), Document("c", "the great wall")),
    (Query("q2", LONG), Document("b", LONG)),
    (Query("q3", "eye"), Document("d", "")),
    (Query("q3", "eye"), Document("e", "a wall; a nerve!")),
]
TEXTS = [(query.text, document.full_text) for query, document in PAIRS]
KINDS = ["bert", "xlmr", "deberta"]


def reranker(path: Path, root: Path, card: dict[str, Any] | None = None, **arguments: Any) -> CrossEncoderRerank:
    model = Model(role="reranker", path=str(path), storage_root=root, **card or {})
    made = CrossEncoderRerank(model, **{"threads": 1, **arguments})
    made.load()
    return made


def reference_scores(path: Path, max_length: int | None = None) -> Any:
    """Logits by sentence-transformers, which tokenizes, cuts and batches by itself."""
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(path), device="cpu", max_length=max_length, local_files_only=True)
    return model.predict(TEXTS, activation_fn=torch.nn.Identity(), show_progress_bar=False)


class TestContract(PointwiseRerankContract):
    @pytest.fixture(autouse=True)
    def _files(self, checkpoints: Any, shared_root: Path) -> None:
        self.path, self.root = checkpoints.transformer("xlmr", labels=1), shared_root

    def make(self) -> CrossEncoderRerank:
        return CrossEncoderRerank(Model(role="reranker", path=str(self.path), storage_root=self.root))


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_sentence_transformers(kind: str, backend: str, checkpoints: Any, shared_root: Path) -> None:
    path = checkpoints.transformer(kind, labels=1)
    device = "cpu" if backend == "torch" else None
    ours = reranker(path, shared_root, backend=backend, device=device, batch_tokens=100).score(PAIRS, Call())
    np.testing.assert_allclose(ours, reference_scores(path), atol=1e-5, rtol=1e-5)
    assert ours.dtype == np.float32
    assert np.ptp(ours) > 1e-2  # else any constant would pass


@pytest.mark.parametrize("length", [9, 30])
def test_long_pairs_are_cut_longest_first(length: int, checkpoints: Any, shared_root: Path) -> None:
    path = checkpoints.transformer("bert", labels=1)
    stage, call = reranker(path, shared_root, max_length_tokens=length), Call()
    np.testing.assert_allclose(stage.score(PAIRS, call), reference_scores(path, length), atol=1e-5, rtol=1e-5)
    assert stage.max_length_tokens == length


def test_length_of_the_stage_goes_before_the_card_before_the_model(checkpoints: Any, shared_root: Path) -> None:
    path = checkpoints.transformer("bert", labels=1)
    assert reranker(path, shared_root).max_length_tokens == 48
    assert reranker(path, shared_root, {"max_length_tokens": 20}).max_length_tokens == 20
    assert reranker(path, shared_root, {"max_length_tokens": 20}, max_length_tokens=10).max_length_tokens == 10


def test_tokens_are_counted_without_padding(checkpoints: Any, shared_root: Path) -> None:
    call = Call()
    reranker(checkpoints.transformer("bert", labels=1), shared_root).score(PAIRS[4:], call)
    assert call.tokens == 4 + 10  # [CLS] eye [SEP] [SEP], and [CLS] eye [SEP] a wall ; a nerve ! [SEP]


def test_cancelled_call_raises(checkpoints: Any, shared_root: Path) -> None:
    call = Call()
    call.cancel()
    with pytest.raises(CallCancelledError):
        reranker(checkpoints.transformer("bert", labels=1), shared_root).score(PAIRS, call)
    assert call.tokens == 0


def test_model_id_tells_weights_length_and_backend_apart(checkpoints: Any, shared_root: Path) -> None:
    bert, other = (checkpoints.transformer(kind, labels=1) for kind in ("bert", "xlmr"))
    made = [
        reranker(bert, shared_root),
        reranker(bert, shared_root, max_length_tokens=20),
        reranker(bert, shared_root, backend="torch"),
        reranker(other, shared_root),
    ]
    assert len({stage.model_id for stage in made}) == 4
    assert reranker(bert, shared_root).model_id == made[0].model_id


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_checkpoint_without_a_head_is_refused(backend: str, checkpoints: Any, shared_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"lacks the weights .*classifier.*; expected a cross-encoder"):
        reranker(checkpoints.transformer("bert"), shared_root, backend=backend)


def test_head_missing_from_a_file_that_claims_one_is_refused(
    checkpoints: Any, shared_root: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "headless"
    shutil.copytree(checkpoints.transformer("bert", labels=1), path)
    weights = load_file(path / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks the weights classifier\.weight; expected"):
        reranker(path, shared_root)


def test_model_with_two_labels_is_refused(checkpoints: Any, shared_root: Path) -> None:
    with pytest.raises(ConfigError, match="gives 2 numbers a pair; expected 1"):
        reranker(checkpoints.transformer("bert", labels=2), shared_root)


def test_embedder_card_is_refused() -> None:
    with pytest.raises(ConfigError, match="model: org/model is an embedder; expected a reranker"):
        CrossEncoderRerank(Model(role="embedder", name="org/model"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "onyx"}, r"backend: found 'onyx'; choices: onnx, torch. Did you mean 'onnx'\?"),
        ({"device": "cuda"}, "device: found 'cuda' with backend onnx"),
        ({"batch_tokens": 0}, "batch_tokens: found 0; expected a number from 1"),
        ({"max_length_tokens": -1}, "max_length_tokens: found -1"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CrossEncoderRerank(Model(role="reranker", name="org/model"), **arguments)


def test_unknown_device_is_named(checkpoints: Any, shared_root: Path) -> None:
    with pytest.raises(ConfigError, match="device: found 'warp'"):
        reranker(checkpoints.transformer("bert", labels=1), shared_root, backend="torch", device="warp")


def test_languages_come_from_the_card() -> None:
    card = Model(role="reranker", name="org/model", languages=["en", "de"])
    assert CrossEncoderRerank(card).languages == ("en", "de")


@pytest.mark.parametrize("kind", KINDS)
def test_spans_are_the_models_own_tokens(kind: str, checkpoints: Any, shared_root: Path) -> None:
    from tokenizers import Tokenizer

    path = checkpoints.transformer(kind, labels=1)
    stage = reranker(path, shared_root)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.no_truncation()
    text = f"{LONG} 青光眼 naïve — a-b"
    expected = tokenizer.encode(text, add_special_tokens=False).offsets
    assert stage.token_spans(text).tolist() == [list(span) for span in expected]
    assert stage.token_spans("").shape == (0, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_room_is_what_query_and_special_tokens_leave(kind: str, checkpoints: Any, shared_root: Path) -> None:
    stage = reranker(checkpoints.transformer(kind, labels=1), shared_root)
    alone, room = Call(), stage.room("what damages the nerve")
    stage.score([(Query("q", "what damages the nerve"), Document("d", ""))], alone)
    assert room == stage.max_length_tokens - alone.tokens  # type: ignore[operator]
    special = Call()
    stage.score([(Query("q", ""), Document("d", ""))], special)
    # The longer of the two is cut first, so that a document has half of what there is beside any query.
    assert stage.room(LONG * 10) == (stage.max_length_tokens - special.tokens) // 2  # type: ignore[operator]


@pytest.mark.parametrize("kind", KINDS)
def test_no_window_is_cut_by_the_model(kind: str, checkpoints: Any, shared_root: Path) -> None:
    stage = reranker(checkpoints.transformer(kind, labels=1), shared_root)
    query, document = Query("q", "what damages the nerve"), Document("d", LONG * 5, "Glaucoma")
    cutter = Cutter(Passages(how="windows", max_windows=None), stage, Call())
    windows = [passage.document for passage in cutter.cut(query, document)]
    assert len(windows) > 5
    lengths = []
    for window in windows:
        call = Call()
        stage.score([(query, window)], call)
        lengths.append(call.tokens)
    # A pair that was cut would be exactly as long as the model reads; words here are never cut in two.
    assert max(lengths) < stage.max_length_tokens  # type: ignore[operator]
    assert sorted(lengths)[-3] > 0.8 * stage.max_length_tokens  # type: ignore[operator]


def test_the_score_of_windows_is_that_of_the_best_alone(checkpoints: Any, shared_root: Path) -> None:
    stage = reranker(checkpoints.transformer("xlmr", labels=1), shared_root)
    query, document = PAIRS[0][0], Document("b", LONG * 3)
    policy = Passages(how="windows", max_windows=None)
    (score,), (span,) = score_cut(stage, [(query, document)], policy, Call())
    assert span is not None
    best = Document("b", document.text[span[0] : span[1]])
    np.testing.assert_allclose(score, stage.score([(query, best)], Call())[0], atol=1e-5)
