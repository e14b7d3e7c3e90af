"""`orchestrate train WHAT`: let a stage or a model of the pipeline learn, and say whether that helped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.checks import check_choice
from orchestrator.errors import ConfigError
from orchestrator.finetune.options import KINDS
from orchestrator.learning.promotion import CHOICES
from orchestrator.learning.seen import MODES, OUT_OF_FOLD
from orchestrator.tasks import train_fusion, train_model, train_weights
from orchestrator.tasks.flags import count

if TYPE_CHECKING:
    from omegaconf import DictConfig

_FOLDABLE = ("fusion", "weights")
_WHAT = (*_FOLDABLE, *KINDS)


def run(cfg: DictConfig, output: Path | None) -> float:
    """Train what `task.what` names; see `train_fusion`, `train_weights` and `train_model`.

    Returns:
        The first of `task.measures` on the queries held out, for a sweeper to maximise.
    """
    _check(cfg)
    verbs = {"fusion": train_fusion.run, "weights": train_weights.run}
    return verbs.get(cfg.task.what, train_model.run)(cfg, output)


def _check(cfg: DictConfig) -> None:
    task = cfg.task
    check_choice("task.what", task.what, _WHAT)
    if not isinstance(task.held_out, str):
        _share("task.held_out", task.held_out, least=0.0)
    _share("task.validation", task.validation, least=1e-9)
    for key, least in (("folds", 2), ("max_queries", 1), ("max_held_out", 1), ("candidates_judged", 2)):
        _count_or_null(cfg, key, least)
    for key in ("depth", "batch_queries"):
        count(cfg, key)
    if task.folds is not None and isinstance(task.held_out, str):
        raise ConfigError("task.folds", f"found {task.folds} beside held_out={task.held_out}; expected one of the two")
    if task.folds is not None and task.what not in _FOLDABLE:
        raise ConfigError("task.folds", f"found {task.folds} with {task.what}; a model is trained once: expected null")
    _check_meaning(task)


def _check_meaning(task: DictConfig) -> None:
    """Refuse options, set to anything but the default, that mean nothing to what is trained."""
    what, is_model = task.what, task.what not in _FOLDABLE
    check_choice("task.seen", task.seen, MODES)
    check_choice("task.promote", task.promote, CHOICES)
    if task.seen != "refuse" and is_model:
        raise ConfigError("task.seen", f"found {task.seen} with {what}, where it has no meaning; expected refuse")
    if task.seen == OUT_OF_FOLD and what != "fusion":
        raise ConfigError("task.seen", f"found {task.seen} with {what}; expected refuse, drop or allow")
    if task.promote != "always" and what != "fusion":
        found = f"found {task.promote} with {what}, which takes the place of nothing"
        raise ConfigError("task.promote", f"{found}; expected always")
    if task.search.rounds != 0 and what != "fusion":
        raise ConfigError(
            "task.search.rounds", f"found {task.search.rounds} with {what}, which has no learner; expected 0"
        )
    if task.save is not None and what != "weights":
        raise ConfigError("task.save", f"found {task.save} with {what}, which writes no scenario; expected null")


def _count_or_null(cfg: DictConfig, key: str, least: int) -> None:
    if cfg.task[key] is None:
        return
    try:
        count(cfg, key, least)
    except ConfigError as error:
        raise ConfigError(error.path, f"{error.detail}, or null") from error


def _share(path: str, value: object, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1:
        more = ", or the name of a split" if path.endswith("held_out") else " and above 0"
        raise ConfigError(path, f"found {value!r}; expected a share below 1{more}")
