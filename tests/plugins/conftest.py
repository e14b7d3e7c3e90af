"""Tiny real checkpoints with random weights: two layers of width 32, written as their libraries write them."""

from __future__ import annotations

import json
import shutil
import string
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

TEXTS = (
    "glaucoma damages the optic nerve",
    "Regular eye examinations find Glaucoma early. " * 8,
    "the great wall",
    "eye",
    "",
    "a wall, an eye; a nerve!",
)
_WORDS = sorted({word.strip(".,;!").lower() for text in TEXTS for word in text.split()} | {"query", "passage"})
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    # Wide enough that texts differ clearly; the usual 0.02 gives nearly constant outputs at this size.
    "initializer_range": 0.3,
}


class Checkpoints:
    """Makes checkpoint folders, each kind once a session."""

    texts: Sequence[str] = TEXTS

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        folder = self._folder / name
        if not folder.exists():
            make(folder)
        return folder

    def transformer(self, kind: str, labels: int | None = None, max_length: int = 48) -> Path:
        """A plain checkpoint: an encoder, or with `labels` a sequence classifier. 64 positions."""
        return self.once(f"{kind}-{labels}-{max_length}", lambda folder: _save(folder, kind, labels, max_length))

    def published(
        self, kind: str, labels: int | None = None, source: Path | None = None, weights: bool = False
    ) -> Path:
        """A folder as the hub has it, with `onnx/model.onnx` as optimum writes it; torch's weights only when asked."""
        name = f"published-{kind}-{labels}-{source.name if source else ''}-{weights}"
        return self.once(name, lambda folder: _publish(folder, source or self.transformer(kind, labels), weights))

    def sentence_transformer(self, name: str, kind: str, modules: Callable[[], list[Any]], **settings: Any) -> Path:
        """A folder as sentence-transformers saves it: `kind` followed by `modules()`."""

        def make(folder: Path) -> None:
            import torch
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.sentence_transformer.modules import Transformer

            torch.manual_seed(5)
            first = Transformer(str(self.transformer(kind)))
            SentenceTransformer(modules=[first, *modules()], device="cpu", **settings).save_pretrained(
                str(folder), create_model_card=False
            )

        return self.once(name, make)

    def multi_vector(
        self, name: str, kind: str, modules: Callable[[], list[Any]], first: dict[str, Any], **settings: Any
    ) -> Path:
        """A multi-vector encoder as sentence-transformers saves it; `first` are settings of its Transformer."""

        def make(folder: Path) -> None:
            import torch
            from sentence_transformers import MultiVectorEncoder
            from sentence_transformers.base.modules import Transformer

            torch.manual_seed(5)
            transformer = Transformer(str(self.transformer(kind)), **first)
            MultiVectorEncoder(modules=[transformer, *modules()], device="cpu", **settings).save_pretrained(
                str(folder), create_model_card=False
            )

        return self.once(name, make)

    def masked_lm(self, kind: str, max_length: int = 48) -> Path:
        """A plain masked language model. 64 positions."""
        return self.once(f"{kind}-mlm-{max_length}", lambda folder: _save(folder, kind, None, max_length, "MaskedLM"))

    def sparse(self, name: str, modules: Callable[[], list[Any]], **settings: Any) -> Path:
        """A sparse encoder as sentence-transformers saves it."""

        def make(folder: Path) -> None:
            import torch
            from sentence_transformers import SparseEncoder

            torch.manual_seed(5)
            SparseEncoder(modules=modules(), device="cpu", **settings).save_pretrained(
                str(folder), create_model_card=False
            )

        return self.once(name, make)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    import torch

    # At these sizes a second thread only waits for the first; beside other processes it costs seconds.
    torch.set_num_threads(1)
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))


def _save(folder: Path, kind: str, labels: int | None, max_length: int, head: str = "") -> None:
    import torch
    import transformers

    torch.manual_seed(3)
    unigram = kind in ("xlmr", "deberta")
    tokenizer = _unigram(max_length) if unigram else _wordpiece(max_length)
    config = _config(kind, len(tokenizer))
    if labels is None:
        network = getattr(transformers, f"AutoModel{f'For{head}' if head else ''}").from_config(config)
    else:
        config.num_labels = labels
        network = transformers.AutoModelForSequenceClassification.from_config(config)
    network.save_pretrained(folder)
    tokenizer.model_input_names = _inputs(kind)
    tokenizer.save_pretrained(folder)


def _publish(folder: Path, source: Path, weights: bool) -> None:
    shutil.copytree(source, folder, ignore=None if weights else shutil.ignore_patterns("*.safetensors"))
    config = json.loads((source / "config.json").read_text())
    settings = json.loads((source / "tokenizer_config.json").read_text())
    names = _inputs({"deberta-v2": "deberta"}.get(config["model_type"], config["model_type"]))
    # BertTokenizer and its like do not write this, since it is their default.
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_input_names": names}))
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model_quantized.onnx").write_bytes(b"of no use here")
    _write_graph(source, folder / "onnx" / "model.onnx", names)


def _write_graph(source: Path, path: Path, names: list[str]) -> None:
    """By torch's own exporter, with the names of inputs and outputs that optimum gives."""
    import torch
    import transformers

    classifier = "ForSequenceClassification" in (source / "config.json").read_text()
    auto = transformers.AutoModelForSequenceClassification if classifier else transformers.AutoModel
    network = auto.from_pretrained(source, attn_implementation="eager").eval()

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.network(**dict(zip(names, inputs, strict=True)), return_dict=True)[0]

    output = "logits" if classifier else "last_hidden_state"
    axes = {name: {0: "batch", 1: "sequence"} for name in names} | {
        output: {0: "batch"} if classifier else {0: "batch", 1: "sequence"}
    }
    example = {"input_ids": torch.randint(5, 60, (2, 11)), "attention_mask": torch.ones(2, 11, dtype=torch.int64)}
    example["attention_mask"][1, 7:] = 0
    example["token_type_ids"] = torch.zeros(2, 11, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(
            Positional().eval(),
            tuple(example[name] for name in names),
            str(path),
            input_names=names,
            output_names=[output],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )


def _inputs(kind: str) -> list[str]:
    names = ["input_ids", "attention_mask"]
    return [*names, "token_type_ids"] if kind in ("bert", "deberta") else names


def _config(kind: str, vocab_size: int) -> Any:
    import transformers

    if kind == "bert":
        return transformers.BertConfig(vocab_size=vocab_size, max_position_embeddings=64, **_SIZES)
    if kind == "xlmr":
        # Positions start after the padding id: 66 of them hold 64 tokens.
        sizes = {**_SIZES, "max_position_embeddings": 66, "type_vocab_size": 1}
        return transformers.XLMRobertaConfig(vocab_size=vocab_size, pad_token_id=1, **sizes)
    if kind == "distilbert":
        return transformers.DistilBertConfig(
            vocab_size=vocab_size, dim=32, n_layers=2, n_heads=4, hidden_dim=64, initializer_range=0.3
        )
    if kind == "deberta":
        attention = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}
        extra = {"share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False}
        return transformers.DebertaV2Config(
            vocab_size=vocab_size, type_vocab_size=0, pad_token_id=1, **attention, **extra, **_SIZES
        )
    if kind == "mpnet":
        return transformers.MPNetConfig(vocab_size=vocab_size, max_position_embeddings=66, pad_token_id=1, **_SIZES)
    if kind == "modernbert":
        tokens = {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
        return transformers.ModernBertConfig(
            vocab_size=vocab_size,
            local_attention=8,
            global_attn_every_n_layers=2,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            initializer_range=0.3,
            **tokens,
        )
    raise ValueError(kind)


def _wordpiece(max_length: int) -> Any:
    """As BERT's: lowercase, WordPiece, [CLS] a [SEP] b [SEP] with type ids."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *letters, *(f"##{x}" for x in letters), *".,;!:"]
    pieces += ["[unused0]", "[unused1]"]  # as BERT's own vocabulary has them
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _unigram(max_length: int) -> Any:
    """As XLM-R's: sentencepiece-like Unigram, <s> a </s></s> b </s>, no type ids, case kept."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = string.ascii_letters + string.digits + ".,;!:"
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *(f"▁{word}" for word in _WORDS), "▁", *letters]
    vocabulary = [(piece, 0.0 if place < 5 else -1.0 - len(pieces) / len(piece)) for place, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        bos_token="<s>",
        sep_token="</s>",
        eos_token="</s>",
        mask_token="<mask>",
    )
