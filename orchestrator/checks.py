"""Checks of single values from a configuration: what was found, what was expected, the choices."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.errors import ConfigError, did_you_mean


def check_choice(path: str, found: object, choices: Iterable[object]) -> None:
    """Refuse what is none of `choices`.

    Raises:
        ConfigError: the message names the choices, and the one that was perhaps meant.
    """
    known = tuple(choices)
    if found not in known:
        names = [str(choice) for choice in known]
        hint = did_you_mean(str(found), names)
        raise ConfigError(path, f"found {found!r}; choices: {', '.join(names)}.{hint}")


def check_counts(**values: object) -> None:
    """Refuse what is no whole number from 1; `values` go by their paths."""
    for path, value in values.items():
        if not _is_count(value):
            raise ConfigError(path, f"found {value!r}; expected a whole number from 1")


def check_counts_or_null(**values: object) -> None:
    """The same where None is a value too."""
    for path, value in values.items():
        if value is not None and not _is_count(value):
            raise ConfigError(path, f"found {value!r}; expected a whole number from 1, or null")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
