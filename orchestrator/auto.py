"""`+scenario=auto`: before a run starts, and in every job of a sweep, the stack is decided and takes its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.log import get_logger

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from orchestrator.deciding.decide import Decision

log = get_logger()
_AUTO = "scenario=auto"


def decide_words(words: Sequence[str], config_dirs: Sequence[Path]) -> tuple[list[str], Decision | None]:
    """The words of a single run with the decision's in the place of `+scenario=auto`, and the decision.

    Words without it, of a sweep (each job decides) and of `plan` (it decides itself) come back as they are.
    """
    asks = any(word.lstrip("+") == _AUTO for word in words)
    if not asks or {"-m", "--multirun", "hydra.mode=MULTIRUN", "task=plan"} & set(words):
        return list(words), None
    from hydra import compose, initialize_config_module

    from orchestrator.config.words import is_search_path, search_path
    from orchestrator.deciding.planning import decide_for, decided

    overrides = [word for word in words if _is_override(word)]
    flags = [part for folder in config_dirs for part in ("--config-dir", str(folder))] + search_path([], overrides)
    composed_with = [*search_path(config_dirs, overrides), *(word for word in overrides if not is_search_path(word))]
    with initialize_config_module("orchestrator.conf", version_base="1.3", job_name="orchestrate"):
        cfg = compose("config", overrides=composed_with)
        decision = decide_for(cfg, overrides, flags)
    return [word for word in words if not _is_override(word)] + decided(overrides, decision), decision


def decide_job(cfg: DictConfig, output: Path | None) -> tuple[DictConfig, Decision]:
    """The configuration that one job of a sweep decides on; its `.hydra` folder then tells what ran."""
    from hydra import compose
    from omegaconf import OmegaConf

    from orchestrator.config.job import task_overrides
    from orchestrator.deciding.planning import decide_for, decided

    words = task_overrides()
    decision = decide_for(cfg, words)
    words = decided(words, decision)
    cfg = compose("config", overrides=words)
    if output is not None and (output / ".hydra").is_dir():
        OmegaConf.save(OmegaConf.create(words), output / ".hydra" / "overrides.yaml")
        OmegaConf.save(cfg, output / ".hydra" / "config.yaml")
    return cfg, decision


def say(decision: Decision, output: Path | None) -> None:
    """One line on stderr, and decision.yaml in the folder of the run."""
    from omegaconf import OmegaConf

    from orchestrator.report import decision_json

    choice = decision.choice
    facts = {"choice": choice.name, "p95_ms": round(choice.predicted.p95_ms, 1), "run": choice.command}
    if choice.misses_by_ms is None:
        log.info("auto.chosen", **facts)
    else:
        log.warning("auto.nothing_fits", **facts, over_budget_by_ms=round(choice.misses_by_ms, 1))
    if output is not None:
        OmegaConf.save(OmegaConf.create(decision_json(decision)), output / "decision.yaml")


def _is_override(word: str) -> bool:
    return not word.startswith("-") and ("=" in word or word.startswith("~"))
