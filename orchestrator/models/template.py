"""Pairs written by a reranker's template: prefix, query, document and suffix as token ids, the suffix never cut off."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from orchestrator.errors import ConfigError
from orchestrator.models.card import Model
from orchestrator.models.manifest import Manifest, Template

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Ids = npt.NDArray[np.int32]

_PLACES = re.compile(r"\{(query|document|instruction)\}")
_TEXTS = ("{query}", "{document}")
# A query takes at most so much of what the template leaves, so that some document is always read; the authors of
# bge-reranker-v2-gemma and of mxbai-rerank-v2 cut it at three quarters too.
_QUERY_SHARE = 0.75
# Two texts without a token in common: what their tokens share at the end belongs to the template.
_FILLERS = ("0", "1 2 3 4")


def with_template(model: Model, manifest: Manifest) -> Manifest:
    """The manifest with the template and the instruction of the card, where it has them.

    Raises:
        ConfigError: the card gives an instruction, and no template has a place for it.
    """
    template = manifest.template
    if model.template is not None:
        template = Template(parts=model.template, instruction=model.instruction or "")
    elif model.instruction is not None:
        if template is None or not any("{instruction}" in part for part in template.parts):
            found = f"found '{model.instruction}'; {model.label} has no template with a place for it"
            raise ConfigError("models.reranker.instruction", f"{found}; give `template` too")
        template = replace(template, instruction=model.instruction)
    return replace(manifest, template=template)


def fill(part: str, values: Mapping[str, str]) -> str:
    """The part with its places filled in; what is filled in is not looked at again."""
    return _PLACES.sub(lambda found: values[found[1]], part)


class PairTemplate:
    """Query and document as the tokens of a template.

    Each part becomes tokens by itself. A pair that is too long loses the end of its document; what the template has
    after the document always stands, since a causal language model answers there. A query that alone is too long is
    cut to three quarters of what the template leaves; where query and document share one part, that part is cut at its
    end, so that a query of the whole length leaves no document. Texts of special tokens (`<|im_end|>`) in a query or
    document stay text: a document cannot end its turn and begin another.

    Args:
        template: to fill.
        tokenizer: of the model; from now on special tokens in texts stay text for it.
        max_length_tokens: where a pair is cut, the template included; None is nowhere.

    Raises:
        ConfigError: the template alone is that long.
    """

    def __init__(self, template: Template, tokenizer: Tokenizer, max_length_tokens: int | None) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._fixed = {place: self._ids([self._fill(part)])[0] for place, part in self._parts(open_=False)}
        tokenizer.encode_special_tokens = True
        self._tails = {place: self._tail(part) for place, part in self._parts(open_=True)}
        self._budget = self._room_beside_template(max_length_tokens)

    def encode(self, pairs: Iterable[tuple[str, str]]) -> list[Ids]:
        """int32 [n_tokens] of each pair."""
        pairs = list(pairs)
        texts = {place: [self._fill(part, *pair) for pair in pairs] for place, part in self._parts(open_=True)}
        rows = {place: self._ids(column) for place, column in texts.items()}
        return [self._row({place: ids[index] for place, ids in rows.items()}) for index in range(len(pairs))]

    def room(self, query: str) -> int | None:
        """Tokens that a document may have beside this query; None is any number."""
        if self._budget is None:
            return None
        parts = {place: self._ids([self._fill(part, query)])[0] for place, part in self._parts(open_=True)}
        return max(0, self._budget - sum(len(ids) for ids in self._cut(parts).values()))

    def _parts(self, open_: bool) -> list[tuple[int, str]]:
        """Parts with their place: those that hold a text, or the others."""
        parts = enumerate(self._template.parts)
        return [(place, part) for place, part in parts if any(text in part for text in _TEXTS) == open_]

    def _fill(self, part: str, query: str = "", document: str = "") -> str:
        if self._template.strip:
            query, document = query.strip(), document.strip()
        return fill(part, {"query": query, "document": document, "instruction": self._template.instruction})

    def _ids(self, texts: Sequence[str]) -> list[Ids]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def _tail(self, part: str) -> int:
        """Tokens at the end of a part that do not depend on what is filled in."""
        if part.endswith(_TEXTS):
            return 0
        first, second = self._ids([self._fill(part, filler, filler) for filler in _FILLERS])
        shortest = min(len(first), len(second))
        differs = np.flatnonzero(first[::-1][:shortest] != second[::-1][:shortest])
        return int(differs[0]) if len(differs) else shortest

    def _room_beside_template(self, max_length_tokens: int | None) -> int | None:
        if max_length_tokens is None:
            return None
        taken = sum(len(ids) for ids in self._fixed.values())
        least = taken + sum(self._tails.values()) + 2
        if max_length_tokens < least:
            found = f"found {max_length_tokens}; the template alone has {least - 2} tokens"
            raise ConfigError("models.reranker.max_length_tokens", f"{found}, so that {least} is the least")
        return max_length_tokens - taken

    def _row(self, texts: Mapping[int, Ids]) -> Ids:
        parts = {**self._fixed, **self._cut(texts)}
        return np.concatenate([parts[place] for place in sorted(parts)])

    def _cut(self, texts: Mapping[int, Ids]) -> dict[int, Ids]:
        """The parts with texts, cut to what the template leaves: the query to its share, the document to the rest."""
        if self._budget is None:
            return dict(texts)
        left = self._budget
        kept: dict[int, Ids] = {}
        for place in sorted(texts):
            share = 1 if len(kept) + 1 == len(texts) else _QUERY_SHARE
            kept[place] = self._shortened(texts[place], int(left * share), self._tails[place])
            left -= len(kept[place])
        return kept

    def _shortened(self, ids: Ids, length: int, tail: int) -> Ids:
        return ids if len(ids) <= length else np.concatenate([ids[: max(0, length - tail)], ids[len(ids) - tail :]])
