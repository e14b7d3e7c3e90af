"""Texts to padded batches of token ids, with the `tokenizers` library alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from orchestrator.errors import CallCancelledError
from orchestrator.models.manifest import Manifest, TokenRules
from orchestrator.models.template import PairTemplate
from orchestrator.types import Call, Vectors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Text: TypeAlias = str | tuple[str, str]
Inputs: TypeAlias = Mapping[str, npt.NDArray[np.int64]]

# Tokenized texts wait in memory until the batches are formed; their number is bounded, not the length of the corpus.
_WINDOW = 2048


class Forward(Protocol):
    """Runs a padded batch."""

    def __call__(self, inputs: Inputs, call: Call | None = None, /) -> Vectors:
        """float32, a row a text; raises CallCancelledError where it can stop in the middle and `call` is cancelled."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as the network reads it.

    Attributes:
        ids: int32 [n_tokens], special tokens included.
        type_ids: int32 [n_tokens], 0 for the first text of a pair, 1 for the second.
        n_read: the network reads so many of them, from the start; the rest only read these. None is all.
    """

    ids: npt.NDArray[np.int32]
    type_ids: npt.NDArray[np.int32]
    n_read: int | None = None

    def filled(self, rules: TokenRules) -> Tokens:
        """A query filled up as a multi-vector encoder's rules say."""
        length, missing = len(self.ids), rules.expand_to - len(self.ids)
        if missing <= 0:
            return self
        ids = np.concatenate([self.ids, np.full(missing, rules.expand_id, np.int32)])
        type_ids = np.concatenate([self.type_ids, np.zeros(missing, np.int32)])
        return Tokens(ids, type_ids, None if rules.attend else length)


class TextEncoder:
    """Cuts and tokenizes texts as the model's own tokenizer does.

    Padding is always on the right, whatever the model's tokenizer says: then a row does not depend on the longest text
    of its batch, also for networks with absolute positions. Pairs are cut `longest_first`, as sentence-transformers
    does; where the manifest has a template, it writes and cuts them.

    Args:
        serialized: content of a `tokenizer.json`.
        manifest: of the model.
        max_length_tokens: where texts are cut; None cuts nothing.
        fill: rules by which texts are filled up, those of queries; None fills nothing.
    """

    def __init__(
        self, serialized: str, manifest: Manifest, max_length_tokens: int | None, fill: TokenRules | None = None
    ) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(serialized)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._template: PairTemplate | None = None
        if manifest.template is not None:
            self._template = PairTemplate(manifest.template, self._tokenizer, max_length_tokens)
        elif max_length_tokens is not None:
            self._tokenizer.enable_truncation(
                max_length_tokens, strategy="longest_first", direction=manifest.truncation_side
            )
        self._manifest = manifest
        self._max_length = max_length_tokens
        self._fill = fill
        self._uncut: Tokenizer | None = None

    @classmethod
    def read(
        cls, path: Path, manifest: Manifest, max_length_tokens: int | None, fill: TokenRules | None = None
    ) -> TextEncoder:
        """The encoder of the tokenizer kept at `path`."""
        return cls(path.read_text(encoding="utf-8"), manifest, max_length_tokens, fill)

    @classmethod
    def of_queries(cls, serialized: str, manifest: Manifest) -> TextEncoder:
        """The encoder of a multi-vector encoder's queries."""
        rules = manifest.token_rules
        return cls(serialized, manifest, rules.query_length_tokens if rules else manifest.max_length_tokens, rules)

    def encode(self, texts: Sequence[Text]) -> list[Tokens]:
        """The tokens of each text or pair, in order."""
        pairs = [text for text in texts if isinstance(text, tuple)]
        if self._template is not None and len(pairs) == len(texts):
            return [Tokens(ids, np.zeros(len(ids), np.int32)) for ids in self._template.encode(pairs)]
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        tokens = [Tokens(np.array(e.ids, np.int32), np.array(e.type_ids, np.int32)) for e in encodings]
        if self._manifest.token_rules is not None:
            # Without special tokens an empty text has no token, and so no vector: it is read as one padding token.
            nothing = Tokens(np.array([self._manifest.pad_id], np.int32), np.zeros(1, np.int32))
            tokens = [row if len(row.ids) else nothing for row in tokens]
        return tokens if self._fill is None else [row.filled(self._fill) for row in tokens]

    def token_spans(self, text: str) -> npt.NDArray[np.int64]:
        """int64 [n_tokens, 2]: first and one past the last character of each token of the whole `text`."""
        if self._uncut is None:
            from tokenizers import Tokenizer

            # A tokenizer of its own: to switch the cutting off and on again would not be safe for several threads.
            uncut = Tokenizer.from_str(self._tokenizer.to_str())
            uncut.no_truncation()
            self._uncut = uncut
        offsets = self._uncut.encode(text, add_special_tokens=False).offsets
        return np.array(offsets, np.int64).reshape(-1, 2)

    def room(self, query: str) -> int | None:
        """Tokens that a document may have beside this query without being cut; None is any number."""
        if self._template is not None:
            return self._template.room(query)
        if self._max_length is None:
            return None
        free = self._max_length - self._tokenizer.num_special_tokens_to_add(is_pair=True)
        # The longer of two texts is cut first: a document has half of the room beside the longest query.
        return max(free - len(self._tokenizer.encode(query, add_special_tokens=False)), free // 2, 0)

    def prompt_length(self, prompt: str) -> int:
        """Tokens of `prompt` at the start of a text, without the special token that ends it."""
        ids = self.encode([prompt])[0].ids
        return len(ids) - int(len(ids) > 0 and int(ids[-1]) in self._manifest.special_ids)

    def batch(self, rows: Sequence[Tokens]) -> Inputs:
        """The network's inputs, int64 [n_rows, longest], padded on the right."""
        shape = (len(rows), max(len(row.ids) for row in rows))
        ids = np.full(shape, self._manifest.pad_id, np.int64)
        mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for index, row in enumerate(rows):
            length = len(row.ids)
            ids[index, :length] = row.ids
            mask[index, : row.n_read or length] = 1
            types[index, :length] = row.type_ids if self._manifest.type_ids else 0
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def run_in_batches(
    encoder: TextEncoder, texts: Sequence[Text], forward: Forward, *, width: int, batch_tokens: int, call: Call
) -> Vectors:
    """float32 [n_texts, width] in the order of `texts`, batch by batch as `token_batches` makes them.

    Args:
        encoder: of the model.
        texts: single texts, or pairs.
        forward: a padded batch to float32 [n_rows, width]; given `call` too, to stop in the middle of a batch.
        width: columns of the result.
        batch_tokens: rows times longest row of a batch; one longer text makes a batch alone.
        call: asked before each batch whether anybody still waits.

    Raises:
        CallCancelledError: nobody waits any more.
    """
    result = np.empty((len(texts), width), np.float32)
    for places, batch in token_batches(encoder, texts, batch_tokens=batch_tokens, call=call):
        result[places] = forward(encoder.batch(batch), call)
    return result


def token_batches(
    encoder: TextEncoder, texts: Sequence[Text], *, batch_tokens: int, call: Call
) -> Iterator[tuple[npt.NDArray[np.int64], list[Tokens]]]:
    """Batches of tokens, each with the places of its rows among `texts`.

    Texts of like length share a batch, longest first, so that little is spent on padding and the largest batch comes
    first. The call's tokens are counted batch by batch, when the next one is asked for.

    Raises:
        CallCancelledError: nobody waits any more; asked before each batch.
    """
    for start in range(0, len(texts), _WINDOW):
        _raise_if_cancelled(call)
        tokens = encoder.encode(texts[start : start + _WINDOW])
        for rows in plan_batches([len(row.ids) for row in tokens], batch_tokens):
            _raise_if_cancelled(call)
            batch = [tokens[row] for row in rows]
            yield start + rows, batch
            call.count(tokens=sum(len(row.ids) for row in batch))


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """Row numbers batch by batch, longest first, each batch within `batch_tokens` or a single row."""
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, lengths[int(order[start])])
        size = max(1, batch_tokens // longest)
        yield order[start : start + size]
        start += size


def _raise_if_cancelled(call: Call) -> None:
    if call.cancelled:
        raise CallCancelledError("the call was cancelled; its results are dropped")
