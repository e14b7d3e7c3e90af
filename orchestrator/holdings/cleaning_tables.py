"""What is kept, and what was removed, as JSON and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.holdings.cleaning import Removal
from orchestrator.holdings.holdings import LEARNED, Holding

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_UNITS = ("B", "kB", "MB", "GB", "TB")


def holdings_json(root: Path, held: Sequence[Holding]) -> dict[str, object]:
    """The content of `cache show format=json`."""
    return {"root": str(root), "bytes": sum(one.n_bytes for one in held), "kept": [_json(one) for one in held]}


def removals_json(root: Path, gone: Sequence[Removal], dry_run: bool) -> dict[str, object]:
    """The content of `cache prune` and `cache clear` with `format=json`."""
    removed = [
        {**_json(one.holding), "entries": one.entries, "bytes": one.n_bytes, "reason": one.reason} for one in gone
    ]
    return {"root": str(root), "dry_run": dry_run, "freed_bytes": freed(gone), "removed": removed}


def holdings_table(root: Path, held: Sequence[Holding]) -> RenderableType:
    """One row a thing that is kept."""
    table = _table("kind", "whose", "entries", "size", "last use", "path")
    for one in held:
        kind = one.kind.replace("_", " ") + (" *" if one.kind in LEARNED else "")
        table.add_row(kind, one.about, _count(one.entries), size(one.n_bytes), _day(one), _below(root, one.path))
    table.add_section()
    table.add_row("total", "", "", size(sum(one.n_bytes for one in held)), "", "")
    return table


def removals_table(root: Path, gone: Sequence[Removal]) -> RenderableType:
    """One row a thing that went."""
    table = _table("kind", "whose", "entries", "freed", "why", "path")
    for one in gone:
        held = one.holding
        kind = held.kind.replace("_", " ")
        table.add_row(kind, held.about, _count(one.entries), size(one.n_bytes), one.reason, _below(root, held.path))
    return table


def freed(gone: Sequence[Removal]) -> int:
    """Bytes, of all together."""
    return sum(one.n_bytes for one in gone)


def size(n_bytes: float) -> str:
    """In the unit in which it is below 1000, powers of 1000."""
    for unit in _UNITS[:-1]:
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 100 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} {_UNITS[-1]}"


def _json(one: Holding) -> dict[str, object]:
    used = datetime.fromtimestamp(one.last_used, UTC).isoformat(timespec="seconds")
    facts = {"kind": one.kind, "path": str(one.path), "about": one.about, "entries": one.entries}
    return {**facts, "bytes": one.n_bytes, "last_used": used}


def _day(one: Holding) -> str:
    return datetime.fromtimestamp(one.last_used).astimezone().strftime("%Y-%m-%d")


def _count(entries: int | None) -> str:
    return "–" if entries is None else f"{entries:,}"


def _below(root: Path, path: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        is_number = column in ("entries", "size", "freed")
        table.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    return table
