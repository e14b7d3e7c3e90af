"""`orchestrate plan latency_ms=150`: the stack for a budget, what it should cost, why, and why not the others."""

from __future__ import annotations

import json
import sys
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import report, storage
from orchestrator.config.job import plain, task_overrides, yaml_text
from orchestrator.config.words import given_config_dirs, given_flags, given_search_paths, value_of
from orchestrator.deciding.planning import decide_for
from orchestrator.deciding.scenario_file import GROUP, Place, body_of, place_of, scenario_of, scenario_text
from orchestrator.errors import ConfigError
from orchestrator.tasks.flags import flag

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from orchestrator.deciding.decide import Decision


def run(cfg: DictConfig, output: Path | None) -> None:
    """Print the decision for `cfg.need`, and save it where `task.save` says. No model is loaded and nothing is run."""
    if cfg.format.name == "trec":
        raise ConfigError("format", "found trec; plan ranks no documents. Choices: table, json")
    place = _place(cfg)
    decision = decide_for(cfg, task_overrides(), given_flags())
    if place is not None:
        _save(cfg, decision, place)
    if cfg.format.name == "json":
        saved = {} if place is None else {"saved": {"file": str(place.file), "command": place.command}}
        sys.stdout.write(json.dumps({**report.decision_json(decision), **saved}, ensure_ascii=False) + "\n")
        return
    _print(decision, place)


def _place(cfg: DictConfig) -> Place | None:
    flag(cfg, "overwrite")
    if cfg.task.save is None:
        return None
    shipped = [file.name.removesuffix(".yaml") for file in files("orchestrator.conf").joinpath(GROUP).iterdir()]
    folders = [*map(_as_typed, given_config_dirs()), *given_search_paths()]
    return place_of(str(plain(cfg.task)["save"]), folders, shipped)


def _as_typed(folder: Path) -> Path:
    """Hydra tells whole paths; below this folder the short one is what a person typed."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _save(cfg: DictConfig, decision: Decision, place: Place) -> None:
    """Write the choice as a scenario; one that says the same is left as it is.

    Raises:
        ConfigError: another one is there, or the folder cannot be written.
    """
    choice = decision.choice
    body = yaml_text(scenario_of(choice, {word: value_of(word) for word in choice.overrides}))
    try:
        if place.file.exists() and not cfg.task.overwrite:
            if body_of(place.file.read_text(encoding="utf-8")) == body:
                return
            raise ConfigError("task.save", f"{place.file} is there and says something else; overwrite=true replaces it")
        storage.write_atomic(place.file, scenario_text(body, place, choice, date.today().isoformat()))
    except OSError as error:
        raise ConfigError("task.save", f"cannot write {place.file} ({error.strerror or error})") from error


def _print(decision: Decision, place: Place | None) -> None:
    console = report.console()
    console.print(report.need_line(decision.need), markup=False)
    console.print(report.candidates_table(decision))
    console.print(report.reasons_table(decision.choice))
    console.print("\nto run it:", style="bold")
    console.print(decision.choice.command, markup=False, soft_wrap=True)
    if place is None:
        console.print("save=my.yaml writes it as a scenario of your own\n", markup=False)
    else:
        console.print(f"\nsaved as {place.file}, which runs as it stands:", markup=False, soft_wrap=True)
        console.print(f"{place.command}\n", markup=False, soft_wrap=True)
    console.print(report.rejected_table(decision))
