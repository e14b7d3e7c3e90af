"""Reads documents from files: one module a format, each with a class that implements `Reader`.

A reader knows rows and columns, not the store: orchestrator.corpora.ingest takes what it yields, and
orchestrator.corpora.locate says which files it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from orchestrator.lines import BadLines, OnBytes
from orchestrator.types import Document

if TYPE_CHECKING:
    from orchestrator.corpora.locate import SourceFile
    from orchestrator.corpora.readers.columns import Columns
    from orchestrator.corpora.readers.table import TableOptions


class Reader(Protocol):
    """Documents of one format."""

    def read(self, file: SourceFile, bad: BadLines, on_bytes: OnBytes) -> Iterator[tuple[int, Document]]:
        """(place, document) for each document of `file`, in file order, read as they are asked for.

        The place is the 1-based line, or the row of a Parquet file, that an error names; 0 means the whole file.

        Args:
            file: what to read.
            bad: told of each line, row or file that is wrong; raises, or has it left out.
            on_bytes: told now and then how many bytes of the file, as it lies on disk, are read.

        Raises:
            ConfigError: the file has no such column.
            DataError: the file cannot be read at all.
        """
        ...


def reader_for(kind: str, columns: Columns, table: TableOptions, *, several: bool) -> Reader:
    """The reader of one format.

    Args:
        kind: beir, jsonl, csv, tsv, parquet or files.
        columns: which column holds what.
        table: how CSV and TSV files are written.
        several: whether there are several files, whose row numbers would clash.

    Raises:
        ConfigError: `columns` names columns, and the format has none.
        MissingExtraError: the format needs a package that is not installed.
    """
    if kind == "files":
        from orchestrator.corpora.readers.files import FilesReader

        return FilesReader(columns)
    if kind == "parquet":
        from orchestrator.corpora.readers.parquet import ParquetReader

        return ParquetReader(columns, several=several)
    if kind in ("csv", "tsv"):
        from orchestrator.corpora.readers.table import TableReader

        return TableReader(columns, table.of(kind), several=several)
    from orchestrator.corpora.readers.jsonl import JsonlReader

    return JsonlReader(columns, several=several, beir=kind == "beir")
