"""How long questions and the documents found for them are: what a stage that reads text takes depends on it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import ConfigError

USUAL_QUERY_TOKENS = 15
"""Of a question, where nobody says."""
USUAL_DOC_TOKENS = 140
"""Of a document, where nobody says."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of some questions, and of the documents found for each; special tokens left out.

    Documents that a search finds are not the corpus's average, and those of one question are alike: so the lengths are
    kept by question.

    Attributes:
        questions: tokens of each question; one at least.
        documents: tokens of the documents found for each question, best first; one question and one document at least.
        source: in words, where the lengths come from.
    """

    questions: Sequence[int] = (USUAL_QUERY_TOKENS,)
    documents: Sequence[Sequence[int]] = ((USUAL_DOC_TOKENS,),)
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.questions or not self.documents or not all(self.documents):
            raise ValueError("lengths of no question or of no document")

    @classmethod
    def even(cls, query_tokens: int = USUAL_QUERY_TOKENS, doc_tokens: int = USUAL_DOC_TOKENS) -> Lengths:
        """All questions and all documents of one length."""
        return cls((query_tokens,), ((doc_tokens,),), f"documents of {doc_tokens} tokens (need.doc_tokens: another)")

    @property
    def are_known(self) -> bool:
        """Whether they were counted, so that how they differ from question to question is known."""
        return len(self.questions) > 1

    def question(self, share: float = 0.5) -> float:
        """Tokens of a question; `share` of the questions are no longer."""
        return _quantile(sorted(self.questions), share)

    def document(self, n: int, share: float = 0.5, most: float | None = None) -> float:
        """Mean tokens of the first `n` documents found; `share` of the questions find shorter ones.

        Args:
            n: how many are read; where fewer were counted, those.
            share: of the questions.
            most: where each document is cut, or None.
        """
        return _quantile(_means(self, max(1, n), most), share)

    def cut(self, most: int) -> Lengths:
        """The same with every document cut at `most` tokens."""
        return Lengths(self.questions, [[min(n, most) for n in row] for row in self.documents], self.source)

    def in_windows(self, size: int, stride: int, most: int | None) -> Lengths:
        """The same with the windows of a document in its place.

        Args:
            size: tokens of a window.
            stride: how far each begins behind the one before.
            most: of one document, or None.
        """
        rows = [[tokens for n in row for tokens in _windows(n, size, stride, most)] for row in self.documents]
        return Lengths(self.questions, rows, self.source)

    def as_json(self) -> dict[str, Any]:
        """What `of` reads."""
        return {"questions": list(self.questions), "documents": [list(row) for row in self.documents]}

    @classmethod
    def of(cls, data: Mapping[str, Any], source: str = "") -> Lengths:
        """The lengths that `as_json` gave.

        Raises:
            ConfigError: it is not of that form.
        """
        try:
            questions = tuple(int(n) for n in data["questions"])
            documents = tuple(tuple(int(n) for n in row) for row in data["documents"])
            return cls(questions, documents, source)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError("lengths", f"found {str(data)[:80]}; expected questions and documents: {error}") from None

    def __hash__(self) -> int:
        return hash((tuple(self.questions), tuple(map(tuple, self.documents))))


def _windows(n: int, size: int, stride: int, most: int | None) -> list[int]:
    """Tokens of each window of a document of `n`; the last may be shorter."""
    starts = range(0, max(1, n - size + stride), stride)
    return [min(size, n - start) for start in starts[:most]]


@functools.lru_cache(maxsize=4096)
def _means(lengths: Lengths, n: int, most: float | None) -> list[float]:
    """Of each question, the mean of the documents read; in ascending order."""
    rows = [row[:n] for row in lengths.documents]
    return sorted(sum(tokens if most is None else min(tokens, most) for tokens in row) / len(row) for row in rows)


def _quantile(values: Sequence[float], share: float) -> float:
    """Of ascending values, by linear interpolation (Hyndman and Fan's type 7, numpy's default)."""
    place = share * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (place - below)
