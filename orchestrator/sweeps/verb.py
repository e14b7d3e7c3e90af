"""Runs a verb: what Hydra calls for a run, or for every job of a sweep, and how a job ends.

Sweepers and launchers, Hydra's and others, work as they are: all they share with this module is the sweep's folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import log
from orchestrator.config import schema
from orchestrator.config.failure import Failure, failure_of
from orchestrator.config.words import NO_FOLDER
from orchestrator.errors import OrchestratorError
from orchestrator.jobs import (
    Job,
    SoFar,
    Value,
    current_job,
    failure_json,
    read_outcomes,
    read_plan,
    so_far,
    write_outcome,
)
from orchestrator.sweeps.sweep_progress import SweepProgress, about, reused

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from orchestrator.deciding.decide import Decision

_WARM_MODELS = 3  # an embedder and two rerankers: the longest of the shipped pipelines
_logger = log.get_logger()


class JobFailedError(Exception):
    """Tells Hydra that a job failed, after the user was told. Plain, so that it travels between processes."""


@dataclass
class Task:
    """The function that Hydra calls for a run, or for every job of a sweep, in this process or another.

    Attributes:
        full_errors: whether a failed job of a sweep shows where it happened.
        decision: what `+scenario=auto` of a single run has become; told before the run.
        failed: the error of a single run: raised here, Hydra would put a line of its own before our message.
    """

    full_errors: bool = False
    decision: Decision | None = None
    failed: list[OrchestratorError] = field(default_factory=list)

    def __call__(self, cfg: DictConfig) -> Value | None:
        """Run the verb; returns what a sweeper optimises."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        log.configure(cfg.log.level.name, json=cfg.log.json)
        if HydraConfig.get().mode == RunMode.RUN:
            try:
                return _run_verb(cfg, self.decision)
            except OrchestratorError as error:
                self.failed.append(error)
                return None
        return self._run_job(cfg, Path(HydraConfig.get().sweep.dir).absolute())

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In another process, what the command line registers has to be registered again."""
        schema.register()
        self.__dict__.update(state)

    def _run_job(self, cfg: DictConfig, sweep: Path) -> Value | None:
        from hydra.core.hydra_config import HydraConfig

        from orchestrator.models import keep_loaded

        keep_loaded(_WARM_MODELS)
        hydra = HydraConfig.get()
        job = Job(int(hydra.job.num), tuple(hydra.overrides.task))
        folder, planned = Path(hydra.runtime.output_dir), hydra.sweeper.get("n_trials")
        started = time.perf_counter()

        def end(failure: Failure | None) -> None:
            end_job(sweep, folder, job, time.perf_counter() - started, failure, cfg.format.name, planned)

        tokens = current_job.set(job), so_far.set(_so_far(sweep, planned))
        try:
            value = _run_verb(cfg)
        except BrokenPipeError:  # whoever read has seen enough: no other job is wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        except Exception as error:  # noqa: BLE001 - whatever it was, the other jobs run
            end(failure_of(error))
            if self.full_errors:
                sys.excepthook(type(error), error, error.__traceback__)
            raise JobFailedError(str(error)) from None
        finally:
            current_job.reset(tokens[0])
            so_far.reset(tokens[1])
        end(None)
        return value


def _so_far(sweep: Path, planned: int | None) -> SoFar | None:
    """How far the sweep is, for the bar of the job that begins; None where nobody looks or nobody knows."""
    if not sys.stderr.isatty():
        return None
    progress = SweepProgress.of(read_outcomes(sweep), read_plan(sweep), planned)
    return SoFar(len(progress.outcomes), progress.planned, progress.line) if progress.planned else None


def _run_verb(cfg: DictConfig, decision: Decision | None = None) -> Value | None:
    from hydra.core.hydra_config import HydraConfig

    from orchestrator.auto import decide_job, say
    from orchestrator.tasks import run_task

    output = None if cfg.task.verb in NO_FOLDER else Path(HydraConfig.get().runtime.output_dir)
    if cfg.need.auto and cfg.task.verb != "plan":  # a job of a sweep: each decides for itself
        cfg, decision = decide_job(cfg, output)
    if decision is not None:
        say(decision, output)
    return run_task(cfg, output)


def end_job(
    sweep: Path,
    folder: Path,
    job: Job,
    seconds: float,
    failure: Failure | None,
    form: str,
    planned: int | None = None,
) -> None:
    """Keep how a job ended, and say so in one line on stderr; a failure also on stdout where that is to hold JSON.

    Args:
        sweep: the sweep's folder.
        folder: the job's.
        job: which one.
        seconds: how long it took.
        failure: why it failed, or None.
        form: `format` of the configuration.
        planned: how many jobs there will be, where the sweep's folder does not tell.
    """
    write_outcome(folder, job, seconds, failure)
    if failure is not None and form == "json":
        line = {"job": job.num, "overrides": list(job.overrides), "error": failure_json(failure)}
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    progress = SweepProgress.of(read_outcomes(sweep), read_plan(sweep), planned)
    swept = progress.table.describe(job)
    facts: dict[str, object] = {"job": progress.done, "swept": swept, "seconds": round(seconds, 1)}
    facts |= {"left": about(progress.left_s)} if progress.left_s else {}
    if failure is not None:
        _logger.warning("sweep.job_failed", **facts, reason=failure.reason)
        return
    _logger.info("sweep.job", **facts, **_figures(job, progress))


def _figures(job: Job, progress: SweepProgress) -> dict[str, object]:
    """What a job found, beside the best so far, and how much of it earlier jobs had done."""
    mine = [outcome for outcome in progress.outcomes if outcome.job.num == job.num]
    n_reused, n_asked = reused(mine)
    shared: dict[str, object] = {"reused": f"{n_reused / n_asked:.0%}"} if n_asked else {}
    if progress.measure is None or not mine:
        return shared
    return {
        progress.measure: _rounded(progress.value(mine[0])),
        "best_so_far": _rounded(progress.best),
        **shared,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
