"""Tiny causal language models with random weights; tokenizers of their families' kinds, trained on a few sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SENTENCES = (
    "Regular eye examinations find Glaucoma early. What damages the optic nerve?",
    "The Great Wall was built by many dynasties; the wall is 21,196 km long.",
    "青光眼会损害视神经。定期检查眼睛可以及早发现青光眼。长城有多长？",
    "Judge whether the Document meets the requirements. The answer can only be yes or no. Yes, No, 0 or 1.",
    "<Instruct>: <Query>: <Document>: A: B: passage query document relevance instruction system user assistant",
)
_CHAT_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    # Wide enough that texts differ clearly; the usual 0.02 gives nearly constant scores at this size.
    "initializer_range": 0.3,
    "max_position_embeddings": 512,
}

MakeCausal = Callable[..., Path]


@pytest.fixture(scope="session")
def causal(checkpoints: Any) -> MakeCausal:
    """Makes a plain checkpoint: a causal language model, or with `labels` a sequence classifier on the same body."""

    def make(kind: str, labels: int | None = None) -> Path:
        path: Path = checkpoints.once(f"causal-{kind}-{labels}", lambda folder: _save(folder, kind, labels))
        return path

    return make


def _save(folder: Path, kind: str, labels: int | None) -> None:
    import torch
    import transformers

    torch.manual_seed(7)
    tokenizer = _sentence_pieces() if kind.startswith("gemma") else _bytes()
    classes = {
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
        "gemma": transformers.GemmaConfig,
        "gemma2": transformers.Gemma2Config,
    }
    sizes = {**_SIZES, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if kind == "qwen2":
        del sizes["head_dim"]
    if kind == "gemma2":
        sizes["final_logit_softcapping"] = 2.0  # low, so that a score that passes it by differs
    config = classes[kind](**sizes, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    if labels is None:
        network = transformers.AutoModelForCausalLM.from_config(config)
    else:
        config.num_labels = labels
        network = transformers.AutoModelForSequenceClassification.from_config(config)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _bytes() -> Any:
    """As Qwen's: BPE on bytes, words split by a pattern, nothing put before or after a text."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    # The pattern of Qwen2's tokenizer.json.
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        SENTENCES * 3,
        trainers.BpeTrainer(
            vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=_CHAT_TOKENS
        ),
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    made.add_tokens([word for word in ("yes", "no") if len(tokenizer.encode(word).ids) != 1])
    return made


def _sentence_pieces() -> Any:
    """As Gemma's: BPE on text with `▁` for spaces, unknown letters as bytes, `<bos>` before a text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    texts = [word for sentence in SENTENCES for word in (sentence, *sentence.replace(",", " ").split())]
    tokenizer.train_from_iterator(texts * 3, trainers.BpeTrainer(vocab_size=900, special_tokens=pieces))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Replace("▁", " ")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
    )
