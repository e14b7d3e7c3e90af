"""What only the configured pipeline has: services that answer and that do not, models of other names, own classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.calibration.corpora import questions
from orchestrator.calibration.own import Ways, time_own_stages
from orchestrator.calibration.timed import Timed
from orchestrator.corpora.corpus_spec import CorpusSpec
from orchestrator.errors import ConfigError, TransientError
from orchestrator.models import Model
from orchestrator.pipeline import Pipeline
from orchestrator.stack.gates import Gate
from orchestrator.stack.graph import StageGraph, StageSpec
from orchestrator.types import Call, Document, Query

MODEL = Model(role="reranker", name="served")
API = ("api", "served")


class Reads:
    """A pointwise rerank of one's own."""

    score_kind = "logit"

    def __init__(self, fails: bool = False, **attributes: Any) -> None:
        self.fails, self.n_asked = fails, 0
        for name, value in attributes.items():
            setattr(self, name, value)

    def load(self) -> None:
        """Nothing to load."""

    def score(self, pairs: Sequence[tuple[Query, Document]], call: Call) -> Any:
        self.n_asked += 1
        if self.fails:
            raise TransientError("served", "no connection")
        call.count(tokens=1, cost_usd=0.5)
        return np.zeros(len(pairs))


def service(fails: bool = False) -> Reads:
    return Reads(fails, cost_kind="api", is_remote=True, model=MODEL)


@pytest.fixture(scope="module")
def bm25(shared_root: Path, small_sample: Path) -> Iterator[Pipeline]:
    with Pipeline.compose(
        ["pipeline=bm25", "cache.scores=false", f"storage.root={shared_root}", f"corpus.path={small_sample}"]
    ) as pipeline:
        yield pipeline


def timed_with(bm25: Pipeline, *stages: Any, gate: Gate | None = None, remotes: bool = True, **given: Any) -> Timed:
    timed = Timed(**given)
    specs = [StageSpec("bm25", bm25.graph["bm25"].stage, 20)]
    for place, stage in enumerate(stages):
        one = StageSpec(f"own{place}", stage, 20)
        specs.append(one if gate is None else replace(one, when=gate))
    with Pipeline(StageGraph.of(specs), bm25.corpus_spec, bm25.storage_root) as own:
        time_own_stages(own, timed, Ways({}, lambda text: len(text) // 4, 0.01, remotes))
    return timed


def test_a_service_is_timed_under_its_model_and_all_that_it_took_is_counted(bm25: Pipeline) -> None:
    stage = service()
    timed = timed_with(bm25, stage)
    assert timed.is_measured(API)
    assert timed.missing == {}
    assert timed.cost_usd == pytest.approx(0.5 * stage.n_asked), "the questions for warmth too"


def test_the_time_of_a_failure_is_not_taken_for_that_of_an_answer(bm25: Pipeline) -> None:
    timed = timed_with(bm25, service(fails=True))
    assert not timed.points[API]
    assert "none of the questions" in timed.missing["api"]
    assert "no connection" in timed.missing["api"]


def test_a_stage_whose_gate_lets_nothing_through_is_said(bm25: Pipeline) -> None:
    timed = timed_with(bm25, Reads(cost_kind="mine"), gate=Gate(min_candidates=1000))
    assert "none of the questions" in timed.missing["mine"]
    assert list(timed.rows("today")) == []


def test_no_service_is_asked_where_that_is_switched_off(bm25: Pipeline) -> None:
    stage = service()
    timed = timed_with(bm25, stage, remotes=False)
    assert stage.n_asked == 0
    assert timed.missing == {"api": "the pipeline asks own0 (served), and task.remotes=false"}


def test_it_is_told_before_that_a_service_is_asked(bm25: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    stage = service()

    def note(event: str, **facts: Any) -> None:
        told.append((facts["service"], facts["most_questions"], stage.n_asked))

    monkeypatch.setattr("orchestrator.calibration.own.log.info", note)
    timed_with(bm25, stage)
    ((name, most, asked_before),) = told
    assert (name, asked_before) == ("own0 (served)", 0)
    assert stage.n_asked <= most == 2 * (3 + 12)


def test_another_model_of_a_measured_or_missing_kind_is_timed(bm25: Pipeline) -> None:
    other = Reads(cost_kind="cross_encoder", model=MODEL)
    missing = {"cross_encoder": "default is not on this machine"}
    timed = timed_with(bm25, other, missing=missing, absent={("cross_encoder", "default")})
    assert timed.is_measured(("cross_encoder", "served"))
    assert timed.missing == {}


def test_a_class_without_a_kind_is_said_and_not_timed(bm25: Pipeline) -> None:
    stage = Reads()
    timed = timed_with(bm25, stage)
    assert timed.missing == {"own0": "its class, Reads, names no cost_kind"}
    assert (stage.n_asked, dict(timed.points)) == (0, {})


@pytest.mark.parametrize("change", [{"queries": "typo.jsonl"}, {"split": "nowhere"}])
def test_questions_that_are_named_and_not_there_are_an_error(bm25: Pipeline, change: dict[str, str]) -> None:
    spec: CorpusSpec = replace(bm25.corpus_spec, **change)
    with Pipeline(bm25.graph, spec, bm25.storage_root) as own, pytest.raises(ConfigError, match=r"corpus\."):
        questions(own)


def test_without_questions_the_first_words_of_documents_stand_in(bm25: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"_id": "a", "text": "one two three"}\n')
    with Pipeline(bm25.graph, CorpusSpec("mine", str(tmp_path / "mine.jsonl")), tmp_path / "home") as own:
        asked, are_real = questions(own)
    assert ([query.text for query in asked], are_real) == (["one two three"], False)
