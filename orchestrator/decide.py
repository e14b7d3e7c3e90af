"""The decision helper: which stack serves a need, and one reason against each other. Pure: no files, no clock."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.cost import CostModel, ModelInfo, Predicted
from orchestrator.errors import ConfigError
from orchestrator.evidence import NONE, Own
from orchestrator.need import Catalogue, Need
from orchestrator.options import Expected, Option, consider
from orchestrator.rules import Rules, Slot
from orchestrator.worth import NO_ADVICE, Advice, advise, expectation, figure


@dataclass(frozen=True, slots=True)
class Choice:
    """The stack chosen.

    Attributes:
        name: of the stack in the rules.
        stack: in words.
        overrides: what makes it.
        predicted: time of one query.
        reasons: why it, most important first; what is not known is said here too.
        expected: what it is worth.
        misses_by_ms: how far its p95 is over the budget, when nothing fits; else None.
        flags: of the command line that its command needs, such as `--config-dir DIR`.
    """

    name: str
    stack: str
    overrides: tuple[str, ...]
    predicted: Predicted
    reasons: tuple[str, ...]
    expected: Expected
    misses_by_ms: float | None = None
    flags: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command that runs it."""
        return shlex.join(["orchestrate", *self.flags, *self.overrides])


@dataclass(frozen=True, slots=True)
class Rejected:
    """A stack that was not chosen, and the one reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One stack of the table.

    Attributes:
        name: of the stack.
        option: the best way to run it for this need; None where it may not serve at all.
        fits: whether its p95 is within the budget.
        is_choice: whether it was chosen.
        overrides: what makes it; empty where it may not serve.
    """

    name: str
    option: Option | None
    fits: bool
    is_choice: bool
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to run, and why not something else.

    Attributes:
        choice: what to run.
        rejected: all others.
        candidates: all stacks, in the order of the table.
        reference: the stack that what is expected is a difference to.
        advice: whether to rerank.
    """

    choice: Choice
    rejected: tuple[Rejected, ...]
    candidates: tuple[Candidate, ...] = ()
    reference: str = ""
    advice: Advice = NO_ADVICE


def decide(need: Need, rules: Rules, cost: CostModel, catalogue: Catalogue, own: Own = NONE) -> Decision:
    """The stack of the highest expected quality whose predicted p95 is within the budget; else the fastest.

    Args:
        need: what the user wants and has.
        rules: the table.
        cost: what stages cost.
        catalogue: the models there are.
        own: what own evaluations say.

    Raises:
        ConfigError: the rules allow nothing at all, or name a model or kind that is not known.
    """
    found: dict[str, Option | str] = {
        stack.name: consider(stack, need, rules, cost, catalogue, own) for stack in rules.stacks
    }
    options = [option for option in found.values() if isinstance(option, Option)]
    if not options:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.items())
        raise ConfigError("decision.stacks", f"no stack may serve this need. {reasons}")
    fitting = [option for option in options if option.predicted.p95_ms <= need.budget_ms]
    advice = advise(fitting, rules.gains)
    best = _best(fitting, need, rules, advice) if fitting else min(options, key=lambda option: option.predicted.p95_ms)
    rejected = [
        Rejected(name, option if isinstance(option, str) else _why_not(option, best, need, advice))
        for name, option in found.items()
        if option is not best
    ]
    candidates = [_candidate(name, option, best, need, catalogue) for name, option in found.items()]
    choice = _choice(best, need, rules, cost, catalogue, [*advice.reasons, *_own_reasons(best, rules, own)])
    return Decision(choice, tuple(rejected), tuple(candidates), rules.gains.reference, advice)


def _best(fitting: Sequence[Option], need: Need, rules: Rules, advice: Advice) -> Option:
    """Of those worth their time, the fastest of what is as good as the best."""
    worth = [option for option in fitting if option.stack.name not in advice.against] or fitting
    highest = max(option.expected.estimate.mean for option in worth)
    least = highest - rules.gains.indifferent(need.priority)
    as_good = [option for option in worth if option.expected.estimate.mean >= least]
    return min(as_good, key=lambda option: (option.predicted.p95_ms, -option.expected.estimate.mean))


def _candidate(name: str, option: Option | str, best: Option, need: Need, catalogue: Catalogue) -> Candidate:
    if isinstance(option, str):
        return Candidate(name, None, fits=False, is_choice=False)
    fits = option.predicted.p95_ms <= need.budget_ms
    return Candidate(name, option, fits, option is best, tuple(_overrides(option, need, catalogue)))


def _choice(
    best: Option, need: Need, rules: Rules, cost: CostModel, catalogue: Catalogue, of_quality: Sequence[str]
) -> Choice:
    over = best.predicted.p95_ms - need.budget_ms
    return Choice(
        best.stack.name,
        best.stack.stack,
        tuple(_overrides(best, need, catalogue)),
        best.predicted,
        tuple(_reasons(best, need, rules, cost, catalogue, of_quality)),
        best.expected,
        over if over > 0 else None,
    )


def _overrides(best: Option, need: Need, catalogue: Catalogue) -> Iterator[str]:
    yield from best.stack.overrides
    for slot, model in best.models.items():
        if slot not in catalogue.fixed:
            yield f"model@models.{slot}={model.name}"
    for stage in best.stack.stages:
        if best.top_ks[stage.name] != stage.top_k:
            yield f"pipeline.stages.{stage.name}.top_k={best.top_ks[stage.name]}"
    if need.device == "gpu":
        yield from best.stack.on_gpu


def _reasons(
    best: Option, need: Need, rules: Rules, cost: CostModel, catalogue: Catalogue, of_quality: Sequence[str]
) -> Iterator[str]:
    over = best.predicted.p95_ms - need.budget_ms
    if over > 0:
        yield f"nothing fits {need.latency_ms:g} ms: this is the fastest, its p95 {_ms(over)} over the budget"
    yield best.stack.because
    yield from of_quality
    for slot, model in best.models.items():
        why = "as you have set" if slot in catalogue.fixed else _model_reason(best, slot, need, rules)
        yield f"{slot} {model.name}: {why}"
    yield from _depth_reason(best, need)
    yield from _unknowns(best, need, cost)
    yield cost.origin


def _own_reasons(best: Option, rules: Rules, own: Own) -> Iterator[str]:
    """What is expected of the choice, on what grounds, and what is not known about it."""
    expected, reference = best.expected, rules.gains.reference
    if best.stack.name != reference:
        yield f"expected against {reference}: nDCG@10 {expectation(expected.estimate)} ({expected.basis})"
    yield from expected.known.gaps
    if best.measured is not None and expected.own is not None:
        yield f"measured by evaluate on {expected.own.when}: p95 {_ms(best.measured.p95_ms)}"
    yield from own.notes


def _model_reason(best: Option, slot: Slot, need: Need, rules: Rules) -> str:
    row = rules.language(need.language)
    better = _better(best, slot, row.models(slot), rules)
    return row.because + (f"; {', '.join(better)} would be better, but does not fit or cannot be had" if better else "")


def _better(best: Option, slot: Slot, names: Sequence[str], rules: Rules) -> list[str]:
    """Models of the list that are worth more at the depth that was chosen; of embedders, those that stand before."""
    chosen = best.models[slot].name
    if slot == "embedder":
        return list(names[: names.index(chosen)])
    worth = {name: rules.gains.known(best.stack.name, name, best.reads).estimate.mean for name in names}
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
    if "embedder" in best.models:
        minutes = cost.embed_document_ms(best.models["embedder"], need.lengths) * need.documents / 60_000
        if minutes >= 1:
            took = f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"
            yield f"indexing embeds {need.documents:,} documents once: some {took} on one thread"


def _unknown_model(slot: Slot, model: ModelInfo, cost: CostModel) -> Iterator[str]:
    if not model.local:
        yield f"{slot} {model.name} is downloaded from the model hub once; it is not on this machine"
    if not cost.knows(model):
        yield f"how much {model.name} works is not known (its card has no parameters_millions): taken as MiniLM"


def _why_not(option: Option, best: Option, need: Need, advice: Advice) -> str:
    p95, estimate = option.predicted.p95_ms, option.expected.estimate
    if p95 > need.budget_ms:
        at = f" even with {option.depth} candidates reranked" if option.depth else ""
        return f"p95 {_ms(p95)}{at}: {_ms(p95 - need.budget_ms)} over the budget"
    if option.stack.name in advice.against:
        return advice.against[option.stack.name]
    if best.predicted.p95_ms > need.budget_ms:
        return f"slower: p95 {_ms(p95)}"
    worth = f"fits (p95 {_ms(p95)}), expected {figure(estimate.mean)}"
    if estimate.mean >= best.expected.estimate.mean:
        return f"{worth}, which is no more than {best.stack.name} has for less time"
    return f"{worth}, below {figure(best.expected.estimate.mean)} of {best.stack.name}"


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"
