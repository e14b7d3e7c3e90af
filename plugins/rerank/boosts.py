"""What a document's payload is worth, from its date, its source or one of its numbers. Declared, never code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal, TypeAlias, get_args

from orchestrator.checks import check_choice
from orchestrator.errors import ConfigError, did_you_mean

Decay = Literal["exp", "gauss", "linear"]
Value: TypeAlias = Callable[[object], float | None]
"""What a payload value is worth; None for one that cannot be read."""

_DAY_S = 86_400.0
_MILLISECONDS_FROM = 1e11
"""As seconds since 1970 it lies 3,000 years ahead: a number from there on counts milliseconds."""
_SECONDS_FROM = 1e8
"""In text, a smaller number that is no year and no day is a mistake, and no moment of the years up to 1973."""
_YEARS = range(1000, 10000)
_COMPACT_DATES = range(1000_01_01, 10000_01_01)
"""20240506 is a day; as seconds since 1970 these numbers lie in the years up to 1973."""


@dataclass(frozen=True, slots=True)
class Boost:
    """One term of the sum.

    Attributes:
        name: its key in the YAML.
        field: payload field; a dotted path where payload nests.
        weight: what a value of 1 adds; may be negative.
        value: reads the field.
        missing: the value of a document without the field, or with one that cannot be read.
    """

    name: str
    field: str
    weight: float
    value: Value
    missing: float

    def of(self, metadata: Mapping[str, object]) -> tuple[float, bool]:
        """`weight` times the value; and whether the field was there and could be read."""
        found = _at(metadata, self.field)
        values = [value for one in _each(found) if (value := self.value(one)) is not None]
        return self.weight * (max(values) if values else self.missing), bool(values)


def checked_boost(name: str, given: object, now: datetime) -> Boost:
    """One entry of `boosts`.

    Args:
        name: its key.
        given: `field`, `weight`, one of `recency`, `values` and `number`, and perhaps `missing`.
        now: what ages are counted from.

    Raises:
        ConfigError: it is wrong; the path is below `boosts`.
    """
    path = f"boosts.{name}"
    entry = _mapping(path, given, ("field", "weight", "missing", *_KINDS))
    kinds = [kind for kind in _KINDS if entry.get(kind) is not None]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none of them"
        raise ConfigError(path, f"found {found}; expected exactly one of: {', '.join(_KINDS)}")
    field = entry.get("field")
    if not isinstance(field, str) or not field:
        raise ConfigError(f"{path}.field", f"found {field!r}; expected the name of a payload field")
    value = _KINDS[kinds[0]](f"{path}.{kinds[0]}", entry[kinds[0]], now)
    weight = _number(f"{path}.weight", entry.get("weight", 1.0))
    return Boost(name, field, weight, value, _number(f"{path}.missing", entry.get("missing", 0.0)))


def read_date(value: object) -> datetime | None:
    """A moment from ISO 8601 text, a year, a month, or seconds or milliseconds since 1970; UTC without a zone."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return _from_number(float(value)) if not isinstance(value, str) else _from_text(value.strip())
    except (ValueError, OverflowError, OSError):
        return None


def _from_number(value: float) -> datetime:
    if _among(_YEARS, value):
        return datetime(int(value), 1, 1, tzinfo=UTC)
    if _among(_COMPACT_DATES, value) and (written := _compact(int(value))) is not None:
        return written
    return datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS_FROM else value, UTC)


def _among(numbers: range, value: float) -> bool:
    """Whether `value` is one of `numbers`; a range by itself walks through all of them to find a float."""
    return value.is_integer() and int(value) in numbers


def _compact(value: int) -> datetime | None:
    """The day that 20240506 is, or None."""
    try:
        return datetime.strptime(str(value), "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def _from_text(value: str) -> datetime | None:
    if value.replace(".", "", 1).lstrip("-").isdigit():  # CSV has no numbers
        number = float(value)
        a_day = _among(_COMPACT_DATES, number) and _compact(int(number))
        known = _among(_YEARS, number) or a_day or abs(number) >= _SECONDS_FROM
        return _from_number(number) if known else None
    if len(value) == 7:  # 2024-05
        value += "-01"
    return read_date(datetime.fromisoformat(value))


def _recency(path: str, given: object, now: datetime) -> Value:
    """1 for a document of today, 0.5 after `half_life_days`; what lies ahead is as of today.

    The curves are those of Elasticsearch's decay functions (and of Qdrant's), with `decay` 0.5 at `scale`.
    """
    entry = _mapping(path, given, ("half_life_days", "fresh_days", "decay"))
    half_life = _number(f"{path}.half_life_days", entry.get("half_life_days"), above=0.0)
    fresh = _number(f"{path}.fresh_days", entry.get("fresh_days", 0.0), least=0.0)
    decay = _choice(f"{path}.decay", entry.get("decay", "exp"), get_args(Decay))
    curve: Callable[[float], float] = {
        "exp": lambda x: 0.5**x,
        "gauss": lambda x: 0.5 ** (x * x),
        "linear": lambda x: max(0.0, 1 - x / 2),
    }[decay]

    def value(found: object) -> float | None:
        moment = read_date(found)
        if moment is None:
            return None
        age_days = (now - moment).total_seconds() / _DAY_S
        return curve(max(0.0, age_days - fresh) / half_life)

    return value


def _values(path: str, given: object, _: datetime) -> Value:
    """What each value of the field is worth. One that is not listed has none."""
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(path, f"found {given!r}; expected a mapping such as {{handbook: 1, forum: -0.5}}")
    worth = {str(key): _number(f"{path}.{key}", number) for key, number in given.items()}
    return lambda found: worth.get(str(found))


def _scaled(path: str, given: object, _: datetime) -> Value:
    """A number between `min` (worth 0) and `max` (worth 1), on a logarithmic scale where said."""
    entry = _mapping(path, given, ("min", "max", "log"))
    log = _choice(f"{path}.log", entry.get("log", False), (True, False))
    low = _number(f"{path}.min", entry.get("min", 0.0), least=0.0 if log else None)
    high = _number(f"{path}.max", entry.get("max"), above=low)
    scale: Callable[[float], float] = math.log1p if log else float

    def value(found: object) -> float | None:
        try:
            number = math.nan if isinstance(found, bool) else float(found)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            return None
        if math.isnan(number):
            return None
        return (scale(min(max(number, low), high)) - scale(low)) / (scale(high) - scale(low))

    return value


_KINDS: Mapping[str, Callable[[str, object, datetime], Value]] = {
    "recency": _recency,
    "values": _values,
    "number": _scaled,
}


def _at(metadata: Mapping[str, object], field: str) -> object:
    """The value at a field, or at a dotted path."""
    if field in metadata:
        return metadata[field]
    found: object = metadata
    for key in field.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _each(found: object) -> Sequence[object]:
    if found is None:
        return ()
    return found if isinstance(found, list | tuple) else (found,)


def _mapping(path: str, given: object, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(path, f"found {given!r}; expected a mapping with: {', '.join(known)}")
    for key in given:
        if key not in known:
            raise ConfigError(f"{path}.{key}", f"no such key; keys: {', '.join(known)}.{did_you_mean(str(key), known)}")
    return given


def _choice(path: str, value: object, choices: Sequence[object]) -> Any:
    check_choice(path, value, choices)
    return value


def _number(path: str, value: object, *, above: float | None = None, least: float | None = None) -> float:
    number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    expected = f"a number above {above:g}" if above is not None else "a number"
    expected = f"a number from {least:g}" if least is not None else expected
    low = (above is not None and not number > above) or (least is not None and not number >= least)
    if not math.isfinite(number) or low:
        found = "missing" if value is None else f"found {value!r}"
        raise ConfigError(path, f"{found}; expected {expected}")
    return number
