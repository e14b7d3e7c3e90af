"""LambdaMART on XGBoost: fitted, kept as UBJ, asked on one thread."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import ConfigError, IndexStateError, MissingExtraError, did_you_mean
from orchestrator.stage import Fitted, Progress
from orchestrator.types import Example, Scores, Vectors

if TYPE_CHECKING:
    from xgboost import Booster

_KEPT = "orchestrator"
"""Attribute of the booster: what serving needs beside the trees."""
_TIE = "lists.rrf"
_LESS_IS_BETTER = (".rank", ".distance", ".window", ".first")
_BELOW_FLOAT32 = 1e-8
"""Makes of a reciprocal rank sum, 0.001 to 0.1, less than two scores of the trees can differ by."""
_MODEL = "model.ubj"
_METRIC = "ndcg@10"


def require_xgboost() -> None:
    """Raise MissingExtraError where xgboost is not installed; does not import it, which takes a second or two."""
    if find_spec("xgboost") is None:
        raise MissingExtraError("ltr", "xgboost")


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

    def of_xgboost(self) -> dict[str, object]:
        """The same in XGBoost's names."""
        return {
            "objective": "rank:ndcg",
            "eval_metric": _METRIC,
            # Gain = grade, as trec_eval computes the nDCG that is reported; 2^grade - 1 is XGBoost's default.
            "ndcg_exp_gain": False,
            "lambdarank_pair_method": "topk",
            "lambdarank_num_pair_per_sample": self.pairs,
            "tree_method": "hist",
            "eta": self.learning_rate,
            "max_depth": self.max_depth,
            "min_child_weight": self.min_child_weight,
            "subsample": self.subsample,
            "colsample_bytree": self.column_share,
            "lambda": self.reg_lambda,
            "seed": self.seed,
            "nthread": self.threads,
        }


def _worst(examples: Sequence[Example], names: Sequence[str]) -> list[float | None]:
    """What stands in for a missing value that no example had missing; None where the trees have seen it missing.

    A tree sends a value that it never saw missing to either side: a document that a stage did not find could end
    above all that it found.
    """
    rows = np.concatenate([example.features for example in examples])
    seen = np.isnan(rows).any(axis=0)
    worst = [
        rows[:, place].max() if name.endswith(_LESS_IS_BETTER) else rows[:, place].min()
        for place, name in enumerate(names)
    ]
    return [None if missing else float(value) for missing, value in zip(seen, worst, strict=True)]


class LambdaMart:
    """A fitted ranker. Safe to use from several threads.

    Source: Burges, "From RankNet to LambdaRank to LambdaMART", MSR-TR-2010-82, as XGBoost's `rank:ndcg`.
    """

    def __init__(self, booster: Booster) -> None:
        # A second thread costs more than it saves at a few hundred rows, and stalls when no core is free.
        booster.set_param({"nthread": 1})
        self._booster = booster
        kept = json.loads(booster.attr(_KEPT) or "{}")
        self._worst = np.array([np.nan if value is None else value for value in kept["worst"]], dtype=np.float32)
        self._tie: int | None = kept["tie"]

    @classmethod
    def fit(
        cls,
        train: Sequence[Example],
        validation: Sequence[Example],
        names: Sequence[str],
        parameters: Parameters,
        progress: Progress,
    ) -> tuple[LambdaMart, Fitted]:
        """A ranker that orders `train`, stopped where it orders `validation` best by nDCG@10."""
        import xgboost

        booster = xgboost.train(
            parameters.of_xgboost(),
            _matrix(train, parameters.threads),
            num_boost_round=parameters.rounds,
            evals=[(_matrix(validation, parameters.threads), "validation")],
            early_stopping_rounds=parameters.early_stopping_rounds,
            callbacks=[_told(progress, parameters.rounds)],
            verbose_eval=False,
        )
        kept, best = booster.best_iteration + 1, float(booster.best_score)
        booster = booster[:kept]
        tie = names.index(_TIE) if _TIE in names else None
        booster.set_attr(**{_KEPT: json.dumps({"worst": _worst(train, names), "tie": tie})})
        progress("train", parameters.rounds, parameters.rounds)
        return cls(booster), Fitted(kept, best, _importances(booster, names), {"xgboost": xgboost.__version__})

    @classmethod
    def read(cls, directory: Path) -> LambdaMart:
        """The ranker that `write` left in `directory`.

        Raises:
            IndexStateError: it is missing or damaged.
        """
        import xgboost

        path = directory / _MODEL
        try:
            booster = xgboost.Booster()
            booster.load_model(bytearray(path.read_bytes()))
        except (OSError, ValueError, xgboost.core.XGBoostError) as error:
            detail = (str(error).splitlines() or [type(error).__name__])[0]
            raise IndexStateError(f"{path}: {detail}; expected a model written by this program. Train again") from error
        if booster.attr(_KEPT) is None:
            raise IndexStateError(f"{path}: written by another version of this program. Train again")
        return cls(booster)

    @property
    def digest(self) -> str:
        """Changes when any score would."""
        return hashlib.blake2b(self._raw(), digest_size=8).hexdigest()

    def write(self, directory: Path) -> None:
        """Write the ranker into `directory` as UBJ."""
        (directory / _MODEL).write_bytes(self._raw())

    def _raw(self) -> bytes:
        return bytes(self._booster.save_raw("ubj"))

    def predict(self, features: Vectors) -> Scores:
        """float64 [n], higher better; what the trees cannot tell apart is ordered by the fused ranks of the inputs."""
        if not len(features):
            return np.empty(0)
        filled = np.where(np.isnan(features), self._worst, features)
        scores: Scores = self._booster.inplace_predict(filled).astype(np.float64)
        if self._tie is not None:
            scores += _BELOW_FLOAT32 * features[:, self._tie]
        return scores


def _matrix(examples: Sequence[Example], threads: int) -> Any:
    import xgboost

    return xgboost.DMatrix(
        np.concatenate([example.features for example in examples]),
        label=np.concatenate([example.grades for example in examples]),
        qid=np.repeat(np.arange(len(examples)), [len(example.doc_ids) for example in examples]),
        nthread=threads,
    )


def _importances(booster: Booster, names: Sequence[str]) -> dict[str, float]:
    """Feature -> its share of the gain of all splits, greatest first; features that no split uses have 0."""
    found = booster.get_score(importance_type="total_gain")
    gains = {int(key.removeprefix("f")): float(np.sum(gain)) for key, gain in found.items()}
    total = sum(gains.values()) or 1.0
    shares = {name: gains.get(place, 0.0) / total for place, name in enumerate(names)}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _told(progress: Progress, rounds: int) -> Any:
    from xgboost.callback import TrainingCallback

    class Told(TrainingCallback):
        """Passes the number of each round on."""

        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            progress("train", epoch + 1, rounds)
            return False

    return Told()


def _check(name: str, value: object, least: float, most: float | None, *, whole: bool = False) -> None:
    kind: tuple[type, ...] = (int,) if whole else (int, float)
    fits = isinstance(value, kind) and not isinstance(value, bool) and value >= least  # type: ignore[operator]
    if not fits or (most is not None and value > most):  # type: ignore[operator]
        word = "a whole number" if whole else "a number"
        limits = f"from {least:g}" + (f" to {most:g}" if most is not None else "")
        raise ConfigError(name, f"found {value!r}; expected {word} {limits}")
