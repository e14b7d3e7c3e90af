"""How many tokens a text has, for models whose tokenizer is somebody else's: an estimate on the safe side.

A third of a token for an ASCII character, one and a half for any other. English prose has some 4.5 characters a token
in OpenAI's encodings, Chinese about 0.8 in cl100k_base. Counted in sixths of a token, so that no rounding adds up.
Text without words, such as base64, has twice as many: where money is at stake, `most_tokens` is a bound.
"""

from __future__ import annotations

import unicodedata

import numpy as np
import numpy.typing as npt

_SIXTHS = 6
_ASCII, _OTHER = 2, 9
_BORDERS_TOKENS = 4
"""By how much consecutive spans can exceed their number: up to 8 sixths at either end, since a border may lie within a
character, and a title cut at a third border, which a line break of 2 sixths follows in a token of its own."""


def estimated_tokens(text: str) -> int:
    """Tokens of `text`, rounded up."""
    return -(-int(_shares(text).sum()) // _SIXTHS)


def most_tokens(text: str) -> int:
    """What `text` has at most, for any tokenizer of today: a token is one byte of UTF-8 at least.

    Some tokenizers write compatibility characters out before they cut (`½` as `1⁄2`), so the longer of the two counts.
    """
    written_out = unicodedata.normalize("NFKC", text)
    return max(len(one.encode("utf-8", "surrogatepass")) for one in (text, written_out))


def fewest_tokens(text: str) -> int:
    """What `text` has at least, for any tokenizer of today: six ASCII characters a token or three others, no blanks."""
    dense = "".join(text.split())
    n_ascii = int((_shares(dense) == _ASCII).sum())
    return n_ascii // 6 + (len(dense) - n_ascii) // 3


def fitting_characters(text: str, max_tokens: int) -> int:
    """How many characters of `text` stay within `max_tokens` tokens, by the same estimate.

    A text that is denser than estimated still gets the server's own error.
    """
    if len(text) * _OTHER <= max_tokens * _SIXTHS:
        return len(text)
    return int(np.searchsorted(np.cumsum(_shares(text)), max_tokens * _SIXTHS, side="right"))


def room_within(max_tokens: int) -> int:
    """How many consecutive spans of `token_spans` stay within `max_tokens`, under a title that is cut by them too."""
    return max(1, max_tokens - _BORDERS_TOKENS)


def token_spans(text: str) -> npt.NDArray[np.int64]:
    """int64 [n_tokens, 2]: first character and one past the last of each estimated token, in order.

    A character that is more than one token stands in several spans, and one that two tokens share in both.
    """
    ends = np.cumsum(_shares(text))
    borders = np.arange(estimated_tokens(text) + 1) * _SIXTHS
    first = np.searchsorted(ends, borders[:-1], side="right")
    last = np.searchsorted(ends, borders[1:], side="left")
    return np.stack([first, np.minimum(last + 1, len(text))], axis=1).astype(np.int64)


def _shares(text: str) -> npt.NDArray[np.int64]:
    """int64 [n_characters]: sixths of a token that each character stands for."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return np.where(codes < 128, _ASCII, _OTHER).astype(np.int64)
