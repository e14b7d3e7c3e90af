"""One answer explained: the way of its documents with what they are, and which of them are relevant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.answers.flow import Flow, FlowStage, Way
from orchestrator.report.lines import told_json

if TYPE_CHECKING:
    from orchestrator.answers.trace import Result
    from orchestrator.types import Document


@dataclass(frozen=True, slots=True)
class Explained:
    """What the terminal, the JSON and the picture show.

    Attributes:
        result: the answer.
        flow: how its documents moved.
        documents: every document that any stage saw, by id.
        grades: document -> its grade, for relevant ones that some stage saw; empty for a question that nobody judged.
        missed: ids of relevant documents, as the judgements name them, that no recall found.
        is_judged: whether there are judgements for this question.
    """

    result: Result
    flow: Flow
    documents: Mapping[str, Document] = field(repr=False)
    grades: Mapping[str, int] = field(default_factory=dict)
    missed: tuple[str, ...] = ()
    is_judged: bool = False

    def label(self, doc_id: str, chars: int) -> str:
        """The title of a document, or the beginning of its text, in one line of `chars` characters at most."""
        document = self.documents.get(doc_id)
        words = " ".join((document.title or document.text[: 4 * chars]).split()) if document else ""
        return f"{words[: chars - 1]}…" if len(words) > chars else words


def explained_json(explained: Explained, only: str | None = None) -> dict[str, object]:
    """The whole flow: `query`, `degraded`, `trace`, the `stages` with their sizes, the `documents` with their ways.

    Args:
        explained: the answer.
        only: the one document that is told of; None tells of all that any stage saw.
    """
    flow = explained.flow
    chosen = flow.doc_ids if only is None else tuple(doc_id for doc_id in (only,) if doc_id in flow.fates)
    return {
        **told_json(explained.result),
        "stages": [_stage_json(stage) for stage in flow.stages],
        "documents": [_way_json(explained, flow.way(doc_id)) for doc_id in chosen],
        "not_found": [only] if only is not None and not chosen else list(explained.missed),
    }


def _stage_json(stage: FlowStage) -> dict[str, object]:
    return {
        "stage": stage.name,
        "kind": stage.kind,
        "inputs": list(stage.inputs),
        "top_k": stage.top_k,
        "score_kind": stage.score_kind,
        "scored_by": stage.scored_by,
        "n_ranked": stage.n_seen,
        "n_scored": stage.n_scored,
        "n_out": stage.n_out,
        "skipped": stage.skipped,
    }


def _way_json(explained: Explained, way: Way) -> dict[str, object]:
    document = explained.documents.get(way.doc_id)
    steps = [
        {
            "stage": step.stage,
            "rank": step.rank,
            "moved": step.moved,
            "score": step.score,
            "score_kind": step.score_kind,
            "scored_by": step.scored_by,
            "passed_on": step.passed,
        }
        for step in way.steps.values()
    ]
    return {
        "doc_id": way.doc_id,
        "title": document.title if document else "",
        "rank": way.rank,
        "dropped_by": way.dropped_by,
        "found_by": list(way.found_by),
        "grade": explained.grades.get(way.doc_id, 0) if explained.is_judged else None,
        "steps": steps,
    }
