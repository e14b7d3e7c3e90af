"""Checks of a stage's arguments, which more than one stage makes."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import ConfigError, did_you_mean


def check_choice(name: str, found: object, choices: Sequence[str]) -> None:
    """Raise a ConfigError that names the choices, where `found` is none of them."""
    if found not in choices:
        hint = did_you_mean(str(found), choices)
        raise ConfigError(name, f"found {found!r}; choices: {', '.join(choices)}.{hint}")


def check_counts(**values: object) -> None:
    """Raise a ConfigError where a value is no whole number from 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(name, f"found {value!r}; expected a whole number from 1")
