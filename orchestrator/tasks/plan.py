"""`orchestrate plan latency_ms=150`: the stack for a budget, what it should cost, why, and why not the others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import report
from orchestrator.build import task_overrides
from orchestrator.errors import ConfigError
from orchestrator.planning import decide_for, need_of, scenario_yaml
from orchestrator.words import given_flags

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: DictConfig, output: Path | None) -> None:
    """Print the decision for `cfg.need`. Nothing is loaded and nothing is run."""
    if cfg.format.name == "trec":
        raise ConfigError("format", "found trec; plan ranks no documents. Choices: table, json")
    decision = decide_for(cfg, task_overrides(), given_flags())
    if cfg.format.name == "json":
        sys.stdout.write(json.dumps(report.decision_json(decision), ensure_ascii=False) + "\n")
        return
    console = report.console()
    console.print(report.need_line(need_of(cfg)), markup=False)
    console.print(report.choice_table(decision.choice))
    console.print("\nto run it:", style="bold")
    console.print(f"{decision.choice.command}\n", markup=False, soft_wrap=True)
    console.print("the same as my_conf/scenario/mine.yaml:", style="bold")
    console.print(scenario_yaml(decision), markup=False, soft_wrap=True)
    console.print(report.rejected_table(decision))
