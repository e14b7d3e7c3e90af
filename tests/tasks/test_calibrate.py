"""`orchestrate calibrate` and what goes by it; what is measured is tested in tests/calibration."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest

from orchestrator.calibration.job import Calibrating
from orchestrator.corpora.corpus import corpus_key, open_corpus
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.costs import kept
from orchestrator.costs.cost import StageCost
from orchestrator.costs.kept import Calibration, CorpusFigures, Setting
from orchestrator.costs.lengths import Lengths
from orchestrator.pipeline import Pipeline

RERANKER = "bge_reranker_v2_m3"


def keep(storage_root: Path, corpus: Path) -> None:
    rows = [
        StageCost("embed", "here", "minilm", fixed_ms=40.0, p95_factor=1.0),
        StageCost("bm25", "here", fixed_ms=30.0, p95_factor=1.0),
    ]
    setting = Setting("embedder", "minilm", {"threads": 1}, {"as shipped": 1.0, "1 thread": 2.0}, 2.0)
    key = corpus_key(CorpusSpec("tiny", str(corpus)))
    with closing(open_corpus(CorpusSpec("tiny", str(corpus)), storage_root)) as opened:
        content_hash = opened.content_hash
    figures = CorpusFigures("tiny", content_hash, Lengths((3, 4), ((110, 120), (130,))))
    found = Calibration("2026-11-26T10:00:00+00:00", 1.0, kept.this_machine(), rows, [setting], [], {key: figures})
    kept.write(storage_root, found)


def planned(orchestrate: Callable, corpus: Path, *words: str) -> dict:
    done = orchestrate("plan", f"corpus.path={corpus}", "format=json", *words)
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_plan_goes_by_what_was_measured(orchestrate: Callable, corpus: Path, storage_root: Path) -> None:
    fast = planned(orchestrate, corpus, "latency_ms=35")
    keep(storage_root, corpus)
    slow = planned(orchestrate, corpus, "latency_ms=35")
    assert fast["choice"]["name"] == "hybrid"
    assert slow["choice"]["name"] == "bm25"
    assert slow["choice"]["predicted_ms"]["p95"] == pytest.approx(30.0, abs=0.1)


def test_figures_can_be_kept_out(orchestrate: Callable, corpus: Path, storage_root: Path) -> None:
    keep(storage_root, corpus)
    assert planned(orchestrate, corpus, "latency_ms=35", "cost.calibrated=false")["choice"]["name"] == "hybrid"


def test_plan_writes_down_how_models_run_fastest(orchestrate: Callable, corpus: Path, storage_root: Path) -> None:
    keep(storage_root, corpus)
    assert "models.embedder.threads=1" in planned(orchestrate, corpus, "latency_ms=500")["choice"]["overrides"]


def test_a_setting_that_ones_own_card_does_not_name_is_added(
    orchestrate: Callable, corpus: Path, storage_root: Path
) -> None:
    keep(storage_root, corpus)
    folder = Path("my_conf") / "model"
    folder.mkdir(parents=True)
    shipped = (files("orchestrator.conf") / "model" / "minilm.yaml").read_text()
    (folder / "mine.yaml").write_text("".join(line for line in shipped.splitlines(True) if "threads" not in line))
    words = ["--config-dir", "my_conf", "model@models.embedder=mine", "latency_ms=500"]
    overrides = planned(orchestrate, corpus, *words)["choice"]["overrides"]
    assert "++models.embedder.threads=1" in overrides
    done = orchestrate("plan", f"corpus.path={corpus}", *words, "save=fast.yaml")
    assert done.code == 0, done.err
    shown = orchestrate("--cfg", "job", "-p", "models.embedder.threads", "--config-dir", "my_conf", *overrides).out
    assert shown.strip() == "1"


def test_plan_knows_the_lengths_of_the_corpus(orchestrate: Callable, corpus: Path, storage_root: Path) -> None:
    assert "documents of 12 tokens" in orchestrate("plan", f"corpus.path={corpus}").out
    keep(storage_root, corpus)
    assert "documents of 122 tokens" in orchestrate("plan", f"corpus.path={corpus}").out


def test_a_corpus_that_changed_since_is_not_taken_for_what_it_was(
    orchestrate: Callable, corpus: Path, storage_root: Path
) -> None:
    keep(storage_root, corpus)
    with (corpus / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "d5", "text": "One more."}) + "\n")
    done = orchestrate("plan", f"corpus.path={corpus}")
    assert "documents of 122 tokens" not in done.out
    assert "this corpus was measured before its documents changed" in " ".join(done.out.split())


def test_on_a_gpu_no_setting_that_was_tried_on_the_cpu_is_written_down(
    orchestrate: Callable, corpus: Path, storage_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    setting = Setting("reranker", RERANKER, {"backend": "openvino", "threads": 1}, {"as shipped": 1.0}, 2.0)
    kept.write(storage_root, Calibration("2026-11-26T10:00:00+00:00", 1.0, kept.this_machine(), [], [setting]))
    words = [f"model@models.reranker={RERANKER}", "candidates=100", "allow=[hub]"]
    on_cpu, on_gpu = ("pipeline.stages.precise.use.backend=" + name for name in ("openvino", "torch"))
    overrides = planned(orchestrate, corpus, *words)["choice"]["overrides"]
    assert on_cpu in overrides
    overrides = planned(orchestrate, corpus, *words, "device=gpu")["choice"]["overrides"]
    assert on_gpu in overrides
    assert on_cpu not in overrides
    assert "pipeline.stages.precise.use.threads=1" not in overrides


def test_check_goes_by_it_too(orchestrate: Callable, corpus: Path, storage_root: Path) -> None:
    words = ["check", "pipeline=bm25", f"corpus.path={corpus}", "budget_ms=20"]
    assert "predicted to take" not in orchestrate(*words).out
    keep(storage_root, corpus)
    shown = " ".join(orchestrate(*words).out.split())
    assert "is predicted to take 30 ms" in shown
    assert "measured on this machine, the last of it on 2026-11-26: bm25, embed minilm" in shown


def test_check_knows_a_card_of_ones_own_by_what_was_measured(
    orchestrate: Callable, corpus: Path, storage_root: Path
) -> None:
    folder = Path("my_conf") / "model"
    folder.mkdir(parents=True)
    shipped = (files("orchestrator.conf") / "model" / "minilm.yaml").read_text()
    (folder / "mine.yaml").write_text(shipped.replace("name: sentence-transformers/all-MiniLM-L6-v2", "name: my/own"))
    row = StageCost("embed", "here", "mine", fixed_ms=77.0, p95_factor=1.0)
    kept.write(storage_root, Calibration("2026-11-26T10:00:00+00:00", 1.0, kept.this_machine(), [row]))
    words = ["--config-dir", "my_conf", "model@models.embedder=mine", f"corpus.path={corpus}", "format=json"]
    done = orchestrate("check", "+scenario=edge", *words)
    assert done.code == 0, done.err
    assert "77." in done.out


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("seconds=0", "task.seconds: found 0; expected a number above 0, at most 60"),
        ("seconds=a_while", "task.seconds: found 'a_while'; expected a number"),
        ("remotes=perhaps", "task.remotes: found 'perhaps'; expected true or false"),
        ("corpus.path=/no/such/corpus", "corpus.path"),
        ("corpus.queries=typo.jsonl", "corpus.queries"),
        ("format=trec", "format: found trec; calibrate ranks no documents"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    orchestrate: Callable, storage_root: Path, word: str, message: str
) -> None:
    done = orchestrate("calibrate", word)
    assert done.code == 2
    assert message in done.err
    assert not (storage_root / "indexes").exists()


def test_the_models_are_those_of_the_configuration_whoever_set_them(
    orchestrate: Callable, storage_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "conf"
    (mine / "scenario").mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - override /pipeline: by_language\n"
    text += "  - override /model@models.embedder: bge_small_en_v1_5\nmodels: {embedder: {batch_tokens: 77}}\n"
    (mine / "scenario" / "my.yaml").write_text(text)
    found = []

    def measure(job: Calibrating, own: Pipeline) -> Calibration:
        whole = job._sample().graph
        found.append(whole["dense"].stage.embedder)  # type: ignore[union-attr]
        job.timed.missing["api"] = "a reason"
        return Calibration("2026-11-26T10:00:00+00:00", 1.0, kept.this_machine(), [])

    monkeypatch.setattr(Calibrating, "run", measure)
    words = ["--config-dir", str(mine), "+scenario=my", "model@models.reranker_en=ms_marco_minilm_l6"]
    done = orchestrate("calibrate", *words, "format=json")
    assert done.code == 0, done.err
    assert (found[0].model.name, found[0].batch_tokens) == ("BAAI/bge-small-en-v1.5", 77)
    assert json.loads(done.out)["missing"]["api"] == "a reason"


@pytest.mark.slow
def test_the_command_measures_and_keeps(orchestrate: Callable, storage_root: Path) -> None:
    done = orchestrate("calibrate", "seconds=0.1")
    assert done.code == 0, done.err
    assert "late_interaction" in done.out
    assert "cross_encoder was not measured" in " ".join(done.out.split())
    found = kept.read(storage_root)
    assert found is not None
    assert {row.kind for row in found.rows} >= {"embed", "bm25", "dense", "ltr", "late_interaction", "bi_encoder"}
