"""Stages with attributes of one's own, and what the lint says of graphs of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.lint import Facts, Finding, lint
from orchestrator.stack.graph import StageGraph, StageSpec

AT = "pipeline.stages"
ENGLISH = Facts("en")


class Stage:
    """A stage of any kind with attributes of its own."""

    score_kind = "bm25"

    def __init__(self, score_kind: str | None = None, **attributes: Any) -> None:
        if score_kind is not None:
            self.score_kind = score_kind
        for name, value in attributes.items():
            setattr(self, name, value)


class Source(Stage):
    def retrieve(self, query: Any, top_k: int, call: Any) -> list[Any]:
        return []


class Merge(Stage):
    score_kind = "rrf"

    def fuse(self, query: Any, lists: Any, call: Any) -> list[Any]:
        return []


class Mixes(Merge):
    """Refuses scores of different kinds."""

    def check_score_kinds(self, kinds: Mapping[str, str]) -> None:
        if len(set(kinds.values())) > 1:
            raise ConfigError("normalise", "cannot mix")


class Pointwise(Stage):
    score_kind = "logit"

    def score(self, pairs: Any, call: Any) -> list[Any]:
        return []

    def token_spans(self, text: str) -> Any:
        return []

    def room(self, query: str) -> int | None:
        return None


class Other(Pointwise):
    """A pointwise rerank of another class."""


class Listwise(Stage):
    score_kind = "rank"

    def rescore(self, query: Any, candidates: Any, call: Any) -> list[Any]:
        return []


def spec(name: str, stage: Any, top_k: int, *inputs: str, **graph_keys: Any) -> StageSpec:
    return StageSpec(name, stage, top_k, inputs, **graph_keys)


def found(*specs: StageSpec, facts: Facts = ENGLISH) -> list[Finding]:
    return lint(StageGraph.of(specs), facts)


def said(*specs: StageSpec, facts: Facts = ENGLISH) -> list[str]:
    return [f"{finding.severity}: {finding}" for finding in found(*specs, facts=facts)]


BM25, DENSE = spec("bm25", Source(), 100), spec("dense", Source("cosine"), 100)
FUSED = spec("fused", Merge(), 50, "bm25", "dense")
HYBRID = (BM25, DENSE, FUSED)


def after_hybrid(stage: Any = None, top_k: int = 5, facts: Facts = ENGLISH, **graph_keys: Any) -> list[str]:
    return said(*HYBRID, spec("precise", stage or Pointwise(), top_k, **graph_keys), facts=facts)
