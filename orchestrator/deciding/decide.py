"""The decision helper: which stack serves a need, and one reason against each other. Pure: no files, no clock."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.costs.cost import CostModel, Predicted
from orchestrator.deciding.evidence import NONE, Own
from orchestrator.deciding.need import Catalogue, Need
from orchestrator.deciding.options import Expected, Option, consider
from orchestrator.deciding.reasons import reason_against, reasons_for
from orchestrator.deciding.rules import Rules
from orchestrator.deciding.worth import NO_ADVICE, Advice, advise
from orchestrator.errors import ConfigError


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
        need: what it was decided for.
    """

    choice: Choice
    rejected: tuple[Rejected, ...]
    candidates: tuple[Candidate, ...] = ()
    reference: str = ""
    advice: Advice = NO_ADVICE
    need: Need = field(default_factory=Need)


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
        Rejected(name, option if isinstance(option, str) else reason_against(option, best, need, advice))
        for name, option in found.items()
        if option is not best
    ]
    candidates = [_candidate(name, option, best, need, catalogue) for name, option in found.items()]
    choice = _choice(best, need, catalogue, reasons_for(best, need, rules, cost, catalogue, advice, own))
    return Decision(choice, tuple(rejected), tuple(candidates), rules.gains.reference, advice, need)


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


def _choice(best: Option, need: Need, catalogue: Catalogue, reasons: Iterable[str]) -> Choice:
    over = best.predicted.p95_ms - need.budget_ms
    return Choice(
        best.stack.name,
        best.stack.stack,
        tuple(_overrides(best, need, catalogue)),
        best.predicted,
        tuple(reasons),
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
