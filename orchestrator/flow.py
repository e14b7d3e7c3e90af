"""The way of every document through the stages: its rank and score at each, and the stage that dropped it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from orchestrator.trace import Degraded, Result, StageTrace
from orchestrator.types import RankedList, ScoreKind

GIVEN = "given"
"""The kind of a list that the caller brought in place of a stage."""


@dataclass(frozen=True, slots=True)
class Step:
    """One document at one stage.

    Attributes:
        stage: its name.
        rank: from 1, before the stage's cut.
        score: what the stage itself gave it; None where it did not get to it.
        passed: whether the next stage, or the answer, had it.
        moved: ranks up (down, where negative) from the stage's input; None for a recall or a fusion.
    """

    stage: str
    rank: int
    score: float | None
    passed: bool
    moved: int | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """One document on its way through all stages.

    Attributes:
        steps: stage name -> the document there, in the order of the stages; those that never saw it are missing.
        found_by: the recalls that found it, or the given list it was in; one alone is a document that only it knew.
        dropped_by: the stage that did not pass it on; None for a document of the answer.
        rank: in the answer, from 1; None where it was dropped.
    """

    doc_id: str
    steps: Mapping[str, Step]
    found_by: tuple[str, ...]
    dropped_by: str | None
    rank: int | None


@dataclass(frozen=True, slots=True)
class FlowStage:
    """One stage, and every document that it ranked.

    Attributes:
        kind: `recall`, `fusion`, `rerank`, or `given` for a list that the caller brought.
        inputs: names of the stages that it read.
        top_k: how many it passes on at most; None for a given list.
        n_out: the first so many of `ranked` were passed on.
        ranked: all that it ranked, before its cut.
        rows: document -> its row in `ranked`, from 0.
        trace: what the stage told; None for a given list.
        degraded: its shortfall, or None.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    top_k: int | None
    n_out: int
    ranked: RankedList = field(repr=False)
    rows: Mapping[str, int] = field(repr=False)
    trace: StageTrace | None = None
    degraded: Degraded | None = None

    @property
    def n_seen(self) -> int:
        """Documents that it ranked."""
        return len(self.ranked)

    @property
    def skipped(self) -> str | None:
        """Why it did not run for this query, or None."""
        return self.trace.skipped if self.trace else None

    @property
    def n_scored(self) -> int:
        """The first so many rows were scored by it; the others follow as they came."""
        return 0 if self.skipped is not None else self.ranked.n_scored

    @property
    def score_kind(self) -> ScoreKind | None:
        """What its own scores are; None where it scored nothing."""
        return self.ranked.score_kind if self.n_scored else None

    @property
    def scores(self) -> np.ndarray:
        """float64 [n_seen], its own score of each row; NaN where it gave none."""
        if self.kind == GIVEN:
            return self.ranked.scores
        own = np.full(self.n_seen, np.nan)
        own[: self.n_scored] = self.ranked.stage_scores.get(self.name, self.ranked.scores)[: self.n_scored]
        return own


@dataclass(frozen=True)
class Flow:
    """How the documents of one query moved from stage to stage.

    Attributes:
        stages: given lists first, then the stages in an order in which each comes after its inputs.
        fates: document -> the stage that dropped it, None for those of the answer. The answer stands first, then what
            the last stage dropped by its order there, then what the stage before it dropped, and so on.
    """

    stages: tuple[FlowStage, ...]
    fates: Mapping[str, str | None] = field(repr=False)

    def __getitem__(self, stage: str) -> FlowStage:
        return self._by_name[stage]

    @property
    def doc_ids(self) -> tuple[str, ...]:
        """Every document that any stage saw, the nearest to the answer first."""
        return tuple(self.fates)

    @cached_property
    def answer(self) -> tuple[str, ...]:
        """The documents of the answer, best first."""
        return tuple(doc_id for doc_id, fate in self.fates.items() if fate is None)

    def dropped(self, stage: str) -> tuple[str, ...]:
        """The documents that ended at `stage`, by their rank there; those that it left out without a rank come last."""
        ended = [doc_id for doc_id, fate in self.fates.items() if fate == stage]
        return tuple(sorted(ended, key=lambda doc_id: self[stage].rows.get(doc_id, self[stage].n_seen)))

    def way(self, doc_id: str) -> Way:
        """The way of one document.

        Raises:
            KeyError: no stage saw it.
        """
        fate = self.fates[doc_id]
        steps = {stage.name: self._step(stage, doc_id) for stage in self.stages if doc_id in stage.rows}
        found_by = tuple(name for name in steps if self[name].kind in ("recall", GIVEN))
        rank = self.stages[-1].rows[doc_id] + 1 if fate is None else None
        return Way(doc_id, steps, found_by, fate, rank)

    def best(self, doc_ids: Iterable[str]) -> str | None:
        """Which of `doc_ids` came nearest to the answer; None where no stage saw any of them."""
        seen = [doc_id for doc_id in doc_ids if doc_id in self.fates]
        return min(seen, key=self._places.__getitem__, default=None)

    @cached_property
    def _by_name(self) -> Mapping[str, FlowStage]:
        return {stage.name: stage for stage in self.stages}

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {doc_id: place for place, doc_id in enumerate(self.fates)}

    @cached_property
    def _scores(self) -> Mapping[str, np.ndarray]:
        return {stage.name: stage.scores for stage in self.stages}

    def _step(self, stage: FlowStage, doc_id: str) -> Step:
        row = stage.rows[doc_id]
        score = float(self._scores[stage.name][row])
        before = self[stage.inputs[0]].rows.get(doc_id) if len(stage.inputs) == 1 and stage.kind == "rerank" else None
        moved = None if before is None else before - row
        return Step(stage.name, row + 1, None if np.isnan(score) else score, row < stage.n_out, moved)


def flow_of(result: Result) -> Flow:
    """How the documents of `result` moved from stage to stage; made of what the result holds, nothing runs again."""
    told = {trace.stage: trace for trace in result.trace.stages}
    fallen_short = {shortfall.stage: shortfall for shortfall in result.degraded}
    given = [name for name in result.outputs if name not in told]
    stages = [_given(name, result.outputs[name]) for name in given]
    for node in result.graph.nodes:
        ranked, trace = result.outputs[node.name], told[node.name]
        rows = _rows(ranked)
        shortfall = fallen_short.get(node.name)
        stage = FlowStage(node.name, node.kind, node.inputs, node.top_k, trace.n_out, ranked, rows, trace, shortfall)
        stages.append(stage)
    return Flow(tuple(stages), _fates(result.doc_ids, stages))


def _fates(answer: Iterable[str], stages: Sequence[FlowStage]) -> dict[str, str | None]:
    fates: dict[str, str | None] = dict.fromkeys(answer)
    readers = {name: stage.name for stage in reversed(stages) for name in stage.inputs}
    for stage in reversed(stages):
        for doc_id in stage.ranked.doc_ids[: stage.n_out]:
            # Passed on and seen no more: by a fusion that did not run, which passes on one of its lists.
            fates.setdefault(doc_id, readers.get(stage.name, stage.name))
        for doc_id in stage.ranked.doc_ids[stage.n_out :]:
            fates.setdefault(doc_id, stage.name)
    return fates


def _given(name: str, ranked: RankedList) -> FlowStage:
    return FlowStage(name, GIVEN, (), None, len(ranked), ranked, _rows(ranked))


def _rows(ranked: RankedList) -> dict[str, int]:
    return {doc_id: row for row, doc_id in enumerate(ranked.doc_ids)}
