"""A decision in words: why a stack was chosen, what is not known about it, and one reason against each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from orchestrator.costs.cost import CostModel, ModelInfo
from orchestrator.deciding.evidence import Own
from orchestrator.deciding.need import Catalogue, Need
from orchestrator.deciding.options import Option
from orchestrator.deciding.rules import Rules, Slot
from orchestrator.deciding.worth import Advice, expectation, figure


def reasons_for(
    best: Option, need: Need, rules: Rules, cost: CostModel, catalogue: Catalogue, advice: Advice, own: Own
) -> Iterator[str]:
    """Why `best` was chosen, most important first; what is not known is said here too."""
    over = best.predicted.p95_ms - need.budget_ms
    if over > 0:
        yield f"nothing fits {need.latency_ms:g} ms: this is the fastest, its p95 {_ms(over)} over the budget"
    yield best.stack.because
    yield from advice.reasons
    yield from _worth(best, need, rules, own)
    for slot, model in best.models.items():
        why = "as you have set" if slot in catalogue.fixed else _model_reason(best, slot, need, rules)
        yield f"{slot} {model.name}: {why}"
    yield from _depth_reason(best, need)
    yield from _unknowns(best, need, cost)
    yield cost.origin


def _worth(best: Option, need: Need, rules: Rules, own: Own) -> Iterator[str]:
    """What is expected of the choice, on what grounds, and what is not known about it."""
    expected, reference = best.expected, rules.gains.reference
    if best.stack.name != reference:
        yield f"expected against {reference}: nDCG@10 {expectation(expected.estimate)} ({expected.basis})"
    yield from expected.known.gaps
    if best.measured is not None and expected.own is not None:
        over = best.measured.p95_ms - need.budget_ms
        beyond = f", {_ms(over)} over the budget" if over > 0 else ""
        yield f"measured by evaluate on {expected.own.when}: p95 {_ms(best.measured.p95_ms)}{beyond}"
    yield from own.notes


def _model_reason(best: Option, slot: Slot, need: Need, rules: Rules) -> str:
    row = rules.language(need.language)
    better = _better(best, slot, row.models(slot), rules, need.language)
    return row.because + (f"; {', '.join(better)} would be better, but does not fit or cannot be had" if better else "")


def _better(best: Option, slot: Slot, names: Sequence[str], rules: Rules, language: str) -> list[str]:
    """Models of the list that are worth more at the depth that was chosen; of embedders, those that stand before."""
    chosen = best.models[slot].name
    if slot == "embedder":
        return list(names[: names.index(chosen)])
    worth = {name: rules.gains.known(best.stack.name, name, best.reads, language).estimate.mean for name in names}
    return [name for name in names if worth[name] > worth[chosen]]


def _depth_reason(best: Option, need: Need) -> Iterator[str]:
    if best.predicted.p95_ms > need.budget_ms:
        return
    for stage, after in itertools.pairwise(best.stack.stages):
        if stage.solved is not None and best.top_ks[stage.name] < min(stage.solved.last or 0, need.reach):
            yield f"{after.name} reads {best.top_ks[stage.name]}: the most that keep p95 within {need.latency_ms:g} ms"


def _unknowns(best: Option, need: Need, cost: CostModel) -> Iterator[str]:
    elsewhere = best.expected.language
    if elsewhere is not None:
        yield f"its figures are of collections in '{elsewhere}', taken for '{need.language}' too: none are known"
    for slot, model in best.models.items():
        yield from _unknown_model(slot, model, cost)
    if "embedder" in best.models and not best.models["embedder"].is_remote:
        minutes = cost.embed_document_ms(best.models["embedder"], need.lengths) * need.documents / 60_000
        if minutes >= 1:
            took = f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"
            about = "about a minute" if minutes < 1.5 else f"some {took}"
            tokens = any(stage.kind == "late_interaction" for stage in best.stack.stages)
            apart = ", their token vectors apart" if tokens else ""
            yield f"indexing embeds {need.documents:,} documents once: {about}{apart}"


def _unknown_model(slot: Slot, model: ModelInfo, cost: CostModel) -> Iterator[str]:
    if model.is_remote:
        yield f"{slot} {model.name} is a service: documents and questions are sent to it"
        if not cost.knows(model):
            yield f"how long {model.name} takes is in none of the figures: `orchestrate calibrate` asks it"
        return
    if not model.local:
        yield f"{slot} {model.name} is downloaded from the model hub once; it is not on this machine"
    if not cost.knows(model):
        yield f"how much {model.name} works is not known (its card has no parameters_millions): taken as MiniLM"


def reason_against(option: Option, best: Option, need: Need, advice: Advice) -> str:
    """The one reason against `option`, where `best` was chosen."""
    p95, estimate = option.predicted.p95_ms, option.expected.estimate
    if best.predicted.p95_ms > need.budget_ms:
        return f"slower: p95 {_ms(p95)}, {_ms(p95 - need.budget_ms)} over the budget"
    if p95 > need.budget_ms:
        at = f" even with {option.depth} candidates reranked" if option.depth else ""
        return f"p95 {_ms(p95)}{at}: {_ms(p95 - need.budget_ms)} over the budget"
    if option.stack.name in advice.against:
        return advice.against[option.stack.name]
    worth = f"fits (p95 {_ms(p95)}), expected {figure(estimate.mean)}"
    if estimate.mean >= best.expected.estimate.mean:
        return f"{worth}: as good as {best.stack.name}, which takes less time"
    return f"{worth}, below {figure(best.expected.estimate.mean)} of {best.stack.name}"


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"
