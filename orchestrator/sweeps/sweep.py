"""A sweep as a whole: which one this process started, and what is shown and kept when its jobs have ended."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

from orchestrator import log
from orchestrator.config.failure import CONFIG_ERROR, RUN_ERROR
from orchestrator.config.words import NO_FOLDER
from orchestrator.jobs import (
    read_outcomes,
    read_plan,
)
from orchestrator.storage import write_atomic
from orchestrator.study.sweep_table import SweepTable
from orchestrator.sweeps.sweep_progress import reused

if TYPE_CHECKING:
    from omegaconf import DictConfig


COMPARISON_FILE = "comparison.csv"
_LEGEND = "* best of its column; measures of the uncut ranking, 'served' ones of what a job hands out"
_logger = log.get_logger()


@dataclass(frozen=True)
class _Sweep:
    """The sweep that this process has started."""

    folder: Path
    verb: str
    format: str


_started: list[_Sweep] = []


class RememberSweep(Callback):
    """Lets the command line know where a sweep keeps its jobs, whoever runs them."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called by Hydra before any sweeper."""
        folder = Path(config.hydra.sweep.dir).absolute()
        _started.append(_Sweep(folder, config.task.verb, config.format.name))


def forget() -> None:
    """No sweep has been started yet."""
    _started.clear()


def conclude(*, interrupted: bool = False) -> int:
    """Show and keep what the jobs of this process's sweep found.

    Returns:
        0; 1 when a job failed; 2 when every job failed and each by a mistake in its configuration.
    """
    from orchestrator.models import keep_loaded

    keep_loaded(0)
    if not _started:
        return 0
    sweep = _started[0]
    outcomes, plan = read_outcomes(sweep.folder), read_plan(sweep.folder)
    if not outcomes:
        return 0
    failed = [outcome.failure for outcome in outcomes if outcome.failure]
    if sweep.verb == "evaluate" or any(outcome.figures for outcome in outcomes):
        _show(sweep, SweepTable.of(outcomes, plan))
    if sweep.verb not in NO_FOLDER or failed or interrupted:
        planned = f" of {len(plan)}" if plan else ""
        folder = {} if sweep.verb in NO_FOLDER else {"folder": str(sweep.folder)}
        n_reused, n_asked = reused(outcomes)
        shared = {"reused": f"{n_reused:,} of {n_asked:,} stage results"} if n_asked else {}
        _logger.info("sweep.done", jobs=f"{len(outcomes)}{planned}", failed=len(failed), **shared, **folder)
    if not failed:
        return 0
    mistakes = len(failed) == len(outcomes) and all(failure.exit_code == CONFIG_ERROR for failure in failed)
    return CONFIG_ERROR if mistakes else RUN_ERROR


def _show(sweep: _Sweep, table: SweepTable) -> None:
    if sweep.verb not in NO_FOLDER:
        write_atomic(sweep.folder / COMPARISON_FILE, table.csv())
        _logger.info("sweep.comparison", file=str(sweep.folder / COMPARISON_FILE))
    if sweep.format == "table":
        sys.stdout.write(f"\n{table.text()}\n{_LEGEND}\n")
