"""Which candidates a model learns to put below the relevant ones. Pure: ids, scores and grades in, ids out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Rules:
    """How negatives are chosen; `task.negatives`.

    Attributes:
        per_query: how many a relevant document is set against.
        skip: so many of the best unjudged candidates are left alone: the likeliest to be relevant after all.
        depth: candidates below this rank are not taken.
        margin: a candidate is left alone whose score is above this share of the relevant document's: the
            "TopK-PercPos" of NV-Retriever (Moreira et al., 2024, arXiv 2407.15831, section 3), which found 0.95 best;
            None takes it. There a candidate is compared with its own positive; here with the best-scored one.
    """

    per_query: int = 4
    skip: int = 2
    depth: int = 50
    margin: float | None = 0.95

    def __post_init__(self) -> None:
        for name, least in (("per_query", 1), ("skip", 0), ("depth", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(name, f"found {value!r}; expected a whole number from {least}")
        if self.depth <= self.skip:
            raise ConfigError("depth", f"found {self.depth} with skip {self.skip}; expected more than are skipped")
        margin = self.margin
        if margin is not None and (isinstance(margin, bool) or not isinstance(margin, int | float) or margin <= 0):
            raise ConfigError("margin", f"found {margin!r}; expected a number above 0, or null")


@dataclass(frozen=True, slots=True)
class Choice:
    """What can serve as a negative for one query, in order of preference.

    Attributes:
        judged: documents that somebody judged as not relevant; candidates first, in their order.
        unjudged: candidates that nobody judged and no rule left out, best first.
        dropped: rule -> how many candidates it left out.
    """

    judged: tuple[str, ...]
    unjudged: tuple[str, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)


def choose(
    query_id: str,
    doc_ids: Sequence[str],
    scores: Sequence[float],
    grades: Mapping[str, int],
    rules: Rules,
    names: Sequence[str] | None = None,
) -> Choice:
    """What can serve as a negative.

    Args:
        query_id: never its own negative, where documents are asked for with documents.
        doc_ids: candidates, best first.
        scores: of the candidates.
        grades: document -> judged relevance; 0 and less is not relevant.
        rules: what is left out.
        names: of the candidates as `grades` has them, where candidates are chunks of what was judged.
    """
    named = list(names if names is not None else doc_ids)
    limit = threshold([score for name, score in zip(named, scores, strict=True) if grades.get(name, 0) > 0], rules)
    judged = [doc_id for doc_id, name in zip(doc_ids, named, strict=True) if name in grades and grades[name] <= 0]
    unjudged: list[str] = []
    dropped = {"skip": 0, "margin": 0}
    waiting = rules.skip
    for doc_id, name, score in list(zip(doc_ids, named, scores, strict=True))[: rules.depth]:
        if name in grades or query_id in (doc_id, name):
            continue
        if waiting > 0:
            waiting -= 1
            dropped["skip"] += 1
        elif score > limit:
            dropped["margin"] += 1
        else:
            unjudged.append(doc_id)
    if names is None:
        judged += [doc_id for doc_id, grade in grades.items() if grade <= 0 and doc_id not in set(judged)]
    return Choice(tuple(doc_id for doc_id in judged if doc_id != query_id), tuple(unjudged), dropped)


def threshold(positive_scores: Sequence[float], rules: Rules) -> float:
    """The score above which a candidate may be relevant itself; infinite without a relevant candidate or a margin.

    `margin * best` for a positive score; for others as far below it: `best - (1 - margin) * |best|`.
    """
    if rules.margin is None or not positive_scores:
        return float("inf")
    best = max(positive_scores)
    return best - (1 - rules.margin) * abs(best)


def draw(choice: Choice, count: int, generator: np.random.Generator) -> list[str]:
    """At most `count` negatives: judged ones as far as they go, then unjudged ones, both drawn."""
    first = _some(choice.judged, count, generator)
    return first + _some(choice.unjudged, count - len(first), generator)


def _some(doc_ids: Sequence[str], count: int, generator: np.random.Generator) -> list[str]:
    if len(doc_ids) <= count:
        return list(doc_ids)
    return [doc_ids[place] for place in np.sort(generator.choice(len(doc_ids), size=count, replace=False))]
