"""What a language model said about an order, made into an order: each document once, whatever it said."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

RANKING: Mapping[str, Any] = {
    "title": "ranking",
    "type": "object",
    "additionalProperties": False,
    "required": ["ranking"],
    "properties": {"ranking": {"type": "array", "items": {"type": "integer"}}},
}
"""Numbers of the documents, from 1, best first. Uniqueness and bounds are checked here: no server enforces them."""

_ASKED = ("ranking", "order", "ranked")
_KEYS = (*_ASKED, "results", "result", "documents", "ids", "indices")
"""Under which an order is looked for; a list under another key, such as `scores`, may be something else."""
_CHAIN = re.compile(r"\[?(?<!\d)\d{1,9}\]?(?:\s*>\s*\[?\d{1,9}\]?)+")
"""`[2] > [10] > [1]`; whole numbers, so that 10 is never read as 1."""
_COMMAS = re.compile(r"\[?(?<!\d)\d{1,9}\]?(?:\s*[>,]\s*\[?\d{1,9}\]?)+")
"""Also `2, 10, 1`: only where there is no JSON object, whose lists may be something else."""
_LINE = re.compile(
    r"\s*(?:(?P<ordinal>\d{1,9})[.)](?!\d)\s*|[-*•]\s+)?[*_`]*(?:(?:document|doc|passage|文档)\s*)?"
    r"(?:\[(?P<bracketed>\d{1,9})\]\D*|(?P<bare>\d{1,9})[\s*_`.,]*)",
    re.IGNORECASE,
)
"""`1. [3]`, `- Document 3`, `3`: one document on a line, words after it only where brackets set the number apart."""
_CUT_OFF = re.compile(r"(?<!\d)\d+\s*\Z")
_THOUGHT = re.compile(r"\A.*</think>|<think>.*\Z", re.DOTALL)


def read_order(content: str, n_documents: int, *, complete: bool = True) -> tuple[list[int] | None, Mapping[str, int]]:
    """The order of `n_documents` documents that a reply asks for.

    The first mention of a document counts; numbers of no document are left out; documents that are not mentioned
    follow in their incoming order. Each of these is a repair.

    Args:
        content: the reply: JSON, JSON in a code block or amid prose, a chain such as `[2] > [1]`, or a list with one
            document on a line.
        n_documents: how many were shown, numbered from 1.
        complete: False when the reply was cut off; a number at the cut may be half of another and is left out.

    Returns:
        order: places from 0, best first, each once; None where nothing could be read.
        repairs: how many of each kind: `duplicate`, `out_of_range`, `missing`, `unparsed` (an entry that is no number).
    """
    entries = _entries(content, complete)
    numbers = [number for number in entries if number is not None]
    known = [number - 1 for number in numbers if 1 <= number <= n_documents]
    kept = list(dict.fromkeys(known))
    if not kept:
        return None, {}
    missing = [place for place in range(n_documents) if place not in set(kept)]
    repairs = {
        "duplicate": len(known) - len(kept),
        "out_of_range": len(numbers) - len(known),
        "missing": len(missing),
        "unparsed": len(entries) - len(numbers),
    }
    return kept + missing, {kind: times for kind, times in repairs.items() if times}


def spoken(content: str) -> str:
    """What a reply says when its model has stopped thinking aloud between `<think>` and `</think>`."""
    return _THOUGHT.sub("", content)


def json_values(text: str) -> Iterator[Any]:
    """JSON objects and lists that stand in `text`, the outermost ones; at most 50 places are tried."""
    end, decoder = 0, json.JSONDecoder()
    for start in [place for place, letter in enumerate(text) if letter in "{["][:50]:
        if start < end:
            continue
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        yield found


def whole_number(entry: Any) -> int | None:
    """`entry` as a whole number: 3, 3.0, `"3"`, `"[3]"`; None for anything else, such as 2.5 or true."""
    if isinstance(entry, str) and re.fullmatch(r"\s*\[?\d{1,9}\]?\s*", entry):
        return int(re.sub(r"\D", "", entry))
    if isinstance(entry, float) and entry.is_integer():
        return int(entry)
    return entry if isinstance(entry, int) and not isinstance(entry, bool) else None


def _entries(content: str, complete: bool) -> list[int | None]:
    """The numbers in the order in which they stand, None for an entry that is none; empty where there is no ranking."""
    said = spoken(content)
    text = said.strip() if complete else _CUT_OFF.sub("", said)
    values = list(json_values(text))
    # An object says what it is; of several the last, since models think aloud before they answer. Then a bare list.
    objects = [found for found in reversed(values) if isinstance(found, Mapping)]
    candidates = []
    for keys in (_ASKED, _KEYS):
        candidates += [*(_under(keys, found) for found in objects), _broken_off(keys, text)]
    if not objects:
        # One number in brackets is how a chain begins, `[2] > [1]`, and no list.
        candidates += [_numbers(found) for found in reversed(values) if len(found) > 1]
        candidates += [_by_line(text if complete else text.rpartition("\n")[0])]
    for entries in candidates:
        if any(number is not None for number in entries):
            return entries
    return _chain((_CHAIN if objects else _COMMAS).findall(text))


def _chain(found: Sequence[str]) -> list[int | None]:
    """The longest chain; one with `>` before any that is commas alone, which may be part of a sentence."""
    chain = max([one for one in found if ">" in one] or found, key=len, default="")
    return [int(number) for number in re.findall(r"\d{1,9}", chain)]


def _under(keys: Sequence[str], found: Mapping[str, Any]) -> list[int | None]:
    ranking: Any = next((found[key] for key in keys if key in found), [])
    return _chain(_COMMAS.findall(ranking)) if isinstance(ranking, str) else _numbers(ranking)


def _numbers(ranking: Any) -> list[int | None]:
    if not isinstance(ranking, Sequence) or isinstance(ranking, str):
        return []
    return [whole_number(_index(entry)) for entry in ranking]


def _broken_off(keys: Sequence[str], text: str) -> list[int | None]:
    """The whole entries of a list under one of `keys` that never ends, or is no good JSON further on."""
    begun = re.search(rf'"(?:{"|".join(keys)})"\s*:\s*\[', text)
    entries: list[Any] = []
    end, decoder = begun.end() if begun else len(text), json.JSONDecoder()
    while border := re.compile(r"[\s,]*(?=\S)").match(text, end):
        try:
            entry, end = decoder.raw_decode(text, border.end())
        except (ValueError, RecursionError):
            break
        entries.append(entry)
    return _numbers(entries)


def _by_line(text: str) -> list[int | None]:
    """The documents of a list with one on each line; empty where a line with a number is anything else.

    Numbers before them count only as 1, 2, 3; and a document that stands there twice makes the list something else,
    such as scores.
    """
    lines = [line for line in text.splitlines() if re.search(r"\d", line)]
    found = [match for match in map(_LINE.fullmatch, lines) if match]
    numbers: list[int | None] = [int(match["bracketed"] or match["bare"]) for match in found]
    ordinals = [int(match["ordinal"] or 0) for match in found]
    in_order = not any(ordinals) or ordinals == list(range(1, len(found) + 1))
    is_list = len(found) == len(lines) > 1 and in_order and len(set(numbers)) == len(numbers)
    return numbers if is_list else []


def _index(entry: Any) -> Any:
    return entry.get("index", entry.get("id")) if isinstance(entry, Mapping) else entry
