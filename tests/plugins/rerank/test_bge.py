"""bge rerankers for real: XLM-R with a sentencepiece model trained here and no tokenizer.json; English and Chinese."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator import Pipeline
from orchestrator.errors import MissingExtraError
from orchestrator.models import Model
from orchestrator.plugins.rerank.cross_encoder import CrossEncoderRerank
from orchestrator.testing import PointwiseRerankContract
from orchestrator.types import Call, Document, Query

TEXTS = [
    ("What damages the optic nerve?", "Glaucoma damages the optic nerve"),
    ("What damages the optic nerve?", "Regular eye examinations find Glaucoma early. " * 20),
    ("长城有多长？", "长城由许多朝代修建。"),
    ("长城有多长？", "青光眼会损害视神经。" * 40),
    ("青光眼 risk", "The Great Wall was built by many dynasties; 长城有多长？"),
    # Normalised by sentencepiece: a ligature, full-width letters, a no-break space. Beyond its letters: an emoji.
    ("ｅｙｅ", "the ﬁrst\u00a0wall 🐼"),
    ("eye", ""),
]
PAIRS = [(Query(str(place), query), Document(str(place), text)) for place, (query, text) in enumerate(TEXTS)]
LEARNED = [
    "Regular eye examinations find Glaucoma early. What damages the optic nerve?",
    "The Great Wall was built by many dynasties; the wall is 21,196 km long.",
    "青光眼会损害视神经。定期检查眼睛可以及早发现青光眼。长城有多长？长城由许多朝代修建。",
]


@pytest.fixture(scope="session")
def bge(checkpoints: Any) -> Path:
    """A checkpoint laid out as the authors of bge and XLM-R do, without the converted tokenizer.json."""
    path: Path = checkpoints.once("bge", _save)
    return path


def _save(folder: Path) -> None:
    import torch
    from sentencepiece import SentencePieceTrainer
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    content = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(LEARNED * 20),
        model_writer=content,
        vocab_size=200,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
    )
    torch.manual_seed(3)
    config = XLMRobertaConfig(
        vocab_size=_pieces(content.getvalue()).get_piece_size() + 2,  # fairseq's own: <pad>, <mask>
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=1,
        num_labels=1,
        initializer_range=0.3,
    )
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    (folder / "sentencepiece.bpe.model").write_bytes(content.getvalue())
    settings = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 128}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _pieces(model: bytes) -> Any:
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_proto=model)


def reranker(path: Path, root: Path, **arguments: Any) -> CrossEncoderRerank:
    made = CrossEncoderRerank(Model(role="reranker", path=str(path), storage_root=root), threads=1, **arguments)
    made.load()
    return made


class TestContract(PointwiseRerankContract):
    @pytest.fixture(autouse=True)
    def _files(self, bge: Path, shared_root: Path) -> None:
        self.path, self.root = bge, shared_root

    def make(self) -> CrossEncoderRerank:
        return CrossEncoderRerank(Model(role="reranker", path=str(self.path), storage_root=self.root))


@pytest.mark.parametrize("length", [None, 60])
@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_scores_equal_sentence_transformers(backend: Any, length: int | None, bge: Path, shared_root: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(bge), device="cpu", max_length=length, local_files_only=True)
    theirs = model.predict(TEXTS, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    ours = reranker(bge, shared_root, backend=backend, max_length_tokens=length).score(PAIRS, Call())
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    assert np.ptp(ours) > 1e-2


def test_tokens_are_those_of_sentencepiece_itself(bge: Path, shared_root: Path) -> None:
    """fairseq's numbering, which XLM-R kept: every piece one further, and <s> a </s></s> b </s> around a pair."""
    pieces = _pieces((bge / "sentencepiece.bpe.model").read_bytes())

    def ids(text: str) -> list[int]:
        return [number + 1 if number else 3 for number in pieces.encode(text)]

    encoder = reranker(bge, shared_root)._ready.encoder
    short = [TEXTS[place] for place in (0, 2, 4, 5, 6)]
    expected = [[0, *ids(query), 2, 2, *ids(text), 2] for query, text in short]
    assert [row.ids.tolist() for row in encoder.encode(short)] == expected


def test_whole_pipeline_answers_in_the_order_of_the_models_scores(
    bge: Path, shared_root: Path, small_sample: Path
) -> None:
    small = [f"pipeline.stages.{name}.top_k={count}" for name, count in (("bm25", 8), ("dense", 8), ("fused", 10))]
    words = ["pipeline=cross_encoder", "model@models.reranker=local", f"models.reranker.path={bge}", *small]
    with Pipeline.compose([*words, f"corpus.path={small_sample}", f"storage.root={shared_root}"]) as pipeline:
        result = pipeline.search("who is at risk for low vision?")
        pairs = [(result.query, result.documents[doc_id]) for doc_id in result.doc_ids]
        scores = pipeline.graph["precise"].stage.score(pairs, Call())  # type: ignore[union-attr]
        np.testing.assert_allclose(result.ranked.scores, scores, atol=1e-5)
        assert list(result.ranked.scores) == sorted(result.ranked.scores, reverse=True)
        chinese = pipeline.rerank("长城有多长？", ["青光眼会损害视神经。", "长城由许多朝代修建。"])
        assert sorted(chinese.doc_ids) == ["0", "1"]
        assert np.ptp(chinese.ranked.scores) > 0


def test_converted_tokenizer_is_kept_so_that_scoring_needs_no_sentencepiece(
    bge: Path, shared_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reranker(bge, shared_root).score(PAIRS, Call())
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    np.testing.assert_array_equal(reranker(bge, shared_root).score(PAIRS, Call()), expected)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_missing_sentencepiece_is_named(
    backend: Any, bge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    shutil.copytree(bge, tmp_path / "copy")
    with pytest.raises(MissingExtraError, match="module 'sentencepiece' is not installed: pip install"):
        reranker(tmp_path / "copy", tmp_path / "storage", backend=backend)
