"""The jobs of a sweep, as its folder keeps them: what was planned, and how each one ended.

The folder is the whole state, so a job may run in this process or another, and an interrupted sweep loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from orchestrator.config.failure import Failure
from orchestrator.storage import write_atomic

Value: TypeAlias = float | tuple[float, ...]
"""What a sweeper is told of a job: one figure, or several."""
METRICS_FILE = "metrics.json"
"""What a verb that measures leaves in its job's folder: `{"metrics": {...}, "served": {...}, "latency_ms": {...}}`."""
JOB_FILE = "job.json"
PLAN_FILE = "sweep.json"


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a sweep.

    Attributes:
        num: its number, from 0, also the name of its folder.
        overrides: what was typed, with one value each, as Hydra got it.
    """

    num: int
    overrides: tuple[str, ...]


current_job: ContextVar[Job | None] = ContextVar("current_job", default=None)
"""The job that this code runs for; None outside a sweep."""


@dataclass(frozen=True, slots=True)
class SoFar:
    """How far a sweep is when one of its jobs begins.

    Attributes:
        done: jobs that have ended.
        planned: jobs in all.
        line: what else there is to say, in a few words.
    """

    done: int
    planned: int
    line: str


so_far: ContextVar[SoFar | None] = ContextVar("so_far", default=None)
"""Of the sweep that this code runs for, where somebody watches; None elsewhere."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: which one.
        folder: where it keeps what it made, relative to the sweep's folder.
        seconds: how long it took.
        failure: why it failed, or None.
        figures: the content of its metrics.json; empty where it has none.
        ended: when it ended, in seconds since 1970.
    """

    job: Job
    folder: str
    seconds: float = 0.0
    failure: Failure | None = None
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    ended: float = 0.0


def write_plan(sweep: Path, jobs: Sequence[Job]) -> None:
    """Keep what a sweep is going to run."""
    sweep.mkdir(parents=True, exist_ok=True)
    plan = [{"job": job.num, "overrides": list(job.overrides)} for job in jobs]
    write_atomic(sweep / PLAN_FILE, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")


def read_plan(sweep: Path) -> list[Job]:
    """What a sweep was going to run; empty where its sweeper decides that job by job."""
    try:
        plan = json.loads((sweep / PLAN_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [Job(entry["job"], tuple(entry["overrides"])) for entry in plan]


def write_outcome(folder: Path, job: Job, seconds: float, failure: Failure | None) -> None:
    """Keep how a job ended, in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {"job": job.num, "overrides": list(job.overrides), "seconds": round(seconds, 3)}
    if failure is not None:
        content["error"] = failure_json(failure)
        content["trace"] = failure.trace
    write_atomic(folder / JOB_FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def failure_json(failure: Failure) -> dict[str, object]:
    """A failure as job.json and `format=json` show it."""
    return {"message": failure.message, "exit_code": failure.exit_code}


def read_outcomes(sweep: Path) -> list[Outcome]:
    """Every job that has ended, in the order of their numbers."""
    found = [_read_outcome(path, sweep) for path in sweep.rglob(JOB_FILE)]
    return sorted(found, key=lambda outcome: outcome.job.num)


def _read_outcome(path: Path, sweep: Path) -> Outcome:
    content = json.loads(path.read_text(encoding="utf-8"))
    error = content.get("error")
    failure = Failure(error["message"], error["exit_code"], content.get("trace", "")) if error else None
    metrics = path.with_name(METRICS_FILE)
    figures = json.loads(metrics.read_text(encoding="utf-8")) if failure is None and metrics.exists() else {}
    return Outcome(
        Job(content["job"], tuple(content["overrides"])),
        path.parent.relative_to(sweep).as_posix(),
        content["seconds"],
        failure,
        figures,
        path.stat().st_mtime,
    )
