"""Triples of a file to learn from: a question, texts that answer it, texts that do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.corpora.readers.columns import kind
from orchestrator.corpora.readers.jsonl import json_object
from orchestrator.errors import ConfigError, DataError, did_you_mean
from orchestrator.lines import BadLineError, BadLines, read_rows

_KEYS = ("query", "positive", "negatives")


@dataclass(frozen=True, slots=True)
class Triple:
    """One line of the file.

    Attributes:
        query: the question.
        positives: at least one.
        negatives: may be empty: other questions' positives then serve.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


def read_triples(path: Path, bad: BadLines | None = None) -> list[Triple]:
    """The triples of a file of JSON lines, also as .gz: {"query": "", "positive": "" or [""], "negatives": [""]}.

    Args:
        path: the file.
        bad: what becomes of bad lines; None fails at the first.

    Raises:
        ConfigError: there is no such file.
        DataError: a line is wrong, or there is none.
    """
    if not path.is_file():
        raise ConfigError("task.triples", f"no file {path}; expected JSON lines with {', '.join(_KEYS)}")
    found = [triple for _, triple in read_rows(path, _triple, bad)]
    if not found:
        raise DataError(str(path), None, "holds no triple; expected JSON lines with " + ", ".join(_KEYS))
    return found


def _triple(line: str) -> Triple:
    row = json_object(line)
    for key in row:
        if key not in _KEYS:
            raise BadLineError(f"found a key '{key}'; keys: {', '.join(_KEYS)}.{did_you_mean(key, _KEYS)}")
    for key in ("query", "positive"):
        if key not in row:
            raise BadLineError(f"no '{key}'; expected {', '.join(_KEYS)}")
    query = row["query"]
    if not isinstance(query, str) or not query.strip():
        raise BadLineError(f"'query' is {_found(query)}; expected a text")
    positives = _texts(row, "positive", single=True)
    if not positives:
        raise BadLineError("'positive' is an empty list; expected a text, or a list with at least one")
    return Triple(query, positives, _texts(row, "negatives", single=False))


def _texts(row: Mapping[str, object], key: str, single: bool) -> tuple[str, ...]:
    value = row.get(key, [])
    texts = [value] if single and isinstance(value, str) else value
    expected = "a text, or a list of texts" if single else "a list of texts"
    if not isinstance(texts, list):
        raise BadLineError(f"'{key}' is {_found(value)}; expected {expected}")
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise BadLineError(f"'{key}'[{place}] is {_found(text)}; expected a text")
    return tuple(dict.fromkeys(texts))


def _found(value: object) -> str:
    if isinstance(value, str):
        return "a text" if value.strip() else "empty"
    return kind(value)
