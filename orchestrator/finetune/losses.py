"""Which loss of sentence-transformers a kind of model learns by, and the columns that it reads.

`contrastive`: the relevant text against the hard negatives of its query, and against the texts of the other queries of
the batch (van den Oord et al., 2018, InfoNCE; with hard negatives Karpukhin et al., 2020). A cross-encoder reads every
pair anew, so that it gets one text of another query; its softmax over one query's own texts is the localized
contrastive estimation of Gao et al. (2021, arXiv 2101.08751).
`binary` (cross-encoder): each pair by itself, relevant or not (cross entropy).
`listwise`: the texts of one query as a list, nothing from other queries. A cross-encoder learns by LambdaLoss (Wang et
al., 2018, NDCG-Loss2++). Vectors learn by the divergence of softmax(grades / 0.25) from softmax(scores): ListNet's
top-one probabilities (Cao et al., 2007), where a relevant text outweighs a negative by e^4.
`distill`: differences of a teacher's scores (margin-MSE, Hofstätter et al., 2020, arXiv 2010.02666).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.finetune.lessons import Lesson
from orchestrator.finetune.networks import Network, require

LAYOUTS = {
    ("cross_encoder", "contrastive"): "tuple",
    ("cross_encoder", "binary"): "pairs",
    ("cross_encoder", "listwise"): "list",
    ("cross_encoder", "distill"): "labelled",
    ("bi_encoder", "contrastive"): "tuple",
    ("bi_encoder", "listwise"): "graded",
    ("bi_encoder", "distill"): "labelled",
    ("late_interaction", "contrastive"): "tuple",
    ("late_interaction", "listwise"): "graded",
    ("late_interaction", "distill"): "labelled",
}
"""(kind, loss) -> how `lessons.columns` lays out what it reads."""

_COSINE_SCALE = 20.0
_GRADE_TEMPERATURE = 0.25
NEW_HEAD_MARGIN = 4.0
"""Root mean square of the margins that a cross-encoder with a new head learns to give, in logits."""
_SAMPLE = 64


def make_loss(network: Network, loss: str) -> Any:
    """The loss module for `network`."""
    if network.kind == "cross_encoder":
        return _of_pairs(network.model, loss)
    if network.kind == "late_interaction":
        return _of_token_vectors(network.model, loss)
    return _of_vectors(network.model, loss)


def _of_pairs(model: Any, loss: str) -> Any:
    losses = require("sentence_transformers.cross_encoder.losses")
    identity = require("torch").nn.Identity()
    if loss == "contrastive":
        return losses.MultipleNegativesRankingLoss(model, num_negatives=1, scale=1.0, activation_fn=identity)
    if loss == "binary":
        return losses.BinaryCrossEntropyLoss(model, activation_fn=identity)
    if loss == "listwise":
        return losses.LambdaLoss(model, weighting_scheme=losses.NDCGLoss2PPScheme(), activation_fn=identity)
    return losses.MarginMSELoss(model, activation_fn=identity)


def _of_vectors(model: Any, loss: str) -> Any:
    losses = require("sentence_transformers.sentence_transformer.losses")
    util = require("sentence_transformers.util")
    cosine = model.similarity_fn_name == "cosine"
    scale = _COSINE_SCALE if cosine else 1.0
    pairwise = util.pairwise_cos_sim if cosine else util.pairwise_dot_score
    if loss == "contrastive":
        return losses.MultipleNegativesRankingLoss(
            model, scale=scale, similarity_fct=util.cos_sim if cosine else util.dot_score
        )
    if loss == "listwise":
        return losses.DistillKLDivLoss(
            model,
            similarity_fct=pairwise,
            student_temperature=1.0 / scale,
            teacher_temperature=_GRADE_TEMPERATURE,
        )
    return losses.MarginMSELoss(model, similarity_fct=pairwise)


def _of_token_vectors(model: Any, loss: str) -> Any:
    losses = require("sentence_transformers.multi_vector_encoder.losses")
    if loss == "contrastive":
        return losses.MultiVectorMultipleNegativesRankingLoss(model)
    if loss == "listwise":
        return losses.MultiVectorDistillKLDivLoss(model, teacher_temperature=_GRADE_TEMPERATURE)
    return losses.MultiVectorMarginMSELoss(model)


def scaled(network: Network, rows: Sequence[Lesson]) -> tuple[list[Lesson], float]:
    """The rows with the teacher's labels on the scale of the student, and the factor.

    A cosine cannot differ by 8, as a teacher's logits do. All labels are multiplied by one number, so that the root
    mean square of their margins (relevant text minus negative) is that of the student's own scores before it learns,
    over the first 64 lessons; for a cross-encoder with a new head, whose scores mean nothing yet, 4 logits.
    """
    from dataclasses import replace

    sample = rows[:_SAMPLE]
    target = NEW_HEAD_MARGIN
    if not network.new_head:
        own = network.pair_scores([(row.query, text) for row in sample for text in row.texts])
        target = _spread(own.reshape(len(sample), -1))
    factor = target / max(_spread(np.array([row.labels for row in sample])), 1e-9)
    return [replace(row, labels=tuple(factor * label for label in row.labels)) for row in rows], factor


def _spread(scores: np.ndarray) -> float:
    return float(np.sqrt(np.mean((scores[:, :1] - scores[:, 1:]) ** 2)))
