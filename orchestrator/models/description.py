"""What sentence-transformers keeps beside a model: modules, prompts, length, similarity. Plain JSON, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.models.card import Model, Role
from orchestrator.models.files import list_files, transformer_folder
from orchestrator.models.kind import check_kind
from orchestrator.models.modules import (
    Module,
    Saved,
    class_name,
    dense,
    normalize,
    pooling,
    read_json,
    unsupported,
)
from orchestrator.models.multi_vector import read_multi_vector
from orchestrator.models.reading import Reading
from orchestrator.models.reranker import Classifier, Reranker, read_reranker
from orchestrator.models.splade import document_route, splade_modules

_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_TASKS: Mapping[Role, str] = {
    "embedder": "feature-extraction",
    "multi_vector": "feature-extraction",
    "sparse": "fill-mask",
}


@dataclass(frozen=True)
class Description:
    """What stands around the transformer.

    Attributes:
        transformer: folder of the transformer itself.
        modules: what comes after it, in order, as plain mappings with `type` pooling, dense or normalize.
        max_length_tokens: the authors' limit, or None when they set none here.
        lowercase: texts are lowercased before the tokenizer sees them.
        prompts: under `query` and `document`, empty strings where there is none.
        similarity: `cosine` or `dot`.
        truncate_dim: dimensions kept at the end, or None.
        reading: how a multi-vector encoder reads queries and documents; None for the other roles.
        reranker: how a reranker scores a pair; None for the other roles.
    """

    transformer: Path
    modules: tuple[Module, ...]
    max_length_tokens: int | None
    lowercase: bool
    prompts: Mapping[str, str]
    similarity: str
    truncate_dim: int | None
    reading: Reading | None = None
    reranker: Reranker | None = None


def describe(folder: Path, role: Role) -> Description:
    """The description of the model in `folder`.

    A plain transformer gets mean pooling as an embedder, as sentence-transformers does, and as a multi-vector encoder
    its own token vectors.

    Raises:
        ConfigError: another kind of model, or something that only sentence-transformers itself can run; names it.
    """
    whole = read_saved(folder)
    check_kind(role, whole)
    saved = document_route(whole) if role == "sparse" else whole
    _refuse_settings(role, saved)
    tokens = read_multi_vector(saved) if role == "multi_vector" else None
    return Description(
        transformer=saved.transformer,
        modules=_modules(role, whole, saved) if tokens is None else tokens.modules,
        max_length_tokens=saved.text.get("max_seq_length"),
        lowercase=bool(saved.text.get("do_lower_case", False)),
        prompts={**_prompts(saved.whole), **(tokens.prompts if tokens is not None else {})},
        # Token vectors have length 1, so that their cosine and their dot are one.
        similarity=_similarity(saved.whole) if role == "embedder" else "dot",
        truncate_dim=saved.whole.get("truncate_dim") if tokens is None else None,  # it is about one vector a text
        reading=None if tokens is None else tokens.reading,
        reranker=read_reranker(saved) if role == "reranker" else None,
    )


def read_saved(folder: Path) -> Saved:
    """The JSON files beside the model in `folder`."""
    entries = read_json(folder / "modules.json", [])
    transformer = folder / (entries[0].get("path", "") if entries else transformer_folder(list_files(folder)))
    text: dict[str, Any] = next(
        (found for name in _TRANSFORMER_CONFIGS if (found := read_json(transformer / name, {}))), {}
    )
    return Saved(folder, transformer, entries, text, read_json(folder / "config_sentence_transformers.json", {}))


def runs_from_graph(model: Model, folder: Path) -> bool:
    """Whether a graph of the plain network in `folder` gives what the model gives, as the JSON files beside it tell.

    Not where a reranker's score is made after the network, or where its files write pairs by a chat template, which
    transformers alone can fill in.
    """
    if model.role != "reranker":
        return True
    try:
        reranker = read_reranker(read_saved(folder))
    except ConfigError:
        return True  # nothing runs it, and loading says why
    return isinstance(reranker.scoring, Classifier) and (reranker.chat is None or model.template is not None)


def _refuse_settings(role: Role, saved: Saved) -> None:
    """Settings of the Transformer module that change what the network is given, and that the export would lose."""
    if role == "reranker":
        return
    if (task := saved.text.get("transformer_task", _TASKS[role])) != _TASKS[role]:
        raise unsupported(role, f"task '{task}' in {saved.transformer}", f"'{_TASKS[role]}'")
    if role == "multi_vector":
        return
    for key in ("processing_kwargs", "query_length", "document_length", "query_expansion"):
        if saved.text.get(key):
            raise unsupported(role, f"`{key}` in {saved.transformer}", "models without it")


def _modules(role: Role, whole: Saved, saved: Saved) -> tuple[Module, ...]:
    if role == "sparse":
        return splade_modules(whole, saved)
    return _sentence_modules(saved) if role == "embedder" else ()


def _sentence_modules(saved: Saved) -> tuple[Module, ...]:
    if not saved.entries:
        return ({"type": "pooling", "modes": ["mean"], "include_prompt": True},)
    names = [class_name(entry) for entry in saved.entries]
    if names[0] != "Transformer":
        raise unsupported("embedder", f"first module '{saved.entries[0].get('type')}'", "Transformer")
    modules = tuple(_sentence_module(saved.folder, entry) for entry in saved.entries[1:])
    if not modules or modules[0]["type"] != "pooling":
        raise unsupported("embedder", "no Pooling after the Transformer", "Transformer, Pooling, Dense, Normalize")
    return modules


def _sentence_module(folder: Path, entry: Mapping[str, Any]) -> Module:
    name, place = class_name(entry), folder / entry.get("path", "")
    if name == "Pooling":
        return pooling(place)
    if name == "Dense":
        return dense(place, "embedder")
    if name == "Normalize":
        return normalize(place, "embedder")
    raise unsupported("embedder", f"module '{entry.get('type')}'", "Pooling, Dense, Normalize")


def _prompts(whole: Mapping[str, Any]) -> dict[str, str]:
    # As encode_query and encode_document choose in sentence-transformers 6: these two names always exist there, empty
    # when the model gives none, so that neither `passage` nor default_prompt_name is ever reached.
    saved = whole.get("prompts") or {}
    return {kind: saved.get(kind) or "" for kind in ("query", "document")}


def _similarity(whole: Mapping[str, Any]) -> str:
    name = str(whole.get("similarity_fn_name") or "cosine")
    if name not in ("cosine", "dot"):
        raise ConfigError("models.embedder", f"found similarity '{name}'; vectors are compared by cosine or dot")
    return name
