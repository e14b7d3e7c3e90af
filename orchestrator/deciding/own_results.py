"""Finds, among the evaluations that were kept, what they say of the stacks of the decision rules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.costs.cost import Predicted
from orchestrator.deciding.evidence import Evidence, Own, StackKey
from orchestrator.deciding.rules import RERANK_KINDS
from orchestrator.kept.kept_evaluations import MEASURE, EvaluationRecord, StageRecord


@dataclass(frozen=True)
class Asked:
    """Which evaluations count, and what stacks look like in them.

    Attributes:
        content_hash: of the documents.
        split: of the judgements.
        host: the machine, whose times alone count.
        marks: stack with certain models -> mark of its last stage.
        references: marks that the reference has, by embedder; None where it runs none.
        reference: its name.
        least_queries: fewer say too little.
        commands: what evaluates the reference, by embedder; under None with the one that is configured.
    """

    content_hash: str
    split: str
    host: str
    marks: Mapping[StackKey, str]
    references: Mapping[str | None, str]
    reference: str
    least_queries: int
    commands: Mapping[str | None, str]


@dataclass
class _Gathered:
    found: dict[StackKey, list[Evidence]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def usable(
    records: Iterable[EvaluationRecord], content_hash: str, split: str, topics: str
) -> tuple[list[EvaluationRecord], list[str]]:
    """The records that count, and in words why others do not.

    Args:
        records: all there are.
        content_hash: of the documents.
        split: of the judgements.
        topics: hash of the questions and judgements.
    """
    kept, others = [], {"documents": 0, "split": 0, "topics": 0, "measure": 0}
    for record in records:
        if record.content_hash != content_hash:
            others["documents"] += 1
        elif record.split != split:
            others["split"] += 1
        elif record.topics != topics:
            others["topics"] += 1
        elif record.measure != MEASURE:
            others["measure"] += 1
        else:
            kept.append(record)
    why = {
        "documents": "of this corpus before its documents changed",
        "split": f"of other judgements than split '{split}'",
        "topics": "of questions or judgements that have changed since",
        "measure": f"without {MEASURE} among the measures",
    }
    return kept, [f"not used: {n} evaluation{'s'[: n > 1]} {why[key]}" for key, n in others.items() if n]


def kinds_of(records: Iterable[EvaluationRecord]) -> set[tuple[str, ...]]:
    """The kinds of stages, sorted, of every pipeline that ends at a stage of the records."""
    return {
        tuple(sorted(str(each.cost_kind) for each in _upto(record, stage)))
        for record in records
        for stage in record.stages
    }


def own_results(records: Sequence[EvaluationRecord], asked: Asked, notes: Sequence[str] = ()) -> Own:
    """What the evaluations say of stacks.

    A stage of an evaluated pipeline is evidence of the stack that would end there. It is compared with the reference on
    the same queries: with that of the same evaluation, else with the last evaluation that has one.

    Args:
        records: those that count, the last one first.
        asked: which stacks.
        notes: what to say beside.
    """
    gathered = _Gathered(notes=list(notes))
    for key, mark in asked.marks.items():
        for record in records:
            for stage in record.stages:
                if stage.mark == mark:
                    _take(gathered, key, record, stage, records, asked)
    return Own({key: tuple(found) for key, found in gathered.found.items()}, tuple(dict.fromkeys(gathered.notes)))


def _take(
    gathered: _Gathered,
    key: StackKey,
    record: EvaluationRecord,
    stage: StageRecord,
    records: Sequence[EvaluationRecord],
    asked: Asked,
) -> None:
    references = list(_references(key, record, records, asked))
    if not references:
        command = asked.commands.get(key[1], asked.commands[None])
        gathered.notes.append(f"{key[0]} was evaluated without {asked.reference} beside it: {command}")
        return
    differences = max((_differences(stage, one) for one in references), key=len)
    if len(differences) < asked.least_queries:
        few = f"{len(differences)} judged quer{'y' if len(differences) == 1 else 'ies'}"
        gathered.notes.append(f"evaluations on {few} are not used; {asked.least_queries} or more are")
        return
    top_ks = tuple(each.top_k for each in _upto(record, stage)[:-1])
    evidence = Evidence(
        _reads(record, stage), differences, record.when[:10], top_ks, _measured(record, stage, asked.host)
    )
    gathered.found.setdefault(key, []).append(evidence)


def _references(
    key: StackKey, record: EvaluationRecord, records: Sequence[EvaluationRecord], asked: Asked
) -> Iterator[StageRecord]:
    """Stages that are the reference, with the stack's embedder if both have one; of its own evaluation first."""
    wanted = {mark for embedder, mark in asked.references.items() if embedder is None or key[1] in (None, embedder)}
    own = [stage for stage in record.stages if stage.mark in wanted]
    yield from own or (stage for other in records for stage in other.stages if stage.mark in wanted)


def _differences(stage: StageRecord, reference: StageRecord) -> dict[str, float]:
    theirs = reference.values
    return {query_id: value - theirs[query_id] for query_id, value in stage.values.items() if query_id in theirs}


def _upto(record: EvaluationRecord, stage: StageRecord) -> list[StageRecord]:
    """The stage and those before it, in the order of the graph."""
    needed = {stage.name}
    for each in reversed(record.stages):
        if each.name in needed:
            needed.update(each.inputs)
    return [each for each in record.stages if each.name in needed]


def _reads(record: EvaluationRecord, stage: StageRecord) -> int:
    """How many candidates the last stage that reads them again was given; 0 where none does."""
    reranks = [each for each in _upto(record, stage) if each.cost_kind in RERANK_KINDS]
    return record.stage(reranks[-1].inputs[0]).top_k if reranks else 0


def _measured(record: EvaluationRecord, stage: StageRecord, host: str) -> Predicted | None:
    """Times of the whole, where the stage is the last one and the machine this one."""
    if stage is not record.stages[-1] or record.host != host or not {"p50", "p95"} <= set(record.latency_ms):
        return None
    return Predicted(record.latency_ms["p50"], record.latency_ms["p95"])
