"""What a language model said about an order, made into an order: each document once, whatever it said."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["ranking"],
    "properties": {"ranking": {"type": "array", "items": {"type": "integer"}}},
}
"""Numbers of the documents, from 1, best first. Uniqueness and bounds are checked here: no server enforces them."""

_CHAIN = re.compile(r"\[?\d+\]?(?:\s*[>,]\s*\[?\d+\]?)+")
"""`[2] > [10] > [1]` or `2, 10, 1`; whole numbers, so that 10 is never read as 1."""
_CUT_OFF = re.compile(r"\d+\s*\Z")


def read_order(content: str, n_documents: int, *, complete: bool = True) -> tuple[list[int], int]:
    """The order of `n_documents` documents that a reply asks for.

    The first mention of a document counts; numbers of no document are left out; documents that are not mentioned
    follow in their incoming order. Each of these is a repair.

    Args:
        content: the reply: JSON, JSON in a code block or amid prose, or a chain such as `[2] > [1]`.
        n_documents: how many were shown, numbered from 1.
        complete: False when the reply was cut off; a number at the cut may be half of another and is left out.

    Returns:
        order: places from 0, best first, each once.
        repairs: how many; -1 where nothing could be read and the incoming order stands.
    """
    numbers = _numbers(content, complete)
    if numbers is None:
        return list(range(n_documents)), -1
    kept = list(dict.fromkeys(number - 1 for number in numbers if 1 <= number <= n_documents))
    missing = [place for place in range(n_documents) if place not in set(kept)]
    return kept + missing, len(numbers) - len(kept) + len(missing)


def _numbers(content: str, complete: bool) -> list[int] | None:
    """The numbers in the order in which they stand, or None where there is no ranking at all."""
    text = content.strip() if complete else _CUT_OFF.sub("", content)
    values = list(_json_values(text))
    # An object says what it is; of several the last, since models think aloud before they answer. Then a bare list.
    rankings = [found for found in reversed(values) if isinstance(found, Mapping)]
    for found in rankings or values:
        if numbers := _from_json(found):
            return numbers
    listed = re.search(r'"ranking"\s*:\s*\[([\d\s,]*)', text)
    chain = listed[1] if listed and listed[1].strip() else max(_CHAIN.findall(text), key=len, default="")
    return [int(number) for number in re.findall(r"\d+", chain)] or None


def _json_values(text: str) -> Iterator[Any]:
    """JSON objects and lists that stand in `text`, the outermost ones; at most 50 places are tried."""
    end, decoder = 0, json.JSONDecoder()
    for start in [place for place, letter in enumerate(text) if letter in "{["][:50]:
        if start < end:
            continue
        try:
            found, end = decoder.raw_decode(text, start)
        except ValueError:
            continue
        yield found


def _from_json(found: Any) -> list[int]:
    ranking = found.get("ranking") if isinstance(found, Mapping) else found
    if not isinstance(ranking, Sequence) or isinstance(ranking, str):
        return []
    numbers = [_number(entry) for entry in ranking]
    # One number in brackets is how a chain begins, `[2] > [1]`, and no list.
    if isinstance(found, list) and len(numbers) < 2:
        return []
    return [number for number in numbers if number is not None]


def _number(entry: Any) -> int | None:
    if isinstance(entry, Mapping):
        entry = entry.get("index", entry.get("id"))
    if isinstance(entry, str) and re.fullmatch(r"\s*\[?\d+\]?\s*", entry):
        return int(re.sub(r"\D", "", entry))
    return entry if isinstance(entry, int) and not isinstance(entry, bool) else None
