"""The ways a stack can be run for a need: which of its models may stand in, how deep it may go, what that costs."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from orchestrator.costs.cost import NOTHING, CostModel, ModelInfo, Predicted
from orchestrator.deciding.evidence import Evidence, Own, StackKey, at_depth
from orchestrator.deciding.expected import Estimate, posterior
from orchestrator.deciding.gains import Known
from orchestrator.deciding.need import Catalogue, Need
from orchestrator.deciding.rules import RECALL_KINDS, SLOT_OF_KIND, Rules, Slot, StackRule, StageRule
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.languages import MIXED


@dataclass(frozen=True)
class Expected:
    """What a way to run a stack is worth against the reference.

    Attributes:
        estimate: published figures, corrected by own results where there are any.
        known: the published half.
        own: the evaluation behind the other half, or None.
        language: of the published figures, where it is another one than is asked for; else None.
    """

    estimate: Estimate
    known: Known
    own: Evidence | None = None
    language: str | None = None

    @property
    def basis(self) -> str:
        """`published`, `published (en)` of another language, `not known`, or `yours n=60`."""
        if self.own is not None:
            return f"yours n={len(self.own.differences)}"
        if self.known.gaps:
            return "not known"
        return "published" if self.language is None else f"published ({self.language})"


@dataclass(frozen=True)
class _Given:
    """What every way to run a stack is reckoned by."""

    need: Need
    rules: Rules
    cost: CostModel
    catalogue: Catalogue
    own: Own


@dataclass(frozen=True)
class Option:
    """One way to run a stack: models chosen, depths set.

    Attributes:
        stack: the row of the table.
        models: by slot.
        places: how far down the lists of models they stand, added up.
        top_ks: how many each stage passes on.
        depth: the depth that was solved for, or 0.
        predicted: time of one query.
        expected: what it is worth.
    """

    stack: StackRule
    models: Mapping[Slot, ModelInfo]
    places: int
    top_ks: Mapping[str, int]
    depth: int
    predicted: Predicted
    expected: Expected

    @property
    def reads(self) -> int:
        """How many candidates its last rerank reads; 0 without one."""
        return self.stack.reads(self.top_ks)

    @property
    def measured(self) -> Predicted | None:
        """What `evaluate` timed of exactly this on this machine, or None."""
        own = self.expected.own
        same = own is not None and own.top_ks == tuple(self.top_ks.values())[:-1]
        return own.measured if own is not None and same else None


def consider(
    stack: StackRule, need: Need, rules: Rules, cost: CostModel, catalogue: Catalogue, own: Own
) -> Option | str:
    """The best way to run a stack within the budget, else its fastest; or why it may not serve at all.

    Between embedders nothing is published over the same corpora, and own results are differences to a reference with
    the same embedder: so of those the first of the list that fits is taken.
    """
    given = _Given(need, rules, cost, catalogue, own)
    refusal = next(_refusals(stack, need), None)
    if refusal is not None:
        return refusal
    problems: list[str] = []
    by_slot = [_models(slot, need, rules, catalogue, problems) for slot in stack.slots]
    if not all(by_slot):
        return problems[0] if problems else f"no model for language '{need.language}'"
    options = []
    for chosen in itertools.product(*(enumerate(models) for models in by_slot)):
        models = {slot: model for slot, (_, model) in zip(stack.slots, chosen, strict=True)}
        places = sum(place for place, _ in chosen)
        options.append(_deepest(stack, given, models, places))
    fitting = [option for option in options if option.predicted.p95_ms <= need.budget_ms]
    if fitting:
        first = dict(zip(stack.slots, by_slot, strict=True)).get("embedder", [])
        places_of = {model.name: place for place, model in enumerate(first)}

        def rank(option: Option) -> tuple[int, float, int]:
            embedder = places_of[option.models["embedder"].name] if "embedder" in option.models else 0
            return -embedder, option.expected.estimate.mean, -option.places

        return max(fitting, key=rank)
    return min(options, key=lambda option: option.predicted.p95_ms)


def _refusals(stack: StackRule, need: Need) -> Iterator[str]:
    if need.reach not in stack.candidates:
        yield f"for {stack.candidates} candidates; there are {need.reach}"
    if need.budget_ms not in stack.latency_ms:
        yield f"for budgets of {stack.latency_ms} ms; this one is {need.latency_ms:g} ms"
    if need.priority not in stack.priorities:
        yield f"for priority {' or '.join(stack.priorities)}; this one is {need.priority}"
    if need.device not in stack.devices:
        yield f"for device {' or '.join(stack.devices)}; this one is {need.device}"
    if stack.languages and need.language not in stack.languages:
        yield f"for language {' or '.join(stack.languages)}; this one is {need.language}"
    missing = [word for word in stack.needs if word not in need.allow]
    if missing:
        yield f"needs {_NEEDS[missing[0]]}: allow=[{','.join(sorted({*need.allow, *stack.needs}))}]"


_NEEDS = {
    "api": "a hosted reranker, to which documents are sent",
    "llm": "a language model",
    "trained": "a fusion trained on your judged queries",
    "hub": "a model hub",
}


def _models(slot: Slot, need: Need, rules: Rules, catalogue: Catalogue, problems: list[str]) -> list[ModelInfo]:
    """Models that may stand in a slot, best first; what speaks against others goes to `problems`."""
    if slot in catalogue.fixed:
        named = [catalogue.fixed[slot]]
    else:
        named = [_card(name, slot, catalogue) for name in rules.language(need.language).models(slot)]
    kept = []
    for model in named:
        if not knows_language(model, need.language):
            problems.append(f"{model.name} knows {', '.join(model.languages)} only; the language is {need.language}")
        elif model.is_remote and slot not in catalogue.fixed and "api" not in need.allow:
            problems.append(f"{slot} {model.name} is a service, to which documents are sent: allow=[api]")
        elif not model.local and not model.is_remote and "hub" not in need.allow:
            problems.append(
                f"{slot} {model.name} is not on this machine, and the hub is not allowed or off; a folder of yours: "
                f"models.{slot}.path=DIR"
            )
        else:
            kept.append(model)
    return kept


def _card(name: str, slot: Slot, catalogue: Catalogue) -> ModelInfo:
    if name not in catalogue.models:
        hint = did_you_mean(name, catalogue.models)
        choices = ", ".join(sorted(catalogue.models))
        raise ConfigError("decision.languages", f"{slot} '{name}' has no card in conf/model; cards: {choices}.{hint}")
    return catalogue.models[name]


def knows_language(model: ModelInfo, language: str) -> bool:
    """Whether a model was trained for a language; one that declares none is taken at its word."""
    wanted = {"zh", "en"} if language == MIXED else {language.split("-")[0]}
    return not model.languages or "multilingual" in model.languages or wanted <= set(model.languages)


def _deepest(stack: StackRule, given: _Given, models: Mapping[Slot, ModelInfo], places: int) -> Option:
    """With the largest depth within the budget; the smallest where none is."""
    need = given.need

    def predicted(depth: int) -> Predicted:
        return _predict(stack, given, models, _top_ks(stack, need, depth))

    depth = _depth(stack, need, predicted)
    top_ks = _top_ks(stack, need, depth)
    expected = _expected(stack, given, models, stack.reads(top_ks))
    return Option(stack, models, places, top_ks, depth, predicted(depth), expected)


def _depth(stack: StackRule, need: Need, predicted: Callable[[int], Predicted]) -> int:
    solved = next((stage.solved for stage in stack.stages if stage.solved is not None), None)
    if solved is None or solved.last is None:
        return 0
    depths = range(solved.first, max(solved.first, min(solved.last, need.reach)) + 1)
    fitting = bisect.bisect_right(depths, need.budget_ms, key=lambda depth: predicted(depth).p95_ms)
    return depths[max(0, fitting - 1)]


def _expected(stack: StackRule, given: _Given, models: Mapping[Slot, ModelInfo], reads: int) -> Expected:
    need, rules, own = given.need, given.rules, given.own
    reranker = models["reranker"].name if "reranker" in models else None
    known = rules.gains.known(stack.name, reranker, reads, need.language)
    evidence = own.nearest(key_of(stack, models), reads)
    if evidence is None:
        is_other = known.language is not None and known.language not in need.language.split("-")
        return Expected(known.estimate, known, language=known.language if is_other else None)
    there = rules.gains.known(stack.name, reranker, evidence.reads, need.language).estimate.mean
    measured = at_depth(evidence.beside(rules.gains.spread), there, known.estimate.mean)
    return Expected(posterior(known.estimate, measured), known, evidence)


def key_of(stack: StackRule, models: Mapping[Slot, ModelInfo]) -> StackKey:
    """What own results of a stack with certain models are kept under."""
    embedder, reranker = (models[slot].name if slot in models else None for slot in ("embedder", "reranker"))
    return stack.name, embedder, reranker


def _top_ks(stack: StackRule, need: Need, depth: int) -> dict[str, int]:
    """How many each stage passes on: never more than reach it."""
    top_ks: dict[str, int] = {}
    reach = 0
    for stage in stack.stages:
        wanted = depth if stage.solved else stage.top_k
        if need.candidates is not None and stage.follows_candidates:
            wanted = need.candidates
        if stage.kind in RECALL_KINDS:
            top_ks[stage.name] = min(wanted, need.candidates or wanted)
            reach += top_ks[stage.name]
        else:
            top_ks[stage.name] = reach = min(wanted, reach)
    return top_ks


def _predict(stack: StackRule, given: _Given, models: Mapping[Slot, ModelInfo], top_ks: Mapping[str, int]) -> Predicted:
    need, cost = given.need, given.cost
    total = cost.embed(models["embedder"], need.lengths) if "embedder" in models else NOTHING
    reach = most = 0
    for stage in stack.stages:
        reads = need.searched if stage.kind in RECALL_KINDS else reach
        model = _model_of(stage, models, given.catalogue)
        results = top_ks[stage.name] if stage.kind in RECALL_KINDS else 0
        total += cost.predict(stage.kind, reads, lengths=need.lengths, results=results, model=model, device=need.device)
        reach = reach + top_ks[stage.name] if stage.kind in RECALL_KINDS else top_ks[stage.name]
        most = max(most, reach)
    return total + cost.around(most, len(stack.stages))


def _model_of(stage: StageRule, models: Mapping[Slot, ModelInfo], catalogue: Catalogue) -> ModelInfo | None:
    """The model that a stage runs, or whose vectors it reads; None is the usual one."""
    slot = SLOT_OF_KIND.get(stage.kind)
    if slot is not None:
        return models[slot]
    if stage.model is not None:
        return ModelInfo(stage.model, is_remote=True)
    return catalogue.encoder if stage.kind == "late_interaction" else None
