"""Where everything stands in the rank-flow picture: which documents are drawn, and the place of every rank. Pure.

Stages stand in columns by how far they are from the recalls, several of one column below each other. The first ranks of
a stage have a row each; the ranks below share what is left of its height, on a logarithmic scale.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.answers.flow import Flow, FlowStage

ROW = 22.0
HEIGHT = 640.0
LEAST_HEIGHT = 230.0
HEAD = 58.0
FOOT = 26.0
LEAST_COLUMN, MOST_COLUMN = 180.0, 290.0
WIDTH = 1200.0
BLOCK = 26.0
LEFT = 64.0
LABELS = 330.0
_SHARED_SHARE = 0.28
_CROSS, _CELL = 34.0, 6.8
"""What stands before a title, and about the width of one of its letters."""
_FIRST_RANKS = 20
_MOST_OF_ANSWER = 60
_MOST_RELEVANT = 60


@dataclass(frozen=True, slots=True)
class Block:
    """One stage in the picture.

    Attributes:
        x: left edge of its bar.
        top: of its first rank.
        n_rows: ranks that have a row of their own.
        n_seen: ranks there are.
        rows_height: of those rows together.
        shared_height: of what all other ranks share.
    """

    stage: FlowStage
    x: float
    top: float
    n_rows: int
    n_seen: int
    rows_height: float
    shared_height: float

    @property
    def height(self) -> float:
        """Of the whole bar."""
        return self.rows_height + self.shared_height

    @property
    def row(self) -> float:
        """Height of one rank that has a row of its own."""
        return self.rows_height / self.n_rows if self.n_rows else 0.0

    def y(self, rank: float) -> float:
        """The middle of rank `rank`, from 1."""
        return self.edge(rank - 0.5) if rank <= self.n_rows else (self.edge(rank - 1) + self.edge(rank)) / 2

    def edge(self, ranks: float) -> float:
        """The line below the first `ranks` ranks."""
        if ranks <= self.n_rows or not self.shared_height:
            return self.top + self.row * ranks
        share = math.log(ranks / self.n_rows) / math.log(self.n_seen / self.n_rows)
        return self.top + self.rows_height + self.shared_height * share


@dataclass(frozen=True, slots=True)
class Layout:
    """The picture's measures.

    Attributes:
        blocks: stage name -> its place, in the order of the stages.
        drawn: documents with a line of their own, the nearest to the answer first.
        width: of the picture, with the titles to the right of the answer.
        height: of the picture.
        label_cells: how long a title may be, in columns of a terminal.
    """

    blocks: Mapping[str, Block]
    drawn: tuple[str, ...]
    width: float
    height: float
    label_cells: int


def lay_out(flow: Flow, relevant: Iterable[str] = (), followed: str | None = None) -> Layout:
    """Places for all stages of `flow`, and the documents that are drawn one by one.

    Args:
        flow: how the documents moved.
        relevant: documents that are drawn wherever they ended.
        followed: one more that is.
    """
    columns = _columns(flow)
    tallest = max(len(names) for names in columns)
    height = max(HEIGHT, tallest * (LEAST_HEIGHT + HEAD + FOOT) - HEAD - FOOT)
    apart = _apart(len(columns))
    blocks: dict[str, Block] = {}
    for place, names in enumerate(columns):
        own, top = (height + HEAD + FOOT) / len(names) - HEAD - FOOT, HEAD
        for name in names:
            blocks[name] = _block(flow[name], LEFT + place * apart, top, own)
            top += blocks[name].height + FOOT + HEAD
    bottom = max(block.top + block.height for block in blocks.values())
    ordered = {stage.name: blocks[stage.name] for stage in flow.stages}
    labels_at = LEFT + (len(columns) - 1) * apart + BLOCK
    width = max(labels_at + LABELS, WIDTH)
    label_cells = int((width - labels_at - _CROSS) / _CELL)
    return Layout(ordered, _drawn(flow, relevant, followed), width, bottom + FOOT + 8, label_cells)


def _columns(flow: Flow) -> list[list[str]]:
    """Names of the stages by the longest way from a recall."""
    depth: dict[str, int] = {}
    for stage in flow.stages:
        depth[stage.name] = max((depth[name] + 1 for name in stage.inputs), default=0)
    return [[name for name, found in depth.items() if found == column] for column in range(max(depth.values()) + 1)]


def _apart(n_columns: int) -> float:
    """From the left edge of one column to that of the next: more where few columns share the width."""
    free = WIDTH - LEFT - BLOCK - LABELS
    return min(max(free / max(n_columns - 1, 1), LEAST_COLUMN), MOST_COLUMN)


def _block(stage: FlowStage, x: float, top: float, height: float) -> Block:
    n = stage.n_seen
    if n * ROW <= height:
        return Block(stage, x, top, n, n, n * ROW, 0.0)
    n_rows = max(int(height * (1 - _SHARED_SHARE) / ROW), 1)
    return Block(stage, x, top, n_rows, n, n_rows * ROW, height - n_rows * ROW)


def _drawn(flow: Flow, relevant: Iterable[str], followed: str | None) -> tuple[str, ...]:
    chosen = set(flow.answer[:_MOST_OF_ANSWER]) | set(itertools.islice(relevant, _MOST_RELEVANT))
    for stage in flow.stages:
        chosen.update(stage.ranked.doc_ids[:_FIRST_RANKS])
        chosen.update(flow.dropped(stage.name)[:2])
    if followed in flow.fates:
        chosen.add(str(followed))
    return tuple(doc_id for doc_id in flow.doc_ids if doc_id in chosen)
