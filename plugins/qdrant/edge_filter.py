"""A checked filter as Qdrant Edge's own objects, which take no JSON (0.9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import qdrant_edge as edge

# Any: the stub of qdrant_edge names none of the unions that its constructors take.


def edge_filter(checked: Mapping[str, Any]) -> edge.Filter:
    """The filter that `checked_filter` returned, for Edge."""
    import qdrant_edge as edge

    clauses: dict[str, Any] = {
        name: _conditions(checked[name]) for name in ("must", "should", "must_not") if name in checked
    }
    least = checked.get("min_should")
    if least is None:
        return edge.Filter(**clauses)
    counted = edge.MinShould(_conditions(least["conditions"]), least["min_count"])
    return edge.Filter(**clauses, min_should=counted)


def _conditions(checked: list[Any]) -> list[Any]:
    return [_condition(condition) for condition in checked]


def _condition(checked: Mapping[str, Any]) -> Any:
    import qdrant_edge as edge

    if "key" in checked:
        name = next(name for name in checked if name != "key")
        value = _FIELD[name](checked[name])
        return edge.FieldCondition(checked["key"], **{name: value})
    makers: dict[str, Callable[[Any], Any]] = {
        "is_empty": lambda value: edge.IsEmptyCondition(value["key"]),
        "is_null": lambda value: edge.IsNullCondition(value["key"]),
        "has_id": lambda value: edge.HasIdCondition(set(value)),
        "has_vector": edge.HasVectorCondition,
        "nested": lambda value: edge.NestedCondition(value["key"], edge_filter(value["filter"])),
    }
    for name, make in makers.items():
        if name in checked:
            return make(checked[name])
    return edge_filter(checked)


def _match(checked: Mapping[str, Any]) -> Any:
    import qdrant_edge as edge

    ((name, value),) = checked.items()
    if name == "value" and isinstance(value, bool):
        # Edge 0.9 takes a bool of Python's for the number 0 or 1, which matches no true and no false; numpy's it knows.
        return edge.MatchValue(np.bool_(value))  # type: ignore[arg-type]
    makers: dict[str, Callable[[Any], Any]] = {
        "value": edge.MatchValue,
        "any": edge.MatchAny,
        "except": edge.MatchExcept,
        "text": edge.MatchText,
        "text_any": edge.MatchTextAny,
        "phrase": edge.MatchPhrase,
        "prefix": edge.MatchPrefix,
        "substring": edge.MatchSubstring,
    }
    return makers[name](value)


def _range(checked: Mapping[str, Any]) -> Any:
    import qdrant_edge as edge

    moments = isinstance(next(iter(checked.values())), str)
    return edge.RangeDateTime(**checked) if moments else edge.RangeFloat(**checked)


def _values_count(checked: Mapping[str, Any]) -> Any:
    import qdrant_edge as edge

    return edge.ValuesCount(**checked)


def _point(checked: Mapping[str, Any]) -> Any:
    import qdrant_edge as edge

    return edge.GeoPoint(checked["lon"], checked["lat"])


def _box(checked: Mapping[str, Any]) -> Any:
    import qdrant_edge as edge

    return edge.GeoBoundingBox(_point(checked["top_left"]), _point(checked["bottom_right"]))


def _radius(checked: Mapping[str, Any]) -> Any:
    import qdrant_edge as edge

    return edge.GeoRadius(_point(checked["center"]), checked["radius"])


def _polygon(checked: Mapping[str, Any]) -> Any:
    import qdrant_edge as edge

    rings = [[_point(point) for point in ring["points"]] for ring in checked.get("interiors", [])]
    return edge.GeoPolygon([_point(point) for point in checked["exterior"]["points"]], rings or None)


def _same(checked: bool) -> bool:
    return checked


_FIELD: dict[str, Callable[[Any], Any]] = {
    "match": _match,
    "range": _range,
    "geo_bounding_box": _box,
    "geo_radius": _radius,
    "geo_polygon": _polygon,
    "values_count": _values_count,
    "is_empty": _same,
    "is_null": _same,
}
