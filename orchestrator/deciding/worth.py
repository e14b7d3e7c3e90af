"""Is a rerank worth its time? Not where own results show a loss, or where next to nothing is expected of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.deciding.expected import Estimate, Paired
from orchestrator.deciding.gains import Gains
from orchestrator.deciding.options import Option


@dataclass(frozen=True)
class Advice:
    """Whether to rerank.

    Attributes:
        against: stack that reranks -> why it is not worth its time.
        reasons: in words, for the choice; empty where a rerank is worth it, or none is at hand.
        is_measured: whether own results say so.
    """

    against: Mapping[str, str] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    is_measured: bool = False


NO_ADVICE = Advice()


@dataclass(frozen=True, slots=True)
class _Why:
    """Why a rerank is not worth its time, and whether own results say so."""

    text: str
    is_measured: bool


def advise(fitting: Sequence[Option], gains: Gains) -> Advice:
    """Which of the stacks that fit and rerank are not worth it beside the best one that does not."""
    plain = max((one for one in fitting if not one.stack.reranks), key=_mean, default=None)
    reranks = sorted((one for one in fitting if one.stack.reranks), key=_mean, reverse=True)
    if plain is None or not reranks:
        return NO_ADVICE
    found = {one.stack.name: why for one in reranks if (why := _not_worth(one, plain, gains)) is not None}
    against = {name: why.text for name, why in found.items()}
    if len(against) < len(reranks):
        return Advice(against)
    best = next((one.stack.name for one in reranks if found[one.stack.name].is_measured), reranks[0].stack.name)
    return Advice(against, (_no_rerank(best, found[best]),), found[best].is_measured)


def expectation(estimate: Estimate) -> str:
    """`+.038 ± .033`: mean and standard deviation; the mean alone where that is not in doubt."""
    return (
        f"{figure(estimate.mean)} ± {estimate.sd:.3f}".replace("± 0.", "± .") if estimate.sd else figure(estimate.mean)
    )


def figure(value: float) -> str:
    """`+.038`: a difference in nDCG@10; 0 without a sign."""
    text = f"{value:+.3f}"
    return "0" if text in ("+0.000", "-0.000") else text.replace("0.", ".", 1)


def _mean(option: Option) -> float:
    return option.expected.estimate.mean


def _not_worth(rerank: Option, plain: Option, gains: Gains) -> _Why | None:
    gain = _mean(rerank) - _mean(plain)
    beside = _beside(rerank, plain, gains)
    if beside is not None and (beside.is_loss or max(gain, beside.mean) <= gains.margin):
        return _Why(f"on {beside.n} of your queries {_figures(beside)} against {plain.stack.name}", True)
    if gain <= gains.margin:  # by published figures, whatever few questions of one's own say
        least = f"a rerank has to gain more than {gains.margin:g}"
        return _Why(f"expected {figure(gain)} against {plain.stack.name}; {least}", False)
    return None


def _beside(rerank: Option, plain: Option, gains: Gains) -> Paired | None:
    """Own results of the two on the same questions, with the same embedder where both have one; or None."""
    own, embedders = rerank.expected.own, {one.models.get("embedder") for one in (rerank, plain)} - {None}
    if own is None or len(embedders) > 1:
        return None
    if plain.stack.name == gains.reference:
        return own.beside(gains.spread)
    return own.beside_other(plain.expected.own, gains.spread) if plain.expected.own is not None else None


def _figures(beside: Paired) -> str:
    low, high = beside.interval
    p = "p < .0001" if beside.p < 0.0001 else f"p {beside.p:.2g}"
    return f"{figure(beside.mean)} (95 % {figure(low)} to {figure(high)}, {p})"


def _no_rerank(name: str, why: _Why) -> str:
    if why.is_measured:
        return f"do not rerank: {name} has {why.text}"
    return f"no rerank that fits is worth its time: {name} is {why.text}"
