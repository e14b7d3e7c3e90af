"""The decision helper: which stack serves a need, and one reason against each other. Pure: no files, no clock."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.cost import CostModel, Predicted
from orchestrator.errors import ConfigError
from orchestrator.need import Catalogue, Need
from orchestrator.options import Option, consider
from orchestrator.rules import Rules, Slot


@dataclass(frozen=True, slots=True)
class Choice:
    """The stack chosen.

    Attributes:
        name: of the stack in the rules.
        stack: in words.
        overrides: what makes it.
        predicted: time of one query.
        reasons: why it, most important first; what is not known is said here too.
        quality: what stacks are ranked by: quality of the row, place of the models, depth; higher is better.
        misses_by_ms: how far its p95 is over the budget, when nothing fits; else None.
    """

    name: str
    stack: str
    overrides: tuple[str, ...]
    predicted: Predicted
    reasons: tuple[str, ...]
    quality: tuple[int, int, int]
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
class Decision:
    """What to run, and why not something else."""

    choice: Choice
    rejected: tuple[Rejected, ...]


def decide(need: Need, rules: Rules, cost: CostModel, catalogue: Catalogue) -> Decision:
    """The stack of the highest expected quality whose predicted p95 is within the budget; else the fastest.

    Raises:
        ConfigError: the rules allow nothing at all, or name a model or kind that is not known.
    """
    found: dict[str, Option | str] = {
        stack.name: consider(stack, need, rules, cost, catalogue) for stack in rules.stacks
    }
    options = [option for option in found.values() if isinstance(option, Option)]
    if not options:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.items())
        raise ConfigError("decision.stacks", f"no stack may serve this need. {reasons}")
    fitting = [option for option in options if option.predicted.p95_ms <= need.budget_ms]
    if fitting:
        best = max(fitting, key=lambda option: (option.quality, -option.predicted.p95_ms))
    else:
        best = min(options, key=lambda option: option.predicted.p95_ms)
    rejected = [
        Rejected(name, option if isinstance(option, str) else _why_not(option, need))
        for name, option in found.items()
        if option is not best
    ]
    return Decision(_choice(best, need, rules, cost, catalogue), tuple(rejected))


def _choice(best: Option, need: Need, rules: Rules, cost: CostModel, catalogue: Catalogue) -> Choice:
    over = best.predicted.p95_ms - need.budget_ms
    return Choice(
        best.stack.name,
        best.stack.stack,
        tuple(_overrides(best, need, catalogue)),
        best.predicted,
        tuple(_reasons(best, need, rules, cost, catalogue)),
        best.quality,
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


def _reasons(best: Option, need: Need, rules: Rules, cost: CostModel, catalogue: Catalogue) -> Iterator[str]:
    over = best.predicted.p95_ms - need.budget_ms
    if over > 0:
        yield f"nothing fits {need.latency_ms:g} ms: this is the fastest, its p95 {_ms(over)} over the budget"
    yield best.stack.because
    for slot, model in best.models.items():
        why = "as you have set" if slot in catalogue.fixed else _model_reason(best, slot, need, rules)
        yield f"{slot} {model.name}: {why}"
    yield from _depth_reason(best, need)
    yield from _unknowns(best, need, cost)
    yield cost.origin


def _model_reason(best: Option, slot: Slot, need: Need, rules: Rules) -> str:
    row = rules.language(need.language)
    names = row.models(slot)
    better = names[: names.index(best.models[slot].name)]
    return row.because + (f"; {', '.join(better)} would be better, but does not fit or cannot be had" if better else "")


def _depth_reason(best: Option, need: Need) -> Iterator[str]:
    if best.predicted.p95_ms > need.budget_ms:
        return
    for stage, after in itertools.pairwise(best.stack.stages):
        if stage.solved is not None and best.top_ks[stage.name] < min(stage.solved.last or 0, need.reach):
            yield f"{after.name} reads {best.top_ks[stage.name]}: the most that keep p95 within {need.latency_ms:g} ms"


def _unknowns(best: Option, need: Need, cost: CostModel) -> Iterator[str]:
    for slot, model in best.models.items():
        if not model.local:
            yield f"{slot} {model.name} is downloaded from the model hub once; it is not on this machine"
        if not cost.knows(model):
            yield f"how much {model.name} works is not known (its card has no parameters_millions): taken as MiniLM"
    if "embedder" in best.models:
        minutes = cost.embed_document_ms(best.models["embedder"], need.lengths) * need.documents / 60_000
        if minutes >= 1:
            took = f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"
            yield f"indexing embeds {need.documents:,} documents once: some {took} on one thread"


def _why_not(option: Option, need: Need) -> str:
    p95 = option.predicted.p95_ms
    if p95 > need.budget_ms:
        at = f" even with {option.depth} candidates reranked" if option.depth else ""
        return f"p95 {_ms(p95)}{at}: {_ms(p95 - need.budget_ms)} over the budget"
    return f"fits (p95 {_ms(p95)}), expected to rank lower: {option.stack.because}"


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"
