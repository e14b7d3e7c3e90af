"""The record of one tuning: training.json, README.md, and the key by which a stopped training is known again."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from orchestrator.finetune import words
from orchestrator.finetune.card import NOT_STATED, data_licence, model_card
from orchestrator.finetune.exported import Agreement
from orchestrator.finetune.learning import Learned
from orchestrator.finetune.lessons import Lessons
from orchestrator.finetune.options import Tuning
from orchestrator.finetune.place import base_name
from orchestrator.finetune.queries import Plan
from orchestrator.finetune.scoring import Exam
from orchestrator.finetune.student import Student
from orchestrator.learned.record import learned_hashes, write_record
from orchestrator.learned.trained import query_hashes
from orchestrator.learning.verdict import Verdict
from orchestrator.models import Model
from orchestrator.models.files import digests, list_files, needed_files
from orchestrator.pipeline import Pipeline
from orchestrator.stage import Json
from orchestrator.storage import stable_hash, write_atomic
from orchestrator.types import Query

_LIBRARIES = ("rerank-orchestrator", "sentence-transformers", "transformers", "torch", "datasets", "accelerate")


def versions() -> dict[str, Json]:
    """Library -> version, of all that decides about the weights."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def key_of(
    kind: str, loss: str, tuning: Tuning, seed: int, card: Model, base: Path, lessons: Lessons, checks: Sequence[Exam]
) -> dict[str, Json]:
    """All that decides about the weights: a training with the same key goes on where it was stopped."""
    asked: list[Json] = [[exam.query.text, [document.doc_id for document in exam.documents]] for exam in checks]
    return {
        "kind": kind,
        "loss": loss,
        "seed": seed,
        "tuning": cast(dict[str, Json], dataclasses.asdict(tuning)),
        "base": dict(digests(base, needed_files(list_files(base)), card.root)),
        "prompts": dict(card.prompts or {}),
        "lessons": lessons.digest,
        "checks": stable_hash(asked),
        "versions": versions(),
    }


def keep_record(
    folder: Path,
    *,
    job: Mapping[str, Any],
    pipeline: Pipeline,
    student: Student,
    plan: Plan,
    lessons: Lessons,
    source: str,
    learned: Learned,
    agreement: Agreement,
    verdict: Verdict,
    said: str,
    won: bool | None,
    name: str,
    use: str,
) -> dict[str, Json]:
    """Write training.json and README.md into the folder of the model; returns the record."""
    corpus, card = pipeline.corpus, student.card
    asked = [*plan.train, *plan.validation, *(Query("", row.query) for row in lessons.rows)]
    record: dict[str, Json] = {
        "name": name,
        "kind": student.kind,
        "stage": student.node.name,
        "base": {
            "label": base_name(card),
            "name": None if card.path else card.name,
            "licence": card.licence or NOT_STATED,
        },
        "corpus": {
            "name": corpus.name,
            "language": corpus.language,
            "content_hash": corpus.content_hash,
            "documents": len(corpus),
            "licence": data_licence(_folder(pipeline)),
        },
        "queries": {
            "told": plan.told,
            "train": len(plan.train),
            "validation": len(plan.validation),
            "held_out": len(plan.held_out),
        },
        "triples": Path(job["triples"]).name if job["triples"] else None,
        "lessons": {
            "count": len(lessons.rows),
            "useless": lessons.useless,
            "dropped": dict(lessons.dropped),
            "filled": lessons.filled,
            "digest": lessons.digest,
        },
        "source": source,
        "loss": job["loss"],
        "teacher": job["teacher"],
        "seed": job["seed"],
        "settings": {
            **{f"negatives.{key}": value for key, value in job["rules"].items()},
            **{f"tuning.{key}": value for key, value in job["tuning"].items()},
        },
        "training": learned.as_json(),
        "export": agreement.as_json(),
        "tuning": {"verdict": said, "won": won},
        "held_out": verdict.as_json(),
        "command": words.command(["train", student.kind], [*pipeline.words, *job["words"]]),
        "use": use,
        "versions": versions(),
        # What the base learned from, the model knows too.
        "query_hashes": cast(list[Json], sorted({*query_hashes(asked), *learned_hashes(student.holder)})),
    }
    write_record(folder, record)
    write_atomic(folder / "README.md", model_card(record))
    return record


def _folder(pipeline: Pipeline) -> Path | None:
    root = pipeline.corpus.source.root
    return root if root.is_dir() else root.parent
