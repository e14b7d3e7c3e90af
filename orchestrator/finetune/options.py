"""Options of `orchestrate train bi_encoder | cross_encoder | late_interaction`, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

from orchestrator.checks import check_counts, check_counts_or_null
from orchestrator.errors import ConfigError, did_you_mean
from orchestrator.finetune.negatives import Rules
from orchestrator.stage import Json

KINDS = ("bi_encoder", "cross_encoder", "late_interaction")
LOSSES: Mapping[str, tuple[str, ...]] = {
    "bi_encoder": ("contrastive", "listwise", "distill"),
    "cross_encoder": ("contrastive", "binary", "listwise", "distill"),
    "late_interaction": ("contrastive", "listwise", "distill"),
}
DEVICES = ("cpu", "cuda", "mps")


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a model learns; `task.tuning`. conf/task/train.yaml says what each is."""

    epochs: float = 1.0
    batch_size: int = 16
    learning_rate: float = 2e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_length_tokens: int | None = 128
    freeze_embeddings: bool = True
    positives_per_query: int = 2
    check_steps: int = 50
    check_queries: int = 100
    check_candidates: int = 20
    patience: int | None = 5
    new_head: bool | None = None
    threads: int | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "positives_per_query", "check_steps", "check_queries", "check_candidates"):
            check_counts(**{name: getattr(self, name)})
        for name in ("max_length_tokens", "patience", "threads"):
            check_counts_or_null(**{name: getattr(self, name)})
        for name in ("epochs", "learning_rate"):
            _number(name, getattr(self, name), above=True)
        for name in ("warmup", "weight_decay"):
            _number(name, getattr(self, name), above=False)
        if self.warmup >= 1:
            raise ConfigError("warmup", f"found {self.warmup!r}; expected a share of the steps, below 1")
        for name in ("freeze_embeddings", "new_head"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (name == "new_head" and value is None):
                raise ConfigError(name, f"found {value!r}; expected true or false")
        if self.device is not None and self.device not in DEVICES:
            hint = did_you_mean(str(self.device), DEVICES)
            raise ConfigError("device", f"found {self.device!r}; choices: {', '.join(DEVICES)}, or null.{hint}")


def check_kind(what: str, loss: str, teacher: str | None) -> None:
    """Nothing, when that kind of model can learn by that loss.

    Raises:
        ConfigError: it cannot, or distillation lacks its teacher.
    """
    if loss not in LOSSES[what]:
        choices = f"{', '.join(LOSSES[what])}.{did_you_mean(str(loss), LOSSES[what])}"
        raise ConfigError("task.loss", f"found '{loss}' for {what}; choices: {choices}")
    if loss == "distill" and teacher is None:
        raise ConfigError("task.teacher", "missing; task.loss=distill learns from another stage's scores: name it")
    if loss != "distill" and teacher is not None:
        raise ConfigError("task.teacher", f"found '{teacher}' with task.loss={loss}; expected task.loss=distill")


def tuning(values: Mapping[str, Json]) -> Tuning:
    """`task.tuning` as a Tuning.

    Raises:
        ConfigError: a value is wrong, or nobody knows a key.
    """
    return _read("task.tuning", values, Tuning)


def rules(values: Mapping[str, Json]) -> Rules:
    """`task.negatives` as Rules.

    Raises:
        ConfigError: a value is wrong, or nobody knows a key.
    """
    return _read("task.negatives", values, Rules)


_Options = TypeVar("_Options", Tuning, Rules)


def _read(path: str, values: Mapping[str, Json], into: type[_Options]) -> _Options:
    known = [spec.name for spec in fields(into)]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{path}.{key}", f"no such option; options: {', '.join(known)}.{did_you_mean(key, known)}"
            )
    try:
        return into(**values)  # type: ignore[arg-type]  # each value is checked by the class itself
    except ConfigError as error:
        raise ConfigError(f"{path}.{error.path}", error.detail) from None


def _number(name: str, value: object, above: bool) -> None:
    wrong = isinstance(value, bool) or not isinstance(value, int | float)
    if wrong or not (value > 0 if above else value >= 0):  # type: ignore[operator]  # a number by then
        raise ConfigError(name, f"found {value!r}; expected a number {'above' if above else 'from'} 0")
