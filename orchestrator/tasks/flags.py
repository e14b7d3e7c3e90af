"""Options of a verb that are true or false, or a number: nothing else is taken for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def flag(cfg: DictConfig, name: str) -> bool:
    """`task.<name>`, true or false.

    Raises:
        ConfigError: it is something else, for example `no`, which is a word.
    """
    value = cfg.task[name]
    if not isinstance(value, bool):
        raise ConfigError(f"task.{name}", f"found {value!r}; expected true or false")
    return value


def count(cfg: DictConfig, name: str, least: int = 1) -> int:
    """`task.<name>`, a whole number from `least`.

    Raises:
        ConfigError: it is something else.
    """
    value = cfg.task[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"task.{name}", f"found {value!r}; expected a whole number from {least}")
    return value
