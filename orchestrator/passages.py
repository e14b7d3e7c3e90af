"""Long documents: which parts of one a stage reads, cut in the stage's own tokens, and how their scores become one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt

from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.stage import KnowsTokens, PointwiseRerank
from orchestrator.types import Call, Document, Query, Scores

How = Literal["truncate", "head_tail", "title_lead", "windows"]
Aggregate = Literal["max", "mean", "first"]
Choose = Literal["matching", "first"]

Spans: TypeAlias = npt.NDArray[np.int64]
Pair: TypeAlias = tuple[Query, Document]
Span: TypeAlias = tuple[int, int]

_LEAD_TOKENS = 128
"""As much of a document as Dai and Callan (SIGIR 2019, "Deeper Text Understanding for IR") give one passage, about."""
_TITLE_SHARE = 4
"""A title takes no more than one part in so many of what a passage may hold."""
_WORD_REACH = 8
"""How many tokens a border of a window is moved back at most, so that it does not cut a word."""
_GAP, _GAP_TOKENS = " … ", 2


@dataclass(frozen=True, slots=True)
class Passages:
    """What a stage reads of a document that is longer than it can read, or than it should.

    - `truncate`: the document goes to the stage whole, and the model cuts it its own way.
    - `head_tail`: the first and the last half of `size` tokens (Sun et al. 2019, "How to Fine-Tune BERT for Text
      Classification", section 5.3.1, where the tail was given more).
    - `title_lead`: the title and the first tokens of the body, `size` in all, 128 where no size is given.
    - `windows`: the title with each window of the body; a document's score is made of those of its windows (Dai and
      Callan 2019: MaxP, FirstP; the mean is Yang et al.'s).

    Attributes:
        how: one of the above.
        size: tokens of a passage, its title included; None is what fits beside the query.
        stride: how far a window begins behind the one before; None is three quarters of its length.
        aggregate: `max`, `mean` or `first`.
        max_windows: most windows of one document; None is no limit.
        choose: which of more: those that hold the query's rarest tokens (`matching`), or the `first`.

    Raises:
        ConfigError: a value is out of range, or two do not go together.
    """

    how: How = "truncate"
    size: int | None = None
    stride: int | None = None
    aggregate: Aggregate = "max"
    max_windows: int | None = 8
    choose: Choose = "matching"

    def __post_init__(self) -> None:
        for name, kind in (("how", How), ("aggregate", Aggregate), ("choose", Choose)):
            value, choices = getattr(self, name), get_args(kind)
            if value not in choices:
                hint = did_you_mean(str(value), choices)
                raise ConfigError(name, f"found '{value}'; choices: {', '.join(choices)}.{hint}")
        for name in ("size", "stride", "max_windows"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(name, f"found {value!r}; expected a whole number from 1, or null")
        if self.how == "truncate" and self.size is not None:
            raise ConfigError("size", f"found {self.size} with how=truncate; expected how=title_lead to read so much")
        if None not in (self.size, self.stride) and cast(int, self.stride) > cast(int, self.size):
            raise ConfigError("stride", f"found {self.stride} with size={self.size}; what lies between would be lost")

    @property
    def cuts(self) -> bool:
        """Whether documents are cut before the stage sees them."""
        return self.how != "truncate"


WHOLE = Passages()
"""Documents go to the stage as they are."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document, as a stage reads it.

    Attributes:
        document: with the part for its text.
        span: (first, one past the last) character of the body; None where it is not one piece.
    """

    document: Document
    span: Span | None


def score_cut(
    stage: PointwiseRerank, pairs: Sequence[Pair], policy: Passages, call: Call
) -> tuple[npt.NDArray[np.floating], list[Span | None]]:
    """One score a pair, its document read as `policy` says.

    Args:
        stage: knows its tokens where the policy cuts.
        pairs: queries with whole documents.
        policy: how they are cut.
        call: of the stage.

    Returns:
        scores: float [n_pairs].
        spans: of each document's best window; None where it was not read in windows.

    Raises:
        ValueError: the stage gave something else than one number a passage.
    """
    if not policy.cuts or not pairs:
        return _asked(stage, pairs, call), [None] * len(pairs)
    cutter = Cutter(policy, cast(KnowsTokens, stage), call)
    cut = [cutter.cut(query, document) for query, document in pairs]
    read = [(query, passage.document) for (query, _), parts in zip(pairs, cut, strict=True) for passage in parts]
    call.count(passages=len(read))
    scores, best = aggregated(_asked(stage, read, call), [len(parts) for parts in cut], policy.aggregate)
    if policy.how != "windows":
        return scores, [None] * len(pairs)
    return scores, [parts[place].span for parts, place in zip(cut, best.tolist(), strict=True)]


def _asked(stage: PointwiseRerank, pairs: Sequence[Pair], call: Call) -> npt.NDArray[np.floating]:
    scores = np.asarray(stage.score(pairs, call)) if pairs else np.empty(0)
    if scores.shape != (len(pairs),):
        raise ValueError(f"returned scores of shape {scores.shape} for {len(pairs)} pairs")
    return scores


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
        if size is None or len(document.full_text.encode("utf-8", "replace")) <= size:
            return [whole]
        title, left = self._title(document.title, size)
        spans = self._of(document.text)
        if len(spans) <= left:
            return [replace(whole, document=replace(document, title=title))]
        found = self._parts(query, document.text, spans, left)
        return [Passage(replace(document, title=title, text=text), span) for text, span in found]

    def _parts(self, query: Query, text: str, spans: Spans, size: int) -> Sequence[tuple[str, Span | None]]:
        if self._policy.how == "windows":
            return self._windows(query, text, spans, size)
        return self._head_tail(text, spans, size) if self._policy.how == "head_tail" else self._lead(text, spans, size)

    def _size(self, query: str) -> int | None:
        """Tokens that a passage may have beside this query; None is no limit."""
        if query not in self._room:
            room = self._stage.room(query)
            self._room[query] = None if room is None else max(room, 1)
        room, asked = self._room[query], self._policy.size
        if asked is None and self._policy.how == "title_lead":
            asked = _LEAD_TOKENS
        if self._policy.size is not None and room is not None and self._policy.size > room:
            self._call.note(f"passages of {asked} tokens do not fit beside every query; the least room was used")
        return min((limit for limit in (room, asked) if limit is not None), default=None)

    def _title(self, title: str, size: int) -> tuple[str, int]:
        """The title, shortened where it takes too much, and how many tokens are left beside it."""
        if not title:
            return "", size
        spans = self._of(title)
        kept = min(len(spans), max(1, size // _TITLE_SHARE))
        if kept < len(spans):
            kept = _at_word(title, spans, kept, 1)
            title = title[: int(spans[kept - 1, 1])]
        return title, max(1, size - kept - 1)  # 1: the line break

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
        wanted = set(_tokens(query.text, self._of(query.text)))
        tokens = _tokens(text, spans)
        held = [wanted.intersection(tokens[first:end]) for first, end in windows]
        frequency = Counter(token for tokens in held for token in tokens)
        values = [sum(math.log(1 + len(windows) / frequency[token]) for token in tokens) for tokens in held]
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


def aggregated(scores: npt.NDArray[np.floating], counts: Sequence[int], how: Aggregate) -> tuple[Scores, Spans]:
    """One score a document of those of its passages, and which of its passages was the best.

    Args:
        scores: float [n_passages], the passages of one document side by side.
        counts: how many passages each document has, at least one.
        how: `max`, `mean` or `first`.

    Returns:
        values: float64 [n_documents].
        best: int64 [n_documents], the place of the highest score among the document's own passages.
    """
    parts = np.split(np.asarray(scores, np.float64), np.cumsum(counts)[:-1])
    best = np.array([int(np.argmax(part)) for part in parts], np.int64)
    if how == "max":
        values = [float(part.max()) for part in parts]
    else:
        values = [float(part.mean() if how == "mean" else part[0]) for part in parts]
    return np.array(values, np.float64), best


def _tokens(text: str, spans: Spans) -> list[str]:
    return [text[start:end].strip().casefold() for start, end in spans.tolist()]


def _at_word(text: str, spans: Spans, place: int, least: int) -> int:
    """The nearest token from `place` back that begins a word, or `place` itself where none is near."""
    for candidate in range(place, max(least, place - _WORD_REACH) - 1, -1):
        start = int(spans[candidate, 0]) if candidate < len(spans) else len(text)
        if start == 0 or start >= len(text) or text[start].isspace() or _ends_word(text[start - 1]):
            return candidate
    return place


def _ends_word(letter: str) -> bool:
    # Scripts written without spaces have a border at each letter, which is what isalnum() of an ideograph hides.
    return not letter.isalnum() or "\u3040" <= letter <= "\u9fff"
