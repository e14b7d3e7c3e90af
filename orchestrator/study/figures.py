"""What `evaluate` left in metrics.json and per_query.json, of this version or an older one that told less."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import DataError
from orchestrator.jobs import METRICS_FILE

PER_QUERY_FILE = "per_query.json"
_EXPECTED = "expected what `orchestrate evaluate` writes"

Values = Mapping[str, float]
"""Measure, stage or percentile -> its value."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one configuration. What its folder does not tell is empty, or None.

    Attributes:
        metrics: measure -> mean over the queries, of the uncut ranking.
        served: the same of what is handed out.
        baselines: stage -> measure -> mean, as if the pipeline ended there.
        intervals: measure -> lower and upper end of the 95 % interval of its mean.
        oracle: measure -> mean of the best possible order of all recalled candidates.
        null_stage: the stage before the first rerank; None where nothing reranks.
        null: measure -> mean of the ranking of that stage.
        unjudged: depth -> share of the first documents that nobody judged.
        latency_ms: `p50`, `p95`, `p99` of a question.
        stage_latency_ms: stage -> the same.
        tokens: a question.
        usd: a question.
        stage_tokens: stage -> tokens a question.
        stage_usd: stage -> US dollars a question.
        words: sentences about stages that do not earn their place.
        n_queries: how many queries were judged.
        whole: share of the answers in which no stage left anything out.
        corpus: `name`, `content_hash` and `split` of the documents.
    """

    metrics: Values
    served: Values = field(default_factory=dict)
    baselines: Mapping[str, Values] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    oracle: Values = field(default_factory=dict)
    null_stage: str | None = None
    null: Values = field(default_factory=dict)
    unjudged: Values = field(default_factory=dict)
    latency_ms: Values = field(default_factory=dict)
    stage_latency_ms: Mapping[str, Values] = field(default_factory=dict)
    tokens: float | None = None
    usd: float | None = None
    stage_tokens: Values = field(default_factory=dict)
    stage_usd: Values = field(default_factory=dict)
    words: tuple[str, ...] = ()
    n_queries: int = 0
    whole: float | None = None
    corpus: Mapping[str, str] = field(default_factory=dict)


def read_figures(folder: Path) -> Figures | None:
    """The figures that lie in `folder`; None where there are none.

    Raises:
        DataError: the file is damaged, or holds something else.
    """
    path = folder / METRICS_FILE
    content = _read_object(path) if path.is_file() else None
    if content is None:
        return None
    try:
        return _figures(content)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(str(path), None, f"{_EXPECTED}, found {error!r}") from error


def _figures(content: Mapping[str, Any]) -> Figures:
    stages, null = content.get("stages") or {}, content.get("null") or {}
    whole = (content.get("work") or {}).get("whole")
    return Figures(
        _values(content["metrics"]),
        _values(content.get("served")),
        {str(stage): _values(values) for stage, values in (content.get("baselines") or {}).items()},
        {name: (float(ends[0]), float(ends[1])) for name, ends in (content.get("intervals") or {}).items()},
        _values(content.get("oracle")),
        null.get("stage"),
        _values(null.get("metrics")),
        _values(content.get("unjudged")),
        _values(content.get("latency_ms")),
        {stage: _values(times) for stage, times in (content.get("stage_latency_ms") or {}).items()},
        _number(content.get("tokens_per_query")),
        _number(content.get("cost_usd_per_query")),
        _values({stage: spent.get("tokens_per_query") for stage, spent in stages.items()}),
        _values({stage: spent.get("cost_usd_per_query") for stage, spent in stages.items()}),
        tuple(map(str, content.get("words") or ())),
        int(content.get("n_queries") or 0),
        _number(whole),
        {key: str(value) for key, value in (content.get("corpus") or {}).items()},
    )


def _values(found: Mapping[str, Any] | None) -> dict[str, float]:
    return {str(name): float(value) for name, value in (found or {}).items() if value is not None}


def _number(found: float | None) -> float | None:
    return None if found is None else float(found)


def read_per_query(folder: Path) -> dict[str, dict[str, float]]:
    """Query id -> measure -> value, of the uncut ranking; empty where the folder has no such file.

    Raises:
        DataError: the file is damaged, or holds something else.
    """
    path = folder / PER_QUERY_FILE
    if not path.is_file():
        return {}
    try:
        return {query_id: _values(values) for query_id, values in _read_object(path).items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(str(path), None, f"{_EXPECTED}, found {error!r}") from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(str(path), None, f"no JSON ({error}); {_EXPECTED}") from error
    if not isinstance(content, dict):
        raise DataError(str(path), None, f"found a {type(content).__name__}; {_EXPECTED}")
    return content
