from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from structlog.testing import capture_logs

from orchestrator.errors import CallCancelledError, ConfigError, MissingExtraError
from orchestrator.models import Model, load_onnx
from orchestrator.models.network import load_network
from orchestrator.models.tokens import TextEncoder
from orchestrator.plugins.rerank.cross_encoder import CrossEncoderRerank
from orchestrator.running.cutting import Cutter
from orchestrator.running.passage_scores import PairsRead
from orchestrator.stack.passages import Passages
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
    settings: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _files(self, checkpoints: Any, shared_root: Path) -> None:
        self.path, self.root = checkpoints.transformer("xlmr", labels=1), shared_root

    def make(self) -> CrossEncoderRerank:
        return CrossEncoderRerank(Model(role="reranker", path=str(self.path), storage_root=self.root), **self.settings)


class TestInt8Contract(TestContract):
    """Exactly the same score whatever stands beside a pair: each is a batch of its own."""

    settings: ClassVar = {"precision": "int8", "threads": 1}
    tolerance = 0.0


class TestOpenVinoContract(TestContract):
    settings: ClassVar = {"backend": "openvino", "threads": 1}


@pytest.mark.parametrize("backend", ["onnx", "openvino", "torch"])
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


class CancelledInFlight(Call):
    """Cancelled as soon as there is something to stop, and not before."""

    @contextlib.contextmanager
    def on_cancel(self, stop: Callable[[], object]) -> Iterator[None]:
        with super().on_cancel(stop):
            self.cancel()
            yield


def test_a_batch_in_flight_is_stopped_and_scores_stay_the_same(checkpoints: Any, shared_root: Path) -> None:
    stage = reranker(checkpoints.transformer("bert", labels=1), shared_root)
    before = stage.score(PAIRS, Call())
    call = CancelledInFlight()
    with pytest.raises(CallCancelledError, match="the batch in flight was stopped"):
        stage.score(PAIRS, call)
    assert call.tokens == 0
    np.testing.assert_array_equal(stage.score(PAIRS, Call()), before)


def test_model_id_tells_weights_length_and_backend_apart(checkpoints: Any, shared_root: Path) -> None:
    bert, other = (checkpoints.transformer(kind, labels=1) for kind in ("bert", "xlmr"))
    made = [
        reranker(bert, shared_root),
        reranker(bert, shared_root, max_length_tokens=20),
        reranker(bert, shared_root, backend="torch"),
        reranker(bert, shared_root, backend="openvino"),
        reranker(bert, shared_root, precision="int8"),
        reranker(other, shared_root),
    ]
    assert len({stage.model_id for stage in made}) == len(made)
    assert reranker(bert, shared_root).model_id == made[0].model_id


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_checkpoint_without_a_head_is_refused(backend: str, checkpoints: Any, shared_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"config.json says BertModel\); expected a cross-encoder .*models\.embedder"):
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
    with pytest.raises(ConfigError, match="model: org/model is a card of role embedder; expected reranker"):
        CrossEncoderRerank(Model(role="embedder", name="org/model"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "onyx"}, r"backend: found 'onyx'; choices: onnx, openvino, torch. Did you mean 'onnx'\?"),
        ({"device": "cuda"}, "device: found 'cuda' with backend onnx"),
        ({"device": "cuda", "backend": "openvino"}, "device: found 'cuda' with backend openvino"),
        ({"precision": "fp8"}, r"precision: found 'fp8'; choices: fp32, int8, fp16, bf16"),
        ({"precision": "fp16"}, "precision: found 'fp16' with backend onnx; choices: fp32, int8, or backend=torch"),
        ({"precision": "int8", "backend": "torch"}, "choices: fp32, fp16, bf16, or backend=onnx"),
        ({"precision": "int8", "backend": "openvino"}, "with backend openvino; choices: fp32, or backend=onnx"),
        ({"precision": "bf16", "backend": "torch", "device": "cpu"}, "found 'bf16' on cpu, which computes it 3 to 6"),
        ({"min_agreement": 95}, "min_agreement: found 95; expected a share from 0 to 1"),
        ({"batch_tokens": 0}, "batch_tokens: found 0; expected a whole number from 1"),
        ({"max_length_tokens": -1}, "max_length_tokens: found -1"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CrossEncoderRerank(Model(role="reranker", name="org/model"), **arguments)


def test_unknown_device_is_named(checkpoints: Any, shared_root: Path) -> None:
    with pytest.raises(ConfigError, match="device: found 'warp'"):
        reranker(checkpoints.transformer("bert", labels=1), shared_root, backend="torch", device="warp")


def test_half_precision_is_refused_on_a_machine_without_gpu(checkpoints: Any, shared_root: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="precision: found 'fp16' on cpu"):
        reranker(checkpoints.transformer("bert", labels=1), shared_root, backend="torch", precision="fp16")


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 2e-3), ("bf16", 4e-2)])
def test_half_precision_agrees_with_fp32_in_any_batch(
    precision: Any, tolerance: float, checkpoints: Any, shared_root: Path
) -> None:
    """The network itself, on CPU: slow there, but the same numbers. A tolerance is a share of the largest score."""
    path = checkpoints.transformer("xlmr", labels=1)
    network = load_network(Model(role="reranker", path=str(path), storage_root=shared_root), path, {})
    encoder = TextEncoder(network.tokenizer_json, network.manifest, network.manifest.max_length_tokens)
    rows = encoder.encode(TEXTS)
    exact = network.forward(encoder.batch(rows))
    network.cast(precision)
    together = network.forward(encoder.batch(rows))
    alone = np.concatenate([network.forward(encoder.batch([row])) for row in rows])
    assert together.dtype == np.float32
    largest = float(np.abs(exact).max())
    np.testing.assert_allclose(together, exact, atol=tolerance * largest, rtol=0)
    np.testing.assert_allclose(alone, together, atol=tolerance * largest, rtol=0)
    assert np.abs(together - exact).max() > 0


def test_int8_is_made_once_beside_the_export_and_agrees(checkpoints: Any, tmp_path: Path) -> None:
    path = checkpoints.transformer("xlmr", labels=1)
    exact = reranker(path, tmp_path).score(PAIRS, Call())
    with capture_logs() as first:
        coarse = reranker(path, tmp_path, precision="int8").score(PAIRS, Call())
    with capture_logs() as second:
        again = reranker(path, tmp_path, precision="int8").score(PAIRS, Call())
    assert [entry["event"] for entry in first] == ["model.quantise", "model.agreement"]
    assert second == []
    np.testing.assert_array_equal(coarse, again)
    assert 0 < np.abs(coarse - exact).max() < np.ptp(exact) / 4
    export, copy = sorted(folder for folder in (tmp_path / "models").glob("xlmr-*") if folder.is_dir())
    assert copy.name.startswith(f"{export.name}-int8")
    assert (copy / "model.onnx").stat().st_size < (export / "model.onnx").stat().st_size


def test_int8_scores_would_change_with_the_batch_if_a_batch_had_more_than_one_pair(
    checkpoints: Any, shared_root: Path
) -> None:
    path = checkpoints.transformer("xlmr", labels=1)
    stage = reranker(path, shared_root, precision="int8")
    model = load_onnx(stage.model, threads=1, int8=True)
    together = model.session.run(model.encoder.batch(model.encoder.encode(TEXTS)))[:, 0]
    assert np.abs(together - stage.score(PAIRS, Call())).max() > 1e-3


def test_int8_that_orders_documents_otherwise_is_refused_with_the_figures(checkpoints: Any, shared_root: Path) -> None:
    path = checkpoints.transformer("bert", labels=1)
    message = r"precision: int8 orders .*: order 0\.9\d+ of 219 pairs, spearman .* at least 1.0 \(min_agreement\)"
    with pytest.raises(ConfigError, match=message):
        reranker(path, shared_root, precision="int8", min_agreement=1.0)
    reranker(path, shared_root, precision="int8", min_agreement=0.9)


@pytest.mark.parametrize(
    ("missing", "settings"), [("onnx", {"precision": "int8"}), ("openvino", {"backend": "openvino"})]
)
def test_what_a_backend_lacks_is_named_with_its_extra(
    missing: str,
    settings: dict[str, Any],
    checkpoints: Any,
    shared_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "model"
    shutil.copytree(checkpoints.published("xlmr", labels=1), path)
    reranker(path, tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r"rerank-orchestrator\[(int8|openvino)\]"):
        reranker(path, tmp_path, **settings)


def test_settings_go_with_another_model() -> None:
    card, other = (Model(role="reranker", name=name) for name in ("org/model", "org/other"))
    settings: dict[str, Any] = {"threads": 3, "batch_tokens": 99, "precision": "int8", "min_agreement": 0.5}
    stage = CrossEncoderRerank(card, **settings).with_model(other)
    assert stage.model == other
    assert {key: getattr(stage, key) for key in settings} == settings


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
    (score,), (span,) = PairsRead(stage, [(query, document)], policy, Call()).scored()
    assert span is not None
    best = Document("b", document.text[span[0] : span[1]])
    np.testing.assert_allclose(score, stage.score([(query, best)], Call())[0], atol=1e-5)
