"""A damaged folder of rows, opened without the rows that are not what was written."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from orchestrator.errors import IndexStateError
from orchestrator.keys import Keys
from orchestrator.log import get_logger
from orchestrator.rows.row_file import ENDS, KEYS, Array, Block, Column, RowFile, checksum_of, parse_records
from orchestrator.stage import Json

log = get_logger()

SET_ASIDE = ".set-aside-"
PARTIAL = ".partial-"


def repaired(
    directory: Path,
    meta: Mapping[str, Json],
    columns: Mapping[str, Column],
    beside: Sequence[str] = (),
    *,
    verify: bool = False,
) -> tuple[RowFile, str | None]:
    """The rows of `directory`, opened, and what was wrong with them.

    Damaged ones are dropped: what is whole is copied into a new folder, which takes the place of the old one. Who has
    the old one mapped keeps it. The caller holds the write lock.

    Args:
        directory: of the rows.
        meta: what they are; a folder that says it holds something else is emptied.
        columns: name -> what it holds.
        beside: other files that the new folder keeps.
        verify: read every row, also where nothing seems wrong.
    """
    try:
        file = RowFile(directory, meta, columns)
        if verify:
            file.verify()
        return file, None
    except IndexStateError as error:
        found = str(error).removeprefix(f"{directory}: ")
    fresh = _beside(PARTIAL, directory)
    kept = _copy_whole(directory, fresh, meta, columns, beside)
    directory.replace(_beside(SET_ASIDE, directory))
    if fresh.is_dir():
        fresh.replace(directory)
    _delete_all(leftovers(directory))
    log.warning("vectors.rebuilt", folder=str(directory), reason=found, kept=kept, others="computed when next needed")
    return RowFile(directory, meta, columns), found


def remove(directory: Path) -> None:
    """Make `directory` vanish at once, and its content after that. The caller holds the write lock."""
    if directory.exists():
        directory.replace(_beside(SET_ASIDE, directory))
    _delete_all(leftovers(directory))


def _delete_all(paths: Sequence[Path]) -> None:
    for gone in paths:
        if gone.is_dir() and not gone.is_symlink():
            shutil.rmtree(gone, ignore_errors=True)
        else:
            gone.unlink(missing_ok=True)


def leftovers(directory: Path) -> list[Path]:
    """What a repair or a removal of `directory` that was killed left beside it."""
    return [path for mark in (SET_ASIDE, PARTIAL) for path in directory.parent.glob(f"{mark}{directory.name}-*")]


def _beside(mark: str, directory: Path) -> Path:
    return directory.with_name(f"{mark}{directory.name}-{secrets.token_hex(4)}")


def _copy_whole(
    source: Path, target: Path, meta: Mapping[str, Json], columns: Mapping[str, Column], beside: Sequence[str]
) -> int:
    """Write the rows of `source` that are whole into `target`; returns how many. Nothing is written without any."""
    if not _may_hold(source, meta):
        return 0
    file = RowFile(target, meta, columns)
    for keys, values, lengths in _whole_blocks(source, columns):
        file.append(keys, values, lengths)
    if target.is_dir():
        for name in beside:
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)
    return len(file.keys)


def _may_hold(directory: Path, meta: Mapping[str, Json]) -> bool:
    """Whether the rows may be what `meta` says: it says so, or what says it is damaged; checksums tell the rest."""
    try:
        return bool(json.loads((directory / "meta.json").read_text(encoding="utf-8")) == meta)
    except ValueError:
        return True
    except OSError:
        return (directory / "blocks.bin").is_file()


def _whole_blocks(
    directory: Path, columns: Mapping[str, Column]
) -> Iterator[tuple[Keys, dict[str, Array], Sequence[int]]]:
    """Keys, columns and lengths of each append that is as it was written."""
    is_ragged = any(column.ragged for column in columns.values())
    keys, ends = _mapped(directory, KEYS), _mapped(directory, ENDS)
    held = {name: _mapped(directory, column) for name, column in columns.items()}
    path = directory / "blocks.bin"
    for block in parse_records(path.read_bytes() if path.is_file() else b""):
        if block is None or block.rows.stop > len(keys):
            continue
        span = _values_of(block, ends) if is_ragged else block.rows
        if span is None:
            continue
        values = {name: held[name][span if column.ragged else block.rows] for name, column in columns.items()}
        mine = [ends[block.rows]] if is_ragged else []
        if checksum_of([*values.values(), *mine, keys[block.rows]]) == block.checksum:
            yield keys[block.rows], values, np.diff(mine[0], prepend=span.start).tolist() if mine else ()


def _values_of(block: Block, ends: Array) -> slice | None:
    """Where the values of ragged columns stand; None where that is not known."""
    if block.rows.stop > len(ends) or not block.n_rows:
        return None
    start, stop = int(ends[block.first - 1]) if block.first else 0, int(ends[block.rows.stop - 1])
    return slice(start, stop) if 0 <= start <= stop else None


def _mapped(directory: Path, column: Column) -> Array:
    """As many rows as the file holds."""
    path = directory / column.file
    n_rows = path.stat().st_size // column.row_bytes if path.is_file() else 0
    if not n_rows:
        return np.empty((0, *column.shape), dtype=column.dtype)
    return np.asarray(np.memmap(path, column.dtype, "r", shape=(n_rows, *column.shape)))
