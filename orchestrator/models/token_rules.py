"""What a multi-vector encoder's settings mean for its tokenizer: words to ids, markers to one token, lengths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.models.card import Model
from orchestrator.models.manifest import TokenRules
from orchestrator.models.reading import Expansion, Reading


def token_rules(
    model: Model, reading: Reading, tokenizer: Any, max_length: int | None, limit: int | None
) -> TokenRules:
    """The rules by which texts become tokens that count.

    Args:
        model: the card, for messages.
        reading: what the model's files say.
        tokenizer: of transformers, its markers registered.
        max_length: the model's own limit of a text.
        limit: positions of the network, or None.

    Raises:
        ConfigError: queries are filled with a token that is not there, or beyond the positions.
    """
    expansion = reading.expansion
    if expansion is not None and limit is not None and expansion.length > limit:
        raise ConfigError(
            model.key,
            f"{model.label} fills queries up to {expansion.length} tokens, and has {limit} positions",
        )
    skipped = _word_ids(reading.skip_words, tokenizer)
    return TokenRules(
        query_length_tokens=shortest(reading.query_length or max_length, limit),
        expand_to=0 if expansion is None else expansion.length,
        expand_id=0 if expansion is None else _fill_id(model, expansion, tokenizer),
        attend=expansion is not None and expansion.attend,
        skip_ids={kind: skipped if kind in reading.skip_kinds else () for kind in ("query", "document")},
        keep_ids=reading.keep_ids,
    )


def shortest(*lengths: int | None) -> int | None:
    """The smallest that is not None, or None."""
    return min((int(length) for length in lengths if length is not None), default=None)


def register_markers(tokenizer: Any, markers: Iterable[str]) -> None:
    """Make a marker one token where the vocabulary has it and the tokenizer would cut it to pieces.

    `[unused0]` written into a text gives `[ unused ##0 ]`; as a special token it is what the model was trained with.
    A marker that the vocabulary does not know stays text. As sentence-transformers 6 does it
    (`_register_prefix_tokens`).
    """
    from transformers import AddedToken

    known = set(tokenizer.get_vocab())
    found = [_known_marker(marker, known) for marker in markers]
    broken = [marker for marker in found if marker and tokenizer.tokenize(marker) != [marker]]
    if broken:
        tokens = [AddedToken(marker, normalized=False, special=True) for marker in broken]
        tokenizer.add_special_tokens({"additional_special_tokens": tokens})


def _known_marker(marker: str, known: set[str]) -> str | None:
    """The marker as the vocabulary has it: whole, with its space, or its first word."""
    words = marker.split(None, 1)
    return next((piece for piece in (marker, *words[:1]) if words and piece in known), None)


def _word_ids(words: Iterable[str], tokenizer: Any) -> tuple[int, ...]:
    """Ids of the words that are tokens; without that check a missing word would skip every unknown token."""
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in words}
    unknown = (None, tokenizer.unk_token_id)
    return tuple(sorted({int(i) for word, i in ids.items() if i not in unknown or word == tokenizer.unk_token}))


def _fill_id(model: Model, expansion: Expansion, tokenizer: Any) -> int:
    if expansion.token is None:
        choices = (tokenizer.mask_token_id, tokenizer.eos_token_id)
        found = next((number for number in choices if number is not None), None)
    else:
        found = next(iter(_word_ids([expansion.token], tokenizer)), None)
    if found is None:
        wanted = expansion.token or "mask token or end token"
        raise ConfigError(model.key, f"{model.label} fills queries; its tokenizer has no {wanted}")
    return int(found)
