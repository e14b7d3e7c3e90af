"""From times to a row of the cost model: a line that half of the times lie above, and how far off it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from orchestrator.costs.cost import Load, StageCost
from orchestrator.types import Scores

_FEATURES: Mapping[str, tuple[str, ...]] = {
    "bm25": ("fixed_ms", "ms_per_document", "ms_per_result"),
    "dense": ("fixed_ms", "ms_per_document", "ms_per_result"),
    "embed": ("fixed_ms", "ms_per_token"),
    "fusion": ("fixed_ms", "ms_per_document"),
    "bi_encoder": ("fixed_ms", "ms_per_document"),
    "late_interaction": ("fixed_ms", "ms_per_query_token", "ms_per_document", "ms_per_token"),
    "around": ("fixed_ms", "ms_per_document", "ms_per_result"),
}
_OTHERS = ("fixed_ms", "ms_per_document", "ms_per_token")
_LOADS = {
    "ms_per_document": "documents",
    "ms_per_token": "tokens",
    "ms_per_query_token": "query_tokens",
    "ms_per_result": "results",
}
_ROUNDS = 30
_FOLDS = 5
_MOST_FACTOR = 5.0
"""Of p95 over p50: beyond it something else than the stage was measured."""


@dataclass(frozen=True, slots=True)
class Point:
    """One time: what a stage was given, and the milliseconds it took."""

    load: Load
    ms: float


def fit(
    kind: str,
    model: str | None,
    points: Sequence[Point],
    source: str,
    settings: Mapping[str, str | int] = MappingProxyType({}),
) -> StageCost:
    """The row of `kind` that half of `points` lie above, with how far off it is.

    Coefficients are not negative and minimise the sum of relative absolute errors: least absolute deviations, by
    iteratively reweighted non-negative least squares (Lawson and Hanson's NNLS, 1974; the weights of Schlossmacher,
    JASA 68, 1973), so that a wild time counts no more than another. `error` is the median relative error of times that
    a row fitted to the other four fifths has not seen.

    Args:
        kind: of the stage.
        model: its name, or None.
        points: two at least.
        source: in words, how they were measured.
        settings: of the stage that was measured.
    """
    names = _FEATURES.get(kind, _OTHERS)
    inputs, times = _matrix(names, points), np.array([point.ms for point in points])
    found = _least_deviations(inputs, times)
    ratios = times / np.maximum(inputs @ found, 1e-6)
    factor = float(np.clip(np.quantile(ratios, 0.95), 1.0, _MOST_FACTOR))
    figures = {name: float(value) for name, value in zip(names, found, strict=True)}
    return StageCost(
        kind, source, model, **figures, p95_factor=factor, error=_error(inputs, times), settings=dict(settings)
    )


def _matrix(names: Sequence[str], points: Sequence[Point]) -> Scores:
    columns = [
        [1.0 if name == "fixed_ms" else float(getattr(point.load, _LOADS[name])) for point in points] for name in names
    ]
    return np.array(columns).T


def _least_deviations(inputs: Scores, times: Scores) -> Scores:
    """float64 [n_columns], not negative."""
    from scipy.optimize import nnls

    relative = inputs / times[:, None]
    scale = np.maximum(relative.max(axis=0), 1e-12)
    weights = np.ones(len(times))
    for _ in range(_ROUNDS):
        found, _ = nnls(relative / scale * weights[:, None], weights)
        weights = 1 / np.sqrt(np.maximum(np.abs(relative / scale @ found - 1), 1e-3))
    result: Scores = found / scale
    return result


def _error(inputs: Scores, times: Scores) -> float:
    """Median over all times of |predicted - measured| / measured, each predicted from the others."""
    fold = np.arange(len(times)) % _FOLDS
    errors: list[float] = []
    for left_out in range(_FOLDS):
        seen, asked = fold != left_out, fold == left_out
        if seen.any() and asked.any():
            found = _least_deviations(inputs[seen], times[seen])
            errors += (np.abs(inputs[asked] @ found - times[asked]) / times[asked]).tolist()
    return float(np.median(errors)) if errors else 0.0
