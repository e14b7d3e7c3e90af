"""How documents moved from stage to stage, as tables and sentences for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from orchestrator.report.terminal import plain_table
from orchestrator.report.words import cut_words, moved_words, nowhere_words, way_words

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from orchestrator.answers.flow import FlowStage, Step, Way
    from orchestrator.report.explained import Explained

_BEST = 3
_RELEVANT_LINES = 20


def flow_table(explained: Explained, n_documents: int, label_chars: int = 70) -> RenderableType:
    """The answer, then what came nearest to it: a row a document, its rank, movement and score at every stage.

    Args:
        explained: the answer.
        n_documents: how many rows; the whole answer is always there.
        label_chars: how much of a title is shown.
    """
    flow = explained.flow
    names = [f"{stage.name}\n({stage.stand_in})" if stage.stand_in else stage.name for stage in flow.stages]
    table = plain_table("#", *(["✓"] if explained.is_judged else []), "document", *names, right=["#", *names])
    shown = flow.doc_ids[: max(n_documents, len(flow.answer))]
    for place, doc_id in enumerate(shown, start=1):
        table.add_row(*_cells(explained, flow.way(doc_id), label_chars), end_section=place == len(flow.answer))
    return table


def _cells(explained: Explained, way: Way, label_chars: int) -> Iterator[Text]:
    from rich.text import Text

    yield Text("" if way.rank is None else str(way.rank))
    if explained.is_judged:
        yield Text("✓" if way.doc_id in explained.grades else "", "green")
    label = explained.label(way.doc_id, label_chars)
    yield Text(way.doc_id, "bold" if way.rank else "").append(f"\n{label}" if label else "", "not bold dim")
    for stage in explained.flow.stages:
        step = way.steps.get(stage.name)
        yield Text("–", "dim") if step is None else _step_cell(step)


def _step_cell(step: Step) -> Text:
    from rich.text import Text

    cell = Text(str(step.rank))
    if step.moved:
        cell.append(f" {moved_words(step.moved)}", "green" if step.moved > 0 else "red")
    if not step.passed:
        cell.append(" ✗", "bold red")
    score = ("not scored", "yellow") if step.score is None else (f"{step.score:.4g}", "dim")
    return cell.append("\n").append(*score)


def dropped_table(explained: Explained, label_chars: int = 100) -> RenderableType:
    """Where the other documents ended: a row a stage, how many, why, and the best-ranked of them."""
    from rich.text import Text

    flow = explained.flow
    table = plain_table("dropped by", "documents", "why", right=["documents"])
    table.expand = True  # so that titles give way, not the other columns
    table.add_column("the best of them", overflow="ellipsis", no_wrap=True, ratio=1)
    for stage in flow.stages:
        dropped = flow.dropped(stage.name)
        if not dropped:
            continue
        best = Text("\n").join(_best(explained, stage, doc_id, label_chars) for doc_id in dropped[:_BEST])
        table.add_row(Text(stage.name), f"{len(dropped)} of {stage.n_seen}", cut_words(stage), best)
    return table


def _best(explained: Explained, stage: FlowStage, doc_id: str, label_chars: int) -> Text:
    from rich.text import Text

    row = stage.rows.get(doc_id)
    line = Text("– " if row is None else f"{row + 1} ", "dim").append(doc_id, "not dim")
    tick = " ✓" if doc_id in explained.grades else ""
    return line.append(tick, "not dim green").append(f"  {explained.label(doc_id, label_chars)}", "dim")


def relevant_lines(explained: Explained) -> Iterator[Text]:
    """A sentence for each relevant document: its rank in the answer, what dropped it, or that no recall found it."""
    from rich.text import Text

    flow = explained.flow
    seen = [doc_id for doc_id in flow.doc_ids if doc_id in explained.grades]
    for doc_id in seen[:_RELEVANT_LINES]:
        way = flow.way(doc_id)
        style = "green" if way.dropped_by is None else "yellow"
        yield Text(f"✓ relevant document {doc_id}: {way_words(flow, way)}", style)
    for doc_id in explained.missed[:_RELEVANT_LINES]:
        yield Text(f"✗ relevant document {doc_id}: {nowhere_words(flow)}", "red")
    left = max(len(seen) - _RELEVANT_LINES, 0) + max(len(explained.missed) - _RELEVANT_LINES, 0)
    if left:
        yield Text(f"and {left} other relevant documents; format=json has all", "dim")


def way_table(explained: Explained, doc_id: str) -> RenderableType:
    """One document at every stage.

    Raises:
        KeyError: no stage saw it.
    """
    from rich.text import Text

    flow, way = explained.flow, explained.flow.way(doc_id)
    table = plain_table("stage", "rank", "of", "moved", "score", "is", "", right=["rank", "of", "moved", "score"])
    for stage in flow.stages:
        table.add_row(Text(stage.name), *_way_row(stage, way.steps.get(stage.name)))
    return table


def _way_row(stage: FlowStage, step: Step | None) -> Sequence[str | Text]:
    from rich.text import Text

    if step is None:
        missing = "did not find it" if not stage.inputs else "never saw it"
        return "–", str(stage.n_seen), "", "", "", Text(missing, "dim")
    score = Text("not scored", "yellow") if step.score is None else f"{step.score:.6g}"
    fate = Text("passed on", "green") if step.passed else Text(f"dropped: {cut_words(stage)}", "red")
    kind: str = step.score_kind or ""
    if step.scored_by not in (None, stage.name):
        kind += f" by {step.scored_by}"
    return str(step.rank), str(stage.n_seen), moved_words(step.moved), score, kind, fate
