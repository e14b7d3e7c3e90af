"""Questions from a file or a stream: JSON lines, CSV, TSV, or plain text with a question a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.corpora.readers.columns import identifier, kind
from orchestrator.corpora.readers.jsonl import json_object
from orchestrator.corpora.readers.table import TableOptions, check_header, read_table, row_of
from orchestrator.errors import DataError
from orchestrator.lines import BadLineError, BadLines, decode, read_rows
from orchestrator.types import Query

IDS = ("_id", "id", "query_id", "qid")
TEXTS = ("text", "query", "question")


def read_queries(path: Path, bad: BadLines, *, needs_id: bool = False) -> Iterator[Query]:
    """The questions of a file, read as they are asked for.

    `.jsonl` (also .ndjson) holds objects with a text (under `text`, `query` or `question`), mostly an id (`_id`,
    `id`, `query_id` or `qid`) and perhaps a `language`. `.csv` and `.tsv` have the same as columns; a TSV file of two
    columns without such a header is id and text, as MS MARCO's are. Any other file is plain text, a question a line.
    Each may be compressed as .gz. A question without an id gets `q<n>`, n its place from 1.

    Args:
        path: the file.
        bad: told of each line that is wrong.
        needs_id: a question without an id is wrong.

    Raises:
        DataError: a line is wrong, an id stands twice, or there is no question.
    """
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if suffix in ("csv", "tsv"):
        rows = _rows_of_table(path, suffix, bad)
    else:
        rows = read_rows(path, json_object if suffix in ("jsonl", "ndjson") else as_row, bad)
    return _distinct(str(path), _queries(str(path), rows, bad, needs_id))


def read_stream(name: str, lines: Iterable[bytes], bad: BadLines) -> Iterator[Query]:
    """The questions of a stream, one a line as it comes in: text, or a JSON object where the line begins with {.

    Args:
        name: of the stream, for messages.
        lines: UTF-8, with or without their ends.
        bad: told of each line that is wrong.

    Raises:
        DataError: a line is wrong, an id stands twice, or there is no question.
    """
    return _distinct(name, _queries(name, _rows_of_stream(name, lines, bad), bad, needs_id=False))


def as_row(line: str) -> dict[str, object]:
    """A line of plain text as a row."""
    return {"text": line.strip()}


def _rows_of_stream(name: str, lines: Iterable[bytes], bad: BadLines) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, raw in enumerate(lines, start=1):
        try:
            line = decode(raw).removeprefix("\ufeff")
            if line.strip():
                yield number, json_object(line) if line.lstrip().startswith("{") else as_row(line)
        except BadLineError as error:
            bad(name, number, error)


def _rows_of_table(path: Path, suffix: str, bad: BadLines) -> Iterator[tuple[int, Mapping[str, object]]]:
    rows = read_table(path, TableOptions().of(suffix), bad)
    first = next(rows, None)
    names = first[1] if first else []
    if first is not None and suffix == "tsv" and len(names) == 2 and not set(names) & {*IDS, *TEXTS}:
        names = [IDS[0], TEXTS[0]]
        yield first[0], row_of(names, first[1])
    check_header(path, names)
    if not set(names) & set(TEXTS):
        raise DataError(str(path), 1, f"found columns {', '.join(names)}; expected one of {', '.join(TEXTS)}")
    for number, row in rows:
        try:
            yield number, row_of(names, row)
        except BadLineError as error:
            bad(path, number, error)


def _queries(
    name: str, rows: Iterator[tuple[int, Mapping[str, object]]], bad: BadLines, needs_id: bool
) -> Iterator[tuple[int, Query]]:
    for place, (number, row) in enumerate(rows, start=1):
        try:
            yield number, as_query(row, None if needs_id else f"q{place}")
        except BadLineError as error:
            bad(name, number, error)


def as_query(row: Mapping[str, object], unnamed: str | None) -> Query:
    """The question of one row; `unnamed` is the id of one that has none.

    Raises:
        BadLineError: the text or the id is missing or of a wrong type.
    """
    id_, text = _first(row, IDS), _first(row, TEXTS)
    value = row.get(text)
    if not isinstance(value, str) or not value.strip():
        found = "an empty text" if isinstance(value, str) else kind(value)
        found = f"{found} as {text}" if text in row else f"no {text}; keys: {', '.join(row) or 'none'}"
        raise BadLineError(f"found {found}; expected {', '.join(TEXTS[:-1])} or {TEXTS[-1]}, a string")
    language = row.get("language")
    query_id = unnamed if unnamed is not None and id_ not in row else identifier(row, id_)
    return Query(query_id, value, language if isinstance(language, str) and language else None)


def _first(row: Mapping[str, object], names: Sequence[str]) -> str:
    return next((name for name in names if name in row), names[0])


def _distinct(name: str, queries: Iterator[tuple[int, Query]]) -> Iterator[Query]:
    seen: set[str] = set()
    for number, query in queries:
        if query.query_id in seen:
            raise DataError(name, number, f"id '{query.query_id}' stands above already; expected each id once")
        seen.add(query.query_id)
        yield query
    if not seen:
        raise DataError(
            name, None, f"holds no queries; expected {', '.join(TEXTS[:-1])} or {TEXTS[-1]}, mostly with an id"
        )
