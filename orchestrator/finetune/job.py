"""What is to be trained, and what one training came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.evaluation.measures import Measures
from orchestrator.finetune.negatives import Rules
from orchestrator.finetune.options import Tuning
from orchestrator.learning.verdict import Verdict
from orchestrator.stage import Json


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be trained, and how; conf/task/train.yaml says what each option is."""

    kind: str
    loss: str
    stage: str | None
    teacher: str | None
    triples: str | None
    output: str | None
    seed: int
    held_out: float | str
    max_held_out: int | None
    validation: float
    max_queries: int | None
    measures: Measures
    depth: int
    batch_queries: int
    candidates: int
    rules: Rules
    tuning: Tuning
    words: Sequence[str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one tuning came to.

    Attributes:
        verdict: on the queries held out.
        words: whether the model is better than it was.
        won: the same as a fact; None where that cannot be said.
        told: lines on how it went.
        folder: of the model.
        use: the command line that serves with it.
        record: the content of training.json.
    """

    verdict: Verdict
    words: str
    won: bool | None
    told: Sequence[str]
    folder: Path
    use: str
    record: Mapping[str, Json]

    def as_json(self) -> dict[str, Json]:
        """One line of format=json."""
        kept = {key: self.record[key] for key in ("training", "export", "lessons", "queries")}
        said = {"tuning": self.words, "tuning_won": self.won, "told": " ".join(self.told)}
        return {**self.verdict.as_json(), **said, **kept, "model": str(self.folder), "use": self.use}
