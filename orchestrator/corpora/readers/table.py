"""CSV and TSV files: a header, then a row a document, as Python's csv module reads them."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from orchestrator.corpora.readers.columns import Columns, DocumentMaker, columns_of_table
from orchestrator.errors import ConfigError, DataError
from orchestrator.lines import BadLineError, BadLines, OnBytes, decode, read_lines
from orchestrator.types import Document

if TYPE_CHECKING:
    from orchestrator.corpora.locate import SourceFile

MAX_FIELD_CHARS = 1 << 24
"""Longest field, 16 million characters. A quote that is never closed would otherwise take in a file of any size."""


@dataclass(frozen=True, slots=True)
class TableOptions:
    """How CSV and TSV files are written.

    Attributes:
        delimiter: one character, or None for a comma in csv and a tab in tsv.
        quote: the character around fields that hold delimiters or line ends, or None when nothing is quoted.
        header: names of the columns of files that have no header line; None takes them from the first line.
    """

    delimiter: str | None = None
    quote: str | None = '"'
    header: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for key, value in (("delimiter", self.delimiter), ("quote", self.quote)):
            if value is not None and (len(value) != 1 or value in "\r\n"):
                raise ConfigError(f"corpus.csv.{key}", f"found {value!r}; expected one character, or null")

    def of(self, kind: str) -> TableOptions:
        """These options with the delimiter decided, for `csv` or `tsv`."""
        return dataclasses.replace(self, delimiter=self.delimiter or ("\t" if kind == "tsv" else ","))


class TableReader:
    """Documents of CSV and TSV files; implements `Reader`.

    Args:
        columns: which column holds what.
        options: how the files are written.
        several: whether row numbers need the file's name before them.
    """

    def __init__(self, columns: Columns, options: TableOptions, *, several: bool = False) -> None:
        self._columns, self._options, self._several = columns, options, several

    def read(self, file: SourceFile, bad: BadLines, on_bytes: OnBytes) -> Iterator[tuple[int, Document]]:
        """(line that the row begins on, document) for each row."""
        rows = read_table(file.path, self._options, bad, on_bytes)
        names = list(self._options.header or ()) or next((row for _, row in rows), [])
        check_header(file.path, names)
        hint = _other_delimiter(names)
        make = DocumentMaker(columns_of_table(self._columns, file.path, names, hint), self._prefix(file))
        for number, (line, row) in enumerate(rows, start=1):
            try:
                document = make(row_of(names, row), number)
            except BadLineError as error:
                bad(file.path, line, error)
                continue
            yield line, document

    def _prefix(self, file: SourceFile) -> str:
        return f"{file.name}:" if self._several else ""


class _Lines:
    """Lines as text for csv.reader, which may take several a row; remembers what was no UTF-8 until asked."""

    def __init__(self, path: Path, on_bytes: OnBytes | None) -> None:
        self._lines = read_lines(path, on_bytes)
        self.error: BadLineError | None = None

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        _, raw = next(self._lines)
        try:
            return decode(raw)
        except BadLineError as error:
            self.error = self.error or error
            return raw.decode("utf-8", errors="replace")


def read_table(
    path: Path, options: TableOptions, bad: BadLines, on_bytes: OnBytes | None = None
) -> Iterator[tuple[int, list[str]]]:
    """(1-based line that the row begins on, fields) for every row that is not blank, the header among them.

    Raises:
        DataError: a quote is never closed, a field is too long, or the file is of another kind.
    """
    csv.field_size_limit(max(MAX_FIELD_CHARS, csv.field_size_limit()))
    lines = _Lines(path, on_bytes)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE
    reader = csv.reader(
        lines, delimiter=options.delimiter or ",", quotechar=options.quote, quoting=quoting, strict=True
    )
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
            if lines.error is not None:
                raise lines.error
        except StopIteration:
            return
        except csv.Error as error:
            bad(path, line, _as_bad_line(path, line, error))
            continue
        except BadLineError as error:
            lines.error = None
            bad(path, line, error)
            continue
        if row:
            yield line, row


def _as_bad_line(path: Path, line: int, error: csv.Error) -> BadLineError:
    message = str(error)
    unquoted = "if quotes are plain characters in this file: corpus.csv.quote=null"
    if "unexpected end of data" in message:
        raise DataError(str(path), line, f"the quote that is opened here is never closed; {unquoted}") from error
    if "field larger than field limit" in message:
        found = f"a field has more than {MAX_FIELD_CHARS:,} characters; is a quote left open? {unquoted}"
        raise DataError(str(path), line, found) from error
    return BadLineError(f"is no CSV ({message}); {unquoted}")


def check_header(path: Path, names: Sequence[str]) -> None:
    """Nothing, when `names` can name columns.

    Raises:
        DataError: there are none, or one stands twice.
    """
    if not names:
        raise DataError(str(path), None, "is empty; expected a line with the names of the columns, then rows")
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        hint = "if the first line is no header: corpus.csv.header=[id,text]"
        raise DataError(str(path), 1, f"column '{twice[0]}' stands twice; expected each name once; {hint}")


def row_of(names: Sequence[str], fields: Sequence[str]) -> dict[str, object]:
    """Column name -> field.

    Raises:
        BadLineError: there are more or fewer fields than columns.
    """
    if len(fields) != len(names):
        raise BadLineError(f"found {len(fields)} fields; expected {len(names)}: {', '.join(names[:20])}")
    return dict(zip(names, fields, strict=True))


def _other_delimiter(names: Sequence[str]) -> str:
    """A hint where the header is one field that another delimiter would cut."""
    if len(names) == 1:
        for delimiter, typed in ((";", "';'"), ("\t", r"'\t'"), ("|", "'|'"), (",", "','")):
            if delimiter in names[0]:
                return f' It looks cut by {typed}: corpus.csv.delimiter="{typed}"'
    return ""
