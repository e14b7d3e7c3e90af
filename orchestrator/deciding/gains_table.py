"""Reads and checks the published figures of the decision rules: no source, no number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args

from orchestrator.costs.cost import check_keys
from orchestrator.deciding.expected import DepthCurve, Spread
from orchestrator.deciding.gains import NO_CURVE, Gain, Gains, Like, Priority
from orchestrator.errors import ConfigError, did_you_mean


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
    models = {str(name): _rows(f"decision.models.{name}", row) for name, row in rows.items()}
    readers: Mapping[str, Callable[[str, object], Any]] = {
        "indifference": _indifference,
        "margin": _number,
        "least_queries": _whole,
        "spread": _spread,
    }
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


def _rows(path: str, data: object) -> tuple[Gain, ...]:
    """One figure of a model, or a list of them: that of most languages first, then those of certain ones."""
    if not isinstance(data, list):
        return (read_gain(path, data, "over"),)
    return tuple(read_gain(f"{path}[{place}]", row, "over") for place, row in enumerate(data))


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
