"""A calibration on disk, and predictions by it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from orchestrator.calibration.timed import model_of
from orchestrator.costs import kept
from orchestrator.costs.cost import CostModel, ModelInfo, StageCost
from orchestrator.costs.kept import Calibration, CorpusFigures, Setting
from orchestrator.costs.lengths import Lengths
from orchestrator.costs.node_cost import reference_costs
from orchestrator.costs.timing import Throughput
from orchestrator.costs.use import corpus_figures, estimated_lengths, measured_here
from orchestrator.pipeline import Pipeline
from orchestrator.types import Document

EMBED = StageCost(
    "embed", "here", "minilm", fixed_ms=3.0, ms_per_token=0.5, p95_factor=1.2, error=0.1, settings={"threads": 1}
)
BM25 = StageCost("bm25", "here", fixed_ms=2.0, p95_factor=1.5)
LENGTHS = Lengths((8, 10, 12), ((50, 70), (60,), (80, 90)))
FOUND = Calibration(
    "2026-11-26T10:00:00+00:00",
    12.5,
    kept.this_machine(),
    [EMBED, BM25],
    [Setting("embedder", "minilm", {"threads": 1}, {"as shipped": 10.0, "1 thread": 12.0}, 1.2)],
    [Throughput("embedder", "minilm", 64, 99.0)],
    {"mine-1": CorpusFigures("mine", "abc", LENGTHS, [replace(BM25, fixed_ms=7.0)])},
)


def test_what_is_kept_is_what_comes_back(tmp_path: Path) -> None:
    path = kept.write(tmp_path, FOUND)
    assert path.parent == tmp_path / "cost"
    found = kept.read(tmp_path)
    assert found is not None
    assert found.rows == FOUND.rows
    assert found.settings == FOUND.settings
    assert found.throughputs == FOUND.throughputs
    assert found.corpora["mine-1"].lengths.as_json() == LENGTHS.as_json()
    assert found.corpora["mine-1"].rows == FOUND.corpora["mine-1"].rows


def test_a_later_one_keeps_what_it_did_not_measure(tmp_path: Path) -> None:
    kept.write(tmp_path, FOUND)
    cross_encoder = StageCost("cross_encoder", "here", "mine", ms_per_token=0.3)
    kept.write(tmp_path, replace(FOUND, rows=[replace(BM25, fixed_ms=3.0), cross_encoder], corpora={}))
    found = kept.read(tmp_path)
    assert found is not None
    assert {row.kind: row.fixed_ms for row in found.rows} == {"bm25": 3.0, "cross_encoder": 0.0, "embed": 3.0}
    assert list(found.corpora) == ["mine-1"]


def test_figures_of_other_versions_are_said_and_not_mixed_with_new_ones(tmp_path: Path) -> None:
    old = {**FOUND.machine, "versions": {**FOUND.machine["versions"], "numpy": "1.0"}}
    kept.write(tmp_path, replace(FOUND, machine=old))
    assert "numpy 1.0 then" in measured_here(reference_costs(), tmp_path).origin
    kept.write(tmp_path, replace(FOUND, rows=[BM25]))
    found = kept.read(tmp_path)
    assert found is not None
    assert [row.kind for row in found.rows] == ["bm25"]


def test_other_versions_drop_local_times_alone_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr("orchestrator.costs.kept.log.info", lambda event, **facts: told.append((event, facts)))
    api, llm = StageCost("api", "there", "served", fixed_ms=90.0), StageCost("llm", "there", "chat", fixed_ms=900.0)
    old = {**FOUND.machine, "versions": {**FOUND.machine["versions"], "numpy": "1.0"}}
    kept.write(tmp_path, replace(FOUND, machine=old, rows=[EMBED, BM25, api, llm]))
    assert told == []
    other = CorpusFigures("other", "def", Lengths((4,), ((30,),)), [BM25])
    kept.write(tmp_path, replace(FOUND, rows=[BM25], settings=[], throughputs=[], corpora={"other-1": other}))
    found = kept.read(tmp_path)
    assert found is not None
    assert list(found.rows) == [BM25, api, llm]
    assert (found.settings, found.throughputs) == ([], [])
    assert {key: one.lengths.as_json() for key, one in found.corpora.items()} == {
        "mine-1": LENGTHS.as_json(),
        "other-1": other.lengths.as_json(),
    }
    assert {key: list(one.rows) for key, one in found.corpora.items()} == {"mine-1": [], "other-1": [BM25]}
    ((event, facts),) = told
    assert event == "calibration.dropped"
    assert (facts["local_times"], facts["settings"]) == (2, 1)
    assert "numpy 1.0 then" in facts["because"]
    assert not found.changed()


def test_another_model_does_not_speak_for_the_usual_one(tmp_path: Path) -> None:
    usual, large = StageCost("dense", "here", "minilm", fixed_ms=1.0), StageCost("dense", "here", "large", fixed_ms=9.0)
    cohere, tei = StageCost("api", "-", "rerank-v4.0-fast", fixed_ms=99.0), StageCost("api", "-", "tei", fixed_ms=5.0)
    for rows in ([usual, cohere], [large, tei], [replace(usual, fixed_ms=2.0)], [large]):
        kept.write(tmp_path, replace(FOUND, rows=rows))
    cost = measured_here(reference_costs(), tmp_path)
    assert cost.predict("dense", 1000, results=10).p50_ms == 2.0
    assert cost.predict("dense", 1000, results=10, model=ModelInfo("large")).p50_ms == 9.0
    assert cost.predict("api", 10, model=ModelInfo("rerank-v4.0-fast")).p50_ms == 99.0
    assert cost.predict("api", 10, model=ModelInfo("tei")).p50_ms == 5.0
    assert cost.predict("api", 10) == reference_costs().predict("api", 10), "one service says nothing of another"


def test_models_are_called_as_the_shipped_stack_and_rules_have_them(tmp_path: Path) -> None:
    shipped = Pipeline.compose(["pipeline=hosted_api", f"storage.root={tmp_path}"], tmp_path)
    cards = {"sentence-transformers/all-MiniLM-L6-v2": "minilm"}
    rules = yaml.safe_load((files("orchestrator.conf") / "decision" / "default.yaml").read_text())
    (hosted,) = (row["stages"]["precise"]["model"] for row in rules["stacks"] if row["name"] == "hosted_api")
    assert {model_of(node.stage, cards) for node in shipped.graph.nodes} - {None} == {kept.USUAL_MODEL, hosted}


def test_of_two_at_once_each_keeps_what_the_other_measured(tmp_path: Path) -> None:
    rows = [StageCost(f"kind{place}", "here", fixed_ms=1.0) for place in range(12)]
    with ThreadPoolExecutor(6) as several:
        list(several.map(lambda row: kept.write(tmp_path, replace(FOUND, rows=[row])), rows))
    found = kept.read(tmp_path)
    assert found is not None
    assert {row.kind for row in found.rows} == {row.kind for row in rows}


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1}', "[1]", '{"format": 9, "rows": []}'])
def test_a_damaged_file_counts_as_none(tmp_path: Path, text: str) -> None:
    path = kept.path_of(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert kept.read(tmp_path) is None
    assert measured_here(reference_costs(), tmp_path) == reference_costs()


def test_measured_rows_go_before_reference_ones(tmp_path: Path) -> None:
    kept.write(tmp_path, FOUND)
    cost = measured_here(reference_costs(), tmp_path)
    assert cost.predict("bm25", 10**6, results=10).p50_ms == 2.0
    assert cost.predict("bm25", 10**6, results=10).p95_ms == pytest.approx(2.0 * 1.5)
    assert "measured on this machine, the last of it on 2026-11-26: bm25, embed minilm;" in cost.origin
    stretched = "reference figures of other machines, stretched to this machine: bi_encoder, cross_encoder ms_marco"
    assert stretched in cost.origin
    assert "published figures: api, llm" in cost.origin


def test_what_was_not_measured_is_stretched_as_the_embedder_is(tmp_path: Path) -> None:
    kept.write(tmp_path, FOUND)
    reference = reference_costs()
    question = Lengths.even(reference.query_tokens)
    speed = (3.0 + 0.5 * question.question()) / reference.embed(ModelInfo("minilm")).p50_ms
    asked = {"documents": 50, "model": ModelInfo("ms_marco_minilm_l6")}
    here = measured_here(reference, tmp_path).predict("cross_encoder", **asked).p50_ms
    assert here == pytest.approx(speed * reference.predict("cross_encoder", **asked).p50_ms)
    remote = measured_here(reference, tmp_path).predict("llm", 5).p50_ms
    assert remote == reference.predict("llm", 5).p50_ms, "somebody else's machine is no slower for that"


def test_searches_of_a_corpus_are_its_own(tmp_path: Path) -> None:
    kept.write(tmp_path, FOUND)
    assert measured_here(reference_costs(), tmp_path, "mine-1").predict("bm25", 9, results=1).p50_ms == 7.0
    found = corpus_figures(tmp_path, "mine-1")
    assert found is not None
    assert found.lengths.document(2) == 60
    assert "mine" in found.lengths.source
    assert corpus_figures(tmp_path, "other") is None


def test_a_file_of_figures_may_keep_measured_ones_out(tmp_path: Path) -> None:
    kept.write(tmp_path, FOUND)
    alone = CostModel.of({"origin": "x", "stages": [{"kind": "bm25", "fixed_ms": 1, "source": "x"}], "spread": SPREAD})
    assert measured_here(alone, tmp_path) is alone


SPREAD = {"local": {"factor": 1.5, "source": "x"}, "remote": {"factor": 3, "source": "x"}}


def test_known_lengths_make_the_p95_and_unknown_ones_the_usual_spread(tmp_path: Path) -> None:
    kept.write(tmp_path, FOUND)
    cost = measured_here(reference_costs(), tmp_path)
    known = cost.embed(ModelInfo("minilm"), LENGTHS)
    p50, longer = 3.0 + 0.5 * 10, 3.0 + 0.5 * 11.8
    assert known.p50_ms == p50
    assert known.p95_ms == pytest.approx(p50 + ((longer - p50) ** 2 + (0.2 * p50) ** 2) ** 0.5)
    even = cost.embed(ModelInfo("minilm"), Lengths.even(10, 50))
    assert even.p95_ms == pytest.approx(p50 * cost.spread["local"])


def test_lengths_are_estimated_from_the_first_documents() -> None:
    found = estimated_lengths(Document(str(n), "x" * 400) for n in range(1000))
    assert found.document(100) == 100
    assert "estimated from 200" in found.source
    assert estimated_lengths([]).document(1) > 0


def test_it_is_readable_json(tmp_path: Path) -> None:
    data = json.loads(kept.write(tmp_path, FOUND).read_text())
    assert data["rows"][0]["kind"] == "embed"
    assert data["machine"]["cores"] >= 1


def test_the_figures_name_the_model_that_was_measured_and_those_that_were_not(tmp_path: Path) -> None:
    ettin = StageCost("cross_encoder", "here", "ettin_reranker_17m", ms_per_token=0.3)
    kept.write(tmp_path, replace(FOUND, rows=[BM25, ettin, replace(EMBED, model="bge_m3")]))
    measured, reference, published, *_ = measured_here(reference_costs(), tmp_path).origin.split("; ")
    assert measured.endswith(": bm25, cross_encoder ettin_reranker_17m, embed bge_m3")
    assert reference.startswith("reference figures of other machines, as they are: "), (
        "nothing tells how to stretch them"
    )
    assert "cross_encoder ms_marco_minilm_l6" in reference
    assert "embed minilm" in reference
    assert published == "published figures: api, llm"


def test_what_was_learned_of_other_documents_is_not_used_and_told(tmp_path: Path) -> None:
    kept.write(tmp_path, FOUND)
    same = measured_here(reference_costs(), tmp_path, "mine-1", "abc")
    assert same.predict("bm25", 9, results=1).p50_ms == 7.0
    assert "documents changed" not in same.origin
    changed = measured_here(reference_costs(), tmp_path, "mine-1", "abd")
    assert changed.predict("bm25", 9, results=1).p50_ms == 2.0, "as over any corpus"
    assert "this corpus was measured before its documents changed: `orchestrate calibrate`" in changed.origin
    assert corpus_figures(tmp_path, "mine-1", "abc") is not None
    assert corpus_figures(tmp_path, "mine-1", "abd") is None
