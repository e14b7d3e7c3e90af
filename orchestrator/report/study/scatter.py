"""Quality against cost as inline SVG: a point a row, and the line of those that nothing beats in both."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from orchestrator.report.picture import clip
from orchestrator.study.front import Point, front
from orchestrator.study.numbers import amount_words

WIDTH, HEIGHT = 760.0, 420.0
LEFT, RIGHT, TOP, BOTTOM = 66.0, 24.0, 18.0, 52.0
_LOG_FROM = 20.0
"""From this ratio of the dearest to the cheapest on, costs stand on a logarithmic scale."""
_CELL, _BOLD_CELL, _LINE = 6.6, 7.4, 14.0
"""About the width of a letter, plain and bold, and the height of a line."""
_LABEL_CELLS = 34
_MOST_TICKS = 7


@dataclass(frozen=True, slots=True)
class Scale:
    """Values as places along one side of the picture.

    Attributes:
        low: value at `start`; above 0 where the scale is logarithmic.
        high: value at `end`.
        start: place of `low`.
        end: place of `high`.
        is_log: whether equal ratios are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Where `value` stands."""
        low, high, at = (
            (math.log(v) for v in (self.low, self.high, value)) if self.is_log else (self.low, self.high, value)
        )
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values along the scale."""
        if self.is_log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
            return [value for value in found if self.low <= value <= self.high]
        step = nice_step((self.high - self.low) / _MOST_TICKS)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(place * step, 12) for place in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Box:
    """Where a label stands: its left upper corner, width and height."""

    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two have a point in common."""
        across = self.x < other.x + other.width and other.x < self.x + self.width
        return across and self.y < other.y + other.height and other.y < self.y + self.height


def nice_step(at_least: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten, the least that is not below `at_least`."""
    power = 10.0 ** math.floor(math.log10(at_least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= at_least * (1 - 1e-9))


def scatter(points: Sequence[Point], x_label: str, y_label: str) -> str:
    """The `<svg>`; empty without points.

    Args:
        points: cost and quality of each row.
        x_label: of the cost, with its unit; lower is better.
        y_label: of the quality.
    """
    if not points:
        return ""
    x, y = _x_scale([point.cost for point in points]), _y_scale([point.quality for point in points])
    kept = front(points)
    told = escape(f"{y_label} against {x_label}, {len(points)} rows; on the front: {_names(kept)}", quote=True)
    parts = [f'<svg class="scatter" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{told}">']
    parts += [
        *_axes(x, y, x_label, y_label),
        *_line(kept, x, y),
        *_dots(points, kept, x, y),
        *_labels(points, kept, x, y),
    ]
    return "\n".join([*parts, "</svg>"])


def _names(points: Sequence[Point]) -> str:
    return ", ".join(point.entry.name for point in points)


def _x_scale(costs: Sequence[float]) -> Scale:
    low, high = min(costs), max(costs)
    if low > 0 and high / low >= _LOG_FROM:
        return Scale(low / 1.15, high * 1.15, LEFT, WIDTH - RIGHT, is_log=True)
    return Scale(0.0, (high or 1.0) * 1.06, LEFT, WIDTH - RIGHT)


def _y_scale(values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    room = max((high - low) * 0.08, 0.002)
    return Scale(low - room, high + room, HEIGHT - BOTTOM, TOP)


def _axes(x: Scale, y: Scale, x_label: str, y_label: str) -> Iterator[str]:
    for value in x.ticks():
        at = x.place(value)
        yield f'<path class="grid" d="M{at:.1f} {TOP:.1f}V{HEIGHT - BOTTOM:.1f}"/>'
        yield f'<text class="tickx" x="{at:.1f}" y="{HEIGHT - BOTTOM + 16:.1f}">{amount_words(value)}</text>'
    for value in y.ticks():
        at = y.place(value)
        yield f'<path class="grid" d="M{LEFT:.1f} {at:.1f}H{WIDTH - RIGHT:.1f}"/>'
        yield f'<text class="ticky" x="{LEFT - 8:.1f}" y="{at + 4:.1f}">{value:.4g}</text>'
    scale = ", logarithmic" if x.is_log else ""
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text class="axis" x="{middle:.1f}" y="{HEIGHT - 12:.1f}">{escape(x_label)}{scale} (less is better)</text>'
    turned = f'transform="translate(15 {(TOP + HEIGHT - BOTTOM) / 2:.1f}) rotate(-90)"'
    yield f'<text class="axis" {turned}>{escape(y_label)}</text>'


def _line(kept: Sequence[Point], x: Scale, y: Scale) -> Iterator[str]:
    """The front as a staircase: what can be had for so much and no more."""
    first, *rest = kept
    steps = "".join(f"H{x.place(point.cost):.1f}V{y.place(point.quality):.1f}" for point in rest)
    path = f"M{x.place(first.cost):.1f} {y.start:.1f}V{y.place(first.quality):.1f}{steps}H{x.end:.1f}"
    yield f'<path class="front" d="{path}"/>'


def _dots(points: Sequence[Point], kept: Sequence[Point], x: Scale, y: Scale) -> Iterator[str]:
    """Those of the front last, on top of the others."""
    on_front = {point.entry.name for point in kept}
    for point in sorted(points, key=lambda point: point.entry.name in on_front):
        css, radius = ("dot on", 5.5) if point.entry.name in on_front else ("dot", 4.0)
        tip = escape(f"{point.entry.title}: {point.quality:.4f} at {amount_words(point.cost)}")
        at = f'cx="{x.place(point.cost):.1f}" cy="{y.place(point.quality):.1f}"'
        yield f'<circle class="{css}" {at} r="{radius}"><title>{tip}</title></circle>'


def _labels(points: Sequence[Point], kept: Sequence[Point], x: Scale, y: Scale) -> Iterator[str]:
    """Those of the front with what sets them apart, where there is room; of the others the name, where there is."""
    on_front = {point.entry.name for point in kept}
    taken = [_around(x.place(point.cost), y.place(point.quality), 5.0) for point in points]
    for point in [*reversed(kept), *(point for point in points if point.entry.name not in on_front)]:
        is_on = point.entry.name in on_front
        for text in _texts(point, is_on):
            cell = _BOLD_CELL if is_on else _CELL
            box = free_place(text, x.place(point.cost), y.place(point.quality), taken, cell)
            if box is not None:
                taken.append(box)
                css = "label on" if is_on else "label"
                yield f'<text class="{css}" x="{box.x:.1f}" y="{box.y + 11:.1f}">{escape(text)}</text>'
                break


def _texts(point: Point, is_on: bool) -> list[str]:
    """From the longest label to the shortest."""
    return [*([clip(point.entry.brief, _LABEL_CELLS)] if is_on else []), point.entry.name]


def _around(x: float, y: float, radius: float) -> Box:
    return Box(x - radius, y - radius, 2 * radius, 2 * radius)


def free_place(text: str, x: float, y: float, taken: Sequence[Box], cell: float = _CELL) -> Box | None:
    """A place for `text` beside the point (x, y), inside the picture and clear of what is `taken`; None without one."""
    from rich.cells import cell_len

    width = cell_len(text) * cell
    for left, top in (
        (x + 9, y - 7),
        (x - 9 - width, y - 7),
        (x + 6, y - 21),
        (x + 6, y + 6),
        (x - 6 - width, y - 21),
        (x - 6 - width, y + 6),
    ):
        box = Box(left, top, width, _LINE)
        inside = left >= LEFT and left + width <= WIDTH and top >= 0 and top + _LINE <= HEIGHT - BOTTOM
        if inside and not any(box.overlaps(other) for other in taken):
            return box
    return None
