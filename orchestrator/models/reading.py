"""How a multi-vector encoder reads queries and documents: lengths, query expansion, tokens that do not count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.models.card import Role
from orchestrator.models.modules import unsupported

_ROLE: Role = "multi_vector"
_STRATEGIES = ("fixed", "min")


@dataclass(frozen=True)
class Expansion:
    """Queries filled up with one token, each of which then looks for its match too.

    Attributes:
        length: tokens of a query after it.
        fixed: longer queries are cut to `length`; else `length` is only the least.
        attend: whether the network reads the fill; if not, only the fill reads the query.
        token: what fills; None is the tokenizer's mask token, or else its end token.
    """

    length: int
    fixed: bool
    attend: bool
    token: str | None


@dataclass(frozen=True)
class Reading:
    """How a multi-vector encoder reads queries and documents.

    Attributes:
        query_length: where queries are cut, special tokens included; None is the model's own limit.
        document_length: the same of documents.
        expansion: of queries, or None.
        skip_words: tokens whose vectors do not count.
        skip_kinds: for which texts: some of `query` and `document`.
        keep_ids: of documents only these token ids count; empty is all.
        markers: prompts whose first word is to be one token, where the vocabulary has it.
    """

    query_length: int | None = None
    document_length: int | None = None
    expansion: Expansion | None = None
    skip_words: tuple[str, ...] = ()
    skip_kinds: tuple[str, ...] = ("document",)
    keep_ids: tuple[int, ...] = ()
    markers: tuple[str, ...] = ()


def with_lengths(reading: Reading, text: Mapping[str, Any], transformer: Path) -> Reading:
    """The reading with the lengths and the expansion that the settings of a Transformer module say.

    Args:
        reading: so far.
        text: the settings, those of older formats among them.
        transformer: their folder, for messages.

    Raises:
        ConfigError: a setting that the export would lose; names it.
    """
    both, expansion = _text_length(text, transformer), _expansion(text, transformer)
    query = both or text.get("query_length")
    return replace(
        reading,
        query_length=expansion.length if expansion is not None and expansion.fixed else query,
        document_length=both or text.get("document_length"),
        expansion=expansion,
    )


def _text_length(text: Mapping[str, Any], transformer: Path) -> int | None:
    """Where `processing_kwargs` cuts both kinds of text; other settings there are refused, but for padding."""
    if "message" in (text.get("modality_config") or {}):
        raise unsupported(_ROLE, f"a chat template in {transformer}", "texts without it")
    settings = {key: value for key, value in (text.get("processing_kwargs") or {}).items() if value}
    for key in set(settings) - {"text"}:
        raise unsupported(_ROLE, f"`processing_kwargs.{key}` in {transformer}", "`processing_kwargs.text`")
    for key, value in settings.get("text", {}).items():
        same = key == "padding" or (key == "truncation" and value in (True, "longest_first", "only_first"))
        if key != "max_length" and not same:
            found = f"`processing_kwargs.text.{key}` = {value!r} in {transformer}"
            raise unsupported(_ROLE, found, "max_length, padding, truncation")
    length: int | None = settings.get("text", {}).get("max_length")
    return length


def _expansion(text: Mapping[str, Any], transformer: Path) -> Expansion | None:
    value = text.get("query_expansion")
    if value is None:
        return None
    if not _is_expansion(value):
        expected = "strategy (fixed or min), length (from 1), attend (true or false) and token"
        raise unsupported(_ROLE, f"query_expansion {value!r} in {transformer}", expected)
    length = int(value["length"])
    if (cut := text.get("query_length")) is not None and cut < length:
        raise unsupported(_ROLE, f"query_length {cut} in {transformer}", f"{length} or more, as query_expansion says")
    return Expansion(length, value["strategy"] == "fixed", value.get("attend", False), value.get("token"))


def _is_expansion(value: Any) -> bool:
    if not isinstance(value, Mapping) or set(value) - {"strategy", "attend", "token", "length"}:
        return False
    length, attend = value.get("length"), value.get("attend", False)
    counts = isinstance(length, int) and not isinstance(length, bool) and length >= 1
    return counts and isinstance(attend, bool) and value.get("strategy") in _STRATEGIES
