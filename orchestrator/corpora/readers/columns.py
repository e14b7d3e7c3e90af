"""Which column of a file holds what, and the document that a row becomes."""

from __future__ import annotations

import datetime
import decimal
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.lines import BadLineError
from orchestrator.types import Document

AUTO = "auto"
USUAL: Mapping[str, tuple[str, ...]] = {
    "id": ("_id", "id", "doc_id"),
    "text": ("text", "content", "body"),
    "title": ("title",),
    "parent": ("parent_id",),
}
"""What `auto` looks for, in this order."""

PARENT = "parent_id"
"""The key of `Document.metadata` that holds the id of the document that a chunk is part of."""

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column (of a table) or key (of a JSON line) holds what.

    Attributes:
        id: `auto`, a name, or None to number the rows.
        text: `auto`, a name, or several whose texts are joined, one a line.
        title: `auto` (`title`, where there is one), a name, or None.
        parent: the id of the document that a row is a chunk of: `auto` (`parent_id`, where there is one), a name, or
            None. Kept as metadata `parent_id`.
        metadata: names to keep, or None for all that are left.
    """

    id: str | None = AUTO
    text: str | tuple[str, ...] = AUTO
    title: str | None = AUTO
    parent: str | None = AUTO
    metadata: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.text or not all(self.texts):
            raise ConfigError("corpus.columns.text", "names no column; expected a name, [name, name] or auto")

    @property
    def texts(self) -> tuple[str, ...]:
        """The names under `text`."""
        return (self.text,) if isinstance(self.text, str) else self.text

    @property
    def named(self) -> Iterator[tuple[str, str]]:
        """(key, name) of each column that is named rather than looked for."""
        single = (("id", self.id), ("title", self.title), ("parent", self.parent))
        yield from ((key, name) for key, name in single if name is not None and name != AUTO)
        yield from (("text", name) for name in self.texts if name != AUTO)
        yield from (("metadata", name) for name in self.metadata or ())

    def found_in(self, names: Iterable[str], usual: Mapping[str, tuple[str, ...]] = USUAL) -> Columns:
        """These columns with each `auto` decided for a file whose columns are `names`.

        Raises:
            LookupError: no column is called as usual; its arguments are the key and what was looked for.
        """
        known = set(names)
        id_ = _decide("id", self.id, known, usual) if self.id is not None else None
        texts = tuple(_decide("text", name, known, usual) for name in self.texts)
        # Titles and parents may be missing in some rows, so one of the usual name is looked for in each.
        title, parent = (usual[key][0] if value == AUTO else value for key, value in self._optional)
        return Columns(id_, texts, title, parent, self.metadata)

    @property
    def _optional(self) -> tuple[tuple[str, str | None], ...]:
        return (("title", self.title), ("parent", self.parent))


def _decide(key: str, wanted: str, known: set[str], usual: Mapping[str, tuple[str, ...]]) -> str:
    if wanted != AUTO:
        return wanted
    for name in usual[key]:
        if name in known:
            return name
    raise LookupError(key, usual[key])


def columns_of_table(columns: Columns, path: Path, names: Sequence[str], hint: str = "") -> Columns:
    """`columns` decided for a table whose header is `names`.

    Raises:
        ConfigError: a column is named or needed that the table lacks.
    """
    try:
        decided = columns.found_in(names)
    except LookupError as error:
        key, usual = error.args
        raise ConfigError(
            f"corpus.columns.{key}", _missing(path, f"no {' or '.join(usual)}", names, key, hint)
        ) from None
    for key, name in columns.named:
        if name not in names:
            more = hint or did_you_mean(name, names)
            raise ConfigError(f"corpus.columns.{key}", _missing(path, f"no column '{name}'", names, key, more))
    return decided


def _missing(path: Path, found: str, names: Sequence[str], key: str, hint: str) -> str:
    numbered = ", or null to number the rows" if key == "id" else ""
    choices = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"{path}: {found}; columns: {choices or 'none'}. Name one: corpus.columns.{key}=COLUMN{numbered}.{hint}"


class DocumentMaker:
    """Makes documents of rows.

    Args:
        columns: decided, with no `auto` left.
        prefix: put before a row's number where rows are numbered.
    """

    def __init__(self, columns: Columns, prefix: str = "") -> None:
        self._columns, self._prefix, self._texts = columns, prefix, columns.texts
        taken = (columns.id, columns.title, columns.parent, *self._texts)
        self._taken = frozenset(name for name in taken if name is not None)

    def __call__(self, row: Row, number: int) -> Document:
        """The document of one row.

        Raises:
            BadLineError: the id, title, text or parent is missing or of a wrong type.
        """
        columns = self._columns
        doc_id = f"{self._prefix}{number}" if columns.id is None else identifier(row, columns.id)
        title = row.get(columns.title) if columns.title is not None else None
        if title is not None and not isinstance(title, str):
            raise BadLineError(f"'{columns.title}' of '{doc_id}' is {kind(title)}; expected a string")
        metadata = self._metadata(row)
        if columns.parent is not None and row.get(columns.parent) not in (None, ""):
            metadata[PARENT] = identifier(row, columns.parent)
        return Document(doc_id, self._text(row), title or "", metadata)

    def _text(self, row: Row) -> str:
        if len(self._texts) == 1:
            return _string(row, self._texts[0])
        parts = [_string(row, name) for name in self._texts if row.get(name) is not None]
        if not parts:
            raise BadLineError(f"found nothing under {', '.join(self._texts)}; expected text in one of them")
        return "\n".join(part for part in parts if part)

    def _metadata(self, row: Row) -> dict[str, object]:
        wanted = self._columns.metadata
        if wanted is not None:
            return {name: as_json(row[name]) for name in wanted if name in row}
        extra = {key: as_json(value) for key, value in row.items() if key not in self._taken and key != "metadata"}
        declared = row.get("metadata") if "metadata" not in self._taken else None
        if isinstance(declared, dict):  # BEIR's own key: its content stands beside the other columns
            return {**extra, **{str(key): as_json(value) for key, value in declared.items()}}
        return extra if declared is None else {**extra, "metadata": as_json(declared)}


def identifier(row: Row, name: str) -> str:
    """The id under `name`: a string that is not empty, or a number.

    Raises:
        BadLineError: it is missing or something else.
    """
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        found = f"{kind(value)} as {name}" if name in row else f"no {name}; keys: {', '.join(row) or 'none'}"
        raise BadLineError(f"found {found}; expected {name}, a string or a number")
    return str(value)


def _string(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        found = f"{kind(value)} as {name}" if name in row else f"no {name}; keys: {', '.join(row) or 'none'}"
        raise BadLineError(f"found {found}; expected {name}, a string")
    return value


def kind(value: object) -> str:
    """What a value of a wrong type is, in words."""
    names = {"NoneType": "null", "str": "an empty string", "dict": "an object", "list": "a list"}
    return names.get(type(value).__name__, "a boolean" if isinstance(value, bool) else "a number")


def as_json(value: object) -> object:
    """`value` as JSON can hold it: dates in ISO 8601, NaN and infinities as null, what else there is as its text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_json(item) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value) if isinstance(value, decimal.Decimal | datetime.timedelta | uuid.UUID) else None
