"""What an exported model says about itself, so that scoring needs no torch, transformers or sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.models.card import Role
from orchestrator.stage import Json

EXPORT_FORMAT = 1
"""Raise it when the export changes: older exports are then made again."""

FILE = "manifest.json"
ONNX_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
HEAD_FILE = "head.npz"


@dataclass(frozen=True, kw_only=True)
class TokenRules:
    """Which tokens of a text a multi-vector encoder reads, and which of them count.

    Attributes:
        query_length_tokens: where queries are cut, special tokens included; None is nowhere.
        expand_to: shorter queries are filled up to so many tokens; 0 is no filling.
        expand_id: the token that fills them.
        attend: whether the network reads the fill; if not, only the fill reads the query.
        skip_ids: tokens whose vectors do not count, under `query` and `document`.
        keep_ids: of documents only these tokens count; empty is all.
    """

    query_length_tokens: int | None
    expand_to: int
    expand_id: int
    attend: bool
    skip_ids: Mapping[str, tuple[int, ...]]
    keep_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Template:
    """How a reranker wants query and document written.

    Attributes:
        parts: texts in order, each of which becomes tokens by itself; `{query}`, `{document}` and `{instruction}` are
            filled in.
        instruction: what stands for `{instruction}`.
        strip: query and document lose the white space around them.
    """

    parts: tuple[str, ...]
    instruction: str = ""
    strip: bool = False


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The facts that scoring needs.

    Attributes:
        role: `embedder` or `multi_vector` (output: last hidden state), `reranker` (output: logits) or `sparse` (output:
            weights of the vocabulary).
        source: name or path of the model it was made from, for people.
        input_names: the graph's inputs among input_ids, attention_mask, token_type_ids, in its order.
        pad_id: token id that fills a batch.
        special_ids: ids of the tokenizer's special tokens.
        truncation_side: `right` or `left`.
        max_length_tokens: where the model's authors cut texts, of a multi-vector encoder documents, special tokens
            included; None is nowhere.
        position_limit: longest input the network can take at all; None is no limit.
        hidden_size: width of the last hidden state.
        modules: what sentence-transformers puts after the transformer, in order; none for a reranker.
        prompts: the model's own, under `query` and `document`.
        similarity: `cosine` or `dot`.
        truncate_dim: how many dimensions are kept at the end; None is all.
        sources: file -> sha256 of what it was made from.
        files: file -> size in bytes of the export itself; another size means a damaged export.
        token_rules: of a multi-vector encoder.
        template: of a reranker whose files say how a pair is written; None is as the tokenizer writes pairs.
        type_ids: the two texts of a pair are told apart by type ids 0 and 1; if not, all are 0.
        output: the graph's output that is read; None is its only one.
        agreement: of an int8 copy in memory, how well its scores agree with those of float32; not kept here.
    """

    role: Role
    source: str
    input_names: tuple[str, ...]
    pad_id: int
    special_ids: tuple[int, ...]
    truncation_side: str
    max_length_tokens: int | None
    position_limit: int | None
    hidden_size: int
    modules: tuple[Mapping[str, Json], ...]
    prompts: Mapping[str, str]
    similarity: str
    truncate_dim: int | None
    sources: Mapping[str, str]
    files: Mapping[str, int]
    token_rules: TokenRules | None = None
    template: Template | None = None
    type_ids: bool = True
    output: str | None = None
    agreement: Mapping[str, float] | None = None

    def write(self, folder: Path) -> None:
        """Keep it in `folder`."""
        text = json.dumps({"format": EXPORT_FORMAT, **asdict(self)}, indent=1, sort_keys=True)
        (folder / FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The manifest of a whole export, or None when `folder` is missing, damaged or of another format."""
        try:
            content = json.loads((folder / FILE).read_text(encoding="utf-8"))
            if content.pop("format") != EXPORT_FORMAT or not _sizes_match(folder, content["files"]):
                return None
            for key in ("input_names", "special_ids", "modules"):
                content[key] = tuple(content[key])
            if content.get("token_rules") is not None:
                content["token_rules"] = TokenRules(**content["token_rules"])
            if content.get("template") is not None:
                parts = tuple(content["template"].pop("parts"))
                content["template"] = Template(parts=parts, **content["template"])
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def file_sizes(folder: Path) -> dict[str, int]:
    """File -> size in bytes, of every file of `folder` but the manifest."""
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != FILE}


def _sizes_match(folder: Path, sizes: Mapping[str, int]) -> bool:
    return all((folder / name).stat().st_size == size for name, size in sizes.items())
