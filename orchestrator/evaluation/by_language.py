"""Figures of the questions of each language, where they are in several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.errors import MissingExtraError
from orchestrator.languages import MIXED
from orchestrator.stack.gate_languages import language_of, languages_in
from orchestrator.types import Query

if TYPE_CHECKING:
    from orchestrator.evaluation.quality import Quality

Tell: TypeAlias = Callable[[Query], str | None]
"""What a question is in; None where nothing tells."""


@dataclass(frozen=True, slots=True)
class LanguageFigures:
    """The questions of one language.

    Attributes:
        n_queries: how many of them were judged.
        means: stage -> mean of one measure over them, as if the pipeline ended there; in the order of the graph.
    """

    n_queries: int
    means: Mapping[str, float]


def tell_for(corpus: str) -> Tell:
    """Takes a question at its word; others are told by their text, where a corpus of language `corpus` has several."""
    several = len([*languages_in(corpus)]) != 1

    def tell(query: Query) -> str | None:
        if query.language is None and not several:
            return None
        try:
            return language_of(query)
        except MissingExtraError:
            return None

    return tell


def group_of(language: str) -> str:
    """The language without region or script, so that their questions count together."""
    return language if language == MIXED else language.partition("-")[0]


def by_language(quality: Quality, measure: str) -> dict[str, LanguageFigures]:
    """Language -> its figures, that of most questions first; empty where all are in one, or nobody knows.

    Args:
        quality: the figures of all.
        measure: one of those that were computed.
    """
    counts = Counter(quality.languages.values())
    if len(counts) < 2:
        return {}
    return {language: _figures(quality, measure, language) for language, _ in counts.most_common()}


def _figures(quality: Quality, measure: str, language: str) -> LanguageFigures:
    own = [query_id for query_id, found in quality.languages.items() if found == language]
    means = {
        name: sum(system.per_query[query_id][measure] for query_id in own) / len(own)
        for name, system in quality.systems.items()
    }
    return LanguageFigures(len(own), means)


def shown_stages(quality: Quality) -> Sequence[str]:
    """The ranking without any rerank, and every rerank; the last stage where nothing reranks."""
    reranks = [node.name for node in quality.nodes if node.kind == "rerank"]
    return [quality.null, *reranks] if quality.null is not None else [quality.final]
