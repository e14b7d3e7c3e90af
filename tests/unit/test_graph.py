"""A pipeline map becomes a graph, or an error that names the place."""

from __future__ import annotations

import pytest

from orchestrator.errors import PipelineError
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Call, Query, RankedList


class Source:
    score_kind = "bm25"

    def retrieve(self, query: Query, top_k: int, call: Call) -> list[tuple[str, float]]:
        return []


class Merge:
    score_kind = "rrf"

    def fuse(self, query: Query, lists: object, call: Call) -> list[tuple[str, float]]:
        return []


class Pointwise:
    score_kind = "logit"

    def score(self, pairs: object, call: Call) -> list[float]:
        return []


class Listwise:
    score_kind = "rank"

    def rescore(self, query: Query, candidates: RankedList, call: Call) -> list[float]:
        return []


def graph(*stages: tuple[object, ...]) -> StageGraph:
    return StageGraph.of([StageSpec(name, stage, top_k, tuple(inputs)) for name, stage, top_k, *inputs in stages])  # type: ignore[arg-type, misc]


HYBRID = (("bm25", Source(), 100), ("dense", Source(), 100), ("fused", Merge(), 50, "bm25", "dense"))


def test_a_rerank_reads_the_stage_above_it() -> None:
    built = graph(*HYBRID, ("precise", Pointwise(), 5))
    assert built["precise"].inputs == ("fused",)
    assert built.result.name == "precise"


def test_order_is_by_inputs_not_by_place_in_the_file() -> None:
    built = graph(("precise", Pointwise(), 5, "fused"), *reversed(HYBRID))
    names = [node.name for node in built.nodes]
    assert names.index("fused") > max(names.index("bm25"), names.index("dense"))
    assert names[-1] == "precise"


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], r"^pipeline\.stages: no stage"),
        ([("a", Source(), 0)], r"^pipeline\.stages\.a\.top_k: 0 is too small"),
        ([("a", object(), 3)], r"^pipeline\.stages\.a\.use: object has none of the methods retrieve, fuse"),
        (
            [*HYBRID[:2], ("f", Merge(), 5, "bm25", "dens")],
            r"^pipeline\.stages\.f\.inputs\[1\]: no stage 'dens'; .*'dense'\?",
        ),
        ([*HYBRID[:2], ("f", Merge(), 5, "bm25", "bm25")], r"inputs\[1\]: 'bm25' stands there twice"),
        ([*HYBRID[:2], ("f", Merge(), 5)], r"^pipeline\.stages\.f\.inputs: a fusion names the stages"),
        ([*HYBRID[:2], ("r", Pointwise(), 5, "bm25", "dense")], r"reads exactly one stage; this one reads bm25, dense"),
        ([("r", Pointwise(), 5)], r"this one is the first stage and reads nothing"),
        (
            [("a", Source(), 3), ("b", Source(), 3, "a")],
            r"^pipeline\.stages\.b\.inputs: a recall stage reads the corpus",
        ),
        (HYBRID[:2], r"nobody reads 'bm25', 'dense'; exactly one stage may be the result"),
        (
            [("a", Source(), 3), ("x", Pointwise(), 3, "y"), ("y", Pointwise(), 3, "x")],
            r"read each other in a circle: [xy] -> [xy] -> [xy]",
        ),
    ],
)
def test_mistakes_are_named(stages: list[tuple[object, ...]], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        graph(*stages)


def test_a_class_with_two_behaviours_is_refused() -> None:
    class Both(Source, Merge):
        pass

    with pytest.raises(PipelineError, match="more than one of the methods"):
        graph(("a", Both(), 3))


def test_without_recall_keeps_the_reranks_and_names_what_they_read() -> None:
    replaced, rest = graph(*HYBRID, ("short", Pointwise(), 20), ("precise", Pointwise(), 5)).without_recall()
    assert replaced == ("fused",)
    assert [node.name for node in rest.nodes] == ["short", "precise"]


def test_without_recall_needs_a_rerank() -> None:
    with pytest.raises(PipelineError, match="no rerank stage"):
        graph(*HYBRID).without_recall()


def test_a_graph_can_end_at_any_stage_and_says_whose_scores_it_sees() -> None:
    whole = graph(*HYBRID, ("short", Pointwise(), 20), ("precise", Pointwise(), 5))
    assert [node.name for node in whole.upto("fused").nodes] == ["bm25", "dense", "fused"]
    assert whole.upto("bm25").result.name == "bm25"
    assert whole.sources("fused") == ("bm25", "dense")
    assert whole.sources("precise") == ("bm25", "dense", "fused", "short")
