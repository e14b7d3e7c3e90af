"""The way of every document through the stages: its rank and score at each, and the stage that dropped it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from orchestrator.answers.trace import Degraded, Result, StageTrace
from orchestrator.types import RankedList, ScoreKind

GIVEN = "given"
"""The kind of a list that the caller brought in place of a stage."""


@dataclass(frozen=True, slots=True)
class Step:
    """One document at one stage.

    Attributes:
        stage: its name.
        rank: from 1, before the stage's cut.
        score: what the stage, or what stood in for it, gave it; None where it did not get to it.
        passed: whether the next stage, or the answer, had it.
        moved: ranks up (down, where negative) from the stage's input; None for a recall or a fusion.
        scored_by: the stage, or the name of what stood in for it; None where it did not get to it.
        score_kind: what the score is.
    """

    stage: str
    rank: int
    score: float | None
    passed: bool
    moved: int | None = None
    scored_by: str | None = None
    score_kind: ScoreKind | None = None


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
        degraded: its shortfall, or None; where something stood in for it, why that was needed.
        stand_in_degraded: the shortfall of what stood in for it, or None.
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
    stand_in_degraded: Degraded | None = None

    @property
    def n_seen(self) -> int:
        """Documents that it ranked."""
        return len(self.ranked)

    @property
    def skipped(self) -> str | None:
        """Why it did not run for this query, or None."""
        return self.trace.skipped if self.trace else None

    @property
    def scored_by(self) -> str | None:
        """Under which name its scores stand: its own, or `<name>~1` and so on of what stood in for it.

        None where neither scored anything.
        """
        if self.kind == GIVEN:
            return self.name
        if self.skipped is not None or not self.ranked.n_scored:
            return None
        return next((name for name in self.ranked.stage_scores if _is_of(name, self.name)), None)

    @property
    def stand_in(self) -> str | None:
        """The name of what scored in its place, or None."""
        return None if self.scored_by == self.name else self.scored_by

    @property
    def n_scored(self) -> int:
        """The first so many rows were scored by it, or in its place; the others follow as they came."""
        return self.ranked.n_scored if self.scored_by is not None else 0

    @property
    def score_kind(self) -> ScoreKind | None:
        """What its scores are; None where it scored nothing."""
        return self.ranked.kind_at(0) if self.n_scored else None

    @property
    def scores(self) -> np.ndarray:
        """float64 [n_seen], the score of each row that stands under `scored_by`; NaN where there is none."""
        if self.kind == GIVEN:
            return self.ranked.scores
        scores = np.full(self.n_seen, np.nan)
        if self.scored_by is not None:
            scores[: self.n_scored] = self.ranked.stage_scores[self.scored_by][: self.n_scored]
        return scores


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
        if np.isnan(score):
            return Step(stage.name, row + 1, None, row < stage.n_out, moved)
        return Step(stage.name, row + 1, score, row < stage.n_out, moved, stage.scored_by, stage.ranked.kind_at(row))


def flow_of(result: Result) -> Flow:
    """How the documents of `result` moved from stage to stage; made of what the result holds, nothing runs again."""
    told = {trace.stage: trace for trace in result.trace.stages}
    fallen_short = {shortfall.stage: shortfall for shortfall in result.degraded}
    given = [name for name in result.outputs if name not in told]
    stages = [_given(name, result.outputs[name]) for name in given]
    for node in result.graph.nodes:
        ranked, trace = result.outputs[node.name], told[node.name]
        stage = FlowStage(
            node.name,
            node.kind,
            node.inputs,
            node.top_k,
            trace.n_out,
            ranked,
            _rows(ranked),
            trace,
            fallen_short.get(node.name),
        )
        if stage.stand_in in fallen_short:
            stage = replace(stage, stand_in_degraded=fallen_short[stage.stand_in])
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


def _is_of(name: str, stage: str) -> bool:
    """Whether scores under `name` are those of `stage`, or of what stood in for it."""
    return name == stage or name.startswith(f"{stage}~")


def _given(name: str, ranked: RankedList) -> FlowStage:
    return FlowStage(name, GIVEN, (), None, len(ranked), ranked, _rows(ranked))


def _rows(ranked: RankedList) -> dict[str, int]:
    return {doc_id: row for row, doc_id in enumerate(ranked.doc_ids)}
