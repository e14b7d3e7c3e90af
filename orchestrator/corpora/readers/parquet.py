"""Parquet files, read a batch of rows at a time, only the columns that are used. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.corpora.readers.columns import Columns, DocumentMaker, columns_of_table
from orchestrator.errors import ConfigError, DataError, MissingExtraError
from orchestrator.lines import BadLineError, BadLines, OnBytes
from orchestrator.log import get_logger
from orchestrator.types import Document

if TYPE_CHECKING:
    from orchestrator.corpora.locate import SourceFile

log = get_logger()

_BATCH_ROWS = 1000


class ParquetReader:
    """Documents of Parquet files; implements `Reader`.

    Args:
        columns: which column holds what.
        several: whether row numbers need the file's name before them.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, columns: Columns, *, several: bool = False) -> None:
        try:
            import pyarrow.parquet  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtraError("parquet", "pyarrow") from error
        self._columns, self._several = columns, several

    def read(self, file: SourceFile, bad: BadLines, on_bytes: OnBytes) -> Iterator[tuple[int, Document]]:
        """(row, document) for each row, from 1."""
        import pyarrow as pa

        size, number = file.path.stat().st_size, 0
        try:
            with _open(file.path) as table:
                columns, used = _used(self._columns, file.path, table.schema_arrow)
                make = DocumentMaker(columns, f"{file.name}:" if self._several else "")
                for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=used, use_threads=False):
                    for row in batch.to_pylist():
                        number += 1
                        try:
                            document = make(row, number)
                        except BadLineError as error:
                            bad(file.path, number, error)
                            continue
                        yield number, document
                    on_bytes(size * number // max(table.metadata.num_rows, 1))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if getattr(error, "errno", None) is not None:  # what the system says of the file, not Arrow of its bytes
                raise
            raise DataError(
                str(file.path), number + 1, f"the file is damaged in or after this row ({error})"
            ) from error


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        raise DataError(str(path), None, f"is no Parquet file ({str(error).splitlines()[0]})") from error


def _used(columns: Columns, path: Path, schema: Any) -> tuple[Columns, list[str]]:
    """The columns decided for one file, and the names of all that are read.

    Raises:
        ConfigError: a column is missing, or of a type that cannot be what it is used as.
    """
    decided = columns_of_table(columns, path, schema.names)
    needed = [("id", decided.id), *(("text", name) for name in decided.texts)]
    needed += [
        (key, name) for key, name in (("title", decided.title), ("parent", decided.parent)) if name in schema.names
    ]
    for key, name in needed:
        if name is not None and not _fits(schema.field(name).type, numbers=key in ("id", "parent")):
            expected = "strings or whole numbers" if key in ("id", "parent") else "strings"
            found = f"{path}: column '{name}' holds {schema.field(name).type}"
            raise ConfigError(f"corpus.columns.{key}", f"{found}; expected {expected}. {_choices(schema, key)}")
    names = [name for _, name in needed if name is not None]
    wanted = schema.names if decided.metadata is None else decided.metadata
    binary = [name for name in wanted if name not in names and _is_binary(schema.field(name).type)]
    if binary:
        log.warning("corpus.binary_columns_left_out", source=str(path), columns=", ".join(binary))
    return decided, list(dict.fromkeys([*names, *(name for name in wanted if name not in binary)]))


def _fits(kind: Any, *, numbers: bool) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)
    return bool(text or (numbers and types.is_integer(kind)))


def _is_binary(kind: Any) -> bool:
    """Whether values are bytes, or hold some, as the images of many data sets do: no JSON can keep them."""
    from pyarrow import types

    if any(_is_binary(kind.field(place).type) for place in range(kind.num_fields)):
        return True
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _choices(schema: Any, key: str) -> str:
    fitting = [field.name for field in schema if _fits(field.type, numbers=key in ("id", "parent"))]
    return f"Columns that fit: {', '.join(fitting) or 'none'}"
