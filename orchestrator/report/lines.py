"""Results and traces as JSON."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Literal

from orchestrator.answers.flow import Flow, FlowStage, flow_of

if TYPE_CHECKING:
    from orchestrator.answers.trace import Result, StageTrace
    from orchestrator.types import Query

TraceDetail = Literal["full", "stages"]
"""What a line of trace.jsonl holds: also the way of every candidate, or the stages alone."""
_FIGURES = 6
_encode = json.JSONEncoder(ensure_ascii=False).encode


def result_json(result: Result) -> str:
    """One line of JSON a query, the same in `format=json`, results.jsonl and the server."""
    rows = []
    for candidate in result.ranked:
        document = result.documents.get(candidate.doc_id)
        span = result.passages.get(candidate.doc_id)
        rows.append(
            {
                "rank": candidate.rank,
                "doc_id": candidate.doc_id,
                "score": candidate.score,
                "score_kind": candidate.score_kind,
                "scored": candidate.scored,
                "title": document.title if document else "",
                "text": document.text if document else "",
                "metadata": dict(document.metadata) if document else {},
                "scores": dict(candidate.scores),
                "passage": {"start": span[0], "end": span[1]} if span else None,
            }
        )
    told = told_json(result)
    line = {"query": told["query"], "results": rows, "degraded": told["degraded"], "trace": told["trace"]}
    return json.dumps(line, ensure_ascii=False)


def told_json(result: Result) -> dict[str, object]:
    """What a result tells about itself, without its documents: `query`, `degraded`, `trace`."""
    trace = result.trace
    degraded = [
        {
            "stage": shortfall.stage,
            "reason": shortfall.reason,
            "detail": shortfall.detail,
            "scored": shortfall.scored,
            "of": shortfall.of,
        }
        for shortfall in trace.degraded
    ]
    told = {
        "total_ms": round(trace.total_ms, 3),
        "budget_ms": trace.budget_ms,
        "enforced": trace.enforced,
        "language": trace.language,
        "stages": [_stage_json(stage, result) for stage in trace.stages],
    }
    return {"query": _query_json(result.query), "degraded": degraded, "trace": told}


def trace_json(result: Result, detail: TraceDetail) -> str:
    """One line of trace.jsonl: `query`, `degraded` and `trace` as in the line of the result.

    With `full` also `candidates`: every document that any stage saw, `{"columns": [...], "rows": [[...], ...]}` with
    its rank and score at each stage and the stage that dropped it; scores to six figures. Where something stood in for
    a stage, its scores stand in a column of their own, `<stage>~1.score`, and those of the stage are null.
    """
    line = json.dumps(told_json(result), ensure_ascii=False, separators=(",", ":"))
    return line if detail == "stages" else f'{line[:-1]},"candidates":{_candidates(flow_of(result))}}}'


def _candidates(flow: Flow) -> str:
    """JSON of all documents. Put together by hand: thousands of numbers a query, in a third of json.dumps's time."""
    columns = ["doc_id", "dropped_by", *(column for stage in flow.stages for column in _columns(stage))]
    cells = [_cells(stage, flow) for stage in flow.stages]
    quoted = {fate: _encode(fate) for fate in {*flow.fates.values()}}
    ids = [f"{_encode(doc_id)},{quoted[fate]}" for doc_id, fate in flow.fates.items()]
    rows = ",".join(f"[{','.join(row)}]" for row in zip(ids, *cells, strict=True))
    return f'{{"columns":{_encode(columns)},"rows":[{rows}]}}'


def _columns(stage: FlowStage) -> list[str]:
    stand_in = [f"{stage.stand_in}.score"] if stage.stand_in else []
    return [f"{stage.name}.rank", f"{stage.name}.score", *stand_in]


def _cells(stage: FlowStage, flow: Flow) -> list[str]:
    """`rank,score` of each document of `flow` at one stage, `rank,null,score` where something stood in for it."""
    between = ",null," if stage.stand_in else ","
    own = [
        f"{rank}{between}{score:.{_FIGURES}g}" if math.isfinite(score) else f"{rank}{between}null"
        for rank, score in enumerate(stage.scores.tolist(), start=1)
    ]
    rows = map(stage.rows.get, flow.fates)
    return [f"null{between}null" if row is None else own[row] for row in rows]


def _query_json(query: Query) -> dict[str, str]:
    return {"query_id": query.query_id, "text": query.text}


def _stage_json(stage: StageTrace, result: Result) -> dict[str, object]:
    n_scored = stage.n_scored
    if n_scored is None:
        n_scored = 0 if stage.skipped is not None else result.outputs[stage.stage].n_scored
    return {
        "stage": stage.stage,
        "kind": stage.kind,
        "ms": round(stage.ms, 3),
        "started_ms": round(stage.started_ms, 3),
        "allowed_ms": None if stage.allowed_ms is None else round(stage.allowed_ms, 3),
        "n_in": stage.n_in,
        "n_out": stage.n_out,
        "n_scored": n_scored,
        "skipped": stage.skipped,
        "cache_hits": stage.cache_hits,
        "tokens": stage.tokens,
        "cost_usd": stage.cost_usd,
        "repairs": stage.n_repairs,
        "repairs_by_kind": dict(stage.repairs),
        "passages": stage.passages,
        "notes": list(stage.notes),
    }
