"""Which options a learner gets, chosen on the queries of one training: the inner half of nested cross-validation.

Source: Cawley, Talbot, "On Over-fitting in Model Selection and Subsequent Selection Bias in Performance Evaluation",
JMLR 11, 2010: what chooses the options must not be what judges them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.errors import ConfigError
from orchestrator.evaluation.measures import Measures, Qrels, Rankings
from orchestrator.learning import training
from orchestrator.log import get_logger
from orchestrator.stage import Json, Progress, Trainable

log = get_logger()

Options = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Search:
    """What is tried; the keys of `task.search`.

    Attributes:
        rounds: so many combinations, the learner's own options among them; 0 tries none.
        folds: inner folds that each combination is judged on.
        grids: combinations are drawn from these: option -> values to try, in each.

    Raises:
        ConfigError: a value is wrong.
    """

    rounds: int
    folds: int
    grids: tuple[Mapping[str, Sequence[Json]], ...]

    def __post_init__(self) -> None:
        for name, least in (("rounds", 0), ("folds", 2)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(name, f"found {value!r}; expected a whole number from {least}")
        for place, grid in enumerate(self.grids):
            for option, values in grid.items():
                if not isinstance(values, list | tuple) or not values:
                    raise ConfigError(f"grids[{place}].{option}", f"found {values!r}; expected a list of values to try")

    def candidates(self, options: Options, seed: int) -> list[Options]:
        """`options` themselves, then combinations of the grids in their place, drawn by `seed`, each once."""
        every = [
            {**options, **dict(zip(grid, values, strict=True))}
            for grid in self.grids
            for values in itertools.product(*grid.values())
        ]
        drawn = [every[place] for place in np.random.default_rng(seed).permutation(len(every))]
        return [options, *(option for option in drawn if option != options)][: self.rounds]

    def checked(self, stage: Trainable, options: Options, seed: int) -> None:
        """Refuse combinations that the learner does not take, before anything is collected.

        Raises:
            ConfigError: naming the option.
        """
        for option in self.candidates(options, seed):
            stage.check_options(option)


@dataclass(frozen=True, slots=True)
class Exam:
    """How a combination is judged.

    Attributes:
        qrels: the judgements.
        measures: the first one decides.
        depth: of the rankings.
        parents: where documents are judged and chunks are ranked.
        validation: share of an inner training's queries that decides when to stop.
        texts: query id -> the question.
        seed: of the inner folds, and of what is drawn.
    """

    qrels: Qrels
    measures: Measures
    depth: int
    parents: training.Parents | None
    validation: float
    texts: Mapping[str, str]
    seed: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen.

    Attributes:
        options: of the learner.
        changed: those of them that differ from the ones given.
        quality: the measure over the inner folds.
        given_quality: that of the options given.
        tried: how many combinations.
    """

    options: Options
    changed: Options
    quality: float
    given_quality: float
    tried: int

    @property
    def words(self) -> str:
        """The options chosen, in words."""
        changed = ", ".join(f"{name} {value}" for name, value in self.changed.items()) or "the options given"
        return f"{changed} ({self.quality:.4f}, those given {self.given_quality:.4f})"


def choose(
    stage: Trainable,
    pool: training.Pool,
    split: training.Split,
    options: Options,
    search: Search,
    exam: Exam,
    progress: Progress,
) -> Choice:
    """The combination that orders the inner folds best; of equal ones the first.

    Learns from the queries of `split` that are not held out, and from no others.
    """
    inner = training.split_queries((*split.train, *split.validation), 0.0, exam.validation, exam.seed, search.folds)
    folds = [training.apart(fold, exam.texts) for fold in inner[:-1]]
    candidates = search.candidates(options, exam.seed)
    found: list[float] = []
    began = time.monotonic()
    for candidate in candidates:
        found.append(_quality(stage, pool, folds, candidate, exam, progress))
        if len(found) == 1:
            about_s = (time.monotonic() - began) * len(candidates)
            log.info("search.time", combinations=len(candidates), folds=len(folds), about_s=round(about_s))
        progress("search", len(found), len(candidates))
    best = int(np.argmax(found))
    changed = {name: value for name, value in candidates[best].items() if value != options.get(name)}
    return Choice(candidates[best], changed, found[best], found[0], len(candidates))


def _quality(
    stage: Trainable,
    pool: training.Pool,
    folds: Sequence[training.Split],
    options: Options,
    exam: Exam,
    progress: Progress,
) -> float:
    rankings: Rankings = {}
    for fold in folds:
        training.fit(stage, pool, fold, options, progress)
        rankings |= training.ordered(stage, pool, fold.held_out, exam.depth, exam.parents)
    qrels = {query_id: exam.qrels[query_id] for fold in folds for query_id in fold.held_out}
    return exam.measures.mean(exam.measures.per_query(qrels, rankings))[exam.measures.names[0]]
