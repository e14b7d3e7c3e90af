"""Which way each feature may move a score: up with it, down with it, or either way. A missing value is not bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

from orchestrator.errors import ConfigError, did_you_mean

Monotone: TypeAlias = "str | bool | Mapping[str, int]"

LESS_IS_BETTER = frozenset({"rank", "missing", "distance", "first"})
"""Last part of a feature's name; a rank of 1 is the best, and a distance of 1 is the nearest."""
_MORE_IS_BETTER = frozenset(
    {"score", "normalised", "reciprocal_rank", "count", "rrf"}
    | {"bm25", "bm25_normalised", "tf_sum", "tf_max", "tf_mean", "coverage", "idf_coverage"}
    | {"bigrams", "phrase", "window", "rarest", "cosine", "cosine_normalised"}
)
_QUERY = "query."
_CHOICES = "auto, off, or a map of features, or beginnings of their names, to 1 (up), -1 (down) or 0 (either way)"


def setting(value: object) -> Monotone:
    """`value` as it stands in the YAML, checked as far as it can be without the features; YAML makes off a boolean.

    Raises:
        ConfigError: it is none of the choices.
    """
    if value is False or value == "off":
        return "off"
    if value == "auto":
        return "auto"
    if not isinstance(value, Mapping):
        raise ConfigError("monotone", f"found {value!r}; expected {_CHOICES}")
    for name, direction in value.items():
        if isinstance(direction, bool) or direction not in (-1, 0, 1):
            raise ConfigError(f"monotone.{name}", f"found {direction!r}; expected 1, -1 or 0")
    return {str(name): int(direction) for name, direction in value.items()}


def directions(names: Sequence[str], monotone: Monotone) -> list[int]:
    """1, -1 or 0 for each feature of `names`.

    `auto` takes them from what the features mean: scores, matches and reciprocal ranks up; ranks, distances and being
    missing down; lengths and what all candidates of a query share either way. It binds values: what a stage did not
    find has none, and a tree puts that on whichever side it likes.

    Raises:
        ConfigError: a map names no feature of these.
    """
    if monotone == "off":
        return [0] * len(names)
    if monotone == "auto":
        return [_meant(name) for name in names]
    given = cast(Mapping[str, int], monotone)
    for prefix in given:
        if not any(_begins(name, prefix) for name in names):
            parts = dict.fromkeys([*names, *(name.partition(".")[0] for name in names)])
            raise ConfigError(
                f"monotone.{prefix}", f"no feature begins so; for example: {names[0]}.{did_you_mean(prefix, parts)}"
            )
    return [_given(name, given) for name in names]


def _meant(name: str) -> int:
    last = name.rpartition(".")[2]
    if name.startswith(_QUERY) or (last not in _MORE_IS_BETTER and last not in LESS_IS_BETTER):
        return 0
    return -1 if last in LESS_IS_BETTER else 1


def _given(name: str, given: Mapping[str, int]) -> int:
    """That of the longest prefix; 0 where none fits."""
    fitting = [prefix for prefix in given if _begins(name, prefix)]
    return given[max(fitting, key=len)] if fitting else 0


def _begins(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
