"""Settings of multi-vector encoders that were saved before sentence-transformers had them: PyLate, Stanford ColBERT.

As sentence-transformers 6 translates them (multi_vector_encoder/model.py: `_parse_model_config`,
`_maybe_load_stanford_metadata`).
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_CLASSIC_LENGTH = 32
_SETTINGS = ("query_length", "document_length", "query_expansion")
_MARKS_OF_PYLATE = (
    *_SETTINGS,
    "do_query_expansion",
    "attend_to_expansion_tokens",
    "attend_to_mask_tokens",
    "query_prefix",
    "document_prefix",
    "skiplist_words",
)


@dataclass(frozen=True)
class Legacy:
    """What an older format says, in the words of the new one. Empty for a folder of the new format.

    Attributes:
        settings: of the Transformer module, where it has none of its own.
        markers: texts of which one token is to be made.
        prompts: under `query` and `document`, the marker first; empty when the format has none.
        skip_words: tokens of documents that do not count; None when the format does not say.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    markers: tuple[str, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    skip_words: tuple[str, ...] | None = None


def pylate(whole: Mapping[str, Any]) -> Legacy:
    """What PyLate kept in `config_sentence_transformers.json`."""
    prefixes = {kind: str(whole[f"{kind}_prefix"] or "") for kind in ("query", "document") if f"{kind}_prefix" in whole}
    saved = whole.get("prompts") or {}
    words = whole.get("skiplist_words")
    return Legacy(
        settings=_pylate_settings(whole),
        markers=tuple(prefixes.values()),
        prompts={kind: prefix + (saved.get(kind) or "").removeprefix(prefix) for kind, prefix in prefixes.items()},
        skip_words=None if words is None else tuple(words),
    )


def _pylate_settings(whole: Mapping[str, Any]) -> dict[str, Any]:
    # null is a value of query_expansion, "off", and for the lengths the same as nothing.
    settings = {
        key: whole[key] for key in _SETTINGS if key in whole and (whole[key] is not None or key == "query_expansion")
    }
    if "query_expansion" in settings or not any(key in whole for key in _MARKS_OF_PYLATE):
        return settings
    if whole.get("do_query_expansion") is False:
        return {**settings, "query_expansion": None}
    attend = whole.get("attend_to_expansion_tokens", whole.get("attend_to_mask_tokens"))
    length = settings.pop("query_length", None) or _CLASSIC_LENGTH
    return {**settings, "query_expansion": {"strategy": "fixed", "attend": bool(attend), "length": length}}


def stanford(metadata: Mapping[str, Any]) -> Legacy:
    """What Stanford's ColBERT kept in `artifact.metadata`; its own defaults where it says nothing."""
    markers = {
        "query": f"{metadata.get('query_token_id') or '[unused0]'} ",
        "document": f"{metadata.get('doc_token_id') or '[unused1]'} ",
    }
    expansion = {
        "strategy": "fixed",
        "attend": bool(metadata.get("attend_to_mask_tokens")),
        "length": metadata.get("query_maxlen") or _CLASSIC_LENGTH,
    }
    settings: dict[str, Any] = {"query_expansion": expansion}
    if metadata.get("doc_maxlen") is not None:
        settings["document_length"] = metadata["doc_maxlen"]
    words = tuple(string.punctuation) if metadata.get("mask_punctuation", True) else ()
    return Legacy(settings, tuple(markers.values()), markers, words)
