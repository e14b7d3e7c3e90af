"""The rank-flow picture as inline SVG: stages are bars of ranks, lines follow documents from stage to stage."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from orchestrator.report.layout import BLOCK, Block, Layout
from orchestrator.report.words import way_words

if TYPE_CHECKING:
    from orchestrator.answers.flow import FlowStage, Step, Way
    from orchestrator.report.explained import Explained

_TICKS = (1, 5, 10, 15, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000)
_TICK_GAP = 13.0
HUE_STEP = 137.5
"""Degrees between the colours of neighbours in the answer: the golden angle, so that no two nearby are alike."""


def picture(explained: Explained, layout: Layout, followed: str | None = None) -> str:
    """The `<svg>` of one answer.

    Args:
        explained: the answer.
        layout: its places.
        followed: a document that stands out.
    """
    title = escape(f"How documents moved from stage to stage for: {explained.result.query.text}")
    width, height = f"{layout.width:.0f}", f"{layout.height:.0f}"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [f'<svg {size} role="group" aria-label="{title}">', _DEFS]
    parts += _ribbons(layout)
    for block in layout.blocks.values():
        parts += _bars(block)
    for place, doc_id in reversed(list(enumerate(layout.drawn))):
        parts += _document(explained, layout, explained.flow.way(doc_id), place, followed)
    for block in layout.blocks.values():
        parts += _words(explained, block)
    return "\n".join([*parts, "</svg>"])


_DEFS = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hatch" width="2" height="6"/></pattern></defs>'
)


def _ribbons(layout: Layout) -> Iterator[str]:
    """From all that a stage passed on to all that the next one saw."""
    for block in layout.blocks.values():
        for name in block.stage.inputs:
            source = layout.blocks[name]
            if source.stage.n_out and block.n_seen:
                x1, x2 = source.x + BLOCK, block.x
                middle = (x1 + x2) / 2
                top, bottom = source.edge(source.stage.n_out), block.top + block.height
                yield (
                    f'<path class="ribbon" d="M{x1:.1f} {source.top:.1f}C{middle:.1f} {source.top:.1f} {middle:.1f} '
                    f"{block.top:.1f} {x2:.1f} {block.top:.1f}V{bottom:.1f}C{middle:.1f} {bottom:.1f} {middle:.1f} "
                    f'{top:.1f} {x1:.1f} {top:.1f}Z"/>'
                )


def _bars(block: Block) -> Iterator[str]:
    """The bar of a stage: what it passed on, what it did not, and what it did not score."""
    stage, bottom, cut = block.stage, block.top + block.height, block.edge(block.stage.n_out)
    yield _bar(block.x, block.top, cut, "passed")
    yield _bar(block.x, cut, bottom, "cut")
    if stage.n_scored < stage.n_seen:
        yield _bar(block.x, block.edge(stage.n_scored), bottom, "unscored")
    if stage.n_out < stage.n_seen:
        yield f'<path class="cutline" d="M{block.x - 5:.1f} {cut:.1f}h{BLOCK + 10}"/>'


def _words(explained: Explained, block: Block) -> Iterator[str]:
    """What is written at the bar of a stage, on top of all lines."""
    yield '<g class="words">'
    yield from _head(block)
    yield from _ranks(block)
    dropped = len(explained.flow.dropped(block.stage.name))
    foot = f"{dropped:,} dropped" if dropped else "" if block.n_seen else "no documents"
    yield f'<text class="foot" x="{block.x:.1f}" y="{block.top + block.height + 16:.1f}">{foot}</text></g>'


def _head(block: Block) -> Iterator[str]:
    stage, trace = block.stage, block.stage.trace
    sizes = f"{stage.n_seen:,} → {stage.n_out:,}" + (f" · {trace.ms:.1f} ms" if trace else "")
    kind = stage.kind + (f" · {stage.score_kind}" if stage.score_kind else "")
    trouble = _trouble(stage)
    lines = (("name", stage.name), ("kind", kind), ("sizes", sizes), ("trouble", trouble))
    for place, (css, words) in enumerate(lines):
        if words:
            shown = escape(clip(words, 27))
            tip = f"<title>{escape(words)}</title>" if len(words) > 27 else ""
            yield f'<text class="{css}" x="{block.x:.1f}" y="{block.top - 45 + 13 * place:.1f}">{shown}{tip}</text>'


def _trouble(stage: FlowStage) -> str:
    if stage.skipped is not None:
        return f"skipped: {stage.skipped}"
    if stage.degraded is None:
        return ""
    told = stage.degraded.reason.replace("_", " ")
    if stage.stand_in:
        told += f"; {stage.stand_in} in its place"
        told += f", {stage.stand_in_degraded.reason.replace('_', ' ')}" if stage.stand_in_degraded else ""
    return told + (f": {stage.n_scored:,} of {stage.n_seen:,} scored" if stage.n_scored < stage.n_seen else "")


def _bar(x: float, top: float, bottom: float, css: str) -> str:
    if bottom <= top:
        return ""
    return f'<rect class="{css}" x="{x:.1f}" y="{top:.1f}" width="{BLOCK}" height="{bottom - top:.1f}" rx="3"/>'


def _ranks(block: Block) -> Iterator[str]:
    """Labels of some ranks: the cut's always, the others where there is room."""
    placed: list[float] = []
    ends = [block.stage.n_out, block.n_seen]
    for rank in dict.fromkeys([*ends, *_TICKS]):
        y = block.y(rank) if rank else 0.0
        if 0 < rank <= block.n_seen and all(abs(y - other) >= _TICK_GAP for other in placed):
            placed.append(y)
            css = "rank edge" if rank == block.stage.n_out < block.n_seen else "rank"
            yield f'<text class="{css}" x="{block.x - 8:.1f}" y="{y + 4:.1f}">{rank:,}</text>'


def _document(explained: Explained, layout: Layout, way: Way, place: int, followed: str | None) -> Iterator[str]:
    is_relevant = way.doc_id in explained.grades
    css = ["doc", "kept" if way.rank else "lost", *(["relevant"] if is_relevant else [])]
    css += ["followed"] if way.doc_id == followed else []
    hue = f' style="--h:{(way.rank or 0) * HUE_STEP % 360:.0f}"' if way.rank else ""
    order = "0" if way.rank or is_relevant else "-1"
    told = escape(f"{explained.label(way.doc_id, 80) or way.doc_id}: {way_words(explained.flow, way)}")
    yield f'<g class="{" ".join(css)}" data-i="{place}" tabindex="{order}" role="button" aria-label="{told}"{hue}>'
    yield from _lines(layout, way)
    for step in way.steps.values():
        yield from _node(layout.blocks[step.stage], step, is_relevant)
    yield from _label(explained, layout, way)
    yield "</g>"


def _lines(layout: Layout, way: Way) -> Iterator[str]:
    """From each stage that passed the document on to the next; dashed where that one did not score it."""
    solid: list[str] = []
    dashed: list[str] = []
    for step in way.steps.values():
        block = layout.blocks[step.stage]
        for name in block.stage.inputs:
            before = way.steps.get(name)
            if before is not None and before.passed:
                source = layout.blocks[name]
                x1, y1, x2, y2 = source.x + BLOCK / 2, source.y(before.rank), block.x + BLOCK / 2, block.y(step.rank)
                middle = (x1 + x2) / 2
                curve = f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
                (dashed if step.score is None else solid).append(curve)
    if solid or dashed:
        yield f'<path class="hit" d="{"".join([*solid, *dashed])}"/>'
    if solid:
        yield f'<path class="line" d="{"".join(solid)}"/>'
    if dashed:
        yield f'<path class="line dashed" d="{"".join(dashed)}"/>'


def _node(block: Block, step: Step, is_relevant: bool) -> Iterator[str]:
    x, y = block.x + BLOCK / 2, block.y(step.rank)
    radius = 4.5 if step.rank <= block.n_rows else 2.5
    css = "node" if step.score is not None else "node hollow"
    yield f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'
    if not step.passed:
        end = block.x + BLOCK + 9
        cross = f"M{end - 3:.1f} {y - 3:.1f}l6 6m0-6l-6 6"
        yield f'<path class="end" d="M{x + radius:.1f} {y:.1f}H{end - 4:.1f}{cross}"/>'
        if is_relevant:
            yield f'<text class="tick" x="{end + 6:.1f}" y="{y + 4:.1f}">✓</text>'


def _label(explained: Explained, layout: Layout, way: Way) -> Iterator[str]:
    """The title, to the right of the last stage, where the rank has a row of its own."""
    last = explained.flow.stages[-1]
    step, block = way.steps.get(last.name), layout.blocks[last.name]
    if step is None or step.rank > block.n_rows:
        return
    is_relevant = way.doc_id in explained.grades
    tick = '<tspan class="tick">✓ </tspan>' if is_relevant and step.passed else ""
    label = escape(clip(explained.label(way.doc_id, 160) or way.doc_id, layout.label_cells))
    x = block.x + BLOCK + (12 if step.passed else 30 if is_relevant else 18)
    yield f'<text class="label" x="{x:.1f}" y="{block.y(step.rank) + 4:.1f}">{tick}{label}</text>'


def clip(text: str, cells: int) -> str:
    """`text` in at most `cells` columns of a terminal, a Chinese character being two."""
    from rich.cells import cell_len

    if cell_len(text) <= cells:
        return text
    while cell_len(text) > cells - 1:
        text = text[:-1]
    return text.rstrip() + "…"
