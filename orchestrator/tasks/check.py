"""`orchestrate check`: look for mistakes in the configuration, without loading a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import report
from orchestrator.pipeline import Pipeline

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: DictConfig, output: Path | None) -> None:
    """Print the stages and every finding. A configuration that cannot run raises its error instead."""
    pipeline = Pipeline.from_config(cfg)
    console = report.console()
    console.print(report.graph_table(pipeline.graph))
    findings = pipeline.lint()
    for finding in findings:
        console.print(f"warning: {finding}", style="yellow", markup=False)
    console.print(f"{len(findings)} warning(s)" if findings else "no findings", markup=False)
