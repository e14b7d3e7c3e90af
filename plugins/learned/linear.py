"""A weighted sum of a few features, learned listwise: nothing to overfit, readable, and at home in collections unseen.

Every feature is standardised among the candidates of its query, so that a weight means the same whatever the scale of
a collection's scores. Loss: cross-entropy between softmax(scores) and the share of each document in the query's grades
(top-one probability of ListNet: Cao, Qin, Liu, Tsai, Li, "Learning to Rank: From Pairwise Approach to Listwise
Approach", ICML 2007), plus an L2 penalty on the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.errors import IndexStateError
from orchestrator.stage import Fitted, Progress
from orchestrator.storage import write_atomic
from orchestrator.types import Example, Scores, Vectors

from .gains import check_grades, gains
from .tokens import Floats

MODEL = "linear.json"
_FEATURES = ("text.bm25", "text.idf_coverage", "body.bigrams", "body.window", "title.bm25", "vectors.cosine")
"""Beside the score of every earlier stage: what says something in any collection."""
_STEPS = 200


class LinearRanker:
    """The learned weights.

    Args:
        columns: places of the features that have a weight.
        weights: float64, one each.
        names: of those features, for people.
    """

    def __init__(self, columns: Sequence[int], weights: Floats, names: Sequence[str]) -> None:
        self._columns, self._weights, self._names = list(columns), weights, list(names)

    @classmethod
    def fit(
        cls,
        train: Sequence[Example],
        validation: Sequence[Example],
        names: Sequence[str],
        l2: float,
        progress: Progress,
        gain: str = "linear",
    ) -> tuple[LinearRanker, Fitted]:
        """The weights that order `train` best; `validation` only measures, since a sum this small needs no stopping.

        Raises:
            ConfigError: a grade has no gain.
        """
        from scipy.optimize import minimize

        check_grades([*train, *validation], gain)
        columns = [place for place, name in enumerate(names) if name.endswith(".score") or name in _FEATURES]
        rows = [standardised(example.features[:, columns]) for example in train]
        targets = [worth / worth.sum() for worth in (gains(example.grades, gain) for example in train)]
        steps = 0

        def told(_: Any) -> None:
            nonlocal steps
            steps += 1
            progress("train", min(steps, _STEPS), _STEPS)

        start = np.zeros(len(columns))
        found = minimize(
            _loss, start, (rows, targets, l2), method="L-BFGS-B", jac=True, callback=told, options={"maxiter": _STEPS}
        )
        progress("train", _STEPS, _STEPS)
        kept = [names[place] for place in columns]
        ranker = cls(columns, np.asarray(found.x, dtype=np.float64), kept)
        measured = [_ndcg(gains(e.grades, gain), ranker.predict(e.features)) for e in validation]
        quality = float(np.mean(measured))
        return ranker, Fitted(len(columns), quality, ranker.shares(), {}, "weights")

    @classmethod
    def read(cls, directory: Path) -> LinearRanker:
        """The weights that `write` left in `directory`.

        Raises:
            IndexStateError: they are missing or damaged.
        """
        path = directory / MODEL
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            weights = np.array([float(row["weight"]) for row in kept["weights"]], dtype=np.float64)
            columns = [int(row["column"]) for row in kept["weights"]]
            names = [str(row["feature"]) for row in kept["weights"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IndexStateError(f"{path}: {error}; expected a model written by this program. Train again") from error
        return cls(columns, weights, names)

    @property
    def digest(self) -> str:
        """Changes when any score would."""
        return hashlib.blake2b(self._text().encode(), digest_size=8).hexdigest()

    def write(self, directory: Path) -> None:
        """Write the weights into `directory` as JSON."""
        write_atomic(directory / MODEL, self._text())

    def predict(self, features: Vectors) -> Scores:
        """float64 [n], higher better; `features` are those of one query's candidates."""
        if not len(features):
            return np.empty(0)
        scores: Scores = standardised(features[:, self._columns]) @ self._weights
        return scores

    def contributions(self, features: Vectors) -> Floats:
        """float64 [n, n_features + 1]: weight x standardised value, 0 for features without a weight; last a 0.

        A row sums to its score. Values are standardised within the query, so these are the SHAP values of a sum whose
        background is the query's own candidates.
        """
        found = np.zeros((len(features), features.shape[1] + 1))
        if len(features):
            found[:, self._columns] = standardised(features[:, self._columns]) * self._weights
        return found

    def shares(self) -> dict[str, float]:
        """Feature -> its share of the sum of all weights, signs left out; greatest first."""
        sizes = np.abs(self._weights) / max(float(np.abs(self._weights).sum()), 1e-12)
        return dict(sorted(zip(self._names, sizes.tolist(), strict=True), key=lambda item: -item[1]))

    def _text(self) -> str:
        rows = [
            {"feature": name, "column": column, "weight": float(weight)}
            for name, column, weight in zip(self._names, self._columns, self._weights.tolist(), strict=True)
        ]
        return json.dumps({"weights": rows}, indent=1) + "\n"


def standardised(features: Vectors) -> Floats:
    """float64 [n_candidates, n_features]: each column minus its mean, by its deviation; all 0 where all are equal.

    What is not known counts as the least of the column: a stage that did not bring a document ranks it behind.
    """
    values = features.astype(np.float64)
    known = ~np.isnan(values)
    least = np.min(np.where(known, values, np.inf), axis=0, initial=np.inf)
    values = np.where(known, values, np.where(np.isfinite(least), least, 0.0))
    deviation = values.std(axis=0)
    scaled: Floats = (values - values.mean(axis=0)) / np.where(deviation > 1e-12, deviation, 1.0)
    return scaled


def _loss(weights: Floats, rows: list[Floats], targets: list[Floats], l2: float) -> tuple[float, Floats]:
    """Mean cross-entropy over the queries with its penalty, and the gradient."""
    loss, gradient = 0.0, np.zeros_like(weights)
    for features, target in zip(rows, targets, strict=True):
        scores = features @ weights
        scores = scores - scores.max()
        logs = scores - np.log(np.exp(scores).sum())
        loss -= float(target @ logs)
        gradient += features.T @ (np.exp(logs) - target)
    n = max(len(rows), 1)
    return loss / n + l2 * float(weights @ weights), gradient / n + 2 * l2 * weights


def _ndcg(worth: Floats, scores: Scores) -> float:
    """nDCG@10 among the candidates, which are `worth` their gains; 0 for a query without a relevant one."""
    discounts = 1 / np.log2(np.arange(2, 12))
    best, found = (
        float(ordered[:10] @ discounts[: len(ordered[:10])])
        for ordered in (np.sort(worth)[::-1], worth[np.argsort(-scores, kind="stable")])
    )
    return found / best if best > 0 else 0.0
