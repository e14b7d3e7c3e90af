"""The published half of the decision rules: what each stack and model is worth, each figure from one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from orchestrator.cost import check_keys
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.expected import NO_DIFFERENCE, DepthCurve, Estimate, Spread, of_another_collection

Priority = Literal["precision", "balanced", "speed"]

INDIFFERENT = 0.005
"""In nDCG@10, where the rules say nothing: runs of GPT-4 over the same candidates differ by .003 to .006 (RankLLM)."""
LEAST_QUERIES = 10
"""Own results on fewer queries say too little, where the rules say nothing."""
NO_CURVE = DepthCurve({})
USUAL_SPREAD = Spread(0.2, 10)
"""Of one query's difference, where the rules say nothing; as conf/decision/default.yaml has it."""


@dataclass(frozen=True, slots=True)
class Gain:
    """A difference in nDCG@10 that somebody has published, both sides from the same table.

    Attributes:
        difference: to `over`.
        sd: between collections.
        sets: over how many collections.
        source: where it stands.
        over: what it is a difference to: another stack, or another model; None, for a stack, is the reference.
        depth: how many candidates the rerank read; None where that makes no difference.
        model: the reranker that was measured, for a stack that has one.
        language: of those collections.
    """

    difference: float
    sd: float
    sets: int
    source: str
    over: str | None = None
    depth: int | None = None
    model: str | None = None
    language: str = "en"

    @property
    def estimate(self) -> Estimate:
        """For a collection that is none of those."""
        return of_another_collection(self.difference, self.sd, self.sets)


@dataclass(frozen=True, slots=True)
class Like:
    """In place of a figure that nobody has published: the stack whose figure is taken, and why that is careful."""

    like: str
    because: str


@dataclass(frozen=True, slots=True)
class Known:
    """What is published about a stack with certain models.

    Attributes:
        estimate: of its difference to the reference.
        gaps: what is taken for granted, in words; empty where all of it is published.
        language: of the collections behind it; None where there are none.
    """

    estimate: Estimate
    gaps: tuple[str, ...] = ()
    language: str | None = None


@dataclass(frozen=True)
class Gains:
    """All that is published, and what to make of it.

    Attributes:
        reference: the stack that the others are compared with.
        stacks: what each is worth; one without an entry is not known.
        models: rerankers -> what each is worth over another one.
        curve: how much of a gain is there by depth.
        indifference: priority -> within so much of the best, the faster stack is taken; `INDIFFERENT` for one without.
        margin: a rerank that is not expected to gain more than that is not worth its time.
        spread: of one question's difference.
        least_queries: own results on fewer questions say too little.
    """

    reference: str
    stacks: Mapping[str, Gain | Like]
    models: Mapping[str, Gain] = field(default_factory=dict)
    curve: DepthCurve = NO_CURVE
    indifference: Mapping[str, float] = field(default_factory=dict)
    margin: float = INDIFFERENT
    spread: Spread = USUAL_SPREAD
    least_queries: int = LEAST_QUERIES

    def known(self, stack: str, reranker: str | None = None, reads: int = 0) -> Known:
        """What is published about `stack`.

        Args:
            stack: its name.
            reranker: the card of the cross-encoder it runs; None where it runs none.
            reads: how many candidates its last rerank reads.
        """
        if stack == self.reference:
            return Known(NO_DIFFERENCE)
        found = self.stacks.get(stack)
        if found is None:
            return Known(self._careless(), (f"nothing is published about {stack}: taken as {self.reference}",))
        if isinstance(found, Like):
            known = self.known(found.like, reranker, reads)
            gap = f"{stack} is taken as {found.like}: {found.because}"
            return Known(known.estimate, (gap, *known.gaps), known.language)
        estimate, gaps = self._with_model(found, reranker)
        if found.depth is not None:
            estimate = estimate.scaled(self.curve.part(reads, found.depth))
        if found.over is not None:
            below = self.known(found.over, None, reads)
            return Known(below.estimate + estimate, (*below.gaps, *gaps), found.language)
        return Known(estimate, gaps, found.language)

    def indifferent(self, priority: str) -> float:
        """Within so much of the best, the faster stack is taken."""
        return self.indifference.get(priority, INDIFFERENT)

    def _careless(self) -> Estimate:
        widest = max((gain.estimate.sd for gain in self.stacks.values() if isinstance(gain, Gain)), default=0.0)
        return Estimate(0.0, widest)

    def _with_model(self, found: Gain, reranker: str | None) -> tuple[Estimate, tuple[str, ...]]:
        if reranker is None or found.model is None or reranker == found.model:
            return found.estimate, ()
        between = self._over(reranker, found.model)
        if between is None:
            return found.estimate, (f"nothing is published about {reranker}: taken as {found.model}",)
        return found.estimate + between, ()

    def _over(self, model: str, base: str) -> Estimate | None:
        """What `model` is worth over `base`, along the tables that lead from one to the other; None where none do."""
        total, passed = NO_DIFFERENCE, {model}
        while model != base:
            gain = self.models.get(model)
            if gain is None or gain.over is None or gain.over in passed:
                return None
            total, model = total + gain.estimate, gain.over
            passed.add(model)
        return total


def read_gains(data: Mapping[str, Any], stacks: Mapping[str, Gain | Like]) -> Gains:
    """What the keys `quality`, `depth` and `models` of a file of conf/decision hold.

    Args:
        data: the whole file.
        stacks: what `expected` of its stacks holds.

    Raises:
        ConfigError: a key is unknown or missing, a figure has no source, or a name is that of no stack.
    """
    names = [str(row["name"]) for row in data["stacks"]]
    path, quality = "decision.quality", data["quality"]
    check_keys(path, quality, ["reference", "indifference", "margin", "least_queries", "spread"], ["reference"])
    _check_name(f"{path}.reference", str(quality["reference"]), names)
    _check_ends(stacks, names)
    rows = data.get("models") or {}
    models = {str(name): read_gain(f"decision.models.{name}", row, "over") for name, row in rows.items()}
    readers = {"indifference": _indifference, "margin": _number, "least_queries": _whole, "spread": _spread}
    given: dict[str, Any] = {
        key: read(f"{path}.{key}", quality[key]) for key, read in readers.items() if key in quality
    }
    return Gains(str(quality["reference"]), stacks, models, _curve("decision.depth", data.get("depth")), **given)


def read_expected(path: str, data: object) -> Gain | Like:
    """What `expected` of a stack holds: a figure with its source, or `like` another stack and why.

    Raises:
        ConfigError: as `read_gains`.
    """
    if isinstance(data, Mapping) and "like" in data:
        check_keys(path, data, ["like", "because"], ["like", "because"])
        return Like(str(data["like"]), str(data["because"]))
    return read_gain(path, data)


def read_gain(path: str, data: object, *needed: str) -> Gain:
    """One figure.

    Raises:
        ConfigError: as `read_gains`.
    """
    check_keys(path, data, [each.name for each in fields(Gain)], ["difference", "sd", "sets", "source", *needed])
    assert isinstance(data, Mapping)
    words = {key: str(data[key]) for key in ("source", "over", "model", "language") if data.get(key) is not None}
    depth = None if data.get("depth") is None else _whole(f"{path}.depth", data["depth"])
    difference = _number(f"{path}.difference", data["difference"], least=-1.0)
    sets = _whole(f"{path}.sets", data["sets"])
    return Gain(difference, _number(f"{path}.sd", data["sd"]), sets, depth=depth, **words)


def _curve(path: str, data: object) -> DepthCurve:
    if data is None:
        return NO_CURVE
    check_keys(path, data, ["shares", "source"], ["shares", "source"])
    assert isinstance(data, Mapping)
    shares = data["shares"]
    if not isinstance(shares, Mapping):
        raise ConfigError(f"{path}.shares", f"found {shares!r}; expected depth: share, such as {{10: 0.6, 100: 1}}")
    return DepthCurve(
        {_whole(f"{path}.shares", depth): _number(f"{path}.shares.{depth}", share) for depth, share in shares.items()}
    )


def _indifference(path: str, data: object) -> dict[str, float]:
    check_keys(path, data, get_args(Priority), [])
    assert isinstance(data, Mapping)
    return {str(priority): _number(f"{path}.{priority}", value) for priority, value in data.items()}


def _spread(path: str, data: object) -> Spread:
    check_keys(path, data, ["sd", "weight", "source"], ["sd", "weight", "source"])
    assert isinstance(data, Mapping)
    return Spread(_number(f"{path}.sd", data["sd"]), _number(f"{path}.weight", data["weight"]))


def _check_name(path: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise ConfigError(path, f"no stack '{name}'; stacks: {', '.join(names)}.{did_you_mean(name, names)}")


def _check_ends(stacks: Mapping[str, Gain | Like], names: Sequence[str]) -> None:
    """Every stack that a figure is compared with is there, and no stack is compared with itself."""
    for name in stacks:
        path, way = f"decision.stacks[{names.index(name)}].expected", [name]
        while (after := _compared_with(stacks.get(way[-1]))) is not None:
            _check_name(path, after, names)
            if after in way:
                raise ConfigError(path, f"a stack is compared with itself: {' over '.join([*way, after])}")
            way.append(after)


def _compared_with(found: Gain | Like | None) -> str | None:
    return found.like if isinstance(found, Like) else found.over if found is not None else None


def _number(path: str, value: object, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
        raise ConfigError(path, f"found {value!r}; expected a number of {least:g} or more")
    return float(value)


def _whole(path: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(path, f"found {value!r}; expected a whole number of 1 or more")
    return value
