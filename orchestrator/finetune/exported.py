"""Whether the exported model scores as the one that learned: the same pairs, by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from orchestrator.errors import ConfigError
from orchestrator.finetune.lessons import Lesson
from orchestrator.finetune.networks import Network
from orchestrator.finetune.scoring import Exam, Pairs, load_holder, score_pairs
from orchestrator.models import Model, find_or_export
from orchestrator.stage import EmbedTokens, Json
from orchestrator.types import Call, Document, Query, Scores

_PAIRS = 64


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a comparison of scores came to.

    Attributes:
        pairs: how many were compared.
        max_difference: largest difference of two scores of one pair.
        problem: why there is no export, or None.
    """

    pairs: int
    max_difference: float
    problem: str | None = None

    def words(self) -> str:
        """The comparison in a sentence."""
        if self.problem is not None:
            return f"No ONNX export: {self.problem}"
        return f"ONNX export: scores differ from torch by at most {self.max_difference:.2g} on {self.pairs} pairs."

    def as_json(self) -> dict[str, Json]:
        """For training.json."""
        return {"pairs": self.pairs, "max_difference": self.max_difference, "problem": self.problem}


def _of_tokens(scorer: object, pairs: Pairs) -> Scores:
    """MaxSim of the encoder's own vectors: the stage keeps fewer bits of them and weighs tokens, torch does neither."""
    encoder = cast(EmbedTokens, getattr(scorer, "encoder", scorer))
    load_holder(encoder)
    asked = encoder.embed_tokens([query.text for query, _ in pairs], kind="query", call=Call())
    read = encoder.embed_tokens([document.full_text for _, document in pairs], kind="document", call=Call())
    both = zip(asked, read, strict=True)
    return np.array([float((left.vectors @ right.vectors.T).max(axis=1).sum()) for left, right in both])


def compare_export(
    card: Model, scorer: object, network: Network, exams: Sequence[Exam], rows: Sequence[Lesson]
) -> Agreement:
    """Make the export, and compare what the stage scores with what torch does.

    Args:
        card: of the written model.
        scorer: the stage with that model, or its embedder.
        network: the model that learned, with its weights of the end and its own length.
        exams: their pairs are compared; without any, those of the lessons.
        rows: the lessons.
    """
    problem = None
    try:
        find_or_export(card)
    except ConfigError as error:
        problem = str(error)
    pairs = [(exam.query, document) for exam in exams for document in exam.documents][:_PAIRS]
    if not pairs:
        pairs = [(Query("", row.query), Document("", text)) for row in rows for text in row.texts][:_PAIRS]
    served = _of_tokens(scorer, pairs) if network.kind == "late_interaction" else score_pairs(scorer, pairs)
    own = network.pair_scores([(query.text, document.full_text) for query, document in pairs])
    return Agreement(len(pairs), float(np.abs(served - own).max()), problem)
