"""Payload filters in Qdrant's own shape, checked without Qdrant: https://qdrant.tech/documentation/search/filtering/.

filter:
  must:
    - {key: year, range: {gte: 2015}}
    - {key: source, match: {any: [NIHSeniorHealth, GARD]}}
  must_not:
    - {is_empty: {key: year}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

from orchestrator.errors import ConfigError
from orchestrator.stage import Json

from .checks import Check, boolean, checked, fields, listed, moment, number, one_of, text, whole

Filter: TypeAlias = dict[str, Json]
"""A filter that `checked_filter` let through: JSON as Qdrant's REST interface takes it."""

DOC_ID = "doc_id"
"""The payload field in which an index of ours keeps a document's id."""

_LISTS = ("must", "should", "must_not")
_CLAUSES = (*_LISTS, "min_should")
_ALONE = ("is_empty", "is_null", "has_id", "has_vector", "nested")
_HOLDERS = (*_CLAUSES, "conditions", "nested", "filter", "is_empty", "is_null")
"""Keys of a condition under which more conditions, or fields, stand."""
_BOUNDS = ("lt", "gt", "lte", "gte")


def checked_filter(path: str, value: object) -> Filter:
    """`value` as JSON in Qdrant's shape: single conditions in lists, times in UTC, nothing else changed.

    Args:
        path: where it stands in the YAML, for messages.
        value: a mapping with any of must, should, must_not, min_should.

    Raises:
        ConfigError: something in it is no filter of Qdrant's; says where, what was expected, and the choices.
    """
    return _filter(path, value, in_nested=False)


def filtered_fields(path: str, condition: object, inside: str = "") -> dict[str, str]:
    """Where a filter names a payload field -> the field, dotted where it is nested."""
    if isinstance(condition, list):
        parts = [filtered_fields(f"{path}[{place}]", part, inside) for place, part in enumerate(condition)]
        return {key: name for part in parts for key, name in part.items()}
    if not isinstance(condition, Mapping):
        return {}
    key = condition.get("key")
    named = f"{inside}{str(key).replace('[]', '')}"
    found = {f"{path}.key": named} if isinstance(key, str) else {}
    within = f"{named}." if isinstance(key, str) and "filter" in condition else inside
    below = {name: value for name, value in condition.items() if name in _HOLDERS}
    for name, value in below.items():
        found |= filtered_fields(f"{path}.{name}", value, within)
    return found


def ids_as_payload(condition: Filter) -> Filter:
    """The same filter with `has_id` asked of the payload: in an index of ours an id is a document's id."""
    return cast(Filter, _rewritten(condition))


def _rewritten(value: Json) -> Json:
    if isinstance(value, Mapping):
        if set(value) == {"has_id"}:
            return {"key": DOC_ID, "match": {"any": [str(doc_id) for doc_id in cast(list[Json], value["has_id"])]}}
        return {key: _rewritten(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rewritten(item) for item in value]
    return value


def _filter(path: str, value: object, in_nested: bool) -> Filter:
    given = fields(path, value, _CLAUSES)
    if not given:
        raise ConfigError(path, f"is empty; expected any of {', '.join(_CLAUSES)}, or null for no filter")
    found: Filter = {name: _conditions(f"{path}.{name}", given[name], in_nested) for name in _LISTS if name in given}
    if "min_should" in given:
        found["min_should"] = _min_should(f"{path}.min_should", given["min_should"], in_nested)
    return found


def _min_should(path: str, value: object, in_nested: bool) -> Json:
    names = ("conditions", "min_count")
    given = fields(path, value, names, required=names)
    conditions = _conditions(f"{path}.conditions", given["conditions"], in_nested)
    return {"conditions": conditions, "min_count": whole(1)(f"{path}.min_count", given["min_count"])}


def _conditions(path: str, value: object, in_nested: bool) -> list[Json]:
    if isinstance(value, Mapping):
        return [_condition(path, value, in_nested)]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ConfigError(path, f"found {value!r}; expected a list of conditions")
    return [_condition(f"{path}[{place}]", item, in_nested) for place, item in enumerate(value)]


def _condition(path: str, value: object, in_nested: bool) -> Json:
    if isinstance(value, Mapping) and value and set(map(str, value)) <= set(_CLAUSES):
        return _filter(path, value, in_nested)
    if isinstance(value, Mapping) and "key" in value:
        return _field(path, value)
    given = fields(path, value, ("key", *_ALONE, *_CLAUSES))
    if len(given) != 1 or not set(given) <= set(_ALONE):
        expected = f"expected a condition: key with one of {', '.join(_FIELD)}; or one of {', '.join(_ALONE)}"
        raise ConfigError(path, f"found {', '.join(given) or 'nothing'}; {expected}; or a filter")
    if in_nested and ("has_id" in given or "has_vector" in given):
        raise ConfigError(path, "stands in a nested filter, whose objects have neither id nor vector; move it out")
    return one_of(path, given, _CONDITION)


def _field(path: str, value: Mapping[object, object]) -> Json:
    given = fields(path, value, ("key", *_FIELD))
    condition = {name: item for name, item in given.items() if name != "key"}
    return {"key": text(f"{path}.key", given.get("key")), **one_of(path, condition, _FIELD)}


def _nested(path: str, value: object) -> Json:
    given = fields(path, value, ("key", "filter"), required=("key", "filter"))
    return {
        "key": text(f"{path}.key", given["key"]),
        "filter": _filter(f"{path}.filter", given["filter"], in_nested=True),
    }


def _payload_field(path: str, value: object) -> Json:
    return checked(path, value, {"key": text}, required=("key",))


def _id(path: str, value: object) -> Json:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ConfigError(path, f"found {value!r}; expected an id")
    return value


def _exact(path: str, value: object) -> Json:
    if not isinstance(value, str | int):
        hint = " (a number with a point is matched by a range)" if isinstance(value, float) else ""
        raise ConfigError(path, f"found {value!r}; expected a text, a whole number, true or false{hint}")
    return value


def _any(path: str, value: object) -> Json:
    values = cast(list[Json], listed(_id)(path, value))
    if len({type(item) for item in values}) > 1:
        raise ConfigError(path, f"found {value!r}; expected texts only or whole numbers only")
    return values


def _match(path: str, value: object) -> Json:
    return one_of(path, value, _MATCH)


def _range(path: str, value: object) -> Json:
    """Numbers or moments, as the first bound says."""
    given = fields(path, value, _BOUNDS)
    if not given:
        raise ConfigError(path, f"has no bound; expected any of {', '.join(_BOUNDS)}")
    numeric = isinstance(next(iter(given.values())), int | float)
    return checked(path, given, dict.fromkeys(_BOUNDS, number() if numeric else moment))


def _values_count(path: str, value: object) -> Json:
    given = checked(path, value, dict.fromkeys(_BOUNDS, whole()))
    if not given:
        raise ConfigError(path, f"has no bound; expected any of {', '.join(_BOUNDS)}")
    return given


def _point(path: str, value: object) -> Json:
    return checked(path, value, {"lon": number(-180, 180), "lat": number(-90, 90)}, required=("lon", "lat"))


def _box(path: str, value: object) -> Json:
    corners: dict[str, Check] = {"top_left": _point, "bottom_right": _point}
    return checked(path, value, corners, required=corners)


def _radius(path: str, value: object) -> Json:
    return checked(path, value, {"center": _point, "radius": number(0)}, required=("center", "radius"))


def _ring(path: str, value: object) -> Json:
    ring = checked(path, value, {"points": listed(_point, least=4)}, required=("points",))
    points = cast(list[Json], ring["points"])
    if points[0] != points[-1]:
        raise ConfigError(f"{path}.points", f"ends at {points[-1]}; expected the first point again, {points[0]}")
    return ring


def _polygon(path: str, value: object) -> Json:
    return checked(path, value, {"exterior": _ring, "interiors": listed(_ring)}, required=("exterior",))


_MATCH: dict[str, Check] = {
    "value": _exact,
    "any": _any,
    "except": _any,
    **dict.fromkeys(("text", "text_any", "phrase", "prefix", "substring"), text),
}
_FIELD: dict[str, Check] = {
    "match": _match,
    "range": _range,
    "geo_bounding_box": _box,
    "geo_radius": _radius,
    "geo_polygon": _polygon,
    "values_count": _values_count,
    "is_empty": boolean,
    "is_null": boolean,
}
_CONDITION: dict[str, Check] = {
    "is_empty": _payload_field,
    "is_null": _payload_field,
    "has_id": listed(_id),
    "has_vector": lambda path, value: value if value == "" else text(path, value),  # "" is the unnamed vector
    "nested": _nested,
}
