"""Lines of UTF-8 text files, also as .gz, and what becomes of a line that is wrong. Errors name file and line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal, TypeAlias, TypeVar, cast

from orchestrator.errors import DataError
from orchestrator.log import get_logger

log = get_logger()

OnBadLine = Literal["fail", "skip"]
OnBytes: TypeAlias = Callable[[int], None]
_BOM = b"\xef\xbb\xbf"
_LOGGED = 3
# What a file of another kind starts with, whatever its name says.
_OTHER_KINDS = (
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "a gzip file, whose name should end in .gz"),
    (b"PK\x03\x04", "a zip file, as .xlsx and .docx are"),
    (b"%PDF-", "a PDF file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)

Row = TypeVar("Row")


class BadLineError(Exception):
    """What is wrong with one line or row; BadLines adds file and line number."""


class BadLines:
    """What becomes of bad lines: `fail` raises at the first, `skip` has them left out, counted, the first three logged.

    Args:
        on_bad_line: `fail` or `skip`.
        can_skip: whether the user has the choice, so that the error names it: of the files of a corpus.
    """

    def __init__(self, on_bad_line: OnBadLine = "fail", *, can_skip: bool = True) -> None:
        self.count = 0
        self._fail = on_bad_line == "fail"
        self._can_skip = can_skip

    def __call__(self, source: Path | str, line: int, error: BadLineError) -> None:
        """Leave out `line` of `source`; 0 means all of it.

        Raises:
            DataError: bad lines fail.
        """
        if self._fail:
            what = "lines" if line else "files"
            message = f"{error}; to leave such {what} out: corpus.on_bad_line=skip" if self._can_skip else str(error)
            raise DataError(str(source), line or None, message) from error
        self.count += 1
        if self.count <= _LOGGED:
            where = f"{source}:{line}" if line else str(source)
            log.warning("corpus.line_skipped", source=where, reason=str(error))


def read_rows(
    path: Path, parse: Callable[[str], Row], bad: BadLines | None = None, on_bytes: OnBytes | None = None
) -> Iterator[tuple[int, Row]]:
    """(1-based line number, row) for every line that is not blank.

    Args:
        path: UTF-8 text, with or without a byte order mark; gzip where the name ends in .gz.
        parse: makes a row of a line's text, or raises BadLineError.
        bad: what becomes of bad lines; None fails at the first.
        on_bytes: told now and then how many bytes of the file, as it lies on disk, are read.

    Raises:
        DataError: a bad line, a compressed file that is cut short or damaged, or a file of another kind.
    """
    bad = bad or BadLines()
    for number, raw in read_lines(path, on_bytes):
        try:
            text = decode(raw)
            if not text or text.isspace():
                continue
            row = parse(text)
        except BadLineError as error:
            bad(path, number, error)
            continue
        yield number, row


def read_lines(path: Path, on_bytes: OnBytes | None = None) -> Iterator[tuple[int, bytes]]:
    """(1-based line number, bytes with their line end) for every line, the byte order mark taken off.

    Raises:
        DataError: the file is of another kind, or compressed and cut short or damaged.
    """
    number = 0
    with open(path, "rb") as file:
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
        try:
            for number, line in enumerate(stream, start=1):
                if number == 1:
                    refuse_other_kinds(path, line)
                    line = line.removeprefix(_BOM)
                elif on_bytes is not None and number % 256 == 0:
                    on_bytes(file.tell())
                yield number, line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            message = f"the compressed file is cut short or damaged after this line ({error})"
            raise DataError(str(path), number, message) from error


def refuse_other_kinds(path: Path, start: bytes) -> None:
    """Nothing, when the file begins like text.

    Raises:
        DataError: `start` is the beginning of a file of another kind; names it.
    """
    for mark, kind in _OTHER_KINDS:
        if start.startswith(mark):
            raise DataError(str(path), None, f"found {kind}; expected UTF-8 text")


def decode(raw: bytes) -> str:
    """`raw` as UTF-8.

    Raises:
        BadLineError: it is none; names the byte.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = f"0x{raw[error.start]:02x} at byte {error.start + 1} of the line"
        raise BadLineError(f"found {bad}, which is no UTF-8; expected UTF-8 text") from error
