"""An evaluation in sentences: which stages earn their place, what is left to the best order, what the figures lack."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.evaluation.findings import Compared, Findings
from orchestrator.evaluation.latency import Latency
from orchestrator.evaluation.quality import USUAL_CUTOFF, Quality
from orchestrator.evaluation.significance import Comparison
from orchestrator.evaluation.spent import Spent
from orchestrator.stack.graph import Node, StageGraph
from orchestrator.stack.routes import routes_of

FEW_QUERIES = 200
"""Below this, that a difference was not told from chance says little."""
_MUCH_UNJUDGED = 0.2
_UNEQUALLY_UNJUDGED = 0.05
_LEAST_SHOWN_P = 0.001


def sentences(quality: Quality, findings: Findings, latency: Latency | None) -> list[str]:
    """What there is to say, in this order: stages, baselines, the best order, judgements, money."""
    stages = [one for one in findings.compared if one.kind == "stage"]
    said = [_of_stage(one, quality, findings.measure, latency) for one in stages]
    said += [_of_baseline(one, findings.measure) for one in findings.compared if one.kind == "baseline"]
    undecided = [one for one in findings.compared if not one.comparison.is_better and not one.comparison.is_worse]
    if undecided and quality.n_queries < FEW_QUERIES:
        said.append(f"{quality.n_queries} judged queries are few: more may decide what these leave open.")
    said += _of_oracle(quality, findings.measure)
    said += _of_unjudged(quality, findings)
    said += _of_money(quality, latency)
    return said


def shown_spent(quality: Quality, latency: Latency | None) -> Spent | None:
    """What a query takes: over all of them, or over those that were timed where kept scores made the others cheaper.

    None where they did and none was timed: nobody knows then.
    """
    if not quality.spent.n_kept:
        return quality.spent
    return None if latency is None else latency.spent


def total_usd(quality: Quality, latency: Latency | None) -> float:
    """What was paid for the evaluation, the timed queries and their warm-up included; kept results cost nothing."""
    return quality.spent.paid_usd + (latency.spent.paid_usd + latency.warm_up_usd if latency is not None else 0.0)


def _of_stage(one: Compared, quality: Quality, measure: str, latency: Latency | None) -> str:
    comparison = one.comparison
    node = next(node for node in quality.nodes if node.name == one.stage)
    before = "before" if node.kind == "rerank" else f"of {comparison.other}{_alone(node)}"
    figures = (
        f"{measure} {_value(comparison.mean)} after it, {_value(comparison.other_mean)} {before} {_tests(comparison)}"
    )
    is_read = any(node.name in later.inputs for later in quality.nodes)
    name = f"{one.stage} by itself" if node.kind == "fusion" and is_read else one.stage
    said = f"{name} {_place(comparison)}: {figures}{_cost(one.stage, quality, latency)}."
    return said if comparison.is_better else said + _what_else(node, quality, comparison.other)


def _place(comparison: Comparison) -> str:
    """What a stage does to the order; `may` where its own interval leaves out 0 and the corrected test does not."""
    low, high = comparison.interval
    if comparison.is_better or comparison.is_worse:
        return "earns its place" if comparison.is_better else "does harm"
    return "may earn its place" if low > 0 else "may do harm" if high < 0 else "does not earn its place"


def _alone(node: Node) -> str:
    return ", the best of its inputs" if len(node.inputs) > 1 else ""


def _cost(stage: str, quality: Quality, latency: Latency | None) -> str:
    """`, for 41 ms of 58 ms a query and $2.10 of $2.30 per 1000 queries`: medians where timed, money where paid."""
    parts = []
    if latency is not None and stage in latency.stages:
        parts.append(f"{_ms(latency.stages[stage]['p50'])} of {_ms(latency.total['p50'])} a query")
    spent = shown_spent(quality, latency)
    if spent is not None and spent.stage_usd(stage):
        parts.append(f"{usd(1000 * spent.stage_usd(stage))} of {usd(1000 * spent.usd_per_query)} per 1000 queries")
    return f", for {' and '.join(parts)}" if parts else ""


def _what_else(node: Node, quality: Quality, other: str) -> str:
    """What a stage does beside ordering, for the one that reads it; empty for the last one."""
    reader = next((later.name for later in quality.nodes if node.name in later.inputs), None)
    routes = routes_of(StageGraph(quality.nodes)).get(node.name, ())
    if reader is None or reader in [other.name for other in routes]:
        return ""
    incoming = sum(before.top_k for before in quality.nodes if before.name in node.inputs)
    if node.kind == "rerank" and node.top_k < incoming:
        return f" It also cuts {incoming} candidates to {node.top_k} for {reader}."
    recall = next((name for name in quality.metrics if _is_recall(name)), None)
    if node.kind == "fusion" and recall is not None:
        here, there = quality.systems[node.name].means[recall], quality.systems[other].means[recall]
        return f" For {reader}, which orders anew, it brings {recall} {_value(here)}, {other} alone {_value(there)}."
    return ""


def _is_recall(name: str) -> bool:
    return name.startswith(("R@", "Recall@", "R("))


def _of_baseline(one: Compared, measure: str) -> str:
    comparison = one.comparison
    judgement = "is not told from"
    if comparison.is_better or comparison.is_worse:
        judgement = "beats" if comparison.is_better else "is worse than"
    figures = f"{measure} {_value(comparison.mean)} against {_value(comparison.other_mean)} {_tests(comparison)}"
    return f"The whole {judgement} {comparison.other}: {figures}."


def _of_oracle(quality: Quality, measure: str) -> Iterator[str]:
    best, whole = quality.oracle.means[measure], quality.metrics[measure]
    said = (
        f"The best order of what the recalls found is {measure} {_value(best)}, {_value(best - whole)} above the whole"
    )
    before = quality.systems[quality.null].means[measure] if quality.null is not None else best
    if before < best and whole > before:
        said += f"; the reranks go {(whole - before) / (best - before):.0%} of the way there from {quality.null}"
    yield f"{said}."


def _of_unjudged(quality: Quality, findings: Findings) -> Iterator[str]:
    own = quality.systems[quality.final].unjudged
    cutoff = next(iter(own), USUAL_CUTOFF)
    share = own.get(cutoff, 0.0)
    if share > _MUCH_UNJUDGED:
        counted = "they count as not relevant, so that the true figures may be higher"
        yield f"Nobody judged {share:.0%} of the first {cutoff} documents: {counted}."
    for other in findings.baselines:
        theirs = other.ranked.unjudged[cutoff]
        if abs(share - theirs) > _UNEQUALLY_UNJUDGED:
            compared = f"{theirs:.0%} of {other.baseline.name}'s, {share:.0%} of the whole's"
            yield f"Nobody judged {compared}: part of the difference may be who was judged, and not who is better."
        if other.n_missing:
            of = f"{other.n_missing} of {quality.n_queries} judged queries"
            yield f"{other.baseline.name} has no ranking for {of}, which count as 0."


def _of_money(quality: Quality, latency: Latency | None) -> Iterator[str]:
    spent, total = shown_spent(quality, latency), total_usd(quality, latency)
    kept = f"{quality.spent.n_kept:,} scores were kept from earlier questions"
    if spent is None:
        yield f"{kept}, so that tokens and money a query are not known; latency_queries=5 tells them of five queries."
    elif spent is not quality.spent and (spent.usd or sum(spent.tokens.values())):
        yield f"{kept}: tokens and money a query are those of the timed queries, which used none."
    if total or (spent is not None and spent.usd):
        paid = quality.spent.paid_usd
        timed = f", {usd(total - paid)} of it for the timing" if total > paid else ""
        each = f"; a thousand queries cost {usd(1000 * spent.usd_per_query)}" if spent is not None else ""
        yield f"This evaluation cost {usd(total)}{timed}{each}."


def _tests(comparison: Comparison) -> str:
    return f"({difference(comparison.difference)}, p {p_value(comparison.p_holm)})"


def _value(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def difference(value: float) -> str:
    """`+.0022`: with its sign, and no 0 before the point."""
    text = f"{value:+.4f}"
    return text[0] + text[1:].removeprefix("0")


def p_value(value: float) -> str:
    """`.41`, `.0023`, or `< .001`."""
    return "< .001" if value < _LEAST_SHOWN_P else f"{value:.2g}".removeprefix("0")


def usd(value: float) -> str:
    """`$12.30`, and two digits of what is less than a cent."""
    return f"${value:.2f}" if value >= 0.1 or not value else f"${value:.2g}"


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"
