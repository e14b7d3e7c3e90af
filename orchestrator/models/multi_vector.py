"""Reads what stands beside a multi-vector encoder, one vector a token. Plain JSON, no torch.

Five kinds of folder are known, each read as `sentence_transformers.MultiVectorEncoder` 6 reads it, but for two things:
a plain transformer keeps its own token vectors instead of getting an untrained projection, and of an embedder
everything from its Pooling on is left out instead of applying its sentence-level Dense to tokens.

| folder | told by |
|---|---|
| sentence-transformers' MultiVectorEncoder | `model_type` MultiVectorEncoder, or none and architecture HF_ColBERT |
| PyLate 3 | `model_type` ColBERT |
| embedder, and PyLate before 3 | any other `modules.json` |
| Stanford ColBERT | no `modules.json`, architecture HF_ColBERT |
| plain transformer | no `modules.json` |
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.models.card import Role
from orchestrator.models.colbert import Legacy, pylate, stanford
from orchestrator.models.modules import (
    Module,
    Saved,
    class_name,
    dense,
    module_config,
    normalize,
    read_json,
    unsupported,
)
from orchestrator.models.reading import Reading, with_lengths

_ROLE: Role = "multi_vector"
_PUNCTUATION = tuple(string.punctuation)
_KNOWN = "Dense, Normalize, MultiVectorMask"
_COLBERT = "HF_ColBERT"  # Stanford's
_RETRIEVER = "ForRetrieval"  # transformers' own late interaction over pictures


@dataclass(frozen=True)
class TokenDescription:
    """What `read_multi_vector` found.

    Attributes:
        modules: Dense and Normalize, in order; the last is Normalize.
        reading: of queries and documents.
        prompts: markers put before texts; go before the prompts of `config_sentence_transformers.json`.
    """

    modules: tuple[Module, ...]
    reading: Reading
    prompts: Mapping[str, str]


def read_multi_vector(saved: Saved) -> TokenDescription:
    """How the model in `saved.folder` turns tokens into vectors.

    Raises:
        ConfigError: a piece that the export does not know; names it.
    """
    if not saved.entries:
        return _bare(saved)
    kind = str(saved.whole.get("model_type") or _default_kind(saved))
    legacy = pylate(saved.whole)
    if class_name(saved.entries[0]) != "Transformer":
        raise unsupported(_ROLE, f"first module '{saved.entries[0].get('type')}'", "Transformer")
    if kind == "MultiVectorEncoder":
        modules, mask = _native(saved)
        if mask is None and {**legacy.settings, **saved.text}.get("query_expansion"):
            raise unsupported(_ROLE, f"query_expansion without a MultiVectorMask in {saved.folder}", "both or neither")
        reading = mask or Reading()
    elif kind == "ColBERT":
        # PyLate 3 saved neither of the two last modules; it skipped punctuation unless told otherwise.
        modules, _ = _native(saved)
        words = _PUNCTUATION if legacy.skip_words is None else legacy.skip_words
        modules, reading = (*modules, {"type": "normalize"}), Reading(skip_words=words)
    elif kind == "SentenceTransformer":
        words = (_PUNCTUATION if legacy.prompts else ()) if legacy.skip_words is None else legacy.skip_words
        modules, reading = _converted(saved), Reading(skip_words=words)
    else:
        raise unsupported(_ROLE, f"model type '{kind}'", "MultiVectorEncoder, SentenceTransformer, ColBERT")
    return _described(saved, modules, reading, legacy)


def _default_kind(saved: Saved) -> str:
    return "MultiVectorEncoder" if _COLBERT in _architectures(saved.transformer) else "SentenceTransformer"


def keeps_own_tokens(folder: Path) -> bool:
    """Whether the folder holds an embedder or a plain encoder, of which the token vectors themselves are taken."""
    entries = read_json(folder / "modules.json", [])
    architectures = _architectures(folder)
    if not entries:
        return _COLBERT not in architectures and not any(name.endswith(_RETRIEVER) for name in architectures)
    return any(class_name(entry) == "Pooling" for entry in entries)


def _architectures(transformer: Path) -> list[str]:
    return list(map(str, read_json(transformer / "config.json", {}).get("architectures") or []))


def _bare(saved: Saved) -> TokenDescription:
    architectures = _architectures(saved.transformer)
    if any(name.endswith(_RETRIEVER) for name in architectures):
        raise ConfigError(f"models.{_ROLE}", f"found architecture '{architectures[0]}'; expected an encoder of text")
    if _COLBERT not in architectures:
        return _described(saved, ({"type": "normalize"},), Reading(), Legacy())
    legacy = stanford(read_json(saved.folder / "artifact.metadata", {}))
    # Its projection stands among the weights of the transformer.
    projection: Module = {"type": "dense", "folder": ".", "activation": "Identity", "residual": False}
    reading = Reading(skip_words=legacy.skip_words or ())
    return _described(saved, (projection, {"type": "normalize"}), reading, legacy)


def _described(saved: Saved, modules: Iterable[Module], reading: Reading, legacy: Legacy) -> TokenDescription:
    found = tuple(modules)
    if not found or found[-1]["type"] != "normalize":
        raise ConfigError(
            f"models.{_ROLE}",
            f"found no Normalize of token_embeddings at the end of {saved.folder}; expected token vectors of length 1",
        )
    reading = replace(reading, markers=legacy.markers)
    reading = with_lengths(reading, {**legacy.settings, **saved.text}, saved.transformer)
    return TokenDescription(found, reading, legacy.prompts)


def _native(saved: Saved) -> tuple[tuple[Module, ...], Reading | None]:
    """The modules as they are saved, and what the MultiVectorMask says, if there is one."""
    places = [(entry, saved.folder / entry.get("path", "")) for entry in saved.entries[1:]]
    masks = [_mask(place) for entry, place in places if class_name(entry) == "MultiVectorMask"]
    if len(masks) > 1:
        raise unsupported(_ROLE, f"{len(masks)} MultiVectorMask modules in {saved.folder}", "one")
    modules = tuple(_token_module(entry, place) for entry, place in places if class_name(entry) != "MultiVectorMask")
    return modules, masks[0] if masks else None


def _token_module(entry: Mapping[str, Any], place: Path, any_level: bool = False) -> Module:
    name = class_name(entry)
    if name == "Dense":
        return dense(place, _ROLE, any_level=any_level)
    if name == "Normalize":
        return normalize(place, _ROLE)
    if name.endswith("TokenPooling"):
        raise ConfigError(f"models.{_ROLE}", f"found module {name}, which merges tokens; expected one vector a token")
    raise unsupported(_ROLE, f"module '{entry.get('type')}'", _KNOWN)


def _converted(saved: Saved) -> tuple[Module, ...]:
    """Token-level modules of an embedder or an old PyLate folder: those before the Pooling, or all without one."""
    names = [class_name(entry) for entry in saved.entries]
    end = names.index("Pooling") if "Pooling" in names else len(names)
    for entry in saved.entries[end + 1 :]:
        place = saved.folder / entry.get("path", "")
        if read_json(place / "config.json", {}).get("module_input_name") == "token_embeddings":
            raise unsupported(_ROLE, f"{class_name(entry)} of token_embeddings after a Pooling in {place}", "it before")
    modules = [
        _token_module(entry, saved.folder / entry.get("path", ""), any_level=True)
        for entry in saved.entries[1:end]
        if class_name(entry) != "Normalize" or not _is_sentence_level(saved.folder / entry.get("path", ""))
    ]
    return (*modules, {"type": "normalize"})


def _is_sentence_level(place: Path) -> bool:
    config = read_json(place / "config.json", {})
    return (config.get("module_input_name") or "sentence_embedding") == "sentence_embedding"


def _mask(place: Path) -> Reading:
    config = module_config(place, _ROLE)
    kinds = config.get("skiplist_tasks") or ["document"]
    return Reading(
        skip_words=tuple(config.get("skiplist_words") or ()),
        skip_kinds=(kinds,) if isinstance(kinds, str) else tuple(kinds),
        keep_ids=tuple(config.get("keep_only_token_ids") or ()),
    )
