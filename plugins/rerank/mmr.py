"""Maximal marginal relevance: the best first, then what is relevant and unlike what stands above it."""

from __future__ import annotations

import numpy as np

from orchestrator.checks import check_choice
from orchestrator.errors import ConfigError
from orchestrator.stage import Embed, is_remote
from orchestrator.types import Call, Need, Query, RankedList, ScoreKind, Scores, Vectors

from ..normalisation import NORMALISE, normalised


class MMRRerank:
    """A `ListRerank` that picks, again and again, the candidate of the highest marginal relevance.

    `(1 - diversity) * relevance(d) - diversity * max(cosine(d, picked))`, from Carbonell and Goldstein (SIGIR 1998,
    "The Use of MMR, Diversity-Based Reranking", section 2), whose lambda is `1 - diversity` here, as Qdrant has it.
    With nothing picked yet the similarity is 0, and a cosine below 0 counts 0 too: so the value at which a candidate
    is picked, which is its score, can only fall from pick to pick.

    Args:
        embedder: whose vectors tell what is alike.
        diversity: 0 keeps the incoming order, 1 looks at nothing but difference.
        relevance: `cosine` of query and document, or how the incoming scores are normalised: `min_max`, `rank`,
            `z_score`, `distribution`, `none`; those of the last stage that ran.

    Raises:
        ConfigError: `diversity` is not within 0 and 1, or there is no such relevance.
    """

    score_kind: ScoreKind = "weighted"
    needs: frozenset[Need] = frozenset({"vectors"})

    def __init__(self, embedder: Embed, diversity: float = 0.3, relevance: str = "min_max") -> None:
        if isinstance(diversity, bool) or not isinstance(diversity, int | float) or not 0 <= diversity <= 1:
            raise ConfigError("diversity", f"found {diversity!r}; expected a number from 0 to 1")
        check_choice("relevance", relevance, (*NORMALISE, "cosine"))
        self.embedder = embedder
        self.diversity = float(diversity)
        self.relevance = relevance

    @property
    def is_remote(self) -> bool:
        """Whether the embedder waits for somebody else's machine."""
        return is_remote(self.embedder)

    def load(self) -> None:
        """Load the embedder."""
        self.embedder.load()

    def rescore(self, query: Query, candidates: RankedList, call: Call) -> Scores:
        """float64 [n_candidates], each at most `1 - diversity` where relevance is within 0 and 1."""
        if not len(candidates):
            return np.empty(0)
        vectors = _units(np.stack([_vector(call.documents[doc_id].vector) for doc_id in candidates.doc_ids]))
        return marginal_relevance(self._relevance(query, candidates, vectors), vectors, self.diversity)

    def _relevance(self, query: Query, candidates: RankedList, vectors: Vectors) -> Scores:
        if self.relevance != "cosine":
            return normalised(candidates, self.relevance)
        return np.asarray(vectors @ _units(_vector(query.vector)[None])[0], np.float64)


def marginal_relevance(relevance: Scores, vectors: Vectors, diversity: float) -> Scores:
    """float64 [n]: the value at which each candidate was picked, ties picked in incoming order.

    Args:
        relevance: float64 [n].
        vectors: float32 [n, dim], of length 1.
        diversity: from 0 to 1.
    """
    values = np.empty(len(relevance))
    nearest = np.zeros(len(relevance))  # the highest cosine with anything picked, or 0
    left = np.ones(len(relevance), dtype=bool)
    for _ in range(len(relevance)):
        marginal = np.where(left, (1 - diversity) * relevance - diversity * nearest, -np.inf)
        best = int(np.argmax(marginal))
        values[best], left[best] = marginal[best], False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return values


def _vector(vector: Vectors | None) -> Vectors:
    if vector is None:
        raise ValueError("came without vectors; the core supplies them for `needs = {'vectors'}`")
    return vector


def _units(rows: Vectors) -> Vectors:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float32)
    units: Vectors = rows / np.maximum(lengths, np.float32(1e-12))
    return units
