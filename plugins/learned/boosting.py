"""LambdaMART on XGBoost: fitted, kept as UBJ, asked on one thread, explained exactly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.errors import IndexStateError, MissingExtraError
from orchestrator.stage import Fitted, Progress
from orchestrator.types import Example, Scores, Vectors

from .gains import check_grades
from .monotone import LESS_IS_BETTER
from .parameters import Parameters
from .tokens import Floats

if TYPE_CHECKING:
    from xgboost import Booster

_KEPT = "orchestrator"
"""Attribute of the booster: what serving needs beside the trees."""
_TIE = "lists.rrf"
_BELOW_FLOAT32 = 1e-8
"""Makes of a reciprocal rank sum, 0.001 to 0.1, less than two scores of the trees can differ by."""
_MODEL = "model.ubj"


def require_xgboost() -> None:
    """Raise MissingExtraError where xgboost is not installed; does not import it, which takes a second or two."""
    if find_spec("xgboost") is None:
        raise MissingExtraError("ltr", "xgboost")


def _worst(examples: Sequence[Example], names: Sequence[str]) -> list[float | None]:
    """What stands in for a missing value that no example had missing; None where the trees have seen it missing.

    A tree sends a value that it never saw missing to either side: a document that a stage did not find could end
    above all that it found.
    """
    rows = np.concatenate([example.features for example in examples])
    seen = np.isnan(rows).any(axis=0)
    worst = [
        rows[:, place].max() if name.rpartition(".")[2] in LESS_IS_BETTER else rows[:, place].min()
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
        """A ranker that orders `train`, stopped where it orders `validation` best by nDCG@10.

        Raises:
            ConfigError: a grade has no gain, or `monotone` names a feature that there is not.
        """
        import xgboost

        check_grades([*train, *validation], parameters.gain)
        booster = xgboost.train(
            parameters.of_xgboost(names),
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
        scores: Scores = self._booster.inplace_predict(self._filled(features)).astype(np.float64)
        if self._tie is not None:
            scores += _BELOW_FLOAT32 * features[:, self._tie]
        return scores

    def contributions(self, features: Vectors) -> Floats:
        """float64 [n, n_features + 1]: what each feature adds to each score, and last where every score starts.

        A row sums to its score. Exact SHAP values of the trees, as XGBoost's `pred_contribs` computes them (Lundberg,
        Erion, Lee, "Consistent Individualized Feature Attribution for Tree Ensembles", arXiv:1802.03888, Algorithm 2).
        """
        import xgboost

        if not len(features):
            return np.empty((0, features.shape[1] + 1))
        matrix = xgboost.DMatrix(self._filled(features), nthread=1)
        found: Floats = self._booster.predict(matrix, pred_contribs=True).astype(np.float64)
        if self._tie is not None:
            found[:, self._tie] += _BELOW_FLOAT32 * features[:, self._tie]
        return found

    def _filled(self, features: Vectors) -> Vectors:
        return np.where(np.isnan(features), self._worst, features)


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
