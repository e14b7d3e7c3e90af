"""What the files of a tokenizer say about it, read without transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.models.modules import read_json

NO_LIMIT = 1_000_000
"""Above it, a tokenizer says that it knows no limit (transformers' VERY_LARGE_INTEGER is 1e30)."""

# Whose `model_input_names` have token_type_ids (transformers 5.23); `Fast` at the end of a class does not matter.
_TYPED_CLASSES = {"BertTokenizer", "ElectraTokenizer", "DebertaTokenizer", "DebertaV2Tokenizer", "MobileBertTokenizer"}
_TYPED_CLASSES |= {"ConvBertTokenizer", "FunnelTokenizer", "SqueezeBertTokenizer", "BertJapaneseTokenizer"}
_TYPED_MODELS = {"bert", "electra", "deberta", "deberta-v2", "mobilebert", "convbert", "funnel", "squeezebert"}
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class TokenizerFacts:
    """A tokenizer as its files describe it.

    Attributes:
        serialized: for the `tokenizers` library.
        pad_id: token id that fills a batch; None where no file names it.
        special_ids: ids of its special tokens, sorted.
        truncation_side: `right` or `left`.
        max_length_tokens: where its authors cut texts; None is nowhere.
        type_ids: it tells the two texts of a pair apart by type ids; if not, they are all 0, whatever it writes.
    """

    serialized: str
    pad_id: int | None
    special_ids: tuple[int, ...]
    truncation_side: str
    max_length_tokens: int | None
    type_ids: bool


def read_tokenizer(folder: Path, *, lowercase: bool) -> TokenizerFacts:
    """The facts of `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` in `folder`.

    Read as `transformers.AutoTokenizer` 5 does: the map goes before the configuration, unless that tells all added
    tokens. Defaults of tokenizer classes are not known here.

    Args:
        folder: of the transformer.
        lowercase: texts are lowercased before anything else.

    Raises:
        Exception: `tokenizer.json` is damaged; the library has no class of its own for it.
    """
    from tokenizers import Tokenizer

    content = (folder / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_str(content)
    config = read_json(folder / "tokenizer_config.json", {})
    words = _words(config, read_json(folder / "special_tokens_map.json", {}))
    found = {key: tokenizer.token_to_id(word) for key, word in words.items()}
    length = config.get("model_max_length")
    return TokenizerFacts(
        serialized=serialized(content, lowercase),
        pad_id=found.get("pad_token"),
        special_ids=tuple(sorted({int(number) for number in found.values() if number is not None})),
        truncation_side=str(config.get("truncation_side") or "right"),
        max_length_tokens=int(length) if length is not None and length < NO_LIMIT else None,
        type_ids=_type_ids(config, str(read_json(folder / "config.json", {}).get("model_type"))),
    )


def serialized(content: str, lowercase: bool) -> str:
    """The `tokenizer.json` with the content `content`, lowercasing texts first where `lowercase` says so."""
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Lowercase, Sequence

    copy = Tokenizer.from_str(content)
    if lowercase:
        parts = [Lowercase()] if copy.normalizer is None else [Lowercase(), copy.normalizer]
        copy.normalizer = Sequence(parts)
    return str(copy.to_str())


def _type_ids(config: Mapping[str, Any], model_type: str) -> bool:
    if (names := config.get("model_input_names")) is not None:
        return "token_type_ids" in names
    if (name := config.get("tokenizer_class")) is not None:
        return str(name).removesuffix("Fast") in _TYPED_CLASSES
    return model_type in _TYPED_MODELS


def _words(config: Mapping[str, Any], special: Mapping[str, Any]) -> dict[str, str]:
    """Role -> token, the tokens beyond the named roles under numbers."""
    both = {**special, **config} if "added_tokens_decoder" in config else {**config, **special}
    words = {key: _text(both[key]) for key in _NAMED if both.get(key)}
    extra = both.get("extra_special_tokens") or both.get("additional_special_tokens") or []
    more = extra.values() if isinstance(extra, dict) else extra
    return words | {str(place): _text(word) for place, word in enumerate(more)}


def _text(token: Any) -> str:
    """A token is written as text, or as a mapping that holds it."""
    return str(token["content"] if isinstance(token, dict) else token)
