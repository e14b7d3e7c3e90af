"""What shapes a training of trees: the keys of `task.learner`, checked, and in XGBoost's own names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.checks import check_choice
from orchestrator.errors import ConfigError, did_you_mean

from .gains import GAINS
from .monotone import Monotone, directions, setting

_METRIC = "ndcg@10"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What shapes a training; the keys of `task.learner`.

    Attributes:
        rounds: trees at most.
        early_stopping_rounds: how many rounds without a better nDCG@10 on the validation queries end the training.
        learning_rate: how much of each tree is believed.
        max_depth: levels of a tree.
        min_child_weight: least weight of a leaf; larger is more cautious.
        subsample: share of the rows that each tree sees.
        column_share: share of the features that each tree sees.
        reg_lambda: L2 penalty on leaf values.
        pairs: how many of each query's first documents are paired with all others when gradients are computed.
        gain: `linear` or `exponential`, see gains.py.
        monotone: `auto`, `off`, or feature prefix -> 1, -1 or 0, see monotone.py.
        threads: of the training; the same number gives the same model. Two on a busy machine are slower than one.
        seed: of rows and columns drawn.

    Raises:
        ConfigError: a value is out of its range.
    """

    rounds: int = 600
    early_stopping_rounds: int = 60
    learning_rate: float = 0.05
    max_depth: int = 5
    min_child_weight: float = 1.0
    subsample: float = 0.8
    column_share: float = 0.6
    reg_lambda: float = 1.0
    pairs: int = 20
    gain: str = "linear"
    monotone: Monotone = "auto"
    threads: int = 1
    seed: int = 7

    def __post_init__(self) -> None:
        for name in ("rounds", "early_stopping_rounds", "max_depth", "pairs", "threads"):
            _check(name, getattr(self, name), 1, None, whole=True)
        _check("seed", self.seed, 0, None, whole=True)
        for name in ("learning_rate", "subsample", "column_share"):
            _check(name, getattr(self, name), 1e-6, 1)
        for name in ("min_child_weight", "reg_lambda"):
            _check(name, getattr(self, name), 0, None)
        check_choice("gain", self.gain, GAINS)
        object.__setattr__(self, "monotone", setting(self.monotone))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Parameters:
        """The parameters that `options` name, defaults for the rest.

        Raises:
            ConfigError: an option has no such name, or a wrong value.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ConfigError(name, f"LambdaMART has no such option; options: {', '.join(known)}.{hint}")
        return cls(**options)

    def of_xgboost(self, names: Sequence[str]) -> dict[str, object]:
        """The same in XGBoost's names.

        Args:
            names: of the features, in the order of the columns.

        Raises:
            ConfigError: `monotone` names a feature that there is not.
        """
        return {
            "objective": "rank:ndcg",
            "eval_metric": _METRIC,
            # Gain = grade, as trec_eval computes the nDCG that is reported; 2^grade - 1 is XGBoost's default.
            "ndcg_exp_gain": self.gain == "exponential",
            "lambdarank_pair_method": "topk",
            "lambdarank_num_pair_per_sample": self.pairs,
            "tree_method": "hist",
            "eta": self.learning_rate,
            "max_depth": self.max_depth,
            "min_child_weight": self.min_child_weight,
            "subsample": self.subsample,
            "colsample_bytree": self.column_share,
            "lambda": self.reg_lambda,
            "monotone_constraints": tuple(directions(names, self.monotone)),
            "seed": self.seed,
            "nthread": self.threads,
        }


def _check(name: str, value: object, least: float, most: float | None, *, whole: bool = False) -> None:
    kind: tuple[type, ...] = (int,) if whole else (int, float)
    fits = isinstance(value, kind) and not isinstance(value, bool) and value >= least  # type: ignore[operator]
    if not fits or (most is not None and value > most):  # type: ignore[operator]
        word = "a whole number" if whole else "a number"
        limits = f"from {least:g}" + (f" to {most:g}" if most is not None else "")
        raise ConfigError(name, f"found {value!r}; expected {word} {limits}")
