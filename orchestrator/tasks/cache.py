"""`orchestrate cache show|prune|clear`: what is kept on disk, and removing it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import report
from orchestrator.checks import check_choice
from orchestrator.config.job import plain
from orchestrator.config.places import storage_root
from orchestrator.errors import ConfigError
from orchestrator.holdings import cleaning_tables
from orchestrator.holdings.cleaning import Limits, Removal, chosen_kinds, clear, prune
from orchestrator.holdings.holdings import LEARNED, holdings
from orchestrator.running.score_cache import check_limits
from orchestrator.running.stage_results import check_stage_limits
from orchestrator.tasks.flags import flag

if TYPE_CHECKING:
    from omegaconf import DictConfig

_ACTIONS = ("show", "prune", "clear")
_USUAL = ("scores", "stages", "vectors")


def run(cfg: DictConfig, output: Path | None) -> None:
    """Do what `task.action` says, and print what there is or what went."""
    _check(cfg)
    root = storage_root(cfg)
    if cfg.task.action == "show":
        _show(cfg, root)
        return
    what = plain(cfg.task.what)
    kinds = chosen_kinds(_USUAL if what is None else what)
    if cfg.task.action == "clear":
        _tell(cfg, root, clear(root, kinds, cfg.task.dry_run))
        return
    of_each = {"scores": cfg.cache.max_mb, "stages": cfg.cache.stages_max_mb}
    limits = Limits(cfg.task.max_mb, cfg.task.older_than_days, of_each, cfg.cache.remote_days)
    _tell(cfg, root, prune(root, kinds, limits, cfg.task.dry_run))


def _show(cfg: DictConfig, root: Path) -> None:
    held = holdings(root)
    if cfg.format.name == "json":
        _print_json(cleaning_tables.holdings_json(root, held))
        return
    console = report.console()
    console.print(f"in {root}", markup=False, soft_wrap=True)
    console.print(cleaning_tables.holdings_table(root, held))
    if any(one.kind in LEARNED for one in held):
        console.print("* never removed by prune or clear", markup=False)


def _tell(cfg: DictConfig, root: Path, gone: list[Removal]) -> None:
    if cfg.format.name == "json":
        _print_json(cleaning_tables.removals_json(root, gone, cfg.task.dry_run))
        return
    console = report.console()
    if gone:
        console.print(cleaning_tables.removals_table(root, gone))
    verb = "would free" if cfg.task.dry_run else "freed"
    freed = cleaning_tables.size(cleaning_tables.freed(gone))
    console.print(f"{verb} {freed} in {root}" if gone else _nothing(cfg, root), markup=False, soft_wrap=True)


def _nothing(cfg: DictConfig, root: Path) -> str:
    limits = cfg.task.max_mb, cfg.task.older_than_days
    if cfg.task.action == "prune" and limits == (None, None):
        return f"nothing to remove in {root} without a limit: max_mb=1000, older_than_days=30, or both"
    return f"nothing to remove in {root}"


def _print_json(content: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(content, ensure_ascii=False) + "\n")


def _check(cfg: DictConfig) -> None:
    task = cfg.task
    check_choice("task.action", task.action, _ACTIONS)
    if cfg.format.name == "trec":
        raise ConfigError("format", "found trec; cache ranks no documents. Choices: table, json")
    for key in ("max_mb", "older_than_days"):
        value = task[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0):
            raise ConfigError(f"task.{key}", f"found {value!r}; expected a number of 0 or more, or null")
        if value is not None and task.action != "prune":
            raise ConfigError(f"task.{key}", f"found {value!r} with {task.action}; it is an option of prune")
    flag(cfg, "dry_run")
    if task.action == "show" and task.what is not None:
        raise ConfigError("task.what", "is an option of prune and clear; show lists all")
    check_limits(cfg.cache.max_mb, cfg.cache.remote_days, "cache.")
    check_stage_limits(cfg.cache.stages_max_mb, "cache.")
