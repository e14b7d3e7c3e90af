"""Weights of a fusion's inputs: checked alike for every fusion that has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.stage import Knob

_PREFIX = "weights."
_CHOICES = tuple(tenth / 10 for tenth in range(11))


def not_negative(path: str, value: object) -> float:
    """`value` as a float of 0 or more.

    Raises:
        ConfigError: it is something else; the message starts with `path`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(path, f"{value!r} is no number of 0 or more")
    return float(value)


def input_weights(weights: Mapping[str, float] | None) -> dict[str, float]:
    """Input stage name -> weight, each 0 or more.

    Raises:
        ConfigError: a weight is no number, or negative.
    """
    return {name: not_negative(f"weights.{name}", weight) for name, weight in (weights or {}).items()}


def check_names(weights: Mapping[str, float], inputs: Sequence[str]) -> None:
    """Refuse a weight for a stage that is no input.

    Raises:
        ConfigError: naming the inputs there are.
    """
    for name in weights:
        if name not in inputs:
            choices = ", ".join(inputs)
            raise ConfigError(
                f"weights.{name}", f"no input of that name; inputs: {choices}.{did_you_mean(name, inputs)}"
            )


def weight_knobs(weights: Mapping[str, float], inputs: Sequence[str]) -> dict[str, Knob]:
    """`weights.<input>` -> its number, for every input."""
    return {f"{_PREFIX}{name}": Knob(weights.get(name, 1.0), _CHOICES, is_weight=True) for name in inputs}


def adjusted_weights(weights: Mapping[str, float], values: Mapping[str, float]) -> dict[str, float]:
    """`weights` with those of `values` that are named as `weight_knobs` names them."""
    named = {name.removeprefix(_PREFIX): value for name, value in values.items() if name.startswith(_PREFIX)}
    return {**weights, **named}
