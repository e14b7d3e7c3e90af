"""Checks of single YAML values: each returns the value as plain JSON, or raises a ConfigError that names its path."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TypeAlias

from orchestrator.checks import check_choice
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.stage import Json

Check: TypeAlias = Callable[[str, object], Json]
"""`check(path, value)`."""


def fields(path: str, value: object, allowed: Iterable[str], required: Iterable[str] = ()) -> dict[str, object]:
    """`value` as a dict with none but the `allowed` keys, and all `required` ones; keys with null are left out."""
    names = list(allowed)
    if not isinstance(value, Mapping):
        raise ConfigError(path, f"found {value!r}; expected a mapping with {', '.join(names)}")
    given = {str(key): item for key, item in value.items() if item is not None}
    for key in map(str, value):
        if key not in names:
            raise ConfigError(f"{path}.{key}", f"unknown; choices: {', '.join(names)}.{did_you_mean(key, names)}")
    for key in required:
        if key not in given:
            raise ConfigError(f"{path}.{key}", "missing")
    return given


def checked(path: str, value: object, checks: Mapping[str, Check], required: Iterable[str] = ()) -> dict[str, Json]:
    """`value` as a dict whose every item passed the check of its key."""
    return {key: checks[key](f"{path}.{key}", item) for key, item in fields(path, value, checks, required).items()}


def one_of(path: str, value: object, checks: Mapping[str, Check]) -> dict[str, Json]:
    """`value` as a dict with exactly one of the keys of `checks`, checked."""
    given = checked(path, value, checks)
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise ConfigError(path, f"found {found}; expected exactly one of {', '.join(checks)}")
    return given


def listed(check: Check, least: int = 1) -> Check:
    """A check of a list of at least `least` values that pass `check`."""

    def check_all(path: str, value: object) -> Json:
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) < least:
            raise ConfigError(path, f"found {value!r}; expected a list of {least} or more")
        return [check(f"{path}[{place}]", item) for place, item in enumerate(value)]

    return check_all


def choice(*names: str) -> Check:
    """A check for one of `names`."""

    def check(path: str, value: object) -> Json:
        check_choice(path, value, names)
        return str(value)

    return check


def text(path: str, value: object) -> str:
    """A string with something in it."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(path, f"found {value!r}; expected a text")
    return value


def boolean(path: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ConfigError(path, f"found {value!r}; expected true or false")
    return value


def number(least: float = -math.inf, most: float = math.inf) -> Callable[[str, object], float]:
    """A check for a finite number from `least` to `most`; whole ones stay whole."""

    def check(path: str, value: object) -> float:
        usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not usable or not least <= float(value) <= most:  # type: ignore[arg-type]
            raise ConfigError(path, f"found {value!r}; expected a number{_bounds(least, most)}")
        return value  # type: ignore[return-value]

    return check


def whole(least: int = 0) -> Callable[[str, object], int]:
    """A check for a whole number of at least `least`."""

    def check(path: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(path, f"found {value!r}; expected a whole number of {least} or more")
        return value

    return check


def moment(path: str, value: object) -> str:
    """A date or time in ISO 8601 as UTC in RFC 3339, as every engine reads it; without a zone it is UTC."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = value.isoformat()
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        expected = "expected a date or time in ISO 8601, for example 2026-11-25T12:00:00Z"
        raise ConfigError(path, f"found {value!r}; {expected}") from None
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _bounds(least: float, most: float) -> str:
    if math.isinf(least) and math.isinf(most):
        return ""
    if math.isinf(most):
        return f" of {least:g} or more"
    return f" from {least:g} to {most:g}"
