"""A compact record of every evaluation, by which `plan` corrects what is published: each query at each stage."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from orchestrator import storage
from orchestrator.log import get_logger
from orchestrator.stage import Json

log = get_logger()

FOLDER = "evaluations"
MEASURE = "nDCG@10"
"""The one measure that published figures are compared by."""
_FORMAT = 1
_MOST = 100
"""Records of one corpus; beyond it the oldest go."""
_DIGITS = 4


@dataclass(frozen=True)
class StageRecord:
    """One stage of an evaluated pipeline.

    Attributes:
        name: in the pipeline.
        kind: `recall`, `fusion` or `rerank`.
        cost_kind: as its cost is reckoned; None where its class says nothing.
        top_k: how many it passed on.
        inputs: the stages it read.
        mark: what tells it from others, see `stage_marks`.
        model: what runs in it, for people; empty where nothing does.
        values: query id -> nDCG@10 of its uncut ranking, as if the pipeline ended there; queries that it, or a stage
            before it, learned from are left out.
    """

    name: str
    kind: str
    cost_kind: str | None
    top_k: int
    inputs: tuple[str, ...]
    mark: str
    model: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation.

    Attributes:
        content_hash: of the documents.
        split: of the judgements.
        when: ISO 8601, UTC, to the second.
        measure: what `values` of the stages are.
        overrides: words that made the pipeline.
        stages: in the order of the graph.
        latency_ms: `p50` and `p95` of the whole, one query at a time; empty where it was not timed.
        stages_ms: the same of each stage.
        host: name of the machine that it was timed on.
        topics: hash of the questions and the judgements.
    """

    content_hash: str
    split: str
    when: str
    measure: str
    overrides: tuple[str, ...]
    stages: tuple[StageRecord, ...]
    latency_ms: Mapping[str, float]
    stages_ms: Mapping[str, Mapping[str, float]]
    host: str
    topics: str = ""

    @property
    def key(self) -> str:
        """The file it is kept in: one a stack, so that a stack evaluated again replaces what it said before."""
        parts: list[Json] = [[stage.mark, stage.top_k] for stage in self.stages]
        return storage.stable_hash([self.content_hash, self.split, self.measure, parts])

    def stage(self, name: str) -> StageRecord:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)


class KeptEvaluations:
    """The records of one corpus.

    Args:
        root: where state lives.
        corpus: its key, as folders are named by it.
    """

    def __init__(self, root: Path, corpus: str) -> None:
        self.folder = root / FOLDER / corpus

    def keep(self, record: EvaluationRecord) -> None:
        """Write `record`, whole or not at all; a folder that cannot be written is told, and no reason to fail."""
        content = json.dumps({"format": _FORMAT, **asdict(record)}, ensure_ascii=False, separators=(",", ":"))
        try:
            storage.write_atomic(self.folder / f"{record.key}.json", content + "\n")
            for path in self._newest_first()[_MOST:]:
                path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("evaluation.not_kept", folder=str(self.folder), error=str(error))

    def read(self) -> list[EvaluationRecord]:
        """All that can be read, the last one first."""
        found = [record for path in self._newest_first() if (record := read_record(path)) is not None]
        return sorted(found, key=lambda record: record.when, reverse=True)

    def _newest_first(self) -> list[Path]:
        found = ((_written(path), path.name, path) for path in self.folder.glob("[!.]*.json"))
        return [path for *_, path in sorted(found, reverse=True)]


def _written(path: Path) -> float:
    """When, in seconds; 0 where another process has removed it since it was listed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def read_record(path: Path) -> EvaluationRecord | None:
    """The record in `path`; None where it is damaged, of another version, or gone since it was listed."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") == _FORMAT:
            stages = tuple(_stage(stage) for stage in content.pop("stages"))
            return EvaluationRecord(**{**content, "overrides": tuple(content["overrides"]), "stages": stages})
    if path.exists():
        log.warning("evaluation.unreadable", file=str(path))
    return None


def _stage(content: dict[str, Any]) -> StageRecord:
    known = {field.name: content[field.name] for field in fields(StageRecord)}
    values = {str(query_id): float(value) for query_id, value in content["values"].items()}
    if not all(map(math.isfinite, values.values())):
        raise ValueError("a value is no number")
    return StageRecord(**{**known, "inputs": tuple(content["inputs"]), "values": values})


def rounded(values: Mapping[str, float], without: Sequence[str] | frozenset[str] = ()) -> dict[str, float]:
    """`values` as they are kept: to four digits, some queries left out."""
    return dict(_rounded(values, frozenset(without)))


def _rounded(values: Mapping[str, float], without: frozenset[str]) -> Iterator[tuple[str, float]]:
    for query_id, value in values.items():
        if query_id not in without:
            yield query_id, round(value, _DIGITS)
