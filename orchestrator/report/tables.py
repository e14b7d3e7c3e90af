"""Results and verdicts as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.report.terminal import plain_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.answers.trace import Result
    from orchestrator.learning.verdict import Verdict
    from orchestrator.types import Document


def result_table(result: Result, relevant: Mapping[str, int] | None, text_chars: int) -> RenderableType:
    """The answer to one query as a table: rank, document, and the score of every stage, and of what stood in for one.

    Args:
        result: the answer.
        relevant: document id -> grade, where the query is judged: relevant documents carry a tick.
        text_chars: how much of each document is shown.
    """
    from rich.text import Text

    stages = [name for stage in result.trace.stages for name in _scored_under(stage.stage, result)]
    table = plain_table("#", *(["✓"] if relevant else []), "document", *stages, right=stages)
    for candidate in result.ranked:
        document = result.documents.get(candidate.doc_id)
        shown = " ".join(_shown(document, result.passages.get(candidate.doc_id)).split())
        shown = shown[: text_chars - 1] + "…" if len(shown) > text_chars else shown
        tick = ["✓" if relevant.get(candidate.doc_id, 0) > 0 else ""] if relevant else []
        scores = [f"{candidate.scores[stage]:.4g}" if stage in candidate.scores else "–" for stage in stages]
        cell = Text.assemble((candidate.doc_id, "bold"), "  ", shown)
        table.add_row(str(candidate.rank), *tick, cell, *scores)
    return table


def _scored_under(stage: str, result: Result) -> list[str]:
    """The stage, and where something stood in for it the name of that too."""
    return [stage, *(name for name in result.ranked.stage_scores if name.startswith(f"{stage}~"))]


def _shown(document: Document | None, span: tuple[int, int] | None) -> str:
    """A document's text, from its best window on where it was read in windows."""
    if document is None:
        return ""
    return f"{document.title} … {document.text[span[0] :]}" if span and span[0] else document.full_text


def comparison_table(verdict: Verdict) -> RenderableType:
    """One row a system: its means, and how the learned stage, which stands first, does beside it."""
    names = list(next(iter(verdict.means.values()), {}))
    tests = ("diff.", "won/tied/lost", "p t", "p rand.", "p Holm")  # short: names of systems need the room
    table = plain_table("system", *names, *tests, right=[*names, *tests], is_close=True)
    compared = {other.other: other for other in verdict.comparisons}
    for system, means in verdict.means.items():
        row = [system, *(f"{means[name]:.4f}" for name in names)]
        other = compared.get(system)
        if other is not None:
            row += [f"{other.difference:+.4f}", f"{other.wins}/{other.ties}/{other.losses}"]
            row += [f"{p:.2g}" for p in (other.p_t, other.p_randomization, other.p_holm)]
        table.add_row(*row)
    return table


def importances_table(importances: Mapping[str, float], rows: int = 15) -> RenderableType:
    """The features that brought most of a model's gain."""
    table = plain_table("feature", "share of gain", right=["share of gain"])
    for name, share in list(importances.items())[:rows]:
        table.add_row(name, f"{share:.3f}")
    return table
