"""`orchestrate calibrate`: measure on this machine what stages cost, so that `plan` and `check` need not guess."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import report
from orchestrator.build import card_names, task_overrides
from orchestrator.calibration import kept
from orchestrator.calibration.job import Calibrating, Scale
from orchestrator.errors import ConfigError
from orchestrator.pipeline import Pipeline
from orchestrator.tasks.progress import ProgressBars, say_building
from orchestrator.words import given_config_dirs

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: DictConfig, output: Path | None) -> None:
    """Measure, keep what was measured below the storage root, and print it."""
    if cfg.format.name == "trec":
        raise ConfigError("format", "found trec; calibrate ranks no documents. Choices: table, json")
    seconds = cfg.task.seconds
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 60:
        raise ConfigError("task.seconds", f"found {seconds!r}; expected a number above 0, at most 60")
    words = task_overrides()
    with Pipeline.from_config(cfg) as own, ProgressBars() as progress:
        job = Calibrating(words, given_config_dirs(), card_names(), Scale(seconds), progress, say_building)
        found = job.run(own, [word for word in words if word.lstrip("+~").startswith(("corpus", "storage"))])
        path = kept.write(own.storage_root, found)
    if cfg.format.name == "json":
        sys.stdout.write(path.read_text(encoding="utf-8"))
        return
    console = report.console()
    for shown in report.calibration_report(found, job.timed.missing):
        console.print(shown)
    if output is not None:
        report.throughput_chart(found, output / "throughput.svg")
    if job.timed.cost_usd:
        console.print(f"- services took {job.timed.cost_usd:.4f} US dollars for it", markup=False)
    console.print(f"kept in {path}", markup=False, soft_wrap=True)
