"""Whether a stage runs for a query: a gate, declared beside the stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import chain
from typing import Literal, get_args

from orchestrator.analysis import count_words
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.stack.gate_languages import codes_of, covers, language_of, let_through, why_refused
from orchestrator.types import Query, RankedList, Scores

Margin = Literal["relative", "absolute"]
_OF_THE_LIST = ("min_candidates", "max_candidates", "max_margin")
_PAIRS = (("min_candidates", "max_candidates"), ("min_query_words", "max_query_words"))


@dataclass(frozen=True, slots=True)
class Gate:
    """A stage runs for a query where every condition that is set holds.

    The margin says how sure the incoming list is of its best document: the distance between the scores of rank 1 and
    of rank `margin_rank`. `relative` divides it by that between the first score and the last, so that neither scale nor
    offset of the scores matter, and 1 is a list with one document far above all others; the longer the list, the lower
    its last score and the margin. `absolute` is in the list's own score. A gate on the margin between ranks 1 and 3
    kept 88.9 of 89.1 points of recall@3 while it left out 30 % of all reranks, where one on the best score itself
    failed (github.com/saylordotorg/moodle-local_ai_course_assistant, issues 170 and 171).

    Only rows that one stage scored are compared. Where they tell no margin, `max_margin` holds and the stage runs: when
    there are fewer than `margin_rank` of them, for a relative margin no more than that (it would be 1 by definition),
    or where their scores are ranks, whose distances are the same for every question: those of documents that a caller
    brought, or of a rerank that orders windows. Where all scores are equal the margin is 0.

    Attributes:
        min_candidates: least documents that the stage is given.
        max_candidates: most documents that it is given.
        max_margin: the largest margin with which it runs: above it the order is clear already.
        margin_rank: the rank whose score is compared with the first, from 2.
        margin: `relative` or `absolute`.
        language: what questions are in that it runs for: one ISO 639-1 code or several, `zh-en` for Chinese with
            English in it, which `zh` covers too, or `und` where nothing tells. A question is in what it says itself,
            else in what its text tells. Given as a code or a list, kept as a tuple.
        not_language: what questions are in that it does not run for, likewise.
        min_query_words: least words of the question, as `analysis.count_words` counts.
        max_query_words: most words of the question.
        min_left_ms: least milliseconds left of the budget; holds where there is none.

    Raises:
        ConfigError: a value is out of range, or two do not go together; its path is below `when`.
    """

    min_candidates: int | None = None
    max_candidates: int | None = None
    max_margin: float | None = None
    margin_rank: int = 3
    margin: Margin = "relative"
    language: tuple[str, ...] = ()
    not_language: tuple[str, ...] = ()
    min_query_words: int | None = None
    max_query_words: int | None = None
    min_left_ms: float | None = None

    def __post_init__(self) -> None:
        if self.margin not in get_args(Margin):
            hint = did_you_mean(str(self.margin), get_args(Margin))
            raise ConfigError("margin", f"found '{self.margin}'; choices: {', '.join(get_args(Margin))}.{hint}")
        for low, high in _PAIRS:
            _check_range(low, getattr(self, low), high, getattr(self, high))
        _check_margin(self)
        _check_number("min_left_ms", self.min_left_ms)
        for key in ("language", "not_language"):
            object.__setattr__(self, key, codes_of(key, getattr(self, key)))
        for place, code in enumerate(self.language):
            if any(covers(other, code) for other in self.not_language):
                raise ConfigError(f"language[{place}]", f"'{code}' is left out by not_language")

    @property
    def conditions(self) -> dict[str, object]:
        """What is set, by its key; empty for a stage that always runs."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.max_margin is None:
            del found["margin"], found["margin_rank"]
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in found.items() if _is_set(value)
        }

    @property
    def asked(self) -> tuple[str, ...]:
        """The codes that questions are asked for; empty where their language decides nothing."""
        return self.language + self.not_language

    @property
    def languages(self) -> frozenset[str]:
        """All that a question can be told to be in, and be let through."""
        return let_through(self.language, self.not_language)

    def lets_through(self, language: str) -> bool:
        """Whether questions in `language` are, as far as that decides."""
        return why_refused(language, self.language, self.not_language) is None

    def excludes(self, other: Gate) -> bool:
        """Whether no question is let through by both, whatever it is in."""
        return self.languages.isdisjoint(other.languages)

    def refuse_for(self, kind: str) -> None:
        """Refuse conditions that a stage of this kind cannot have.

        Raises:
            ConfigError: a fusion has a gate, or a recall one on the list that it is not given.
        """
        conditions = self.conditions
        if kind == "fusion" and conditions:
            found = f"found {', '.join(conditions)} on a fusion, without which there is no list"
            raise ConfigError("", f"{found}; gates belong to reranks, and to recalls by the question alone")
        of_the_list = [key for key in _OF_THE_LIST if key in conditions]
        if kind == "recall" and of_the_list:
            left = ", ".join(key for key in Gate.__slots__ if key not in (*_OF_THE_LIST, "margin", "margin_rank"))
            raise ConfigError(of_the_list[0], f"asks for a list, and a recall is given none; choices: {left}")

    def refusal(
        self, query: Query, incoming: RankedList | None, left_ms: float | None, language: str | None = None
    ) -> str | None:
        """Why the stage does not run for `query`, in a few words; None where it runs.

        Args:
            query: the question.
            incoming: what the stage would be given; None for a recall.
            left_ms: what is left of the budget; None without one.
            language: what the question is in, where that is known already; None tells it here.

        Raises:
            MissingExtraError: the language of a question has to be told, and what tells it is not installed.
        """
        reasons = chain(self._of_list(incoming), self._of_time(left_ms), self._of_question(query, language))
        return next(reasons, None)

    def question_refusal(self, query: Query, language: str | None = None) -> str | None:
        """The same as far as the question alone tells, before anything was found for it."""
        return next(self._of_question(query, language), None)

    def _of_list(self, incoming: RankedList | None) -> Iterator[str]:
        if incoming is None:
            return
        yield from _outside("candidates", len(incoming), self.min_candidates, self.max_candidates)
        margin = None if self.max_margin is None else self._margin_of(incoming)
        if margin is not None and self.max_margin is not None and margin > self.max_margin:
            yield f"margin {_apart(margin, self.max_margin)} > max_margin {self.max_margin:g}"

    def _of_time(self, left_ms: float | None) -> Iterator[str]:
        if self.min_left_ms is not None and left_ms is not None and left_ms < self.min_left_ms:
            yield f"{_apart(left_ms, self.min_left_ms)} ms left < min_left_ms {self.min_left_ms:g}"

    def _of_question(self, query: Query, language: str | None) -> Iterator[str]:
        if self.min_query_words is not None or self.max_query_words is not None:
            words = count_words(query.text)
            yield from _outside("query_words", words, self.min_query_words, self.max_query_words)
        if self.asked:
            found = language or language_of(query, self.asked)
            if (why := why_refused(found, self.language, self.not_language)) is not None:
                yield why

    def _margin_of(self, incoming: RankedList) -> float | None:
        scores = self._compared(incoming)
        least = self.margin_rank + (self.margin == "relative")
        if len(scores) < least:
            return None
        distance = float(scores[0] - scores[self.margin_rank - 1])
        if self.margin == "absolute":
            return distance
        span = float(scores[0] - scores[-1])
        return distance / span if span > 0 else 0.0

    def _compared(self, incoming: RankedList) -> Scores:
        """Scores of one stage: of the last, or where that did not run, and scale does not matter, of the one before.

        None of them where they are ranks.
        """
        if not incoming.parts or incoming.kind_at(0) == "rank" or (self.margin == "absolute" and not incoming.n_scored):
            return incoming.scores[:0]
        return incoming.scores[: incoming.parts[0][0]]


def _outside(what: str, found: int, least: int | None, most: int | None) -> Iterator[str]:
    shown = f"{found} {what.replace('_', ' ')}"
    if least is not None and found < least:
        yield f"{shown} < min_{what} {least}"
    if most is not None and found > most:
        yield f"{shown} > max_{what} {most}"


def _apart(value: float, limit: float) -> str:
    """`value` in two or three digits, or as many as it takes to tell it from `limit`."""
    shown = (f"{value:.{digits}g}" for digits in range(2 if abs(value) < 10 else 3, 17))
    return next((text for text in shown if float(text) != limit), f"{value:g}")


def _is_set(value: object) -> bool:
    return value is not None and value != ()


def _check_range(low: str, least: int | None, high: str, most: int | None) -> None:
    for name, value in ((low, least), (high, most)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(name, f"found {value!r}; expected a whole number from 1, or null")
    if least is not None and most is not None and least > most:
        raise ConfigError(low, f"found {least} with {high}={most}: no question fulfils both; expected at most {most}")


def _check_margin(gate: Gate) -> None:
    rank = gate.margin_rank
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 2:
        raise ConfigError("margin_rank", f"found {rank!r}; expected a whole number from 2")
    _check_number("max_margin", gate.max_margin)
    if gate.max_margin is None and (rank != 3 or gate.margin != "relative"):
        key, value = ("margin_rank", rank) if rank != 3 else ("margin", gate.margin)
        raise ConfigError("max_margin", f"missing; {key}={value} says how it is measured. Set it, for example 0.2")
    if gate.max_margin is not None and gate.margin == "relative" and gate.max_margin >= 1:
        found = f"found {gate.max_margin:g}; a relative margin is 1 at most, so that the stage always runs"
        raise ConfigError("max_margin", f"{found}: expected a number below 1, or margin=absolute")


def _check_number(name: str, value: float | None) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and 0 <= value < float("inf")):
        raise ConfigError(name, f"found {value!r}; expected a number from 0, or null")


ALWAYS = Gate()
"""The stage runs for every query."""
