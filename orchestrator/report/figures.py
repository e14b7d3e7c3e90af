"""The figures of an evaluation as JSON: what metrics.json holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from orchestrator.evaluation.by_language import by_language
from orchestrator.evaluation.sentences import sentences, shown_spent, total_usd

if TYPE_CHECKING:
    from orchestrator.evaluation.findings import Change, Changes, Compared, Findings
    from orchestrator.evaluation.latency import Latency
    from orchestrator.evaluation.quality import Quality, Ranked
    from orchestrator.evaluation.spent import Spent


def evaluation_json(
    quality: Quality,
    latency: Latency | None,
    findings: Findings | None = None,
    corpus: Mapping[str, str] | None = None,
    folds: int | None = None,
) -> dict[str, object]:
    """The content of metrics.json and of `format=json`."""
    figures: dict[str, object] = {
        "metrics": dict(quality.metrics),
        "served": dict(quality.served),
        "baselines": {name: dict(values) for name, values in quality.baselines.items()},
        "n_queries": quality.n_queries,
        "folds": folds,
        "work": dataclasses.asdict(quality.work),
        "reused": dataclasses.asdict(quality.reused),
        "latency_ms": dict(latency.total) if latency else None,
        "stage_latency_ms": {name: dict(values) for name, values in latency.stages.items()} if latency else None,
        "n_latency_queries": latency.n_queries if latency else 0,
        "within_budget": latency.within_budget if latency else None,
        **_spent_json(shown_spent(quality, latency), quality.spent.tokens),
        "cost_usd": total_usd(quality, latency),
    }
    if findings is not None:
        figures |= _findings_json(quality, latency, findings)
    return figures | ({"corpus": dict(corpus)} if corpus is not None else {})


def _spent_json(spent: Spent | None, stages: Iterable[str]) -> dict[str, object]:
    """What a query takes, of the whole and of each stage; null where nobody knows."""
    if spent is None:
        none = {"tokens_per_query": None, "cost_usd_per_query": None}
        return {**none, "stages": dict.fromkeys(stages, none)}
    each = {
        stage: {"tokens_per_query": spent.stage_tokens(stage), "cost_usd_per_query": spent.stage_usd(stage)}
        for stage in spent.tokens
    }
    return {
        "tokens_per_query": spent.tokens_per_query,
        "cost_usd_per_query": spent.usd_per_query,
        "stages": each,
    }


def _findings_json(quality: Quality, latency: Latency | None, findings: Findings) -> dict[str, object]:
    null = quality.null
    return {
        "intervals": {name: list(ends) for name, ends in findings.intervals.items()},
        "oracle": dict(quality.oracle.means),
        "null": None if null is None else {"stage": null, "metrics": dict(quality.systems[null].means)},
        "unjudged": _unjudged_json(quality.systems[quality.final]),
        "by_language": {
            language: {"n_queries": one.n_queries, findings.measure: dict(one.means)}
            for language, one in by_language(quality, findings.measure).items()
        },
        "against": {
            other.baseline.name: {
                "metrics": dict(other.ranked.means),
                "unjudged": _unjudged_json(other.ranked),
                "missing_queries": other.n_missing,
                "run": str(other.baseline.path),
            }
            for other in findings.baselines
        },
        "comparisons": [_compared_json(one, findings.measure) for one in findings.compared],
        "changes": _changes_json(findings.changes, findings.measure),
        "words": sentences(quality, findings, latency),
    }


def _unjudged_json(system: Ranked) -> dict[str, float]:
    return {str(cutoff): share for cutoff, share in system.unjudged.items()}


def _compared_json(one: Compared, measure: str) -> dict[str, object]:
    found = one.comparison
    return {
        "stage": one.stage,
        "against": found.other,
        "kind": one.kind,
        "measure": measure,
        "difference": found.difference,
        "interval": list(found.interval),
        "wins": found.wins,
        "ties": found.ties,
        "losses": found.losses,
        "p_t": found.p_t,
        "p_randomization": found.p_randomization,
        "p_holm": found.p_holm,
    }


def _changes_json(changes: Changes | None, measure: str) -> dict[str, object] | None:
    if changes is None:
        return None
    return {
        "against": changes.against,
        "measure": measure,
        "up": [_change_json(one) for one in changes.up],
        "down": [_change_json(one) for one in changes.down],
    }


def _change_json(one: Change) -> dict[str, object]:
    return {
        "query_id": one.query_id,
        "text": one.text,
        "before": one.before,
        "after": one.after,
        "change": one.difference,
    }
