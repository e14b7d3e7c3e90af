"""One module a verb, each with `run(cfg, output)`; thin, composed of what the rest of the package offers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from orchestrator.jobs import Value


def run_task(cfg: DictConfig, output: Path | None) -> Value | None:
    """Run the verb that `cfg.task.verb` names.

    Args:
        cfg: the composed configuration.
        output: the folder of this run, or None for verbs that keep nothing.

    Returns:
        What a sweeper optimises, for verbs that measure something: one figure or several.
    """
    module = importlib.import_module(f"orchestrator.tasks.{cfg.task.verb}")
    value: Value | None = module.run(cfg, output)
    return value
