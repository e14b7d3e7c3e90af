"""What the stages of a graph cost by a cost model."""

from __future__ import annotations

from pathlib import Path

import pytest
from lint_stages import Pointwise, Source, Stage, spec

from orchestrator.costs import kept
from orchestrator.costs.cost import CostModel, ModelInfo, Predicted, StageCost
from orchestrator.costs.kept import Calibration
from orchestrator.costs.lengths import Lengths
from orchestrator.costs.node_cost import NodeCosts, has_other_cards, reference_costs, shipped_cards
from orchestrator.models import Model
from orchestrator.stack.graph import StageGraph
from orchestrator.stack.passages import Passages

DATA = {
    "origin": "figures of a test",
    "query_tokens": 10,
    "stages": [
        {"kind": "dense", "ms_per_document": 0.01, "source": "here"},
        {
            "kind": "embed",
            "model": "minilm",
            "parameters_millions": 20,
            "fixed_ms": 5,
            "ms_per_token": 0.5,
            "source": "-",
        },
        {"kind": "cross_encoder", "model": "l6", "parameters_millions": 20, "ms_per_token": 0.2, "source": "here"},
    ],
    "models": {"l12": {"work": 2.0, "source": "here"}},
    "devices": {"gpu": {"cross_encoder": {"factor": 0.1, "source": "here"}}},
    "spread": {"local": {"factor": 1.5, "source": "here"}, "remote": {"factor": 3.0, "source": "here"}},
}
COST = CostModel.of(DATA)
CARDS = {"org/l12-on-the-hub": "l12", "org/minilm": "minilm"}
PAIR = 10 + 100 + 3
"""Tokens of a question, a document and what stands around them."""


def reads_pairs(**attributes: object) -> Pointwise:
    card = {"name": "org/l12-on-the-hub", **attributes.pop("card", {})}  # type: ignore[dict-item]
    return Pointwise(cost_kind="cross_encoder", model=Model(role="reranker", **card), **attributes)


def p50(stage: Pointwise, n: int = 50, **graph_keys: object) -> float:
    graph = StageGraph.of([spec("dense", Source(), 50), spec("precise", stage, 5, **graph_keys)])
    predicted = NodeCosts(graph, COST, CARDS, Lengths.even(COST.query_tokens, 100)).predicted_ms(graph["precise"], n)
    assert predicted is not None
    return predicted.p50_ms


def test_a_model_is_known_by_its_card_or_its_size() -> None:
    assert p50(reads_pairs()) == pytest.approx(50 * PAIR * 0.2 * 2.0)
    sized = {"name": "org/unknown", "parameters_millions": 60.0}
    assert p50(reads_pairs(card=sized)) == pytest.approx(50 * PAIR * 0.2 * 60 / 20)
    assert p50(reads_pairs(card={"name": "org/unknown"})) == pytest.approx(50 * PAIR * 0.2)


def test_length_passages_and_device_count() -> None:
    assert p50(reads_pairs(card={"max_length_tokens": 64})) == pytest.approx(50 * 64 * 0.2 * 2.0)
    lead = Passages(how="title_lead", size=40)
    assert p50(reads_pairs(), passages=lead) == pytest.approx(50 * (10 + 40 + 3) * 0.2 * 2.0)
    for on_gpu in ({"device": "cuda:1"}, {"device": None, "precision": "fp16"}):
        assert p50(reads_pairs(**on_gpu)) == pytest.approx(50 * PAIR * 0.2 * 2.0 * 0.1)
    assert p50(reads_pairs(device="cpu", precision="fp32")) == pytest.approx(50 * PAIR * 0.2 * 2.0)


@pytest.mark.parametrize(
    ("policy", "windows", "tokens"),
    [
        (Passages(how="windows", size=40), 3, 40 + 40 + 40),  # from 0, 30 and 60
        (Passages(how="windows", size=40, stride=40), 3, 40 + 40 + 20),
        (Passages(how="windows", size=40, stride=20, max_windows=2), 2, 40 + 40),
        (Passages(how="windows", size=40, aggregate="first"), 1, 40),
        (Passages(how="windows", size=200), 1, 100),
        (Passages(how="windows"), 1, 100),
        (Passages(how="truncate", size=40), 1, 100),
        (Passages(how="head_tail", size=40), 1, 40),
    ],
)
def test_of_passages_as_many_are_reckoned_as_are_read(policy: Passages, windows: int, tokens: int) -> None:
    assert p50(reads_pairs(), passages=policy) == pytest.approx(50 * (windows * (10 + 3) + tokens) * 0.2 * 2.0)


def test_what_was_measured_on_a_gpu_is_not_made_faster_once_more() -> None:
    row = StageCost("cross_encoder", "here", "l12", ms_per_token=0.01, settings={"device": "cuda"})
    cost = COST.with_measured([row], "here")
    model = ModelInfo("l12")
    on_gpu = cost.predict("cross_encoder", 50, lengths=Lengths.even(10, 100), model=model, device="gpu")
    assert on_gpu.p50_ms == pytest.approx(50 * PAIR * 0.01)
    on_cpu = cost.predict("cross_encoder", 50, lengths=Lengths.even(10, 100), model=model)
    assert on_cpu.p50_ms == pytest.approx(50 * PAIR * 0.2 * 2.0), "that of the usual model on the CPU, as before"


def test_a_service_that_embeds_is_reckoned_where_it_was_measured() -> None:
    embedder = Stage(model=Model(role="embedder", name="far"), is_remote=True)
    graph = StageGraph.of([spec("dense", Source(needs=frozenset({"vectors"}), embedder=embedder), 50)])
    assert NodeCosts(graph, COST, CARDS).predicted_ms(graph["dense"], 100) is None
    measured = COST.with_measured([StageCost("embed", "here", "far", fixed_ms=80.0)], "here")
    assert NodeCosts(graph, measured, CARDS).predicted_ms(graph["dense"], 100) == Predicted(80.0, 240.0)


def test_the_first_stage_that_needs_the_questions_vector_pays_for_it() -> None:
    embedder = Stage(model=Model(role="embedder", name="org/minilm"), at_hand=lambda: True)
    vectors = {"needs": frozenset({"vectors"}), "embedder": embedder}
    specs = [spec("dense", Source(cost_kind="dense", **vectors), 50), spec("short", Pointwise(**vectors), 5)]
    graph = StageGraph.of(specs)
    costs = NodeCosts(graph, COST, CARDS)
    search, question = 10.0, 5 + 10 * 0.5
    assert costs.predicted_ms(graph["dense"], 1000) == Predicted(search + question, 1.5 * (search + question))
    assert costs.predicted_ms(graph["short"], 50) is None, "no kind, and the vector is there"


def test_of_what_nothing_is_known_nothing_is_said() -> None:
    elsewhere = {"needs": frozenset({"vectors"}), "embedder": Stage(model=Model(role="embedder", name="hosted"))}
    somewhere = {"cost_kind": "dense", "backend": "torch", "device": None}
    unknown = ({}, {"cost_kind": None}, {"cost_kind": "quantum"}, elsewhere, somewhere)
    for stage in (Source(**attributes) for attributes in unknown):
        graph = StageGraph.of([spec("dense", stage, 50)])
        assert NodeCosts(graph, COST, CARDS).predicted_ms(graph["dense"], 10) is None


def test_the_shipped_figures_know_their_models_by_hub_name() -> None:
    graph = StageGraph.of([spec("bm25", Source(cost_kind="bm25"), 50)])
    costs = NodeCosts.reference(graph)
    assert costs.predicted_ms(graph["bm25"], 100_000) is not None
    assert costs.figures.startswith(
        "reference figures of other machines, not measured on this machine; documents of 140"
    )
    assert shipped_cards(COST) == {"sentence-transformers/all-MiniLM-L6-v2": "minilm"}


def test_a_shipped_model_that_was_measured_is_known_though_the_reference_has_no_row_of_it(tmp_path: Path) -> None:
    row = StageCost("cross_encoder", "here", "ettin_reranker_17m", fixed_ms=7.0, p95_factor=1.0)
    now = "2026-11-26T10:00:00+00:00"
    kept.write(tmp_path, Calibration(now, 1.0, kept.this_machine(), [row]))
    stage = reads_pairs(card={"name": "cross-encoder/ettin-reranker-17m-v1"})
    graph = StageGraph.of([spec("dense", Source(), 50), spec("precise", stage, 5)])
    found = NodeCosts.of_machine(graph, tmp_path, None).predicted_ms(graph["precise"], 50)
    assert found is not None
    assert found.p50_ms == 7.0


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"backend": "onnx", "threads": 1, "batch_tokens": 512}, None),
        ({"backend": None, "threads": 1, "batch_tokens": 512}, None),
        ({"backend": "openvino", "threads": 1, "batch_tokens": 512}, "backend=onnx, not openvino"),
        ({"backend": "onnx", "threads": None, "batch_tokens": 256}, "threads=1, not null, batch_tokens=512, not 256"),
    ],
)
def test_a_stage_set_otherwise_than_what_was_measured_is_named(attributes: dict, said: str | None) -> None:
    settings = {"backend": "onnx", "threads": 1, "batch_tokens": 512}
    row = StageCost("cross_encoder", "here", "mine", fixed_ms=7.0, settings=settings)
    stage = reads_pairs(card={"name": "mine"}, **attributes)
    graph = StageGraph.of([spec("dense", Source(cost_kind="dense"), 50), spec("precise", stage, 5)])
    figures = NodeCosts(graph, COST.with_measured([row], "by a test"), CARDS).figures
    assert figures.partition("; precise was measured with ")[2] == (said or "")
    assert "measured with" not in NodeCosts(graph, COST, CARDS).figures


def test_of_an_embedder_batches_are_no_matter() -> None:
    settings = {"threads": 1, "batch_tokens": 512}
    row = StageCost("embed", "here", None, fixed_ms=7.0, settings=settings)
    for threads, said in ((1, False), (2, True)):
        embedder = Stage(at_hand=lambda: True, threads=threads, batch_tokens=256)
        stage = Source(cost_kind="dense", needs=frozenset({"vectors"}), embedder=embedder)
        graph = StageGraph.of([spec("dense", stage, 50)])
        figures = NodeCosts(graph, COST.with_measured([row], "by a test"), CARDS).figures
        assert figures.endswith("; dense was measured with threads=1, not 2") == said


def test_a_card_of_ones_own_is_looked_for_only_where_the_figures_name_one() -> None:
    reference = reference_costs()
    assert not has_other_cards(reference)
    for model, is_other in (("mine", True), ("/models/mine", False), ("org/mine", False), ("bge_m3", False)):
        row = StageCost("cross_encoder", "here", model, fixed_ms=7.0)
        assert has_other_cards(reference.with_measured([row], "here")) == is_other, model
