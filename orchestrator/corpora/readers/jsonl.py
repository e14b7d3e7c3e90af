"""JSON lines: a document a line, in BEIR's layout or with keys of the user's own.

BEIR's layout is that of Thakur et al., "BEIR: A Heterogeneous Benchmark for Zero-shot Evaluation of Information
Retrieval Models" (2021), https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from orchestrator.corpora.readers.columns import USUAL, Columns, DocumentMaker, kind
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.lines import BadLineError, BadLines, OnBytes, read_rows
from orchestrator.types import Document

if TYPE_CHECKING:
    from orchestrator.corpora.locate import SourceFile

BEIR_USUAL: Mapping[str, tuple[str, ...]] = {**USUAL, "id": ("_id",), "text": ("text",)}


class JsonlReader:
    """Documents of JSON lines; implements `Reader`.

    Args:
        columns: which key holds what; what is `auto` is decided by the first good line of each file.
        several: whether row numbers need the file's name before them.
        beir: `auto` means the names of BEIR and no others.
    """

    def __init__(self, columns: Columns, *, several: bool = False, beir: bool = False) -> None:
        self._columns, self._several = columns, several
        self._usual = BEIR_USUAL if beir else USUAL

    def read(self, file: SourceFile, bad: BadLines, on_bytes: OnBytes) -> Iterator[tuple[int, Document]]:
        """(line, document) for each line that is not blank."""
        unseen = {name: key for key, name in self._columns.named if key not in ("id", "text")}
        keys: dict[str, None] = {}
        make: DocumentMaker | None = None
        for number, row in read_rows(file.path, json_object, bad, on_bytes):
            try:
                make = make or self._maker(file, row)
                document = make(row, number)
            except BadLineError as error:
                bad(file.path, number, error)
                continue
            for name in [name for name in unseen if name in row]:
                del unseen[name]
            if unseen and len(keys) < 100:
                keys.update(dict.fromkeys(row))
            yield number, document
        for name, key in unseen.items() if make else ():
            raise _never_seen(file.path, key, name, list(keys))

    def _maker(self, file: SourceFile, row: Mapping[str, object]) -> DocumentMaker:
        try:
            decided = self._columns.found_in(row, self._usual)
        except LookupError as error:
            key, usual = error.args
            found = f"found no {' or '.join(usual)}; keys: {', '.join(row) or 'none'}"
            numbered = ", or null for line numbers" if key == "id" else ""
            expected = f"expected {' or '.join(usual)}, or another key by name: corpus.columns.{key}=KEY{numbered}"
            raise BadLineError(f"{found}; {expected}") from None
        return DocumentMaker(decided, f"{file.name}:" if self._several else "")


def _never_seen(path: Path, key: str, name: str, keys: list[str]) -> ConfigError:
    found = f"{path}: no line has a key '{name}'; keys: {', '.join(keys) or 'none'}"
    return ConfigError(f"corpus.columns.{key}", f"{found}.{did_you_mean(name, keys)}")


def json_object(line: str) -> dict[str, object]:
    """The JSON object of one line.

    Raises:
        BadLineError: the line is no JSON, no object, or holds text that is no Unicode.
    """
    try:
        row = json.loads(line, parse_constant=_no_constant)
        if "\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadLineError("half of a surrogate pair (\\ud800 to \\udfff) stands alone") from error
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"is no JSON ({error}): {line.strip()[:60]!r}; expected a JSON object a line") from error
    if not isinstance(row, dict):
        raise BadLineError(f"found {kind(row)}; expected a JSON object a line")
    return row


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
