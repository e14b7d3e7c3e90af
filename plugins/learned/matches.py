"""Where the query's terms stand in one field of the candidates, and the features that follow from it.

Everything is computed from the few places that match, for all candidates at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .tokens import Floats, Ints, Tokens

K1, B = 0.9, 0.4
"""Anserini's defaults, as in recall/bm25; trees do not care about the scale, and little about the constants."""
PROXIMITY_TERMS = 16
"""Of a longer question only so many terms, the rarest, count for the window: its cost grows with their number."""


@dataclass(frozen=True, slots=True)
class QueryTerms:
    """The terms of a query in one numbering of terms.

    Attributes:
        ids: uint32 [n_terms], each distinct term once, in the order of its first appearance.
        sequence: int64 [n_tokens], the query as places in `ids`.
    """

    ids: npt.NDArray[np.uint32]
    sequence: Ints

    @property
    def counts(self) -> Ints:
        """int64 [n_terms]: how often each term stands in the query."""
        return np.bincount(self.sequence, minlength=len(self.ids))

    @property
    def bigrams(self) -> Ints:
        """int64 [n_terms, n_terms]: number of the pair (a, b) where b follows a in the query, -1 elsewhere."""
        numbers = np.full((len(self.ids), len(self.ids)), -1, dtype=np.int64)
        pairs = np.unique(np.stack([self.sequence[:-1], self.sequence[1:]], axis=1), axis=0)
        numbers[pairs[:, 0], pairs[:, 1]] = np.arange(len(pairs))
        return numbers


class FieldMatches:
    """The places of one field of the candidates where a term of the query stands.

    Args:
        tokens: the field, one document a candidate.
        terms: the query, in the same numbering.

    Attributes:
        tf: float64 [n_candidates, n_terms], how often each term stands in each candidate.
        lengths: int64 [n_candidates], tokens of the field.
    """

    def __init__(self, tokens: Tokens, terms: QueryTerms) -> None:
        self._terms, self._n = terms, len(tokens)
        self.lengths = tokens.lengths
        self._places, self._slots = _found(tokens.ids, terms.ids)
        self._documents = np.searchsorted(tokens.offsets, self._places, side="right") - 1
        self._starts = tokens.offsets[:-1]
        cells = self._documents * len(terms.ids) + self._slots
        shape = (self._n, len(terms.ids))
        self.tf: Floats = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)

    def bm25(self, idf: Floats, average: float) -> Floats:
        """float64 [n_candidates]: Lucene's BM25 of this field, a repeated query term counting again."""
        return bm25(self.tf, self.lengths, self._terms.counts * idf, average)

    def first(self) -> Floats:
        """float64 [n_candidates]: where the first match stands, 0 at the start, below 1 at the end; NaN for none."""
        place = np.full(self._n, np.nan)
        documents, at = np.unique(self._documents, return_index=True)
        place[documents] = (self._places[at] - self._starts[documents]) / self.lengths[documents]
        return place

    def bigrams(self) -> tuple[Floats, Floats]:
        """Share of the query's distinct neighbouring pairs that stand side by side, and the longest phrase.

        The phrase is the longest run of tokens in which each pair of neighbours is one of the query's, as a share of
        the query's length, at most 1. Both float64 [n_candidates]; NaN for a query of one token.
        """
        if len(self._terms.sequence) < 2:
            return np.full(self._n, np.nan), np.full(self._n, np.nan)
        numbers = self._terms.bigrams
        pairs = numbers[self._slots[:-1], self._slots[1:]]
        linked = (np.diff(self._places) == 1) & (np.diff(self._documents) == 0) & (pairs >= 0)
        return self._share(linked, pairs, int(numbers.max()) + 1), self._phrase(linked)

    def _share(self, linked: npt.NDArray[np.bool_], pairs: Ints, n_pairs: int) -> Floats:
        cells = np.unique(self._documents[1:][linked] * n_pairs + pairs[linked])
        return np.bincount(cells // n_pairs, minlength=self._n) / n_pairs

    def _phrase(self, linked: npt.NDArray[np.bool_]) -> Floats:
        longest = np.zeros(self._n)
        if len(self._places):
            index = np.arange(len(self._places))
            begun = np.maximum.accumulate(np.where(np.concatenate([[False], linked]), 0, index))
            np.maximum.at(longest, self._documents, index - begun + 1)
        return np.minimum(longest / len(self._terms.sequence), 1.0)

    def distance(self) -> Floats:
        """float64 [n_candidates]: mean distance in tokens of neighbouring matches of different terms; NaN for none."""
        different = (np.diff(self._slots) != 0) & (np.diff(self._documents) == 0)
        documents, gaps = self._documents[1:][different], np.diff(self._places)[different]
        total = np.bincount(documents, weights=gaps, minlength=self._n)
        number = np.bincount(documents, minlength=self._n)
        mean = np.full(self._n, np.nan)
        np.divide(total, number, out=mean, where=number > 0)
        return mean

    def window(self, idf: Floats) -> Floats:
        """float64 [n_candidates]: distinct matched terms per token of the smallest window that holds them all.

        1 when they stand side by side; NaN for fewer than two. Of a long query the rarest 16 terms count.
        """
        wanted = np.argsort(-idf, kind="stable")[:PROXIMITY_TERMS]
        column = np.full(len(idf), -1)
        column[wanted] = np.arange(len(wanted))
        kept = column[self._slots] >= 0
        places, documents, slots = self._places[kept], self._documents[kept], column[self._slots[kept]]
        matched = self.tf[:, wanted] > 0
        width = np.full(self._n, np.inf)
        if len(places):
            np.minimum.at(width, documents, self._widths(places, documents, slots, matched))
        number = matched.sum(axis=1)
        return np.where(number > 1, number / width, np.nan)

    def _widths(self, places: Ints, documents: Ints, slots: Ints, matched: npt.NDArray[np.bool_]) -> Floats:
        """float64 [n_matches]: the smallest window that ends at each match; inf where a term is still to come."""
        last = np.full((len(places), matched.shape[1]), -1, dtype=np.int64)
        last[np.arange(len(places)), slots] = places
        np.maximum.accumulate(last, axis=0, out=last)
        begin = np.where(matched[documents], last, np.iinfo(np.int64).max).min(axis=1)
        return np.where(begin >= self._starts[documents], places - begin + 1.0, np.inf)


def bm25(tf: Floats, lengths: Ints, weights: Floats, average: float) -> Floats:
    """float64 [n_documents]: sum over terms of weight * tf / (tf + K1 * (1 - B + B * length / average))."""
    damping = K1 * (1 - B + B * lengths / average) if average > 0 else np.full(len(lengths), K1)
    return (tf / (tf + damping[:, None])) @ weights


def _found(ids: npt.NDArray[np.uint32], wanted: npt.NDArray[np.uint32]) -> tuple[Ints, Ints]:
    """(places in `ids` that hold one of `wanted`, which one), both int64 [n_matches], ascending by place."""
    order = np.argsort(wanted)
    if not len(order):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    in_order = wanted[order]
    near = np.minimum(np.searchsorted(in_order, ids), len(order) - 1)
    places = np.flatnonzero(in_order[near] == ids)
    return places, order[near[places]]
