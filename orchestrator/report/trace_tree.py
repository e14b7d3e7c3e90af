"""What one query cost, as a tree in the terminal: the last stage at the top, what it read below it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.answers.flow import Flow, FlowStage, flow_of
from orchestrator.report.words import shortfall_sentence, size_words, spent, told_by

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

    from orchestrator.answers.trace import Result, Trace

_COLOURS: Mapping[str, str] = {"recall": "cyan", "fusion": "magenta", "rerank": "green", "given": "blue"}
_HEAD = ("stage", "kind", "in → out", "ms")
_GAP = 2
_NARROW = 100
_LEAST_NOTES = 24


@dataclass(frozen=True, slots=True)
class _Row:
    """One stage in the tree.

    Attributes:
        label: its name, after the lines of the tree.
        guide: the lines of the tree, as they go on below it.
        is_repeat: whether the stage stands further up with all that is told of it.
    """

    label: str
    guide: str
    stage: FlowStage
    is_repeat: bool = False

    @property
    def cells(self) -> tuple[str, ...]:
        """Name, kind, sizes, milliseconds."""
        trace = self.stage.trace
        if self.is_repeat:
            return self.label, "", "as above", ""
        return self.label, self.stage.kind, size_words(self.stage), f"{trace.ms:.1f}" if trace else ""


class TraceTree:
    """A renderable of rich: a line a stage, the total, and a sentence for everything that was left out."""

    def __init__(self, result: Result) -> None:
        self._trace: Trace = result.trace
        flow = flow_of(result)
        self._kinds = {stage.name: stage.kind for stage in flow.stages}
        self._rows = list(_rows(flow, flow.stages[-1].name, "", "", set()))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Lines that fit the width."""
        from rich.cells import cell_len

        table = [_HEAD, *(row.cells for row in self._rows)]
        widths = [max(cell_len(cells[column]) for cells in table) for column in range(len(_HEAD))]
        bar = 10 if options.max_width < _NARROW else 20
        left = options.max_width - sum(widths) - bar - _GAP * (len(widths) + 1)
        yield _line(_HEAD, widths, "bold")
        for row in self._rows:
            line = _line(row.cells, widths)
            line.append_text(self._bar(row, bar))
            yield from _with_notes(line, _notes(row), left, row.guide)
        yield from _wrapped(self._total(), options.max_width, "")
        for sentence in self._shortfalls():
            yield from _wrapped(sentence, options.max_width, "  ")

    def _bar(self, row: _Row, width: int) -> Text:
        """When the stage ran and how long, in proportion to the whole."""
        from rich.text import Text

        trace, total = row.stage.trace, self._trace.total_ms
        if trace is None or row.is_repeat or total <= 0 or trace.ms <= 0:
            return Text(" " * width)
        length = min(max(round(trace.ms / total * width), 1), width)
        start = min(round(trace.started_ms / total * width), width - length)
        colour = _COLOURS[row.stage.kind]
        return Text(" " * start) + Text("━" * length, colour) + Text(" " * (width - start - length))

    def _total(self) -> Text:
        from rich.text import Text

        trace = self._trace
        words = [f"{trace.total_ms:.1f} ms"]
        style = "bold"
        if trace.budget_ms is not None:
            words[0] += f" of {trace.budget_ms:g} ms"
            over = trace.total_ms - trace.budget_ms
            words.append("enforced" if trace.enforced else "not enforced")
            if over > 0:
                words.append(f"{over:.1f} ms over")
                style = "bold red" if trace.enforced else "bold yellow"
        words += spent(trace.stages) + ([f"question in {trace.language}"] if trace.language else [])
        return Text("total  ", "bold") + Text("; ".join(words), style)

    def _shortfalls(self) -> Iterator[Text]:
        from rich.text import Text

        for shortfall in self._trace.degraded:
            yield Text(f"! {shortfall_sentence(shortfall, self._kinds.get(shortfall.stage, ''))}", "yellow")


def trace_tree(result: Result) -> TraceTree:
    """Stages of one answer as a tree: sizes, times, what was spent, what was left out and why."""
    return TraceTree(result)


def _rows(flow: Flow, name: str, label: str, guide: str, seen: set[str]) -> Iterator[_Row]:
    stage = flow[name]
    is_repeat = name in seen
    seen.add(name)
    below = guide + ("│  " if stage.inputs and not is_repeat else "")
    yield _Row(label + name, below, stage, is_repeat)
    inputs = () if is_repeat else stage.inputs
    for place, source in enumerate(inputs, start=1):
        branch, on = ("└─ ", "   ") if place == len(inputs) else ("├─ ", "│  ")
        yield from _rows(flow, source, guide + branch, guide + on, seen)


def _line(cells: tuple[str, ...], widths: list[int], style: str = "") -> Text:
    """Name and kind to the left, numbers to the right."""
    from rich.cells import cell_len
    from rich.text import Text

    line = Text()
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        room = " " * (width - cell_len(cell))
        line.append(cell + room if column < 2 else room + cell, style or ("dim" if column == 1 else ""))
        line.append(" " * _GAP)
    return line


def _notes(row: _Row) -> Text:
    from rich.text import Text

    if row.is_repeat:
        return Text()
    return Text("; ").join(Text(words, "yellow" if is_trouble else "dim") for words, is_trouble in told_by(row.stage))


def _with_notes(line: Text, notes: Text, left: int, guide: str) -> Iterator[Text]:
    """The line and its notes beside it; below it where there is little room beside."""
    from rich.text import Text

    if not notes:
        yield line
    elif left >= _LEAST_NOTES and len(notes) <= left * 2:
        indent = Text(guide + " " * (len(line) - len(guide) + _GAP))
        first, *others = notes.wrap(_console(), left)
        yield line + Text(" " * _GAP) + first
        yield from (indent + other for other in others)
    else:
        yield line
        width = max(left + len(line) + _GAP - len(guide) - _GAP, _LEAST_NOTES)
        yield from (Text(guide + " " * _GAP) + part for part in notes.wrap(_console(), width))


def _wrapped(text: Text, width: int, indent: str) -> Iterator[Text]:
    from rich.text import Text

    for place, part in enumerate(text.wrap(_console(), max(width - len(indent), _LEAST_NOTES))):
        yield part if place == 0 else Text(indent) + part


def _console() -> Console:
    from rich.console import Console

    return Console()
