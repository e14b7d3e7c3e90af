"""Reading the BEIR layout: corpus.jsonl and queries.jsonl, also as .gz. Errors name file and line.

Layout as in Thakur et al., "BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information Retrieval
Models" (2021), https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Literal, NoReturn, TypeVar, cast

from orchestrator.errors import ConfigError, DataError
from orchestrator.log import get_logger
from orchestrator.types import Document, Query

log = get_logger()

OnBadLine = Literal["fail", "skip"]
LAYOUT = "corpus.jsonl[.gz] (_id, text), queries.jsonl[.gz] (_id, text), qrels/<split>.tsv[.gz]"
_BOM = b"\xef\xbb\xbf"
_DOCUMENT_KEYS = frozenset({"_id", "title", "text", "metadata"})

Row = TypeVar("Row")


class BadLineError(Exception):
    """What is wrong with one line; the reader adds file and line number."""


class Skipped:
    """Counts the bad lines left out of one file, and logs the first three."""

    def __init__(self, source: Path) -> None:
        self.count = 0
        self._source = source

    def __call__(self, line: int, reason: str) -> None:
        """Count `line`, left out for `reason`."""
        self.count += 1
        if self.count <= 3:
            log.warning("corpus.line_skipped", source=f"{self._source}:{line}", reason=reason)


def resolve_folder(path: str) -> Path:
    """The folder that `path` names: a directory, or `pkg://package/folder` for one inside a package.

    Raises:
        ConfigError: `corpus.path` names no folder.
    """
    if path.startswith("pkg://"):
        return _package_folder(path)
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing there"
        raise ConfigError("corpus.path", f"{folder}: found {found}; expected a folder with {LAYOUT}")
    return folder


def _package_folder(path: str) -> Path:
    from importlib.resources import files

    package, _, inside = path.removeprefix("pkg://").partition("/")
    try:
        folder = files(package).joinpath(inside)
    except (ModuleNotFoundError, TypeError, ValueError) as error:
        raise ConfigError("corpus.path", f"{path}: no package '{package}' is installed") from error
    if not isinstance(folder, Path) or not folder.is_dir():
        raise ConfigError("corpus.path", f"{path}: package '{package}' holds no folder '{inside}'")
    return folder


def find_file(folder: Path, stem: str) -> Path:
    """`folder/stem`, or `folder/stem.gz` where only that exists.

    Raises:
        DataError: neither exists; tells what the folder holds.
    """
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    found = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "an empty folder"
    raise DataError(str(folder), None, f"found {found}; expected {stem} or {stem}.gz, of the layout {LAYOUT}")


def read_rows(
    path: Path,
    parse: Callable[[str], Row],
    on_bad_line: OnBadLine = "fail",
    skipped: Skipped | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, Row]]:
    """(1-based line number, row) for every line that is not blank.

    Args:
        path: UTF-8 text, with or without a byte order mark; gzip where the name ends in .gz.
        parse: makes a row of a line's text, or raises BadLineError.
        on_bad_line: `fail` raises, `skip` leaves the line out.
        skipped: told each line left out.
        on_bytes: told now and then how many bytes of the file, as it lies on disk, are read.

    Raises:
        DataError: a bad line, or a compressed file that is cut short or damaged.
    """
    for number, raw in _lines(path, on_bytes):
        try:
            text = _decode(raw)
            if not text or text.isspace():
                continue
            row = parse(text)
        except BadLineError as error:
            if on_bad_line == "fail":
                message = f"{error}; to leave such lines out: corpus.on_bad_line=skip"
                raise DataError(str(path), number, message) from error
            if skipped is not None:
                skipped(number, str(error))
            continue
        yield number, row


def _lines(path: Path, on_bytes: Callable[[int], None] | None) -> Iterator[tuple[int, bytes]]:
    number = 0
    with open(path, "rb") as file:
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if path.suffix == ".gz" else file
        try:
            for number, line in enumerate(stream, start=1):
                if on_bytes is not None and number % 256 == 0:
                    on_bytes(file.tell())
                yield number, line.removeprefix(_BOM) if number == 1 else line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            message = f"the compressed file is cut short or damaged after this line ({error})"
            raise DataError(str(path), number, message) from error


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = f"0x{raw[error.start]:02x} at byte {error.start + 1} of the line"
        raise BadLineError(f"found {bad}, which is no UTF-8; expected UTF-8 text") from error


def parse_document(line: str) -> Document:
    """The document of one line of corpus.jsonl: keys other than _id, title, text go to its metadata.

    Raises:
        BadLineError: no JSON object, or one without a usable _id, text or title.
    """
    row = _json_object(line)
    doc_id = _identifier(row)
    title, text = row.get("title"), _text(row)
    if title is not None and not isinstance(title, str):
        raise BadLineError(f"'title' of '{doc_id}' is {_kind(title)}; expected a string")
    return Document(doc_id, text, title or "", _metadata(row))


def _metadata(row: Mapping[str, object]) -> dict[str, object]:
    extra = {key: value for key, value in row.items() if key not in _DOCUMENT_KEYS}
    declared = row.get("metadata")
    if isinstance(declared, dict):
        return {**extra, **declared}
    return extra if declared is None else {**extra, "metadata": declared}


def parse_query(line: str) -> Query:
    """The query of one line of queries.jsonl; `language` is read where the line has it.

    Raises:
        BadLineError: no JSON object, or one without a usable _id or text.
    """
    row = _json_object(line)
    language = row.get("language")
    return Query(_identifier(row), _text(row), language if isinstance(language, str) else None)


def _json_object(line: str) -> dict[str, object]:
    try:
        row = json.loads(line, parse_constant=_no_constant)
        if "\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadLineError("half of a surrogate pair (\\ud800 to \\udfff) stands alone") from error
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"is no JSON ({error}): {line.strip()[:60]!r}") from error
    if not isinstance(row, dict):
        raise BadLineError(f"found {_kind(row)}; expected a JSON object with _id and text")
    return row


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _identifier(row: Mapping[str, object]) -> str:
    value = row.get("_id")
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        found = f"{_kind(value)} as _id" if "_id" in row else f"no _id; keys: {', '.join(row) or 'none'}"
        raise BadLineError(f"found {found}; expected _id, a string or a number")
    return str(value)


def _text(row: Mapping[str, object]) -> str:
    value = row.get("text")
    if not isinstance(value, str):
        found = f"{_kind(value)} as text" if "text" in row else f"no text; keys: {', '.join(row)}"
        raise BadLineError(f"found {found}; expected text, a string")
    return value


def _kind(value: object) -> str:
    names = {"NoneType": "null", "str": "an empty string", "dict": "an object", "list": "a list"}
    return names.get(type(value).__name__, "a boolean" if isinstance(value, bool) else "a number")
