"""Cuts long documents into the passages that a stage reads, in the stage's own tokens."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from orchestrator.stack.passages import LEAD_TOKENS, UNLIMITED_TOKENS, Passages
from orchestrator.stage import KnowsTokens
from orchestrator.types import Call, Document, Query

Spans: TypeAlias = npt.NDArray[np.int64]
Span: TypeAlias = tuple[int, int]

_TITLE_SHARE = 4
"""A title takes no more than one part in so many of what a passage may hold."""
_WORD_REACH = 8
"""How many tokens a border of a window is moved back at most, so that it does not cut a word."""
_GAP, _GAP_TOKENS = " … ", 2
_FIRST_CJK, _LAST_CJK = "\u3040", "\u9fff"
_WORD = re.compile(f"[{_FIRST_CJK}-{_LAST_CJK}]{{2,}}|[^\\W_{_FIRST_CJK}-{_LAST_CJK}]+")
_STEM = 6
"""Letters of a word that count: a stemmer for any language, and good enough to choose among windows of one document."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document, as a stage reads it.

    Attributes:
        document: with the part for its text.
        span: (first, one past the last) character of the body; None where it is not one piece.
    """

    document: Document
    span: Span | None


class Cutter:
    """Cuts the documents of one call.

    Args:
        policy: how.
        stage: whose tokens they are cut in, and that has so much room for them.
        call: is told where something was left out.
    """

    def __init__(self, policy: Passages, stage: KnowsTokens, call: Call) -> None:
        self._policy = policy
        self._stage = stage
        self._call = call
        self._spans: dict[str, Spans] = {}
        self._room: dict[str, int | None] = {}

    def cut(self, query: Query, document: Document) -> list[Passage]:
        """The parts of `document` that are read for `query`, in the order of the text; at least one."""
        size = self._size(query.text)
        whole = Passage(document, (0, len(document.text)))
        # Hardly a token is shorter than a byte: a text of so few need not be cut into tokens to know that it fits.
        if len(document.full_text.encode("utf-8", "replace")) <= size:
            return [whole]
        spans = self._of(document.text)
        if len(self._of(document.title)) + 1 + len(spans) <= size:  # 1: the line break
            return [whole]
        self._declare_cut(query.text)
        title, left = self._title(document.title, size if not len(spans) else size // _TITLE_SHARE, size)
        if len(spans) <= left:
            return [replace(whole, document=replace(document, title=title))]
        found = self._parts(query, document.text, spans, left)
        return [Passage(replace(document, title=title, text=text), span) for text, span in found]

    def _parts(self, query: Query, text: str, spans: Spans, size: int) -> Sequence[tuple[str, Span | None]]:
        if self._policy.how == "windows":
            return self._windows(query, text, spans, size)
        return self._head_tail(text, spans, size) if self._policy.how == "head_tail" else self._lead(text, spans, size)

    def _size(self, query: str) -> int:
        """Tokens that a passage may have beside this query."""
        if query not in self._room:
            room = self._stage.room(query)
            self._room[query] = None if room is None else max(room, 1)
        room, asked = self._room[query], self._policy.size
        if asked is None and self._policy.how == "title_lead":
            asked = LEAD_TOKENS
        if room is None:
            return asked or UNLIMITED_TOKENS
        return min(room, asked or room)

    def _declare_cut(self, query: str) -> None:
        room, asked = self._room[query], self._policy.size
        if room is not None and asked is not None and asked > room:
            self._call.note(f"passages of {asked} tokens do not fit; they were cut to what the model can read")

    def _title(self, title: str, most: int, size: int) -> tuple[str, int]:
        """The title, cut to `most` tokens, and how many of `size` are left beside it."""
        if not title:
            return "", size
        spans = self._of(title)
        kept = min(len(spans), max(1, most))
        if kept < len(spans):
            kept = _at_word(title, spans, kept, 1)
            title = title[: int(spans[kept - 1, 1])]
            self._call.note("long titles were cut, so that passages have room for the text")
        return title, max(1, size - kept - 1)

    def _of(self, text: str) -> Spans:
        if text not in self._spans:
            self._spans[text] = self._stage.token_spans(text)
        return self._spans[text]

    def _head_tail(self, text: str, spans: Spans, size: int) -> list[tuple[str, None]]:
        tail = max(0, size - _GAP_TOKENS) // 2
        head = text[: int(spans[max(0, size - _GAP_TOKENS - tail - 1), 1])]
        return [(head + _GAP + text[int(spans[len(spans) - tail, 0]) :] if tail else head, None)]

    def _lead(self, text: str, spans: Spans, size: int) -> list[tuple[str, Span]]:
        end = int(spans[size - 1, 1])
        return [(text[:end], (0, end))]

    def _windows(self, query: Query, text: str, spans: Spans, size: int) -> list[tuple[str, Span]]:
        windows = list(window_borders(text, spans, size, self._policy.stride))
        if self._policy.aggregate == "first":  # no other counts, so that no other is paid for
            windows = windows[:1]
        most = self._policy.max_windows
        if most is not None and len(windows) > most:
            kind = "first ones" if self._policy.choose == "first" else "ones that match the query best"
            self._call.note(f"documents of more than max_windows={most} windows were read in part, the {kind}")
            windows = self._chosen(query, text, spans, windows, most)
        found = [(int(spans[first, 0]), int(spans[end - 1, 1])) for first, end in windows]
        return [(text[start:end], (start, end)) for start, end in found]

    def _chosen(
        self, query: Query, text: str, spans: Spans, windows: Sequence[tuple[int, int]], most: int
    ) -> list[tuple[int, int]]:
        """At most `most` of the windows, in the order of the text."""
        if self._policy.choose == "first":
            return list(windows[:most])
        wanted = set(_terms(query.text))
        held = [wanted.intersection(_terms(text[spans[first, 0] : spans[end - 1, 1]])) for first, end in windows]
        frequency = Counter(term for terms in held for term in terms)
        values = [sum(math.log(1 + len(windows) / frequency[term]) for term in terms) for terms in held]
        best = sorted(range(len(windows)), key=lambda place: (-values[place], place))[:most]
        return [windows[place] for place in sorted(best)]


def window_borders(text: str, spans: Spans, size: int, stride: int | None) -> Iterator[tuple[int, int]]:
    """(first, one past the last) token of each window, the last one ending with the text.

    A window begins at the border of a word where one is near, and each token stands in at least one window.

    Args:
        text: what is cut.
        spans: int64 [n_tokens, 2], characters of each token.
        size: most tokens of a window.
        stride: how far a window begins behind the one before, at most; None is three quarters of `size`.
    """
    step = min(stride or max(1, size * 3 // 4), size)
    first = 0
    while first + size < len(spans):
        end = _at_word(text, spans, first + size, first + 1)
        yield first, end
        first = _at_word(text, spans, min(first + step, end), first + 1)
    yield first, len(spans)


def _terms(text: str) -> Iterator[str]:
    """Words without their endings, and pairs of characters where a script has no spaces, in any language."""
    for word in _WORD.findall(text.casefold()):
        yield from [word[:_STEM]] if word[0] < _FIRST_CJK else map("".join, itertools.pairwise(word))


def _at_word(text: str, spans: Spans, place: int, least: int) -> int:
    """The nearest token from `place` back that begins a word, or `place` itself where none is near."""
    for candidate in range(place, max(least, place - _WORD_REACH) - 1, -1):
        start = int(spans[candidate, 0]) if candidate < len(spans) else len(text)
        if start == 0 or start >= len(text) or text[start].isspace() or _ends_word(text[start - 1]):
            return candidate
    return place


def _ends_word(letter: str) -> bool:
    # Scripts written without spaces have a border at each letter, which is what isalnum() of an ideograph hides.
    return not letter.isalnum() or _FIRST_CJK <= letter <= _LAST_CJK
