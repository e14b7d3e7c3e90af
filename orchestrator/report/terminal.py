"""What all tables of the terminal share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> Console:
    """Where tables go: stdout, 120 columns wide when nobody's terminal says otherwise."""
    import os
    import sys

    from rich.console import Console

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 120
    return Console(width=width, highlight=False, soft_wrap=False)


def plain_table(*columns: str, right: Sequence[str] = (), is_close: bool = False) -> Table:
    """A table with a line under its head and no box.

    Args:
        columns: their heads.
        right: those of them that are numbers.
        is_close: two spaces between columns, so that many numbers fit into a hundred.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0) if is_close else (0, 1))
    for column in columns:
        justify = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in right)  # type: ignore[arg-type]
    return table
