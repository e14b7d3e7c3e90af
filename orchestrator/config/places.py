"""Where state lives, and what `cache` says of the scores and results that are kept there."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from orchestrator.running.score_cache import ScoreCache, check_limits
from orchestrator.running.stage_results import StageResults, check_stage_limits
from orchestrator.storage import default_root


def storage_root(cfg: DictConfig) -> Path:
    """Where state lives: `storage.root`, or the default."""
    root = cfg.storage.root
    return Path(root).expanduser() if root else default_root()


def build_score_cache(cfg: DictConfig) -> ScoreCache | None:
    """Where scores of models are kept, as `cfg.cache` says; None where they are not.

    Raises:
        ConfigError: a value under `cache` is wrong.
    """
    check_limits(cfg.cache.max_mb, cfg.cache.remote_days, "cache.")
    return ScoreCache(storage_root(cfg), cfg.cache.max_mb, cfg.cache.remote_days) if cfg.cache.scores else None


def build_stage_results(cfg: DictConfig) -> StageResults | None:
    """Where results of stages are kept between jobs, as `cfg.cache` says; None where they are not.

    Raises:
        ConfigError: a value under `cache` is wrong.
    """
    check_stage_limits(cfg.cache.stages_max_mb, "cache.")
    limits = cfg.cache.stages_max_mb, cfg.cache.remote_days
    return StageResults(storage_root(cfg), *limits) if cfg.cache.stages else None
