"""Results as JSON, TREC lines and tables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from orchestrator.ranking import surrogate_scores

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from orchestrator.decide import Choice, Decision
    from orchestrator.evaluate import Latency, Quality
    from orchestrator.need import Need
    from orchestrator.trace import Result, StageTrace, Trace
    from orchestrator.types import Document
    from orchestrator.verdict import Verdict


_SPACE = re.compile(r"\s+")


def result_json(result: Result) -> str:
    """One line of JSON a query, the same in `format=json`, results.jsonl and the server."""
    ranked = result.ranked
    rows = []
    for candidate in ranked:
        document = result.documents.get(candidate.doc_id)
        span = result.passages.get(candidate.doc_id)
        rows.append(
            {
                "rank": candidate.rank,
                "doc_id": candidate.doc_id,
                "score": candidate.score,
                "score_kind": ranked.score_kind,
                "title": document.title if document else "",
                "text": document.text if document else "",
                "metadata": dict(document.metadata) if document else {},
                "scores": dict(candidate.scores),
                "passage": {"start": span[0], "end": span[1]} if span else None,
            }
        )
    query = {"query_id": result.query.query_id, "text": result.query.text}
    line = {"query": query, "results": rows, "degraded": [], "trace": _trace_json(result.trace)}
    return json.dumps(line, ensure_ascii=False)


def _trace_json(trace: Trace) -> dict[str, object]:
    stages = [
        {
            "stage": stage.stage,
            "kind": stage.kind,
            "ms": round(stage.ms, 3),
            "n_in": stage.n_in,
            "n_out": stage.n_out,
            "cache_hits": stage.cache_hits,
            "tokens": stage.tokens,
            "cost_usd": stage.cost_usd,
            "repairs": stage.n_repairs,
            "repairs_by_kind": dict(stage.repairs),
            "passages": stage.passages,
            "notes": list(stage.notes),
        }
        for stage in trace.stages
    ]
    return {"total_ms": round(trace.total_ms, 3), "budget_ms": trace.budget_ms, "stages": stages}


def trec_lines(query_id: str, doc_ids: Sequence[str], tag: str = "orchestrate") -> str:
    """`query-id Q0 doc-id rank score tag` a line. Scores fall strictly: trec_eval sorts by score, not by rank.

    Columns end at white space, so that in an id becomes %20 and the like, as in a URL.
    """
    scores, query_id = surrogate_scores(len(doc_ids)), _one_word(query_id)
    rows = enumerate(zip(map(_one_word, doc_ids), scores, strict=True), start=1)
    return "".join(f"{query_id} Q0 {doc_id} {rank} {score:g} {tag}\n" for rank, (doc_id, score) in rows)


def _one_word(identifier: str) -> str:
    return _SPACE.sub(lambda found: quote(found[0]), identifier)


def evaluation_json(quality: Quality, latency: Latency | None) -> dict[str, object]:
    """The content of metrics.json and of `format=json`."""
    return {
        "metrics": dict(quality.metrics),
        "served": dict(quality.served),
        "baselines": {name: dict(values) for name, values in quality.baselines.items()},
        "n_queries": quality.n_queries,
        "latency_ms": dict(latency.total) if latency else None,
        "stage_latency_ms": {name: dict(values) for name, values in latency.stages.items()} if latency else None,
        "n_latency_queries": latency.n_queries if latency else 0,
    }


def decision_json(decision: Decision) -> dict[str, object]:
    """The content of decision.yaml and of `format=json`."""
    choice = decision.choice
    predicted = {"p50": round(choice.predicted.p50_ms, 1), "p95": round(choice.predicted.p95_ms, 1)}
    shown = {
        "name": choice.name,
        "overrides": list(choice.overrides),
        "command": choice.command,
        "predicted_ms": predicted,
        "misses_by_ms": None if choice.misses_by_ms is None else round(choice.misses_by_ms, 1),
        "reasons": list(choice.reasons),
    }
    return {"choice": shown, "rejected": [{"name": other.name, "reason": other.reason} for other in decision.rejected]}


def console() -> Console:
    """Where tables go: stdout, 120 columns wide when nobody's terminal says otherwise."""
    import os
    import sys

    from rich.console import Console

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 120
    return Console(width=width, highlight=False, soft_wrap=False)


def result_table(result: Result, relevant: Mapping[str, int] | None, text_chars: int) -> RenderableType:
    """The answer to one query as a table: rank, score, document, and the score of every stage.

    Args:
        result: the answer.
        relevant: document id -> grade, where the query is judged: relevant documents carry a tick.
        text_chars: how much of each document is shown.
    """
    from rich.text import Text

    stages = [stage.stage for stage in result.trace.stages]
    table = _table("#", *(["✓"] if relevant else []), "document", *stages, right=stages)
    for candidate in result.ranked:
        document = result.documents.get(candidate.doc_id)
        shown = " ".join(_shown(document, result.passages.get(candidate.doc_id)).split())
        shown = shown[: text_chars - 1] + "…" if len(shown) > text_chars else shown
        tick = ["✓" if relevant.get(candidate.doc_id, 0) > 0 else ""] if relevant else []
        scores = [f"{candidate.scores[stage]:.4g}" if stage in candidate.scores else "–" for stage in stages]
        cell = Text.assemble((candidate.doc_id, "bold"), "  ", shown)
        table.add_row(str(candidate.rank), *tick, cell, *scores)
    return table


def _shown(document: Document | None, span: tuple[int, int] | None) -> str:
    """A document's text, from its best window on where it was read in windows."""
    if document is None:
        return ""
    return f"{document.title} … {document.text[span[0] :]}" if span and span[0] else document.full_text


def trace_table(trace: Trace) -> RenderableType:
    """Per-stage times and sizes of one run."""
    table = _table("stage", "kind", "in", "out", "ms", "notes", right=("in", "out", "ms"))
    for stage in trace.stages:
        table.add_row(
            stage.stage,
            stage.kind,
            str(stage.n_in or "–"),
            str(stage.n_out),
            f"{stage.ms:.1f}",
            "; ".join([*_spent(stage), *stage.notes]),
        )
    budget = ""
    if trace.budget_ms is not None:
        word = "within" if trace.total_ms <= trace.budget_ms else "over"
        budget = f"{word} the budget of {trace.budget_ms:g} ms"
    table.add_section()
    table.add_row("total", "", "", "", f"{trace.total_ms:.1f}", budget)
    return table


def _spent(stage: StageTrace) -> list[str]:
    """Passages, tokens, money and repairs of a stage, each only where there are some."""
    passages = [f"{stage.passages} passages of {stage.n_in} documents"] if stage.passages else []
    tokens = [f"{stage.tokens:,} tokens"] if stage.tokens else []
    money = [f"${stage.cost_usd:.2g}"] if stage.cost_usd else []
    kinds = ", ".join(f"{times} {kind.replace('_', ' ')}" for kind, times in stage.repairs.items())
    return [*passages, *tokens, *money, *([f"repaired: {kinds}"] if kinds else [])]


def evaluation_table(final: str, quality: Quality, latency: Latency | None) -> RenderableType:
    """One row a stage, as if the pipeline ended there, with its own time; the last row is the whole pipeline."""
    names = list(quality.metrics)
    table = _table("ending at", *names, *(["p50 ms", "p95 ms"] if latency else []), right=[*names, "p50 ms", "p95 ms"])
    for stage, values in {**quality.baselines, final: quality.metrics}.items():
        times = _stage_times(stage, latency)
        table.add_row(stage, *(f"{values[name]:.4f}" for name in names), *times)
    table.add_section()
    total = [f"{latency.total['p50']:.1f}", f"{latency.total['p95']:.1f}"] if latency else []
    table.add_row("whole, as served", *(f"{quality.served[name]:.4f}" for name in names), *total)
    return table


def need_line(need: Need) -> str:
    """What a decision is for, in one line."""
    budget = "no budget given" if need.latency_ms is None else f"{need.latency_ms:g} ms"
    candidates = "the stack's own" if need.candidates is None else need.candidates
    return (
        f"for: {budget}, {candidates} candidates of {need.documents:,} documents of {need.doc_tokens} tokens, "
        f"language {need.language}, priority {need.priority}, device {need.device}, "
        f"allowed: {', '.join(sorted(need.allow)) or 'nothing beyond this machine'}"
    )


def choice_table(choice: Choice) -> RenderableType:
    """The stack chosen, what it should cost, and why."""
    from rich.text import Text

    table = _table("choice", choice.name)
    table.add_row("stack", choice.stack)
    table.add_row("predicted", f"p50 {choice.predicted.p50_ms:,.1f} ms, p95 {choice.predicted.p95_ms:,.1f} ms")
    for place, reason in enumerate(choice.reasons):
        table.add_row("" if place else "why", Text(f"- {reason}"))
    return table


def rejected_table(decision: Decision) -> RenderableType:
    """Every other stack with the one reason against it."""
    from rich.text import Text

    table = _table("not", "because")
    for other in decision.rejected:
        table.add_row(other.name, Text(other.reason))
    return table


def comparison_table(verdict: Verdict) -> RenderableType:
    """One row a system: its means, and how the learned stage, which stands first, does beside it."""
    names = list(next(iter(verdict.means.values()), {}))
    tests = ("difference", "won/tied/lost", "p t-test", "p random.", "p corrected")
    table = _table("system", *names, *tests, right=[*names, *tests])
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
    table = _table("feature", "share of gain", right=["share of gain"])
    for name, share in list(importances.items())[:rows]:
        table.add_row(name, f"{share:.3f}")
    return table


def _stage_times(stage: str, latency: Latency | None) -> list[str]:
    if latency is None:
        return []
    times = latency.stages[stage]
    return [f"{times['p50']:.1f}", f"{times['p95']:.1f}"]


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        justify = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in right)  # type: ignore[arg-type]
    return table
