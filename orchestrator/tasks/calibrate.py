"""`orchestrate calibrate`: measure on this machine what stages cost, so that `plan` and `check` need not guess."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import report
from orchestrator.calibration.job import Calibrating
from orchestrator.calibration.scale import Scale
from orchestrator.config.job import card_names, plain, yaml_text
from orchestrator.config.words import given_config_dirs
from orchestrator.costs import kept
from orchestrator.errors import ConfigError
from orchestrator.pipeline import Pipeline
from orchestrator.tasks.progress import ProgressBars, say_building

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SLOTS = ("embedder", "reranker", "multi_vector")
"""Under `models`, of those that the stages that everybody has are timed with."""


def run(cfg: DictConfig, output: Path | None) -> None:
    """Measure, keep what was measured below the storage root, and print it."""
    if cfg.format.name == "trec":
        raise ConfigError("format", "found trec; calibrate ranks no documents. Choices: table, json")
    seconds, remotes = cfg.task.seconds, cfg.task.remotes
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 60:
        raise ConfigError("task.seconds", f"found {seconds!r}; expected a number above 0, at most 60")
    if not isinstance(remotes, bool):
        raise ConfigError("task.remotes", f"found {remotes!r}; expected true or false")
    with (
        Pipeline.from_config(cfg) as own,
        ProgressBars() as progress,
        tempfile.TemporaryDirectory(prefix="calibrate-") as folder,
    ):
        words, folders = configured_models(cfg, Path(folder)), [Path(folder), *given_config_dirs()]
        job = Calibrating(words, folders, card_names(), Scale(seconds), progress, say_building, remotes=remotes)
        found = job.run(own)
        path = kept.write(own.storage_root, found)
    timed = job.timed
    if cfg.format.name == "json":
        told = {**json.loads(path.read_text(encoding="utf-8")), "missing": timed.missing, "cost_usd": timed.cost_usd}
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        return
    console = report.console()
    for shown in report.calibration_report(found, timed.missing):
        console.print(shown)
    if output is not None:
        report.throughput_chart(found, output / "throughput.svg")
    if timed.cost_usd:
        console.print(f"- services took {timed.cost_usd:.4f} US dollars for it", markup=False)
    console.print(f"kept in {path}", markup=False, soft_wrap=True)


def configured_models(cfg: DictConfig, folder: Path) -> list[str]:
    """Words that choose the models of `cfg`, whoever set them: the command line, a scenario, a file of the user's own.

    Args:
        cfg: a composed configuration.
        folder: a folder of configs to write their cards into.
    """
    (folder / "model").mkdir(parents=True)
    words = []
    for slot in _SLOTS:
        if cfg.models.get(slot) is not None:
            name = f"configured_{slot}"
            (folder / "model" / f"{name}.yaml").write_text(yaml_text(plain(cfg.models[slot])), encoding="utf-8")
            words.append(f"model@models.{slot}={name}")
    return words
