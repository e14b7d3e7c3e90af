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

_KEYS = ("ranking", "order", "ranked", "results", "result", "documents", "ids", "indices")
"""Under which an order is looked for; a list under another key, such as `scores`, may be something else."""
_CHAIN = re.compile(r"\[?\d+\]?(?:\s*>\s*\[?\d+\]?)+")
"""`[2] > [10] > [1]`; whole numbers, so that 10 is never read as 1."""
_COMMAS = re.compile(r"\[?\d+\]?(?:\s*[>,]\s*\[?\d+\]?)+")
"""Also `2, 10, 1`: only where there is no JSON object, whose lists may be something else."""
_CUT_OFF = re.compile(r"\d+\s*\Z")


def read_order(content: str, n_documents: int, *, complete: bool = True) -> tuple[list[int] | None, Mapping[str, int]]:
    """The order of `n_documents` documents that a reply asks for.

    The first mention of a document counts; numbers of no document are left out; documents that are not mentioned
    follow in their incoming order. Each of these is a repair.

    Args:
        content: the reply: JSON, JSON in a code block or amid prose, or a chain such as `[2] > [1]`.
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
    text = content.strip() if complete else _CUT_OFF.sub("", content)
    values = list(json_values(text))
    # An object says what it is; of several the last, since models think aloud before they answer. Then a bare list.
    rankings = [found for found in reversed(values) if isinstance(found, Mapping)]
    for found in sorted(rankings, key=lambda one: "ranking" not in one) or values:
        entries = _from_json(found)
        if any(number is not None for number in entries):
            return entries
    plain = _CHAIN if rankings else _COMMAS
    listed = re.search(r'"ranking"\s*:\s*\[([\d\s,]*)', text)
    chain = listed[1] if listed and listed[1].strip() else max(plain.findall(text), key=len, default="")
    return [int(number) for number in re.findall(r"\d{1,9}", chain)]


def _from_json(found: Any) -> list[int | None]:
    ranking = found
    if isinstance(found, Mapping):
        ranking = next((found[key] for key in _KEYS if key in found), [])
    if not isinstance(ranking, Sequence) or isinstance(ranking, str):
        return []
    # One number in brackets is how a chain begins, `[2] > [1]`, and no list.
    if isinstance(found, list) and len(found) < 2:
        return []
    return [whole_number(_index(entry)) for entry in ranking]


def _index(entry: Any) -> Any:
    return entry.get("index", entry.get("id")) if isinstance(entry, Mapping) else entry
