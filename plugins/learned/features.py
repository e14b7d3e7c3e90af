"""The features of a query's candidates: one row a candidate, one column a name. Names are part of every model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.types import Vectors

from .columns import Columns, list_features, normalised, stage_features, stage_names
from .matches import FieldMatches, QueryTerms, bm25
from .tokens import Floats, Statistics, Tokens

_FIELD = (
    "bm25",
    "bm25_normalised",
    "tf_sum",
    "tf_max",
    "tf_mean",
    "coverage",
    "idf_coverage",
    "bigrams",
    "phrase",
    "window",
    "distance",
    "first",
    "length",
)
_TEXT = ("bm25", "bm25_normalised", "coverage", "idf_coverage", "rarest")
_QUERY = ("tokens", "terms", "unknown", "idf_sum", "idf_mean", "idf_max")


def feature_names(inputs: Sequence[str], with_cosine: bool) -> list[str]:
    """Every feature by name, in the order of the columns.

    Args:
        inputs: earlier stages whose scores are features.
        with_cosine: whether query and documents come with vectors.
    """
    names = [name for stage in inputs for name in stage_names(stage)]
    names += ["lists.count", "lists.rrf"] if inputs else []
    names += [f"{field}.{name}" for field in ("title", "body") for name in _FIELD]
    names += [f"text.{name}" for name in _TEXT] + [f"query.{name}" for name in _QUERY]
    return names + (["vectors.cosine", "vectors.cosine_normalised"] if with_cosine else [])


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is known of the candidates of one query.

    Attributes:
        columns: earlier stage -> what it said.
        title: token ids of the titles, one document a candidate.
        body: token ids of the bodies.
        terms: the query's terms in the same numbering.
        statistics: of the collection, for these terms.
        cosine: float64 [n_candidates], or None without vectors.
    """

    columns: Mapping[str, Columns]
    title: Tokens
    body: Tokens
    terms: QueryTerms
    statistics: Statistics
    cosine: Floats | None = None


def feature_matrix(found: Candidates) -> Vectors:
    """float32 [n_candidates, n_features], in the order of `feature_names`; NaN where a value is not known."""
    columns = [feature for stage in found.columns.values() for feature in stage_features(stage)]
    if found.columns:
        columns += list_features(list(found.columns.values()), len(found.body))
    columns += _lexical(found)
    if found.cosine is not None:
        columns += [found.cosine, normalised(found.cosine)]
    matrix = np.empty((len(found.body), len(columns)), dtype=np.float32)
    for place, column in enumerate(columns):
        matrix[:, place] = column
    return matrix


def _lexical(found: Candidates) -> Iterator[Floats]:
    statistics, frequencies = found.statistics, found.statistics.frequencies
    title, body = FieldMatches(found.title, found.terms), FieldMatches(found.body, found.terms)
    idf = statistics.idf(frequencies.text)
    yield from _field(title, statistics.idf(frequencies.title), idf, statistics.title_length)
    yield from _field(body, statistics.idf(frequencies.body), idf, statistics.body_length)
    yield from _text(title, body, found.terms, idf, statistics.title_length + statistics.body_length)
    yield from _query(found.terms, frequencies.text == 0, idf, len(found.body))


def _field(matches: FieldMatches, idf: Floats, text_idf: Floats, average: float) -> Iterator[Floats]:
    score = matches.bm25(idf, average)
    yield from (score, normalised(score))
    logs = np.log1p(matches.tf)
    yield from (logs.sum(axis=1), logs.max(axis=1, initial=0.0), logs.sum(axis=1) / max(logs.shape[1], 1))
    yield from _coverage(matches.tf, text_idf)
    yield from matches.bigrams()
    yield from (matches.window(text_idf), matches.distance(), matches.first(), np.log1p(matches.lengths))


def _text(title: FieldMatches, body: FieldMatches, terms: QueryTerms, idf: Floats, average: float) -> Iterator[Floats]:
    tf = title.tf + body.tf
    score = bm25(tf, title.lengths + body.lengths, terms.counts * idf, average)
    yield from (score, normalised(score))
    yield from _coverage(tf, idf)
    yield (tf[:, int(np.argmax(idf))] > 0).astype(np.float64) if len(idf) else np.zeros(len(tf))


def _coverage(tf: Floats, idf: Floats) -> tuple[Floats, Floats]:
    """Share of the distinct query terms that a document holds, plain and weighted by their IDF."""
    held = tf > 0
    total = idf.sum()
    return held.sum(axis=1) / max(len(idf), 1), held @ idf / total if total > 0 else np.zeros(len(tf))


def _query(terms: QueryTerms, unknown: np.ndarray[tuple[int], np.dtype[np.bool_]], idf: Floats, n: int) -> list[Floats]:
    """The same for every candidate of a query: they let a tree treat long and short, rare and common queries apart."""
    many = max(len(idf), 1)
    values = (
        len(terms.sequence),
        len(idf),
        unknown.sum() / many,
        idf.sum(),
        idf.sum() / many,
        idf.max(initial=0.0),
    )
    return [np.full(n, float(value)) for value in values]
